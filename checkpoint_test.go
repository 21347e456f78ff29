// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk/transport/memnet"
)

// A member that has come to differ stops with what is applied next, or what comes after that; the others go on (P18).
func TestDivergenceIsSeenAtOnce(t *testing.T) {
	for name, harm := range map[string]func(st *state){
		"a version": func(st *state) {
			n := st.nodes["/a"]
			n.version++
			st.resum(n)
		},
		"a znode too few":       func(st *state) { st.remove(st.nodes["/a"], st.zxid) },
		"a number of a session": func(st *state) { st.lastID++ },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				a, b, c := threeMembers(t, ctx, memnet.New(1), func(cfg *Config) { cfg.Logger = slog.New(slog.DiscardHandler) })
				s, err := a.Session(ctx)
				if err == nil {
					_, err = s.Create(ctx, "/a", nil, Persistent)
				}
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				b.fsm.locked(func() { harm(b.fsm.st) })
				for range 3 { // the first says what was before
					if _, err := s.Set(ctx, "/", nil, AnyVersion); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				select {
				case <-b.Done():
				default:
					t.Error("the member that differs runs on")
				}
				if err := b.Err(); !errors.Is(err, ErrInconsistent) {
					t.Errorf("it says %v", err)
				}
				if err := errors.Join(a.Err(), c.Err()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCheckpoints(t *testing.T) {
	var c checkpoints
	if err := c.compare(checkpoint{}); err != nil {
		t.Error(err)
	}
	for z := Zxid(2); z <= 1000; z += 2 {
		c.add(checkpoint{z, uint64(z)})
	}
	for _, x := range []struct {
		leader checkpoint
		differ bool
	}{
		{checkpoint{1000, 1000}, false},
		{checkpoint{1000, 1}, true},
		{checkpoint{1000 - 2*(recentChecks-1), 1}, true},
		{checkpoint{1000 - 2*recentChecks, 1}, false}, // forgotten
		{checkpoint{901, 1}, false},                   // within a frame: no frame's end
		{checkpoint{1002, 1}, false},                  // this member is behind
		{checkpoint{}, false},                         // the leader has none
	} {
		if err := c.compare(x.leader); (err != nil) != x.differ || x.differ && !errors.Is(err, ErrInconsistent) {
			t.Errorf("%v: %v", x.leader, err)
		}
	}
}

// For operators there is one digest for every 128 requests, the first after them, and no more than 1,024 of them (OP-77).
func TestKeptDigests(t *testing.T) {
	var c checkpoints
	for z := Zxid(1); z < 128*3000; z += 5 {
		c.add(checkpoint{z, uint64(z)})
		if list := c.list(); z < 128 && len(list) > 0 || len(list) > 1024 || len(c.kept) > 2048 {
			t.Fatalf("%d at %v", len(list), z)
		}
	}
	list := c.list()
	if len(list) != 1024 || list[1023].zxid/128 != 2999 {
		t.Fatalf("%d, the last at %v", len(list), list[len(list)-1].zxid)
	}
	for i, k := range list {
		if i > 0 && k.zxid/128 != list[i-1].zxid/128+1 || k.zxid%128 >= 5 || k.sum != uint64(k.zxid) {
			t.Fatalf("%v follows %v", k, list[max(0, i-1)])
		}
	}
}
