// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"

	"github.com/seed-541fafe0/zk"
)

// opcode says what a request asks for (section 4 of docs/spec/wire-protocol.md).
type opcode int32

const (
	opError           opcode = -1
	opCreate          opcode = 1
	opDelete          opcode = 2
	opExists          opcode = 3
	opGetData         opcode = 4
	opSetData         opcode = 5
	opGetACL          opcode = 6
	opSetACL          opcode = 7
	opGetChildren     opcode = 8
	opSync            opcode = 9
	opPing            opcode = 11
	opGetChildren2    opcode = 12
	opCheck           opcode = 13
	opMulti           opcode = 14
	opCreate2         opcode = 15
	opReconfig        opcode = 16
	opCheckWatches    opcode = 17
	opRemoveWatches   opcode = 18
	opCreateContainer opcode = 19
	opCreateTTL       opcode = 21
	opMultiRead       opcode = 22
	opAuth            opcode = 100
	opSetWatches      opcode = 101
	opSASL            opcode = 102
	opGetEphemerals   opcode = 103
	opCountChildren   opcode = 104
	opSetWatches2     opcode = 105
	opAddWatch        opcode = 106
	opWhoAmI          opcode = 107
	opCreateSession   opcode = -10 // in the word cons alone: clients connect without a header
	opCloseSession    opcode = -11
)

// The xids that mean something (WP-22).
const (
	xidEvent      int32 = -1
	xidPing       int32 = -2
	xidAuth       int32 = -4
	xidSetWatches int32 = -8
)

// Flags of CreateRequest (section 2 of docs/spec/data-model.md).
const (
	flagPersistent           int32 = 0
	flagEphemeral            int32 = 1
	flagSequential           int32 = 2
	flagEphemeralSequential  int32 = 3
	flagContainer            int32 = 4
	flagPersistentTTL        int32 = 5
	flagPersistentSequentTTL int32 = 6
)

const passwordSize = 16

// connectRequest is the first frame of a client (WP-10).
type connectRequest struct {
	version  int32
	lastZxid int64
	timeout  int32 // milliseconds
	session  int64
	password []byte
	readOnly bool
	hasRO    bool // the readOnly byte is there: clients up to 3.3 do not send it (WP-11)
}

func (r *connectRequest) append(b []byte) []byte {
	b = appendInt(b, r.version)
	b = appendLong(b, r.lastZxid)
	b = appendInt(b, r.timeout)
	b = appendLong(b, r.session)
	b = appendBuffer(b, r.password)
	if r.hasRO {
		b = appendBool(b, r.readOnly)
	}
	return b
}

func (r *connectRequest) decode(d *decoder) error {
	r.version, r.lastZxid, r.timeout, r.session = d.int(), d.long(), d.int(), d.long()
	r.password = d.buffer()
	if r.hasRO = d.err == nil && len(d.b) > 0; r.hasRO {
		r.readOnly = d.bool()
	}
	return d.err
}

// connectResponse is the first frame of a server. The zero value, with a zero password, refuses a session (WP-14).
type connectResponse struct {
	timeout  int32 // milliseconds
	session  int64
	password []byte
	readOnly bool
	hasRO    bool
}

func (r *connectResponse) append(b []byte) []byte {
	b = appendInt(b, 0)
	b = appendInt(b, r.timeout)
	b = appendLong(b, r.session)
	b = appendBuffer(b, r.password)
	if r.hasRO {
		b = appendBool(b, r.readOnly)
	}
	return b
}

func (r *connectResponse) decode(d *decoder) error {
	d.int()
	r.timeout, r.session, r.password = d.int(), d.long(), d.buffer()
	if r.hasRO = d.err == nil && len(d.b) > 0; r.hasRO {
		r.readOnly = d.bool()
	}
	return d.err
}

type requestHeader struct {
	xid int32
	op  opcode
}

func (h requestHeader) append(b []byte) []byte { return appendInt(appendInt(b, h.xid), int32(h.op)) }

func (h *requestHeader) decode(d *decoder) { h.xid, h.op = d.int(), opcode(d.int()) }

type replyHeader struct {
	xid  int32
	zxid int64
	code zk.Code
}

const replyHeaderSize = 16

func (h replyHeader) append(b []byte) []byte {
	return appendInt(appendLong(appendInt(b, h.xid), h.zxid), int32(h.code))
}

func (h *replyHeader) decode(d *decoder) { h.xid, h.zxid, h.code = d.int(), d.long(), zk.Code(d.int()) }

// createRequest is the body of create, create2, createContainer and, with a ttl, of createTTL.
type createRequest struct {
	path  string
	data  []byte // nil is null
	acl   []zk.ACL
	flags int32
	ttl   int64 // milliseconds
}

func (r *createRequest) append(b []byte, op opcode) []byte {
	b = appendBuffer(appendString(b, r.path), r.data)
	b = appendInt(appendACL(b, r.acl), r.flags)
	if op == opCreateTTL {
		b = appendLong(b, r.ttl)
	}
	return b
}

func (r *createRequest) decode(d *decoder, op opcode) {
	r.path, r.data, r.acl, r.flags = d.string(), d.buffer(), d.acl(), d.int()
	if op == opCreateTTL {
		r.ttl = d.long()
	}
}

// multiHeader goes before each step of a multi and ends it (section 5).
type multiHeader struct {
	op   opcode
	done bool
	code zk.Code
}

var multiEnd = multiHeader{opError, true, -1}

func (h multiHeader) append(b []byte) []byte {
	return appendInt(appendBool(appendInt(b, int32(h.op)), h.done), int32(h.code))
}

func (h *multiHeader) decode(d *decoder) {
	h.op, h.done, h.code = opcode(d.int()), d.bool(), zk.Code(d.int())
}

// watcherEvent is the body of a frame with xid -1.
type watcherEvent struct {
	kind  int32
	state int32
	path  string
}

// stateConnected is the only state a server puts into an event of a znode (WP-22).
const stateConnected int32 = 3

func (e *watcherEvent) append(b []byte) []byte {
	return appendString(appendInt(appendInt(b, e.kind), e.state), e.path)
}

func (e *watcherEvent) decode(d *decoder) { e.kind, e.state, e.path = d.int(), d.int(), d.string() }

// event turns what the protocol calls a change into ours; types that concern the session are none.
func (e *watcherEvent) event(zxid int64) (zk.Event, bool) {
	t, ok := map[int32]zk.EventType{1: zk.EventCreated, 2: zk.EventDeleted, 3: zk.EventChanged, 4: zk.EventChildren}[e.kind]
	return zk.Event{Type: t, Path: e.path, Zxid: zk.Zxid(zxid)}, ok
}

// eventKind is the number of an event's type in the protocol.
func eventKind(t zk.EventType) int32 {
	switch t {
	case zk.EventCreated:
		return 1
	case zk.EventDeleted:
		return 2
	case zk.EventChanged:
		return 3
	case zk.EventChildren:
		return 4
	}
	return -1
}

// errFrameTooLarge ends a connection: the stream cannot be followed any more (WP-2).
var errFrameTooLarge = errors.New("wire: frame exceeds the limit")
