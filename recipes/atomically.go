// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// Atomically runs fn on a frozen picture of the tree and then applies what fn wrote, all of it or nothing, if what fn
// has read is still as it was; otherwise it runs fn again on a newer picture. Transactions that were committed are
// strictly serializable (STM-S1). fn runs on the caller's goroutine, several times where others interfere, and should
// have no effect besides; an error or a panic of fn ends Atomically with nothing applied.
//
// Layout: none; it works on any znodes.
//
// Cost: reads are local; committing is one write, with one or two guards for each znode read and one for each child
// listed, of at most Config.MaxTxnOps steps. Where fn wrote nothing there is no write. A conflict costs one more write
// (STM-L1).
//
// The first picture is what this member knows, which may be behind others: that can cost a conflict, and an error of fn,
// or a transaction that only reads, may be about an older state. With zk.Linearizable the first picture is current.
//
// Errors: fn's; ctx's; ErrLost or ErrReleased of a right given to Tx.Guard; zk.ErrViewExpired where fn took so long that
// the picture could not be kept; and those of every write, zk.MaybeApplied included.
func Atomically(ctx context.Context, src zk.SessionSource, fn func(tx *Tx) error, opt ...zk.ReadOption) error {
	s, err := session(ctx, src, "atomically", "/")
	if err != nil {
		return err
	}
	if fn == nil {
		return badArgument("atomically", "", "nil function")
	}
	for attempt := 0; ; attempt++ {
		tx := &Tx{session: s, read: map[string]*seen{}}
		err := s.View(ctx, func(v *zk.View) error {
			tx.view = v
			defer func() { tx.view = nil }()
			return fn(tx)
		}, opt...)
		if tx.failed != nil {
			err = tx.failed
		}
		if err != nil {
			return err
		}
		if again, err := tx.commit(ctx); !again {
			return err
		}
		opt = nil // this member has applied what was refused: the next picture is as new
		if err := contention.Wait(ctx, attempt); err != nil {
			return err
		}
	}
}

// Tx is one run of a transaction. It is for the goroutine that runs the function it was given to, and of no use
// afterwards: its methods fail with zk.ErrClosed then. Paths are those of the session.
type Tx struct {
	noCopy noCopy

	session *zk.Session
	view    *zk.View
	failed  error // of the view: the transaction cannot be trusted

	read   map[string]*seen
	order  []*seen // as they were read
	rights []*Held
	writes []zk.Op
}

// seen is what a transaction knows of a znode: as it was in the picture, and as its own writes have left it.
type seen struct {
	path  string
	there bool // in the picture
	was   zk.Stat
	names []string // of its children, if they were listed

	listed    bool // the transaction depends on the set of children
	versioned bool // it depends on the data

	exists  bool
	made    bool // by the transaction
	written bool // by the transaction
	data    string
	owner   zk.SessionID
	added   map[string]bool // children made by the transaction
	gone    map[string]bool // children deleted by it
	unnamed int             // children made by it that have no name yet
}

func (tx *Tx) refuse(op, path string, code zk.Code) error {
	return &zk.Error{Op: op, Path: path, Code: code}
}

// look finds a znode in the picture, and what the transaction has made of it. That it exists, or does not, counts as
// read.
func (tx *Tx) look(op, path string) (*seen, error) {
	if tx.view == nil {
		return nil, tx.refuse(op, path, zk.ErrClosed)
	}
	if n := tx.read[path]; n != nil {
		return n, nil
	}
	z, err := tx.view.Get(path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, tx.broken(err)
	}
	n := &seen{path: path, there: err == nil, was: z.Stat, exists: err == nil, data: z.Data, owner: z.Stat.EphemeralOwner}
	tx.read[path] = n
	tx.order = append(tx.order, n)
	return n, nil
}

// existing is look for a znode that must be there.
func (tx *Tx) existing(op, path string) (*seen, error) {
	n, err := tx.look(op, path)
	if err == nil && !n.exists {
		return nil, tx.refuse(op, path, zk.ErrNoNode)
	}
	return n, err
}

// broken notes that the picture is gone; nothing that fn does can hide that.
func (tx *Tx) broken(err error) error {
	if errors.Is(err, zk.ErrViewExpired) {
		tx.failed = err
	}
	return err
}

// list reads the children in the picture. That each of them exists counts as read.
func (tx *Tx) list(op string, n *seen) error {
	if n.listed || !n.there {
		return nil
	}
	n.names = nil
	for name, err := range tx.view.Children(n.path) {
		if err != nil {
			return tx.broken(err)
		}
		if _, err := tx.look(op, join(n.path, name)); err != nil {
			return err
		}
		n.names = append(n.names, name)
	}
	n.listed = true
	return nil
}

// Get returns a znode as the transaction sees it, its own writes included. The Stat is that of the picture but for
// DataLength; of a znode that the transaction has created it is otherwise zero, because nobody knows it yet. Errors:
// zk.ErrNoNode, which is a read as well: the znode must still be absent when the transaction commits; zk.ErrNoAuth.
func (tx *Tx) Get(path string) ([]byte, zk.Stat, error) {
	n, err := tx.existing("get", path)
	if err != nil {
		return nil, zk.Stat{}, err
	}
	st := n.was
	if n.made {
		st = zk.Stat{EphemeralOwner: n.owner}
	}
	st.DataLength = len(n.data)
	n.versioned = n.versioned || !n.written
	return []byte(n.data), st, nil
}

// Children returns the names of a znode's children in byte order, without those that the transaction creates with a
// number: they have no name yet. When it commits the same children must be there, each the same incarnation. Errors:
// zk.ErrNoNode; zk.ErrNoAuth, also where a child may not be read.
func (tx *Tx) Children(path string) ([]string, error) {
	n, err := tx.existing("children", path)
	if err == nil {
		err = tx.list("children", n)
	}
	if err != nil {
		return nil, err
	}
	return n.children(), nil
}

func (n *seen) children() []string {
	names := slices.DeleteFunc(slices.Clone(n.names), func(name string) bool { return n.gone[name] })
	for name := range n.added {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Create creates a znode. Errors: zk.ErrNodeExists; zk.ErrNoNode without a parent, unless mode has zk.Parents;
// zk.ErrNoChildrenForEphemerals; zk.ErrBadArguments. What else is wrong is told by Atomically.
func (tx *Tx) Create(path string, data []byte, mode zk.CreateMode) error {
	at := path
	if mode&zk.Sequential != 0 {
		at += "0000000000" // as it may become
	}
	if err := zk.ValidPath(at); err != nil {
		return err
	}
	dir, name := split(at)
	if name == "" {
		return tx.refuse("create", path, zk.ErrNodeExists)
	}
	p, err := tx.parent(dir, mode&zk.Parents != 0)
	if err != nil {
		return err
	}
	if mode&zk.Sequential != 0 {
		p.unnamed++
	} else {
		n, err := tx.look("create", path)
		if err != nil {
			return err
		}
		if n.exists {
			return tx.refuse("create", path, zk.ErrNodeExists)
		}
		n.exists, n.made, n.written, n.data = true, true, true, string(data)
		if mode&zk.Ephemeral != 0 {
			n.owner = tx.session.ID()
		}
		p.adopt(name)
	}
	tx.writes = append(tx.writes, zk.OpCreate(path, data, mode))
	return nil
}

// parent returns the znode below which one is created. With missing, it and what is above it need not exist.
func (tx *Tx) parent(dir string, missing bool) (*seen, error) {
	p, err := tx.look("create", dir)
	switch {
	case err != nil:
		return nil, err
	case p.exists && p.owner != 0:
		return nil, tx.refuse("create", dir, zk.ErrNoChildrenForEphemerals)
	case p.exists:
		return p, nil
	case !missing:
		return nil, tx.refuse("create", dir, zk.ErrNoNode)
	}
	if up, name := split(dir); name != "" {
		above, err := tx.parent(up, true)
		if err != nil {
			return nil, err
		}
		above.adopt(name)
	}
	p.exists, p.made, p.written = true, true, true
	return p, nil
}

func (n *seen) adopt(name string) {
	if n.added == nil {
		n.added = map[string]bool{}
	}
	n.added[name] = true
}

// Set replaces a znode's data, which does not count as reading it. Errors: zk.ErrNoNode, zk.ErrNoAuth.
func (tx *Tx) Set(path string, data []byte) error {
	n, err := tx.existing("set", path)
	if err != nil {
		return err
	}
	n.written, n.data = true, string(data)
	tx.writes = append(tx.writes, zk.OpSet(path, data, zk.AnyVersion))
	return nil
}

// Delete deletes a znode without children. Errors: zk.ErrNoNode, zk.ErrNotEmpty, zk.ErrNoAuth.
func (tx *Tx) Delete(path string) error {
	n, err := tx.existing("delete", path)
	if err == nil {
		err = tx.list("delete", n)
	}
	if err != nil {
		return err
	}
	if len(n.children()) > 0 || n.unnamed > 0 {
		return tx.refuse("delete", path, zk.ErrNotEmpty)
	}
	dir, name := split(path)
	if name == "" {
		return tx.refuse("delete", path, zk.ErrBadArguments) // the root stays
	}
	p, err := tx.existing("delete", dir)
	if err != nil {
		return err
	}
	delete(p.added, name)
	if p.gone == nil {
		p.gone = map[string]bool{}
	}
	p.gone[name] = true
	n.exists, n.made, n.written, n.data, n.owner = false, false, true, "", 0
	tx.writes = append(tx.writes, zk.OpDelete(path, zk.AnyVersion))
	return nil
}

// Guard makes the transaction depend on a right: it is applied only while h is held, and Atomically returns ErrLost or
// ErrReleased otherwise. h must be of the same session, or of one whose paths start at the same place. With a guard
// there is a write even if fn wrote nothing.
func (tx *Tx) Guard(h *Held) { tx.rights = append(tx.rights, h) }

// guards are the steps that fail if what was read has changed.
func (tx *Tx) guards() []zk.Op {
	var ops []zk.Op
	for _, n := range tx.order {
		if !n.there {
			ops = append(ops, zk.OpCheckAbsent(n.path))
			continue
		}
		if n.was.Czxid != 0 { // else it is the root, or as old
			ops = append(ops, zk.OpCheckCreated(n.path, zk.Token(n.was.Czxid)))
		}
		if n.versioned {
			ops = append(ops, zk.OpCheck(n.path, n.was.Version))
		}
		if n.listed { // with as many children as before, each of which is still there, there are no others
			ops = append(ops, zk.OpCheckChildren(n.path, zk.Equal, len(n.names)))
		}
	}
	return ops
}

// commit applies what was written if what was read still holds; otherwise fn is to run again.
func (tx *Tx) commit(ctx context.Context) (again bool, err error) {
	for _, h := range tx.rights {
		if err := h.Err(); err != nil {
			return false, err
		}
	}
	if len(tx.writes) == 0 && len(tx.rights) == 0 {
		return false, nil
	}
	var ops []zk.Op
	var of []*Held // of the first steps
	for _, h := range tx.rights {
		for _, step := range h.Guards() {
			ops, of = append(ops, step), append(of, h)
		}
	}
	ops = append(ops, tx.guards()...)
	guards := len(ops)
	_, err = tx.session.Txn(ctx, append(ops, tx.writes...)...)
	txn, ok := errors.AsType[*zk.TxnError](err)
	switch {
	case !ok || txn.Index >= guards:
		return false, err
	case txn.Index < len(of):
		if lost := of[txn.Index].Err(); lost != nil {
			return false, lost // this member has applied what the guard has seen
		}
		return false, err
	}
	return errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNoNode), err
}

// split returns the path of the parent, and the last name: "" for the root.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}
