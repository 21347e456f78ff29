// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"slices"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// kind says how a request goes through its connection.
type kind uint8

const (
	kindPlain kind = iota // neither looks at the state nor changes it
	kindRead              // runs when its turn comes; later writes wait for it
	kindWrite             // is handed to the member ahead of its turn
)

// request is one request of a client, decoded.
type request struct {
	xid  int32
	op   opcode
	kind kind
	last bool    // nothing after it is looked at
	code zk.Code // if not 0, the whole answer
	size int     // of its frame
	at   time.Time
	ops  []zk.Op  // of a write
	call *zk.Call // of a write that was handed over

	path   string
	number int32 // a version, a type of watch, a mode
	watch  bool
	body   any // what few requests have
}

// operation is what the server knows of an opcode.
type operation struct {
	name   string // in the word cons (WP-65)
	kind   kind
	last   bool
	slow   bool // it waits for others: what can be sent is sent before
	decode func(d *decoder, r *request)

	// read runs a request and appends the body of its answer. The zxid is that of the state it looked at, 0 if it
	// did not.
	read func(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error)

	// wrote appends the body of the answer to a write that was applied.
	wrote func(b []byte, r *request, results []zk.Result) []byte
}

// operations is the table of section 4 of docs/spec/wire-protocol.md. What is not in it is answered with -6, and the
// connection is closed: check outside of multi, deleteContainer, the internal ones (WP-23, DM-44, DM-53).
var operations = map[opcode]*operation{
	opPing:            {name: "PING", read: answerPing},
	opCreate:          {name: "CREA", kind: kindWrite, decode: decodeCreate, wrote: appendPath},
	opCreate2:         {name: "CREA", kind: kindWrite, decode: decodeCreate, wrote: appendPathStat},
	opCreateContainer: {name: "CREA", kind: kindWrite, decode: decodeCreate, wrote: appendPathStat},
	opCreateTTL:       {name: "CREA", kind: kindWrite, decode: decodeCreate, wrote: appendPathStat},
	opDelete:          {name: "DELE", kind: kindWrite, decode: decodeDelete},
	opSetData:         {name: "SETD", kind: kindWrite, decode: decodeSetData, wrote: appendResultStat},
	opSetACL:          {name: "SETA", kind: kindWrite, decode: decodeSetACL, wrote: appendResultStat},
	opMulti:           {name: "MULT", kind: kindWrite, decode: decodeMulti},
	opExists:          {name: "EXIS", kind: kindRead, decode: decodePathWatch, read: answerExists},
	opGetData:         {name: "GETD", kind: kindRead, decode: decodePathWatch, read: answerGetData},
	opGetACL:          {name: "GETA", kind: kindRead, decode: decodePath, read: answerGetACL},
	opGetChildren:     {name: "GETC", kind: kindRead, decode: decodePathWatch, read: answerGetChildren},
	opGetChildren2:    {name: "GETC", kind: kindRead, decode: decodePathWatch, read: answerGetChildren},
	opCountChildren:   {name: "GETACN", kind: kindRead, decode: decodePath, read: answerCountChildren},
	opGetEphemerals:   {name: "GETE", kind: kindRead, decode: decodePrefix, read: answerGetEphemerals},
	opMultiRead:       {name: "MLTR", kind: kindRead, decode: decodeMultiRead, read: answerMultiRead},
	opSync:            {name: "SYNC", kind: kindRead, slow: true, decode: decodePath, read: answerSync},
	opAddWatch:        {name: "ADDW", kind: kindRead, decode: decodeAddWatch, read: answerAddWatch},
	opCheckWatches:    {name: "CHKW", kind: kindRead, decode: decodePathNumber, read: answerCheckWatches},
	opRemoveWatches:   {name: "REMW", kind: kindRead, decode: decodePathNumber, read: answerRemoveWatches},
	opSetWatches:      {name: "SETW", kind: kindRead, decode: decodeSetWatches, read: answerSetWatches},
	opSetWatches2:     {name: "STW2", kind: kindRead, decode: decodeSetWatches, read: answerSetWatches},
	opAuth:            {name: "NA", kind: kindRead, slow: true, decode: decodeAuth, read: answerAuth},
	opSASL:            {name: "NA", read: answerSASL},
	opWhoAmI:          {name: "HOMI", kind: kindRead, read: answerWhoAmI},
	opReconfig:        {name: "RECO", kind: kindRead, slow: true, decode: decodeReconfig, read: answerReconfig},
	opCloseSession:    {name: "CLOS", kind: kindRead, slow: true, last: true, read: answerClose},
}

// decodeRequest reads a frame of at least 8 bytes. What it cannot make sense of it answers by itself: an unknown
// opcode with -6, a bad body with -5 (WP-5, WP-6, WP-23). Bytes after the body are ignored.
func decodeRequest(frame []byte) (r request) {
	d := decoder{b: frame}
	var h requestHeader
	h.decode(&d)
	r.xid, r.op, r.size = h.xid, h.op, len(frame)
	if r.op == opPing {
		r.xid = xidPing // WP-22
	}
	o := operations[r.op]
	if o == nil {
		r.code, r.last = zk.ErrUnimplemented, true
		return r
	}
	r.kind, r.last = o.kind, o.last
	if o.decode == nil {
		return r
	}
	o.decode(&d, &r)
	if d.err != nil {
		return request{xid: r.xid, op: r.op, size: r.size, code: zk.ErrMarshalling}
	}
	return r
}

// ephemeral tells whether a write asks for an ephemeral in one of the ways that upgrade a local session (SS-23, DM-67).
func (r *request) ephemeral() bool {
	switch r.op {
	case opCreate, opCreate2, opMulti:
		return slices.ContainsFunc(r.ops, func(o zk.Op) bool { return o.Mode()&zk.Ephemeral != 0 })
	}
	return false
}

func decodePath(d *decoder, r *request) { r.path = d.string() }

func decodePathWatch(d *decoder, r *request) { r.path, r.watch = d.string(), d.bool() }

func decodePathNumber(d *decoder, r *request) { r.path, r.number = d.string(), d.int() }

func decodePrefix(d *decoder, r *request) {
	if r.path = d.nullable(); strings.TrimSpace(r.path) == "" { // DM-49
		r.path = ""
	}
}

func decodeAddWatch(d *decoder, r *request) {
	if decodePathNumber(d, r); r.number != 0 && r.number != 1 { // WT-5
		d.fail()
	}
}

// unknownMode is a mode that the replicated state refuses first of all (DM-17).
const unknownMode = zk.CreateMode(1 << 15)

// maxTTL is 2^40 ms: more than any TTL may be (DM-19).
const maxTTL = 1 << 40

// createOp makes a step of a create. Which combinations are refused, and how, is in DM-17 to DM-22.
func createOp(q *createRequest, op opcode) zk.Op {
	mode, ttl := unknownMode, int64(-1)
	switch q.flags {
	case flagPersistent:
		mode = zk.Persistent
	case flagEphemeral:
		mode = zk.Ephemeral
	case flagSequential:
		mode = zk.Sequential
	case flagEphemeralSequential:
		mode = zk.Ephemeral | zk.Sequential
	case flagPersistentTTL, flagPersistentSequentTTL:
		if mode = zk.Persistent; q.flags == flagPersistentSequentTTL {
			mode = zk.Sequential
		}
		ttl = 0 // no TTL, where one is needed
	}
	switch {
	case op == opCreateContainer:
		if mode = unknownMode; q.flags == flagPersistent || q.flags == flagContainer {
			mode = zk.Container
		}
		ttl = -1
	case op == opCreateTTL && ttl == 0:
		ttl = min(max(q.ttl, 0), maxTTL)
	case op == opCreateTTL && q.ttl >= 0:
		mode = unknownMode
	}
	o := zk.OpCreate(q.path, q.data, mode).WithACL(q.acl...)
	if ttl >= 0 {
		o = o.WithTTL(time.Duration(ttl) * time.Millisecond)
	}
	return o
}

func decodeCreate(d *decoder, r *request) {
	var q createRequest
	q.decode(d, r.op)
	r.ops = []zk.Op{createOp(&q, r.op)}
}

func decodeDelete(d *decoder, r *request) {
	path, version := d.string(), d.int()
	r.ops = []zk.Op{zk.OpDelete(path, version)}
}

func decodeSetData(d *decoder, r *request) {
	path, data, version := d.string(), d.buffer(), d.int()
	r.ops = []zk.Op{zk.OpSet(path, data, version)}
}

func decodeSetACL(d *decoder, r *request) {
	path, acl, version := d.string(), d.acl(), d.int()
	r.ops = []zk.Op{zk.OpSetACL(path, acl, version)}
}

// watchSet is the body of setWatches and setWatches2.
type watchSet struct {
	since zk.Zxid
	set   zk.WatchSet
}

func decodeSetWatches(d *decoder, r *request) {
	w := watchSet{since: zk.Zxid(d.long())}
	w.set.Data, w.set.Exist, w.set.Child = d.strings(), d.strings(), d.strings()
	if r.op == opSetWatches2 {
		w.set.Persistent, w.set.Recursive = d.strings(), d.strings()
	}
	r.body = &w
}

// authPacket is the body of auth.
type authPacket struct {
	scheme string
	data   []byte
}

func decodeAuth(d *decoder, r *request) {
	d.int() // its type means nothing (WP-41)
	a := authPacket{scheme: d.nullable()}
	a.data = append(a.data, d.buffer()...)
	r.body = &a
}

// reconfigRequest is the body of reconfig.
type reconfigRequest struct {
	joining, leaving, members string
	version                   int64
}

func decodeReconfig(d *decoder, r *request) {
	r.body = &reconfigRequest{d.nullable(), d.nullable(), d.nullable(), d.long()}
}

func appendPath(b []byte, _ *request, results []zk.Result) []byte {
	return appendString(b, results[0].Path)
}

func appendPathStat(b []byte, _ *request, results []zk.Result) []byte {
	return appendStat(appendString(b, results[0].Path), results[0].Stat)
}

func appendResultStat(b []byte, _ *request, results []zk.Result) []byte {
	return appendStat(b, results[0].Stat)
}
