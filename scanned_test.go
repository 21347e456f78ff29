// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// What a read went over is counted, and nothing else is: a predecessor is found without going over its siblings (E5).
func TestScanned(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		create(t, ctx, s, "/d", zk.Persistent)
		const n = 600 // more than a page, of any read
		var last, none string
		for i := range n {
			z, err := s.Create(ctx, fmt.Sprintf("/d/%c-", 'a'+i%2), nil, zk.Sequential)
			must(t, err)
			last = z.Path
		}
		l := s.Listener()
		view := func(fn func(v *zk.View) error) func() error {
			return func() error { return s.View(ctx, fn) }
		}
		preceding := func(match func(string) bool) func() error {
			return func() error {
				z, _, err := s.Preceding(ctx, last, match)
				none = z.Path
				return err
			}
		}
		for _, k := range []struct {
			what string
			want int64
			read func() error
		}{
			{"get", 0, func() error { _, _, err := s.Get(ctx, last); return err }},
			{"exists", 0, func() error { _, _, err := s.Exists(ctx, "/d"); return err }},
			{"children", n, func() error { _, _, err := s.Children(ctx, "/d"); return err }},
			{"children of a leaf", 0, func() error { _, _, err := s.Children(ctx, last); return err }},
			{"children with a watch", n, func() error { _, _, _, err := s.ChildrenW(ctx, "/d"); return err }},
			{"pages of children", n, func() error { return lastError(s.ChildrenSeq(ctx, "/d", "")) }},
			{"the later children", n / 2, func() error { return lastError(s.ChildrenSeq(ctx, "/d", "b")) }},
			{"the first children", 8, func() error { return firstError(s.ChildrenSeq(ctx, "/d", "")) }},
			{"the first in sequence", 8, func() error { return firstError(s.Sequential(ctx, "/d")) }},
			{"in sequence", n, func() error { return lastError(s.Sequential(ctx, "/d")) }},
			{"the one before", 1, preceding(func(string) bool { return true })},
			{"the one of its kind before", 2, preceding(func(name string) bool { return name[0] == 'b' })},
			{"none before", n - 1, preceding(func(string) bool { return false })},
			{"walk", n + 1, func() error { return lastError(s.Walk(ctx, "/d")) }},
			{"children in a view", n, view(func(v *zk.View) error { return lastError(v.Children("/d")) })},
			{"walk in a view", n + 1, view(func(v *zk.View) error { return lastError(v.Walk("/d")) })},
			{"a step in a view", 1, view(func(v *zk.View) error { _, _, err := v.Prev("/d", "b"); return err })},
			{"a znode in a view", 0, view(func(v *zk.View) error { _, err := v.Get(last); return err })},
			{"a member's view", n + 1, func() error {
				return m.View(ctx, func(v *zk.View) error { return lastError(v.Walk("/d")) })
			}},
			{"a client's list", n, func() error { _, _, _, err := l.List(ctx, "/d", false); return err }},
			{"a client's several reads", n, func() error {
				_, _, err := l.MultiRead(ctx, zk.ReadRequest{Path: "/d", Children: true}, zk.ReadRequest{Path: last})
				return err
			}},
			{"a client's count", n, func() error { _, _, err := l.Descendants(ctx, "/d"); return err }},
			{"a guard of a count", 0, func() error { _, err := s.Txn(ctx, zk.OpCheckChildren("/d", zk.Equal, n)); return err }},
		} {
			before := m.Stats().Scanned
			must(t, k.read())
			if got := m.Stats().Scanned - before; got != k.want {
				t.Errorf("%s went over %d znodes, want %d", k.what, got, k.want)
			}
		}
		if none != "" {
			t.Errorf("found %q, where nothing matches", none)
		}
	})
}

// firstError takes the first element only.
func firstError[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		return err
	}
	return nil
}
