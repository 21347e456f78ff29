// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"iter"
	"sync/atomic"
)

// View is the tree as it was at one zxid, valid inside the function it is given to. Opening it takes constant time
// and holds nothing up; while it is open, what changes is kept for it. Past a bound of 256 MiB of kept contents,
// for all Views of a member together, the oldest View ends: its methods then fail with ErrViewExpired. A View is
// for one goroutine.
type View struct {
	fsm     *fsm
	stats   *counters
	view    *view
	session *Session // whose permissions and paths apply; nil for trusted code
	done    atomic.Bool
}

// View calls fn with a frozen picture of what the session may read.
func (s *Session) View(ctx context.Context, fn func(*View) error, opt ...ReadOption) error {
	v := &View{fsm: s.m.fsm, stats: &s.m.stats, session: s}
	if fn == nil {
		return &Error{Op: "view", Code: ErrBadArguments, Err: errNilFunction}
	}
	if err := s.read(ctx, "view", "", opt, func(*state) Code { return 0 }); err != nil {
		return err
	}
	return v.run(fn)
}

// View calls fn with a frozen picture of the whole tree. It is for trusted code: no permission is asked for.
func (m *Member) View(ctx context.Context, fn func(*View) error) error {
	if ctx == nil {
		return badContext("view")
	}
	if fn == nil {
		return &Error{Op: "view", Code: ErrBadArguments, Err: errNilFunction}
	}
	if err := m.running("view"); err != nil {
		return err
	}
	return (&View{fsm: m.fsm, stats: &m.stats}).run(fn)
}

func (v *View) run(fn func(*View) error) error {
	v.fsm.locked(func() { v.view = v.fsm.st.openView(v.fsm.st.zxid, v.fsm.st.now, false) })
	defer v.fsm.closeView(v.view)
	defer v.done.Store(true)
	return fn(v)
}

// at runs fn while the tree stands still.
func (v *View) at(op, path string, fn func() Code) error {
	if v.done.Load() {
		return &Error{Op: op, Path: path, Code: ErrClosed}
	}
	code := Code(0)
	v.fsm.reading(func() {
		if v.view.expired {
			code = ErrViewExpired
		} else {
			code = fn()
		}
	})
	if code != 0 {
		return &Error{Op: op, Path: path, Code: code}
	}
	return nil
}

func (v *View) full(path string) string {
	if v.session == nil {
		return path
	}
	return v.session.full(path)
}

func (v *View) znode(n *znode, c *content) Znode {
	st := c.stat()
	path := n.path
	if v.session != nil {
		path = v.session.local(path)
	}
	return Znode{path, c.data, st.public()}
}

func (v *View) readable(c *content) bool {
	return v.session == nil || c.acl == nil || allowed(c.acl, PermRead, v.session.identities())
}

// find returns a znode and its content in the view.
func (v *View) find(path string) (*znode, *content, Code) {
	full := v.full(path)
	if badPath(path) != "" || badPath(full) != "" {
		return nil, nil, ErrBadArguments
	}
	n, c := v.view.get(full)
	switch {
	case c == nil:
		return nil, nil, ErrNoNode
	case !v.readable(c):
		return nil, nil, ErrNoAuth
	}
	return n, c, 0
}

// Zxid returns the point in history the View shows.
func (v *View) Zxid() Zxid { return v.view.zxid }

// Get returns a znode. Errors: ErrNoNode, ErrNoAuth, ErrViewExpired, ErrBadArguments.
func (v *View) Get(path string) (z Znode, err error) {
	err = v.at("get", path, func() Code {
		n, c, code := v.find(path)
		if code == 0 {
			z = v.znode(n, c)
		}
		return code
	})
	return z, err
}

// Children yields the names of a znode's children in byte order.
func (v *View) Children(path string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		after, page := "", make([]string, 0, chunk)
		for more := true; more; {
			page = page[:0]
			err := v.at("children", path, func() Code {
				_, c, code := v.find(path)
				if code == 0 {
					childrenAfter(c, v.full(path), after, func(n *znode) bool {
						page = append(page, baseName(n.path))
						return len(page) < cap(page)
					})
					v.stats.scanned.Add(int64(len(page)))
				}
				return code
			})
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range page {
				if !yield(name, nil) {
					return
				}
			}
			if more = len(page) == cap(page); more {
				after = page[len(page)-1]
			}
		}
	}
}

// Prev returns the name of the child of path that precedes name in byte order; false where there is none.
func (v *View) Prev(path, name string) (prev string, ok bool, err error) {
	err = v.at("prev", path, func() Code {
		_, c, code := v.find(path)
		if code == 0 {
			if n := childBefore(c, v.full(path), name); n != nil {
				prev, ok = baseName(n.path), true
				v.stats.scanned.Add(1)
			}
		}
		return code
	})
	return prev, ok, err
}

// each calls fn for root and everything below it, whether or not it can be read. fn runs under the lock.
func (v *View) each(root string, fn func(*znode, *content)) error {
	var walk *walker
	for more := true; more; {
		err := v.at("walk", root, func() Code {
			if walk == nil {
				if _, _, code := v.find(root); code != 0 {
					return code
				}
				walk = newWalker(v.view, v.full(root))
			}
			passed := int64(0)
			for range chunk {
				n, c := walk.next()
				if more = n != nil; !more {
					break
				}
				passed++
				fn(n, c)
			}
			v.stats.scanned.Add(passed)
			return 0
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Walk yields root and everything below it, parents before their children, directories in byte order. What the
// session may not read is left out, with everything below it.
func (v *View) Walk(root string) iter.Seq2[Znode, error] {
	return func(yield func(Znode, error) bool) {
		var walk *walker
		page := make([]Znode, 0, chunk)
		hidden := ""
		for more := true; more; {
			page = page[:0]
			err := v.at("walk", root, func() Code {
				if walk == nil {
					if _, _, code := v.find(root); code != 0 {
						return code
					}
					walk = newWalker(v.view, v.full(root))
				}
				passed := int64(0)
				for range chunk {
					n, c := walk.next()
					if n == nil {
						more = false
						break
					}
					passed++
					if hidden != "" && within(hidden, n.path) {
						continue
					}
					if !v.readable(c) {
						hidden = n.path
						continue
					}
					page = append(page, v.znode(n, c))
				}
				v.stats.scanned.Add(passed)
				return 0
			})
			if err != nil {
				yield(Znode{}, err)
				return
			}
			for _, z := range page {
				if !yield(z, nil) {
					return
				}
			}
		}
	}
}
