// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

const migrations = "/app/migrations"

// makes is a step that does always the same.
func makes(name string, ops ...zk.Op) recipes.Step {
	return recipes.Step{Name: name, Ops: func(context.Context, *zk.Session) ([]zk.Op, error) { return ops, nil }}
}

// increments is a step that is seen to be taken twice: it adds one to what it reads, unguarded.
func increments(name string, during func(ctx context.Context, s *zk.Session)) recipes.Step {
	return recipes.Step{Name: name, Reads: true, Ops: func(ctx context.Context, s *zk.Session) ([]zk.Op, error) {
		if during != nil {
			during(ctx, s)
		}
		data, _, err := s.GetString(ctx, "/data/n")
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(data)
		return []zk.Op{zk.OpSet("/data/n", []byte(strconv.Itoa(n+1)), zk.AnyVersion)}, err
	}}
}

func plan(n int) (steps []recipes.Step) {
	steps = []recipes.Step{makes("make", zk.OpCreate("/data", nil, zk.Persistent), zk.OpCreate("/data/n", []byte("0"), zk.Persistent))}
	for i := range n {
		steps = append(steps, increments(fmt.Sprint("add ", i), nil))
	}
	return steps
}

// taken checks what the steps of a plan have left.
func taken(t *testing.T, ctx context.Context, s *zk.Session, n int) {
	t.Helper()
	data, st, err := s.GetString(ctx, "/data/n", zk.Linearizable)
	if err != nil || data != strconv.Itoa(n) || st.Version != int32(n) {
		t.Errorf("%s in version %d, %v; want %d", data, st.Version, err, n)
	}
	names, _, err := s.Children(ctx, migrations)
	if err != nil || len(names) != n+1 || names[n] != fmt.Sprintf("meta-%010d", n) {
		t.Errorf("records %v, %v", names, err)
	}
}

func disagrees(t *testing.T, err error, step int, targets ...error) {
	t.Helper()
	e, ok := errors.AsType[*recipes.StepError](err)
	if !ok || e.Path != fmt.Sprintf("%s/meta-%010d", migrations, step) {
		t.Fatalf("%v, want an error of step %d", err, step)
	}
	wants(t, err, targets...)
}

func TestMigrate(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		steps := plan(3)
		migrate := func(steps ...recipes.Step) error {
			must(t, c.Quiesce(ctx))
			return recipes.Migrate(ctx, s, migrations, steps...)
		}
		must(t, migrate())
		must(t, migrate(steps[:2]...))
		taken(t, ctx, s, 1)
		must(t, migrate(steps...))
		must(t, migrate(steps...)) // MIG-S1
		must(t, recipes.Migrate(ctx, c.Member(1), migrations, steps...))
		taken(t, ctx, s, 3)

		// What was taken is not changed, left out, moved or forgotten (MIG-S2).
		disagrees(t, migrate(steps[:3]...), 3, recipes.ErrMismatch)
		disagrees(t, migrate(append([]recipes.Step{makes("make", zk.OpCreate("/data", []byte{}, zk.Persistent))}, steps[1:]...)...), 0, recipes.ErrMismatch)
		disagrees(t, migrate(append([]recipes.Step{steps[0], makes("other")}, steps[2:]...)...), 1, recipes.ErrMismatch)
		disagrees(t, migrate(append([]recipes.Step{steps[0], makes("add 0")}, steps[2:]...)...), 1, recipes.ErrMismatch) // it does not read any more
		disagrees(t, migrate(steps[0], steps[2], steps[1], steps[3]), 1, recipes.ErrMismatch)
		taken(t, ctx, s, 3)

		// A step that fails changes nothing; those before it stay, and it is tried again.
		odd := errors.New("odd")
		four, fails := makes("four", zk.OpCreate("/data/four", nil, zk.Persistent)), recipes.Step{Name: "five", Ops: func(context.Context, *zk.Session) ([]zk.Op, error) { return nil, odd }}
		disagrees(t, migrate(append(slices.Clone(steps), four, fails)...), 5, odd)
		five := makes("five", zk.OpCreate("/data/five", nil, zk.Persistent), zk.OpCreate("/data/four", nil, zk.Persistent))
		disagrees(t, migrate(append(slices.Clone(steps), four, five)...), 5, zk.ErrNodeExists)
		if _, ok, _ := s.Exists(ctx, "/data/five"); ok {
			t.Error("half a step was taken")
		}
		five = makes("five", zk.OpCreate("/data/five", nil, zk.Persistent))
		must(t, migrate(append(slices.Clone(steps), four, five)...))

		for _, err := range []error{
			recipes.Migrate(nil, s, migrations, steps...), recipes.Migrate(ctx, nil, migrations), recipes.Migrate(ctx, s, "app"), recipes.Migrate(ctx, s, "/"),
			migrate(makes("")), migrate(recipes.Step{Name: "x"}),
		} {
			wants(t, err, zk.ErrBadArguments)
		}
		must(t, s.DeleteTree(ctx, "/app"))
		must(t, s.DeleteTree(ctx, "/data"))
		residue(t, ctx, c, "/")
	})
}

// A record that cannot be read, or is gone, is told of by its path, and nothing is done.
func TestMigrateBadRecords(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		steps := append(plan(2), makes("new", zk.OpCreate("/new", nil, zk.Persistent)))
		must(t, recipes.Migrate(ctx, s, migrations, steps[:3]...))
		record := migrations + "/meta-0000000001"
		good, _, err := s.Get(ctx, record)
		must(t, err)
		for _, data := range []string{"", "{", "{}", `{"step":1}`, `{"step":"add 0"}`, strings.Repeat("\xa7", 32)} { // the last one as of Curator
			st, err := s.Set(ctx, record, []byte(data), -1)
			must(t, err)
			err = recipes.Migrate(ctx, s, migrations, steps...)
			disagrees(t, err, 1)
			if e, ok := errors.AsType[*recipes.DecodeError](err); !ok || e.Path != record || e.Zxid != st.Mzxid {
				t.Error(err)
			}
		}
		must(t, s.Delete(ctx, record, -1))
		disagrees(t, recipes.Migrate(ctx, s, migrations, steps...), 1, recipes.ErrBroken)
		_, err = s.Create(ctx, record, good, zk.Persistent)
		must(t, err)
		for _, name := range []string{"foreign", "meta", "meta-x", "zzz"} {
			_, err = s.Create(ctx, migrations+"/"+name, nil, zk.Persistent)
			must(t, err)
		}
		if _, ok, _ := s.Exists(ctx, "/new"); ok {
			t.Error("something was done")
		}
		must(t, recipes.Migrate(ctx, s, migrations, steps...))
		// An operator who deletes the last record has the step taken again.
		must(t, s.Delete(ctx, "/new", -1))
		must(t, s.Delete(ctx, migrations+"/meta-0000000003", -1))
		must(t, recipes.Migrate(ctx, s, migrations, steps...))
		if _, ok, _ := s.Exists(ctx, "/new"); !ok {
			t.Error("it was not taken again")
		}
	})
}

// All instances start at once: each step is taken once, and all return when all are (MIG-S1, MIG-L1).
func TestMigrateAtOnce(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 3*time.Millisecond)
		all(t, "it hangs", 12, started(12, func(i int) error {
			err := recipes.Migrate(ctx, c.Member(i%3), migrations, plan(5)...)
			if err == nil {
				var s *zk.Session
				if s, err = c.Member(i % 3).Session(ctx); err == nil {
					taken(t, ctx, s, 5)
				}
			}
			return err
		}))
	})
}

// Who has lost the lock and does not know it yet does not take a step that another has taken meanwhile: its transaction is the one
// that creates the record (PEER-68, MIG-S1).
func TestMigrateLockLost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		s, err := c.Member(at).NewSession(ctx, zk.SessionConfig{Timeout: time.Minute})
		must(t, err)
		next := session(t, ctx, c.Member(leader(t, ctx, c)))
		steps := plan(2)
		must(t, recipes.Migrate(ctx, next, migrations, steps[:2]...))
		must(t, c.Quiesce(ctx))
		cut := make(chan struct{})
		cuts := slices.Clone(steps)
		cuts[2] = increments("add 1", func(context.Context, *zk.Session) {
			c.Isolate(at)
			close(cut)
		})
		done := started(1, func(int) error { return recipes.Migrate(ctx, s, migrations, cuts...) })
		soon(t, "it does not begin", cut)
		synctest.Wait() // its transaction is on the way
		for _, path := range below(t, ctx, next.Member(), migrations+"-lock") {
			must(t, next.Delete(ctx, path, -1))
		}
		must(t, recipes.Migrate(ctx, next, migrations, steps...))
		c.Heal()
		disagrees(t, soon(t, "it hangs", done), 2, recipes.ErrLost)
		must(t, c.Quiesce(ctx))
		taken(t, ctx, next, 2)
	})
}

// What goes wrong at whatever step: in the end each step was taken once (MIG-S1, PEER-05).
func TestMigrateFaults(t *testing.T) {
	for seed := range uint64(size(40, 6)) {
		bubble(t, 3, zktest.Config{Seed: seed, Base: zk.Config{SessionTimeout: 3 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			c.Network().Latency(0, 5*time.Millisecond)
			r := rand.New(rand.NewPCG(seed, 9))
			steps := plan(10)
			done := started(3, func(i int) error {
				for {
					some, cancel := context.WithTimeout(ctx, time.Duration(100+i*1000)*time.Millisecond)
					err := recipes.Migrate(some, c.Member(i), migrations, steps...)
					cancel()
					if err == nil {
						return nil
					}
					if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, zk.ErrSessionExpired) && !errors.Is(err, recipes.ErrLost) {
						return err
					}
				}
			})
			for range 3 {
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
				i := r.IntN(3)
				switch r.IntN(4) {
				case 0:
					c.Isolate(i)
					time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
				case 1:
					c.DropForwards(i, 1+r.IntN(3))
				case 2:
					c.Network().Reset(zktest.Name(i), zktest.Name((i+1)%3))
				case 3:
					c.Member(i).TransferLeadership(ctx, "")
				}
				c.Heal()
			}
			all(t, "it hangs", 3, done)
			taken(t, ctx, session(t, ctx, c.Member(0)), 10)
			must(t, session(t, ctx, c.Member(0)).DeleteTree(ctx, "/app/migrations"))
			must(t, session(t, ctx, c.Member(0)).DeleteTree(ctx, "/data"))
			residue(t, ctx, c, "/")
		})
	}
}

// The table of docs/spec/recipes.md, for who waits for another's migration, and for who makes one.
func TestMigrateReactions(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := (leader(t, ctx, c) + 1) % 3
		other := session(t, ctx, c.Member((at+1)%3))
		var stop chan struct{}
		var inside atomic.Int32
		slow := append(plan(0), makes("slow"))
		ops := slow[1].Ops
		slow[1].Ops = func(ctx context.Context, s *zk.Session) ([]zk.Op, error) {
			inside.Add(1)
			select {
			case <-stop:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return ops(ctx, s)
		}
		must(t, recipes.Migrate(ctx, other, migrations, slow[:1]...))
		must(t, c.Quiesce(ctx))
		// begin has one make the step and another wait for it.
		begin := func(some context.Context, maker, waiter *zk.Session) (makes, waits <-chan error) {
			stop = make(chan struct{})
			n := inside.Load()
			makes = started(1, func(int) error { return recipes.Migrate(some, maker, migrations, slow...) })
			eventually(t, "nobody begins", func() bool { return inside.Load() > n })
			waits = started(1, func(int) error { return recipes.Migrate(some, waiter, migrations, slow...) })
			eventually(t, "nobody waits", func() bool { return len(below(t, ctx, waiter.Member(), migrations+"-lock")) == 2 })
			return makes, waits
		}

		// Expiry of who waits, and of who makes it.
		s := session(t, ctx, c.Member(at))
		makes, waits := begin(ctx, other, s)
		must(t, c.Expire(ctx, s))
		wants(t, soon(t, "it waits without a session", waits), zk.ErrSessionExpired)
		still(t, "it ends", makes)
		close(stop)
		must(t, soon(t, "it hangs", makes))
		must(t, other.Delete(ctx, migrations+"/meta-0000000001", -1))

		s = session(t, ctx, c.Member(at))
		makes, waits = begin(ctx, s, other)
		must(t, c.Expire(ctx, s))
		wants(t, soon(t, "it goes on without a session", makes), recipes.ErrLost)
		close(stop)
		must(t, soon(t, "it hangs", waits))
		must(t, other.Delete(ctx, migrations+"/meta-0000000001", -1))

		// The leader changes, and then ctx ends.
		s = session(t, ctx, c.Member(at))
		must(t, c.Quiesce(ctx))
		some, cancel := context.WithCancel(ctx)
		makes, waits = begin(some, s, other)
		must(t, c.Member(at).TransferLeadership(ctx, ""))
		still(t, "it ends", makes)
		still(t, "it ends", waits)
		cancel()
		wants(t, soon(t, "it goes on", makes), context.Canceled) // PEER-17
		wants(t, soon(t, "it waits", waits), context.Canceled)
		must(t, c.Quiesce(ctx))
		eventually(t, "somebody is left in line", func() bool { return len(below(t, ctx, c.Member(at), migrations+"-lock")) == 0 }) // PEER-07

		// An operator deletes what stands in line.
		makes, waits = begin(ctx, s, other)
		line := below(t, ctx, c.Member(at), migrations+"-lock")
		slices.SortFunc(line, func(a, b string) int {
			x, _ := zk.Sequence(a)
			y, _ := zk.Sequence(b)
			return int(x - y)
		})
		must(t, other.Delete(ctx, line[1], -1))
		wants(t, soon(t, "it waits", waits), recipes.ErrBroken)
		must(t, other.Delete(ctx, line[0], -1))
		wants(t, soon(t, "it goes on", makes), recipes.ErrLost)
		close(stop)
		must(t, recipes.Migrate(ctx, s, migrations, slow...))
		must(t, other.DeleteTree(ctx, migrations))
		must(t, other.DeleteTree(ctx, "/data"))
		residue(t, ctx, c, "/")
	})
}

// Each write takes effect once, whoever dies between commit and answer.
func TestMigrateLeaderDiesAfterCommit(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 30 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		steps := plan(3)
		for i := range steps { // whichever write comes first: the lock, the step or the release
			leaderDiesAfterCommit(t, ctx, c, steps[i].Name, func() error { return recipes.Migrate(ctx, c.Member(0), migrations, steps[:i+1]...) })
		}
		taken(t, ctx, session(t, ctx, c.Member(0)), 3)
	})
}

// A restore takes steps back with their records: they are taken again.
func TestMigrateRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		must(t, recipes.Migrate(ctx, c.Member(0), migrations, plan(1)...))
		backup()
		must(t, recipes.Migrate(ctx, c.Member(1), migrations, plan(3)...))
		restore()
		s := session(t, ctx, c.Member(2))
		taken(t, ctx, s, 1)
		must(t, recipes.Migrate(ctx, c.Member(0), migrations, plan(3)...))
		taken(t, ctx, s, 3)
	})
}

// What a migration costs is what its comment says.
func TestMigrateCost(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		for _, w := range []struct {
			steps   int
			entries int64
		}{{1, 3}, {4, 5}, {4, 0}} {
			before, z := m.Stats(), m.Applied()
			must(t, recipes.Migrate(ctx, s, migrations, plan(w.steps-1)...))
			synctest.Wait()
			after := m.Stats()
			if n := int64(m.Applied() - z); n != w.entries || after.LinearReads != before.LinearReads || after.Watches != before.Watches {
				t.Errorf("up to %d steps: %d log entries, want %d; or rounds or watches", w.steps, n, w.entries)
			}
		}
	})
}
