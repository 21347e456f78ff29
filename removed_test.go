// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// A removed member learns of it and stops, whatever its network did at that time, and although its streams to the others
// are older than its removal.
func TestRemovedMemberLearns(t *testing.T) {
	for name, fault := range map[string]func(c *zktest.Cluster, i int){
		"no fault": func(*zktest.Cluster, int) {},
		"isolated": func(c *zktest.Cluster, i int) { c.Isolate(i) },
		"held":     func(c *zktest.Cluster, i int) { c.Network().Hold(zktest.Name(i)) },
		"mute":     func(c *zktest.Cluster, i int) { c.Network().Cut(zktest.Name(i), zktest.Name(0)) },
	} {
		for _, voter := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					i, err := c.Add(ctx, voter)
					must(t, err)
					m := c.Member(i)
					must(t, m.Ready(ctx))
					create(t, ctx, session(t, ctx, m), "/a", zk.Persistent)
					time.Sleep(2 * time.Second)
					_, err = m.Members(ctx) // opens streams
					must(t, err)
					l := leader(t, ctx, c)
					if l == i {
						must(t, m.TransferLeadership(ctx, zktest.Name(0)))
						l = leader(t, ctx, c)
					}
					fault(c, i)
					must(t, c.Member(l).RemoveMember(ctx, zktest.Name(i)))
					c.Heal()
					c.Network().Release(zktest.Name(i))
					select {
					case <-m.Done():
					case <-ctx.Done():
						t.Fatal("it never learnt")
					}
					wants(t, m.Err(), zk.ErrNotMember)
				})
			})
		}
	}
}
