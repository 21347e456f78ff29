// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"errors"

	"github.com/seed-541fafe0/zk/internal/codec"
)

// What a log entry holds. The first byte says which kind of command it is, the second the format version.
//
//	frame: requests of one member, numbered, so that each takes effect exactly once
//	epoch: the first command of each leadership
const (
	commandFrame = 1
	commandEpoch = 2

	// formatVersion is the newest command and snapshot format this build writes and reads. A member that meets
	// a newer one stops: what it would skip, the others apply.
	formatVersion = 1
)

// Bounds on one log entry (docs/design.md, D9).
const (
	maxFrameRequests = 512
	maxFrameBytes    = 256 << 10 // a larger request travels alone
	maxEntryBytes    = 2 << 20
	maxSessionName   = 256
)

var errFormat = errors.New("command of an unknown format: a newer release of this module is needed")

// stamp is what the leader adds to a command when it proposes it; it rides in raft's Extensions.
type stamp struct {
	now     int64 // milliseconds
	quota   bool  // hard quotas are enforced (DM-74)
	noTTL   bool  // TTL znodes are refused (DM-20)
	feature uint64
	check   checkpoint // the leader's newest: members with another digest at that zxid stop

	term uint64 // of the log entry; not encoded
}

// checkpoint is the tree's digest after a certain request.
type checkpoint struct {
	zxid Zxid
	sum  uint64
}

const (
	stampQuota = 1 << iota
	stampNoTTL
)

func appendStamp(b []byte, s stamp) []byte {
	var flags byte
	if s.quota {
		flags |= stampQuota
	}
	if s.noTTL {
		flags |= stampNoTTL
	}
	b = codec.AppendByte(b, formatVersion)
	b = codec.AppendVarint(b, s.now)
	b = codec.AppendByte(b, flags)
	b = codec.AppendUvarint(b, s.feature)
	b = codec.AppendVarint(b, int64(s.check.zxid))
	return codec.AppendUint64(b, s.check.sum)
}

func readStamp(b []byte) (s stamp, err error) {
	r := codec.NewReader(b)
	if v := r.Byte(); r.Err() == nil && v != formatVersion {
		return s, errFormat
	}
	s.now = r.Varint()
	flags := r.Byte()
	s.quota, s.noTTL = flags&stampQuota != 0, flags&stampNoTTL != 0
	s.feature = r.Uvarint()
	s.check = checkpoint{Zxid(r.Varint()), r.Uint64()}
	if s.feature > formatVersion {
		return s, errFormat
	}
	return s, r.Done()
}

// frame is a pack of requests from one member. Frames are numbered per origin, that is per incarnation of a
// member, and the state applies each number once and in order (P3, P4).
type frame struct {
	origin      string
	incarnation uint64
	number      uint64
	acked       uint64 // the origin has the results of all frames up to this one
	requests    [][]byte
}

func appendFrame(b []byte, f *frame) []byte {
	b = append(b, commandFrame, formatVersion)
	b = codec.AppendString(b, f.origin)
	b = codec.AppendUvarint(b, f.incarnation)
	b = codec.AppendUvarint(b, f.number)
	b = codec.AppendUvarint(b, f.acked)
	b = codec.AppendUvarint(b, uint64(len(f.requests)))
	for _, q := range f.requests {
		b = codec.AppendBytes(b, q)
	}
	return b
}

// readFrame decodes all but the requests, which alias b.
func readFrame(b []byte) (f frame, err error) {
	r := codec.NewReader(b)
	if kind, v := r.Byte(), r.Byte(); r.Err() == nil && (kind != commandFrame || v != formatVersion) {
		return f, errFormat
	}
	f.origin, f.incarnation, f.number, f.acked = r.String(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	n := r.Count(1)
	if n > maxFrameRequests {
		return f, errors.New("frame of too many requests")
	}
	f.requests = make([][]byte, 0, n)
	for range n {
		f.requests = append(f.requests, r.Bytes())
	}
	return f, r.Done()
}

// memberRecord is what the state knows of a member besides raft's configuration.
type memberRecord struct {
	id      string
	storage string // random id of its storage: a recorded member may not return with another (D27)
	addr    string // what it last announced
	removed bool   // it left the configuration
	client  string // where it serves clients, as it last said
}

func appendMember(b []byte, m memberRecord) []byte {
	b = codec.AppendString(b, m.id)
	b = codec.AppendString(b, m.storage)
	b = codec.AppendString(b, m.addr)
	b = codec.AppendBool(b, m.removed)
	return codec.AppendString(b, m.client)
}

func readMember(r *codec.Reader) memberRecord {
	return memberRecord{r.String(), r.String(), r.String(), r.Bool(), r.String()}
}

// epoch opens a leadership. The first one ever fixes the ensemble's id and its members' storages.
type epoch struct {
	cluster string
	members []memberRecord
}

func appendEpoch(b []byte, e *epoch) []byte {
	b = append(b, commandEpoch, formatVersion)
	b = codec.AppendString(b, e.cluster)
	b = codec.AppendUvarint(b, uint64(len(e.members)))
	for _, m := range e.members {
		b = appendMember(b, m)
	}
	return b
}

func readEpoch(b []byte) (e epoch, err error) {
	r := codec.NewReader(b)
	if kind, v := r.Byte(), r.Byte(); r.Err() == nil && (kind != commandEpoch || v != formatVersion) {
		return e, errFormat
	}
	e.cluster = r.String()
	e.members = make([]memberRecord, 0, r.Count(5))
	for range cap(e.members) {
		e.members = append(e.members, readMember(&r))
	}
	return e, r.Done()
}

type requestKind uint8

const (
	reqTxn     requestKind = iota + 1
	reqOpen                // a session
	reqClose               // by its owner
	reqExpire              // by the leader
	reqKill                // by an operator: it will be expired
	reqAttach              // take a session over, here or elsewhere
	reqAuth                // add identities to a session
	reqReap                // a container or a TTL znode, by the leader
	reqMember              // record a member's storage and address
	reqClients             // record where the member that asks serves clients
	reqPart                // a part of a backup, in order
	reqRestore             // let the backup whose parts came before take effect
	reqAbandon             // forget those parts
	reqLocal               // a transaction of a session that its member alone knows
)

// request is one write: a transaction, or a change to a session or to the list of members.
type request struct {
	kind    requestKind
	session SessionID // reqOpen: the id that a local session has already; 0 for a new one
	mark    Zxid      // the session's owner mark as the sender knows it (SS-18)

	ops []Op // reqTxn, reqLocal

	timeout  int64 // reqOpen, reqAttach: milliseconds
	password string
	name     string
	ids      []Identity // reqOpen, reqAttach, reqAuth, reqLocal
	limit    int64      // reqOpen: ephemerals the session may own

	term  uint64 // reqExpire, reqReap: the leadership that asks
	path  string // reqReap
	token Token  // reqReap

	member memberRecord // reqMember
	addr   string       // reqClients

	restore uint64 // reqPart, reqRestore, reqAbandon: which one
	number  uint64 // reqPart: of parts before it; reqRestore: of all
	data    string // reqPart
}

func appendRequest(b []byte, q *request) []byte {
	b = codec.AppendByte(b, byte(q.kind))
	b = codec.AppendUvarint(b, uint64(q.session))
	b = codec.AppendUvarint(b, uint64(q.mark))
	switch q.kind {
	case reqTxn:
		b = appendOps(b, q.ops)
	case reqLocal:
		b = appendOps(appendIdentities(b, q.ids), q.ops)
	case reqOpen, reqAttach:
		b = codec.AppendVarint(b, q.timeout)
		b = codec.AppendString(b, q.password)
		b = codec.AppendString(b, q.name)
		b = appendIdentities(b, q.ids)
		b = codec.AppendVarint(b, q.limit)
	case reqAuth:
		b = appendIdentities(b, q.ids)
	case reqExpire:
		b = codec.AppendUvarint(b, q.term)
	case reqReap:
		b = codec.AppendUvarint(b, q.term)
		b = codec.AppendString(b, q.path)
		b = codec.AppendVarint(b, int64(q.token))
	case reqMember:
		b = appendMember(b, q.member)
	case reqClients:
		b = codec.AppendString(b, q.addr)
	case reqPart, reqRestore, reqAbandon:
		b = codec.AppendUint64(b, q.restore)
		b = codec.AppendUvarint(b, q.number)
		b = codec.AppendString(b, q.data)
	}
	return b
}

func appendOps(b []byte, ops []Op) []byte {
	b = codec.AppendUvarint(b, uint64(len(ops)))
	for i := range ops {
		b = appendOp(b, &ops[i])
	}
	return b
}

func readRequest(b []byte) (q request, ok bool) {
	r := codec.NewReader(b)
	q.kind, q.session, q.mark = requestKind(r.Byte()), SessionID(r.Uvarint()), Zxid(r.Uvarint())
	switch q.kind {
	case reqTxn, reqLocal:
		if q.kind == reqLocal {
			q.ids = readIdentities(&r)
		}
		q.ops = make([]Op, 0, r.Count(2))
		for range cap(q.ops) {
			o, ok := readOp(&r)
			if !ok {
				return q, false
			}
			q.ops = append(q.ops, o)
		}
	case reqOpen, reqAttach:
		q.timeout, q.password, q.name = r.Varint(), r.String(), r.String()
		q.ids = readIdentities(&r)
		q.limit = r.Varint()
		if q.timeout <= 0 || q.limit < 0 {
			return q, false
		}
	case reqAuth:
		q.ids = readIdentities(&r)
	case reqClose, reqKill:
	case reqExpire:
		q.term = r.Uvarint()
	case reqReap:
		q.term, q.path, q.token = r.Uvarint(), r.String(), Token(r.Varint())
	case reqMember:
		q.member = readMember(&r)
	case reqClients:
		q.addr = r.String()
	case reqPart, reqRestore, reqAbandon:
		q.restore, q.number, q.data = r.Uint64(), r.Uvarint(), r.String()
	default:
		return q, false
	}
	return q, r.Done() == nil
}
