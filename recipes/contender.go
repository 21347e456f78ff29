// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// contender is a znode of ours that stands in a line, or in a room, with those of others.
type contender struct {
	s     *zk.Session
	path  string
	token zk.Token
}

// enter makes a contender by a transaction whose last step creates its znode. Whatever becomes of ctx, the znode is
// there if and only if enter returns without an error: if the outcome is not known in time it is deleted as soon as
// it is (E10).
func enter(ctx context.Context, s *zk.Session, steps ...zk.Op) (*contender, error) {
	made := func(results []zk.Result) *contender {
		r := results[len(results)-1]
		return &contender{s, r.Path, zk.Token(r.Stat.Czxid)}
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

func (c *contender) guard() zk.Op { return zk.OpCheckCreated(c.path, c.token) }

// remove deletes the znode, that incarnation only, and does something besides where that is possible. It is nil if the
// znode is gone already.
func (c *contender) remove(ctx context.Context, besides ...zk.Op) error {
	own := []zk.Op{c.guard(), zk.OpDelete(c.path, zk.AnyVersion)}
	_, err := c.s.Txn(ctx, append(own, besides...)...)
	if txn, ok := errors.AsType[*zk.TxnError](err); ok && txn.Index >= len(own) {
		_, err = c.s.Txn(ctx, own...) // what it was to do besides cannot be done, which is no reason to stay
	}
	if errors.Is(err, zk.ErrGuard) {
		return nil
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

// line says what a contender waits for.
type line struct {
	blocks func(name string) bool                 // must it go first?
	pause  func() (left time.Duration, err error) // how long to wait once nobody blocks; may be nil
}

// await returns the right to c's znode once nobody in line before it, of those that block it, is left and the session's
// lease is valid. It watches two znodes, its own and the nearest one before it, lists nothing and polls nothing. Local
// reads are enough: who precedes was created earlier in the log, so it is visible here, or gone. A member that lags can
// only delay a grant, never invent one, because the lease is checked last.
func (c *contender) await(ctx context.Context, l line) (*right, error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var own, before <-chan zk.Event // nil where none is armed
	watched := ""
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
		nearest, blocked, err := c.s.Preceding(watching, c.path, l.blocks)
		if err != nil {
			return nil, c.failed(ctx, err)
		}
		pause := time.Duration(0)
		if !blocked && l.pause != nil {
			if pause, err = l.pause(); err != nil {
				return nil, c.failed(ctx, err)
			}
		}
		if !blocked && pause <= 0 {
			r, err := grant(*c)
			if errors.Is(err, zk.ErrSuspended) {
				err = recovered(ctx, c.s)
			} else if err == nil {
				return r, nil
			}
			if err != nil {
				return nil, c.failed(ctx, err)
			}
			continue
		}
		var due <-chan time.Time
		if pause > 0 {
			due = time.After(pause)
		} else if before == nil || watched != nearest.Path {
			_, _, ch, err := c.s.GetW(watching, nearest.Path)
			if errors.Is(err, zk.ErrNoNode) {
				continue // it left in between
			}
			if err != nil {
				return nil, c.failed(ctx, err)
			}
			before, watched = ch, nearest.Path
		}
		select {
		case <-own:
			own = nil
		case <-before:
			before = nil
		case <-due:
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
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
