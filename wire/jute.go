// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Jute is the protocol's encoding: big-endian integers, and strings, buffers and vectors behind a 32-bit length of
// which -1 means null (section 2 of docs/spec/wire-protocol.md).

var errMalformed = errors.New("wire: malformed record")

func appendInt(b []byte, v int32) []byte  { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func appendLong(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendString(b []byte, s string) []byte {
	return append(appendInt(b, int32(len(s))), s...)
}

// appendBuffer writes nil as null, which is not the same as empty (DM-24).
func appendBuffer(b, p []byte) []byte {
	if p == nil {
		return appendInt(b, -1)
	}
	return append(appendInt(b, int32(len(p))), p...)
}

func appendStrings(b []byte, ss []string) []byte {
	b = appendInt(b, int32(len(ss)))
	for _, s := range ss {
		b = appendString(b, s)
	}
	return b
}

func appendACL(b []byte, acl []zk.ACL) []byte {
	b = appendInt(b, int32(len(acl)))
	for _, a := range acl {
		b = appendString(appendString(appendInt(b, int32(a.Perm)), a.Scheme), a.ID)
	}
	return b
}

const statSize = 68

func appendStat(b []byte, st zk.Stat) []byte {
	b = appendLong(b, int64(st.Czxid))
	b = appendLong(b, int64(st.Mzxid))
	b = appendLong(b, st.Ctime.UnixMilli())
	b = appendLong(b, st.Mtime.UnixMilli())
	b = appendInt(b, st.Version)
	b = appendInt(b, st.Cversion)
	b = appendInt(b, st.Aversion)
	b = appendLong(b, int64(st.EphemeralOwner))
	b = appendInt(b, int32(st.DataLength))
	b = appendInt(b, int32(st.NumChildren))
	return appendLong(b, int64(st.Pzxid))
}

// decoder reads jute with a sticky error. What it returns aliases nothing of the frame but for buffer.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errMalformed
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func (d *decoder) int() int32 {
	if p := d.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (d *decoder) long() int64 {
	if p := d.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// string reads a string that must be there: null is malformed.
func (d *decoder) string() string { return string(d.take(int(d.int()))) }

// nullable reads a string that may be null, and is then empty.
func (d *decoder) nullable() string {
	p := d.buffer()
	return string(p)
}

// buffer returns nil for null, and a slice of the frame otherwise.
func (d *decoder) buffer() []byte {
	n := d.int()
	if n == -1 {
		return nil
	}
	return d.take(int(n))
}

// count reads a vector's length, null as -1. Each item takes at least size bytes, so that a false
// length allocates nothing.
func (d *decoder) count(size int) int {
	n := int(d.int())
	if d.err != nil || n == -1 {
		return n
	}
	if n < 0 || n > len(d.b)/size {
		d.fail()
		return 0
	}
	return n
}

// strings reads a vector of strings; null is an empty one.
func (d *decoder) strings() []string {
	n := d.count(4)
	if n <= 0 {
		return nil
	}
	ss := make([]string, 0, n)
	for range n {
		ss = append(ss, d.string())
	}
	return ss
}

// acl reads a vector of ACL entries; null is an empty one, which no znode may be given (DM-103).
func (d *decoder) acl() []zk.ACL {
	n := d.count(12)
	if n <= 0 {
		return nil
	}
	acl := make([]zk.ACL, 0, n)
	for range n {
		acl = append(acl, zk.ACL{Perm: zk.Perm(d.int()), Scheme: d.nullable(), ID: d.nullable()})
	}
	return acl
}

func (d *decoder) stat() (st zk.Stat) {
	st.Czxid, st.Mzxid = zk.Zxid(d.long()), zk.Zxid(d.long())
	st.Ctime, st.Mtime = time.UnixMilli(d.long()), time.UnixMilli(d.long())
	st.Version, st.Cversion, st.Aversion = d.int(), d.int(), d.int()
	st.EphemeralOwner = zk.SessionID(d.long())
	st.DataLength, st.NumChildren = int(d.int()), int(d.int())
	st.Pzxid = zk.Zxid(d.long())
	return st
}
