// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

// frames takes a stream of bytes apart into frames. An idle one holds no more than its small array: a connection that
// waits for its next request costs little.
type frames struct {
	from  io.Reader
	limit int          // bytes of one frame
	arm   func() error // called before each read that may block

	small [256]byte
	buf   []byte // small[:], one of the pool's, or one for a frame that is larger
	r, w  int
	burst bool // the last read filled the buffer: there is more
}

const readChunk = 16 << 10

var readPool = sync.Pool{New: func() any { return new([readChunk]byte) }}

// next returns the next frame; it is valid until the following call. errFrameTooLarge is returned for a length that is
// negative or beyond the limit, io.EOF at the end.
func (f *frames) next() ([]byte, error) {
	if err := f.need(4); err != nil {
		return nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(f.buf[f.r:])))
	if n < 0 || n > f.limit {
		return nil, errFrameTooLarge
	}
	if err := f.need(4 + n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	frame := f.buf[f.r+4 : f.r+4+n]
	f.r += 4 + n
	return frame, nil
}

// peek returns the next n bytes without consuming them; n is at most 256.
func (f *frames) peek(n int) ([]byte, error) {
	if err := f.need(n); err != nil {
		return nil, err
	}
	return f.buf[f.r : f.r+n], nil
}

// buffered returns what was read and not consumed.
func (f *frames) buffered() []byte { return f.buf[f.r:f.w] }

// need reads until n bytes are there.
func (f *frames) need(n int) error {
	for f.w-f.r < n {
		f.room(n)
		if err := f.arm(); err != nil {
			return err
		}
		m, err := f.from.Read(f.buf[f.w:])
		f.w += m
		f.burst = f.w == len(f.buf) && f.w <= readChunk
		if err != nil && f.w-f.r < n {
			return err
		}
	}
	return nil
}

// room makes space for another read. A buffer grows with what has arrived, to twice that, so that an announced length
// alone takes no memory.
func (f *frames) room(n int) {
	have := f.w - f.r
	switch {
	case have == 0 && len(f.buf) != len(f.small) && !f.burst:
		f.release()
	case have == 0:
		f.r, f.w = 0, 0
	case f.r > 0:
		copy(f.buf, f.buf[f.r:f.w])
		f.r, f.w = 0, have
	}
	if f.buf == nil {
		f.buf = f.small[:]
	}
	switch {
	case len(f.buf) == len(f.small) && (f.burst || have == len(f.small)):
		f.replace(readPool.Get().(*[readChunk]byte)[:])
	case f.w == len(f.buf):
		f.replace(make([]byte, min(2*len(f.buf), max(n, readChunk))))
	}
	f.burst = false
}

func (f *frames) replace(buf []byte) {
	f.w = copy(buf, f.buf[f.r:f.w])
	old := f.buf
	f.buf, f.r = buf, 0
	recycle(old)
}

// release lets go of everything but the small buffer.
func (f *frames) release() {
	old := f.buf
	f.buf, f.r, f.w, f.burst = f.small[:], 0, 0, false
	recycle(old)
}

func recycle(b []byte) {
	if len(b) == readChunk {
		readPool.Put((*[readChunk]byte)(b))
	}
}
