// SPDX-License-Identifier: Apache-2.0

package zktest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs fn on an ensemble in virtual time.
func bubble(t *testing.T, members int, cfg zktest.Config, fn func(ctx context.Context, c *zktest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		c, err := zktest.Open(ctx, members, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		fn(ctx, c)
	})
}

// TestConfigure: each incarnation of each member is configured, after Base and what the cluster fills in.
func TestConfigure(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]int{}
	cfg := zktest.Config{Base: zk.Config{SessionTimeout: 5 * time.Second}, Configure: func(i int, cfg *zk.Config) {
		mu.Lock()
		defer mu.Unlock()
		seen[i]++
		if cfg.ID != zktest.Name(i) || cfg.SessionTimeout != 5*time.Second || cfg.Transport == nil || cfg.Storage.Log == nil {
			t.Errorf("member %d is configured as %+v", i, cfg)
		}
		cfg.Now = func() time.Time { return time.Now().Add(time.Hour) }
	}}
	bubble(t, 3, cfg, func(ctx context.Context, c *zktest.Cluster) {
		if err := c.Crash(1); err != nil {
			t.Fatal(err)
		}
		if err := c.Restart(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Add(ctx, true); err != nil {
			t.Fatal(err)
		}
		s, err := c.Member(0).Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Until(s.Now()); off < 59*time.Minute || off > 61*time.Minute {
			t.Errorf("the clock that was configured is off by %v", off)
		}
	})
	if len(seen) != 4 || seen[0] != 1 || seen[1] != 2 || seen[3] != 1 {
		t.Errorf("configured, by member: %v", seen)
	}
}

// TestRemove: a member that is removed is stopped, cannot come back, and is not missed.
func TestRemove(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(ctx context.Context, c *zktest.Cluster) {
		o, err := c.Add(ctx, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Member(o).Ready(ctx); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{o, 0} {
			if err := c.Remove(ctx, i); err != nil {
				t.Fatal(err)
			}
			if c.Up(i) || c.Restart(ctx, i) == nil {
				t.Errorf("member %d is back", i)
			}
		}
		list, err := c.Member(1).Members(ctx)
		if err != nil || len(list) != 2 {
			t.Errorf("members are %v %v", list, err)
		}
		s, err := c.Member(2).Session(ctx)
		if err == nil {
			_, err = s.Create(ctx, "/a", nil, zk.Persistent)
		}
		if err != nil {
			t.Error(err)
		}
		lone, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		l, err := c.Leader(ctx) // a leader that survives still leads for a moment, and may let the other go
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Crash(l); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(lone, l); err == nil || errors.Is(err, zk.ErrBadArguments) { // it would have no majority
			t.Errorf("removing one of two, the other being down: %v", err)
		}
	})
}

// TestQuiesce: members that are down are named, with what stopped them, unless they do not belong to the ensemble.
func TestQuiesce(t *testing.T) {
	bubble(t, 5, zktest.Config{}, func(ctx context.Context, c *zktest.Cluster) {
		wants := func(names ...string) error {
			t.Helper()
			err := c.Quiesce(ctx)
			if (err == nil) != (len(names) == 0) {
				t.Fatalf("%v are down: %v", names, err)
			}
			for _, name := range names {
				if !strings.Contains(err.Error(), name+" is down") {
					t.Errorf("%s is not named: %v", name, err)
				}
			}
			return err
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		wants()
		must(c.Crash(3))
		if err := wants("m3"); strings.Contains(err.Error(), "m4") {
			t.Error(err)
		}
		must(c.Remove(ctx, 3))
		wants()
		must(c.Member(4).Leave(ctx)) // without the cluster's help
		<-c.Member(4).Done()
		wants()
		l, err := c.Leader(ctx)
		must(err)
		s, err := c.Member(l).Session(ctx)
		must(err)
		c.Pause(l)
		_, err = s.Create(ctx, "/a", nil, zk.Persistent) // a call that the member gives up on, and its store too
		if err == nil {
			t.Error("a paused leader has answered")
		}
		<-c.Member(l).Done()
		other := (l + 1) % 3
		must(c.Crash(other))
		must(c.Restart(ctx, other)) // it is behind, and waited for
		if err := wants(zktest.Name(l)); !errors.Is(err, zk.ErrSystem) {
			t.Errorf("it does not say why: %v", err)
		}
		must(c.Crash(l))
		must(c.Restart(ctx, l))
		wants()
		for i := range 3 {
			must(c.Crash(i))
		}
		if err := c.Quiesce(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("nobody runs: %v", err)
		}
	})
}

// TestCrashOfAPausedMember: one that was paused until it gave its store up, with a call that is still under way, can be
// crashed and comes back.
func TestCrashOfAPausedMember(t *testing.T) {
	for range 4 { // what Close finds first is chance
		bubble(t, 3, zktest.Config{}, func(ctx context.Context, c *zktest.Cluster) {
			i, err := c.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.Member(i).Session(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.Isolate((i + 1) % 3)
			for range 300 {
				if _, err := s.Create(ctx, "/a-", nil, zk.Sequential); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Member(i).Compact(ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // the leader tries to send the snapshot by now
			c.Pause(i)
			work, cancel := context.WithCancel(ctx)
			defer cancel()
			go s.Create(work, "/b", nil, zk.Persistent) // a call that the member gives up on
			time.Sleep(30 * time.Second)
			c.Heal()
			if err := c.Crash(i); err != nil {
				t.Fatal(err)
			}
			if err := c.Restart(ctx, i); err != nil {
				t.Fatal(err)
			}
			if err := c.Member(i).Ready(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}
