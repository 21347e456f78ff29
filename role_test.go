// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
	"github.com/seed-541fafe0/zk/zktest"
)

// A member says what it is from the moment it is open: an observer is never a follower, and a voter that has yet to hear
// of the configuration never an observer.
func TestRoleFromTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		voter bool
		role  zk.Role
	}{"voter": {true, zk.RoleFollower}, "observer": {false, zk.RoleNonVoter}} {
		t.Run(name+", after the others", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				network := memnet.New(1)
				peers := []zk.Peer{{ID: "a", Addr: "a", Voter: true}, {ID: "b", Addr: "b", Voter: true}, {ID: "c", Addr: "c", Voter: c.voter}}
				var mu sync.Mutex
				var told []zk.Role
				for _, p := range peers {
					cfg := zk.Config{ID: p.ID, Peers: peers, Transport: network.Host(p.ID)}
					if p.ID == "c" {
						cfg.Hooks.RoleChanged = func(info zk.RoleInfo) {
							mu.Lock()
							defer mu.Unlock()
							told = append(told, info.Role)
						}
					}
					m, err := zk.Open(ctx, cfg)
					must(t, err)
					defer m.Close()
					if p.ID == "c" && m.Role() != c.role {
						t.Errorf("it begins as %v", m.Role())
					}
					if p.ID != "a" {
						must(t, m.Ready(ctx))
					}
					if p.ID == "c" && m.Role() != c.role {
						t.Errorf("it is %v", m.Role())
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if slices.ContainsFunc(told, func(r zk.Role) bool { return r != c.role }) {
					t.Errorf("it was %v", told)
				}
			})
		})
	}
	bubble(t, 4, zktest.Config{NonVoters: 1}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for range 3 {
			must(t, c.Crash(3))
			must(t, c.Restart(ctx, 3))
			if r := c.Member(3).Role(); r != zk.RoleNonVoter {
				t.Errorf("an observer begins again as %v", r)
			}
		}
		i, err := c.Add(ctx, true)
		must(t, err)
		if r := c.Member(i).Role(); r != zk.RoleNonVoter { // it has no vote before it has joined
			t.Errorf("who joins begins as %v", r)
		}
		must(t, c.Member(i).Ready(ctx))
		for info, err := range c.Member(i).Roles(ctx) {
			must(t, err)
			if info.Role == zk.RoleFollower {
				break
			}
		}
	})
}
