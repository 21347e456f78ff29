// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/seed-541fafe0/zk"
)

// try enters c where nobody has to go before it, without waiting for anybody; join is the step that creates its znode in
// dir. The error is ErrNotAcquired if somebody does: no znode of this call is left then, now or later.
func (l line) try(ctx context.Context, s *zk.Session, dir string, join zk.Op) (*contender, error) {
	for current := false; ; {
		busy, others, err := l.look(ctx, s, dir)
		if err != nil {
			return nil, explain(ctx, err)
		}
		if busy {
			if current {
				return nil, ErrNotAcquired
			}
			if err := s.Sync(ctx); err != nil { // what this member knows may be old
				return nil, explain(ctx, err)
			}
			current = true
			continue
		}
		if others {
			return l.tryAmong(ctx, s, join)
		}
		c, err := enter(ctx, s, zk.OpCheckChildren(dir, zk.Less, 1), join)
		if errors.Is(err, zk.ErrGuard) {
			current = true // the refusal was applied here: what is seen now is as new
			continue
		}
		return c, err
	}
}

// look reports whether dir has anybody who blocks, and whether it has other children.
func (l line) look(ctx context.Context, s *zk.Session, dir string) (busy, others bool, err error) {
	for z, err := range s.Sequential(ctx, dir) {
		if errors.Is(err, zk.ErrNoNode) {
			return false, false, nil
		}
		if err != nil {
			return false, false, err
		}
		if l.blocks(base(z.Path)) {
			return true, false, nil
		}
	}
	st, _, err := s.Exists(ctx, dir)
	return false, st.NumChildren > 0, err
}

// tryAmong tries where other children make a guard on their number useless: create, look, delete.
func (l line) tryAmong(ctx context.Context, s *zk.Session, join zk.Op) (*contender, error) {
	c, err := enter(ctx, s, join)
	if err != nil {
		return nil, err
	}
	_, blocked, err := s.Preceding(ctx, c.path, l.blocks)
	if err == nil && !blocked {
		return c, nil
	}
	return nil, c.give(ctx, err)
}

// give takes a contender that cannot have what it tried for out of its line. The error is ErrNotAcquired, or err if that
// is the reason, or that of leaving, which then goes on in the background.
func (c *contender) give(ctx context.Context, err error, besides ...zk.Op) error {
	if err == nil {
		if err = c.remove(ctx, besides...); err == nil {
			return ErrNotAcquired
		}
	}
	c.leave()
	return c.failed(ctx, err)
}

// mixture tells, once, that a line has contenders of Curator's and of kazoo's layout.
type mixture struct {
	what   string
	path   string
	layout Layout
	found  atomic.Bool
	once   sync.Once
}

// of is kind.contends, but remembers contenders of another layout than ours. It only looks at the name.
func (m *mixture) of(name string, kinds ...kind) bool {
	for _, k := range kinds {
		if layout, ok := k.layout(name); ok {
			if layout != m.layout {
				m.found.Store(true)
			}
			return true
		}
	}
	return false
}

func (m *mixture) tell() {
	if m.found.Load() {
		m.once.Do(func() {
			slog.Warn("there are contenders of several layouts, which other programs do not keep apart: see recipes."+m.what, "path", m.path)
		})
	}
}

// Contender is one in a line, or one of those who share something, as it was when it was listed. It is a plain value.
type Contender struct {
	// Path is the contender's znode.
	Path string

	// Seq is the number in its name, which is its place in the line: lower ones go first. It is never a fencing token: it
	// starts again at 0 when the directory has been reaped or deleted, and another program may write any number.
	Seq int64

	// Token is the zxid that created the znode. It names this incarnation, for Revoke and Lock.Break, and it is what
	// Held.Token shows while the contender holds: among the holders of one path it strictly increases for ever (HELD-S2). A
	// reader that was a writer (RWLock.Downgrade) shows here a higher one than its Held.Token.
	Token zk.Token

	Session zk.SessionID // that owns the znode; 0 where it is not ephemeral
	Data    []byte       // the znode's: what the contender says of itself, or the mark of Revoke
	Holding bool         // it holds what the line is for, or is about to: its member grants it when it sees the same
}

// contenders lists the children of dir that are contenders, in the order of their numbers, as this member knows it. The
// first one is said to be the holder.
func contenders(ctx context.Context, s *zk.Session, dir string, contends func(name string) bool) ([]Contender, error) {
	var list []Contender
	for z, err := range s.Sequential(ctx, dir) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil, nil
		}
		if err != nil {
			return nil, explain(ctx, err)
		}
		name := base(z.Path)
		if !contends(name) {
			continue
		}
		seq, _ := zk.Sequence(name)
		list = append(list, Contender{
			Path: z.Path, Seq: seq, Token: zk.Token(z.Stat.Czxid), Session: z.Stat.EphemeralOwner, Data: []byte(z.Data), Holding: len(list) == 0,
		})
	}
	return list, nil
}

// signed is the data of a contender: what the user wants, or who made it.
func signed(s *zk.Session, data []byte) []byte {
	if data != nil {
		return data
	}
	return fmt.Appendf(nil, "%s %v", s.Member().ID(), s.ID())
}
