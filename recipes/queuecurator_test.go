// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// curator makes an entry's data as Curator's producers do.
func curator(items ...string) []byte {
	b := []byte{0, 1, 0, 1}
	for _, item := range items {
		b = append(binary.BigEndian.AppendUint32(append(b, 1), uint32(len(item))), item...)
	}
	return append(b, 2)
}

func curatorQueue(s zk.SessionSource) *intQueue {
	return &intQueue{Session: s, Path: "/q", Layout: recipes.Curator}
}

// offer puts an entry as Curator's producers do, and returns its path.
func offer(t *testing.T, ctx context.Context, s *zk.Session, prefix string, items ...string) string {
	t.Helper()
	z, err := s.Create(ctx, "/q/"+prefix, curator(items...), zk.Sequential)
	must(t, err)
	return z.Path
}

// What is written is what Curator's consumers read: names, frames, claims, and directories that stay.
func TestCuratorQueueWrites(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q := curatorQueue(s)
		must(t, q.Put(ctx, 10))
		must(t, q.PutPriority(ctx, 11, 5))
		must(t, q.PutID(ctx, 12, "a/b|c"))
		must(t, q.PutAll(ctx, 13, 14))
		want := []string{"queue-0000000000", "queue-0000000003", "queue-0000000004", "queue-1000000050000000001", "queue-|a_b_c|0000000002"}
		if got := names(t, ctx, s, "/q"); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		data, _, err := s.Get(ctx, "/q/queue-1000000050000000001")
		must(t, err)
		if string(data) != string(curator("11")) {
			t.Errorf("%q", data)
		}
		m := receive(t, ctx, q, 10)
		st, ok, err := s.Exists(ctx, "/q-locks/queue-0000000000")
		must(t, err)
		if !ok || st.EphemeralOwner != s.ID() || m.Path() != "/q-locks/queue-0000000000" {
			t.Errorf("%q is not the claim", m.Path())
		}
		must(t, m.Ack(ctx))
		if n, err := q.Remove(ctx, "a/b|c"); n != 1 || err != nil {
			t.Errorf("%d removed, %v", n, err)
		}
		same(t, "those with a priority come last", take(t, ctx, q, 3), 13, 14, 11)
		// Curator creates the directories when it starts, and never again.
		time.Sleep(10 * time.Minute)
		for _, dir := range []string{"/q", "/q-locks"} {
			if _, ok, err := s.Exists(ctx, dir); !ok || err != nil {
				t.Errorf("%s is gone: %v", dir, err)
			}
		}

		// What a layout has no names for is refused, and nothing is changed.
		wants(t, q.PutAt(ctx, 1, time.Now()), zk.ErrBadArguments)
		wants(t, q.PutAfter(ctx, 1, 0), zk.ErrBadArguments)
		later := &intQueue{Session: s, Path: "/q", Layout: recipes.CuratorDelay}
		wants(t, later.PutPriority(ctx, 1, 5), zk.ErrBadArguments)
		wants(t, later.PutID(ctx, 1, "x"), zk.ErrBadArguments)
		odd := &intQueue{Session: s, Path: "/q", Layout: recipes.Selector}
		wants(t, odd.Put(ctx, 1), zk.ErrBadArguments)
		wants(t, odd.PutID(ctx, 1, "x"), zk.ErrBadArguments)
		_, err = odd.PutOps(1)
		wants(t, err, zk.ErrBadArguments)
		_, err = odd.Receive(ctx)
		wants(t, err, zk.ErrBadArguments)
		if n, err := q.Len(ctx); n != 0 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
		must(t, q.Put(ctx, 1))
		m = receive(t, ctx, q, 1)
		wants(t, m.Nack(ctx, time.Second), zk.ErrBadArguments)
		if !m.Valid() {
			t.Error(m.Err())
		}
		must(t, m.Nack(ctx, 0))
		same(t, "given back", take(t, ctx, q, 1), 1)

		ops, err := q.PutOps(1, 2)
		must(t, err)
		_, err = s.Txn(ctx, ops...)
		must(t, err)
		same(t, "in a transaction of the caller's", take(t, ctx, q, 2), 1, 2)
	})
}

// Items with a delay, as DistributedDelayQueue has them: in the order in which they are due, after those without one.
func TestCuratorQueueDelays(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		q := &intQueue{Session: s, Path: "/q", Layout: recipes.CuratorDelay}
		began := s.Now()
		must(t, q.PutAt(ctx, 3, began.Add(3*time.Minute)))
		must(t, q.PutAt(ctx, 99, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)))
		must(t, q.PutAfter(ctx, 2, 2*time.Minute))
		must(t, q.PutAt(ctx, -2, time.Time{}))
		must(t, q.PutAt(ctx, -1, began.Add(-time.Hour)))
		must(t, q.Put(ctx, -3))
		offer(t, ctx, s, "queue-|00000001|", "-4")
		same(t, "at once", take(t, ctx, q, 4), -3, -4, -2, -1)
		empty(t, ctx, q)
		ch := receiving(ctx, q)
		offer(t, ctx, s, "queue-|"+strings.ToUpper(hex(began.Add(time.Minute)))+"|", "1")
		for i := 1; i <= 3; i++ {
			m := received(t, ch, i)
			if took, want := s.Now().Sub(began), time.Duration(i)*time.Minute; took < want || took > want+time.Second {
				t.Errorf("item %d after %v", i, took)
			}
			must(t, m.Ack(ctx))
			ch = receiving(ctx, q)
		}
		must(t, q.Put(ctx, 4))
		must(t, received(t, ch, 4).Nack(ctx, time.Minute))
		empty(t, ctx, q)
		must(t, receive(t, ctx, q, 4).Ack(ctx))
		if n, err := q.Len(ctx); n != 1 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func hex(at time.Time) string {
	const digits = "0123456789abcdef"
	s := ""
	for ms := at.UnixMilli(); ms > 0; ms /= 16 {
		s = digits[ms%16:ms%16+1] + s
	}
	return s
}

// Curator's producers and consumers on the same path.
func TestCuratorQueueOthers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, other := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(0))
		for _, dir := range []string{"/q", "/q-locks"} { // as its start does
			_, err := other.Create(ctx, dir, nil, zk.Persistent)
			must(t, err)
		}
		q := curatorQueue(s)
		for _, name := range []string{"entries", "queue-", "queue-x", "queue-7b1cbe92-1c0f-4f0e-8a4c-0123456789ab"} {
			_, err := other.Create(ctx, "/q/"+name, nil, zk.Persistent)
			must(t, err)
		}
		empty(t, ctx, q)
		// Its priorities may be negative.
		for i, p := range []string{"100000007", "0FFFFFFFE", "100000000", "0FFFFFFFF", "", "100000007"} {
			offer(t, ctx, other, "queue-"+p, string(rune('0'+i)))
		}
		same(t, "as strings", take(t, ctx, q, 6), 4, 1, 3, 2, 0, 5)

		// A claim of ours is a lock of Curator's, and the other way round.
		path := offer(t, ctx, other, "queue-", "1")
		lock := "/q-locks" + strings.TrimPrefix(path, "/q")
		_, err := other.Create(ctx, lock, nil, zk.Ephemeral)
		must(t, err)
		empty(t, ctx, q)
		ch := receiving(ctx, q)
		still(t, "Curator has it", ch)
		must(t, other.Delete(ctx, lock, zk.AnyVersion)) // it asks for redelivery
		m := received(t, ch, 1)
		_, err = other.Create(ctx, lock, nil, zk.Ephemeral)
		wants(t, err, zk.ErrNodeExists)
		must(t, m.Ack(ctx))
		if _, ok, _ := other.Exists(ctx, lock); ok {
			t.Error("the claim is left")
		}
		// A consumer of Curator's without locks takes what is claimed.
		path = offer(t, ctx, other, "queue-", "2")
		m = receive(t, ctx, q, 2)
		must(t, other.Delete(ctx, path, 0))
		wants(t, m.Ack(ctx), recipes.ErrBroken)
		// It puts an item back under a new name and leaves the lock behind for a moment.
		path = offer(t, ctx, other, "queue-|x|", "3")
		lock = "/q-locks" + strings.TrimPrefix(path, "/q")
		_, err = other.Create(ctx, lock, nil, zk.Ephemeral)
		must(t, err)
		_, err = other.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate("/q/queue-|x|", curator("3"), zk.Sequential))
		must(t, err)
		m = receive(t, ctx, q, 3)
		must(t, other.Delete(ctx, lock, zk.AnyVersion))
		must(t, m.Ack(ctx))
		empty(t, ctx, q)
		// Ids stand among the others by number.
		for i, p := range []string{"queue-|z|", "queue-", "queue-|a|", "queue-|49123456789|", "queue-", "queue-|~|"} {
			offer(t, ctx, other, p, string(rune('1'+i)))
		}
		same(t, "by number", take(t, ctx, q, 6), 1, 2, 3, 4, 5, 6) // Q-S4
	})
}

// Several items in one entry are received one by one, in order, and each is acknowledged for itself.
func TestCuratorQueueMultiItem(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, other := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(1))
		q, far := curatorQueue(s), curatorQueue(other)
		must(t, q.Put(ctx, 0))
		path := offer(t, ctx, other, "queue-", "1", "2", "3", "4")
		must(t, far.Put(ctx, 5))
		must(t, s.Sync(ctx))
		same(t, "first", take(t, ctx, q, 1), 0)
		m := receive(t, ctx, q, 1)
		if m.Redelivered() {
			t.Error("it was never claimed")
		}
		must(t, other.Sync(ctx))
		must(t, receive(t, ctx, far, 5).Nack(ctx, 0)) // meanwhile the entry is claimed
		must(t, m.Nack(ctx, 0))
		m = receive(t, ctx, q, 1)
		if !m.Redelivered() {
			t.Error("it was claimed before")
		}
		must(t, m.Ack(ctx))
		wants(t, m.Ack(ctx), recipes.ErrReleased) // Q-S1
		data, _, err := s.Get(ctx, path)
		must(t, err)
		if string(data) != string(curator("2", "3", "4")) {
			t.Errorf("%q is left", data)
		}
		must(t, other.Sync(ctx))
		same(t, "the next one", take(t, ctx, far, 1), 2) // Q-S3
		must(t, s.Sync(ctx))
		m = receive(t, ctx, q, 3)
		if m.Redelivered() {
			t.Error("another item was")
		}
		must(t, c.Expire(ctx, s))
		must(t, other.Sync(ctx))
		m = receive(t, ctx, far, 3) // Q-S2, Q-L1
		if !m.Redelivered() {
			t.Error("it was claimed before")
		}
		must(t, m.Ack(ctx))
		same(t, "the rest", take(t, ctx, far, 2), 4, 5)
		empty(t, ctx, far)

		// With a delay one of them becomes an entry of its own; there are never too many.
		late := &intQueue{Session: other, Path: "/q", Layout: recipes.CuratorDelay, MaxItems: 2}
		offer(t, ctx, other, "queue-", "1", "2", "3")
		must(t, receive(t, ctx, late, 1).Nack(ctx, time.Minute))
		if n, _ := late.Len(ctx); n != 2 {
			t.Errorf("%d entries", n)
		}
		must(t, receive(t, ctx, late, 2).Nack(ctx, time.Minute)) // there is no room for another: it is back at once
		if n, _ := late.Len(ctx); n != 2 {                       // Q-S5
			t.Errorf("%d entries", n)
		}
		must(t, receive(t, ctx, late, 2).Ack(ctx))
		must(t, receive(t, ctx, late, 3).Ack(ctx))
		must(t, receive(t, ctx, late, 1).Ack(ctx))
		empty(t, ctx, late)
	})
}

// An entry that is damaged is reported with its path and zxid, and kept; an item that is damaged does not hold up the
// others of its entry.
func TestCuratorQueueDamaged(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		q := curatorQueue(s)
		must(t, q.Put(ctx, 1))
		bad := map[string]zk.Zxid{}
		for _, data := range []string{"", "junk", string(curator()), string(curator("12"))[:9], string(curator("no number")), "\x00\x01\x00\x01\x01\xff\xff\xff\xff\x02"} {
			z, err := s.Create(ctx, "/q/queue-", []byte(data), zk.Sequential)
			must(t, err)
			bad[z.Path] = z.Stat.Mzxid
		}
		mixed := offer(t, ctx, s, "queue-", "2", "no", "3", "neither")
		must(t, q.Put(ctx, 4))
		some, cancel := context.WithCancel(ctx)
		defer cancel()
		var got []int
		reports := map[string]int{}
		for m, err := range q.Messages(some) {
			damaged, ok := errors.AsType[*recipes.DecodeError](err)
			switch {
			case ok: // Q-S7
				if at, ok := bad[damaged.Path]; ok && damaged.Zxid != at || !ok && damaged.Path != mixed || damaged.Unwrap() == nil {
					t.Errorf("%+v", damaged)
				}
				reports[damaged.Path]++
			case err != nil:
				wants(t, err, context.Canceled)
			default:
				got = append(got, m.Value)
				must(t, m.Ack(ctx))
				if m.Value == 4 {
					cancel()
				}
			}
		}
		same(t, "the others", got, 1, 2, 3, 4)
		if len(reports) != len(bad)+1 {
			t.Errorf("reported: %v", reports)
		}
		for path, n := range reports {
			if n != 1 {
				t.Errorf("%s was reported %d times", path, n)
			}
		}
		if n := len(names(t, ctx, s, "/q")); n != len(bad)+1 { // Q-S7
			t.Errorf("%d entries are kept", n)
		}
		data, _, err := s.Get(ctx, mixed)
		must(t, err)
		if string(data) != string(curator("no", "neither")) {
			t.Errorf("%q is kept", data)
		}
		_, err = s.Set(ctx, mixed, curator("5", "6"), zk.AnyVersion) // somebody mends it
		must(t, err)
		same(t, "it was mended", take(t, ctx, q, 2), 5, 6)
		synctest.Wait()
	})
}

// Curator's layout costs what kazoo's does: a write to put, two to receive, one to take, no round to the leader.
func TestCuratorQueueCost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const n = 30
		m := c.Member(follower(t, ctx, c))
		q := curatorQueue(session(t, ctx, m))
		must(t, q.Put(ctx, 0))
		must(t, receive(t, ctx, q, 0).Ack(ctx))
		many := make([]int, 500)
		for _, backlog := range []int{0, 500} {
			must(t, q.PutAll(ctx, many[:backlog]...))
			for i := range backlog {
				must(t, q.PutPriority(ctx, 1, 500+i%10))
			}
			for _, step := range []struct {
				what          string
				writes, reads int64 // for each
				do            func()
			}{
				{"put", 1, 0, func() { must(t, q.Put(ctx, 1)) }},
				{"receive and ack", 2, 10, func() { m, err := q.Receive(ctx); must(t, err); must(t, m.Ack(ctx)) }},
				{"put with a priority", 1, 0, func() { must(t, q.PutPriority(ctx, 1, 7)) }},
				{"take", 1, 8, func() { _, err := q.Take(ctx); must(t, err) }},
			} {
				before := m.Stats()
				for range n {
					step.do()
				}
				after := m.Stats()
				if w, lin, r := after.Writes-before.Writes, after.LinearReads-before.LinearReads, after.Reads-before.Reads; w != n*step.writes || lin != 0 || r > n*step.reads { // Q-L3
					t.Errorf("%d times %s: %d writes, %d linearizable reads, %d reads", n, step.what, w, lin, r)
				}
			}
		}
	})
}
