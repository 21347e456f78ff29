// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A RaftTransport is a Net as raft sees it. It does not pipeline: with one
// AppendEntries under way per member, replication cannot wedge. Heartbeats
// have no way around raft's main loop, where they would race with it.
//
// Raft cannot close it. It belongs to the Net, which outlives a raft that is
// shut down.
type RaftTransport struct {
	net *Net
}

var (
	_ raft.Transport   = (*RaftTransport)(nil)
	_ raft.WithPreVote = (*RaftTransport)(nil)
)

// Raft returns the transport for raft.NewRaft.
func (n *Net) Raft() *RaftTransport {
	return &RaftTransport{n}
}

// Consumer is where raft takes requests from.
func (t *RaftTransport) Consumer() <-chan raft.RPC {
	return t.net.consumer
}

// LocalAddr is this member's id.
func (t *RaftTransport) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(t.net.cfg.Local().ID)
}

// EncodePeer returns the member's id.
func (t *RaftTransport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte {
	return []byte(id)
}

// DecodePeer returns the member's id.
func (t *RaftTransport) DecodePeer(b []byte) raft.ServerAddress {
	return raft.ServerAddress(b)
}

// SetHeartbeatHandler does nothing.
func (t *RaftTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline makes raft do without.
func (t *RaftTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries sends a request. Of many or large entries it sends the first
// few and cuts args down to these, so that raft, which looks at args again
// when the answer is there, goes on with the rest. It names no commit index
// beyond these entries: see committed.
//
// If that fails it returns when the next attempt is worth while: see outlast. A
// heartbeat, which raft sends from a goroutine of its own, does not wait.
func (t *RaftTransport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	p := t.net.peer(string(id))
	heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0
	err := t.net.appendEntries(p, args, resp)
	if err != nil && !heartbeat {
		t.net.outlast(p, args.Term)
	}
	return err
}

// RequestVote sends a request.
func (t *RaftTransport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.net.ask(id, kindRequestVote, args.RPCHeader, args, resp)
}

// RequestPreVote sends a request.
func (t *RaftTransport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	err := t.net.ask(id, kindRequestPreVote, args.RPCHeader, args, resp)
	if err != nil && strings.Contains(err.Error(), "unexpected command") {
		// Raft takes this text for a member of long ago, and counts it as a yes.
		return errors.New("raftnet: no pre-vote")
	}
	return err
}

// TimeoutNow sends a request.
func (t *RaftTransport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.net.ask(id, kindTimeoutNow, args.RPCHeader, args, resp)
}

// InstallSnapshot sends a snapshot on a stream of its own. It fails as
// AppendEntries does.
func (t *RaftTransport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.net.sendSnapshot(string(id), args, resp, data); err != nil {
		t.net.outlast(t.net.peer(string(id)), args.Term)
		return fmt.Errorf("raftnet: send snapshot to %q: %w", id, err)
	}
	return nil
}

// promptly is how long something may take whose answer soon means nothing.
func (n *Net) promptly() time.Duration {
	return n.cfg.CallTimeout / 4
}

// ask sends a small request.
func (n *Net) ask(id raft.ServerID, kind byte, header raft.RPCHeader, args, resp any) error {
	if kind != kindTimeoutNow && n.cfg.Stalled() {
		return ErrStalled
	}
	if err := n.checkSender(header); err != nil {
		return err
	}
	req, err := appendRequest(nil, args)
	if err != nil {
		return err
	}
	b, err := n.do(context.Background(), &n.peer(string(id)).raft, n.promptly(), kind, req, maxRaftAnswer)
	if err != nil {
		return fmt.Errorf("raftnet: ask %q: %w", id, err)
	}
	return decodeResponse(b, string(id), resp)
}

// checkSender makes sure that raft and the handshake mean the same member,
// since the latter stands for the former.
func (n *Net) checkSender(header raft.RPCHeader) error {
	if id := n.cfg.Local().ID; string(header.ID) != id || string(header.Addr) != id {
		return fmt.Errorf("raftnet: %q at %q cannot speak for %q", header.ID, header.Addr, id)
	}
	return nil
}

func (n *Net) appendEntries(p *peer, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if n.cfg.Stalled() {
		return ErrStalled
	}
	if err := n.checkSender(args.RPCHeader); err != nil {
		return err
	}
	req, count, err := appendAppendEntries(nil, args, appendTarget)
	if err != nil {
		return err
	}
	args.Entries, args.LeaderCommitIndex = args.Entries[:count], committed(args, count)
	for {
		was := n.sentTerm.Load()
		if was >= args.Term || n.sentTerm.CompareAndSwap(was, args.Term) {
			break
		}
	}

	step := n.cfg.CallTimeout
	if count == 0 {
		step = n.promptly()
	}
	p.said.sending(args)
	b, err := n.do(context.Background(), &p.raft, step, kindAppendEntries, req, maxRaftAnswer)
	if err == nil {
		err = decodeResponse(b, p.id, resp)
	}
	if p.said.sent(args, err == nil && resp.Success) {
		n.spawn(func() { n.sendNotices(p) })
	}
	if err != nil {
		return fmt.Errorf("raftnet: append to %q: %w", p.id, err)
	}
	return nil
}

// redialEvery is how often a member that cannot be reached is dialled for the
// sake of replication.
const redialEvery = 100 * time.Millisecond

// outlast returns once a member can be reached, has reasons to refuse, or is
// not led by this one in that term any more. For every failure raft doubles the
// time for which it leaves a member alone, up to 10 s; so an absence had better
// be one failure than a dozen.
func (n *Net) outlast(p *peer, term uint64) {
	for n.cfg.Leads(p.id, term) {
		t := time.NewTimer(redialEvery)
		s, err := p.raft.get(n.ctx, redialEvery)
		if err == nil {
			p.raft.put(s)
		}
		if err == nil || objection(err) || errors.Is(err, ErrNoTransport) {
			t.Stop()
			return
		}
		select {
		case <-t.C:
		case <-n.ctx.Done():
			t.Stop()
			return
		}
	}
}

// sendSnapshot is the leader's side of serveSnapshot.
func (n *Net) sendSnapshot(id string, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if n.cfg.Stalled() {
		return ErrStalled
	}
	if err := n.checkSender(args.RPCHeader); err != nil {
		return err
	}
	req, err := appendRequest(nil, args)
	if err != nil {
		return err
	}
	s, _, err := n.open(n.ctx, classRaft, id, "")
	if err != nil {
		return err
	}
	defer n.drop(s)

	// Raft may be busy before it takes the request.
	s.setDeadline(stallTimeout)
	if err := s.writeFrame(stallTimeout, kindInstallSnapshot, req); err != nil {
		return n.explain(n.ctx, err)
	}
	status, b, err := s.readResponse(0, maxRaftAnswer)
	if err != nil {
		return n.explain(n.ctx, err)
	}
	if status == statusOngoing {
		if err := n.sendContents(s, data, args.Size); err != nil {
			return n.explain(n.ctx, err)
		}
	}
	for status == statusOngoing {
		s.conn.SetReadDeadline(time.Now().Add(stallTimeout))
		if status, b, err = s.readResponse(0, maxRaftAnswer); err != nil {
			return n.explain(n.ctx, err)
		}
	}
	return decodeResponse(b, id, resp)
}

// sendContents sends exactly size bytes of data, as they come.
func (n *Net) sendContents(s *stream, data io.Reader, size int64) error {
	buf := make([]byte, 128<<10)
	k, err := io.CopyBuffer(contentsWriter{n, s}, io.LimitReader(data, size), buf)
	if err == nil && k < size {
		err = fmt.Errorf("snapshot ends after %d of %d bytes: %w", k, size, io.ErrUnexpectedEOF)
	}
	return err
}

// contentsWriter is given up by either end when it stands still.
type contentsWriter struct {
	n *Net
	s *stream
}

func (w contentsWriter) Write(p []byte) (int, error) {
	if w.n.cfg.Stalled() {
		return 0, ErrStalled
	}
	w.s.conn.SetWriteDeadline(time.Now().Add(stallTimeout))
	return w.s.conn.Write(p)
}

// Matched returns up to which index a member has acknowledged the log of this
// member as its leader, in the term of the newest AppendEntries sent to
// anyone; zero if in that term it has not yet.
func (n *Net) Matched(id string) uint64 {
	n.mu.Lock()
	p := n.peers[id]
	n.mu.Unlock()
	if p == nil {
		return 0
	}
	return p.said.matchedIn(n.sentTerm.Load())
}

// Notify tells a member what is committed, so that it need not wait for raft
// to get round to it: one AppendEntries without entries, whose previous entry
// is the committed one. It is for the leader of that term, itself leaderID, to
// call, once per member and commit; index must be committed and of indexTerm.
//
// The notice waits until the member has acknowledged the index: often it is
// the other members' acknowledgements that made the majority. It is left out
// when an AppendEntries carries the news anyway. Per member at most one notice
// is under way and one waits, the newest. Notify never blocks and nobody hears
// of its failures.
func (n *Net) Notify(id string, term, index, indexTerm uint64, leaderID string) {
	if leaderID != n.cfg.Local().ID {
		return
	}
	p := n.peer(id)
	if p.said.notice(&raft.AppendEntriesRequest{
		RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leaderID), Addr: []byte(leaderID)},
		Term:              term,
		PrevLogEntry:      index,
		PrevLogTerm:       indexTerm,
		LeaderCommitIndex: index,
	}) {
		n.spawn(func() { n.sendNotices(p) })
	}
}

func (n *Net) sendNotices(p *peer) {
	for {
		args := p.said.nextNotice()
		if args == nil {
			return
		}
		var resp raft.AppendEntriesResponse
		if err := n.appendEntries(p, args, &resp); err != nil {
			p.said.dropNotice()
			return
		}
	}
}

// carriedSoon is for how long an AppendEntries under way is taken to be about
// to bring the news. After that it may be stuck.
const carriedSoon = 50 * time.Millisecond

// progress is what one member has been told, and has acknowledged, of this
// member's log.
type progress struct {
	mu sync.Mutex

	term    uint64 // what matched and known are about
	matched uint64 // entries acknowledged
	known   uint64 // commit index it is known to have seen

	coming      uint64 // commit index under way, in term
	comingSince time.Time

	next   *raft.AppendEntriesRequest // notice to be sent
	active bool                       // a goroutine sends notices
}

// inTermLocked makes the record one of this term. It reports false for a term gone by.
func (p *progress) inTermLocked(term uint64) bool {
	if term > p.term {
		p.term, p.matched, p.known, p.coming = term, 0, 0, 0
	}
	return term == p.term
}

func (p *progress) sending(args *raft.AppendEntriesRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inTermLocked(args.Term) && args.LeaderCommitIndex > p.coming {
		p.coming, p.comingSince = args.LeaderCommitIndex, time.Now()
	}
}

// sent records the outcome. It reports true if the caller has to start the
// goroutine that sends notices.
func (p *progress) sent(args *raft.AppendEntriesRequest, success bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.inTermLocked(args.Term) {
		return false
	}
	if args.LeaderCommitIndex == p.coming {
		p.coming = 0
	}
	if success {
		p.matched = max(p.matched, args.PrevLogEntry+uint64(len(args.Entries)))
		p.known = max(p.known, min(args.LeaderCommitIndex, p.matched))
	}
	return p.startLocked()
}

func (p *progress) matchedIn(term uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != term {
		return 0
	}
	return p.matched
}

// notice queues a notice in place of an older one. It reports true if the
// caller has to start the goroutine that sends it.
func (p *progress) notice(args *raft.AppendEntriesRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != nil && (p.next.Term > args.Term || p.next.Term == args.Term && p.next.PrevLogEntry >= args.PrevLogEntry) {
		return false
	}
	p.next = args
	return p.startLocked()
}

// startLocked reports whether there is a notice to send now and nobody does.
// If so, the caller is to start who does.
func (p *progress) startLocked() bool {
	if p.active || !p.dueLocked() {
		return false
	}
	p.active = true
	return true
}

// dueLocked reports whether the notice that waits is to be sent now. It drops
// one that the member knows of or is about to, or that is of an old term.
func (p *progress) dueLocked() bool {
	if p.next == nil || p.next.Term > p.term {
		return false
	}
	index := p.next.PrevLogEntry
	soon := p.coming >= index && time.Since(p.comingSince) < carriedSoon
	if p.next.Term < p.term || p.known >= index || soon {
		p.next = nil
		return false
	}
	return p.matched >= index
}

// nextNotice takes the notice to send. Nil means that there is none, and that
// the goroutine asking is done.
func (p *progress) nextNotice() *raft.AppendEntriesRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dueLocked() {
		p.active = false
		return nil
	}
	args := p.next
	p.next = nil
	return args
}

// dropNotice ends the sending of notices: where one failed the next fails too.
func (p *progress) dropNotice() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = nil
	p.active = false
}
