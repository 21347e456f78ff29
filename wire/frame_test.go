// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func framesFrom(r io.Reader, limit int) *frames {
	return &frames{from: r, limit: limit, arm: func() error { return nil }}
}

// Frames come out as they went in, however the network cuts them (WP-1).
func TestFrames(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want [][]byte
	for i := range 400 {
		n := [...]int{0, 1, 8, 60, 251, 252, 253, 5000, readChunk - 4, readChunk - 3, 3 * readChunk, 1 << 20}[chance.IntN(11+i/399)]
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(chance.Uint32())
		}
		stream = append(append(stream, appendInt(nil, int32(n))...), b...)
		want = append(want, b)
	}
	for name, r := range map[string]io.Reader{
		"whole":        bytes.NewReader(stream),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":       iotest.HalfReader(bytes.NewReader(stream)),
		"with EOF":     iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		f := framesFrom(r, 1<<20)
		for i, w := range want {
			got, err := f.next()
			if err != nil || !bytes.Equal(got, w) {
				t.Fatalf("%s: frame %d: %d bytes, %v, want %d", name, i, len(got), err, len(w))
			}
		}
		if _, err := f.next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
		if len(f.buf) != len(f.small) {
			t.Errorf("%s: an idle connection holds %d bytes", name, len(f.buf))
		}
	}
}

// A length takes no memory before the bytes arrive, and what ends within a frame is no end (WP-2, DM-90).
func TestFrameMemory(t *testing.T) {
	for _, n := range []int{0, 1, 300, 20_000, 100_000} {
		b := append(appendInt(nil, 1<<20), make([]byte, n)...)
		f := framesFrom(bytes.NewReader(b), 1<<20)
		if _, err := f.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes of a frame: %v", n, err)
		}
		if len(f.buf) > 2*n+readChunk {
			t.Errorf("%d bytes arrived, %d are held", n, len(f.buf))
		}
	}
	for _, n := range []int32{-1, -1 << 31, 1001, 1<<31 - 1} {
		if _, err := framesFrom(bytes.NewReader(appendInt(nil, n)), 1000).next(); err != errFrameTooLarge {
			t.Errorf("length %d: %v", n, err)
		}
	}
}
