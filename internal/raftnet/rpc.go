// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-541fafe0/zk/internal/codec"
)

// The encoding of raft's requests and responses. Leaders and candidates are
// not in it, for they are whom the stream belongs to, nor are the indexes of
// entries, for they follow the previous entry's.
const (
	maxRaftFrame  = 64 << 20  // one entry must fit
	appendTarget  = 8 << 20   // entries are sent together up to here
	maxEntries    = 1024      // raft's own limit of MaxAppendEntries
	minEntry      = 12        // bytes of an empty entry
	maxConfig     = 128 << 10 // of a configuration: far more than 100 members with long names
	maxRaftAnswer = 64        // bytes of a response
)

// decodeRequest decodes what came on a stream of a member. All that it
// returns is safe to hand to raft, which takes the sender from the header and
// needs no Leader or Candidate beside it.
func decodeRequest(kind byte, b []byte, from string) (any, error) {
	r := codec.NewReader(b)
	header := raft.RPCHeader{ProtocolVersion: protocolVersion(&r), ID: []byte(from), Addr: []byte(from)}
	var req any
	var err error
	switch kind {
	case kindAppendEntries:
		a := &raft.AppendEntriesRequest{RPCHeader: header}
		err = decodeAppendEntries(&r, a)
		req = a
	case kindRequestVote:
		req = &raft.RequestVoteRequest{
			RPCHeader:          header,
			Term:               r.Uvarint(),
			LastLogIndex:       r.Uvarint(),
			LastLogTerm:        r.Uvarint(),
			LeadershipTransfer: r.Bool(),
		}
	case kindRequestPreVote:
		req = &raft.RequestPreVoteRequest{
			RPCHeader:    header,
			Term:         r.Uvarint(),
			LastLogIndex: r.Uvarint(),
			LastLogTerm:  r.Uvarint(),
		}
	case kindInstallSnapshot:
		s := &raft.InstallSnapshotRequest{RPCHeader: header}
		err = decodeInstallSnapshot(&r, s)
		req = s
	case kindTimeoutNow:
		req = &raft.TimeoutNowRequest{RPCHeader: header}
	default:
		return nil, fmt.Errorf("%w: raft request %#x", errViolation, kind)
	}
	if err == nil {
		err = r.Done()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: raft request %#x: %w", errViolation, kind, err)
	}
	return req, nil
}

// appendRequest encodes a request other than AppendEntries.
func appendRequest(b []byte, req any) ([]byte, error) {
	switch req := req.(type) {
	case *raft.RequestVoteRequest:
		b = codec.AppendUvarint(b, uint64(req.ProtocolVersion))
		b = codec.AppendUvarint(b, req.Term)
		b = codec.AppendUvarint(b, req.LastLogIndex)
		b = codec.AppendUvarint(b, req.LastLogTerm)
		return codec.AppendBool(b, req.LeadershipTransfer), nil
	case *raft.RequestPreVoteRequest:
		b = codec.AppendUvarint(b, uint64(req.ProtocolVersion))
		b = codec.AppendUvarint(b, req.Term)
		b = codec.AppendUvarint(b, req.LastLogIndex)
		return codec.AppendUvarint(b, req.LastLogTerm), nil
	case *raft.InstallSnapshotRequest:
		if req.SnapshotVersion != raft.SnapshotVersionMax || req.Size < 0 || len(req.Configuration) > maxConfig {
			return nil, fmt.Errorf("raftnet: cannot send a snapshot of version %d and size %d with a configuration of %d bytes",
				req.SnapshotVersion, req.Size, len(req.Configuration))
		}
		b = codec.AppendUvarint(b, uint64(req.ProtocolVersion))
		b = codec.AppendByte(b, byte(req.SnapshotVersion))
		b = codec.AppendUvarint(b, req.Term)
		b = codec.AppendUvarint(b, req.LastLogIndex)
		b = codec.AppendUvarint(b, req.LastLogTerm)
		b = codec.AppendBytes(b, req.Configuration)
		b = codec.AppendUvarint(b, req.ConfigurationIndex)
		return codec.AppendUvarint(b, uint64(req.Size)), nil
	case *raft.TimeoutNowRequest:
		return codec.AppendUvarint(b, uint64(req.ProtocolVersion)), nil
	}
	return nil, fmt.Errorf("raftnet: cannot send %T", req)
}

// committed is what a request with so many of its entries may say is committed:
// no more than it shows. A follower has been compared with the leader up to the
// last entry of the request, yet raft commits up to the end of the follower's
// own log, and there may be entries of a deposed leader there that nobody else
// has. A leader that has just begun can name a commit index beyond the request:
// it reads where its log ends before its first entry is stored, and what is
// committed after that entry is.
func committed(req *raft.AppendEntriesRequest, count int) uint64 {
	return min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(count))
}

// appendAppendEntries encodes a request with as many of its entries as fit
// below target, but at least one, and says how many those are.
func appendAppendEntries(b []byte, req *raft.AppendEntriesRequest, target int) ([]byte, int, error) {
	const rest = 64 // an entry's other fields, and the request's, need less
	count, size := 0, rest
	for i, e := range req.Entries {
		if e.Index != req.PrevLogEntry+1+uint64(i) {
			return nil, 0, fmt.Errorf("raftnet: entry %d follows %d", e.Index, req.PrevLogEntry+uint64(i))
		}
		more := rest + len(e.Data) + len(e.Extensions)
		if count == maxEntries || count > 0 && size+more > target {
			break
		}
		count++
		size += more
	}
	b = slices.Grow(b, size)
	b = codec.AppendUvarint(b, uint64(req.ProtocolVersion))
	b = codec.AppendUvarint(b, req.Term)
	b = codec.AppendUvarint(b, req.PrevLogEntry)
	b = codec.AppendUvarint(b, req.PrevLogTerm)
	b = codec.AppendUvarint(b, committed(req, count))
	b = codec.AppendUvarint(b, uint64(count))
	for _, e := range req.Entries[:count] {
		b = codec.AppendUvarint(b, e.Term)
		b = codec.AppendByte(b, byte(e.Type))
		b = codec.AppendUint64(b, nanos(e.AppendedAt))
		b = codec.AppendBytes(b, e.Data)
		b = codec.AppendBytes(b, e.Extensions)
	}
	if len(b) > maxRaftFrame {
		return nil, 0, fmt.Errorf("%w: log entry %d", ErrTooLarge, req.PrevLogEntry+1)
	}
	return b, count, nil
}

func decodeAppendEntries(r *codec.Reader, a *raft.AppendEntriesRequest) error {
	a.Term = r.Uvarint()
	a.PrevLogEntry = r.Uvarint()
	a.PrevLogTerm = r.Uvarint()
	a.LeaderCommitIndex = r.Uvarint()
	count := r.Count(minEntry)
	switch {
	case r.Err() != nil:
		return r.Err()
	case a.Term == 0:
		return errors.New("no term")
	case count > maxEntries, uint64(count) > math.MaxUint64-a.PrevLogEntry:
		return fmt.Errorf("%d entries after %d", count, a.PrevLogEntry)
	case a.PrevLogTerm > a.Term:
		return fmt.Errorf("previous entry of term %d in term %d", a.PrevLogTerm, a.Term)
	}
	a.LeaderCommitIndex = committed(a, count)
	if count == 0 {
		return nil
	}
	a.Entries = make([]*raft.Log, count)
	entries := make([]raft.Log, count)
	term := a.PrevLogTerm
	for i := range entries {
		e := &entries[i]
		e.Index = a.PrevLogEntry + 1 + uint64(i)
		e.Term = r.Uvarint()
		e.Type = raft.LogType(r.Byte())
		e.AppendedAt = fromNanos(r.Uint64())
		e.Data = present(r.Bytes())
		e.Extensions = present(r.Bytes())
		if r.Err() != nil {
			return r.Err()
		}
		if e.Term < term || e.Term == 0 || e.Term > a.Term {
			return fmt.Errorf("entry %d of term %d after one of term %d, in term %d", e.Index, e.Term, term, a.Term)
		}
		term = e.Term
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if err := checkConfiguration(e.Data); err != nil {
				return err
			}
		default:
			return fmt.Errorf("entry %d of type %d", e.Index, e.Type)
		}
		a.Entries[i] = e
	}
	return nil
}

func decodeInstallSnapshot(r *codec.Reader, s *raft.InstallSnapshotRequest) error {
	s.SnapshotVersion = raft.SnapshotVersion(r.Byte())
	s.Term = r.Uvarint()
	s.LastLogIndex = r.Uvarint()
	s.LastLogTerm = r.Uvarint()
	s.Configuration = r.Bytes()
	s.ConfigurationIndex = r.Uvarint()
	size := r.Uvarint()
	switch {
	case r.Err() != nil:
		return r.Err()
	case s.SnapshotVersion != raft.SnapshotVersionMax:
		return fmt.Errorf("snapshot version %d", s.SnapshotVersion)
	case s.Term == 0 || s.LastLogTerm > s.Term:
		return fmt.Errorf("snapshot of term %d in term %d", s.LastLogTerm, s.Term)
	case s.LastLogIndex == 0 || s.ConfigurationIndex > s.LastLogIndex:
		return fmt.Errorf("snapshot at index %d with a configuration of %d", s.LastLogIndex, s.ConfigurationIndex)
	case size > math.MaxInt64:
		return fmt.Errorf("snapshot of %d bytes", size)
	}
	s.Size = int64(size)
	return checkConfiguration(s.Configuration)
}

// checkConfiguration refuses what raft would choke on, now or when it looks
// for a quorum in it.
func checkConfiguration(b []byte) (err error) {
	if len(b) > maxConfig {
		return fmt.Errorf("configuration of %d bytes", len(b))
	}
	defer func() {
		if p := recover(); p != nil { // how DecodeConfiguration reports errors
			err = fmt.Errorf("%v", p)
		}
	}()
	voters := 0
	seen := make(map[raft.ServerID]bool)
	for _, m := range raft.DecodeConfiguration(b).Servers {
		switch {
		case m.ID == "" || len(m.ID) > maxIdentityString || m.Address == "" || len(m.Address) > maxIdentityString:
			return fmt.Errorf("configuration with member %.32q at %.32q", m.ID, m.Address)
		case m.Suffrage != raft.Voter && m.Suffrage != raft.Nonvoter:
			return fmt.Errorf("configuration with suffrage %d", m.Suffrage)
		case seen[m.ID]:
			return fmt.Errorf("configuration with member %q twice", m.ID)
		}
		seen[m.ID] = true
		if m.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("configuration without voters")
	}
	return nil
}

// appendResponse encodes what raft answered.
func appendResponse(b []byte, resp any) ([]byte, error) {
	switch resp := resp.(type) {
	case *raft.AppendEntriesResponse:
		b = codec.AppendUvarint(b, uint64(resp.ProtocolVersion))
		b = codec.AppendUvarint(b, resp.Term)
		b = codec.AppendUvarint(b, resp.LastLog)
		b = codec.AppendBool(b, resp.Success)
		return codec.AppendBool(b, resp.NoRetryBackoff), nil
	case *raft.RequestVoteResponse:
		b = codec.AppendUvarint(b, uint64(resp.ProtocolVersion))
		b = codec.AppendUvarint(b, resp.Term)
		return codec.AppendBool(b, resp.Granted), nil
	case *raft.RequestPreVoteResponse:
		b = codec.AppendUvarint(b, uint64(resp.ProtocolVersion))
		b = codec.AppendUvarint(b, resp.Term)
		return codec.AppendBool(b, resp.Granted), nil
	case *raft.InstallSnapshotResponse:
		b = codec.AppendUvarint(b, uint64(resp.ProtocolVersion))
		b = codec.AppendUvarint(b, resp.Term)
		return codec.AppendBool(b, resp.Success), nil
	case *raft.TimeoutNowResponse:
		return codec.AppendUvarint(b, uint64(resp.ProtocolVersion)), nil
	}
	return nil, fmt.Errorf("raftnet: cannot answer with %T", resp)
}

// decodeResponse decodes into resp what a member answered. An error leaves
// resp as it is.
func decodeResponse(b []byte, from string, resp any) error {
	r := codec.NewReader(b)
	header := raft.RPCHeader{ProtocolVersion: protocolVersion(&r), ID: []byte(from), Addr: []byte(from)}
	var set func()
	switch resp := resp.(type) {
	case *raft.AppendEntriesResponse:
		got := raft.AppendEntriesResponse{RPCHeader: header, Term: r.Uvarint(), LastLog: r.Uvarint(), Success: r.Bool(), NoRetryBackoff: r.Bool()}
		set = func() { *resp = got }
	case *raft.RequestVoteResponse:
		got := raft.RequestVoteResponse{RPCHeader: header, Term: r.Uvarint(), Granted: r.Bool()}
		set = func() { *resp = got }
	case *raft.RequestPreVoteResponse:
		got := raft.RequestPreVoteResponse{RPCHeader: header, Term: r.Uvarint(), Granted: r.Bool()}
		set = func() { *resp = got }
	case *raft.InstallSnapshotResponse:
		got := raft.InstallSnapshotResponse{RPCHeader: header, Term: r.Uvarint(), Success: r.Bool()}
		set = func() { *resp = got }
	case *raft.TimeoutNowResponse:
		got := raft.TimeoutNowResponse{RPCHeader: header}
		set = func() { *resp = got }
	default:
		return fmt.Errorf("raftnet: cannot receive %T", resp)
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: raft response: %w", errViolation, err)
	}
	set()
	return nil
}

// protocolVersion reads raft's own version number. Raft decides which ones it
// takes; here it only has to be a number.
func protocolVersion(r *codec.Reader) raft.ProtocolVersion {
	return raft.ProtocolVersion(min(r.Uvarint(), math.MaxInt16))
}

// nanos encodes a time, with zero for the zero time. Of times further from
// 1970 than 292 years not much is left; raft uses them for information only.
func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func fromNanos(x uint64) time.Time {
	if x == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(x)).UTC()
}

// present makes no bytes nil, as raft's own entries have it.
func present(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	return p
}
