// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed-541fafe0/zk"
)

// Cache is a copy of one znode, of a directory, or of a whole subtree, that follows the tree: it can be read without a
// lock at any time, as of one zxid, and tells what has changed.
//
// Layout: none; it works on any znodes.
//
// Cost: no message and no write; one local watch, which zk.Stats counts as two if Depth is 1 (WT-39); one local look for
// each change, and a walk of what is cached at the start, after a change of session, and when changes came faster than
// they could be followed. The copy shares data with this member's tree; besides that it takes some 250 bytes for each
// znode. A consumer of Changes that does not keep up keeps one old version of the copy alive.
//
// The copy is a moment behind the member, also behind the caller's own writes: compare Zxid. A change of a znode's access
// control list alone is not followed; znodes that the session may not read are left out, with what is below them.
type Cache struct {
	noCopy noCopy

	Session zk.SessionSource
	Root    string
	Depth   int // 0: the whole subtree; 1: Root alone; 2: Root and its children, and so on

	// Filter, if not nil, says which znodes are shown. It is called on the reader's goroutine.
	Filter func(path string) bool

	now atomic.Pointer[image]

	mu     sync.Mutex // guards the fields below
	closed bool
	cancel context.CancelFunc // not nil once started
	primed chan struct{}      // closed when there is an image
	done   chan struct{}      // closed when nothing runs any more
}

// NewCache returns a cache of root and everything below it. It does nothing before Start.
func NewCache(s zk.SessionSource, root string) *Cache { return &Cache{Session: s, Root: root} }

// image is the copy as of one zxid. It is never changed, but replaced.
type image struct {
	tree     *ordered
	zxid     zk.Zxid
	walks    int           // how often it was made from scratch
	err      error         // why it is the last one
	replaced chan struct{} // closed when there is another
}

// ChangeKind says what a Change tells.
type ChangeKind uint8

const (
	// Added says that Path is in the cache now and was not: it was created, or was there when Changes began. New is the
	// znode, Old is zero.
	Added ChangeKind = iota + 1

	// Updated says that the data at Path was written, be it with the same bytes: Old is what it was, New what it is. Several
	// writes between two looks are one Updated.
	Updated

	// Removed says that the znode that was at Path is gone: it was deleted, by whomever or with its session. Old
	// is what it was last, New is zero. If another one stands there now, Added follows.
	Removed

	// Reset has no path and no znodes: it says that the cache was read from scratch, so that states between the last change
	// and the next may have been skipped. What has changed is told by the changes that follow, as ever: a consumer that keeps
	// a copy of its own need not do anything.
	Reset
)

// String names the kind.
func (k ChangeKind) String() string {
	if k >= Added && k <= Reset {
		return [...]string{"added", "updated", "removed", "reset"}[k-1]
	}
	return "none"
}

// Change is one difference between two versions of a Cache. A znode that was deleted and created again is Removed and
// Added. A change of a znode's children alone is none of the znode.
type Change struct {
	Kind     ChangeKind
	Path     string
	Old, New zk.Znode // zero where there is none: see the kinds
}

// Start fills the cache and returns when it is; an absent root makes an empty one, until it is created. From then on it
// follows the tree on a goroutine of its own, until Close, or until the session is over if Session is a *zk.Session: a
// *zk.Member opens another one. ctx bounds Start alone: if it ends first the cache goes on, and Start may be called
// again. Errors: ctx's, zk.ErrClosed after Close, and why it could not be filled.
func (c *Cache) Start(ctx context.Context) error {
	if _, err := session(ctx, c.Session, "start cache", c.Root); err != nil {
		return err
	}
	if c.Depth < 0 {
		return badArgument("start cache", c.Root, "negative depth")
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.over()
	}
	if c.cancel == nil {
		run, cancel := context.WithCancel(context.Background())
		c.cancel, c.primed, c.done = cancel, make(chan struct{}), make(chan struct{})
		go c.run(run)
	}
	primed := c.primed
	c.mu.Unlock()
	select {
	case <-primed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return c.Err()
}

func (c *Cache) over() error {
	return &zk.Error{Op: "cache", Path: c.Root, Code: zk.ErrClosed}
}

// Close stops the cache and waits until it has. What it had can still be read.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	cancel, done := c.cancel, c.done
	c.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// Err returns nil while the cache follows the tree, then why it stopped: zk.ErrClosed after Close, or the session's
// error.
func (c *Cache) Err() error {
	if at := c.now.Load(); at != nil {
		return at.err
	}
	return nil
}

// tree is the copy as it is now.
func (c *Cache) tree() *ordered {
	if at := c.now.Load(); at != nil {
		return at.tree
	}
	return nil
}

func (c *Cache) shows(path string) bool { return c.Filter == nil || c.Filter(path) }

// Get returns a znode of the cache; false where it has none, be it that Depth or Filter leave it out.
func (c *Cache) Get(path string) (zk.Znode, bool) {
	z, ok := c.tree().get(path)
	if !ok || !c.shows(path) {
		return zk.Znode{}, false
	}
	return z, true
}

// Children yields the names of a znode's children in byte order, as of one zxid; none where the cache has no such znode.
func (c *Cache) Children(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		tree, prefix := c.tree(), strings.TrimSuffix(path, "/")+"/"
		for at := prefix + "\x01"; ; { // no name begins with less
			z, ok := tree.ceiling(at)
			if !ok || !strings.HasPrefix(z.Path, prefix) {
				return
			}
			if c.shows(z.Path) && !yield(z.Path[len(prefix):]) {
				return
			}
			at = beyondPath(z.Path)
		}
	}
}

// All yields everything in the cache as of one zxid, parents before their children, directories in byte order.
func (c *Cache) All() iter.Seq2[string, zk.Znode] {
	return func(yield func(string, zk.Znode) bool) {
		c.tree().ascend(func(z zk.Znode) bool { return !c.shows(z.Path) || yield(z.Path, z) })
	}
}

// Zxid returns the point in history that the cache shows: what was written up to then in it, it has.
func (c *Cache) Zxid() zk.Zxid {
	if at := c.now.Load(); at != nil {
		return at.zxid
	}
	return 0
}

// Changes yields, first, all that is in the cache as Added, and then every change; between two looks of a slow consumer
// they collapse, and none is lost. Removed ones of one moment come first, children before their parents; then the
// others, parents first. It ends with ctx, when the cache is closed, or when it stops by itself, with that error.
func (c *Cache) Changes(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		c.mu.Lock()
		primed := c.primed
		c.mu.Unlock()
		if ctx == nil || primed == nil {
			yield(Change{}, badArgument("changes", c.Root, "nil context, or a cache that was not started"))
			return
		}
		select {
		case <-primed:
		case <-ctx.Done():
			yield(Change{}, ended(ctx))
			return
		}
		at := c.now.Load()
		var told *ordered
		for walks := at.walks; ; {
			if at.walks != walks && !yield(Change{Kind: Reset}, nil) {
				return
			}
			for _, change := range changes(told, at.tree) {
				if c.shows(change.Path) && !yield(change, nil) {
					return
				}
			}
			told, walks = at.tree, at.walks
			if at.err != nil {
				yield(Change{}, at.err)
				return
			}
			select {
			case <-at.replaced:
				at = c.now.Load()
			case <-ctx.Done():
				yield(Change{}, ended(ctx))
				return
			}
		}
	}
}

// run follows the tree under one session after the other.
func (c *Cache) run(ctx context.Context) {
	defer close(c.done)
	err := eachSession(ctx, c.Session, "cache", c.Root, func(s *zk.Session) error { return c.follow(ctx, s) })
	if ctx.Err() != nil {
		err = c.over()
	}
	c.show(image{tree: c.tree(), zxid: c.Zxid(), err: err})
}

// show replaces the image.
func (c *Cache) show(next image) {
	last := c.now.Load()
	next.replaced = make(chan struct{})
	if last != nil {
		next.walks += last.walks
	}
	c.now.Store(&next)
	if last == nil {
		close(c.primed)
	} else {
		close(last.replaced)
	}
}

// follow brings the image up to date whenever something happens, until it cannot.
func (c *Cache) follow(ctx context.Context, s *zk.Session) error {
	kind := zk.WatchSubtree
	if c.Depth == 1 {
		kind = zk.WatchNode
	}
	w, err := s.Watch(ctx, c.Root, kind)
	if err != nil {
		return err
	}
	defer w.Close()
	todo := &backlog{events: w.Events(), whole: true}
	for attempt := 0; ; {
		todo.drain()
		late := &backlog{events: w.Events()}
		err := s.View(ctx, func(v *zk.View) error {
			// What has happened up to v is in the channel by now. It is done twice, because the same may have happened
			// to it after v without another event: that only comes once the first has been received.
			late.drain()
			if todo.over || late.over { // before v, maybe, and then nobody has told what has happened in between
				return nil
			}
			return c.update(v, todo, late)
		})
		switch {
		case errors.Is(err, zk.ErrViewExpired):
			todo.add(late)
			todo.whole = true
			if err = contention.Wait(ctx, attempt); err != nil {
				return err
			}
			attempt++
			continue
		case err != nil:
			return err
		case late.over || todo.over:
			return w.Err()
		}
		attempt, todo = 0, late
		if !todo.pending() {
			todo.wait()
		}
	}
}

// backlog is what is known to have changed.
type backlog struct {
	events <-chan zk.Event
	paths  map[string]struct{}
	whole  bool // anything may have
	over   bool // the watch has ended
}

// backlogMax bounds the paths of a backlog. Beyond it a walk is not much dearer.
const backlogMax = 1 << 16

func (b *backlog) pending() bool { return b.whole || b.over || len(b.paths) > 0 }

// wait notes at least one event.
func (b *backlog) wait() {
	ev, ok := <-b.events
	b.note(ev, ok)
}

// drain notes all events there are.
func (b *backlog) drain() {
	for !b.over {
		select {
		case ev, ok := <-b.events:
			b.note(ev, ok)
		default:
			return
		}
	}
}

func (b *backlog) note(ev zk.Event, ok bool) {
	switch {
	case !ok || ev.Type == zk.EventSession:
		b.over = true
	case ev.Type == zk.EventOverflow:
		b.whole = true
	case ev.Type == zk.EventCreated || ev.Type == zk.EventDeleted:
		dir, _ := split(ev.Path) // its Stat has changed, and no event says so
		b.touch(dir)
		b.touch(ev.Path)
	default:
		b.touch(ev.Path)
	}
}

func (b *backlog) touch(path string) {
	if b.whole {
		return
	}
	if b.paths == nil {
		b.paths = map[string]struct{}{}
	}
	if b.paths[path] = struct{}{}; len(b.paths) > backlogMax {
		b.whole, b.paths = true, nil
	}
}

func (b *backlog) add(o *backlog) {
	for path := range o.paths {
		b.touch(path)
	}
	b.whole, b.over = b.whole || o.whole, b.over || o.over
}

// update makes the image that of a view. What happens meanwhile is noted in late, so that the watch does not overflow.
func (c *Cache) update(v *zk.View, todo, late *backlog) error {
	all := &backlog{}
	all.add(todo)
	all.add(late)
	looked := 0
	pause := func() {
		if looked++; looked%64 == 0 {
			late.drain()
		}
	}
	if all.whole {
		tree, err := c.walk(v, pause)
		if err == nil {
			c.show(image{tree: tree, zxid: v.Zxid(), walks: 1})
		}
		return err
	}
	paths := make([]string, 0, len(all.paths))
	for path := range all.paths {
		if c.covers(path) {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, comparePaths) // parents first
	tree := c.tree()
	for _, path := range paths {
		pause()
		old, had := tree.get(path)
		z, err := v.Get(path)
		dir, _ := split(path)
		_, reachable := tree.get(dir)
		switch {
		case errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNoAuth) || err == nil && path != c.Root && !reachable:
			tree = tree.remove(path)
		case err != nil:
			return err
		case !had || z != old:
			tree = tree.put(z)
		}
	}
	c.show(image{tree: tree, zxid: v.Zxid()})
	return nil
}

// covers tells whether a path belongs into the cache.
func (c *Cache) covers(path string) bool {
	if !within(c.Root, path) {
		return false
	}
	return c.Depth == 0 || strings.Count(strings.TrimSuffix(path, "/"), "/")-strings.Count(strings.TrimSuffix(c.Root, "/"), "/") < c.Depth
}

// walk reads what belongs into the cache.
func (c *Cache) walk(v *zk.View, pause func()) (*ordered, error) {
	var list []zk.Znode
	var err error
	if c.Depth == 0 {
		for z, failed := range v.Walk(c.Root) {
			if err = failed; err != nil {
				break
			}
			list = append(list, z)
			pause()
		}
	} else {
		err = c.descend(v, c.Root, c.Depth, func(z zk.Znode) {
			list = append(list, z)
			pause()
		})
	}
	if err != nil && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrNoAuth) {
		return nil, err
	}
	return grow(list), nil
}

// descend is a walk that goes no deeper than it must.
func (c *Cache) descend(v *zk.View, path string, depth int, fn func(zk.Znode)) error {
	z, err := v.Get(path)
	if errors.Is(err, zk.ErrNoAuth) {
		return nil
	}
	if err != nil {
		return err
	}
	if fn(z); depth == 1 {
		return nil
	}
	for name, err := range v.Children(path) {
		if err == nil {
			err = c.descend(v, join(path, name), depth-1, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
