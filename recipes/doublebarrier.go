// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"

	"github.com/seed-541fafe0/zk"
)

// DoubleBarrier lets its members begin together and end together, in rounds.
//
// Layout: PATH/UUID, ephemeral, for each member, and PATH/ready, persistent, for the round that is under way; its
// data tells a person who began it. It is Curator's, kazoo's and that of ZooKeeper's recipes, but ready is never counted
// as a member (DB-S2), and a member that comes while a ready stands belongs to the next round (DB-S3). Programs of all three
// take part; where there are others than ours nobody may enter the next round before all have left the last one, because
// they do not tell rounds apart.
//
// Cost of a round of n: n+1 writes to enter and n to leave. All are woken once when the round begins and once when it
// has ended; the member with the lowest name is woken as well each time the highest leaves.
type DoubleBarrier struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Size    int    // members of a round, at least 1
	Data    []byte // of the members' znodes; default: the member's id and the session's

	// AllowLate admits whoever comes while a round is under way at once, as Curator does; the round then ends when
	// the late ones have left as well. It must be the same for all members.
	AllowLate bool

	mu        sync.Mutex // guards the field below
	abandoned []string   // znodes of Enters that gave up, and that may not be gone yet
}

// maxAbandoned is of how many a member's creation can be guarded. Whoever has given up more often waits until they are gone.
const maxAbandoned = 256

// NewDoubleBarrier returns a double barrier of size members at path.
func NewDoubleBarrier(s zk.SessionSource, path string, size int) *DoubleBarrier {
	return &DoubleBarrier{Session: s, Path: path, Size: size}
}

// Membership is a member's part in a round. It is lost, as every right, with its session or its znode; to release it is
// to leave without waiting for the others.
type Membership struct {
	*Held

	barrier *DoubleBarrier
	round   zk.Token // created the ready it entered by

	turn baton // of those who call Leave
	away bool  // it has left, but no Leave has seen the others go; for who has the turn
}

// Enter returns once Size members were there at one moment (DB-S1). Errors: ctx's; the session's if it ends; ErrBroken
// if somebody deletes the member's znode. Whatever the error, no member is left behind (DB-L1).
//
// The znode of an Enter that gave up is deleted after Enter has returned. Until that is applied it counts, and a round
// that begins in that time has it for a member that has left at once, as one that crashed just then. No guard can help
// that, because only the one that gave up knows of it. But this DoubleBarrier does not come twice: its next Enter waits
// until what it has given up is gone.
func (b *DoubleBarrier) Enter(ctx context.Context) (*Membership, error) {
	s, err := session(ctx, b.Session, "enter", b.Path)
	if err != nil {
		return nil, err
	}
	if b.Size < 1 {
		return nil, badArgument("enter", b.Path, "a double barrier needs a size of at least 1")
	}
	data := b.Data
	if data == nil {
		data = fmt.Appendf(nil, "%s %v", s.Member().ID(), s.ID())
	}
	path := join(b.Path, newUUID())
	c, err := b.come(ctx, s, path, data)
	if err != nil {
		return nil, err
	}
	m, err := b.gather(ctx, c)
	if err != nil {
		c.leave()
		b.abandon(path)
		return nil, err
	}
	return m, nil
}

// come creates a member's znode, in a transaction with the guard that none is there of those this DoubleBarrier has
// abandoned. That settles it for all of them: writes of a session take effect in their order, so none comes later. Of the
// abandoned ones, each has been created after all before it were gone, so there is one at most.
func (b *DoubleBarrier) come(ctx context.Context, s *zk.Session, path string, data []byte) (*contender, error) {
	for {
		b.mu.Lock()
		before := slices.Clone(b.abandoned[:min(len(b.abandoned), maxAbandoned)])
		b.mu.Unlock()
		var steps []zk.Op
		for _, path := range before {
			steps = append(steps, zk.OpCheckAbsent(path))
		}
		var c *contender
		var err error
		if len(before) == maxAbandoned {
			_, err = s.Txn(ctx, steps...)
			err = explain(ctx, err)
		} else {
			c, err = enter(ctx, s, append(steps, zk.OpCreate(path, data, zk.Ephemeral|zk.Parents))...)
		}
		if err == nil {
			b.mu.Lock()
			b.abandoned = slices.DeleteFunc(b.abandoned, func(path string) bool { return slices.Contains(before, path) })
			b.mu.Unlock()
			if c != nil {
				return c, nil
			}
			continue
		}
		refused, ok := errors.AsType[*zk.TxnError](err)
		if !ok || !errors.Is(err, zk.ErrGuard) {
			if len(before) < maxAbandoned {
				b.abandon(path) // it may come to be all the same, for a moment
			}
			return nil, err
		}
		if err := b.outwait(ctx, s, before[refused.Index]); err != nil {
			return nil, err
		}
	}
}

func (b *DoubleBarrier) abandon(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.abandoned = append(b.abandoned, path)
}

// outwait returns once a znode is gone.
func (b *DoubleBarrier) outwait(ctx context.Context, s *zk.Session, path string) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	_, there, changed, err := s.ExistsW(watching, path)
	if err != nil || !there {
		return explain(ctx, err)
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

func (b *DoubleBarrier) ready() string { return join(b.Path, "ready") }

// gather waits for the round to begin. Whoever comes last begins it, so that nobody has to watch the others come: its
// own znode is applied on its member, and with it all that were created earlier.
func (b *DoubleBarrier) gather(ctx context.Context, c *contender) (*Membership, error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var own, ready, older, last <-chan zk.Event // nil where none is armed
	round := zk.Token(0)                        // that created the ready which stands
	begun := zk.Token(0)                        // that created one since our znode is there, which may be gone
	for {
		if own == nil {
			_, st, ch, err := c.s.GetW(watching, c.path)
			if err == nil {
				err = c.check(st)
			}
			if err != nil {
				return nil, c.failed(ctx, err)
			}
			own = ch
		}
		if ready == nil {
			st, _, ch, err := c.s.ExistsW(watching, b.ready())
			if err != nil {
				return nil, c.failed(ctx, err)
			}
			ready, round = ch, zk.Token(st.Czxid)
		}
		var again bool
		var m *Membership
		var err error
		if round == 0 {
			round = begun
		}
		switch {
		case round != 0 && (b.AllowLate || c.token < round):
			m, err = b.admit(ctx, c, round)
			again = true // the session was suspended meanwhile
		case round != 0: // our round is the next one
			again, older, err = b.outlast(ctx, watching, c, older)
		default:
			again, last, err = b.begin(ctx, watching, c, last)
		}
		if m != nil || err != nil {
			return m, err
		}
		if again {
			select { // it may be our own znode that is gone
			case <-own:
				own = nil
			case ev := <-ready:
				ready, begun = nil, began(ev)
			default:
			}
			continue
		}
		select {
		case <-own:
			own = nil
		case ev := <-ready:
			ready, begun = nil, began(ev)
		case <-older:
			older = nil
		case <-last:
			last = nil
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}

// began returns the round that a change of ready began, if it did. A member of kazoo's deletes ready when it starts to
// leave: others may find it gone already.
func began(ev zk.Event) zk.Token {
	if ev.Type == zk.EventCreated {
		return zk.Token(ev.Zxid)
	}
	return 0
}

// begin creates ready if Size members are there. Of several that see so many the one that came last does it, and the
// others watch that one, in case it is gone before it has. Again means that something has changed meanwhile.
func (b *DoubleBarrier) begin(ctx, watching context.Context, c *contender, last <-chan zk.Event) (again bool, watch <-chan zk.Event, err error) {
	if last != nil {
		return false, last, nil
	}
	st, _, err := c.s.Exists(ctx, b.Path)
	if err != nil || st.NumChildren < b.Size {
		return false, nil, explain(ctx, err)
	}
	r, err := b.look(ctx, c.s, c.path, 0)
	if err != nil {
		return false, nil, explain(ctx, err)
	}
	if r.last > c.token {
		_, _, watch, err = c.s.GetW(watching, r.newest)
		if errors.Is(err, zk.ErrNoNode) {
			return true, nil, nil
		}
		return false, watch, explain(ctx, err)
	}
	data := fmt.Appendf(nil, "%d members %016x as of %v", r.members, r.digest, r.zxid)
	_, err = c.s.Txn(ctx, c.guard(), zk.OpCheckAbsent(b.ready()), zk.OpCheckChildren(b.Path, zk.GreaterEq, b.Size), zk.OpCreate(b.ready(), data, zk.Persistent))
	if err != nil && !errors.Is(err, zk.ErrGuard) {
		return false, nil, explain(ctx, err)
	}
	return true, nil, nil
}

// outlast watches a member of the round that is under way, so that its end is seen even if all its members crash; when
// none is left it clears up after them.
func (b *DoubleBarrier) outlast(ctx, watching context.Context, c *contender, older <-chan zk.Event) (again bool, watch <-chan zk.Event, err error) {
	if older != nil {
		return false, older, nil
	}
	r, err := b.look(ctx, c.s, c.path, 0)
	if err == nil && r.round != 0 && r.others == 0 {
		return true, nil, explain(ctx, b.clear(ctx, c.s, r.round))
	}
	if err == nil && r.round != 0 {
		_, _, watch, err = c.s.GetW(watching, r.lowest)
	}
	if errors.Is(err, zk.ErrNoNode) {
		return true, nil, nil
	}
	return r.round == 0, watch, explain(ctx, err)
}

// room is what the barrier's directory shows at one zxid.
type room struct {
	zxid    zk.Zxid
	round   zk.Token // created the ready that stands; 0 if none does
	members int
	digest  uint64   // of the members' names
	newest  string   // the member that came last
	last    zk.Token // that created it

	// The members of the round that was asked for, one excepted; with AllowLate all members while its ready stands.
	others          int
	lowest, highest string // paths
}

// look takes in the room. Self is not among the others; those are of a round, or, if that is 0, of the one under way.
func (b *DoubleBarrier) look(ctx context.Context, s *zk.Session, self string, round zk.Token) (r room, err error) {
	err = s.View(ctx, func(v *zk.View) error {
		r = room{zxid: v.Zxid()}
		switch z, err := v.Get(b.ready()); {
		case err == nil:
			r.round = zk.Token(z.Stat.Czxid)
		case !errors.Is(err, zk.ErrNoNode):
			return err
		}
		of := round
		if of == 0 {
			of = r.round
		}
		late := b.AllowLate && of == r.round
		hash := fnv.New64a()
		for name, err := range v.Children(b.Path) {
			if err != nil {
				return err
			}
			path := join(b.Path, name)
			if path == b.ready() {
				continue
			}
			r.members++
			fmt.Fprintln(hash, name)
			z, err := v.Get(path)
			if err != nil {
				return err
			}
			came := zk.Token(z.Stat.Czxid)
			if came > r.last {
				r.newest, r.last = path, came
			}
			if path == self || of == 0 || !late && came > of {
				continue
			}
			if r.others++; r.lowest == "" {
				r.lowest = path
			}
			r.highest = path
		}
		r.digest = hash.Sum64()
		return nil
	})
	if errors.Is(err, zk.ErrNoNode) { // all have left, and the directory was reaped
		return room{}, nil
	}
	return r, err
}

// clear deletes the ready of a round that is over. With AllowLate nobody may have come in at the last moment.
func (b *DoubleBarrier) clear(ctx context.Context, s *zk.Session, round zk.Token) error {
	_, err := s.Txn(ctx, b.clearing(round)...)
	if errors.Is(err, zk.ErrGuard) {
		return nil
	}
	return err
}

func (b *DoubleBarrier) clearing(round zk.Token) []zk.Op {
	steps := []zk.Op{zk.OpCheckCreated(b.ready(), round), zk.OpDelete(b.ready(), zk.AnyVersion)}
	if b.AllowLate {
		steps = append(steps, zk.OpCheckChildren(b.Path, zk.Equal, 0))
	}
	return steps
}

// admit arms the membership. It returns neither membership nor error if the session was suspended and is active again.
func (b *DoubleBarrier) admit(ctx context.Context, c *contender, round zk.Token) (*Membership, error) {
	r, err := grant(*c)
	if errors.Is(err, zk.ErrSuspended) {
		err = recovered(ctx, c.s)
	}
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if r == nil {
		return nil, nil
	}
	return &Membership{Held: &Held{right: r}, barrier: b, round: round}, nil
}

// Leave gives up the membership and returns once all members of the round have left, or are gone. If ctx ends first, or
// the membership is lost, its error is returned; the member has left all the same, and does not hold up the others
// (DB-L2, DB-L3). After ctx has ended, Leave called again waits for the others again. Once it has returned nil, or after
// Release, the error is ErrReleased. Of several calls at once one leaves, and the others wait for it.
func (m *Membership) Leave(ctx context.Context) error {
	if ctx == nil {
		return badArgument("leave", m.Path(), "nil context")
	}
	if err := m.turn.take(ctx); err != nil {
		return err
	}
	defer m.turn.pass()
	err := m.wait(ctx)
	if err != nil {
		m.right.free() // in the background: there is no time left
	}
	m.away = err != nil && (m.away || ctx.Err() != nil) && !errors.Is(m.Err(), ErrLost)
	return err
}

// wait is the way out. Of those who are still inside the one with the lowest name goes last and the others wait for it,
// having left; it waits for the highest, again and again. So one is woken for each that leaves, and all at the end.
func (m *Membership) wait(ctx context.Context) error {
	b, s := m.barrier, m.Session()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	inside := !m.away
	if !inside {
		if err := m.out(ctx); err != nil { // that it has left may not have come to pass yet
			return err
		}
	}
	for {
		if inside {
			if err := m.Err(); err != nil {
				return err
			}
		}
		room, err := b.look(ctx, s, m.Path(), m.round)
		if err != nil {
			return explain(ctx, err)
		}
		if room.others == 0 {
			if room.round != m.round { // somebody has cleared up already
				return m.out(ctx)
			}
			if !inside {
				err = b.clear(ctx, s, m.round)
			} else {
				m.right.onRelease(b.clearing(m.round))
				err, inside = m.out(ctx), false
			}
			if err != nil {
				return explain(ctx, err)
			}
			continue
		}
		next := room.highest
		if inside && m.Path() > room.lowest {
			if err := m.out(ctx); err != nil {
				return err
			}
			inside = false
		}
		if !inside {
			next = room.lowest
		}
		_, _, gone, err := s.GetW(watching, next)
		if errors.Is(err, zk.ErrNoNode) {
			continue
		}
		if err != nil {
			return explain(ctx, err)
		}
		var lost <-chan struct{}
		if inside {
			lost = m.Lost()
		}
		select {
		case <-gone:
		case <-lost:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// out deletes the member's znode.
func (m *Membership) out(ctx context.Context) error {
	if err := m.Release(ctx); err != nil {
		return explain(ctx, err)
	}
	return nil
}

// Do enters, calls fn, and leaves, even if fn panics. fn's context ends with the membership or with ctx. The error
// joins fn's, ErrLost if the membership was lost before fn returned, and Leave's, which waits for the others at most
// the session's timeout once ctx has ended.
func (b *DoubleBarrier) Do(ctx context.Context, fn func(context.Context) error) error {
	if fn == nil {
		return badArgument("enter", b.Path, "nil function")
	}
	m, err := b.Enter(ctx)
	if err != nil {
		return err
	}
	return m.do(ctx, fn, func(rest context.Context) error {
		if ctx.Err() == nil {
			rest = ctx
		}
		return m.Leave(rest)
	})
}
