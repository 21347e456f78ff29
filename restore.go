// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"
	"io"
	"strings"
)

// A backup comes into a running ensemble through the log: its parts, each a request, and then the request that lets it
// take effect. Every member has it at the same place of the log, or none has
// (D33). The parts are not in snapshots; none is taken while there are any, so that whoever starts from one finds all of
// them in the log.

const (
	// restorePart is the size of a part.
	restorePart = 1 << 20

	// restoreMax bounds a backup: its parts are kept until the last one has come.
	restoreMax = 8 << 30

	// restoreStall is how long the next request of a restore may take, in milliseconds of the log's time, before its
	// parts are forgotten.
	restoreStall = 60_000

	// restoreLeap is by how much a restore raises the zxid above everything that was given out before (D10).
	restoreLeap = 1 << 32
)

// staging is a backup on its way.
type staging struct {
	id    uint64
	parts []string
	size  int64
	at    int64 // when the last part came

	read bool // what follows is known
	st   *state
	err  error
}

var errStaged = errors.New("a restore is under way")

// stage takes one part. One restore is under way at a time.
func (s *state) stage(q *request) Code {
	g := s.staged
	switch {
	case q.number == 0 && g == nil:
		g = &staging{id: q.restore}
	case q.number == 0:
		return ErrThrottled
	case g == nil || g.id != q.restore || g.read || uint64(len(g.parts)) != q.number:
		return ErrUnavailable // it took too long
	}
	if g.size+int64(len(q.data)) > restoreMax {
		return ErrTooLarge
	}
	g.parts, g.size, g.at = append(g.parts, q.data), g.size+int64(len(q.data)), s.now
	s.staged = g
	return 0
}

// restores tells whether a request is a restore.
func restores(raw []byte) bool { return len(raw) > 0 && requestKind(raw[0]) == reqRestore }

// prepare reads the backup that is staged, so that the request that wants it need not. A format that this build does
// not know is an error: other members may know it.
func (s *state) prepare() error {
	if s.staged == nil {
		return nil
	}
	if _, err := s.staged.state(); errors.Is(err, errFormat) {
		return err
	}
	return nil
}

// state reads the backup, once.
func (g *staging) state() (*state, error) {
	if !g.read {
		parts := make([]io.Reader, len(g.parts))
		for i, p := range g.parts {
			parts[i] = strings.NewReader(p)
		}
		g.st, g.err = readSnapshot(io.MultiReader(parts...))
		g.read = true
	}
	return g.st, g.err
}

// restore lets the staged backup take effect.
func (s *state) restore(q *request) Code {
	g := s.staged
	if g == nil || g.id != q.restore || uint64(len(g.parts)) != q.number {
		return ErrUnavailable
	}
	s.staged = nil
	b, err := g.state()
	if err != nil {
		return ErrDataInconsistency
	}
	s.adopt(b)
	return 0
}

// adopt takes over a backup's znodes. The ensemble stays itself: its members, its identity and the memory of its
// writes. All sessions end: those before knew another tree, and those of the backup, with their ephemerals, are
// long gone.
func (s *state) adopt(b *state) {
	old := *s
	b.zxid = max(s.zxid, b.zxid) + restoreLeap
	b.term, b.feature, b.cluster = s.term, s.feature, s.cluster
	b.now, b.lastID = max(s.now, b.now), max(s.lastID, b.lastID)
	b.origins, b.members, b.servers = s.origins, s.members, s.servers
	var gone []*session
	b.sessions.Ascend(func(sess *session) bool {
		gone = append(gone, sess)
		return true
	})
	for _, sess := range gone {
		b.close(sess)
	}
	b.showConfig()
	b.changes, b.ended, b.overSoft = nil, nil, ""
	b.replaced = &old
	*s = *b
}
