// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// contender is a znode of ours that stands in a line, or in a room, with those of others. It may be several znodes, made
// by one transaction: they are one in all that follows.
type contender struct {
	s     *zk.Session
	path  string
	token zk.Token
	more  []string // further znodes that were created with the one at path
}

// enter makes a contender by a transaction whose last step creates its znode. Whatever becomes of ctx, the znode is
// there if and only if enter returns without an error: if the outcome is not known in time it is deleted as soon as
// it is (E10).
func enter(ctx context.Context, s *zk.Session, steps ...zk.Op) (*contender, error) {
	return enterAll(ctx, s, 1, steps...)
}

// enterAll is enter for a contender of n znodes, which the last n steps create.
func enterAll(ctx context.Context, s *zk.Session, n int, steps ...zk.Op) (*contender, error) {
	made := func(results []zk.Result) *contender {
		results = results[len(results)-n:]
		c := &contender{s: s, path: results[0].Path, token: zk.Token(results[0].Stat.Czxid)}
		for _, r := range results[1:] {
			c.more = append(c.more, r.Path)
		}
		return c
	}
	results, err := s.TxnLate(ctx, func(results []zk.Result, err error) {
		if err == nil {
			made(results).quit()
		}
	}, steps...)
	if err != nil {
		return nil, explain(ctx, err)
	}
	return made(results), nil
}

// explain returns the error of a call under ctx: that of ctx where it is the reason.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !over(err) {
		return ended(ctx)
	}
	return err
}

// znodes are the parts of a contender, each by itself.
func (c *contender) znodes() []contender {
	list := []contender{{s: c.s, path: c.path, token: c.token}}
	for _, path := range c.more {
		list = append(list, contender{s: c.s, path: path, token: c.token})
	}
	return list
}

func (c *contender) guard() zk.Op { return zk.OpCheckCreated(c.path, c.token) }

// guards make a transaction fail unless all the znodes are there.
func (c *contender) guards() (steps []zk.Op) {
	for _, z := range c.znodes() {
		steps = append(steps, z.guard())
	}
	return steps
}

// leaving are the steps that delete the znodes, those incarnations only.
func (c *contender) leaving() []zk.Op {
	steps := c.guards()
	for _, z := range c.znodes() {
		steps = append(steps, zk.OpDelete(z.path, zk.AnyVersion))
	}
	return steps
}

// remove deletes the znodes, those incarnations only, and does something besides where that is possible. It is nil if
// they are gone already.
func (c *contender) remove(ctx context.Context, besides ...zk.Op) error {
	own := c.leaving()
	_, err := c.s.Txn(ctx, append(own, besides...)...)
	if txn, ok := errors.AsType[*zk.TxnError](err); ok && txn.Index >= len(own) {
		_, err = c.s.Txn(ctx, own...) // what it was to do besides cannot be done, which is no reason to stay
	}
	if !errors.Is(err, zk.ErrGuard) {
		return err
	}
	err = nil
	if len(c.more) > 0 { // one is gone, which is no reason to leave the others
		for _, z := range c.znodes() {
			err = errors.Join(err, z.remove(ctx))
		}
	}
	return err
}

// quit is remove under no context but the session's life, with which the znode goes anyway.
func (c *contender) quit(besides ...zk.Op) error {
	ctx, cancel := context.WithCancel(context.Background()) // that it can be cancelled makes it wait where too many do
	defer cancel()
	if err := c.remove(ctx, besides...); !over(err) {
		return err
	}
	return nil
}

// leave is quit in the background: the caller, or its context, has had enough.
func (c *contender) leave(besides ...zk.Op) { go c.quit(besides...) }

// check returns nil if the znode is there and ours; a name is not enough, because an earlier session of this process
// may have made it.
func (c *contender) check(st zk.Stat) error {
	if zk.Token(st.Czxid) != c.token || st.EphemeralOwner != c.s.ID() {
		return ErrBroken
	}
	return nil
}

// line says who has to go before a contender.
type line struct {
	blocks func(name string) bool // must whoever has that name go first? It must only look at the name
	told   func()                 // is called after every look at the line; may be nil
}

// wait is what a contender waits for before it looks again, besides a change of its own znode.
type wait struct {
	changed [2]<-chan zk.Event // nil where there is nothing
	left    time.Duration      // 0: no time is to pass
}

// mind calls look until it is done, again whenever c's own znode has changed or what look waits for has happened. What
// look watches under the context it is given is forgotten when it is called again. The error is look's, or says that the
// znode is gone, or the session, or ctx.
func (c *contender) mind(ctx context.Context, look func(watching context.Context) (done bool, w wait, err error)) error {
	for {
		done, err := c.glance(ctx, look)
		if err != nil {
			return c.failed(ctx, err)
		}
		if done {
			return nil
		}
	}
}

func (c *contender) glance(ctx context.Context, look func(watching context.Context) (done bool, w wait, err error)) (done bool, err error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	st, _, own, err := c.s.ExistsW(watching, c.path)
	if err == nil {
		err = c.check(st)
	}
	if err != nil {
		return false, err
	}
	done, w, err := look(watching)
	if done || err != nil {
		return done, err
	}
	var due <-chan time.Time
	if w.left > 0 {
		t := time.NewTimer(w.left)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-own:
	case <-w.changed[0]:
	case <-w.changed[1]:
	case <-due:
	case <-ctx.Done():
		return false, ended(ctx)
	}
	return false, nil
}

// ahead finds and watches the nearest one in line that has to go before c. It lists nothing. Local reads are enough:
// who precedes was created earlier in the log, so it is visible here, or gone.
func (l line) ahead(watching context.Context, c *contender) (blocked bool, w wait, err error) {
	for {
		nearest, blocked, err := c.s.Preceding(watching, c.path, l.blocks)
		if l.told != nil {
			l.told()
		}
		if err != nil || !blocked {
			return false, wait{}, err
		}
		_, ok, gone, err := c.s.ExistsW(watching, nearest.Path)
		if err != nil || ok {
			return true, wait{changed: [2]<-chan zk.Event{gone}}, err
		}
	}
}

// await returns the right to c's znode once nobody that has to go first is left in line before it and the session's
// lease is valid. It watches two znodes, its own and the nearest one before it, and polls nothing.
func (c *contender) await(ctx context.Context, l line) (*right, error) {
	err := c.mind(ctx, func(watching context.Context) (bool, wait, error) {
		blocked, w, err := l.ahead(watching, c)
		return !blocked, w, err
	})
	if err != nil {
		return nil, err
	}
	return c.take(ctx)
}

// take returns the right to c's znodes, which nobody has to go before any more: nobody ever will. A member that lags can
// only delay a grant, never invent one, because the lease is checked last; without a lease take waits for the next one.
func (c *contender) take(ctx context.Context) (*right, error) {
	for {
		r, err := grant(*c)
		if errors.Is(err, zk.ErrSuspended) {
			if err = recovered(ctx, c.s); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, c.failed(ctx, err)
		}
		return r, nil
	}
}

// held returns a handle on c's right, or takes c out of the line if there is none.
func (c *contender) held(r *right, err error) (*Held, error) {
	if err != nil {
		c.leave()
		return nil, err
	}
	return &Held{right: r}, nil
}

// failed says why a wait is over.
func (c *contender) failed(ctx context.Context, err error) error {
	if errors.Is(err, zk.ErrNoNode) || errors.Is(err, ErrBroken) {
		if _, err := c.s.Session(context.Background()); err != nil { // the znode went with the session, while we looked
			return err
		}
		return ErrBroken
	}
	return explain(ctx, err)
}

// recovered returns once the session is active. It is the session's error if it ends instead.
func recovered(ctx context.Context, s *zk.Session) error {
	for st, err := range s.States(ctx) {
		if err != nil {
			return err
		}
		if st == zk.StateActive {
			return nil
		}
	}
	_, err := s.Session(ctx)
	return err
}
