// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gozk "github.com/go-zookeeper/zk"
)

// goClient is a client of go-zookeeper.
type goClient struct {
	*gozk.Conn
	events <-chan gozk.Event
}

// goConnect opens a client, which ends with the test, and waits until it has a session.
func goConnect(t *testing.T, e *ensemble) *goClient {
	t.Helper()
	c, events, err := gozk.Connect(strings.Split(e.connect(), ","), 10*time.Second, gozk.WithLogger(quietLogger{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	g := &goClient{c, events}
	g.await(t, gozk.StateHasSession)
	return g
}

type quietLogger struct{}

func (quietLogger) Printf(string, ...any) {}

// await waits for a state.
func (c *goClient) await(t *testing.T, want gozk.State) {
	t.Helper()
	for late := time.After(bound); ; {
		select {
		case ev := <-c.events:
			if ev.State == want {
				return
			}
		case <-late:
			t.Fatalf("the client does not come to %v", want)
		}
	}
}

// settle syncs until the client has come through a change of servers.
func (c *goClient) settle(t *testing.T, path string) {
	t.Helper()
	eventually(t, func() error {
		_, err := c.Sync(path)
		return err
	})
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("at last: %v", err)
		case <-tick.C:
		}
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func next(t *testing.T, events <-chan gozk.Event, kind gozk.EventType, path string) {
	t.Helper()
	select {
	case ev := <-events:
		if ev.Type != kind || ev.Path != path {
			t.Fatalf("got event %v, want %v of %s", ev, kind, path)
		}
	case <-time.After(bound):
		t.Fatalf("no event %v of %s", kind, path)
	}
}

// goVersion is the version of go-zookeeper that go.mod names; a test's build information does not say.
func goVersion(t *testing.T) string {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(mod), "github.com/go-zookeeper/zk v")
	version, _, _ := strings.Cut(rest, "\n")
	return version
}

// tried is a suite that runs in this process.
type tried struct {
	t   *testing.T
	row *row
}

func (s tried) run(name string, f func(*testing.T)) {
	skipped := false
	ok := s.t.Run(name, func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		f(t)
	})
	switch {
	case skipped:
		s.row.skipped++
	case ok:
		s.row.passed++
	default:
		s.row.failed++
	}
}

func TestGoZookeeper(t *testing.T) {
	e := open(t)
	s := tried{t, newRow("every call of the API, watches, multi, its Lock, kill of the leader")}
	s.row.client, s.row.version = "go-zookeeper/zk", goVersion(t)
	everyone := gozk.WorldACL(gozk.PermAll)

	s.run("calls", func(t *testing.T) {
		c := goConnect(t, e)
		must(c.Create("/go", []byte("one"), 0, everyone))(t)
		data, st, err := c.Get("/go")
		if err != nil || string(data) != "one" || st.Version != 0 || st.Czxid != st.Mzxid {
			t.Fatalf("%q, %+v, %v", data, st, err)
		}
		if st := must(c.Set("/go", []byte("two"), 0))(t); st.Version != 1 {
			t.Fatalf("%+v", st)
		}
		_, err = c.Set("/go", nil, 7)
		wantErr(t, err, gozk.ErrBadVersion)
		_, err = c.Create("/go", nil, 0, everyone)
		wantErr(t, err, gozk.ErrNodeExists)
		_, err = c.Create("/go/a/b", nil, 0, everyone)
		wantErr(t, err, gozk.ErrNoNode)
		must(c.Create("/go/kid", nil, 0, everyone))(t)
		wantErr(t, c.Delete("/go", -1), gozk.ErrNotEmpty)
		if ok, _, err := c.Exists("/none"); ok || err != nil {
			t.Fatal(ok, err)
		}
		wantErr(t, c.Delete("/none", -1), gozk.ErrNoNode)
		big := bytes.Repeat([]byte{7}, 1_000_000)
		must(c.Set("/go", big, -1))(t)
		if data, _, err := c.Get("/go"); err != nil || !bytes.Equal(data, big) {
			t.Fatal("large data", err)
		}
	})
	s.run("create_modes", func(t *testing.T) {
		c := goConnect(t, e)
		must(c.Create("/go-modes", nil, 0, everyone))(t)
		for i, f := range []func() (string, error){
			func() (string, error) { return c.Create("/go-modes/s-", nil, gozk.FlagSequence, everyone) },
			func() (string, error) {
				return c.Create("/go-modes/s-", nil, gozk.FlagSequence|gozk.FlagEphemeral, everyone)
			},
		} {
			if path := must(f())(t); path != fmt.Sprintf("/go-modes/s-%010d", i) {
				t.Fatal(path)
			}
		}
		if st := must2(c.Exists("/go-modes/s-0000000001"))(t); st.EphemeralOwner != c.SessionID() {
			t.Fatalf("%+v", st)
		}
		must(c.CreateContainer("/go-modes/container", nil, gozk.FlagContainer, everyone))(t)
		must(c.CreateTTL("/go-modes/ttl", nil, gozk.FlagTTL, everyone, time.Minute))(t)
		p := must(c.CreateProtectedEphemeralSequential("/go-modes/p-", nil, everyone))(t)
		if !strings.HasPrefix(p, "/go-modes/_c_") || !strings.HasSuffix(p, "-p-0000000004") {
			t.Fatal(p)
		}
		names, st, err := c.Children("/go-modes")
		if err != nil || len(names) != 5 || st.NumChildren != 5 {
			t.Fatal(names, st, err)
		}
	})
	s.run("multi", func(t *testing.T) {
		c := goConnect(t, e)
		r := must(c.Multi(&gozk.CreateRequest{Path: "/go-multi", Acl: everyone}, &gozk.SetDataRequest{Path: "/go-multi", Data: []byte("x"), Version: 0},
			&gozk.CheckVersionRequest{Path: "/go-multi", Version: 1}, &gozk.CreateRequest{Path: "/go-multi/a", Acl: everyone}, &gozk.DeleteRequest{Path: "/go-multi/a", Version: 0}))(t)
		if r[0].String != "/go-multi" || r[1].Stat.Version != 1 {
			t.Fatalf("%+v", r)
		}
		_, err := c.Multi(&gozk.CreateRequest{Path: "/go-multi/b", Acl: everyone}, &gozk.CheckVersionRequest{Path: "/go-multi", Version: 7})
		if err == nil {
			t.Fatal("no error")
		}
		if ok, _, err := c.Exists("/go-multi/b"); ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	s.run("acls_and_auth", func(t *testing.T) {
		c, other := goConnect(t, e), goConnect(t, e)
		if err := c.AddAuth("digest", []byte("joe:secret")); err != nil {
			t.Fatal(err)
		}
		acl := gozk.DigestACL(gozk.PermAll, "joe", "secret")
		must(c.Create("/go-acl", []byte("mine"), 0, acl))(t)
		other.settle(t, "/")
		_, _, err := other.Get("/go-acl")
		wantErr(t, err, gozk.ErrNoAuth)
		got, _, err := c.GetACL("/go-acl")
		if err != nil || !slices.Equal(got, acl) {
			t.Fatal(got, err)
		}
		must(c.SetACL("/go-acl", append(acl, gozk.WorldACL(gozk.PermRead)...), 0))(t)
		other.settle(t, "/")
		if data, _, err := other.Get("/go-acl"); err != nil || string(data) != "mine" {
			t.Fatal(data, err)
		}
	})
	s.run("watches", func(t *testing.T) {
		c, w := goConnect(t, e), goConnect(t, e)
		_, _, created, err := w.ExistsW("/go-w")
		if err != nil {
			t.Fatal(err)
		}
		must(c.Create("/go-w", nil, 0, everyone))(t)
		next(t, created, gozk.EventNodeCreated, "/go-w")
		_, _, changed, err := w.GetW("/go-w")
		if err != nil {
			t.Fatal(err)
		}
		must(c.Set("/go-w", nil, -1))(t)
		next(t, changed, gozk.EventNodeDataChanged, "/go-w")
		_, _, kids, err := w.ChildrenW("/go-w")
		if err != nil {
			t.Fatal(err)
		}
		must(c.Create("/go-w/a", nil, 0, everyone))(t)
		next(t, kids, gozk.EventNodeChildrenChanged, "/go-w")
		_, _, gone, err := w.GetW("/go-w/a")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Delete("/go-w/a", -1); err != nil {
			t.Fatal(err)
		}
		next(t, gone, gozk.EventNodeDeleted, "/go-w/a")
	})
	s.run("many_callers_share_a_connection", func(t *testing.T) {
		c := goConnect(t, e)
		must(c.Create("/go-many", nil, 0, everyone))(t)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 16 {
			wg.Go(func() {
				for range 25 {
					if _, err := c.Create("/go-many/n-", nil, gozk.FlagSequence, everyone); err != nil {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if names, _, err := c.Children("/go-many"); err != nil || len(names) != 400 || failed.Load() != 0 {
			t.Fatal(len(names), failed.Load(), err)
		}
	})
	s.run("four_letter_words", func(t *testing.T) {
		c := goConnect(t, e)
		servers := strings.Split(e.connect(), ",")
		if *against == "zk" { // the client cannot parse the version that Debian's ZooKeeper tells
			stats, ok := gozk.FLWSrvr(servers, bound)
			leaders := 0
			for _, s := range stats {
				if s.Mode == gozk.ModeLeader {
					leaders++
				}
				if !ok {
					t.Logf("%+v", s)
				}
			}
			if !ok || leaders != 1 {
				t.Errorf("%d leaders", leaders)
			}
		}
		// FLWCons takes the connection that asks, which has no session, for a fault; what it found counts.
		listed, _ := gozk.FLWCons(servers, bound)
		if !slices.ContainsFunc(listed, func(s *gozk.ServerClients) bool {
			return slices.ContainsFunc(s.Clients, func(one *gozk.ServerClient) bool { return one.SessionID == c.SessionID() })
		}) {
			t.Error("no server lists the session")
		}
		if i := slices.Index(gozk.FLWRuok(servers, bound), false); i >= 0 {
			t.Fatalf("%s is not ok", servers[i])
		}
	})
	s.run("lock", func(t *testing.T) {
		var inside, turns, overlaps atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			c := goConnect(t, e)
			wg.Go(func() {
				for range 5 {
					l := gozk.NewLock(c.Conn, "/go-locks/x", everyone)
					if err := l.Lock(); err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						overlaps.Add(1)
					}
					turns.Add(1)
					inside.Add(-1)
					if err := l.Unlock(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if turns.Load() != 20 || overlaps.Load() != 0 {
			t.Errorf("%d turns, %d overlaps", turns.Load(), overlaps.Load())
		}
	})
	s.run("leader_kill", func(t *testing.T) { goLeaderKill(t, e, everyone) })
}

func must2[T any](_ bool, v T, err error) func(*testing.T) T { return must(v, err) }

func goLeaderKill(t *testing.T, e *ensemble, everyone []gozk.ACL) {
	leader := must(e.leader(t.Context()))(t)
	var both [2]*goClient // at the leader, and elsewhere
	for range 50 {
		c := goConnect(t, e)
		i := 1
		if c.Server() == leader.addr {
			i = 0
		}
		if both[i] == nil {
			both[i] = c
		} else {
			c.Close()
		}
		if both[0] != nil && both[1] != nil {
			break
		}
	}
	if both[0] == nil || both[1] == nil {
		t.Fatal("no client at the leader, or none elsewhere")
	}
	must(both[0].Create("/go-kill", nil, 0, everyone))(t)
	must(both[0].Create("/go-kill/locks", nil, 0, everyone))(t)
	var changed, created, kids [2]<-chan gozk.Event
	var ids [2]int64
	for i, c := range both {
		p := fmt.Sprintf("/go-kill/%d", i)
		c.settle(t, "/")
		must(c.Create(p, nil, 0, everyone))(t)
		must(c.Create(p+"-kids", nil, 0, everyone))(t)
		must(c.Create(p+"-e", nil, gozk.FlagEphemeral, everyone))(t)
		var err error
		if _, _, changed[i], err = c.GetW(p); err != nil {
			t.Fatal(err)
		}
		if _, _, created[i], err = c.ExistsW(p + "-new"); err != nil {
			t.Fatal(err)
		}
		if _, _, kids[i], err = c.ChildrenW(p + "-kids"); err != nil {
			t.Fatal(err)
		}
		ids[i] = c.SessionID()
	}
	held := gozk.NewLock(both[0].Conn, "/go-kill/locks", everyone)
	if err := held.Lock(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- gozk.NewLock(both[1].Conn, "/go-kill/locks", everyone).Lock() }()
	eventually(t, func() error {
		if names, _, err := both[0].Children("/go-kill/locks"); err != nil || len(names) != 2 {
			return fmt.Errorf("contenders %v, %v", names, err)
		}
		return nil
	})
	must(e.killLeader(t.Context()))(t)
	for i, c := range both {
		c.settle(t, "/")
		if st := must2(c.Exists(fmt.Sprintf("/go-kill/%d-e", i)))(t); st.EphemeralOwner != ids[i] || c.SessionID() != ids[i] {
			t.Fatalf("%+v, session %#x, before %#x", st, c.SessionID(), ids[i])
		}
	}
	if both[0].Server() == leader.addr {
		t.Fatal("still at the leader that was killed")
	}
	w := goConnect(t, e)
	w.settle(t, "/")
	for i := range both {
		p := fmt.Sprintf("/go-kill/%d", i)
		must(w.Set(p, nil, -1))(t)
		next(t, changed[i], gozk.EventNodeDataChanged, p)
		must(w.Create(p+"-new", nil, 0, everyone))(t)
		next(t, created[i], gozk.EventNodeCreated, p+"-new")
		must(w.Create(p+"-kids/x", nil, 0, everyone))(t)
		next(t, kids[i], gozk.EventNodeChildrenChanged, p+"-kids")
	}
	select {
	case err := <-waited:
		t.Fatalf("the lock was granted twice: %v", err)
	default:
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if err := e.restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
