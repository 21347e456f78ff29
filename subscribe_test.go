// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// follow runs a subscription on a goroutine of its own and hands on what it yields, printed; the channel is closed at
// its end. A consumer that is not ready holds up the subscription alone.
func follow[T any](ctx context.Context, seq iter.Seq2[T, error], print func(T) string) <-chan string {
	ch := make(chan string)
	go func() {
		defer close(ch)
		for v, err := range seq {
			what := print(v)
			if err != nil {
				what = "error: " + err.Error()
			}
			select {
			case ch <- what:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch
}

// yields takes one state and checks that no other follows by itself.
func yields(t *testing.T, ch <-chan string, want string) {
	t.Helper()
	synctest.Wait()
	select {
	case got, ok := <-ch:
		if got != want || !ok {
			t.Errorf("yielded %q, want %q", got, want)
		}
	default:
		t.Errorf("yielded nothing, want %q", want)
	}
}

func silent(t *testing.T, ch <-chan string) {
	t.Helper()
	synctest.Wait()
	select {
	case got, ok := <-ch:
		t.Errorf("yielded %q, %v", got, ok)
	default:
	}
}

// WatchValue yields what there is, then every newest state: not one for a change of children, none twice, and to a slow
// consumer the last one only, however many events were dropped meanwhile (WT-19, WT-42).
func TestWatchValue(t *testing.T) {
	bubble(t, 1, zktest.Config{Base: zk.Config{WatchBuffer: 2}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		create(t, ctx, s, "/d", zk.Persistent)
		sub := s.Sub("/d")
		values := follow(ctx, sub.WatchValue(watching, "/v"), func(z zk.Znode) string {
			if z.Stat.Czxid == 0 {
				return "no " + z.Path
			}
			return fmt.Sprintf("%s=%s %d", z.Path, z.Data, z.Stat.Version)
		})
		set := func(data string) {
			t.Helper()
			_, err := sub.Set(ctx, "/v", []byte(data), zk.AnyVersion)
			must(t, err)
		}
		yields(t, values, "no /v")
		silent(t, values)
		_, err := sub.Create(ctx, "/v", []byte("a"), zk.Persistent)
		must(t, err)
		yields(t, values, "/v=a 0")
		create(t, ctx, sub, "/v/k", zk.Persistent) // children are of no interest
		must(t, sub.Delete(ctx, "/v/k", zk.AnyVersion))
		silent(t, values)
		set("b")
		yields(t, values, "/v=b 1")
		set("b") // WT-12: a set is a change
		yields(t, values, "/v=b 2")
		must(t, sub.Delete(ctx, "/v", zk.AnyVersion))
		yields(t, values, "no /v")
		// Deleted and created, set and set, with children in between: the consumer was away.
		for _, data := range []string{"c", "d", "e"} {
			_, err := sub.Create(ctx, "/v", []byte(data), zk.Persistent)
			must(t, err)
			set(data + data)
			create(t, ctx, sub, "/v/k", zk.Persistent)
			must(t, sub.DeleteTree(ctx, "/v"))
		}
		_, err = sub.Create(ctx, "/v", []byte("f"), zk.Persistent)
		must(t, err)
		set("g")
		synctest.Wait()
		got := <-values // it had taken this one before the consumer fell behind
		synctest.Wait()
		if got != "/v=g 1" {
			yields(t, values, "/v=g 1")
		}
		silent(t, values)
		if m.Stats().WatchOverflows == 0 {
			t.Error("nothing was dropped: this tests too little")
		}
		cancel()
		synctest.Wait()
		if got := <-values; got != "error: watch: no leader reachable: context canceled" && got != "error: get /v: no leader reachable: context canceled" {
			t.Errorf("at the end: %q", got)
		}
		if _, more := <-values; more || m.Stats().Watches != 0 {
			t.Errorf("it goes on, or %d entries are left", m.Stats().Watches)
		}
	})
}

// WatchChildren does the same for names, and a change of data is none.
func TestWatchChildren(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		lists := follow(ctx, s.WatchChildren(ctx, "/d"), func(names []string) string { return fmt.Sprint(names, names == nil) })
		yields(t, lists, "[] true")
		create(t, ctx, s, "/d", zk.Persistent)
		yields(t, lists, "[] false")
		create(t, ctx, s, "/d/b", zk.Persistent)
		yields(t, lists, "[b] false")
		_, err := s.Set(ctx, "/d", nil, zk.AnyVersion)
		must(t, err)
		_, err = s.Set(ctx, "/d/b", nil, zk.AnyVersion)
		must(t, err)
		create(t, ctx, s, "/d/b/c", zk.Persistent)
		silent(t, lists)
		_, err = s.Txn(ctx, zk.OpCreate("/d/c", nil, zk.Persistent), zk.OpCreate("/d/a", nil, zk.Persistent))
		must(t, err)
		yields(t, lists, "[a b c] false")
		must(t, s.DeleteTree(ctx, "/d"))
		yields(t, lists, "[] true")
		silent(t, lists) // it may be reading once more, for an event that came later
		must(t, s.Close())
		yields(t, lists, "error: watch: closed")
		if _, more := <-lists; more {
			t.Error("it goes on")
		}
	})
}

// A subscription ends with the session, or with the loop, and leaves nothing behind; where it cannot begin it says why
// (WT-36, WT-44).
func TestSubscriptionEnds(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		create(t, ctx, s, "/x", zk.Persistent)
		for z, err := range s.WatchValue(ctx, "/x") {
			must(t, err)
			if z.Path != "/x" {
				t.Errorf("%+v", z)
			}
			break
		}
		for range s.WatchChildren(ctx, "/x") {
			break
		}
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
		once := func(seq iter.Seq2[zk.Znode, error]) (last error) {
			for _, err := range seq {
				if last != nil {
					t.Error("it goes on after an error")
				}
				last = err
			}
			return last
		}
		wants(t, once(s.WatchValue(ctx, "/x/")), zk.ErrBadArguments)
		secret := zk.OpCreate("/secret", nil, zk.Persistent).WithACL(zk.ACL{Perm: zk.PermWrite, Scheme: "world", ID: "anyone"})
		_, err := s.Do(ctx, secret)
		must(t, err)
		wants(t, once(s.WatchValue(ctx, "/secret")), zk.ErrNoAuth)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := once(s.WatchValue(short, "/x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its context: %v", err)
		}
		ended := make(chan error, 2)
		go func() { ended <- once(s.WatchValue(ctx, "/x")) }()
		go func() { ended <- once(s.WatchValue(ctx, "/missing")) }()
		must(t, c.Expire(ctx, s))
		for range 2 {
			wants(t, <-ended, zk.ErrSessionExpired)
		}
		wants(t, once(s.WatchValue(ctx, "/x")), zk.ErrSessionExpired)
		if n := m.Stats().Watches; n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// Configurations take no zxid, and still each one is a state of the config znode (DM-37).
func TestWatchValueOfConfig(t *testing.T) {
	bubble(t, 3, zktest.Config{NonVoters: 2}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		values := follow(ctx, s.WatchValue(ctx, "/zookeeper/config"), func(z zk.Znode) string {
			return fmt.Sprint(strings.Count(z.Data, "server."), " servers")
		})
		yields(t, values, "3 servers")
		before := s.LastZxid()
		must(t, m.RemoveMember(ctx, zktest.Name(2)))
		yields(t, values, "2 servers")
		must(t, m.RemoveMember(ctx, zktest.Name(1)))
		yields(t, values, "1 servers")
		if now := s.LastZxid(); now != before {
			t.Errorf("%v was %v: this tests too little", now, before)
		}
	})
}
