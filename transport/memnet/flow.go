// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"math/rand/v2"
	"time"
)

const (
	// window is how many bytes a direction holds before its writer waits, as a socket's buffers do.
	window = 1 << 20

	// small bounds the chunks that are joined: writes of a few bytes must not cost a hundred each.
	small = 4 << 10
)

// flow is one direction of a stream. The network's mutex guards it.
type flow struct {
	link
	chance *rand.Rand
	moved  signal    // something has changed for its reader or its writer
	chunks []chunk   // in order, and each due no earlier than the one before
	bytes  int       // sent and not read, lost ones too
	last   time.Time // when the last chunk is due, or the news that the writer's end was closed
	lost   bool      // something was lost: nothing arrives any more
	ended  bool      // the writer's end was closed
	unread bool      // the reader's end was closed: bytes are kept no more
	reset  bool
}

// chunk is what arrives together.
type chunk struct {
	data []byte
	due  time.Time // zero: at once
}

func newFlow(l link, chance *rand.Rand) *flow { return &flow{link: l, chance: chance} }

// arrivesLocked reports whether bytes, and the news that the writer's end was closed, come through.
func (f *flow) arrivesLocked(n *Network) bool { return !f.lost && !n.stalledLocked(f.from, f.to) }

// sendLocked takes as much of p as there is room for.
func (f *flow) sendLocked(n *Network, p []byte) int {
	k := min(len(p), window-f.bytes)
	if k <= 0 {
		return 0
	}
	f.lost = f.lost || n.losesLocked(f.chance)
	f.bytes += k
	if f.lost || f.unread {
		return k
	}
	due := f.dueLocked(n)
	if i := len(f.chunks) - 1; i >= 0 && f.chunks[i].due.Equal(due) && len(f.chunks[i].data)+k <= small {
		f.chunks[i].data = append(f.chunks[i].data, p[:k]...)
		return k
	}
	f.chunks = append(f.chunks, chunk{data: append([]byte(nil), p[:k]...), due: due})
	if len(f.chunks) == 1 {
		f.moved.raise()
	}
	return k
}

// dueLocked returns when what is sent now arrives.
func (f *flow) dueLocked(n *Network) time.Time {
	if d := n.delayLocked(f.link, f.chance); d > 0 {
		if due := time.Now().Add(d); due.After(f.last) {
			f.last = due
		}
	}
	return f.last
}

// takeLocked fills p with what has arrived. It returns 0 if nothing has, and then when something is due.
func (f *flow) takeLocked(p []byte) (k int, due time.Time) {
	for k < len(p) && len(f.chunks) > 0 {
		c := &f.chunks[0]
		if !reached(c.due) {
			due = c.due
			break
		}
		part := copy(p[k:], c.data)
		k += part
		if c.data = c.data[part:]; len(c.data) == 0 {
			*c = chunk{}
			f.chunks = f.chunks[1:]
		}
	}
	if f.bytes >= window && k > 0 {
		f.moved.raise()
	}
	f.bytes -= k
	return k, due
}

// forgetLocked drops what was not read.
func (f *flow) forgetLocked() { f.chunks = nil }

// reached reports whether t is not in the future.
func reached(t time.Time) bool { return t.IsZero() || !time.Now().Before(t) }
