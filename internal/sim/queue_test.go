// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// queueing is the model of one item of a queue: put, then claimed any number of times, then removed once. What order
// the items have among each other is the matter of overtaken.
type (
	queueStep uint8
	queueIn   struct {
		queue int
		item  string
		step  queueStep
		claim int // of queueReceived and what follows it
		prio  int // of queuePut
	}
	queueOut struct {
		unknown bool
		again   bool // Redelivered
	}
	queueItem struct {
		phase     queuePhase
		claim     int
		delivered bool
	}
	queuePhase uint8
)

const (
	queuePut queueStep = iota
	queueReceived
	queueAcked
	queueReturned // the claim is over, the item is not removed
	queueTaken
	queueMissing // the queue was seen empty: the item is not in it
)

const (
	itemAbsent queuePhase = iota
	itemQueued
	itemClaimed
	itemGone
)

func (in queueIn) String() string {
	step := [...]string{"put", "received", "acked", "returned", "taken", "missing"}[in.step]
	return fmt.Sprintf("queue %d: %s %s, claim %d, prio %d", in.queue, step, in.item, in.claim, in.prio)
}

var queueing = porcupine.Model{
	Partition: partition(func(in queueIn) string { return fmt.Sprint(in.queue, " ", in.item) }),
	Init:      func() any { return queueItem{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(queueItem), input.(queueIn), output.(queueOut)
		ours := s.phase == itemClaimed && s.claim == in.claim
		switch in.step {
		case queuePut:
			if s.phase != itemAbsent {
				return false, s
			}
			s.phase = itemQueued
		case queueReceived:
			if s.phase != itemQueued || s.delivered && !out.again {
				return false, s
			}
			s.phase, s.claim, s.delivered = itemClaimed, in.claim, true
		case queueAcked: // Q-S1
			if !ours {
				return out.unknown, s
			}
			s.phase = itemGone
		case queueReturned:
			if ours {
				s.phase = itemQueued
			}
		case queueTaken: // Q-S3
			if s.phase != itemQueued {
				return false, s
			}
			s.phase = itemGone
		case queueMissing: // Q-S2
			return s.phase == itemAbsent || s.phase == itemGone || s.phase == itemQueued && out.unknown, s
		}
		return true, s
	},
	DescribeOperation: describe,
}

// overtaken finds an item that was delivered although another one, put before it and never claimed until then, was
// free (Q-S4).
func overtaken(ops []porcupine.Operation) error {
	type item struct {
		put, first porcupine.Operation
		ok         bool // it was delivered
	}
	items := map[string]*item{}
	for _, o := range ops {
		in := o.Input.(queueIn)
		key := fmt.Sprint(in.queue, " ", in.item)
		it := items[key]
		if it == nil {
			it = &item{}
			items[key] = it
		}
		switch in.step {
		case queuePut:
			it.put = o
		case queueReceived, queueTaken:
			if !it.ok || o.Return < it.first.Return {
				it.first, it.ok = o, true
			}
		}
	}
	for _, y := range items {
		for _, x := range items {
			if !x.ok || !y.ok || x.put.Input == nil || y.put.Input == nil {
				continue
			}
			xin, yin := x.put.Input.(queueIn), y.put.Input.(queueIn)
			fresh := x.first.Input.(queueIn).step == queueReceived && !x.first.Output.(queueOut).again
			if fresh && xin.queue == yin.queue && xin.prio <= yin.prio && x.put.Return < y.put.Call && y.first.Return < x.first.Call {
				return fmt.Errorf("%+v was put at %v and never claimed before %v; %+v was put at %v and delivered by %v", xin, x.put.Return, x.first.Call, yin, y.put.Call, y.first.Return)
			}
		}
	}
	return nil
}

// queueCheck knows what was put, and how often nobody knows what was taken.
type queueCheck struct {
	h      *history
	shared *recipes.Queue[string] // the second queue, of all consumers together

	mu      sync.Mutex
	claims  int
	unknown [queuePaths]int // takes
	items   [queuePaths]map[string]bool
	evicted map[zk.Token]int64 // claims that an operator has deleted, and when that began
}

const (
	queuePaths = 2
	queueBound = 8 // items of the second queue
)

type sourceFunc func(context.Context) (*zk.Session, error)

func (f sourceFunc) Session(ctx context.Context) (*zk.Session, error) { return f(ctx) }

// anybody gives a session of any member, another one each time.
func (r *run) anybody() zk.SessionSource {
	random := rand.New(rand.NewPCG(r.seed, 4))
	return sourceFunc(func(ctx context.Context) (*zk.Session, error) {
		r.mu.Lock()
		ids := r.membersLocked()
		m := r.c.Member(ids[random.IntN(len(ids))])
		r.mu.Unlock()
		return m.Session(ctx)
	})
}

func newQueueCheck(src zk.SessionSource) *queueCheck {
	q := &queueCheck{h: newHistory(), shared: recipes.NewQueue[string](src, "/queue/1"), evicted: map[zk.Token]int64{}}
	q.shared.MaxItems = queueBound
	for i := range q.items {
		q.items[i] = map[string]bool{}
	}
	return q
}

// queue is queue n. The consumers of the first have a Queue each, so that its order is exact.
func (r *run) queue(n int, s zk.SessionSource) *recipes.Queue[string] {
	if n == 0 {
		return recipes.NewQueue[string](s, "/queue/0")
	}
	return r.queues.shared
}

func (r *run) queueClient(client int, random *rand.Rand) {
	for i := 0; r.idle(random, 800); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Queue")
		n := random.IntN(queuePaths)
		q := r.queue(n, s)
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(5000)))
		switch random.IntN(5) {
		case 0, 1, 2:
			r.put(ctx, client, n, q, fmt.Sprintf("%d.%d", client, i), 100+10*random.IntN(2)*random.IntN(2))
		case 3:
			r.receive(ctx, client, n, q, random.IntN(4) == 0, func() { sleep(r.ctx, millis(random.IntN(300))) })
		case 4:
			r.take(ctx, client, n, q)
		}
		cancel()
	}
}

func (r *run) put(ctx context.Context, client, n int, q *recipes.Queue[string], item string, prio int) error {
	return r.queues.put(client, n, item, prio, func() error { return q.PutPriority(ctx, item, prio) })
}

// receive receives an item and acknowledges it, or gives it back.
func (r *run) receive(ctx context.Context, client, n int, q *recipes.Queue[string], back bool, work func()) error {
	_, err := r.queues.receive(r.t, client, n, func() (*recipes.Message[string], error) { return q.Receive(ctx) }, back, work)
	return err
}

// put notes what becomes of an item that is put.
func (c *queueCheck) put(client, n int, item string, prio int, put func() error) error {
	h, in := c.h, queueIn{queue: n, item: item, step: queuePut, prio: prio}
	call := h.now()
	err := put()
	switch {
	case err == nil:
		h.add(client, call, in, queueOut{}, h.now())
	case zk.MaybeApplied(err):
		h.add(client, call, in, queueOut{unknown: true}, forever)
	default:
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items[n][item] = true
	return err
}

// receive notes what becomes of an item that is received and then acknowledged, or given back. The message is nil if there is none.
func (c *queueCheck) receive(t *testing.T, client, n int, receive func() (*recipes.Message[string], error), back bool, work func()) (*recipes.Message[string], error) {
	h := c.h
	call := h.now()
	msg, err := receive()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.claims++
	in := queueIn{queue: n, item: msg.Value, step: queueReceived, claim: c.claims}
	c.mu.Unlock()
	valid := h.now() // the claim stands at least until then
	h.add(client, call, in, queueOut{again: msg.Redelivered()}, valid)
	work()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if call = h.now(); msg.Valid() {
		valid = call
	}
	if back {
		err = msg.Release(ctx)
	} else if err = msg.Ack(ctx); err == nil {
		in.step = queueAcked
		h.add(client, call, in, queueOut{}, h.now())
		return msg, nil
	} else if zk.MaybeApplied(err) {
		in.step = queueAcked
		h.add(client, call, in, queueOut{unknown: true}, forever)
	} else if errors.Is(err, recipes.ErrBroken) {
		t.Errorf("acknowledging %q: %v", msg.Value, err)
	}
	c.mu.Lock()
	if at, ok := c.evicted[msg.Token()]; ok { // until it hears of that it takes the claim for valid (HELD-S1)
		valid = min(valid, at)
	}
	c.mu.Unlock()
	in.step = queueReturned
	if msg.Release(ctx); err == nil {
		h.add(client, valid, in, queueOut{}, h.now())
	} else {
		h.add(client, valid, in, queueOut{}, forever)
	}
	return msg, err
}

func (r *run) take(ctx context.Context, client, n int, q *recipes.Queue[string]) error {
	h := r.queues.h
	call := h.now()
	item, err := q.Take(ctx)
	switch {
	case err == nil:
		h.add(client, call, queueIn{queue: n, item: item, step: queueTaken}, queueOut{}, h.now())
	case zk.MaybeApplied(err):
		r.queues.mu.Lock()
		defer r.queues.mu.Unlock()
		r.queues.unknown[n]++
	}
	return err
}

// bounded looks whether a queue has more entries than it may (Q-S5).
func (r *run) bounded(ctx context.Context, s *zk.Session) {
	st, _, err := s.Exists(ctx, "/queue/1/entries")
	if err == nil && st.NumChildren > queueBound {
		r.t.Errorf("%d items are in a queue of %d", st.NumChildren, queueBound)
	}
}

// drain empties the queues and accounts for every item.
func (r *run) drain(ctx context.Context, s *zk.Session) {
	for n := range queuePaths {
		q := r.queue(n, s)
		for {
			st, _, err := s.Exists(ctx, fmt.Sprintf("/queue/%d/entries", n), zk.Linearizable)
			if err == nil && st.NumChildren == 0 {
				break
			}
			if err := r.receive(ctx, -1, n, q, false, func() {}); err != nil {
				r.t.Errorf("%d entries are left in queue %d: %v", st.NumChildren, n, err)
				return
			}
		}
		if vanished := r.queues.empty(n); vanished > r.queues.unknown[n] {
			r.t.Errorf("queue %d: %d items vanished, %d takes are unknown", n, vanished, r.queues.unknown[n])
		}
	}
	if err := overtaken(onlyQueue(r.queues.h.ops, 0)); err != nil {
		r.t.Error(err)
	}
}

// empty notes that a queue has no items any more, and returns how many are gone that nobody has removed.
func (c *queueCheck) empty(n int) (vanished int) {
	removed := map[string]bool{}
	for _, o := range c.h.ops {
		if in := o.Input.(queueIn); in.queue == n && (in.step == queueAcked || in.step == queueTaken || in.step == queuePut && o.Return == forever) {
			removed[in.item] = true
		}
	}
	for item := range c.items[n] {
		c.h.add(-1, c.h.now(), queueIn{queue: n, item: item, step: queueMissing}, queueOut{unknown: c.unknown[n] > 0}, c.h.now())
		if !removed[item] {
			vanished++
		}
	}
	return vanished
}

func onlyQueue(ops []porcupine.Operation, n int) (list []porcupine.Operation) {
	for _, o := range ops {
		if o.Input.(queueIn).queue == n {
			list = append(list, o)
		}
	}
	return list
}

func TestQueueChecker(t *testing.T) {
	in := func(step queueStep, claim int) queueIn { return queueIn{item: "a", step: step, claim: claim} }
	put := did(1, 2, in(queuePut, 0), queueOut{})
	maybe := did(1, forever, in(queuePut, 0), queueOut{unknown: true})
	first := did(3, 4, in(queueReceived, 1), queueOut{})
	empty := did(20, 21, in(queueMissing, 0), queueOut{})
	judge(t, queueing, []judged{
		{"received, given back, received, acknowledged", true, []porcupine.Operation{
			put, first, did(5, forever, in(queueReturned, 1), queueOut{}), did(6, 8, in(queueReceived, 2), queueOut{again: true}), did(9, 10, in(queueAcked, 2), queueOut{}), empty,
		}},
		{"unknown, never there", true, []porcupine.Operation{maybe, empty}},
		{"unknown, and received", true, []porcupine.Operation{maybe, first, did(5, 6, in(queueAcked, 1), queueOut{}), empty}},
		{"never put", false, []porcupine.Operation{first}},
		{"lost", false, []porcupine.Operation{put, empty}},
		{"claimed by two", false, []porcupine.Operation{put, first, did(5, 6, in(queueReceived, 2), queueOut{again: true})}},
		{"acknowledged twice", false, []porcupine.Operation{
			put, first, did(5, forever, in(queueReturned, 1), queueOut{}), did(6, 8, in(queueReceived, 2), queueOut{again: true}), did(9, 10, in(queueAcked, 1), queueOut{}), did(11, 12, in(queueAcked, 2), queueOut{}),
		}},
		{"delivered again, and says it is new", false, []porcupine.Operation{put, first, did(5, 6, in(queueReturned, 1), queueOut{}), did(7, 8, in(queueReceived, 2), queueOut{})}},
		{"taken twice", false, []porcupine.Operation{put, did(3, 4, in(queueTaken, 0), queueOut{}), did(5, 6, in(queueTaken, 0), queueOut{})}},
		{"taken while claimed", false, []porcupine.Operation{put, first, did(5, 6, in(queueTaken, 0), queueOut{}), did(7, 8, in(queueAcked, 1), queueOut{})}},
		{"back after it was removed", false, []porcupine.Operation{put, first, did(5, 6, in(queueAcked, 1), queueOut{}), did(7, 8, in(queueReceived, 2), queueOut{again: true})}},
	})
}

func TestOvertaken(t *testing.T) {
	op := func(call, returned int64, item string, step queueStep, again bool) porcupine.Operation {
		return did(call, returned, queueIn{item: item, step: step, prio: 100}, queueOut{again: again})
	}
	a, b := op(1, 2, "a", queuePut, false), op(3, 4, "b", queuePut, false)
	for _, c := range []struct {
		name string
		ok   bool
		ops  []porcupine.Operation
	}{
		{"in order", true, []porcupine.Operation{a, b, op(5, 6, "a", queueReceived, false), op(7, 8, "b", queueReceived, false)}},
		{"at the same time", true, []porcupine.Operation{a, b, op(5, 6, "b", queueReceived, false), op(5, 8, "a", queueReceived, false)}},
		{"the first was claimed before", true, []porcupine.Operation{a, b, op(5, 6, "b", queueReceived, false), op(7, 8, "a", queueReceived, true)}},
		{"overtaken", false, []porcupine.Operation{a, b, op(5, 6, "b", queueReceived, false), op(7, 8, "a", queueReceived, false)}},
		{"overtaken by one that was taken", false, []porcupine.Operation{a, b, op(5, 6, "b", queueTaken, false), op(7, 8, "a", queueReceived, false)}},
	} {
		if err := overtaken(c.ops); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
