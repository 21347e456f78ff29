// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// Assign is given sorted lists without doubles, which it may write to, each time; what it says of other items counts for
// nothing.
func TestPartitionerAssign(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		p := recipes.NewPartitioner(s, "/w", "me", []string{"b", "a", "c", "b"})
		given := make(chan [2][]string, 10)
		p.Assign = func(members, items []string) map[string]string {
			given <- [2][]string{slices.Clone(members), slices.Clone(items)}
			owners := map[string]string{"a": "me", "b": "you", "odd": "me"}
			for i := range items {
				items[i] = "odd"
			}
			clear(members)
			return owners
		}
		some, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		begun := make(chan string, 10)
		go func() {
			done <- p.Run(some, func(_ context.Context, item string, _ *recipes.Held) error { begun <- item; return nil })
		}()
		g := &recipes.Group{Session: s, Path: "/w/party", Layout: recipes.Shallow}
		for _, members := range [][]string{{"me"}, {"me", "you"}} {
			got := soon(t, "nothing is assigned", given)
			if !slices.Equal(got[0], members) || !slices.Equal(got[1], []string{"a", "b", "c"}) {
				t.Errorf("it was given %q", got)
			}
			if len(members) == 1 {
				defer func(you *recipes.Presence) { must(t, you.Stop(ctx)) }(join(t, ctx, g, "you", ""))
			}
		}
		time.Sleep(time.Minute)
		if item := soon(t, "nothing is begun", begun); item != "a" || len(begun) > 0 || !slices.Equal(p.Owned(), []string{"a"}) {
			t.Errorf("%s and %d more are begun, %q owned", item, len(begun), p.Owned())
		}
		cancel()
		wants(t, soon(t, "Run does not return", done), context.Canceled)
	})
}

// An operator who takes a member out of the line of an item costs it its place, not the item.
func TestPartitionerLineBroken(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		l := &recipes.Lock{Session: sc.s[1], Path: "/app/shards/locks/a", Layout: recipes.Kazoo}
		h := acquire(t, ctx, l)
		p := recipes.NewPartitioner(sc.s[0], "/app/shards", "me", []string{"a"})
		some, cancel := context.WithCancel(ctx)
		done, begun := make(chan error, 1), make(chan bool, 1)
		go func() {
			done <- p.Run(some, func(ctx context.Context, _ string, _ *recipes.Held) error { begun <- true; return nil })
		}()
		for range 3 {
			var line []recipes.Contender
			eventually(t, "it is not in line", func() bool { line = inLine(t, ctx, l); return len(line) == 2 })
			must(t, sc.s[1].Delete(ctx, line[1].Path, zk.AnyVersion))
		}
		must(t, h.Release(ctx))
		soon(t, "not begun", begun)
		cancel()
		wants(t, soon(t, "Run does not return", done), context.Canceled)
		residue(t, ctx, sc.c, "/app")
	})
}
