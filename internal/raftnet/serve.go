// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ongoingEvery is how often a member that restores a snapshot says that it is
// still at it: several times in a stallTimeout.
const ongoingEvery = 5 * time.Second

// errAbandoned ends a call whose answer nobody waits for any more.
var errAbandoned = errors.New("raftnet: call abandoned")

// accept takes in streams until the transport is closed.
func (n *Net) accept() {
	const least, most = 5 * time.Millisecond, time.Second
	pause := least
	for {
		conn, err := n.cfg.Transport.Accept()
		if n.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			n.log.failed(slog.LevelWarn, party{caller: true}, "cannot accept streams", err)
			wait := time.NewTimer(pause)
			select {
			case <-wait.C:
			case <-n.ctx.Done():
				wait.Stop()
				return
			}
			pause = min(2*pause, most)
			continue
		}
		pause = least
		n.admit(conn)
	}
}

// admit gives an accepted stream a goroutine, if there is room.
func (n *Net) admit(conn net.Conn) {
	s := newStream(conn)
	n.mu.Lock()
	room := !n.closed && n.inbound < maxInbound && n.opening < maxOpening
	if room {
		n.inbound++
		n.opening++
		n.streams[s] = struct{}{}
		n.wg.Go(func() { n.inboundStream(s) })
	}
	n.mu.Unlock()
	if !room {
		n.log.failed(slog.LevelWarn, party{caller: true}, "too many streams", nil)
		s.close()
	}
}

// inboundStream is the life of an accepted stream.
func (n *Net) inboundStream(s *stream) {
	entered := false
	err := n.receive(s, func() error {
		if err := n.enter(s); err != nil {
			return err
		}
		entered = true
		return nil
	})
	if entered {
		err = n.serve(s, err)
	}

	// An end that this side has brought about is not a loss.
	broken := err != nil && !s.closed.Load() && !timedOut(err) && !objection(err) &&
		!errors.Is(err, errViolation) && !errors.Is(err, errAbandoned)
	n.drop(s)
	lost := n.leave(s, entered)
	if n.ctx.Err() != nil {
		return
	}
	who := party{id: s.remote.ID, caller: true}
	switch {
	case errors.Is(err, errViolation):
		n.log.failed(slog.LevelWarn, who, "peer breaks the protocol", err)
	case !entered && err != nil && s.remote.ID != "":
		n.log.failed(slog.LevelWarn, who, "stream refused", err)
	case !entered && err != nil && !errors.Is(err, io.EOF) && !timedOut(err):
		n.log.failed(slog.LevelWarn, who, "stream not opened", err)
	}
	if lost && broken {
		n.cfg.StreamLost(s.remote.ID, s.remote.Incarnation)
	}
}

// receive shakes hands.
func (n *Net) receive(s *stream, enter func() error) error {
	ctx, cancel := context.WithTimeout(n.ctx, openTimeout)
	defer cancel()
	s.setDeadline(openTimeout)
	return n.welcome(ctx, s, enter)
}

// enter counts s among the streams of its member, if there is room.
func (n *Net) enter(s *stream) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.perPeer[s.remote.ID] >= maxInboundPerPeer {
		return errors.New("too many streams")
	}
	n.opening--
	n.perPeer[s.remote.ID]++
	if s.class == classRaft {
		n.raftIn[life{s.remote.ID, s.remote.Incarnation}]++
	}
	return nil
}

// Hears reports whether an incarnation of a member has a raft stream open to
// this one.
func (n *Net) Hears(id string, incarnation uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.raftIn[life{id, incarnation}] > 0
}

// leave undoes the counting. It reports whether s was the last raft stream of
// its member's incarnation.
func (n *Net) leave(s *stream, entered bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inbound--
	if !entered {
		n.opening--
		return false
	}
	if n.perPeer[s.remote.ID]--; n.perPeer[s.remote.ID] == 0 {
		delete(n.perPeer, s.remote.ID)
	}
	if s.class != classRaft {
		return false
	}
	l := life{s.remote.ID, s.remote.Incarnation}
	if n.raftIn[l]--; n.raftIn[l] == 0 {
		delete(n.raftIn, l)
		return true
	}
	return false
}

// serve answers requests until something ends that, and returns what. While a
// request is being handled a second goroutine waits for what comes next on the
// stream, in order to see it break.
func (n *Net) serve(s *stream, err error) error {
	if err != nil {
		return err
	}
	n.log.fine(party{id: s.remote.ID, caller: true})
	s.conn.SetWriteDeadline(time.Time{})
	s.conn.SetReadDeadline(time.Now().Add(inboundIdle))
	if _, err := s.in.Peek(1); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(n.ctx)
	defer cancel(nil)
	look := make(chan struct{})
	seen := make(chan error, 1)
	started := n.spawn(func() {
		for range look {
			_, err := s.in.Peek(1)
			if err != nil {
				cancel(err)
			}
			seen <- err
		}
	})
	if !started {
		return ErrClosed
	}
	defer close(look)

	limit := n.cfg.MaxFrame
	if s.class == classRaft {
		limit = maxRaftFrame
	}
	for {
		kind, req, err := s.readFrame(stallTimeout, limit, nil)
		if err != nil {
			return err
		}
		if s.class == classRaft && kind == kindInstallSnapshot {
			// The rest of the stream is the snapshot's.
			if err := n.serveSnapshot(ctx, s, req); err != nil {
				return err
			}
			s.conn.SetReadDeadline(time.Now().Add(inboundIdle))
			if _, err := s.in.Peek(1); err != nil {
				return err
			}
			continue
		}

		s.conn.SetReadDeadline(time.Time{})
		look <- struct{}{}
		status, resp, err := n.answer(ctx, s, kind, req)
		if err == nil {
			err = s.respond(n.cfg.CallTimeout, status, resp)
		}
		if err != nil {
			// What the other goroutine saw came first.
			if cause := context.Cause(ctx); cause != nil && n.ctx.Err() == nil {
				err = cause
			}
			return err
		}
		s.conn.SetReadDeadline(time.Now().Add(inboundIdle))
		if err := <-seen; err != nil {
			return err
		}
	}
}

// respond writes a response.
func (s *stream) respond(step time.Duration, status byte, resp []byte) error {
	s.conn.SetWriteDeadline(time.Now().Add(step))
	return s.writeFrame(step, status, resp)
}

// answer handles a request other than a snapshot.
func (n *Net) answer(ctx context.Context, s *stream, kind byte, req []byte) (byte, []byte, error) {
	if s.class == classRaft {
		return n.answerRaft(ctx, s, kind, req)
	}
	if kind >= kindReserved {
		return 0, nil, fmt.Errorf("%w: call kind %#x", errViolation, kind)
	}
	if n.cfg.Handle == nil {
		return statusError, []byte("calls are not answered here"), nil
	}
	resp := n.cfg.Handle(ctx, s.remote, kind, req)
	if len(resp) > n.cfg.MaxFrame {
		return statusError, []byte("response too large"), nil
	}
	return statusOK, resp, nil
}

// answerRaft hands a request to raft, if it is one that raft may see.
func (n *Net) answerRaft(ctx context.Context, s *stream, kind byte, req []byte) (byte, []byte, error) {
	cmd, err := decodeRequest(kind, req, s.remote.ID)
	if err != nil {
		return 0, nil, err
	}
	election := kind == kindRequestVote || kind == kindRequestPreVote || kind == kindTimeoutNow
	if election && n.cfg.Stalled() {
		return statusError, []byte(ErrStalled.Error()), nil
	}
	if err := n.cfg.AdmitRaft(s.remote, cmd); err != nil {
		return statusError, errorText(err), nil
	}
	if a, ok := cmd.(*raft.AppendEntriesRequest); ok {
		n.leads(s, a.Term)
	}
	got, err := n.deliver(ctx, raft.RPC{Command: cmd}, n.cfg.CallTimeout)
	if err != nil {
		return 0, nil, err
	}
	if election && n.cfg.Stalled() { // it may have begun while raft was at it
		return statusError, []byte(ErrStalled.Error()), nil
	}
	return encodeAnswer(got)
}

func encodeAnswer(got raft.RPCResponse) (byte, []byte, error) {
	if got.Error != nil {
		return statusError, errorText(got.Error), nil
	}
	resp, err := appendResponse(nil, got.Response)
	if err != nil {
		return statusError, errorText(err), nil
	}
	return statusOK, resp, nil
}

func errorText(err error) []byte {
	return []byte(clip(err.Error(), maxText))
}

// deliver waits for raft to take a request and to answer it, for as long as
// patience says unless that is zero. When it gives up raft may still answer,
// into the void.
func (n *Net) deliver(ctx context.Context, rpc raft.RPC, patience time.Duration) (raft.RPCResponse, error) {
	resp := make(chan raft.RPCResponse, 1)
	rpc.RespChan = resp
	var late <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case n.consumer <- rpc:
	case <-ctx.Done():
		return raft.RPCResponse{}, errAbandoned
	case <-late:
		return raft.RPCResponse{}, fmt.Errorf("%w: raft is not listening", errAbandoned)
	}
	select {
	case got := <-resp:
		return got, nil
	case <-ctx.Done():
		return raft.RPCResponse{}, errAbandoned
	case <-late:
		return raft.RPCResponse{}, fmt.Errorf("%w: raft does not answer", errAbandoned)
	}
}

// serveSnapshot receives a snapshot:
//
//	leader   the request, without contents
//	member   ongoing: send      (or an answer, and nothing is sent)
//	leader   the contents
//	member   ongoing            (again and again, while it restores)
//	member   the answer
//
// The contents are asked for only when raft has taken the request, and raft
// reads them from the stream.
func (n *Net) serveSnapshot(ctx context.Context, s *stream, req []byte) error {
	cmd, err := decodeRequest(kindInstallSnapshot, req, s.remote.ID)
	if err != nil {
		return err
	}
	if err := n.cfg.AdmitRaft(s.remote, cmd); err != nil {
		return s.respond(n.cfg.CallTimeout, statusError, errorText(err))
	}
	install := cmd.(*raft.InstallSnapshotRequest)
	n.leads(s, install.Term)
	contents := &contents{s: s}
	contents.left.Store(install.Size)
	answer := make(chan raft.RPCResponse, 1)
	timer := time.NewTimer(n.cfg.CallTimeout)
	defer timer.Stop()

	// Raft may read before we have asked for the contents; it just waits.
	select {
	case n.consumer <- raft.RPC{Command: cmd, Reader: contents, RespChan: answer}:
	case <-ctx.Done():
		return errAbandoned
	case <-timer.C:
		return fmt.Errorf("%w: raft is not listening", errAbandoned)
	}
	done := n.install(answer)
	if err := s.respond(n.cfg.CallTimeout, statusOngoing, nil); err != nil {
		return err
	}
	tick := time.NewTicker(ongoingEvery)
	defer tick.Stop()
	left, since := contents.left.Load(), time.Now()
	for {
		select {
		case got := <-done:
			if _, err := io.Copy(io.Discard, contents); err != nil { // in case raft left something
				return err
			}
			status, resp, err := encodeAnswer(got)
			if err != nil {
				return err
			}
			return s.respond(n.cfg.CallTimeout, status, resp)
		case <-tick.C:
			// While contents come in, the leader does nothing but write. It
			// gives up when that stands still, and so does this end.
			switch now := contents.left.Load(); {
			case now == 0 && !n.cfg.Stalled():
				if err := s.respond(n.cfg.CallTimeout, statusOngoing, nil); err != nil {
					return err
				}
			case now != left:
				left, since = now, time.Now()
			case time.Since(since) > stallTimeout+ongoingEvery:
				return fmt.Errorf("%w: raft does not read the snapshot", errAbandoned)
			}
		case <-ctx.Done():
			return errAbandoned
		}
	}
}

// install notes that raft is at a snapshot until it answers, which may be long after its stream has broken.
func (n *Net) install(answer <-chan raft.RPCResponse) <-chan raft.RPCResponse {
	done := make(chan raft.RPCResponse, 1)
	n.installing.Add(1)
	started := n.spawn(func() {
		defer n.installing.Add(-1)
		select {
		case got := <-answer:
			done <- got
		case <-n.ctx.Done():
		}
	})
	if !started {
		n.installing.Add(-1)
	}
	return done
}

// Installing reports whether raft receives or restores a snapshot. Meanwhile it does nothing else: it neither stands for
// election nor votes.
func (n *Net) Installing() bool { return n.installing.Load() > 0 }

// leads notes that the member at the other end of s leads.
func (n *Net) leads(s *stream, term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if term >= n.ledTerm {
		n.ledTerm, n.leader = term, life{s.remote.ID, s.remote.Incarnation}
	}
}

// Leader returns who has sent entries, a heartbeat or a snapshot to this member in the newest term: raft has heard of it
// as the leader, or is about to. The id is empty if nobody has.
func (n *Net) Leader() (id string, incarnation, term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader.id, n.leader.incarnation, n.ledTerm
}

// contents is what raft reads of a snapshot: exactly what was announced, and
// an error when nothing comes for a stallTimeout. Raft's goroutine reads it,
// and after raft has answered the stream's.
type contents struct {
	s    *stream
	left atomic.Int64 // bytes to come
	err  error        // what ended it early
}

func (c *contents) Read(p []byte) (int, error) {
	left := c.left.Load()
	switch {
	case c.err != nil:
		return 0, c.err
	case left == 0:
		return 0, io.EOF
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	c.s.conn.SetReadDeadline(time.Now().Add(stallTimeout))
	k, err := c.s.in.Read(p)
	c.left.Add(int64(-k))
	c.err = short(err)
	return k, c.err
}

// TimeoutNow tells this member's own raft to stand for election, as a leader
// that hands over would. It returns when raft has heard it.
func (n *Net) TimeoutNow(ctx context.Context) error {
	if n.cfg.Stalled() {
		return ErrStalled
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	cmd := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	got, err := n.deliver(both, raft.RPC{Command: cmd}, 0)
	if err != nil {
		return n.explain(ctx, err)
	}
	return got.Error
}
