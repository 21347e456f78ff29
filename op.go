// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"strconv"

	"github.com/seed-541fafe0/zk/internal/codec"
)

// Zxid orders every write of the ensemble: the replicated state's own counter, one per write request, failed
// ones too (DM-37). It never repeats and never goes back, not even over a restore from a backup.
type Zxid int64

// String prints the id as ZooKeeper does, 0x and lower-case hex.
func (z Zxid) String() string { return "0x" + strconv.FormatUint(uint64(z), 16) }

// Token is the zxid that created a znode, used as a fencing token: among the holders of one right it strictly
// increases for ever (HELD-S2).
type Token int64

// SessionID names a session. It is unique in the ensemble for ever and never 0 (SS-1).
type SessionID int64

// String prints the id as ZooKeeper does, 0x and lower-case hex.
func (id SessionID) String() string { return "0x" + strconv.FormatUint(uint64(id), 16) }

// CreateMode is a set of properties of a znode to be created.
type CreateMode uint16

// Modes can be combined: Ephemeral|Sequential|Parents. Container combines with Parents alone.
const (
	Persistent CreateMode = 0
	Ephemeral  CreateMode = 1 << (iota - 1) // goes with its session
	Sequential                              // a number from the parent is appended to the name (DM-25)
	Container                               // goes once it has lost its last child (DM-81)
	Parents                                 // missing parents are created as containers, in the same transaction
)

// String names the mode.
func (m CreateMode) String() string {
	s := ""
	for _, n := range [...]struct {
		bit  CreateMode
		name string
	}{{Ephemeral, "ephemeral"}, {Sequential, "sequential"}, {Container, "container"}, {Parents, "parents"}} {
		if m&n.bit != 0 {
			if s != "" {
				s += "|"
			}
			s += n.name
			m &^= n.bit
		}
	}
	switch {
	case m != 0:
		return "mode " + strconv.Itoa(int(m))
	case s == "":
		return "persistent"
	}
	return s
}

// AnyVersion, given as a version, matches every version.
const AnyVersion int32 = -1

// maxTTL is the longest time to live, 2^40-1 ms (DM-19).
const maxTTL = 1<<40 - 1

// Cmp compares a count with a bound.
type Cmp uint8

// The comparisons of OpCheckChildren.
const (
	Less Cmp = iota
	LessEq
	Equal
	GreaterEq
	Greater
)

// String returns the operator.
func (c Cmp) String() string {
	if int(c) < 5 {
		return [...]string{"<", "<=", "==", ">=", ">"}[c]
	}
	return "cmp " + strconv.Itoa(int(c))
}

func (c Cmp) holds(a, b int64) bool {
	switch c {
	case Less:
		return a < b
	case LessEq:
		return a <= b
	case Equal:
		return a == b
	case GreaterEq:
		return a >= b
	}
	return a > b
}

type opKind uint8

const (
	opCreate opKind = iota + 1
	opSet
	opDelete
	opCheck
	opCheckCreated
	opCheckAbsent
	opCheckChildren
	opSetACL
	opDeleteTree
)

// Op is one step of a transaction. Build it with the functions below; the zero Op is invalid. An Op is a plain
// value and may be used again.
type Op struct {
	kind    opKind
	cmp     Cmp
	null    bool // data is null, which is distinct from empty (DM-24)
	hasTTL  bool
	mode    CreateMode
	version int32
	path    string
	data    string
	token   Token
	n       int64 // children, or the time to live in milliseconds
	acl     []ACL
}

// OpCreate creates a znode (DM-40). Data is copied; nil is stored as null. The default ACL is OpenACL.
func OpCreate(path string, data []byte, mode CreateMode) Op {
	return Op{kind: opCreate, path: path, data: string(data), null: data == nil, mode: mode}
}

// OpSet replaces a znode's data if its version is the one given, or AnyVersion (DM-42).
func OpSet(path string, data []byte, version int32) Op {
	return Op{kind: opSet, path: path, data: string(data), null: data == nil, version: version}
}

// OpDelete removes a childless znode if its version is the one given, or AnyVersion (DM-41).
func OpDelete(path string, version int32) Op { return Op{kind: opDelete, path: path, version: version} }

// OpCheck fails the transaction unless the znode exists with that version, or AnyVersion (DM-44).
func OpCheck(path string, version int32) Op { return Op{kind: opCheck, path: path, version: version} }

// OpCheckCreated fails the transaction with ErrGuard unless the znode exists and was created at t: the
// incarnation somebody has seen is still the one that is there.
func OpCheckCreated(path string, t Token) Op { return Op{kind: opCheckCreated, path: path, token: t} }

// OpCheckAbsent fails the transaction with ErrGuard if the znode exists.
func OpCheckAbsent(path string) Op { return Op{kind: opCheckAbsent, path: path} }

// OpCheckChildren fails the transaction with ErrGuard unless the znode's number of children compares so with n.
// A missing znode has none.
func OpCheckChildren(path string, cmp Cmp, n int) Op {
	return Op{kind: opCheckChildren, path: path, cmp: cmp, n: int64(n)}
}

// OpSetACL replaces a znode's access control list if its aversion is the one given, or AnyVersion (DM-43).
func OpSetACL(path string, acl []ACL, version int32) Op {
	return Op{kind: opSetACL, path: path, version: version, acl: append([]ACL{}, acl...)}
}

// withTTL gives a create a time to live in milliseconds (DM-82).
func (o Op) withTTL(ms int64) Op {
	o.n, o.hasTTL = ms, true
	return o
}

// WithACL gives a create its access control list.
func (o Op) WithACL(acl ...ACL) Op {
	o.acl = append([]ACL{}, acl...)
	return o
}

// Path returns the path the step is about.
func (o Op) Path() string { return o.path }

// Name says what the step does: "create", "set", "delete", "check", "check created", "check absent", "check children"
// or "set acl"; "op" for the zero Op.
func (o Op) Name() string { return o.name() }

// Mode returns the mode of a create.
func (o Op) Mode() CreateMode { return o.mode }

// Data returns a copy of what a create or a set writes: nil for null, and for all other steps.
func (o Op) Data() []byte {
	if o.null || o.kind != opCreate && o.kind != opSet {
		return nil
	}
	return []byte(o.data)
}

// AppendText appends everything that makes up the step, as one line that is the same in all versions of this package: for
// checksums, and for comparing. It never fails. It has the data in it, so it is not for logs.
func (o Op) AppendText(b []byte) ([]byte, error) {
	b = append(b, o.name()...)
	b = strconv.AppendQuoteToASCII(append(b, ' '), o.path)
	switch o.kind {
	case opCreate, opSet:
		if b = append(b, ' '); o.null {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendQuoteToASCII(b, o.data)
		}
	}
	switch o.kind {
	case opCreate:
		b = append(append(b, ' '), o.mode.String()...)
		if o.hasTTL {
			b = strconv.AppendInt(append(b, " ttl "...), o.n, 10)
		}
	case opSet, opDelete, opCheck, opSetACL:
		b = strconv.AppendInt(append(b, " version "...), int64(o.version), 10)
	case opCheckCreated:
		b = strconv.AppendInt(append(b, ' '), int64(o.token), 10)
	case opCheckChildren:
		b = append(append(b, ' '), o.cmp.String()...)
		b = strconv.AppendInt(append(b, ' '), o.n, 10)
	}
	if o.acl != nil {
		b = append(b, " acl"...)
	}
	for _, a := range o.acl {
		b = strconv.AppendUint(append(b, ' '), uint64(a.Perm), 10)
		b = strconv.AppendQuoteToASCII(append(b, ':'), a.Scheme+":"+a.ID)
	}
	return b, nil
}

func (o Op) name() string {
	if int(o.kind) < 10 {
		return [...]string{"op", "create", "set", "delete", "check", "check created", "check absent", "check children", "set acl", "delete tree"}[o.kind]
	}
	return "op"
}

func appendOp(b []byte, o *Op) []byte {
	b = codec.AppendByte(b, byte(o.kind))
	b = codec.AppendString(b, o.path)
	switch o.kind {
	case opCreate:
		b = codec.AppendUvarint(b, uint64(o.mode))
		b = appendData(b, o.data, o.null)
		b = codec.AppendBool(b, o.hasTTL)
		if o.hasTTL {
			b = codec.AppendVarint(b, o.n)
		}
		b = codec.AppendBool(b, o.acl != nil)
		if o.acl != nil {
			b = appendACL(b, o.acl)
		}
	case opSet:
		b = appendData(b, o.data, o.null)
		b = codec.AppendVarint(b, int64(o.version))
	case opDelete, opCheck:
		b = codec.AppendVarint(b, int64(o.version))
	case opCheckCreated:
		b = codec.AppendVarint(b, int64(o.token))
	case opCheckChildren:
		b = codec.AppendByte(b, byte(o.cmp))
		b = codec.AppendVarint(b, o.n)
	case opSetACL:
		b = codec.AppendVarint(b, int64(o.version))
		b = appendACL(b, o.acl)
	}
	return b
}

func readOp(r *codec.Reader) (o Op, ok bool) {
	o.kind = opKind(r.Byte())
	o.path = r.String()
	switch o.kind {
	case opCreate:
		m := r.Uvarint()
		o.mode = CreateMode(m)
		o.data, o.null = readData(r)
		if o.hasTTL = r.Bool(); o.hasTTL {
			o.n = r.Varint()
		}
		if r.Bool() {
			o.acl = readACL(r)
		}
		if m > 0xffff {
			return o, false
		}
	case opSet:
		o.data, o.null = readData(r)
		o.version = r.Int32()
	case opDelete, opCheck:
		o.version = r.Int32()
	case opCheckCreated:
		o.token = Token(r.Varint())
	case opCheckAbsent, opDeleteTree:
	case opCheckChildren:
		o.cmp = Cmp(r.Byte())
		o.n = r.Varint()
		if o.cmp > Greater {
			return o, false
		}
	case opSetACL:
		o.version = r.Int32()
		o.acl = readACL(r)
	default:
		return o, false
	}
	return o, r.Err() == nil
}

func appendData(b []byte, data string, null bool) []byte {
	b = codec.AppendBool(b, null)
	if null {
		return b
	}
	return codec.AppendString(b, data)
}

func readData(r *codec.Reader) (data string, null bool) {
	if null = r.Bool(); null {
		return "", true
	}
	return r.String(), false
}

func appendACL(b []byte, acl []ACL) []byte {
	b = codec.AppendUvarint(b, uint64(len(acl)))
	for _, a := range acl {
		b = codec.AppendUvarint(b, uint64(a.Perm))
		b = codec.AppendString(b, a.Scheme)
		b = codec.AppendString(b, a.ID)
	}
	return b
}

func readACL(r *codec.Reader) []ACL {
	acl := make([]ACL, 0, r.Count(3))
	for range cap(acl) {
		acl = append(acl, ACL{Perm(uint32(r.Uvarint())), r.String(), r.String()})
	}
	return acl
}

func appendIdentities(b []byte, ids []Identity) []byte {
	b = codec.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = codec.AppendString(b, id.Scheme)
		b = codec.AppendString(b, id.ID)
	}
	return b
}

func readIdentities(r *codec.Reader) []Identity {
	ids := make([]Identity, 0, r.Count(2))
	for range cap(ids) {
		ids = append(ids, Identity{r.String(), r.String()})
	}
	return ids
}

// stat is Stat with times in milliseconds, as the replicated state keeps them.
type stat struct {
	czxid, mzxid, pzxid         Zxid
	ctime, mtime                int64
	version, cversion, aversion int32
	owner                       SessionID
	dataLength, numChildren     int
}

// result is the outcome of one step.
type result struct {
	code Code
	path string
	stat stat
}

// outcome is what one request came to: a code for the whole, and for transactions a result for each step.
type outcome struct {
	zxid  Zxid
	code  Code
	steps []result
	id    SessionID // of a session opened
}

func appendOutcome(b []byte, o *outcome) []byte {
	b = codec.AppendVarint(b, int64(o.zxid))
	b = codec.AppendVarint(b, int64(o.code))
	b = codec.AppendVarint(b, int64(o.id))
	b = codec.AppendUvarint(b, uint64(len(o.steps)))
	for i := range o.steps {
		s := &o.steps[i]
		b = codec.AppendVarint(b, int64(s.code))
		b = codec.AppendString(b, s.path)
		b = appendStat(b, &s.stat)
	}
	return b
}

func readOutcome(r *codec.Reader) (o outcome) {
	o.zxid, o.code, o.id = Zxid(r.Varint()), Code(r.Int32()), SessionID(r.Varint())
	o.steps = make([]result, 0, r.Count(13))
	for range cap(o.steps) {
		o.steps = append(o.steps, result{Code(r.Int32()), r.String(), readStat(r)})
	}
	return o
}

func appendStat(b []byte, s *stat) []byte {
	for _, v := range [...]int64{int64(s.czxid), int64(s.mzxid), int64(s.pzxid), s.ctime, s.mtime, int64(s.version),
		int64(s.cversion), int64(s.aversion), int64(s.owner), int64(s.dataLength), int64(s.numChildren)} {
		b = codec.AppendVarint(b, v)
	}
	return b
}

func readStat(r *codec.Reader) (s stat) {
	s.czxid, s.mzxid, s.pzxid = Zxid(r.Varint()), Zxid(r.Varint()), Zxid(r.Varint())
	s.ctime, s.mtime = r.Varint(), r.Varint()
	s.version, s.cversion, s.aversion = r.Int32(), r.Int32(), r.Int32()
	s.owner = SessionID(r.Varint())
	s.dataLength, s.numChildren = int(r.Varint()), int(r.Varint())
	return s
}
