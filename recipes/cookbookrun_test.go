// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

var (
	cookbookDocs  = []string{"../docs/recipes.md", "../docs/from-curator.md", "../docs/from-etcd.md"}
	cookbookBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
)

// cookbookLines bounds an answer: who looks one up wants to see it at once.
const cookbookLines = 16

// cookbook returns the bodies of the functions of cookbook_test.go, by name.
func cookbook(t *testing.T) map[string]string {
	t.Helper()
	const name = "cookbook_test.go"
	src, err := os.ReadFile(name)
	must(t, err)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	must(t, err)
	bodies := map[string]string{}
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			body := string(src[fset.Position(fn.Body.Lbrace).Offset+1 : fset.Position(fn.Body.Rbrace).Offset])
			bodies[fn.Name.Name] = strings.TrimSpace(strings.ReplaceAll(body, "\n\t", "\n"))
		}
	}
	return bodies
}

// What the documents show is what is compiled here, and all that is compiled here is shown.
func TestCookbookIsShown(t *testing.T) {
	bodies, shown := cookbook(t), map[string]bool{}
	for _, doc := range cookbookDocs {
		text, err := os.ReadFile(doc)
		must(t, err)
		blocks := cookbookBlock.FindAllSubmatch(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), -1)
		if len(blocks) == 0 {
			t.Errorf("%s shows nothing", doc)
		}
		for _, b := range blocks {
			block := strings.TrimSpace(string(b[1]))
			if n := strings.Count(block, "\n") + 1; n > cookbookLines {
				t.Errorf("%s: a block has %d lines, want at most %d:\n%s", doc, n, cookbookLines, block)
			}
			known := false
			for name, body := range bodies {
				if body == block {
					known, shown[name] = true, true
				}
			}
			if !known {
				t.Errorf("%s: this is the body of no function of cookbook_test.go:\n%s", doc, block)
			}
		}
	}
	for name := range bodies {
		if !shown[name] {
			t.Errorf("no document shows %s", name)
		}
	}
}

// What can be made here, the cookbook has: a block calls it, not a sentence.
func TestCookbookIsComplete(t *testing.T) {
	doc, err := os.ReadFile(cookbookDocs[0])
	must(t, err)
	var shown bytes.Buffer
	for _, b := range cookbookBlock.FindAllSubmatch(bytes.ReplaceAll(doc, []byte("\r\n"), []byte("\n")), -1) {
		shown.Write(b[1])
	}
	names, err := os.ReadDir(".")
	must(t, err)
	for _, entry := range names {
		if name := entry.Name(); !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, parser.SkipObjectResolution)
		must(t, err)
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !fn.Name.IsExported() {
				continue
			}
			name := fn.Name.Name
			recipe := strings.HasPrefix(name, "New")
			for _, p := range fn.Type.Params.List {
				if sel, ok := p.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
					recipe = true
				}
			}
			if recipe && !regexp.MustCompile(`\brecipes\.(`+name+`[\[(]|`+strings.TrimPrefix(name, "New")+`\{)`).Match(shown.Bytes()) {
				t.Errorf("no block of %s uses recipes.%s", cookbookDocs[0], name)
			}
			if !recipe && !regexp.MustCompile("\\b"+name+"\\b").Match(doc) { // an option of one
				t.Errorf("%s does not mention %s", cookbookDocs[0], name)
			}
		}
	}
	for _, part := range []string{"Provider", "Grace", "Retain", "Settled", "MaxItems", "Take", "SetLimit", "Downgrade", "Observe", "Block", "AckWith"} {
		if !regexp.MustCompile(`\.` + part + `\b`).Match(shown.Bytes()) {
			t.Errorf("no block of %s uses %s", cookbookDocs[0], part)
		}
	}
}

// cookbookRuns call the functions of the cookbook, each on members of an ensemble of its own.
var cookbookRuns = map[string]func(t *testing.T, ctx context.Context, m, other *zk.Member){
	"oneAtATime": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		must(t, oneAtATime(ctx, m, func(ctx context.Context) error {
			return unlessItRuns(ctx, other, func(context.Context) error { return errors.New("two at a time") })
		}))
	},
	"unlessItRuns": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		wants(t, unlessItRuns(ctx, m, func(context.Context) error { return errEnough }), errEnough)
	},
	"afterACrash": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		s, err := other.NewSession(ctx, zk.SessionConfig{})
		must(t, err)
		theirs := &recipes.Lock{Session: s, Path: "/app/printer", Grace: 30 * time.Second}
		_, err = theirs.Acquire(ctx)
		must(t, err)
		must(t, s.Close())
		must(t, m.WaitZxid(ctx, other.Applied()))
		vacant := time.Now()
		wants(t, afterACrash(ctx, m, func(context.Context) error {
			if waited := time.Since(vacant); waited < 30*time.Second {
				t.Errorf("after %v, want 30s", waited)
			}
			return errEnough
		}), errEnough)
	},
	"beyondTheCaller": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		h, err := recipes.NewLock(m, "/app/lock").Acquire(ctx)
		must(t, err)
		released := make(chan struct{})
		done := beyondTheCaller(ctx, h, func(ctx context.Context) error {
			<-released
			_, err := recipes.NewLock(other, "/app/lock").TryAcquire(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			return ctx.Err()
		})
		must(t, h.Release(ctx))
		close(released)
		must(t, soon(t, "the upload does not end", done))
		_, err = recipes.NewLock(other, "/app/lock").TryAcquire(ctx)
		must(t, err)
	},
	"onceAnHour": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		wants(t, onceAnHour(ctx, m, func(context.Context) error { return errEnough }), errEnough)
		must(t, onceAnHour(ctx, other, func(context.Context) error { return errors.New("twice an hour") }))
	},
	"effectsInTheTree": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s := given(t, ctx, m, "/app/state", "")
		h, err := recipes.NewLock(m, "/app/lock").Acquire(ctx)
		must(t, err)
		must(t, effectsInTheTree(ctx, h, []byte("1")))
		must(t, h.Release(ctx))
		wants(t, effectsInTheTree(ctx, h, []byte("2")), recipes.ErrReleased)
		holds(t, ctx, s, "/app/state", "1")
	},
	"effectsElsewhere": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		h, err := recipes.NewLock(m, "/app/lock").Acquire(ctx)
		must(t, err)
		must(t, effectsElsewhere(ctx, h, func(_ context.Context, token zk.Token) error {
			if token != h.Token() {
				t.Errorf("token %d, want %d", token, h.Token())
			}
			return nil
		}))
		must(t, h.Release(ctx))
		wants(t, effectsElsewhere(ctx, h, nil), recipes.ErrReleased)
	},
	"askForIt": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		h, err := recipes.NewLock(m, "/app/report").Acquire(ctx)
		must(t, err)
		revoked := h.Revoked()
		must(t, other.WaitZxid(ctx, m.Applied()))
		must(t, askForIt(ctx, other))
		soon(t, "the holder is not asked", revoked)
		must(t, h.Release(ctx))
	},
	"readersAndWriters": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		must(t, readersAndWriters(ctx, m, func() error {
			_, err := recipes.NewRWLock(other, "/app/catalogue").TryRLock(ctx)
			wants(t, err, recipes.ErrNotAcquired)
			return nil
		}, func() error {
			h, err := recipes.NewRWLock(other, "/app/catalogue").RLock(ctx)
			must(t, err)
			return h.Release(ctx)
		}))
	},
	"severalLocks": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s := given(t, ctx, m, "/balance", "")
		must(t, severalLocks(ctx, m, zk.OpSet("/balance", []byte("5"), zk.AnyVersion)))
		holds(t, ctx, s, "/balance", "5")
	},
	"atMostThree": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		three, err := recipes.NewSemaphore(other, "/app/downloads", 3).AcquireN(ctx, 3)
		must(t, err)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		wants(t, atMostThree(short, m, nil), context.DeadlineExceeded)
		must(t, three.Release(ctx))
		wants(t, atMostThree(ctx, m, func(context.Context) error { return errEnough }), errEnough)
	},
	"changeTheLimit": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		must(t, changeTheLimit(ctx, m))
		s, err := m.Session(ctx)
		must(t, err)
		holds(t, ctx, s, "/app/workers", "8")
	},
	"oneLeads, whoLeads": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		wants(t, oneLeads(ctx, m, func(context.Context, *recipes.Leadership) error {
			return whoLeads(ctx, other, func(addr string) error {
				if addr != "10.0.0.1:8080" {
					t.Errorf("%q leads", addr)
				}
				return errEnough
			})
		}), errEnough)
	},
	"liveConfiguration, changeConfiguration": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		var seen []int
		wants(t, liveConfiguration(ctx, m, func(workers int) error {
			seen = append(seen, workers)
			switch len(seen) {
			case 1:
				must(t, changeConfiguration(ctx, other))
			case 2:
				s, err := m.Session(ctx)
				must(t, err)
				_, err = s.Set(ctx, "/app/config", []byte("nonsense"), zk.AnyVersion)
				must(t, err)
				time.AfterFunc(time.Second, func() {
					if _, err := s.Set(ctx, "/app/config", []byte(`{"Workers":7}`), zk.AnyVersion); err != nil {
						t.Error(err)
					}
				})
			default:
				return errEnough
			}
			return nil
		}), errEnough)
		if want := []int{4, 5, 7}; !slices.Equal(seen, want) {
			t.Errorf("%d, want %d", seen, want)
		}
	},
	"followSubtree": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		given(t, ctx, m, "/app/routes/a", "1")
		var seen []string
		wants(t, followSubtree(ctx, m, func(c recipes.Change) error {
			if seen = append(seen, c.Path); len(seen) == 2 {
				return errEnough
			}
			return nil
		}), errEnough)
		if want := []string{"/app/routes", "/app/routes/a"}; !slices.Equal(seen, want) {
			t.Errorf("%q, want %q", seen, want)
		}
	},
	"beThere, whoIsThere": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		working, stop := context.WithCancel(ctx)
		defer stop()
		left := make(chan error, 1)
		go func() { left <- beThere(working, m) }()
		there := false
		wants(t, whoIsThere(ctx, other, func(members []recipes.Member) error {
			switch {
			case len(members) > 0:
				there = true
				stop()
			case there:
				return errEnough
			}
			return nil
		}), errEnough)
		must(t, soon(t, "it does not leave", left))
	},
	"onceAllHaveStarted": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		crew := recipes.NewGroup(m, "/app/workers")
		_, err := crew.Join(ctx, "a", nil)
		must(t, err)
		time.AfterFunc(3*time.Second, func() {
			if _, err := crew.Join(ctx, "b", nil); err != nil {
				t.Error(err)
			}
		})
		wants(t, onceAllHaveStarted(ctx, other, func(members []recipes.Member) error {
			if len(members) != 2 {
				t.Errorf("%d members, want 2", len(members))
			}
			return errEnough
		}), errEnough)
	},
	"keepItThere": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s, err := m.Session(ctx)
		must(t, err)
		states := make(chan []byte)
		go func() {
			defer close(states)
			states <- []byte("ready")
			states <- []byte("busy")
			if data, _, err := s.Get(ctx, "/app/status/host-1"); string(data) != "ready" || err != nil {
				t.Errorf("%q, %v", data, err)
			}
		}()
		must(t, keepItThere(ctx, m, states))
		if _, ok, err := s.Exists(ctx, "/app/status/host-1"); ok || err != nil {
			t.Errorf("it is still there: %v, %v", ok, err)
		}
	},
	"outliveRestarts": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		must(t, outliveRestarts(ctx, m))
		s, err := m.Session(ctx)
		must(t, err)
		time.Sleep(9 * time.Minute)
		holds(t, ctx, s, "/app/installed/host-1", "")
	},
	"shareItems": func(t *testing.T, ctx context.Context, m, _ *zk.Member) { shares(t, ctx, m, 4, shareItems) },
	"produce, consume": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		s := given(t, ctx, m, "/app/result", "")
		must(t, produce(ctx, m))
		var done []string
		working, stop := context.WithCancel(ctx)
		defer stop()
		wants(t, consume(working, other, func(job string) ([]byte, error) {
			switch done = append(done, job); len(done) {
			case 1:
				return nil, errEnough // and so it comes again
			case 4:
				stop()
			}
			return []byte(job), nil
		}), context.Canceled)
		if want := []string{"pay the bill", "resize cat.jpg", "pay the bill", "remind me"}; !slices.Equal(done, want) {
			t.Errorf("%q, want %q", done, want)
		}
		holds(t, ctx, s, "/app/result", "pay the bill")
	},
	"boundedQueue": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		images := recipes.NewQueue[[]byte](other, "/app/images")
		must(t, images.PutAll(ctx, make([][]byte, 99)...))
		must(t, boundedQueue(ctx, m, []byte("cat")))
		must(t, boundedQueue(ctx, m, []byte("dog"))) // ten seconds later
		must(t, other.WaitZxid(ctx, m.Applied()))
		if n, err := images.Len(ctx); n != 100 || err != nil {
			t.Errorf("%d items, %v, want 100", n, err)
		}
	},
	"atMostOnce": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		must(t, recipes.NewQueue[string](other, "/app/notices").PutAll(ctx, "a", "b"))
		working, stop := context.WithCancel(ctx)
		defer stop()
		var seen []string
		wants(t, atMostOnce(working, m, func(text string) {
			if seen = append(seen, text); len(seen) == 2 {
				stop()
			}
		}), context.Canceled)
		if want := []string{"a", "b"}; !slices.Equal(seen, want) {
			t.Errorf("%q, want %q", seen, want)
		}
	},
	"shardedQueue": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		wants(t, shardedQueue(ctx, m, func(string) error { return errEnough }), errEnough)
		must(t, other.WaitZxid(ctx, m.Applied()))
		must(t, shardedQueue(ctx, other, func(job string) error { // the same, and one is left
			if job != "resize cat.jpg" {
				t.Errorf("it is to %s", job)
			}
			return nil
		}))
	},
	"together": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		var there atomic.Int32
		var all sync.WaitGroup
		for _, m := range []*zk.Member{m, other, m} {
			there.Add(1)
			all.Go(func() {
				if err := together(ctx, m, func(context.Context) error {
					if there.Load() != 3 {
						t.Error("began before all were there")
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	},
	"duringMaintenance": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		passed := make(chan error, 1)
		must(t, duringMaintenance(ctx, m, func() error {
			go func() { passed <- recipes.NewBarrier(other, "/app/maintenance").Wait(ctx) }()
			time.Sleep(time.Minute)
			select {
			case err := <-passed:
				return fmt.Errorf("nobody waits: %v", err)
			default:
				return nil
			}
		}))
		must(t, soon(t, "the barrier does not lift", passed))
	},
	"whenAllAreReady": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		var all sync.WaitGroup
		for _, m := range []*zk.Member{m, other, m} {
			all.Go(func() {
				if err := whenAllAreReady(ctx, m); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	},
	"giveOutNumbers": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		given := map[int64]bool{}
		for _, m := range []*zk.Member{m, other} {
			must(t, giveOutNumbers(ctx, m, func(id int64) error { given[id] = true; return nil }))
		}
		if len(given) != 2000 {
			t.Errorf("%d numbers, want 2000", len(given))
		}
	},
	"offerService, useService": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		serving, stop := context.WithCancel(ctx)
		gone := make(chan error, 1)
		go func() { gone <- offerService(serving, m) }()
		eventually(t, "the service is not found", func() bool {
			return useService(ctx, other, func(addr string) error {
				if addr != "10.0.0.7:9000" {
					t.Errorf("it is at %s", addr)
				}
				return nil
			}) == nil
		})
		stop()
		must(t, soon(t, "the service does not go", gone))
		must(t, other.WaitZxid(ctx, m.Applied()))
		wants(t, useService(ctx, other, nil), recipes.ErrNoInstance)
	},
	"severalZnodes": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s := given(t, ctx, m, "/app/current", "1")
		wants(t, severalZnodes(ctx, m), zk.ErrNoNode)
		given(t, ctx, m, "/app/next", "2")
		must(t, severalZnodes(ctx, m))
		holds(t, ctx, s, "/app/current", "2")
	},
	"askAllSites, takePart": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		taken := make(chan error, 1)
		go func() {
			taken <- takePart(ctx, other, func(request []byte) bool { return string(request) == "5 from a to b" }, func(id string, commit bool) error {
				if id != "transfer-17" || !commit {
					t.Errorf("%s is committed: %v", id, commit)
				}
				return errEnough
			})
		}()
		go func() {
			for p, err := range recipes.NewTwoPhase(m, "/app/transfers").Proposals(ctx, "site-b") {
				if err != nil {
					t.Error(err)
				} else if err := p.Vote(ctx, true); err != nil {
					t.Error(err)
				}
				return
			}
		}()
		if committed, err := askAllSites(ctx, m); !committed || err != nil {
			t.Errorf("committed: %v, %v", committed, err)
		}
		wants(t, soon(t, "nobody takes part", taken), errEnough)
	},
	"migrateOnce": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		must(t, migrateOnce(ctx, m))
		must(t, migrateOnce(ctx, other))
		s, err := other.Session(ctx)
		must(t, err)
		holds(t, ctx, s, "/app/users/limit", "10")
	},
	"typedZnodes": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		given(t, ctx, m, "/tenants/zoo/plan", "paid")
		var plans []string
		must(t, typedZnodes(ctx, m, func(path, plan string) error {
			plans = append(plans, path+" "+plan)
			return nil
		}))
		if want := []string{"/tenants/acme/plan free", "/tenants/zoo/plan paid"}; !slices.Equal(plans, want) {
			t.Errorf("%q, want %q", plans, want)
		}
	},
	"rulesForPaths": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s := given(t, ctx, m, "/tenants/acme/workers", "")
		err := rulesForPaths(ctx, s)
		if _, ok := errors.AsType[*recipes.SchemaError](err); !ok {
			t.Errorf("error is %v", err)
		}
	},
	"ownRetries": func(t *testing.T, ctx context.Context, _, _ *zk.Member) {
		calls := 0
		must(t, ownRetries(ctx, func(context.Context) error {
			if calls++; calls < 10 {
				return errEnough
			}
			return nil
		}))
	},
	"apartFromOthers": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		h, err := recipes.NewLock(m, "/lock").Acquire(ctx)
		must(t, err)
		must(t, apartFromOthers(ctx, m))
		must(t, h.Release(ctx))
	},
	"fromInterProcessMutex": func(t *testing.T, ctx context.Context, m, other *zk.Member) {
		wants(t, fromInterProcessMutex(ctx, m, func(ctx context.Context) error {
			must(t, fromInterProcessMutex(ctx, other, nil)) // ten seconds later
			return errEnough
		}), errEnough)
	},
	"fromKazooPartitioner": func(t *testing.T, ctx context.Context, m, _ *zk.Member) { shares(t, ctx, m, 3, fromKazooPartitioner) },
	"fromEtcdElection": func(t *testing.T, ctx context.Context, m, _ *zk.Member) {
		s := given(t, ctx, m, "/state", "")
		wants(t, fromEtcdElection(ctx, m, func(context.Context) error { return errEnough }), errEnough)
		holds(t, ctx, s, "/state", "led")
	},
}

var errEnough = errors.New("enough")

// given creates a znode and what is missing above it.
func given(t *testing.T, ctx context.Context, m *zk.Member, path, data string) *zk.Session {
	t.Helper()
	s, err := m.Session(ctx)
	must(t, err)
	_, err = s.Create(ctx, path, []byte(data), zk.Persistent|zk.Parents)
	must(t, err)
	return s
}

func holds(t *testing.T, ctx context.Context, s *zk.Session, path, want string) {
	t.Helper()
	if data, _, err := s.Get(ctx, path, zk.Linearizable); string(data) != want || err != nil {
		t.Errorf("%s is %q, %v, want %q", path, data, err, want)
	}
}

// shares stops once so many items are worked on.
func shares(t *testing.T, ctx context.Context, m *zk.Member, items int32, share func(context.Context, *zk.Member, func(context.Context, string, *recipes.Held) error) error) {
	t.Helper()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var begun atomic.Int32
	wants(t, share(working, m, func(ctx context.Context, _ string, _ *recipes.Held) error {
		if begun.Add(1) == items {
			stop()
		}
		<-ctx.Done()
		return nil
	}), context.Canceled)
}

// Everything that the documents show does what they say of it.
func TestCookbook(t *testing.T) {
	var run []string
	for names, fn := range cookbookRuns {
		run = append(run, strings.Split(names, ", ")...)
		t.Run(names, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				fn(t, ctx, c.Member(leader(t, ctx, c)), c.Member(follower(t, ctx, c)))
			})
		})
	}
	for name := range cookbook(t) {
		if !slices.Contains(run, name) {
			t.Errorf("nobody runs %s", name)
		}
	}
}
