// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Message is an item that was received and is claimed until Ack or Nack, or until the claim is lost: then another
// consumer may receive it. To release it is to give it back at once.
//
// Layout: the claim is the ephemeral znode at Path; the item itself stays where it was put until Ack. See [Queue].
//
// Cost: it took one write to claim it; Ack, AckWith, Nack and Release are one write each, whatever the length of the queue,
// and no read that leaves the member. While it is claimed it costs what every Held costs: no message and no goroutine.
//
// What is received may have been received before, and done: a consumer that dies, or is cut off for longer than its lease,
// loses its claims without knowing in time. Effects belong into AckWith, or carry the claim's Token; Redelivered is a hint.
// A message that is neither acknowledged nor given back is claimed as long as the session lives. All methods are safe for
// concurrent use; of several Acks and Nacks at once one counts.
type Message[T any] struct {
	Value T
	*Held

	queue  *Queue[T]
	entry  entry
	stored stored
	again  bool

	mu      sync.Mutex
	pending *ack // of which nobody knows the outcome yet; nil if there is none
}

// ack is an acknowledgement whose caller stopped waiting.
type ack struct {
	done chan struct{}
	err  error
}

// Redelivered reports whether the item was claimed before, by a consumer that did not acknowledge it. Claims of kazoo's
// and Curator's consumers leave no trace and are not counted. It is a hint: what is false may have been done by such a one.
func (m *Message[T]) Redelivered() bool { return m.again }

// Ack removes the item for good. Errors: ErrLost if the claim was lost, so that the item is, or will be, received again;
// ErrBroken if somebody deleted the entry; ctx's, with zk.MaybeApplied set if nobody knows, in which case Ack called
// again tells.
func (m *Message[T]) Ack(ctx context.Context) error { return m.AckWith(ctx) }

// AckWith is Ack and further steps, in one transaction: the item is removed if and only if they are done. If one of them
// fails the claim stays as it is, and the error is that of a transaction of those steps alone.
func (m *Message[T]) AckWith(ctx context.Context, steps ...zk.Op) error {
	if ctx == nil {
		return badArgument("ack", m.Path(), "nil context")
	}
	m.mu.Lock()
	pending := m.pending
	m.mu.Unlock()
	if pending != nil {
		select {
		case <-pending.done:
		case <-ctx.Done():
			return &zk.Error{Op: "ack", Path: m.Path(), Code: zk.ErrUnavailable, MaybeApplied: true, Err: ended(ctx)}
		}
		m.mu.Lock()
		m.pending = nil
		m.mu.Unlock()
		if pending.err == nil {
			return nil
		}
	}
	if err := m.Err(); err != nil {
		return err
	}
	r := m.right
	own := append([]zk.Op{r.guard()}, m.stored.removal(zk.AnyVersion)...)
	own = append(own, zk.OpDelete(r.path, zk.AnyVersion))
	late := &ack{done: make(chan struct{})}
	r.acking.Store(true)
	_, err := r.s.TxnLate(ctx, func(_ []zk.Result, err error) {
		if err != nil {
			r.acking.Store(false)
		} else {
			r.free()
		}
		late.err = err
		close(late.done)
	}, append(own, steps...)...)
	switch {
	case err == nil:
		r.free() // the claim has ended by itself; that leaves what watched over it
		return nil
	case zk.MaybeApplied(err) && ctx.Err() != nil:
		m.mu.Lock()
		m.pending = late
		m.mu.Unlock()
		return err
	}
	r.acking.Store(false)
	return m.refused(err, len(own))
}

// refused says why an acknowledgement was refused.
func (m *Message[T]) refused(err error, own int) error {
	txn, ok := errors.AsType[*zk.TxnError](err)
	switch {
	case zk.MaybeApplied(err): // the member stopped
		return err
	case !ok:
		if lost := m.Err(); lost != nil {
			return lost
		}
		return err
	case txn.Index == 0:
		return fmt.Errorf("%w: %w", ErrLost, zk.ErrNoNode)
	case txn.Index < own && (errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrNoNode)):
		m.right.free()
		return ErrBroken
	case txn.Index < own:
		return err
	}
	e, _ := errors.AsType[*zk.Error](err)
	return &zk.Error{Op: e.Op, Path: e.Path, Code: e.Code, Err: &zk.TxnError{Index: txn.Index - own, Steps: txn.Steps[own:]}}
}

// Nack gives the item back: it can be received again at once, or after some time of the ensemble's clock; it then has
// lost its number and counts as new, with the priority and the id it had. Error: zk.ErrBadArguments, and the claim
// stays, for a delay in layout Curator, which has none.
func (m *Message[T]) Nack(ctx context.Context, after time.Duration) error {
	if ctx == nil {
		return badArgument("nack", m.Path(), "nil context")
	}
	if after > 0 {
		later, err := m.later(after)
		if err != nil {
			return err
		}
		m.right.onRelease(later)
	}
	if err := m.Err(); err != nil && !errors.Is(err, ErrReleased) {
		return err
	}
	return m.Release(ctx)
}

// later are the steps that put the item again, with a delay.
func (m *Message[T]) later(after time.Duration) ([]zk.Op, error) {
	q, now := m.queue, m.right.s.Now()
	prefix, err := q.names().prefix(place{prio: m.entry.prio, due: now.Add(after), id: m.entry.id}, now)
	if err != nil {
		return nil, badArgument("nack", m.stored.Path, err.Error())
	}
	var steps []zk.Op
	if m.stored.rest != nil && q.MaxItems > 0 { // it becomes an entry more
		steps = append(steps, zk.OpCheckChildren(q.entries(), zk.Less, q.MaxItems))
	}
	steps = append(steps, m.stored.removal(zk.AnyVersion)...)
	return append(steps, zk.OpCreate(join(q.entries(), prefix), m.stored.alone, zk.Sequential|q.names().missing())), nil
}
