// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// ordered is an immutable map of znodes by path, parents before their children, directories in byte order; nil is the
// empty one. It is a treap whose ranks are hashes of the paths: the same paths always make the same shape, so that two
// versions share all that they have in common, and are compared in the time of what they do not.
type ordered struct {
	z           zk.Znode
	rank        uint64
	left, right *ordered
}

var rankSeed = maphash.MakeSeed()

// comparePaths orders paths as a walk meets them.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// beyondPath is a bound: after path and all below it, before all that follows. No path has this character (DM-2).
func beyondPath(path string) string { return path + "\x01" }

// above tells which of two nodes is nearer to the root of a treap.
func (t *ordered) above(o *ordered) bool {
	return t.rank > o.rank || t.rank == o.rank && comparePaths(t.z.Path, o.z.Path) < 0
}

func newOrdered(z zk.Znode) *ordered {
	return &ordered{z: z, rank: maphash.String(rankSeed, z.Path)}
}

// grow makes a map of znodes that are in order.
func grow(sorted []zk.Znode) *ordered {
	var spine []*ordered // the right edge
	for _, z := range sorted {
		t := newOrdered(z)
		for len(spine) > 0 && t.above(spine[len(spine)-1]) {
			t.left = spine[len(spine)-1]
			spine = spine[:len(spine)-1]
		}
		if len(spine) > 0 {
			spine[len(spine)-1].right = t
		}
		spine = append(spine, t)
	}
	if len(spine) == 0 {
		return nil
	}
	return spine[0]
}

// get finds a znode.
func (t *ordered) get(path string) (zk.Znode, bool) {
	for t != nil {
		switch c := comparePaths(path, t.z.Path); {
		case c == 0:
			return t.z, true
		case c < 0:
			t = t.left
		default:
			t = t.right
		}
	}
	return zk.Znode{}, false
}

// ceiling finds the first znode at or after a bound.
func (t *ordered) ceiling(bound string) (z zk.Znode, ok bool) {
	for t != nil {
		if comparePaths(t.z.Path, bound) < 0 {
			t = t.right
		} else {
			z, ok, t = t.z, true, t.left
		}
	}
	return z, ok
}

// with is t with another node or children.
func (t *ordered) with(left, right *ordered) *ordered {
	return &ordered{z: t.z, rank: t.rank, left: left, right: right}
}

// split returns what is before path, at it (nil if nothing is), and after it.
func (t *ordered) split(path string) (before, at, after *ordered) {
	if t == nil {
		return nil, nil, nil
	}
	switch c := comparePaths(path, t.z.Path); {
	case c == 0:
		return t.left, t, t.right
	case c < 0:
		before, at, after = t.left.split(path)
		return before, at, t.with(after, t.right)
	default:
		before, at, after = t.right.split(path)
		return t.with(t.left, before), at, after
	}
}

// merge joins two maps of which all of a is before all of b.
func merge(a, b *ordered) *ordered {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.above(b):
		return a.with(a.left, merge(a.right, b))
	}
	return b.with(merge(a, b.left), b.right)
}

// put returns t with z in the place of what was at its path.
func (t *ordered) put(z zk.Znode) *ordered {
	n := newOrdered(z)
	return t.insert(n)
}

func (t *ordered) insert(n *ordered) *ordered {
	if t == nil || n.above(t) {
		n.left, _, n.right = t.split(n.z.Path)
		return n
	}
	switch c := comparePaths(n.z.Path, t.z.Path); {
	case c == 0:
		n.left, n.right = t.left, t.right
		return n
	case c < 0:
		return t.with(t.left.insert(n), t.right)
	}
	return t.with(t.left, t.right.insert(n))
}

// remove returns t without path.
func (t *ordered) remove(path string) *ordered {
	if _, ok := t.get(path); !ok {
		return t
	}
	before, _, after := t.split(path)
	return merge(before, after)
}

// ascend calls fn with all znodes in order until it returns false.
func (t *ordered) ascend(fn func(zk.Znode) bool) bool {
	return t == nil || t.left.ascend(fn) && fn(t.z) && t.right.ascend(fn)
}

// differ calls fn with each node of a or b that the other does not share, in order; nil where one has none.
func differ(a, b *ordered, fn func(old, now *ordered)) {
	switch {
	case a == b:
	case a == nil || b != nil && b.above(a):
		before, at, after := a.split(b.z.Path)
		differ(before, b.left, fn)
		if at != b {
			fn(at, b)
		}
		differ(after, b.right, fn)
	default:
		before, at, after := b.split(a.z.Path)
		differ(a.left, before, fn)
		if at != a {
			fn(a, at)
		}
		differ(a.right, after, fn)
	}
}

// changes lists what has to be done to a to make it b: what is removed, children before their parents, and then what is
// added or updated, in order. Znodes are told apart by when they were created and written, not by versions, which start
// anew with each incarnation.
func changes(a, b *ordered) []Change {
	var list, rest []Change
	differ(a, b, func(old, now *ordered) {
		switch {
		case now == nil:
			list = append(list, Change{Kind: Removed, Path: old.z.Path, Old: old.z})
		case old == nil:
			rest = append(rest, Change{Kind: Added, Path: now.z.Path, New: now.z})
		case old.z.Stat.Czxid != now.z.Stat.Czxid:
			list = append(list, Change{Kind: Removed, Path: old.z.Path, Old: old.z})
			rest = append(rest, Change{Kind: Added, Path: now.z.Path, New: now.z})
		case old.z.Stat.Mzxid != now.z.Stat.Mzxid || old.z.Stat.Version != now.z.Stat.Version || old.z.Data != now.z.Data:
			rest = append(rest, Change{Kind: Updated, Path: now.z.Path, Old: old.z, New: now.z})
		}
	})
	slices.Reverse(list)
	return append(list, rest...)
}

// within reports whether path is root or below it.
func within(root, path string) bool {
	return path == root || root == "/" || strings.HasPrefix(path, root) && path[len(root)] == '/'
}
