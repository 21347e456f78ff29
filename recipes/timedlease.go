// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// TimedLease is had for a time, whatever becomes of whoever has it: of a job that every instance starts at the full hour
// one does the work, and no other until the lease is over, even if that one is restarted meanwhile. Nobody waits for it.
//
// Layout, kazoo's NonBlockingLease: PATH/lease_holder, persistent, {"version":1,"holder":HOLDER,"end":TIME} with the time in UTC
// to the second; with Slots, kazoo's MultiNonBlockingLease: PATH/0/lease_holder and so on. kazoo's programs take part: they
// lock PATH while they look, and as long as one does so nothing is had here. Their clocks have to agree with the ensemble's
// time, which is what counts here. PATH is a container, reaped once the lease was released.
//
// Cost: one write to get it, to renew it and to release it, and one before it is got from another whose time is over; a busy
// Try costs one round of messages and no write. Nobody is woken. Who holds it has a local watch and a goroutine.
//
// The right is one by the clock: Lost is closed when its time is over, by the ensemble's time as far as this member knows
// it and by the local clock since the lease was asked for, whichever is first. It is not bound to the session's lease: a
// member that is cut off keeps it to its end; that somebody took it by force, under the same name, or for less time, is seen
// as long as Session gives a session that is alive; so is a restore that has undone it, or undone a renewal of it. A right that
// is paused past its end goes on until it looks: effects inside the tree belong into a transaction with Held.Guard, effects
// outside of it carry Held.Token. Held.Release needs a session that is alive too: without one it fails, and others wait for the
// lease's end. Revoke is not for it.
type TimedLease struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Holder  string        // who wants it: whoever has the same name counts as the same holder. Not empty
	For     time.Duration // how long, more than 0; rounded up to a second of the clock
	Slots   int           // so many holders at a time; 0 means 1. It must be the same for all

	once    sync.Once
	turn    chan struct{} // has an element while a call is under way
	current *timed        // the last right; only whoever has the turn looks
}

// NewTimedLease returns a lease on path for a time d at once.
func NewTimedLease(s zk.SessionSource, path, holder string, d time.Duration) *TimedLease {
	return &TimedLease{Session: s, Path: path, Holder: holder, For: d}
}

const (
	leaseVersion = 1
	leaseTime    = "2006-01-02T15:04:05"
	leaseHolder  = "lease_holder"
)

// tenure is what lease_holder holds.
type tenure struct {
	Version int    `json:"version"`
	Holder  string `json:"holder"`
	End     string `json:"end"`
}

// slot is a place for one holder, as this member sees it.
type slot struct {
	path  string  // of lease_holder
	steps []zk.Op // make a transaction fail if what is seen here is not so any more
	stat  zk.Stat // of lease_holder; Czxid is 0 where there is none
	busy  bool    // a kazoo program is looking at it
	tenure
	end time.Time
}

// Try gets the lease if nobody has it, if its time is over, or if the holder is the same: it then lasts for For from now
// on. Where this TimedLease has it already it is renewed, and Try returns the same right with a later end; a lease that was
// got under the same name elsewhere, or by an earlier process, is taken over, with a new token, and whoever had it loses it.
//
// The error is ErrNotAcquired if others have it: nothing is changed then. It is a *DecodeError that wraps ErrMismatch if
// what is stored is not of this layout or of an unknown version, and otherwise ctx's, or that of a write; if that is
// zk.MaybeApplied, the lease may have been got, and Try will tell.
func (t *TimedLease) Try(ctx context.Context) (*Held, error) {
	s, err := session(ctx, t.Session, "try lease", t.Path)
	switch {
	case err != nil:
		return nil, err
	case t.Holder == "" || t.For <= 0 || t.Slots < 0:
		return nil, badArgument("try lease", t.Path, "a timed lease needs a holder, a time, and not less than no slots")
	}
	t.once.Do(func() { t.turn = make(chan struct{}, 1) })
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	var stamp time.Time // zero, or the ensemble's time since this call began: what this member knows may be ahead of that
	for current := false; ; {
		now := stamp
		if now.IsZero() {
			now = s.Now()
		}
		best, err := t.choose(ctx, s, now)
		if err != nil {
			return nil, explain(ctx, err)
		}
		if best == nil {
			if current {
				return nil, ErrNotAcquired
			}
			if err := s.Sync(ctx); err != nil { // what this member knows may be old
				return nil, explain(ctx, err)
			}
			current = true
			continue
		}
		var h *Held
		if best.stat.Czxid != 0 && best.Holder != t.Holder && stamp.IsZero() {
			stamp, err = best.ask(ctx, s)
		} else {
			h, err = t.get(ctx, s, best)
		}
		if conflicting(err) {
			current = true // the refusal was applied here: what is seen now is as new
			continue
		}
		if h != nil || err != nil {
			return h, err
		}
	}
}

// choose returns the slot to try for: our own, or the first one that is free now; nil where there is none.
func (t *TimedLease) choose(ctx context.Context, s *zk.Session, now time.Time) (best *slot, err error) {
	own := false
	for i := range max(t.Slots, 1) {
		dir := t.Path
		if t.Slots > 1 {
			dir = join(dir, strconv.Itoa(i))
		}
		p, err := t.look(ctx, s, dir)
		if err != nil {
			return nil, err
		}
		free := p.stat.Czxid == 0 || !now.Before(p.end)
		switch {
		case p.busy:
		case t.renews(p):
			return p, nil
		case p.Holder == t.Holder && !free && !own:
			best, own = p, true
		case free && best == nil:
			best = p
		}
	}
	return best, nil
}

// renews tells whether a slot has the lease that this TimedLease got.
func (t *TimedLease) renews(p *slot) bool {
	return t.current != nil && t.current.held.Valid() && t.current.held.Path() == p.path && t.current.held.Token() == zk.Token(p.stat.Czxid)
}

// look reads a slot.
func (t *TimedLease) look(ctx context.Context, s *zk.Session, dir string) (*slot, error) {
	p := &slot{path: join(dir, leaseHolder)}
	names, _, err := s.Children(ctx, dir)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, err
	}
	p.steps = []zk.Op{zk.OpCheckChildren(dir, zk.LessEq, len(names))} // nobody of kazoo's has come
	for _, name := range names {
		path := join(dir, name)
		switch {
		case lockKind.contends(name):
			p.busy = true
		case path != p.path:
			st, _, err := s.Exists(ctx, path)
			if err != nil {
				return nil, err
			}
			p.steps = append(p.steps, zk.OpCheckCreated(path, zk.Token(st.Czxid))) // nor in the place of another
		}
	}
	data, st, err := s.Get(ctx, p.path)
	if errors.Is(err, zk.ErrNoNode) {
		p.steps = append(p.steps, zk.OpCheckAbsent(p.path))
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	p.stat = st
	p.steps = append(p.steps, zk.OpCheckCreated(p.path, zk.Token(st.Czxid)), zk.OpCheck(p.path, st.Version))
	if err = json.Unmarshal(data, &p.tenure); err == nil && p.Version != leaseVersion {
		err = fmt.Errorf("version %d", p.Version)
	}
	if err == nil {
		p.end, err = time.Parse(leaseTime, p.End)
	}
	if err != nil {
		return nil, &DecodeError{Path: p.path, Zxid: st.Mzxid, Err: fmt.Errorf("%w: %w", ErrMismatch, err)}
	}
	return p, nil
}

// ask learns the ensemble's time from the stamp of a write that leaves nothing behind. A member carries the last stamp on by
// its own clock, and a new leader whose clock is behind goes on from that stamp: what the member knows is then ahead by as long
// as nobody led, and whoever has the slot counts from a stamp that came later.
func (p *slot) ask(ctx context.Context, s *zk.Session) (time.Time, error) {
	mark := join(p.path, touched)
	results, err := s.Txn(ctx, append(p.steps, zk.OpCreate(mark, nil, zk.Persistent), zk.OpDelete(mark, zk.AnyVersion))...)
	if err != nil {
		return time.Time{}, err
	}
	return results[len(results)-2].Stat.Ctime, nil
}

// get writes our name into a slot. It is nil without an error if the lease was renewed too late.
func (t *TimedLease) get(ctx context.Context, s *zk.Session, p *slot) (*Held, error) {
	end := s.Now().Add(t.For).UTC()
	if whole := end.Truncate(time.Second); whole.Before(end) {
		end = whole.Add(time.Second)
	}
	data, err := json.Marshal(tenure{leaseVersion, t.Holder, end.Format(leaseTime)})
	if err != nil {
		return nil, err
	}
	renews, steps := t.renews(p), p.steps
	switch {
	case renews:
		steps = append(steps, zk.OpSet(p.path, data, zk.AnyVersion))
	case p.stat.Czxid != 0: // another znode, so that the token is a new one
		steps = append(steps, zk.OpDelete(p.path, zk.AnyVersion))
		fallthrough
	default:
		steps = append(steps, zk.OpCreate(p.path, data, zk.Persistent|zk.Parents))
	}
	sent := time.Now()
	results, err := s.Txn(ctx, steps...)
	if err != nil {
		return nil, err
	}
	st := results[len(results)-1].Stat
	// The ensemble's time was st.Mtime at some moment after sent, to the millisecond.
	left := end.Sub(st.Mtime) - time.Millisecond - time.Since(sent)
	if renews {
		if t.current.extend(s, st.Mzxid, end, left) {
			return t.current.held, nil
		}
		return nil, nil
	}
	g, err := t.grant(ctx, contender{s: s, path: p.path, token: zk.Token(st.Czxid)}, st.Mzxid, end, left)
	if err != nil {
		return nil, err
	}
	t.current = g
	return g.held, nil
}

// timed is a right by the clock.
type timed struct {
	held  *Held
	timer *time.Timer

	mu  sync.Mutex  // guards the fields below
	end time.Time   // the ensemble's time
	s   *zk.Session // wrote end last
	at  zk.Zxid     // when it did
}

// grant makes a right of a znode that has been written, once its watch sees it: a session that ends before might end with
// a restore that has undone the write.
func (t *TimedLease) grant(caller context.Context, c contender, at zk.Zxid, end time.Time, left time.Duration) (*timed, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	g := &timed{timer: time.AfterFunc(left, func() { cancel(context.DeadlineExceeded) }), end: end, s: c.s, at: at}
	r := &right{contender: c, fence: c.token, lease: context.Background(), ctx: ctx, gone: make(chan struct{}), owed: 1}
	r.free = func() {
		g.timer.Stop()
		cancel(context.Canceled)
	}
	r.stale = func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if c.s.Now().Before(g.end) {
			return nil
		}
		return context.DeadlineExceeded
	}
	r.parting = func() error { // by another session, if ours has ended; the znode does not go with it
		ctx, cancel := context.WithCancel(context.Background()) // as in quit
		defer cancel()
		return eachSession(ctx, t.Session, "release", c.path, func(s *zk.Session) error {
			return (&contender{s: s, path: c.path, token: c.token}).remove(ctx)
		})
	}
	g.held = &Held{right: r}
	context.AfterFunc(ctx, r.vacate)
	looked := make(chan error, 1)
	go g.watch(t.Session, t.Holder, cancel, looked)
	var err error
	select {
	case err = <-looked:
	case <-caller.Done():
		err = ended(caller)
	}
	if err == nil {
		return g, nil
	}
	r.free() // in the background
	code, _ := errors.AsType[zk.Code](err)
	return nil, &zk.Error{Op: "try lease", Path: c.path, Code: cmp.Or(code, zk.ErrUnavailable), MaybeApplied: true, Err: err}
}

// watch ends a right whose znode somebody else deletes, replaces, or writes another holder into. What it cannot see, because
// there is no session any more, ends the right if something has changed by then. The first that it sends to looked
// is nil when it has begun to see, or why it never did.
func (g *timed) watch(src zk.SessionSource, holder string, lose context.CancelCauseFunc, looked chan<- error) {
	ctx, c, unread := g.held.right.ctx, g.held.right.contender, false
	err := eachSession(ctx, src, "timed lease", c.path, func(s *zk.Session) error {
		for {
			data, st, changed, err := s.GetW(ctx, c.path)
			if errors.Is(err, zk.ErrNoNode) || err == nil && zk.Token(st.Czxid) != c.token {
				lose(zk.ErrNoNode)
				return nil
			}
			if err != nil {
				return err
			}
			unread = false
			select {
			case looked <- nil:
			default: // not for the first time
			}
			var now tenure
			if json.Unmarshal(data, &now) != nil || now.Holder != holder {
				lose(ErrMismatch)
				return nil
			}
			end, err := time.Parse(leaseTime, now.End)
			if err != nil {
				lose(ErrMismatch)
				return nil
			}
			g.shorten(s, st.Mzxid, end)
			switch ev := <-changed; ev.Type { // closed at the latest with ctx
			case zk.EventDeleted:
				lose(zk.ErrNoNode)
				return nil
			case zk.EventChanged:
				unread = true
			}
		}
	})
	select {
	case looked <- err:
	default:
	}
	if unread && over(err) {
		lose(err)
	}
}

// extend gives a right more time, which s has written. It is false if that comes too late.
func (g *timed) extend(s *zk.Session, at zk.Zxid, end time.Time, left time.Duration) bool {
	if g.held.Err() != nil {
		g.held.right.free()
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.timer.Reset(left) {
		g.held.right.free()
		return false
	}
	g.end, g.s, g.at = end, s, at
	return true
}

// shorten makes a right end when its znode says so, as s sees it, unless that is what was there before the last renewal. A restored
// backup may have an older one, but it ends the session that has renewed it.
func (g *timed) shorten(s *zk.Session, at zk.Zxid, end time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if end.Before(g.end) && (s != g.s || at > g.at) && g.timer.Stop() {
		g.end = end
		g.timer.Reset(max(end.Sub(s.Now()), 0))
	}
}
