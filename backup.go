// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"io"
	"time"
)

// Backup writes the whole state as of one zxid to w, in the format of snapshots, and returns that zxid. Writes go on
// meanwhile. Errors: ErrStream with what w returned, ErrUnavailable with ctx's.
func (m *Member) Backup(ctx context.Context, w io.Writer) (Zxid, error) {
	if ctx == nil {
		return 0, badContext("backup")
	}
	if w == nil {
		return 0, &Error{Op: "backup", Code: ErrBadArguments, Err: errors.New("nil writer")}
	}
	if err := m.running("backup"); err != nil {
		return 0, err
	}
	var frozen *frozen
	m.fsm.locked(func() { frozen = m.fsm.st.freeze() })
	defer m.fsm.closeView(frozen.view)
	if _, err := frozen.write(stream{ctx, w, nil}, m.fsm.reading); err != nil {
		return 0, streamError("backup", ctx, err)
	}
	return frozen.zxid, nil
}

// stream is a caller's reader or writer until ctx ends.
type stream struct {
	ctx context.Context
	w   io.Writer
	r   io.Reader
}

func (s stream) Write(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, s.ctx.Err()
	}
	n, err := s.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

func (s stream) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, s.ctx.Err()
	}
	return s.r.Read(p)
}

func streamError(op string, ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctxError(op, "", ctx)
	}
	return &Error{Op: op, Code: ErrStream, Err: err}
}

// Restore replaces all znodes by those of a backup, on every member at once or on none. It may be called on any member,
// with a backup of this ensemble or of another; the ensemble keeps its id, its members and their configuration.
//
// Every session ends with ErrSessionExpired, so that whoever held a right notices; the backup's own sessions and
// ephemerals do not come back. Watchers hear of the differences first. Znodes keep the zxids and versions of the backup,
// but the next zxid is 2^32 above everything that this ensemble or the backup's has given out: fencing tokens never
// repeat (D10).
//
// The backup is read to its end and checked before anything is changed; it takes about twice its size in memory on
// every member, and at most 8 GiB. Writes wait while members take it over. One restore is under way at a time, others are
// refused with ErrThrottled. Errors: ErrDataInconsistency where the backup is damaged or none, ErrUnimplemented where it is
// of a newer format, ErrStream with what r returned, ErrTooLarge, and those of every write. Where MaybeApplied says so it
// may still take effect.
func (m *Member) Restore(ctx context.Context, r io.Reader) (err error) {
	if ctx == nil {
		return badContext("restore")
	}
	if r == nil {
		return &Error{Op: "restore", Code: ErrBadArguments, Err: errors.New("nil reader")}
	}
	if err := m.running("restore"); err != nil {
		return err
	}
	defer func() { m.auditMember("restore", err) }()
	parts, err := readBackup(ctx, r)
	if err != nil {
		return err
	}
	q := request{kind: reqPart, restore: nonce()}
	send := func() error {
		out, err := m.writes.submit(ctx, "restore", "", appendRequest(nil, &q))
		if err == nil && out.code != 0 {
			err = &Error{Op: "restore", Code: out.code}
		}
		return err
	}
	for i, part := range parts {
		q.number, q.data = uint64(i), string(part)
		if err := send(); err != nil {
			m.abandonRestore(q.restore)
			if e, ok := errors.AsType[*Error](err); ok {
				e.MaybeApplied = false // parts alone change nothing
			}
			return err
		}
		parts[i] = nil
	}
	q.kind, q.number, q.data = reqRestore, uint64(len(parts)), ""
	err = send()
	if err != nil && !MaybeApplied(err) {
		m.abandonRestore(q.restore)
	}
	return err
}

// abandonRestore frees what has come of a restore. If it does not come through the state does so by itself, later.
func (m *Member) abandonRestore(id uint64) {
	c := &call{raw: appendRequest(nil, &request{kind: reqAbandon, restore: id}), done: make(chan struct{})}
	m.writes.enqueue(m.life, c, false)
}

// awaitUnstaged returns when no backup is on its way into the state. One that nobody brings to its end is dropped: where
// nothing else is written the state does not learn by itself that time goes by.
func (m *Member) awaitUnstaged() error {
	for {
		ctx, cancel := context.WithTimeout(m.life, time.Second)
		err := m.fsm.wait(ctx, m.stop, func() bool { return m.fsm.st.staged == nil })
		cancel()
		if err == nil || m.life.Err() != nil {
			return err
		}
		var id uint64
		stale := false
		m.fsm.reading(func() {
			if g := m.fsm.st.staged; g != nil {
				id, stale = g.id, m.fsm.st.now+time.Since(m.fsm.stamped).Milliseconds() > g.at+restoreStall
			}
		})
		if stale {
			m.abandonRestore(id)
		}
	}
}

// readBackup reads a backup to its end and returns it in parts, if it is whole.
func readBackup(ctx context.Context, r io.Reader) ([][]byte, error) {
	src := &source{r: stream{ctx, nil, r}}
	_, err := readSnapshot(src)
	if err == nil {
		var more [1]byte
		if n, _ := io.ReadFull(src, more[:]); n > 0 {
			err = damaged("something follows the backup")
		}
	}
	switch {
	case src.err != nil:
		return nil, streamError("restore", ctx, src.err)
	case err != nil:
		return nil, &Error{Op: "restore", Code: codeOf(err), Err: err}
	case src.size > restoreMax:
		return nil, &Error{Op: "restore", Code: ErrTooLarge}
	}
	return src.parts, nil
}

// source keeps what is read from it, in parts.
type source struct {
	r     io.Reader
	parts [][]byte
	size  int64
	err   error // of r, other than its end
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		last := len(s.parts) - 1
		if last < 0 || len(s.parts[last]) == restorePart {
			s.parts = append(s.parts, nil)
			last++
		}
		took := min(len(rest), restorePart-len(s.parts[last]))
		s.parts[last] = append(s.parts[last], rest[:took]...)
		rest = rest[took:]
	}
	if s.size += int64(n); s.size > restoreMax {
		return n, ErrTooLarge
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
