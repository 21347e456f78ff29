// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-541fafe0/zk"
)

// listed is what a map has, in its order.
func (t *ordered) listed() (paths []string) {
	t.ascend(func(z zk.Znode) bool {
		paths = append(paths, z.Path)
		return true
	})
	return paths
}

// sound checks order, heap and shape: what the same paths make when they are put in order.
func (t *ordered) sound() error {
	var list []zk.Znode
	t.ascend(func(z zk.Znode) bool {
		list = append(list, z)
		return true
	})
	for i := range list {
		if i > 0 && comparePaths(list[i-1].Path, list[i].Path) >= 0 {
			return fmt.Errorf("%s before %s", list[i-1].Path, list[i].Path)
		}
	}
	var same func(a, b *ordered) bool
	same = func(a, b *ordered) bool {
		return a == nil && b == nil || a != nil && b != nil && a.z == b.z && same(a.left, b.left) && same(a.right, b.right)
	}
	if !same(t, grow(list)) {
		return fmt.Errorf("not the shape of its paths")
	}
	return nil
}

func znodes(paths ...string) (list []zk.Znode) {
	for i, p := range paths {
		list = append(list, zk.Znode{Path: p, Stat: zk.Stat{Czxid: zk.Zxid(i + 1)}})
	}
	return list
}

// The order is that of a walk: parents first, what is below them before what follows.
func TestComparePaths(t *testing.T) {
	inOrder := []string{"/", "/a", "/a/b", "/a/b/c", "/a/c", "/a ", "/a!", "/a-b", "/a-b/c", "/a.", "/aa", "/b", "/é"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got := comparePaths(a, b); got < 0 != (i < j) || got == 0 != (i == j) {
				t.Errorf("%q, %q: %d", a, b, got)
			}
		}
	}
	tree := grow(znodes(inOrder...))
	if got := tree.listed(); !slices.Equal(got, inOrder) {
		t.Errorf("%q", got)
	}
	for i, p := range inOrder {
		if p == "/" {
			continue // nothing is beyond it
		}
		z, ok := tree.ceiling(beyondPath(p))
		after := slices.IndexFunc(inOrder[i:], func(q string) bool { return !within(p, q) })
		if ok != (after >= 0) || ok && z.Path != inOrder[i+after] {
			t.Errorf("beyond %q: %q, %v", p, z.Path, ok)
		}
	}
}

// Against a plain map: every version stays what it was, and what changes lists turns one into another.
func TestOrdered(t *testing.T) {
	type version struct {
		tree  *ordered
		model map[string]zk.Znode
	}
	r := rand.New(rand.NewPCG(1, 12))
	versions := []version{{nil, map[string]zk.Znode{}}}
	zxid := zk.Zxid(0)
	for range 1000 {
		last := versions[len(versions)-1]
		tree, model := last.tree, maps.Clone(last.model)
		for range 1 + r.IntN(4) {
			path := ""
			for range 1 + r.IntN(3) {
				path += "/" + string("abc-"[r.IntN(4)])
			}
			zxid++
			z, exists := model[path]
			switch {
			case exists && r.IntN(2) == 0:
				tree = tree.remove(path)
				delete(model, path)
			case exists && r.IntN(3) == 0: // the same, with other children
				z.Stat.Pzxid = zxid
				tree, model[path] = tree.put(z), z
			case exists && r.IntN(2) == 0:
				z.Data, z.Stat.Mzxid = fmt.Sprint(zxid), zxid
				tree, model[path] = tree.put(z), z
			default: // new, or created again
				z = zk.Znode{Path: path, Stat: zk.Stat{Czxid: zxid, Mzxid: zxid}}
				tree, model[path] = tree.put(z), z
			}
			tree = tree.remove("/none")
		}
		versions = append(versions, version{tree, model})
	}
	for i, v := range versions {
		if err := v.tree.sound(); err != nil {
			t.Fatalf("version %d: %v", i, err)
		}
		if got, want := v.tree.listed(), slices.SortedFunc(maps.Keys(v.model), comparePaths); !slices.Equal(got, want) {
			t.Fatalf("version %d: %q, want %q", i, got, want)
		}
		for path, z := range v.model {
			if got, ok := v.tree.get(path); !ok || got != z {
				t.Fatalf("version %d: %s is %+v", i, path, got)
			}
		}
		// CACHE-S2, from some other version.
		from := versions[r.IntN(len(versions))]
		if err := apply(maps.Clone(from.model), changes(from.tree, v.tree), v.model); err != nil {
			t.Fatalf("to version %d: %v", i, err)
		}
	}
	if changes(versions[5].tree, versions[5].tree) != nil {
		t.Error("changes of nothing")
	}
}

// apply does changes to a view and compares it with another, but for what is said of children.
func apply(view map[string]zk.Znode, list []Change, want map[string]zk.Znode) error {
	for _, c := range list {
		old, had := view[c.Path]
		switch c.Kind {
		case Removed:
			if !had || old.Stat.Czxid != c.Old.Stat.Czxid {
				return fmt.Errorf("%s is removed, but was not there", c.Path)
			}
			delete(view, c.Path)
		case Added:
			if had {
				return fmt.Errorf("%s is added, but was there", c.Path)
			}
			view[c.Path] = c.New
		case Updated:
			if !had || old.Stat.Mzxid != c.Old.Stat.Mzxid || old.Stat.Czxid != c.New.Stat.Czxid {
				return fmt.Errorf("%s is updated from what it was not", c.Path)
			}
			view[c.Path] = c.New
		default:
			return fmt.Errorf("kind %v", c.Kind)
		}
	}
	if len(view) != len(want) {
		return fmt.Errorf("%d znodes, want %d", len(view), len(want))
	}
	for p, z := range want {
		if got := view[p]; got.Stat.Czxid != z.Stat.Czxid || got.Stat.Mzxid != z.Stat.Mzxid || got.Data != z.Data {
			return fmt.Errorf("%s is %+v, want %+v", p, got, z)
		}
	}
	return nil
}

// Two versions are compared in the time of what they do not share.
func TestOrderedSharing(t *testing.T) {
	var list []zk.Znode
	for i := range 20000 {
		list = append(list, zk.Znode{Path: fmt.Sprintf("/%05d", i), Stat: zk.Stat{Czxid: 1}})
	}
	a := grow(list)
	b := a
	for i := range 10 {
		b = b.put(zk.Znode{Path: fmt.Sprintf("/%05d", 2000*i), Stat: zk.Stat{Czxid: 2}})
	}
	looked := 0
	differ(a, b, func(old, now *ordered) { looked++ })
	if looked < 10 || looked > 1000 {
		t.Errorf("looked at %d nodes for 10 changes", looked)
	}
	if n := len(changes(a, b)); n != 20 {
		t.Errorf("%d changes", n)
	}
}
