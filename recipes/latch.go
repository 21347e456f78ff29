// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"strconv"

	"github.com/seed-541fafe0/zk"
)

// Latch lets everybody wait until something has happened a number of times, anywhere.
//
// Layout: the znode PATH itself, its data the remaining count as decimal text. It is created by whoever comes first, and
// stays when the count has reached zero: delete it to use the path anew. PATH-lock is a line that CountDown uses after
// several conflicts, empty otherwise.
//
// Cost: CountDown is one write, and one more for each conflict with others; Wait is one round of messages, one local
// watch, which zk.Stats counts as two (WT-39), and a write if nobody was here before. Each count wakes everybody who waits.
//
// A latch cannot tell who has counted: a process that dies before it has counted holds everybody up, and one that does
// its work again counts again. Use a DoubleBarrier where that matters.
type Latch struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Count   int // to begin with, 0 or more; all users give the same
}

// NewLatch returns a latch at path that opens after count calls of CountDown.
func NewLatch(s zk.SessionSource, path string, count int) *Latch {
	return &Latch{Session: s, Path: path, Count: count}
}

var errNoCount = errors.New("not a count")

func (l *Latch) begin(ctx context.Context, op string) (*zk.Session, error) {
	if l.Count < 0 {
		return nil, badArgument(op, l.Path, "a count is not negative")
	}
	return session(ctx, l.Session, op, l.Path)
}

// remaining reads the count.
func (l *Latch) remaining(z zk.Znode) (int, error) {
	if z.Stat.Czxid == 0 {
		return l.Count, nil
	}
	n, err := strconv.Atoi(z.Data)
	if err == nil && n < 0 {
		err = errNoCount
	}
	if err != nil {
		return 0, &DecodeError{z.Path, z.Stat.Mzxid, err}
	}
	if n > l.Count {
		return 0, ErrMismatch
	}
	return n, nil
}

// CountDown counts once and returns how often is left. At zero it does nothing (LATCH-S1). Errors: ErrMismatch if more
// is left than there should have been to begin with; *DecodeError for what is stored; and those of every write. Only
// if zk.MaybeApplied says so may a failed call have counted.
func (l *Latch) CountDown(ctx context.Context) (remaining int, err error) {
	s, err := l.begin(ctx, "count down")
	if err != nil {
		return 0, err
	}
	_, err = change(ctx, s, l.Path, func(z zk.Znode) ([]byte, bool, error) {
		n, err := l.remaining(z)
		if err != nil || n == 0 {
			remaining = 0
			return nil, false, err
		}
		remaining = n - 1
		return strconv.AppendInt(nil, int64(remaining), 10), true, nil
	})
	if err != nil {
		return 0, err
	}
	return remaining, nil
}

// Wait returns nil once the count is zero. Errors: ctx's; the session's if it ends; ErrBroken if somebody deletes the
// latch; ErrMismatch and *DecodeError as for CountDown; and those of a write.
func (l *Latch) Wait(ctx context.Context) error {
	s, err := l.begin(ctx, "wait at latch")
	if err != nil {
		return err
	}
	// What was there before the call may be gone by now, and another latch in its place.
	z, err := peek(ctx, s, l.Path, zk.Linearizable)
	if err != nil {
		return explain(ctx, err)
	}
	if z.Stat.Czxid == 0 {
		_, err := s.Create(ctx, l.Path, strconv.AppendInt(nil, int64(l.Count), 10), zk.Persistent|zk.Parents)
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	var latch zk.Zxid // the incarnation
	for z, err := range s.WatchValue(ctx, l.Path) {
		if err != nil {
			return explain(ctx, err)
		}
		if latch == 0 {
			latch = z.Stat.Czxid
		}
		if latch == 0 || z.Stat.Czxid != latch {
			return ErrBroken
		}
		n, err := l.remaining(z)
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}
