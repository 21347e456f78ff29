// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// After conflictsMax conflicts a change stands in line, at the znode's path with promotedSuffix. The line is a hint that
// gives everybody a turn; what keeps changes apart is still the compare-and-set.
const (
	conflictsMax   = 8
	promotedSuffix = "-lock"
)

// contention spreads those who change one znode at once. A write takes a few milliseconds.
var contention = Backoff{Base: 2 * time.Millisecond, Max: 200 * time.Millisecond}

// peek reads a znode. Where there is none Czxid is 0; the root, which has no other, is nobody's value.
func peek(ctx context.Context, s *zk.Session, path string, opt ...zk.ReadOption) (zk.Znode, error) {
	data, st, err := s.GetString(ctx, path, opt...)
	if errors.Is(err, zk.ErrNoNode) {
		return zk.Znode{Path: path}, nil
	}
	if err == nil && st.Czxid == 0 {
		err = badArgument("get", path, "it is part of every tree")
	}
	return zk.Znode{Path: path, Data: data, Stat: st}, err
}

// change replaces the data of a znode by what next makes of it, in one step that nothing comes between; where there is
// no znode it is created. next runs on the caller's goroutine and may run several times: it is told the znode, and says
// what to write, or that nothing is to be written. Such a refusal counts only if it is made of what was current after
// the call began; what is to be written need not be read so, because the write itself is guarded.
//
// It costs one write where nobody interferes, and one round of messages where nothing is written. A conflict costs one
// more write; this member has applied it by then, so that the next read is as new. The error is next's or that of the
// write.
func change(ctx context.Context, s *zk.Session, path string, next func(z zk.Znode) (data []byte, write bool, err error)) (zk.Stat, error) {
	var turn *Held
	defer func() {
		if turn != nil {
			turn.right.free() // the znode is deleted in the background
		}
	}()
	current := false
	var fresh []zk.ReadOption
	for conflicts := 0; ; {
		z, err := peek(ctx, s, path, fresh...)
		if err != nil {
			return zk.Stat{}, err
		}
		data, write, err := next(z)
		if err != nil || !write {
			if current {
				return z.Stat, err
			}
			current, fresh = true, []zk.ReadOption{zk.Linearizable}
			continue
		}
		st, err := replace(ctx, s, z, data)
		if !conflicting(err) {
			return st, err
		}
		current, fresh = true, nil
		if err := contention.Wait(ctx, conflicts); err != nil {
			return zk.Stat{}, err
		}
		if conflicts++; conflicts == conflictsMax {
			turn, err = NewLock(s, path+promotedSuffix).Acquire(ctx)
			if err != nil && (ctx.Err() != nil || over(err)) {
				return zk.Stat{}, err
			}
		}
	}
}

// replace writes data where z stands, that incarnation in that version only.
func replace(ctx context.Context, s *zk.Session, z zk.Znode, data []byte) (zk.Stat, error) {
	if z.Stat.Czxid == 0 {
		made, err := s.Create(ctx, z.Path, data, zk.Persistent|zk.Parents)
		return made.Stat, err
	}
	results, err := s.Txn(ctx, zk.OpCheckCreated(z.Path, zk.Token(z.Stat.Czxid)), zk.OpSet(z.Path, data, z.Stat.Version))
	if err != nil {
		return zk.Stat{}, err
	}
	return results[1].Stat, nil
}

// conflicting tells whether a guarded write was refused because somebody else was faster.
func conflicting(err error) bool {
	return errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists)
}

// put writes data whatever is there, and creates the znode where there is none.
func put(ctx context.Context, s *zk.Session, path string, data []byte) error {
	z, err := peek(ctx, s, path)
	if err != nil {
		return err
	}
	for absent := z.Stat.Czxid == 0; ; absent = !absent {
		if absent {
			_, err = s.Create(ctx, path, data, zk.Persistent|zk.Parents)
			if !errors.Is(err, zk.ErrNodeExists) {
				return err
			}
		} else {
			_, err = s.Set(ctx, path, data, zk.AnyVersion)
			if !errors.Is(err, zk.ErrNoNode) {
				return err
			}
		}
	}
}

// eachSession calls fn with a session of src, and again with another one when that was over while src has a live one:
// a *zk.Member opens one, a *zk.Session does not. It returns fn's other results.
func eachSession(ctx context.Context, src zk.SessionSource, op, path string, fn func(s *zk.Session) error) error {
	s, err := session(ctx, src, op, path)
	for err == nil {
		if err = fn(s); !over(err) {
			return explain(ctx, err)
		}
		next, gone := src.Session(ctx)
		if gone != nil || next == s {
			return explain(ctx, err)
		}
		s, err = next, nil
	}
	return err
}
