// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"iter"
	"slices"
	"time"
)

// Znode is a znode as a read or a write left it.
type Znode struct {
	Path string
	Data string // immutable and shared: never copied
	Stat Stat
}

// ReadOption says how fresh a read must be. The zero value is ReadYourWrites.
type ReadOption time.Duration

const (
	// ReadYourWrites is the default: local, never behind this session's own writes and events (P7).
	ReadYourWrites ReadOption = iota
	// Local reads whatever this member has: it never waits and works without a quorum.
	Local
	// Linearizable reads what is current: it reflects every write that was answered anywhere before the read
	// began (P6). It costs one message round through the leader, no log entry.
	Linearizable
)

// Fresh makes a local read fail with ErrStale if this member has heard of no leader for longer than d (P8).
func Fresh(d time.Duration) ReadOption { return -ReadOption(max(d, 1)) }

// read runs fn on the state, under the read lock, as fresh as the options ask for.
func (s *Session) read(ctx context.Context, op, path string, opts []ReadOption, fn func(st *state) Code) error {
	if err := s.begin(ctx, op, path); err != nil {
		return err
	}
	for _, o := range opts {
		switch {
		case o < 0:
			if heard := s.m.heard(); heard > time.Duration(-o) {
				return &Error{Op: op, Path: path, Code: ErrStale}
			}
		case o == Linearizable:
			if s.readOnly {
				return &Error{Op: op, Path: path, Code: ErrNotReadOnly}
			}
			if err := s.m.barrier(ctx); err != nil {
				return &Error{Op: op, Path: path, Code: codeOf(err), Err: err}
			}
		}
	}
	code := Code(0)
	s.m.fsm.reading(func() { code = fn(s.m.fsm.st) })
	s.m.stats.reads.Add(1)
	if code != 0 {
		return &Error{Op: op, Path: path, Code: code}
	}
	return nil
}

// node finds a znode and checks that the session may read it (DM-46).
func (s *Session) node(st *state, full string) (*znode, Code) {
	n := st.nodes[full]
	switch {
	case n == nil:
		return nil, ErrNoNode
	case n.acl != nil && !allowed(n.acl, PermRead, s.identities()):
		return nil, ErrNoAuth
	}
	return n, 0
}

func (s *Session) get(ctx context.Context, op, path string, opts []ReadOption, also func(full string, n *znode) Code) (data string, null bool, st stat, err error) {
	full := s.full(path)
	if err = s.checkPath(op, path, full); err != nil {
		return
	}
	err = s.read(ctx, op, path, opts, func(t *state) Code {
		n, code := s.node(t, full)
		if code != 0 {
			return code
		}
		data, null, st = n.data, n.null, n.stat()
		if also != nil {
			return also(full, n)
		}
		return 0
	})
	return
}

func copied(data string, null bool) []byte {
	if null {
		return nil
	}
	return []byte(data)
}

// Get returns a copy of a znode's data, nil if it is null, and its Stat. Errors: ErrNoNode, ErrNoAuth.
func (s *Session) Get(ctx context.Context, path string, opt ...ReadOption) ([]byte, Stat, error) {
	data, null, st, err := s.get(ctx, "get", path, opt, nil)
	if err != nil {
		return nil, Stat{}, err
	}
	return copied(data, null), st.public(), nil
}

// GetString is Get without the copy.
func (s *Session) GetString(ctx context.Context, path string, opt ...ReadOption) (string, Stat, error) {
	data, _, st, err := s.get(ctx, "get", path, opt, nil)
	if err != nil {
		return "", Stat{}, err
	}
	return data, st.public(), nil
}

// Exists returns a znode's Stat, or false where there is none. Error: ErrNoAuth (DM-45).
func (s *Session) Exists(ctx context.Context, path string, opt ...ReadOption) (Stat, bool, error) {
	_, _, st, err := s.get(ctx, "exists", path, opt, nil)
	if err != nil {
		if isCode(err, ErrNoNode) {
			err = nil
		}
		return Stat{}, false, err
	}
	return st.public(), true, nil
}

func isCode(err error, c Code) bool {
	e, ok := err.(*Error)
	return ok && e.Code == c
}

// Children returns the names of a znode's children in byte order, and its Stat. Errors: ErrNoNode, ErrNoAuth. For
// large directories use ChildrenSeq.
func (s *Session) Children(ctx context.Context, path string, opt ...ReadOption) ([]string, Stat, error) {
	names, st, err := s.children(ctx, "children", path, opt, nil)
	if err != nil {
		return nil, Stat{}, err
	}
	return names, st.public(), nil
}

func (s *Session) children(ctx context.Context, op, path string, opts []ReadOption, also func(full string, n *znode) Code) (names []string, st stat, err error) {
	_, _, st, err = s.get(ctx, op, path, opts, func(full string, n *znode) Code {
		names = make([]string, 0, n.numChildren())
		childrenAfter(&n.content, full, "", func(c *znode) bool {
			names = append(names, baseName(c.path))
			return true
		})
		s.m.stats.scanned.Add(int64(len(names)))
		if also != nil {
			return also(full, n)
		}
		return 0
	})
	return
}

// firstPage is how many children are read at first, so that who looks for the first of a kind goes over few others;
// nextPage grows from there.
const firstPage = 8

func nextPage[T any](page []T, most int) []T {
	if cap(page) >= most {
		return page[:0]
	}
	return make([]T, 0, min(4*cap(page), most))
}

// ChildrenSeq yields the names of a znode's children that follow after in byte order, "" for all. It reads them in
// pages, so that changes made meanwhile may or may not show; every child that is there throughout is yielded once.
func (s *Session) ChildrenSeq(ctx context.Context, path, after string, opt ...ReadOption) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for page := make([]string, 0, firstPage); ; page = nextPage(page, 4*chunk) {
			_, _, _, err := s.get(ctx, "children", path, opt, func(full string, n *znode) Code {
				childrenAfter(&n.content, full, after, func(c *znode) bool {
					page = append(page, baseName(c.path))
					return len(page) < cap(page)
				})
				s.m.stats.scanned.Add(int64(len(page)))
				return 0
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
			if len(page) < cap(page) {
				return
			}
			after, opt = page[len(page)-1], nil
		}
	}
}

// Sequential yields the children of a znode that carry a sequence number, in the order of those numbers, whatever
// their names start with. It reads them in pages, as ChildrenSeq does.
func (s *Session) Sequential(ctx context.Context, path string, opt ...ReadOption) iter.Seq2[Znode, error] {
	return func(yield func(Znode, error) bool) {
		var last *znode
		for page := make([]Znode, 0, firstPage); ; page = nextPage(page, chunk) {
			_, _, _, err := s.get(ctx, "children", path, opt, func(full string, n *znode) Code {
				if n.sequence == nil {
					return 0
				}
				passed := int64(0)
				take := func(c *znode) bool {
					if last != nil && c.path == last.path {
						return true
					}
					passed++
					if c.acl == nil || allowed(c.acl, PermRead, s.identities()) {
						st := c.stat()
						page = append(page, Znode{s.local(c.path), c.data, st.public()})
					}
					last = c
					return len(page) < cap(page)
				}
				if last == nil {
					n.sequence.Ascend(take)
				} else {
					n.sequence.AscendGreaterOrEqual(last, take)
				}
				s.m.stats.scanned.Add(passed)
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
			if len(page) < cap(page) {
				return
			}
			opt = nil
		}
	}
}

// Preceding returns the nearest sibling before path in the order of sequence numbers whose name matches; false
// where there is none. It takes O(log n) where the nearest one matches, copies nothing, and needs no list. match
// runs under the state's lock: it must only look at the name. Errors: ErrNoNode where path is gone, ErrNoAuth.
func (s *Session) Preceding(ctx context.Context, path string, match func(name string) bool, opt ...ReadOption) (Znode, bool, error) {
	var found Znode
	ok := false
	full := s.full(path)
	if match == nil {
		return Znode{}, false, &Error{Op: "preceding", Path: path, Code: ErrBadArguments, Err: errNilFunction}
	}
	if err := s.checkPath("preceding", path, full); err != nil {
		return Znode{}, false, err
	}
	err := s.read(ctx, "preceding", path, opt, func(t *state) Code {
		n := t.nodes[full]
		if n == nil || full == "/" {
			return ErrNoNode
		}
		if p := t.nodes[parentPath(full)]; !allowed(p.acl, PermRead, s.identities()) {
			return ErrNoAuth
		}
		passed := int64(0)
		o := t.precedes(n, func(name string) bool {
			passed++
			return match(name)
		})
		s.m.stats.scanned.Add(passed)
		if o != nil {
			ok = true
			st := o.stat()
			found = Znode{Path: s.local(o.path), Stat: st.public()}
			if allowed(o.acl, PermRead, s.identities()) {
				found.Data = o.data
			}
		}
		return 0
	})
	return found, ok, err
}

// GetACL returns a znode's access control list. Without PermAdmin the hashes of digest identities are hidden
// (DM-50). Errors: ErrNoNode, ErrNoAuth.
func (s *Session) GetACL(ctx context.Context, path string, opt ...ReadOption) ([]ACL, Stat, error) {
	full := s.full(path)
	if err := s.checkPath("get acl", path, full); err != nil {
		return nil, Stat{}, err
	}
	acl, st, _, err := s.acl(ctx, path, full, opt)
	return acl, st, err
}

func (s *Session) acl(ctx context.Context, path, full string, opts []ReadOption) (acl []ACL, st Stat, z Zxid, err error) {
	var inner stat
	err = s.read(ctx, "get acl", path, opts, func(t *state) Code {
		z = t.zxid
		n := t.nodes[full]
		if n == nil {
			return ErrNoNode
		}
		ids := s.identities()
		if !allowed(n.acl, PermRead|PermAdmin, ids) {
			return ErrNoAuth
		}
		acl, inner = slices.Clone(aclEntries(n.acl)), n.stat()
		if !allowed(n.acl, PermAdmin, ids) {
			acl = maskDigests(acl)
		}
		return 0
	})
	if err != nil {
		return nil, Stat{}, z, err
	}
	return acl, inner.public(), z, nil
}

// Sync returns once this member has applied everything that was answered anywhere before the call: a read after it
// is linearizable (DM-51).
func (s *Session) Sync(ctx context.Context) error {
	if err := s.begin(ctx, "sync", ""); err != nil {
		return err
	}
	if s.readOnly {
		return &Error{Op: "sync", Code: ErrNotReadOnly}
	}
	if err := s.m.barrier(ctx); err != nil {
		return &Error{Op: "sync", Code: codeOf(err), Err: err}
	}
	return nil
}

// Walk yields root and everything below it as it was at one zxid, directories in order. Znodes that the session
// may not read are left out, with what is below them.
func (s *Session) Walk(ctx context.Context, root string, opt ...ReadOption) iter.Seq2[Znode, error] {
	return func(yield func(Znode, error) bool) {
		stopped := false
		err := s.View(ctx, func(v *View) error {
			for z, err := range v.Walk(root) {
				if err == nil && ctx.Err() != nil {
					err = ctxError("walk", root, ctx)
				}
				if err != nil {
					return err
				}
				if !yield(z, nil) {
					stopped = true
					return nil
				}
			}
			return nil
		}, opt...)
		if err != nil && !stopped {
			yield(Znode{}, err)
		}
	}
}
