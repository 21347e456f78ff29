// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"sync"

	"github.com/seed-541fafe0/zk"
)

// queue has the requests of a connection that are not answered yet.
type queue struct {
	list   []request
	first  int
	bytes  int // of the requests' frames
	unsent int // no write before this place is still to be handed over
}

func (q *queue) len() int { return len(q.list) - q.first }

func (q *queue) at(i int) *request { return &q.list[q.first+i] }

func (q *queue) push(r *request) {
	if q.first > len(q.list)/2 && len(q.list) == cap(q.list) {
		n := copy(q.list, q.list[q.first:])
		clear(q.list[n:])
		q.list, q.first = q.list[:n], 0
	}
	q.list = append(q.list, *r)
	q.bytes += r.size
}

// keepQueue is how many places an idle connection keeps.
const keepQueue = 4

func (q *queue) pop() request {
	r := q.list[q.first]
	q.list[q.first] = request{}
	q.first++
	q.bytes -= r.size
	q.unsent = max(q.unsent-1, 0)
	if q.first == len(q.list) {
		q.first = 0
		if q.list = q.list[:0]; cap(q.list) > keepQueue {
			q.list = nil
		}
	}
	return r
}

// eventQueue has the events that were not sent yet. The member puts them in under its locks.
type eventQueue struct {
	limit int // bytes

	mu    sync.Mutex // guards the fields below
	list  []zk.Event
	bytes int
	gone  bool // nobody takes them any more
}

const eventOverhead = 64

// add reports whether the limit is kept.
func (q *eventQueue) add(ev zk.Event) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return true
	}
	q.list = append(q.list, ev)
	q.bytes += len(ev.Path) + eventOverhead
	return q.bytes <= q.limit
}

// take returns the events up to a zxid, in their order.
func (q *eventQueue) take(z zk.Zxid) []zk.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.list) && q.list[n].Zxid <= z {
		q.bytes -= len(q.list[n].Path) + eventOverhead
		n++
	}
	list := q.list[:n:n]
	if q.list = q.list[n:]; len(q.list) == 0 {
		q.list = nil
	}
	return list
}

func (q *eventQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list, q.bytes, q.gone = nil, 0, true
}
