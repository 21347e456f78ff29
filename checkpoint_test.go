// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
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
	for z := Zxid(1001); z <= 6000; z++ {
		c.add(checkpoint{z, uint64(z)})
	}
	if got := fmt.Sprint(c.kept); got != "[{2048 2048} {3072 3072} {4096 4096} {5120 5120}]" {
		t.Errorf("kept for operators are %v", got)
	}
}
