// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var b []byte
	uints := []uint64{0, 1, 127, 128, 1 << 32, math.MaxUint64}
	ints := []int64{0, 1, -1, 63, -64, 64, math.MaxInt64, math.MinInt64}
	for _, x := range uints {
		b = AppendUvarint(b, x)
		b = AppendUint64(b, x)
	}
	for _, x := range ints {
		b = AppendVarint(b, x)
	}
	b = AppendVarint(b, math.MaxInt32)
	b = AppendVarint(b, math.MinInt32)
	b = AppendString(b, "")
	b = AppendString(b, "héllo\x00")
	b = AppendBytes(b, nil)
	b = AppendBytes(b, bytes.Repeat([]byte{7}, 300))
	b = AppendByte(b, 0xff)
	b = AppendBool(b, true)
	b = AppendBool(b, false)
	b = AppendUint32(b, math.MaxUint32)
	b = AppendUvarint(b, 2)
	b = append(b, 1, 2)

	r := NewReader(b)
	for _, x := range uints {
		if got := r.Uvarint(); got != x {
			t.Errorf("uvarint %d read as %d", x, got)
		}
		if got := r.Uint64(); got != x {
			t.Errorf("uint64 %d read as %d", x, got)
		}
	}
	for _, x := range ints {
		if got := r.Varint(); got != x {
			t.Errorf("varint %d read as %d", x, got)
		}
	}
	if got := r.Int32(); got != math.MaxInt32 {
		t.Errorf("Int32: %d", got)
	}
	if got := r.Int32(); got != math.MinInt32 {
		t.Errorf("Int32: %d", got)
	}
	if got := r.String(); got != "" {
		t.Errorf("String: %q", got)
	}
	if got := r.String(); got != "héllo\x00" {
		t.Errorf("String: %q", got)
	}
	if got := r.Bytes(); got == nil || len(got) != 0 {
		t.Errorf("empty Bytes: %#v", got)
	}
	if got := r.Bytes(); len(got) != 300 || cap(got) != 300 {
		t.Errorf("Bytes: len %d, cap %d", len(got), cap(got))
	}
	if got := r.Byte(); got != 0xff {
		t.Errorf("Byte: %d", got)
	}
	if !r.Bool() || r.Bool() {
		t.Error("Bool: want true, false")
	}
	if got := r.Uint32(); got != math.MaxUint32 {
		t.Errorf("Uint32: %d", got)
	}
	if got := r.Count(1); got != 2 {
		t.Errorf("Count: %d", got)
	}
	if r.Len() != 2 || r.Byte() != 1 || r.Byte() != 2 {
		t.Error("elements after the count")
	}
	if err := r.Done(); err != nil {
		t.Error(err)
	}
}

func TestEmptyBytesAtEndOfNil(t *testing.T) {
	r := NewReader([]byte{0})
	if got := r.Bytes(); got == nil {
		t.Error("empty bytes read as nil")
	}
	if err := r.Done(); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	max := binary.AppendUvarint(nil, math.MaxUint64)
	for _, c := range []struct {
		name string
		in   []byte
		read func(r *Reader) any
		zero any
		err  error
	}{
		{"uvarint of nothing", nil, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrShort},
		{"uvarint cut", []byte{0x80}, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrShort},
		{"uvarint padded", []byte{0x80, 0x00}, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrMalformed},
		{"uvarint padded one", []byte{0x81, 0x80, 0x00}, func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrMalformed},
		{"uvarint too large", bytes.Repeat([]byte{0xff}, 11), func(r *Reader) any { return r.Uvarint() }, uint64(0), ErrMalformed},
		{"varint padded", []byte{0x80, 0x00}, func(r *Reader) any { return r.Varint() }, int64(0), ErrMalformed},
		{"int32 above", binary.AppendVarint(nil, math.MaxInt32+1), func(r *Reader) any { return r.Int32() }, int32(0), ErrMalformed},
		{"int32 below", binary.AppendVarint(nil, math.MinInt32-1), func(r *Reader) any { return r.Int32() }, int32(0), ErrMalformed},
		{"string cut", []byte{2, 'a'}, func(r *Reader) any { return r.String() }, "", ErrShort},
		{"string of huge length", max, func(r *Reader) any { return r.String() }, "", ErrShort},
		{"byte of nothing", nil, func(r *Reader) any { return r.Byte() }, byte(0), ErrShort},
		{"bool of two", []byte{2}, func(r *Reader) any { return r.Bool() }, false, ErrMalformed},
		{"uint64 cut", make([]byte, 7), func(r *Reader) any { return r.Uint64() }, uint64(0), ErrShort},
		{"uint32 cut", make([]byte, 3), func(r *Reader) any { return r.Uint32() }, uint32(0), ErrShort},
		{"count beyond the input", []byte{3, 0, 0}, func(r *Reader) any { return r.Count(1) }, 0, ErrShort},
		{"count of large elements", []byte{2, 0, 0, 0}, func(r *Reader) any { return r.Count(2) }, 0, ErrShort},
		{"count without a size", []byte{2, 0}, func(r *Reader) any { return r.Count(0) }, 0, ErrShort},
		{"huge count", max, func(r *Reader) any { return r.Count(1) }, 0, ErrShort},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReader(c.in)
			if got := c.read(&r); got != c.zero {
				t.Errorf("read %v, want %v", got, c.zero)
			}
			if !errors.Is(r.Err(), c.err) || !errors.Is(r.Done(), c.err) {
				t.Errorf("error %v, want %v", r.Err(), c.err)
			}
		})
	}
}

func TestFirstErrorStays(t *testing.T) {
	r := NewReader([]byte{2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
	r.Bool()
	if r.Uvarint() != 0 || r.Varint() != 0 || r.Int32() != 0 || r.String() != "" || r.Bytes() != nil ||
		r.Byte() != 0 || r.Bool() || r.Uint64() != 0 || r.Uint32() != 0 || r.Count(1) != 0 || r.Len() != 0 {
		t.Error("a read after an error returned something")
	}
	if err := r.Done(); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want the first one", err)
	}
}

func TestTrailing(t *testing.T) {
	r := NewReader([]byte{1, 2})
	r.Byte()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Done(); !errors.Is(err, ErrTrailing) {
		t.Errorf("error %v, want %v", err, ErrTrailing)
	}
}

func TestBytesAlias(t *testing.T) {
	in := []byte{1, 'a', 9}
	r := NewReader(in)
	p := r.Bytes()
	in[1] = 'b'
	if p[0] != 'b' {
		t.Error("Bytes copied")
	}
	if _ = append(p, 'x'); in[2] != 9 {
		t.Error("appending to the result reached the input")
	}
}

// FuzzReader takes the first input as a list of reads and the second as what
// to read. Whatever was read must encode to exactly the bytes consumed.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []byte("\x05\x07\x08\x03abc\x02xy\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x01"))
	f.Add([]byte{0}, []byte{0x80, 0x00})
	f.Add([]byte{3}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{9}, []byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, reads, in []byte) {
		r := NewReader(in)
		var out []byte
		for _, kind := range reads {
			switch kind % 10 {
			case 0:
				out = AppendUvarint(out, r.Uvarint())
			case 1:
				out = AppendVarint(out, r.Varint())
			case 2:
				out = AppendVarint(out, int64(r.Int32()))
			case 3:
				out = AppendString(out, r.String())
			case 4:
				out = AppendBytes(out, r.Bytes())
			case 5:
				out = AppendByte(out, r.Byte())
			case 6:
				out = AppendBool(out, r.Bool())
			case 7:
				out = AppendUint64(out, r.Uint64())
			case 8:
				out = AppendUint32(out, r.Uint32())
			case 9:
				n := r.Count(2)
				if 2*n > r.Len() {
					t.Fatalf("count %d with %d bytes left", n, r.Len())
				}
				out = AppendUvarint(out, uint64(n))
			}
			if r.Err() != nil {
				break
			}
			if len(out)+r.Len() != len(in) || !bytes.Equal(out, in[:len(out)]) {
				t.Fatalf("read %x of %x", out, in)
			}
		}
		if r.Err() != nil && (r.Len() != 0 || r.Bytes() != nil) {
			t.Fatal("something to read after an error")
		}
	})
}
