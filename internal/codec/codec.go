// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"errors"
	"math"
)

var (
	// ErrShort is reported when the input ends inside a value, or announces
	// more than it can hold.
	ErrShort = errors.New("codec: input ends early")

	// ErrMalformed is reported for bytes that no encoder writes: a varint
	// longer than it needs to be or out of range, a bool that is neither 0
	// nor 1.
	ErrMalformed = errors.New("codec: malformed value")

	// ErrTrailing is reported by Done when input is left.
	ErrTrailing = errors.New("codec: bytes after the end")
)

// AppendUvarint appends x in groups of seven bits, lowest first.
func AppendUvarint(b []byte, x uint64) []byte {
	return binary.AppendUvarint(b, x)
}

// AppendVarint appends x so that numbers near zero, of either sign, are short.
func AppendVarint(b []byte, x int64) []byte {
	return binary.AppendVarint(b, x)
}

// AppendString appends the length of s, as a uvarint, and s.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendBytes appends the length of p, as a uvarint, and p. Nil and empty are
// the same.
func AppendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// AppendByte appends one byte.
func AppendByte(b []byte, x byte) []byte {
	return append(b, x)
}

// AppendBool appends 1 for true and 0 for false.
func AppendBool(b []byte, x bool) []byte {
	if x {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendUint64 appends x in eight bytes, big-endian.
func AppendUint64(b []byte, x uint64) []byte {
	return binary.BigEndian.AppendUint64(b, x)
}

// AppendUint32 appends x in four bytes, big-endian.
func AppendUint32(b []byte, x uint32) []byte {
	return binary.BigEndian.AppendUint32(b, x)
}

// A Reader takes values off the front of a byte slice, which it never
// changes. After the first error every method returns a zero value. The zero
// Reader has nothing to read.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a Reader of b.
func NewReader(b []byte) Reader {
	return Reader{b: b}
}

// Uvarint reads what AppendUvarint wrote.
func (r *Reader) Uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	switch {
	case r.err != nil:
		return 0
	case n == 0:
		r.fail(ErrShort)
		return 0
	case n < 0, n > 1 && r.b[n-1] == 0: // too large, or a last group that adds nothing
		r.fail(ErrMalformed)
		return 0
	}
	r.b = r.b[n:]
	return x
}

// Varint reads what AppendVarint wrote.
func (r *Reader) Varint() int64 {
	x := r.Uvarint()
	return int64(x>>1) ^ -int64(x&1)
}

// Int32 reads what AppendVarint wrote and refuses what an int32 cannot hold.
func (r *Reader) Int32() int32 {
	x := r.Varint()
	if x < math.MinInt32 || x > math.MaxInt32 {
		r.fail(ErrMalformed)
		return 0
	}
	return int32(x)
}

// String reads what AppendString wrote. It is a copy.
func (r *Reader) String() string {
	return string(r.Bytes())
}

// Bytes reads what AppendBytes wrote. The result is a part of the input, cut
// so that appending to it leaves the input alone. It is nil after an error
// and not otherwise.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if r.err != nil {
		return nil
	}
	if n > uint64(len(r.b)) {
		r.fail(ErrShort)
		return nil
	}
	return r.take(int(n))
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	p := r.take(1)
	if p == nil {
		return 0
	}
	return p[0]
}

// Bool reads what AppendBool wrote.
func (r *Reader) Bool() bool {
	x := r.Byte()
	if x > 1 {
		r.fail(ErrMalformed)
		return false
	}
	return x == 1
}

// Uint64 reads what AppendUint64 wrote.
func (r *Reader) Uint64() uint64 {
	p := r.take(8)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint64(p)
}

// Uint32 reads what AppendUint32 wrote.
func (r *Reader) Uint32() uint32 {
	p := r.take(4)
	if p == nil {
		return 0
	}
	return binary.BigEndian.Uint32(p)
}

// Count reads a uvarint that says how many elements follow, each of them at
// least min bytes long (min below 1 counts as 1). A number that the rest of
// the input cannot hold is an error, so a caller may allocate by it.
func (r *Reader) Count(min int) int {
	if min < 1 {
		min = 1
	}
	n := r.Uvarint()
	if n > uint64(len(r.b)/min) {
		r.fail(ErrShort)
		return 0
	}
	return int(n)
}

// Len returns how many bytes are left to read: none after an error.
func (r *Reader) Len() int {
	return len(r.b)
}

// Err returns the first error.
func (r *Reader) Err() error {
	return r.err
}

// Done returns the first error, or ErrTrailing when input is left.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail(ErrTrailing)
	}
	return r.err
}

// take cuts n bytes off the front. It returns nil when there are too few or
// an error happened before, and only then.
func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.fail(ErrShort)
		return nil
	}
	p := r.b[:n:n]
	if p == nil {
		p = []byte{}
	}
	r.b = r.b[n:]
	return p
}

// fail keeps err unless one is kept already. Dropping the input makes every
// later read come out empty.
func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// Rest returns what has not been read, aliasing the input, and reads it.
func (r *Reader) Rest() []byte { return r.take(r.Len()) }
