// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// publication keeps a znode in the tree from when it runs until it is stopped, whatever becomes of sessions and
// operators meanwhile. One goroutine does all that is written, one thing after the other: what is created anew always
// has the latest data, and when that goroutine has ended nothing of it comes later.
type publication struct {
	src     zk.SessionSource
	op      string
	path    string
	mode    zk.CreateMode
	ttl     time.Duration // of the znode, which is then shared with others; 0: none
	replace bool          // what is there before the first

	stop context.Context // ends when the znode is to go
	halt context.CancelFunc
	done chan struct{} // closed when nothing runs any more
	turn baton         // of those who change the data
	news bell          // rung when there is something to write

	// Of the goroutine alone.
	made    bool      // the znode was created here
	written zk.Zxid   // the last write that is known to have come from here
	began   time.Time // when that was begun

	mu     sync.Mutex // guards the fields below
	data   []byte     // that the znode has, or will have
	asked  *asking    // nil: no change of it
	own    *contender // the last znode; nil before the first
	there  bool       // it is in the tree
	shown  bool       // first is closed
	first  chan struct{}
	states chan bool // of there, the newest only
	ended  bool
	err    error // why it is not there; once it has ended, why that is
	left   error // of the removal
}

// asking is a change of the data that somebody waits for.
type asking struct {
	data []byte
	done chan struct{}
	err  error
}

// refusals spreads further attempts after one that was refused for a reason that time may heal, such as a quota.
var refusals = Backoff{Base: 100 * time.Millisecond, Max: 5 * time.Second}

// run publishes until it is stopped, or cannot go on.
func (p *publication) run() {
	defer close(p.done)
	err := eachSession(p.stop, p.src, p.op, p.path, p.under)
	if p.stop.Err() != nil {
		err = &zk.Error{Op: p.op, Path: p.path, Code: zk.ErrClosed}
	}
	left := p.retire()
	p.halt()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.there, p.err, p.left = true, false, err, left
	if !p.shown {
		close(p.first)
	}
	close(p.states)
	if a := p.asked; a != nil {
		p.asked, a.err = nil, err
		close(a.done)
	}
}

// retire deletes the last znode, that incarnation only. One that has a time to live is left to it, unless it was created
// here and nobody was ever told of it.
func (p *publication) retire() error {
	if p.own == nil || p.ttl > 0 && (p.shown || !p.made) {
		return nil
	}
	if p.mode&zk.Ephemeral != 0 {
		return p.own.quit()
	}
	ctx, cancel := context.WithCancel(context.Background()) // as in quit
	defer cancel()
	return eachSession(ctx, p.src, p.op, p.path, func(s *zk.Session) error {
		return (&contender{s: s, path: p.own.path, token: p.own.token}).remove(ctx)
	})
}

// under publishes under one session. The error is that of the session, or a refusal of the first znode.
func (p *publication) under(s *zk.Session) error {
	for attempt := 0; ; {
		refused, err := p.glance(s, attempt)
		if err != nil {
			return err
		}
		if attempt++; !refused {
			attempt = 0
		}
	}
}

// glance does what there is to do, and waits until there may be more.
func (p *publication) glance(s *zk.Session, attempt int) (refused bool, err error) {
	watching, cancel := context.WithCancel(p.stop)
	defer cancel()
	again, w, err := p.attend(watching, s)
	switch {
	case p.stop.Err() != nil:
		return false, ended(p.stop)
	case over(err):
		p.show(false)
		return false, err
	case err != nil:
		if !p.refuse(err) {
			return false, err
		}
		refused, w.left = true, refusals.bound(attempt)/2+rand.N(refusals.bound(attempt))
	case again:
		return false, nil
	}
	var due <-chan time.Time
	if w.left > 0 {
		t := time.NewTimer(w.left)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-w.changed[0]:
	case <-p.news.listen():
	case <-due:
	case <-p.stop.Done():
		return false, ended(p.stop)
	}
	return refused, nil
}

// attend looks at the znode, watches it, and brings it to what it is to be. With again it has written, and has to look
// at what became of that.
func (p *publication) attend(watching context.Context, s *zk.Session) (again bool, w wait, err error) {
	numbered := p.mode&zk.Sequential != 0
	if numbered && p.own == nil {
		return true, w, p.create(s)
	}
	path := p.path
	if numbered {
		path = p.own.path
	}
	st, there, changed, err := s.ExistsW(watching, path)
	if err != nil {
		return false, w, err
	}
	w.changed[0] = changed
	ours := p.own != nil && there && zk.Token(st.Czxid) == p.own.token && (p.mode&zk.Ephemeral == 0 || st.EphemeralOwner == s.ID())
	switch {
	case ours || there && p.ttl > 0 && st.EphemeralOwner == 0: // what has a time to live belongs to all who keep it
		return p.maintain(s, path, st, w)
	case !there:
		p.show(false)
		return true, w, p.create(s)
	case p.own == nil && p.replace, p.own != nil && zk.Token(st.Czxid) <= p.own.token: // a restored backup may have brought it back
		p.show(false)
		return true, w, p.create(s, zk.OpCheckCreated(path, zk.Token(st.Czxid)), zk.OpDelete(path, zk.AnyVersion))
	}
	p.show(false) // it belongs to another, and may go at any time: it is not taken for ours
	return false, w, nil
}

// maintain writes the znode that is there if its data is to change, if a restored backup has brought older data back, or
// if its time to live has to be renewed.
func (p *publication) maintain(s *zk.Session, path string, st zk.Stat, w wait) (again bool, _ wait, err error) {
	own := &contender{s: s, path: path, token: zk.Token(st.Czxid)}
	stale := false
	if p.own == nil || p.own.token != own.token {
		stale, p.made = true, false
	} else if p.own.s != s {
		stale = st.Mzxid != p.written
	}
	if p.ttl > 0 {
		// The last write is ours or a later one, so that it is no older than ours. A new leader's time may be behind what
		// Now has made of the last one's, for as long as there was none: by that alone the znode were old again at once.
		age := min(s.Now().Sub(st.Mtime), time.Since(p.began))
		if w.left = p.ttl/3 - max(age, 0); st.Mzxid != p.written { // another goes on, as long as it can
			w.left += rand.N(p.ttl / 6)
		}
		stale = stale || w.left <= 0
	}
	if data, asked := p.latest(); stale || asked != nil {
		return true, w, p.write(asked, own, zk.OpSet(path, data, zk.AnyVersion), own.guard())
	}
	p.mu.Lock()
	p.own = own
	p.mu.Unlock()
	p.show(true)
	return false, w, nil
}

// create makes the znode anew, after what has to be done first.
func (p *publication) create(s *zk.Session, before ...zk.Op) error {
	data, asked := p.latest()
	op := zk.OpCreate(p.path, data, p.mode|zk.Parents)
	if p.ttl > 0 {
		op = op.WithTTL(p.ttl)
	}
	return p.write(asked, &contender{s: s}, op, before...)
}

// latest is what the znode is to have, and who waits for that.
func (p *publication) latest() ([]byte, *asking) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked != nil {
		return p.asked.data, p.asked
	}
	return p.data, nil
}

// write does one step that writes the data, after others. Its context only ends with the write, so that it is always
// known whether there is a znode (E1). A refusal that only says that the tree has changed is none.
func (p *publication) write(asked *asking, own *contender, op zk.Op, before ...zk.Op) error {
	ctx, cancel := context.WithCancel(context.Background()) // as in quit
	defer cancel()
	began := time.Now()
	results, err := own.s.Txn(ctx, append(before, op)...)
	switch {
	case conflicting(err) || errors.Is(err, zk.ErrNoNode):
		return nil
	case over(err) || zk.MaybeApplied(err):
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		r := results[len(results)-1]
		p.made = p.made || own.token == 0
		own.path, own.token = r.Path, zk.Token(r.Stat.Czxid)
		p.own, p.written, p.began = own, r.Stat.Mzxid, began
	}
	if asked == nil {
		return err
	}
	if p.asked == asked {
		p.asked = nil
	}
	if asked.err = err; err == nil {
		p.data = asked.data
	}
	close(asked.done)
	return nil // what was published before still can be
}

// show tells whether the znode is there.
func (p *publication) show(there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if there {
		p.err = nil
	}
	if there == p.there {
		return
	}
	if p.there = there; !p.shown {
		p.shown = true
		close(p.first)
	}
	select {
	case <-p.states: // nobody has taken the last one
	default:
	}
	p.states <- there
}

// refuse notes why the znode cannot be written. It is false if it never was there: then there is no point in trying on.
func (p *publication) refuse(err error) bool {
	p.show(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	return p.shown
}

// set changes the data, once the znode is there.
func (p *publication) set(ctx context.Context, data []byte) error {
	if err := p.turn.take(ctx); err != nil {
		return err
	}
	defer p.turn.pass()
	a := &asking{data: bytes.Clone(data), done: make(chan struct{})}
	p.mu.Lock()
	if p.ended {
		defer p.mu.Unlock()
		return p.err
	}
	p.asked = a // instead of one that nobody waits for any more
	p.mu.Unlock()
	p.news.ring()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return &zk.Error{Op: p.op, Path: p.path, Code: zk.ErrUnavailable, MaybeApplied: true, Err: ended(ctx)}
	}
}

// publisher has one publication after the other. The zero value is ready for use.
type publisher struct {
	mu   sync.Mutex // guards the field below
	last *publication
}

// start begins to publish p, unless something is being published, and returns once that is there. If ctx ends first what
// this call has begun is undone.
func (k *publisher) start(ctx context.Context, fresh func() *publication) error {
	for {
		k.mu.Lock()
		p, mine := k.last, false
		if p == nil || p.over() {
			p, mine = fresh(), true
			p.stop, p.halt = context.WithCancel(context.Background())
			p.done, p.first, p.states = make(chan struct{}), make(chan struct{}), make(chan bool, 1)
			p.data = bytes.Clone(p.data)
			k.last = p
			go p.run()
		}
		k.mu.Unlock()
		if !mine && p.stop.Err() != nil { // its znode may still be there
			select {
			case <-p.done:
				continue
			case <-ctx.Done():
				return ended(ctx)
			}
		}
		select {
		case <-p.first:
			if p.isShown() {
				return nil
			}
			if <-p.done; mine {
				return p.why()
			} // who has begun it may have given up: that is no reason for us
		case <-ctx.Done():
			if mine {
				p.halt()
			}
			return ended(ctx)
		}
	}
}

// finish stops what is published and returns once its znode is gone. If ctx ends first that goes on.
func (k *publisher) finish(ctx context.Context, op string) error {
	p := k.now()
	if p == nil {
		return nil
	}
	p.halt()
	select {
	case <-p.done:
		return p.left
	case <-ctx.Done():
		return &zk.Error{Op: op, Path: p.path, Code: zk.ErrUnavailable, MaybeApplied: true, Err: ended(ctx)}
	}
}

// now is the last publication; nil before the first.
func (k *publisher) now() *publication {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// set changes the data of what is published.
func (k *publisher) set(ctx context.Context, op, path string, data []byte) error {
	if err := checkContext(ctx, op, path); err != nil {
		return err
	}
	p := k.now()
	if p == nil {
		return badArgument(op, path, "it was not started")
	}
	return p.set(ctx, data)
}

// why is nil while the znode is in the tree, or nothing is to be there.
func (k *publisher) why() error {
	if p := k.now(); p != nil {
		return p.why()
	}
	return nil
}

// actual is the path of the last znode, "" before the first.
func (k *publisher) actual() string {
	p := k.now()
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		return ""
	}
	return p.own.path
}

// over reports whether nothing runs any more.
func (p *publication) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *publication) isShown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}

func (p *publication) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
