// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Election chooses one of many candidates to lead: the one that came first, as long as it can.
//
// Layout: PATH/_c_UUID-latch-SEQ, ephemeral, its data the candidate's value; PATH is a container, created with the first
// candidate and reaped after the last. Programs that use Curator's LeaderLatch on the same path take part. With Selector
// the names are those of its LeaderSelector, with Kazoo those of kazoo's Election. All three are understood whatever is
// written here, but those programs do not understand each other: they must not meet on one path.
//
// Cost: one write to become a candidate and one to resign or to proclaim, no read that leaves the member. A candidate has
// two local watches and is woken once; an observer has one.
//
// A leader that is paused past its lease goes on until it looks: effects inside the tree belong into a transaction with
// Leadership.Guard, effects outside of it carry Leadership.Token. Neither an election of the ensemble's own leader nor
// any disturbance shorter than the lease changes who leads (ELEC-L2).
type Election struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Layout  Layout

	// Rest is how long Run pauses, at least, and half as long again at most, before it becomes a candidate again after
	// lead returned by itself: a process that cannot do the job leaves it to others for a while. 0 means no pause.
	Rest time.Duration

	once  sync.Once
	mixed mixture
}

// NewElection returns an election at path.
func NewElection(s zk.SessionSource, path string) *Election {
	return &Election{Session: s, Path: path}
}

// latchKind is the kind of Curator's LeaderLatch. Candidates of LeaderSelector and kazoo are of lockKind.
var latchKind = kind{curator: "-latch-", kazoo: lockKind.kazoo}

func (e *Election) prefix() string {
	if e.Layout == Selector {
		return lockKind.prefix(Curator)
	}
	return latchKind.prefix(e.Layout)
}

// stands tells whether a name is a candidate's, and in which layout.
func stands(name string) (Layout, bool) {
	if l, ok := latchKind.layout(name); ok {
		return l, true
	}
	return Selector, lockKind.contends(name)
}

// line has every candidate.
func (e *Election) line() line {
	e.once.Do(func() { e.mixed.what, e.mixed.path = "Election", e.Path })
	return line{told: e.mixed.tell, blocks: func(name string) bool {
		layout, ok := stands(name)
		if ok && layout != cmp.Or(e.Layout, Curator) {
			e.mixed.found.Store(true)
		}
		return ok
	}}
}

// Leadership is the right to lead. It ends as every Held does: Lost is closed before anybody else leads.
type Leadership struct{ *Held }

// Campaign becomes a candidate and waits to lead. value is shown to observers. Errors: ctx's; zk.ErrSessionExpired, at
// once, if the session ends; ErrBroken if somebody deletes the candidate's znode; zk.ErrBadArguments for a value that
// Revoke would leave; and those of every write. Whatever the error, no candidate is left.
func (e *Election) Campaign(ctx context.Context, value []byte) (*Leadership, error) {
	s, err := session(ctx, e.Session, "campaign", e.Path)
	if err != nil {
		return nil, err
	}
	if revokes(value) {
		return nil, badArgument("campaign", e.Path, "the value is a mark of revocation")
	}
	c, err := enter(ctx, s, zk.OpCreate(join(e.Path, e.prefix()), value, zk.Ephemeral|zk.Sequential|zk.Parents))
	if err != nil {
		return nil, err
	}
	r, err := c.await(ctx, e.line())
	if err != nil {
		c.leave()
		return nil, err
	}
	return &Leadership{&Held{right: r}}, nil
}

func revokes(value []byte) bool { return string(value) == revokeData || string(value) == unlockData }

// Proclaim replaces the leader's value. It never takes effect once another leads: the error is ErrLost then, or
// ErrReleased. Other errors are those of Campaign's value and of every write.
func (l *Leadership) Proclaim(ctx context.Context, value []byte) error {
	if err := l.Err(); err != nil {
		return err
	}
	if revokes(value) {
		return badArgument("proclaim", l.Path(), "the value is a mark of revocation")
	}
	_, err := l.Session().Txn(ctx, l.Guard(), zk.OpSet(l.Path(), value, zk.AnyVersion))
	if lost := l.Err(); lost != nil && errors.Is(err, zk.ErrGuard) {
		return lost // this member has applied what the guard has seen
	}
	return err
}

// Resign gives the leadership back: it is Release. Within Run just return: lead's context ends with the leadership, and
// with it a Resign that is given that context.
func (l *Leadership) Resign(ctx context.Context) error { return l.Release(ctx) }

// Run campaigns, calls lead when elected, and campaigns again when the leadership was lost or lead returned nil, after
// Rest then. lead's context ends with the leadership or with ctx; lead never runs twice at a time, and whatever it
// returned with, panic included, the leadership is given up. Run is for a Session that is a *zk.Member: after a session
// has expired it campaigns on the member's next one; it also does so when an operator has deleted its znode.
//
// It returns when ctx ends, with ctx's error; when lead returns an error, with that one, unless the leadership was lost
// and the error comes of it; and with an error of Campaign that is not the end of a session or ErrBroken. No candidate is
// left then.
func (e *Election) Run(ctx context.Context, value []byte, lead func(ctx context.Context, l *Leadership) error) error {
	if lead == nil {
		return badArgument("run", e.Path, "nil function")
	}
	for broken := 0; ; {
		l, err := e.Campaign(ctx, value)
		switch {
		case err == nil:
			broken = 0
			if err = e.term(ctx, l, lead); err != nil {
				return err
			}
		case ctx != nil && ctx.Err() != nil:
			return ended(ctx)
		case errors.Is(err, ErrBroken):
			err = Backoff{}.Wait(ctx, broken)
			broken++
		case over(err):
			if _, gone := e.Session.Session(ctx); gone == nil {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// term is one leadership of Run's. The error is what Run returns.
func (e *Election) term(ctx context.Context, l *Leadership, lead func(ctx context.Context, l *Leadership) error) error {
	lost, err := l.serve(ctx, func(under context.Context) error { return lead(under, l) })
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ended(ctx)
	case lost || e.Rest <= 0:
		return nil
	}
	pause := time.NewTimer(e.Rest + rand.N(e.Rest/2+1))
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// Leader is who leads, as an observer sees it.
type Leader struct {
	Value   []byte   // of Campaign, or of the last Proclaim
	Token   zk.Token // of the leadership; 0: nobody leads
	Session zk.SessionID
}

func leaderOf(z zk.Znode) Leader {
	l := Leader{Token: zk.Token(z.Stat.Czxid), Session: z.Stat.EphemeralOwner}
	if z.Data != "" {
		l.Value = []byte(z.Data)
	}
	return l
}

// Leader returns who leads as this member knows it: a local read, however many candidates there are. The error is ErrNoLeader
// where there is no candidate, or one of every read. Who is returned may have lost the leadership already: what it does under its token, or guard, fails then.
func (e *Election) Leader(ctx context.Context) (Leader, error) {
	s, err := session(ctx, e.Session, "leader", e.Path)
	if err != nil {
		return Leader{}, err
	}
	z, err := e.first(ctx, s)
	if err != nil {
		return Leader{}, explain(ctx, err)
	}
	if z.Stat.Czxid == 0 {
		return Leader{}, ErrNoLeader
	}
	return leaderOf(z), nil
}

// Candidates lists who has campaigned, the leader first; Data is what they campaigned with, or proclaimed. It is what this
// member knows, and who comes or goes meanwhile may or may not show. It costs no message; time and memory grow with the
// number of candidates, so that whoever needs the leader alone calls Leader. Errors: those of every read.
func (e *Election) Candidates(ctx context.Context) ([]Contender, error) {
	s, err := session(ctx, e.Session, "candidates", e.Path)
	if err != nil {
		return nil, err
	}
	return contenders(ctx, s, e.Path, func(name string) bool { _, ok := stands(name); return ok })
}

// Observe yields who leads, then every change of the leader or of its value; Token 0 says that nobody leads. A slow
// consumer skips leaders and never falls behind. Tokens never go back (ELEC-S3). It ends with ctx, and with an error of
// reading; with the session only if the election was made with a *zk.Session: a *zk.Member opens another one.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		stopped := false
		seen := zk.Zxid(-1) // the last change of who was yielded; 0: nobody
		err := eachSession(ctx, e.Session, "observe", e.Path, func(s *zk.Session) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			for {
				z, changed, err := e.firstW(ctx, s)
				if err != nil {
					return err
				}
				if z.Stat.Mzxid != seen {
					seen = z.Stat.Mzxid
					if stopped = !yield(leaderOf(z), nil); stopped {
						return nil
					}
				}
				<-changed.events // closed at the latest with ctx
				changed.stop()
			}
		})
		if !stopped {
			yield(Leader{}, err)
		}
	}
}

// first returns the first candidate as it is at one moment; Czxid is 0 where there is none.
func (e *Election) first(ctx context.Context, s *zk.Session) (zk.Znode, error) {
	for z, err := range s.Sequential(ctx, e.Path) {
		if errors.Is(err, zk.ErrNoNode) {
			break
		}
		if err != nil {
			return zk.Znode{}, err
		}
		if _, ok := stands(base(z.Path)); ok {
			return z, nil
		}
	}
	return zk.Znode{}, nil
}

// news tells that first may return something else from now on.
type news struct {
	events <-chan zk.Event
	stop   func()
}

// firstW is first, with a watch. It is on the first candidate alone, because nobody comes before it; on the directory
// where there is none.
func (e *Election) firstW(ctx context.Context, s *zk.Session) (zk.Znode, news, error) {
	for {
		z, err := e.first(ctx, s)
		if err != nil {
			return z, news{}, err
		}
		if z.Stat.Czxid != 0 {
			data, st, events, err := s.GetW(ctx, z.Path)
			if errors.Is(err, zk.ErrNoNode) {
				continue // it left in between
			}
			return zk.Znode{Path: z.Path, Data: string(data), Stat: st}, news{events, func() {}}, err
		}
		w, err := s.Watch(ctx, e.Path, zk.WatchChildSet)
		if err != nil {
			return z, news{}, err
		}
		z, err = e.first(ctx, s)
		if err == nil && z.Stat.Czxid == 0 {
			return z, news{w.Events(), w.Close}, nil
		}
		w.Close() // somebody came in between
		if err != nil {
			return z, news{}, err
		}
	}
}
