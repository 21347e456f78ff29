// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
	"go.uber.org/goleak"
)

var full = flag.Bool("recipes.full", false, "run the large tests at their full size")

// size is how large a large test is.
func size(whole, ci int) int {
	if *full {
		return whole
	}
	return ci
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs fn on an ensemble in virtual time; whatever the ensemble leaves behind fails the test.
func bubble(t *testing.T, members int, cfg zktest.Config, fn func(t *testing.T, ctx context.Context, c *zktest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Hour)
		t.Cleanup(cancel) // after what the test has to clean up itself, and after Close
		if cfg.Base.Logger == nil {
			cfg.Base.Logger = slog.New(slog.DiscardHandler)
		}
		c, err := zktest.Open(ctx, members, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		fn(t, ctx, c)
	})
}

func session(t *testing.T, ctx context.Context, m *zk.Member) *zk.Session {
	t.Helper()
	s, err := m.NewSession(ctx, zk.SessionConfig{})
	must(t, err)
	return s
}

func leader(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	i, err := c.Leader(ctx)
	must(t, err)
	return i
}

// follower returns a member that does not lead.
func follower(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	return (leader(t, ctx, c) + 1) % c.Len()
}

// leaveBehind lets something happen while a member is cut off, and makes the log of the others too short for it: when the
// network heals, it hears of that by a snapshot alone. far is on another member.
func leaveBehind(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, far *zk.Session, meanwhile func()) {
	t.Helper()
	c.Isolate(at)
	first(t, ctx, far)
	meanwhile()
	outgrow(t, ctx, c, at, far)
}

// first writes what the leader tries to send to a member that was cut off just now, and so does send once it can.
func first(t *testing.T, ctx context.Context, far *zk.Session) {
	t.Helper()
	_, err := far.Txn(ctx)
	must(t, err)
	synctest.Wait()
}

// outgrow makes the log of all but one member too short for that one, so that it is sent a snapshot before the test ends.
func outgrow(t *testing.T, ctx context.Context, c *zktest.Cluster, at int, far *zk.Session) {
	t.Helper()
	sent := snapshotsSent(c)
	t.Cleanup(func() {
		if !t.Failed() {
			eventually(t, "no snapshot was sent", func() bool { return snapshotsSent(c) > sent })
		}
	})
	for range 200 { // more than the trailing log holds
		_, err := far.Txn(ctx)
		must(t, err)
	}
	for i := range c.Len() {
		if i != at {
			must(t, c.Member(i).Compact(ctx))
			c.Network().Reset(zktest.Name(i), zktest.Name(at)) // entries are under way
		}
	}
}

func snapshotsSent(c *zktest.Cluster) (n int64) {
	for i := range c.Len() {
		n += c.Member(i).Stats().SnapshotsSent
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails unless err is each of the targets.
func wants(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("error is %v, want %v", err, target)
		}
	}
}

// eventually lets virtual time pass until ok, ten minutes at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 60000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what)
}

// soon waits for ch to deliver, or be closed, while virtual time passes.
func soon[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(10 * time.Minute):
		t.Fatal(what)
	}
	return v
}

// below returns every znode under path, as member m has it, but for the reserved ones.
func below(t *testing.T, ctx context.Context, m *zk.Member, path string) (names []string) {
	t.Helper()
	must(t, m.View(ctx, func(v *zk.View) error {
		for z, err := range v.Walk(path) {
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			if err != nil {
				return err
			}
			if z.Path != path && z.Path != "/zookeeper" && !strings.HasPrefix(z.Path, "/zookeeper/") {
				names = append(names, z.Path)
			}
		}
		return nil
	}))
	return names
}

// residue fails if, after a while, anything is left below path or any watch on a member: the end of every test.
func residue(t *testing.T, ctx context.Context, c *zktest.Cluster, path string) {
	t.Helper()
	for i := range c.Len() {
		if !c.Up(i) {
			continue
		}
		var left []string
		var watches int64
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			left, watches = below(t, ctx, c.Member(i), path), c.Member(i).Stats().Watches
			if len(left) == 0 && watches == 0 {
				break
			}
			if time.Since(began) > 5*time.Minute {
				t.Fatalf("member %d has %d watches and %q", i, watches, left)
			}
		}
	}
}
