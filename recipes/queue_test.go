// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

type intQueue = recipes.Queue[int]

func newQueue(s zk.SessionSource) *intQueue { return recipes.NewQueue[int](s, "/q") }

// take takes n items that are there.
func take(t *testing.T, ctx context.Context, q *intQueue, n int) (items []int) {
	t.Helper()
	for range n {
		v, ok, err := q.TryTake(ctx)
		must(t, err)
		if !ok {
			t.Fatalf("empty after %v", items)
		}
		items = append(items, v)
	}
	return items
}

func same(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func empty(t *testing.T, ctx context.Context, q *intQueue) {
	t.Helper()
	if v, ok, err := q.TryTake(ctx); ok || err != nil {
		t.Fatalf("there is %d, %v", v, err)
	}
}

type receipt struct {
	m   *recipes.Message[int]
	err error
}

// receiving starts a Receive and returns when it waits, or has something.
func receiving(ctx context.Context, q *intQueue) <-chan receipt {
	ch := make(chan receipt, 1)
	go func() {
		m, err := q.Receive(ctx)
		ch <- receipt{m, err}
	}()
	synctest.Wait()
	return ch
}

func received(t *testing.T, ch <-chan receipt, want int) *recipes.Message[int] {
	t.Helper()
	r := soon(t, "nothing received", ch)
	must(t, r.err)
	if r.m.Value != want {
		t.Fatalf("received %d, want %d", r.m.Value, want)
	}
	return r.m
}

func receive(t *testing.T, ctx context.Context, q *intQueue, want int) *recipes.Message[int] {
	t.Helper()
	return received(t, receiving(ctx, q), want)
}

func names(t *testing.T, ctx context.Context, s *zk.Session, path string) []string {
	t.Helper()
	list, _, err := s.Children(ctx, path, zk.Linearizable)
	if !errors.Is(err, zk.ErrNoNode) {
		must(t, err)
	}
	return list
}

func TestQueueOrder(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q, far := newQueue(s), newQueue(session(t, ctx, c.Member(1)))
		empty(t, ctx, q)
		for i := range 20 {
			must(t, []*intQueue{q, far}[i%2].Put(ctx, i))
		}
		for i := range 10 { // Q-S4
			must(t, receive(t, ctx, []*intQueue{q, far}[i/5], i).Ack(ctx))
		}
		same(t, "first in, first out", take(t, ctx, q, 10), 10, 11, 12, 13, 14, 15, 16, 17, 18, 19) // Q-S4
		for i, prio := range []int{100, 0, 999, 101, 99, 0, 100} {
			must(t, far.PutPriority(ctx, i, prio))
		}
		same(t, "by priority, then number", take(t, ctx, q, 7), 1, 5, 4, 0, 6, 3, 2) // Q-S4
		wants(t, q.PutPriority(ctx, 1, -1), zk.ErrBadArguments)
		wants(t, q.PutPriority(ctx, 1, 1000), zk.ErrBadArguments)
		// All kinds have priority 100, and are due.
		now := s.Now()
		must(t, q.PutID(ctx, 0, "zebra"))
		must(t, q.PutAt(ctx, 1, now.Add(-2*time.Second)))
		must(t, q.Put(ctx, 2))
		must(t, q.PutAt(ctx, 3, now.Add(-time.Second)))
		must(t, q.PutID(ctx, 4, "ant"))
		must(t, q.PutAll(ctx, 5, 6))
		must(t, q.PutID(ctx, 7, "="))
		must(t, q.PutPriority(ctx, 8, 100))
		same(t, "kinds of one priority go by number", take(t, ctx, q, 9), 0, 1, 2, 3, 4, 5, 6, 7, 8) // Q-S4
		empty(t, ctx, q)
		must(t, c.Quiesce(ctx))
	})
}

// Numbers that have grown past ten digits follow the others, although by name they come first.
func TestQueueNumbersGrow(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for layout, prefix := range map[recipes.Layout]string{0: "/q/entries/entry-100-", recipes.Kazoo: "/q/entries/entry-100-", recipes.Curator: "/q/queue-"} {
			q := newQueue(s)
			q.Layout = layout
			must(t, q.Put(ctx, 0)) // so that the directory is there
			take(t, ctx, q, 1)
			for i, n := range []int64{99_999_999_999, 9_999_999_998, 10_000_000_000, 9_999_999_999, 100_000_000_000, 10_000_000_001} {
				data := []byte(fmt.Sprint(i))
				if layout == recipes.Curator {
					data = curator(string(data))
				}
				_, err := s.Create(ctx, fmt.Sprint(prefix, n), data, zk.Persistent)
				must(t, err)
			}
			m := receive(t, ctx, q, 1)
			same(t, "by number", take(t, ctx, q, 3), 3, 2, 5) // PEER-16, Q-S4, E11
			must(t, m.Nack(ctx, 0))
			same(t, "by number", take(t, ctx, q, 3), 1, 0, 4) // PEER-16, Q-S4, E11
		}
	})
}

// Items with a delay are received when they are due by the ensemble's time, neither sooner nor much later, and
// hold up nobody until then.
func TestQueueDelays(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		q := newQueue(s)
		began := s.Now()
		must(t, q.PutAt(ctx, 99, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)))
		must(t, q.PutAt(ctx, 98, time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)))
		must(t, q.PutAfter(ctx, 3, 3*time.Minute))
		must(t, q.PutAfter(ctx, 1, time.Minute))
		must(t, q.PutAt(ctx, 2, began.Add(2*time.Minute)))
		empty(t, ctx, q)
		if _, ok, err := q.Peek(ctx); ok || err != nil {
			t.Errorf("it is not due: %v", err)
		}
		ch := receiving(ctx, q)
		still(t, "nothing is due", ch)
		must(t, newQueue(c.Member(0)).Put(ctx, 0)) // comes earlier than the one that is waited for
		must(t, received(t, ch, 0).Ack(ctx))
		for i := 1; i <= 3; i++ {
			m := receive(t, ctx, q, i)
			if took, want := s.Now().Sub(began), time.Duration(i)*time.Minute; took < want || took > want+time.Second {
				t.Errorf("item %d after %v", i, took)
			}
			must(t, m.Ack(ctx))
		}
		// One that is overdue is not behind one that is not.
		must(t, q.PutAt(ctx, 4, time.Time{}))
		must(t, q.PutAt(ctx, 5, s.Now()))
		same(t, "overdue", take(t, ctx, q, 2), 4, 5)
		empty(t, ctx, q)
		if n, err := q.Len(ctx); n != 2 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func TestQueueIDs(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		q := newQueue(session(t, ctx, c.Member(0)))
		ids := []string{"a", "=", "==", "-", "a=-", "a-0000000000", "%3D", "%", "/", "..", "\x00\xff", "é\U0001F600", "@0000000000001-", strings.Repeat("/", 512)}
		for i, id := range ids {
			must(t, q.PutID(ctx, i, id))
			must(t, q.PutID(ctx, 100+i, id))
		}
		n, err := q.Len(ctx)
		must(t, err)
		if n != 2*len(ids) { // Q-S6
			t.Errorf("%d entries", n)
		}
		m := receive(t, ctx, q, 0)
		for i, id := range ids {
			n, err := q.Remove(ctx, id)
			must(t, err)
			if want := 2 - max(1-i, 0); n != want { // the claimed one stays
				t.Errorf("%q: %d were removed, want %d", id, n, want)
			}
		}
		must(t, m.Nack(ctx, 0))
		same(t, "what was claimed", take(t, ctx, q, 1), 0)
		if n, err := q.Remove(ctx, "a"); n != 0 || err != nil {
			t.Errorf("%d removed, %v", n, err)
		}
		// What is given back with a delay keeps its id.
		for i, id := range ids {
			must(t, q.PutID(ctx, i, id))
			must(t, receive(t, ctx, q, i).Nack(ctx, time.Minute))
		}
		empty(t, ctx, q)
		for i, id := range ids[1:] {
			n, err := q.Remove(ctx, id)
			must(t, err)
			if n != 1 {
				t.Errorf("%q: %d were removed", ids[i+1], n)
			}
		}
		m = receive(t, ctx, q, 0)
		must(t, m.Nack(ctx, time.Minute)) // again
		if n, err := q.Remove(ctx, ids[0]); n != 1 || err != nil {
			t.Errorf("%d were removed, %v", n, err)
		}
		wants(t, q.PutID(ctx, 1, ""), zk.ErrBadArguments)
		wants(t, q.PutID(ctx, 1, strings.Repeat("x", 513)), zk.ErrBadArguments)
		empty(t, ctx, q)
	})
}

// A removal whose context ends on its way is told as unknown, beside the count of those that are certain.
func TestQueueRemoveUnknown(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		q := newQueue(session(t, ctx, c.Member(at)))
		must(t, q.PutID(ctx, 1, "a"))
		must(t, q.PutID(ctx, 2, "a"))
		c.Isolate(at)
		brief, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		n, err := q.Remove(brief, "a")
		wants(t, err, context.DeadlineExceeded)
		if n != 0 || !zk.MaybeApplied(err) {
			t.Errorf("%d were removed, %v", n, err)
		}
		c.Heal()
		if n, err := q.Remove(ctx, "a"); n != 1 || err != nil { // the member went on with the other one
			t.Errorf("%d were removed, %v", n, err)
		}
		empty(t, ctx, q)
	})
}

// counter follows the number of entries through every change.
func counter(t *testing.T, ctx context.Context, s *zk.Session, dir string, check func(n int, ev zk.Event)) (end func()) {
	t.Helper()
	w, err := s.Watch(ctx, dir, zk.WatchSubtree)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := 0
		for ev := range w.Events() {
			if strings.Count(ev.Path, "/") != strings.Count(dir, "/")+1 {
				continue // the directory, or the mark of a claim
			}
			switch ev.Type {
			case zk.EventOverflow:
				t.Error("too slow")
			case zk.EventCreated:
				n++
			case zk.EventDeleted:
				n--
			}
			check(n, ev)
		}
	}()
	return func() {
		must(t, s.Sync(ctx))
		w.Close()
		<-done
	}
}

// However many put at once, there are never more than MaxItems entries, and everybody gets room in the end.
func TestQueueBounded(t *testing.T) {
	for dir, layout := range map[string]recipes.Layout{"/q/entries": recipes.Kazoo, "/q": recipes.CuratorDelay} {
		t.Run(layout.String(), func(t *testing.T) {
			bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 1 << 16}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				queueBounded(t, ctx, c, layout, dir)
			})
		})
	}
}

func queueBounded(t *testing.T, ctx context.Context, c *zktest.Cluster, layout recipes.Layout, dir string) {
	const limit, producers, each = 5, 18, 20
	most := 0
	end := counter(t, ctx, session(t, ctx, c.Member(0)), dir, func(n int, ev zk.Event) {
		if most = max(most, n); n > limit { // Q-S5
			t.Errorf("zxid %v: %d entries", ev.Zxid, n)
		}
	})
	queues := [3]*intQueue{}
	for i := range queues {
		queues[i] = newQueue(c.Member(i))
		queues[i].MaxItems, queues[i].Layout = limit, layout
	}
	put := started(producers, func(i int) error {
		for range each {
			err := queues[i%3].Put(ctx, 1)
			if i%6 == 0 {
				err = queues[i%3].PutAll(ctx, 1, 1, 1)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	time.Sleep(time.Second)
	ended, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	wants(t, queues[0].Put(ended, 1), context.DeadlineExceeded)
	wants(t, queues[0].PutAll(ctx, 1, 2, 3, 4, 5, 6), zk.ErrBadArguments)
	total := (producers/6)*each*4 + (producers-producers/6)*each
	for i := range total {
		q := queues[i%3]
		if i%7 != 0 {
			_, err := q.Take(ctx)
			must(t, err)
			continue
		}
		m, err := q.Receive(ctx)
		must(t, err)
		if i%2 == 0 { // a delay makes it a new entry, in the same transaction
			must(t, m.Nack(ctx, time.Millisecond))
			time.Sleep(2 * time.Millisecond)
			m, err = q.Receive(ctx)
			must(t, err)
		}
		must(t, m.Ack(ctx))
	}
	all(t, "put", producers, put)
	end()
	if most != limit {
		t.Errorf("at most %d entries of %d", most, limit)
	}
	empty(t, ctx, queues[1])
	ops, err := queues[0].PutOps(1, 2, 3, 4, 5)
	must(t, err)
	s := session(t, ctx, c.Member(2))
	_, err = s.Txn(ctx, ops...)
	must(t, err)
	_, err = s.Txn(ctx, ops...)
	wants(t, err, zk.ErrGuard) // Q-S5
}

type unencodable struct{}

func (unencodable) Encode(v int) ([]byte, error) {
	if v < 0 {
		return nil, errors.New("negative")
	}
	return fmt.Append(nil, v), nil
}

func (unencodable) Decode([]byte) (int, error) { return 0, errors.New("no") }

// Items that are put together stand together, whoever else puts, and go in together or not at all.
func TestQueuePutAll(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		done := started(3, func(i int) error {
			q := newQueue(c.Member(i))
			for range 30 {
				if i == f {
					c.DropForwards(i, 1)
				}
				if err := q.PutAll(ctx, 10*i, 10*i+1, 10*i+2); err != nil {
					return err
				}
			}
			return nil
		})
		all(t, "put", 3, done)
		q := newQueue(c.Member(0))
		items := take(t, ctx, q, 270)
		for i := 0; i < len(items); i += 3 {
			same(t, "put together", items[i:i+3], items[i], items[i]+1, items[i]+2)
		}
		empty(t, ctx, q)
		q.Codec = unencodable{}
		if err := q.PutAll(ctx, 1, -1); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("error %v", err)
		}
		must(t, q.PutAll(ctx))
		s := session(t, ctx, c.Member(1))
		ops, err := newQueue(s).PutOps(1, 2)
		must(t, err)
		_, err = s.Txn(ctx, append(ops, zk.OpCheck("/missing", 0))...)
		wants(t, err, zk.ErrNoNode)
		if n, _ := newQueue(s).Len(ctx); n != 0 {
			t.Errorf("%d entries of a transaction that failed", n)
		}
		_, err = s.Txn(ctx, append(ops, zk.OpCreate("/with", nil, zk.Persistent))...)
		must(t, err)
		same(t, "with another step", take(t, ctx, newQueue(s), 2), 1, 2)
	})
}

func TestQueueMessage(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q, far := newQueue(s), newQueue(session(t, ctx, c.Member(1)))
		put := func(items ...int) { t.Helper(); must(t, q.PutAll(ctx, items...)) }
		put(1, 2, 3)
		m := receive(t, ctx, q, 1)
		if m.Redelivered() || !m.Valid() || m.Session() != s {
			t.Errorf("redelivered %v, valid %v", m.Redelivered(), m.Valid())
		}
		must(t, session(t, ctx, c.Member(1)).Sync(ctx))
		other := receive(t, ctx, far, 2) // not what is claimed
		if n, err := q.Len(ctx); n != 3 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
		if v, ok, err := q.Peek(ctx); v != 3 || !ok || err != nil {
			t.Errorf("peek: %d, %v, %v", v, ok, err)
		}
		must(t, m.Ack(ctx))
		wants(t, m.Ack(ctx), recipes.ErrReleased) // Q-S1
		wants(t, m.Err(), recipes.ErrReleased)
		// A step of the caller's that fails leaves everything as it is; its error is the caller's.
		_, err := other.Session().Create(ctx, "/there", nil, zk.Persistent)
		must(t, err)
		err = other.AckWith(ctx, zk.OpSet("/there", []byte("done"), zk.AnyVersion), zk.OpCreate("/there", nil, zk.Persistent))
		wants(t, err, zk.ErrNodeExists)
		if txn, ok := errors.AsType[*zk.TxnError](err); !ok || txn.Index != 1 || len(txn.Steps) != 2 {
			t.Errorf("error %#v", txn)
		}
		if other.Err() != nil || len(names(t, ctx, s, "/q/entries")) != 2 {
			t.Errorf("%v", other.Err())
		}
		must(t, other.AckWith(ctx, zk.OpSet("/there", []byte("done"), zk.AnyVersion)))
		if data, _, _ := s.Get(ctx, "/there", zk.Linearizable); string(data) != "done" {
			t.Errorf("%q", data)
		}
		// Given back, it is the next one again, and known to have been claimed.
		m = receive(t, ctx, q, 3)
		put(4)
		must(t, m.Release(ctx))
		m = receive(t, ctx, q, 3)
		if !m.Redelivered() {
			t.Error("it was claimed before")
		}
		must(t, m.Nack(ctx, 0))
		must(t, m.Nack(ctx, 0))
		wants(t, m.Ack(ctx), recipes.ErrReleased)
		m = receive(t, ctx, q, 3)
		must(t, m.Nack(ctx, time.Minute))
		must(t, receive(t, ctx, q, 4).Ack(ctx))
		ch := receiving(ctx, q)
		still(t, "it is not due", ch)
		began := time.Now()
		must(t, received(t, ch, 3).Ack(ctx))
		if took := time.Since(began); took < 50*time.Second {
			t.Errorf("it was back after %v", took)
		}
		wants(t, m.Ack(nil), zk.ErrBadArguments)     //nolint:staticcheck // that is the point
		wants(t, m.Nack(nil, 0), zk.ErrBadArguments) //nolint:staticcheck // that is the point
		eventually(t, "something is left", func() bool { return len(names(t, ctx, s, "/q/taken"))+len(names(t, ctx, s, "/q/entries")) == 0 })
	})
}

// An acknowledgement whose caller stopped waiting goes on, and whoever asks again is told.
func TestQueueAckAgain(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		q := newQueue(session(t, ctx, c.Member(f)))
		must(t, q.PutAll(ctx, 1, 2))
		m, other := receive(t, ctx, q, 1), receive(t, ctx, q, 2)
		c.Isolate(f)
		some, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := m.Ack(some)
		wants(t, err, context.DeadlineExceeded)
		if !zk.MaybeApplied(err) {
			t.Errorf("nobody knows: %v", err)
		}
		again := started(1, func(int) error { return m.Ack(ctx) })
		some, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := m.Ack(some); !zk.MaybeApplied(err) {
			t.Errorf("nobody knows: %v", err)
		}
		c.Heal()
		all(t, "acknowledged", 1, again) // Q-S1
		must(t, other.Ack(ctx))
		empty(t, ctx, q)
	})
}

// Take and TryTake see what was put anywhere before they were called.
func TestQueueTryTake(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l, f := leader(t, ctx, c), follower(t, ctx, c)
		q, far := newQueue(session(t, ctx, c.Member(l))), newQueue(session(t, ctx, c.Member(f)))
		for i := range 50 {
			must(t, q.Put(ctx, i))
			same(t, "put elsewhere", take(t, ctx, far, 1), i)
			empty(t, ctx, q)
			empty(t, ctx, far)
		}
		c.Isolate(f)
		must(t, q.Put(ctx, 50))
		some, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if v, ok, err := far.TryTake(some); err == nil {
			t.Errorf("cut off, it says %d, %v", v, ok)
		}
		c.Heal()
		same(t, "healed", take(t, ctx, far, 1), 50)
		claimed := receiving(ctx, q)
		must(t, far.Put(ctx, 51))
		m := received(t, claimed, 51)
		empty(t, ctx, far)
		must(t, m.Release(ctx))
		same(t, "given back", take(t, ctx, far, 1), 51)
	})
}

// What cannot be decoded is reported once by each consumer's Queue, passed over, and kept.
func TestQueueDecodeError(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q := newQueue(s)
		must(t, q.Put(ctx, 1))
		z, err := s.Create(ctx, "/q/entries/entry-100-", []byte("{"), zk.Sequential)
		must(t, err)
		must(t, q.Put(ctx, 2))
		some, cancel := context.WithCancel(ctx)
		defer cancel()
		var got []int
		bad := 0
		for m, err := range q.Messages(some) {
			decode, ok := errors.AsType[*recipes.DecodeError](err)
			switch {
			case ok: // Q-S7
				if bad++; decode.Path != z.Path || decode.Zxid != z.Stat.Mzxid || decode.Unwrap() == nil || m != nil {
					t.Errorf("error %+v", decode)
				}
			case err != nil:
				wants(t, err, context.Canceled)
			default:
				got = append(got, m.Value)
				must(t, m.Ack(ctx))
				if m.Value == 2 {
					cancel()
				}
			}
		}
		same(t, "the stream goes on", got, 1, 2)
		if bad != 1 {
			t.Errorf("%d reports", bad)
		}
		same(t, "what is kept", []int{len(names(t, ctx, s, "/q/entries")), len(names(t, ctx, s, "/q/taken"))}, 1, 0) // Q-S7
		empty(t, ctx, q)
		_, _, err = newQueue(s).TryTake(ctx)
		if _, ok := errors.AsType[*recipes.DecodeError](err); !ok {
			t.Errorf("another consumer is told %v", err)
		}
		_, _, err = newQueue(s).Peek(ctx)
		if _, ok := errors.AsType[*recipes.DecodeError](err); !ok {
			t.Errorf("another consumer is told %v", err)
		}
		_, err = s.Set(ctx, z.Path, []byte("3"), zk.AnyVersion) // somebody mends it
		must(t, err)
		same(t, "it was mended", take(t, ctx, q, 1), 3)
	})
}

// Leaving the loop of Messages leaves no claim but the last message's.
func TestQueueMessages(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q := newQueue(s)
		must(t, q.PutAll(ctx, 1, 2, 3))
		for m, err := range q.Messages(ctx) {
			must(t, err)
			if m.Value == 2 {
				break
			}
			must(t, m.Ack(ctx))
		}
		same(t, "entries and claims", []int{len(names(t, ctx, s, "/q/entries")), len(names(t, ctx, s, "/q/taken"))}, 2, 1)
		must(t, c.Expire(ctx, s))
		for m, err := range q.Messages(ctx) {
			if wants(t, err, zk.ErrSessionExpired); m != nil {
				t.Error(m.Value)
			}
		}
	})
}

// kazoo's LockingQueue and ours share one path; what is no entry is passed over.
func TestQueueOthers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, kazoo := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		put := func(name, data string) {
			t.Helper()
			_, err := kazoo.Create(ctx, "/q/entries/"+name, []byte(data), zk.Parents)
			must(t, err)
		}
		for _, name := range []string{"queue-0000000000", "entry-", "entry-x", "entry-100-", "entry-50-0000000000", "entry-0100-0000000000", "entry-100-==-0000000000", "entry-100-@5-0000000000",
			"entry-100-=", "entry-100-@", "entry-200-xxxxxxxxxx", "lock", "ENTRY-100-0000000000"} {
			put(name, "foreign")
		}
		put("entry-100-0000000010", "1") // as kazoo writes them
		put("entry-100-0000000011", "2")
		put("entry-050-0000000012", "0")
		q := newQueue(s)
		same(t, "kazoo's entries", take(t, ctx, q, 2), 0, 1)
		// Its consumers claim by the same znode: an entry they have is not ours, and one we have is not theirs.
		_, err := kazoo.Create(ctx, "/q/taken/entry-100-0000000011", []byte("kazoo"), zk.Ephemeral|zk.Parents)
		must(t, err)
		empty(t, ctx, q)
		ch := receiving(ctx, q)
		still(t, "kazoo has it", ch)
		must(t, kazoo.Close())
		m := received(t, ch, 2)
		_, err = s.Create(ctx, "/q/taken/entry-100-0000000011", nil, zk.Ephemeral)
		wants(t, err, zk.ErrNodeExists)
		must(t, m.Ack(ctx))
		if n := len(names(t, ctx, s, "/q/entries")); n != 13 {
			t.Errorf("%d foreign children", n)
		}
	})
}

func TestQueueEvents(t *testing.T) {
	type scene struct {
		*testing.T
		ctx    context.Context
		c      *zktest.Cluster
		f      int         // a follower, where the consumer is
		s, far *zk.Session // the consumer's, and that of another on a member that stays
		q, alt *intQueue

		entries, claims string // directories
	}
	// away cuts the consumer's member off until it needs a snapshot to come back.
	away := func(t *scene, meanwhile func()) {
		leaveBehind(t.T, t.ctx, t.c, t.f, t.far, meanwhile)
		t.c.Heal()
	}
	lost := func(t *scene, m *recipes.Message[int], cause ...error) {
		t.Helper()
		soon(t.T, "lost", m.Lost())
		wants(t.T, m.Ack(t.ctx), append(cause, recipes.ErrLost)...)
	}
	for name, run := range map[string]func(t *scene){
		"session expires, waiting": func(t *scene) {
			done := started(5, func(i int) error {
				_, err := t.q.Receive(t.ctx)
				if i > 2 {
					_, err = t.q.Take(t.ctx)
				}
				return err
			})
			must(t.T, t.c.Expire(t.ctx, t.s))
			for range 5 {
				wants(t.T, soon(t.T, "expired", done), zk.ErrSessionExpired)
			}
		},
		"session expires, claimed": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			m := receive(t.T, t.ctx, t.q, 1)
			ch := receiving(t.ctx, t.alt)
			must(t.T, t.c.Expire(t.ctx, t.s))
			again := received(t.T, ch, 1) // Q-L1, Q-S3
			if !again.Redelivered() {
				t.Error("it was claimed before")
			}
			must(t.T, again.Ack(t.ctx))
			lost(t, m) // Q-S1
		},
		"suspended, claimed": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			m := receive(t.T, t.ctx, t.q, 1)
			t.c.Isolate(t.f)
			lost(t, m, zk.ErrSuspended) // Q-S1
			empty(t.T, t.ctx, t.alt)    // the claim stands until the session is over, or back
			t.c.Heal()
			must(t.T, receive(t.T, t.ctx, t.alt, 1).Ack(t.ctx))
		},
		"suspended, waiting": func(t *scene) {
			ch := receiving(t.ctx, t.q)
			t.c.Isolate(t.f)
			time.Sleep(t.s.Timeout() * 95 / 100)
			must(t.T, t.alt.Put(t.ctx, 1))
			t.c.Heal()
			must(t.T, received(t.T, ch, 1).Ack(t.ctx))
		},
		"leader changes": func(t *scene) {
			must(t.T, t.alt.PutAll(t.ctx, 1, 2))
			must(t.T, t.s.Sync(t.ctx))
			m := receive(t.T, t.ctx, t.q, 1)
			must(t.T, receive(t.T, t.ctx, t.q, 2).Ack(t.ctx))
			ch := receiving(t.ctx, t.q)
			crashLeader(t.T, t.ctx, t.c)
			if !m.Valid() {
				t.Error(m.Err())
			}
			must(t.T, t.alt.Put(t.ctx, 3))
			must(t.T, received(t.T, ch, 3).Ack(t.ctx)) // Q-L2
			must(t.T, m.Ack(t.ctx))
		},
		"ctx ends, waiting": func(t *scene) {
			why := errors.New("why")
			some, cancel := context.WithCancelCause(t.ctx)
			done := started(40, func(i int) error {
				_, err := t.q.Receive(some)
				if i%2 == 0 {
					_, err = t.q.Take(some)
				}
				return err
			})
			cancel(why)
			for range 40 {
				wants(t.T, soon(t.T, "ended", done), context.Canceled, why)
			}
			synctest.Wait()
			if n := t.c.Member(t.f).Stats().Watches; n != 0 {
				t.Errorf("%d watches", n)
			}
		},
		"ctx ends, claiming": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			t.c.Isolate(t.f)
			some, cancel := context.WithTimeout(t.ctx, time.Second)
			defer cancel()
			_, err := t.q.Receive(some)
			wants(t.T, err, context.DeadlineExceeded)
			t.c.Heal()
			must(t.T, receive(t.T, t.ctx, t.alt, 1).Ack(t.ctx))
		},
		"ctx ends, taking": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			t.c.Isolate(t.f)
			some, cancel := context.WithTimeout(t.ctx, time.Second)
			defer cancel()
			_, err := t.q.Take(some)
			wants(t.T, err, context.DeadlineExceeded)
			if !zk.MaybeApplied(err) {
				t.Errorf("it may be gone: %v", err)
			}
			t.c.Heal()
			must(t.T, t.q.Put(t.ctx, 2))                             // comes after it
			same(t.T, "at most once", take(t.T, t.ctx, t.alt, 1), 2) // Q-S3
		},
		"process dies": func(t *scene) {
			must(t.T, t.alt.PutAll(t.ctx, 1, 2))
			must(t.T, t.s.Sync(t.ctx))
			receive(t.T, t.ctx, t.q, 1)
			must(t.T, t.c.Crash(t.f))
			began := time.Now()
			must(t.T, receive(t.T, t.ctx, t.alt, 2).Ack(t.ctx))
			must(t.T, receive(t.T, t.ctx, t.alt, 1).Ack(t.ctx)) // Q-S2, Q-L1
			if took := time.Since(began); took > t.s.Timeout()*3/2 {
				t.Errorf("redelivered after %v", took)
			}
		},
		"operator deletes the entry": func(t *scene) {
			must(t.T, t.q.Put(t.ctx, 1))
			m := receive(t.T, t.ctx, t.q, 1)
			must(t.T, t.s.Delete(t.ctx, t.entries+"/"+names(t.T, t.ctx, t.far, t.entries)[0], zk.AnyVersion))
			wants(t.T, m.Ack(t.ctx), recipes.ErrBroken)
			eventually(t.T, "the claim stays", func() bool { return len(names(t.T, t.ctx, t.far, t.claims)) == 0 })
		},
		"operator deletes the claim": func(t *scene) {
			must(t.T, t.q.Put(t.ctx, 1))
			m := receive(t.T, t.ctx, t.q, 1)
			must(t.T, t.s.Delete(t.ctx, m.Path(), zk.AnyVersion))
			lost(t, m, zk.ErrNoNode) // Q-S1
			must(t.T, receive(t.T, t.ctx, t.alt, 1).Ack(t.ctx))
		},
		"operator deletes the claim, another has it": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			m := receive(t.T, t.ctx, t.q, 1)
			t.c.Isolate(t.f)
			must(t.T, t.far.Delete(t.ctx, m.Path(), zk.AnyVersion))
			other := receive(t.T, t.ctx, t.alt, 1)
			late := started(1, func(int) error { return m.Ack(t.ctx) })
			t.c.Heal()
			wants(t.T, soon(t.T, "refused", late), recipes.ErrLost, zk.ErrNoNode) // Q-S1
			must(t.T, other.Ack(t.ctx))
		},
		"a snapshot is installed, waiting": func(t *scene) {
			ch := receiving(t.ctx, t.q)
			away(t, func() { must(t.T, t.alt.PutAll(t.ctx, 1, 2)) })
			must(t.T, received(t.T, ch, 1).Ack(t.ctx)) // Q-L2
			must(t.T, receive(t.T, t.ctx, t.q, 2).Ack(t.ctx))
		},
		"a snapshot is installed, claimed": func(t *scene) {
			must(t.T, t.alt.PutAll(t.ctx, 1, 2))
			must(t.T, t.s.Sync(t.ctx))
			m, gone := receive(t.T, t.ctx, t.q, 1), receive(t.T, t.ctx, t.q, 2)
			away(t, func() { must(t.T, t.far.Delete(t.ctx, gone.Path(), zk.AnyVersion)) })
			lost(t, gone, zk.ErrNoNode)
			if !m.Valid() {
				t.Error(m.Err())
			}
			must(t.T, m.Ack(t.ctx))
			must(t.T, receive(t.T, t.ctx, t.q, 2).Ack(t.ctx)) // Q-S2
		},
		"operator deletes everything": func(t *scene) {
			ch := receiving(t.ctx, t.q)
			must(t.T, t.alt.Put(t.ctx, 1))
			m := received(t.T, ch, 1)
			ch = receiving(t.ctx, t.q)
			must(t.T, t.far.DeleteTree(t.ctx, "/q"))
			if t.claims == "/q-locks" {
				must(t.T, t.far.DeleteTree(t.ctx, t.claims))
			}
			lost(t, m, zk.ErrNoNode)
			must(t.T, t.alt.Put(t.ctx, 2))
			must(t.T, received(t.T, ch, 2).Ack(t.ctx))
		},
	} {
		for _, layout := range []recipes.Layout{recipes.Kazoo, recipes.Curator, recipes.CuratorDelay} {
			t.Run(fmt.Sprint(name, ", ", layout), func(t *testing.T) {
				bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					l := leader(t, ctx, c)
					s := &scene{T: t, ctx: ctx, c: c, f: (l + 1) % 3, entries: "/q", claims: "/q-locks"}
					if layout == recipes.Kazoo {
						s.entries, s.claims = "/q/entries", "/q/taken"
					}
					s.s, s.far = session(t, ctx, c.Member(s.f)), session(t, ctx, c.Member((l+2)%3))
					_, err := s.far.Create(ctx, "/else", nil, zk.Persistent)
					must(t, err)
					s.q, s.alt = newQueue(s.s), newQueue(s.far)
					s.q.Layout, s.alt.Layout = layout, layout
					run(s)
					if s.far.Err() == nil {
						empty(t, ctx, s.alt)
						eventually(t, "a claim is left", func() bool { return len(names(t, ctx, s.far, s.claims)) == 0 })
					}
				})
			})
		}
	}
}

// A consumer that gives up leaves what it was about to claim to those who wait beside it.
func TestQueueGivesUp(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := follower(t, ctx, c)
		s, far := session(t, ctx, c.Member(f)), newQueue(session(t, ctx, c.Member((f+1)%3)))
		for _, kind := range []string{"receive", "take", "try"} {
			q := newQueue(s)
			must(t, far.Put(ctx, 1))
			must(t, s.Sync(ctx))
			c.Isolate(f)
			// A write that is under way keeps those behind it in the queue of the member.
			busy := started(1, func(int) error { _, err := s.Create(ctx, "/busy-", nil, zk.Sequential); return err })
			some, cancel := context.WithTimeout(ctx, time.Second)
			first := started(1, func(int) (err error) {
				switch kind {
				case "receive":
					_, err = q.Receive(some)
				case "take":
					_, err = q.Take(some)
				case "try":
					_, _, err = q.TryTake(some)
				}
				return err
			})
			second := receiving(ctx, q)
			err := soon(t, "ended", first)
			cancel()
			wants(t, err, context.DeadlineExceeded)
			c.Heal()
			all(t, "healed", 1, busy)
			if zk.MaybeApplied(err) {
				t.Fatalf("it was to be withdrawn: %v", err)
			}
			must(t, received(t, second, 1).Ack(ctx))
		}
	})
}

// Several consumers on each of several members, while leaders die, members are cut off, answers are lost and sessions
// expire: what was put is acknowledged, each item once.
func TestQueueFaults(t *testing.T) {
	for seed := range uint64(3) {
		for _, layout := range []recipes.Layout{recipes.Kazoo, recipes.CuratorDelay} {
			t.Run(fmt.Sprint("seed ", seed, ", ", layout), func(t *testing.T) {
				bubble(t, 3, zktest.Config{Seed: seed, Base: zk.Config{SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
					queueFaults(t, ctx, c, layout)
				})
			})
		}
	}
}

func queueFaults(t *testing.T, ctx context.Context, c *zktest.Cluster, layout recipes.Layout) {
	const producers, each, consumers = 6, 40, 9
	var mu sync.Mutex
	sure, unsure, acked, told := map[int]int{}, map[int]int{}, map[int]int{}, map[int]int{}
	count := func(m map[int]int, v int) {
		mu.Lock()
		defer mu.Unlock()
		m[v]++
	}
	end, stop := context.WithCancel(ctx)
	var queues [3]struct {
		mu sync.Mutex
		m  *zk.Member
		q  *intQueue
	}
	queue := func(i int) *intQueue { // one for all on a member, as is advised
		h := &queues[i]
		h.mu.Lock()
		defer h.mu.Unlock()
		if m := c.Member(i); h.m != m {
			h.m, h.q = m, newQueue(m)
			h.q.Layout = layout
		}
		return h.q
	}
	var makers, crowd sync.WaitGroup
	for p := range producers {
		makers.Go(func() {
			for i := range each {
				v := p*each + i
				for {
					err := queue(p%3).Put(ctx, v)
					switch {
					case err == nil:
						count(sure, v)
					case zk.MaybeApplied(err):
						count(unsure, v)
					default:
						time.Sleep(50 * time.Millisecond)
						continue
					}
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	for w := range consumers {
		crowd.Go(func() {
			for end.Err() == nil {
				for m, err := range queue(w % 3).Messages(end) {
					if err != nil {
						break
					}
					time.Sleep(20 * time.Millisecond)
					if w%4 == 3 && m.Value%5 == 0 && !m.Redelivered() {
						m.Nack(end, time.Duration(m.Value%2)*time.Second)
						continue
					}
					switch err := m.Ack(ctx); {
					case err == nil:
						count(acked, m.Value)
					case zk.MaybeApplied(err):
						count(told, m.Value)
					}
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	for round := range 6 {
		time.Sleep(300 * time.Millisecond)
		switch l := leader(t, ctx, c); round % 4 {
		case 0:
			must(t, c.Crash(l))
			time.Sleep(3 * time.Second)
			must(t, c.Restart(ctx, l))
		case 1:
			c.Isolate((l + 1) % 3)
			time.Sleep(5 * time.Second)
		case 2:
			for i := range 20 {
				c.DropForwards((l+1)%3, 1+i%2)
				time.Sleep(30 * time.Millisecond)
			}
		case 3:
			s, err := c.Member((l + 2) % 3).Session(ctx)
			must(t, err)
			must(t, c.Member(l).KillSession(ctx, s.ID()))
		}
		c.Heal()
	}
	makers.Wait()
	q := newQueue(c.Member(leader(t, ctx, c)))
	q.Layout = layout
	eventually(t, "some are left", func() bool {
		n, err := q.Len(ctx)
		must(t, err)
		return n == 0
	})
	stop()
	crowd.Wait()
	for v := range producers * each {
		switch n := acked[v]; {
		case n > 1: // Q-S1
			t.Errorf("item %d was acknowledged %d times", v, n)
		case n+told[v] == 0 && sure[v] > 0: // Q-S2
			t.Errorf("item %d is lost", v)
		case n > 0 && sure[v]+unsure[v] == 0:
			t.Errorf("item %d was never put", v)
		}
	}
	claims := map[recipes.Layout]string{recipes.Kazoo: "/q/taken", recipes.CuratorDelay: "/q-locks"}[layout]
	eventually(t, "claims are left", func() bool { return len(names(t, ctx, session(t, ctx, c.Member(0)), claims)) == 0 })
	must(t, c.Quiesce(ctx))
	t.Logf("put %d and perhaps %d, acknowledged %d and perhaps %d", len(sure), len(unsure), len(acked), len(told))
}

// Each item is taken at most once whoever takes, and each that was put is taken.
func TestQueueTakeOnce(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const items = 300
		var mu sync.Mutex
		taken := map[int]int{}
		l := leader(t, ctx, c)
		done := started(12, func(i int) error {
			q := newQueue(c.Member((l + 1 + i%2) % 3)) // not shared: they are in each other's way
			for {
				v, err := q.Take(ctx)
				if err != nil || v < 0 {
					return err
				}
				mu.Lock()
				taken[v]++
				mu.Unlock()
			}
		})
		q := newQueue(c.Member((l + 1) % 3))
		for i := range items {
			if i == items/2 {
				must(t, c.Crash(l))
			}
			c.DropForwards((l+2)%3, i%2)
			must(t, q.Put(ctx, i))
		}
		for range 12 {
			must(t, q.Put(ctx, -1))
		}
		all(t, "taken", 12, done)
		for i := range items {
			if taken[i] != 1 { // Q-S3, Q-S2
				t.Errorf("item %d was taken %d times", i, taken[i])
			}
		}
	})
}

// A put is one write, a receive with its acknowledgement two, a take one; none asks the leader.
func TestQueueCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const n = 50
		m := c.Member(follower(t, ctx, c))
		q := newQueue(session(t, ctx, m))
		must(t, q.Put(ctx, 0))
		take(t, ctx, q, 1)
		for _, step := range []struct {
			what          string
			writes, reads int64 // for each
			do            func()
		}{
			{"put", 1, 0, func() { must(t, q.Put(ctx, 1)) }},
			{"receive and ack", 2, 12, func() { m, err := q.Receive(ctx); must(t, err); must(t, m.Ack(ctx)) }},
			{"put", 1, 0, func() { must(t, q.Put(ctx, 1)) }},
			{"take", 1, 8, func() { _, err := q.Take(ctx); must(t, err) }},
			{"put with an id", 1, 0, func() { must(t, q.PutID(ctx, 1, "id")) }},
			{"peek", 0, 10, func() { _, _, err := q.Peek(ctx); must(t, err) }},
			{"take", 1, 10, func() { _, err := q.Take(ctx); must(t, err) }},
		} {
			before := m.Stats()
			for range n {
				step.do()
			}
			after := m.Stats()
			if w, lin, r := after.Writes-before.Writes, after.LinearReads-before.LinearReads, after.Reads-before.Reads; w != n*step.writes || lin != 0 || r > n*step.reads {
				t.Errorf("%d times %s: %d writes, %d linearizable reads, %d reads", n, step.what, w, lin, r)
			}
		}
	})
}

// Of many idle consumers on a member one put wakes one, with all that follows of it.
func TestQueueWakesOne(t *testing.T) {
	reads := func(consumers int) (reads, watches int64) {
		bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			m := c.Member(0)
			q := newQueue(session(t, ctx, m))
			some, cancel := context.WithCancel(ctx)
			var got []*recipes.Message[int]
			done := started(consumers, func(int) error {
				m, err := q.Receive(some)
				if err == nil {
					got = append(got, m)
				}
				return err
			})
			before := m.Stats()
			must(t, newQueue(session(t, ctx, m)).Put(ctx, 1))
			all(t, "received", 1, done)
			synctest.Wait()
			reads, watches = m.Stats().Reads-before.Reads, m.Stats().Watches
			must(t, got[0].Ack(ctx))
			cancel()
			for range consumers - 1 {
				wants(t, soon(t, "ended", done), context.Canceled)
			}
		})
		return reads, watches
	}
	few, _ := reads(2)
	many, watches := reads(200)
	if many > few+5 || many > 30 || watches > 3 {
		t.Errorf("%d reads with 200 consumers, %d with 2; %d watches", many, few, watches)
	}
}

// What dequeuing costs does not depend on how much there is.
func TestQueueBacklog(t *testing.T) {
	backlog := size(1_000_000, 100_000)
	if testing.Short() {
		backlog = 20_000
	}
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		q := newQueue(s)
		items := make([]int, 1000)
		grow := func(n int) {
			for range n / len(items) {
				must(t, q.PutAll(ctx, items...))
			}
			must(t, m.Compact(ctx))
		}
		steps := map[string]func(){
			"take":            func() { _, err := q.Take(ctx); must(t, err) },
			"receive and ack": func() { m, err := q.Receive(ctx); must(t, err); must(t, m.Ack(ctx)) },
			"peek":            func() { _, _, err := q.Peek(ctx); must(t, err) },
		}
		cost := func(fn func()) (reads, scanned int64, allocs uint64) {
			const times = 100
			var before, after runtime.MemStats
			fn()
			was := m.Stats()
			runtime.ReadMemStats(&before)
			for range times {
				fn()
			}
			runtime.ReadMemStats(&after)
			st := m.Stats()
			return (st.Reads - was.Reads) / times, (st.Scanned - was.Scanned) / times, (after.Mallocs - before.Mallocs) / times
		}
		type price struct {
			reads, scanned int64
			allocs         uint64
		}
		small := map[string]price{}
		grow(1000)
		for what, fn := range steps {
			r, s, a := cost(fn)
			small[what] = price{r, s, a}
		}
		grow(backlog)
		for what, fn := range steps {
			r, s, a := cost(fn)
			if was := small[what]; r != was.reads || r > 12 || s > was.scanned || float64(a) > 1.5*float64(was.allocs)+50 { // Q-L3, PEER-48
				t.Errorf("%s: %d reads of %d entries and %d allocations with %d entries, %d, %d and %d with a thousand", what, r, s, a, backlog, was.reads, was.scanned, was.allocs)
			}
		}
	})
}

// Putting and taking leaves nothing in memory.
func TestQueueHeap(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		q := newQueue(session(t, ctx, m))
		cycles := func(n int) uint64 {
			for i := range n {
				if i%5000 == 0 { // no time passes here, which compacts the log elsewhere
					must(t, m.Compact(ctx))
				}
				must(t, q.Put(ctx, i))
				if i%2 == 0 {
					_, err := q.Take(ctx)
					must(t, err)
					continue
				}
				m, err := q.Receive(ctx)
				must(t, err)
				must(t, m.Ack(ctx))
			}
			must(t, m.Compact(ctx))
			var st runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&st)
			return st.HeapAlloc
		}
		before := cycles(6000) // its pools and buffers have their size then
		n := size(1_000_000, 5000)
		after := cycles(n)
		if grown := int64(after) - int64(before); grown > int64(size(1<<20, 256<<10)) { // Q-L4, PEER-52
			t.Errorf("the heap grew by %d bytes in %d cycles", grown, n)
		}
		st := m.Stats()
		if st.Watches != 0 || st.Ephemerals != 0 {
			t.Errorf("%d watches, %d ephemerals", st.Watches, st.Ephemerals)
		}
		residue(t, ctx, c, "/q")
	})
}

func TestQueueBadArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		wants(t, newQueue(nil).Put(ctx, 1), zk.ErrBadArguments)
		_, err := recipes.NewQueue[int](c.Member(0), "q").Receive(ctx)
		wants(t, err, zk.ErrBadArguments)
		_, err = newQueue(c.Member(0)).Take(nil) //nolint:staticcheck // that is the point
		wants(t, err, zk.ErrBadArguments)
		err = recipes.NewQueue[float64](c.Member(0), "/q").Put(ctx, math.NaN())
		if err == nil {
			t.Error("NaN is no JSON")
		}
		if n, err := newQueue(c.Member(0)).Len(ctx); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// The consumers that share a Queue are not in each other's way: no claim of theirs is refused.
func TestQueueShared(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const items = 400
		m := c.Member(follower(t, ctx, c))
		q := newQueue(session(t, ctx, m))
		for range items / 100 {
			must(t, q.PutAll(ctx, make([]int, 100)...))
		}
		before := m.Stats()
		done := started(20, func(i int) error {
			for range items / 20 {
				if i%2 == 0 {
					if _, err := q.Take(ctx); err != nil {
						return err
					}
					continue
				}
				m, err := q.Receive(ctx)
				if err == nil {
					err = m.Ack(ctx)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		all(t, "consumed", 20, done)
		after := m.Stats()
		if w, f := after.Writes-before.Writes, after.Failures-before.Failures; w != items*3/2 || f != 0 {
			t.Errorf("%d writes, %d of them refused", w, f)
		}
		empty(t, ctx, q)
	})
}
