// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"

	"github.com/seed-541fafe0/zk"
)

// Barrier keeps everybody waiting as long as it is set.
//
// Layout: the barrier is the znode PATH itself, as in Curator, kazoo and ZooKeeper's recipes.
//
// Cost: one write to set and one to lift; Wait has one round of messages, so that a barrier set anywhere before the call
// is seen, and one local watch. Lifting wakes everybody who waits.
//
// A barrier belongs to nobody: whoever calls Lift lifts it, and one that is not Ephemeral stays when the process that has set
// it dies, until somebody does. It bars nobody who has passed Wait already.
type Barrier struct {
	noCopy noCopy

	Session   zk.SessionSource
	Path      string
	Ephemeral bool // the barrier goes with the session that set it; one that is set already stays what it is
}

// NewBarrier returns a barrier at path.
func NewBarrier(s zk.SessionSource, path string) *Barrier { return &Barrier{Session: s, Path: path} }

// Set puts the barrier up. It returns nil if it is up already, whoever set it. Errors: those of every write.
func (b *Barrier) Set(ctx context.Context) error {
	s, err := session(ctx, b.Session, "set barrier", b.Path)
	if err != nil {
		return err
	}
	mode := zk.Persistent
	if b.Ephemeral {
		mode = zk.Ephemeral
	}
	_, err = s.Create(ctx, b.Path, nil, mode|zk.Parents)
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// Lift takes the barrier down, whoever set it. It returns nil if it is down already. Errors: those of every write;
// zk.ErrNotEmpty if somebody has put a znode below it.
func (b *Barrier) Lift(ctx context.Context) error {
	s, err := session(ctx, b.Session, "lift barrier", b.Path)
	if err != nil {
		return err
	}
	err = s.Delete(ctx, b.Path, zk.AnyVersion)
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

// Wait returns nil once the barrier was seen down at some moment after the call began (BAR-S1); that it has been set
// again since makes no difference (BAR-S2). Errors: ctx's, and the session's if it ends.
func (b *Barrier) Wait(ctx context.Context) error {
	s, err := session(ctx, b.Session, "wait at barrier", b.Path)
	if err != nil {
		return err
	}
	if err := s.Sync(ctx); err != nil {
		return explain(ctx, err)
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		_, _, changed, err := s.GetW(watching, b.Path)
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return explain(ctx, err)
		}
		if ev := <-changed; ev.Type == zk.EventDeleted {
			return nil
		}
	}
}
