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
type Message[T any] struct {
	Value T
	*Held

	queue *Queue[T]
	entry entry
	znode zk.Znode // the entry
	again bool

	mu      sync.Mutex
	pending *ack // of which nobody knows the outcome yet; nil if there is none
}

// ack is an acknowledgement whose caller stopped waiting.
type ack struct {
	done chan struct{}
	err  error
}

// Redelivered reports whether the item was claimed before, by a consumer that did not acknowledge it.
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
	own := []zk.Op{r.guard(), zk.OpCheckCreated(m.znode.Path, zk.Token(m.znode.Stat.Czxid)), zk.OpDelete(m.znode.Path, zk.AnyVersion), zk.OpDelete(r.path, zk.AnyVersion)}
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
	case txn.Index < own:
		m.right.free()
		return ErrBroken
	}
	e, _ := errors.AsType[*zk.Error](err)
	return &zk.Error{Op: e.Op, Path: e.Path, Code: e.Code, Err: &zk.TxnError{Index: txn.Index - own, Steps: txn.Steps[own:]}}
}

// Nack gives the item back: it can be received again at once, or after some time of the ensemble's clock; it then has
// lost its number and counts as new.
func (m *Message[T]) Nack(ctx context.Context, after time.Duration) error {
	if ctx == nil {
		return badArgument("nack", m.Path(), "nil context")
	}
	if after > 0 {
		due := dueRun(m.entry.prio, m.right.s.Now().Add(after))
		m.right.onRelease([]zk.Op{
			zk.OpCheckCreated(m.znode.Path, zk.Token(m.znode.Stat.Czxid)), zk.OpDelete(m.znode.Path, zk.AnyVersion),
			zk.OpCreate(join(m.queue.entries(), due), []byte(m.znode.Data), zk.Sequential|zk.Parents),
		})
	}
	if err := m.Err(); err != nil && !errors.Is(err, ErrReleased) {
		return err
	}
	return m.Release(ctx)
}
