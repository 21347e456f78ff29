// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// Of several members that see enough the last one begins the round. If that one is gone before it has, another one does.
func TestDoubleBarrierLastIsGone(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		s, far := session(t, ctx, c.Member(l)), session(t, ctx, c.Member(f))
		first := entering(ctx, recipes.NewDoubleBarrier(s, "/db", 2))
		must(t, far.Sync(ctx))
		c.Network().Slow(zktest.Name(f), zktest.Name(l), 200*time.Millisecond)
		busy := started(1, func(int) error { _, err := far.Set(ctx, "/", nil, zk.AnyVersion); return err })
		// Both wait for that one and travel together: when the one that enters looks, the other is there.
		second := entering(ctx, recipes.NewDoubleBarrier(far, "/db", 2))
		silent := started(1, func(int) error { _, err := far.Create(ctx, "/db/zz", nil, zk.Ephemeral); return err })
		all(t, "written", 1, busy)
		all(t, "the silent one is there", 1, silent)
		c.Heal()
		still(t, "the last one has not begun", first)
		still(t, "the last one has not begun", second)
		must(t, far.Delete(ctx, "/db/zz", zk.AnyVersion))
		for _, ch := range []<-chan guest{first, second} { // DB-L3
			defer admitted(t, ch).Release(ctx)
		}
	})
}
