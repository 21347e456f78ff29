// SPDX-License-Identifier: Apache-2.0

package zk

// Old contents of znodes are kept while a view that needs them is open, and only then. Opening a view raises the
// epoch; a znode's content remembers the epoch in which it was begun; the first change in a later epoch sets
// the old content aside. A deleted znode stays reachable through its parent's kept children.

// keptOverhead is what one kept content costs beside its data.
const keptOverhead = 256

// view is a frozen picture of a tree: it shows contents begun in its epoch or before.
type view struct {
	tree    *tree
	epoch   uint64
	zxid    Zxid
	now     int64
	pinned  bool // never expires: a snapshot must come to its end
	expired bool
	closed  bool
	kept    []kept // contents of which this is the newest open view that needs them
	bytes   int64
}

type kept struct {
	node *znode
	old  *content
}

// versions is the part of a tree that knows its views.
type versions struct {
	epoch uint64  // of changes made now
	open  []*view // oldest first
	dying []*view // expired, some contents still kept
	bytes int64   // kept for all views that may expire
	limit int64   // of bytes
}

// openView freezes the tree as it is now.
func (t *tree) openView(zxid Zxid, now int64, pinned bool) *view {
	v := &view{tree: t, epoch: t.vers.epoch, zxid: zxid, now: now, pinned: pinned}
	t.vers.epoch++
	t.vers.open = append(t.vers.open, v)
	return v
}

// touch must precede every change of n's content.
func (t *tree) touch(n *znode) {
	vs := &t.vers
	if n.since == vs.epoch {
		return
	}
	if len(vs.open) > 0 {
		if newest := vs.open[len(vs.open)-1]; n.since <= newest.epoch {
			old := new(content)
			*old = n.content
			old.sequence = nil
			if n.children != nil {
				n.children = n.children.Clone()
			}
			n.older = old
			newest.kept = append(newest.kept, kept{n, old})
			vs.charge(newest, keptOverhead+int64(len(old.data)))
		}
	}
	n.since = vs.epoch
}

// deleted notes that n left the tree but stays in memory for the newest view.
func (vs *versions) deleted(n *znode) {
	if len(vs.open) > 0 {
		if newest := vs.open[len(vs.open)-1]; n.since <= newest.epoch {
			vs.charge(newest, keptOverhead+int64(len(n.path)+len(n.data)))
		}
	}
}

func (vs *versions) charge(v *view, bytes int64) {
	v.bytes += bytes
	if !v.pinned {
		vs.bytes += bytes
	}
	for vs.bytes > vs.limit {
		oldest := vs.oldestMortal()
		if oldest == nil {
			break
		}
		oldest.expired = true
		vs.forget(oldest)
		vs.dying = append(vs.dying, oldest)
	}
	// Expired views are paid off by those who go on writing, a little at a time.
	for n := 0; len(vs.dying) > 0 && n < 4; n++ {
		if v := vs.dying[0]; len(v.kept) == 0 {
			vs.dying = vs.dying[1:]
		} else {
			vs.drop(v)
		}
	}
}

func (vs *versions) oldestMortal() *view {
	for _, v := range vs.open {
		if !v.pinned {
			return v
		}
	}
	return nil
}

// forget takes v off the open views; its kept contents are still to be dropped.
func (vs *versions) forget(v *view) {
	for i, o := range vs.open {
		if o == v {
			vs.open = append(vs.open[:i:i], vs.open[i+1:]...)
			break
		}
	}
	if !v.pinned {
		vs.bytes -= v.bytes
	}
}

// closeView ends v and drops at most n of its kept contents. It reports whether some are left: call it again.
func (t *tree) closeView(v *view, n int) (more bool) {
	if !v.closed {
		v.closed = true
		if !v.expired {
			t.vers.forget(v)
		}
	}
	for ; n > 0 && len(v.kept) > 0; n-- {
		t.vers.drop(v)
	}
	return len(v.kept) > 0
}

// drop lets go of v's last kept content, or hands it to the next older view that needs it.
func (vs *versions) drop(v *view) {
	k := v.kept[len(v.kept)-1]
	v.kept[len(v.kept)-1] = kept{}
	v.kept = v.kept[:len(v.kept)-1]
	for i := len(vs.open) - 1; i >= 0; i-- {
		u := vs.open[i]
		if u.epoch < v.epoch {
			if k.old.since <= u.epoch {
				u.kept = append(u.kept, k)
				bytes := keptOverhead + int64(len(k.old.data))
				u.bytes += bytes
				if !u.pinned {
					vs.bytes += bytes
				}
				return
			}
			break
		}
	}
	for p := &k.node.older; *p != nil; p = &(*p).older {
		if *p == k.old {
			*p = k.old.older
			return
		}
	}
}

// content returns what n holds in the view, nil if it is newer than the view.
func (v *view) content(n *znode) *content {
	for c := &n.content; c != nil; c = c.older {
		if c.since <= v.epoch {
			return c
		}
	}
	return nil
}

// get walks to path from the root: the tree's map knows only the present.
func (v *view) get(path string) (*znode, *content) {
	n, c := v.tree.root, v.content(v.tree.root)
	for end := 1; n != nil && end <= len(path) && path != "/"; end++ {
		if end < len(path) && path[end] != '/' {
			continue
		}
		if c == nil || c.children == nil {
			return nil, nil
		}
		child, ok := c.children.Get(&znode{path: path[:end]})
		if !ok {
			return nil, nil
		}
		n, c = child, v.content(child)
	}
	return n, c
}
