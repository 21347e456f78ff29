// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	leasePaths = 2                      // the second has two slots
	leaseUnit  = 250 * time.Millisecond // between two looks at what is held
)

// tenancy is a timed lease that was got or renewed, as its znode says. Without a slot nobody knows whether it was: then
// end is the latest there can be.
type tenancy struct {
	lease, slot, holder string
	token               zk.Token
	zxid                zk.Zxid
	at, end             time.Time // by the ensemble's clock
	call, returned      int64
}

// refusal is a Try that was told that others have the lease.
type refusal struct {
	lease, holder  string
	call, returned int64
	at             time.Time // the newest of the ensemble's stamps, when it was called
}

// removal is a lease that was deleted by its holder or an operator, who is done at a time, or is not known to be.
type removal struct {
	slot           string
	call, returned int64
}

// tenancies are what was done to timed leases.
type tenancies struct {
	list     []tenancy
	refusals []refusal
	removed  map[zk.Token]removal
	valid    map[zk.Token]int64 // when Valid was last true
	guarded  map[zk.Token]int64 // when the last transaction with the guard that came through began
}

// check says whether nobody got a lease before another one's time was over, by the ensemble's stamps and, unless a new
// leader's clock made these jump ahead, by the holder's clock; and whether nobody was refused what was free.
func (x *tenancies) check() error {
	bySlot := map[string][]tenancy{}
	for _, t := range x.list {
		if t.slot != "" {
			bySlot[t.slot] = append(bySlot[t.slot], t)
		}
	}
	for _, list := range bySlot {
		slices.SortFunc(list, func(a, b tenancy) int { return cmp.Compare(a.zxid, b.zxid) })
		for i, b := range list {
			for k, a := range list[:i] {
				switch {
				case a.token > b.token: // HELD-S2
					return fmt.Errorf("token %d after %d: %+v %+v", b.token, a.token, b, a)
				case a.token < b.token && x.guarded[a.token] > b.returned: // HELD-S3
					return fmt.Errorf("a write under the guard of %+v after %+v", a, b)
				case a.token == b.token || k+1 < i || a.holder == b.holder || x.freed(a, b):
					continue
				}
				if b.at.Before(a.end) { // TL-S1
					return fmt.Errorf("%+v has got what others have: %+v", b, a)
				}
				if jumped := b.at.Sub(a.at) > time.Duration(b.returned-a.call)+time.Millisecond; !jumped && x.valid[a.token] > b.returned { // HELD-S1
					return fmt.Errorf("%+v is valid at %v, and another one got it: %+v", a, time.Duration(x.valid[a.token]), b)
				}
			}
		}
	}
	for _, f := range x.refusals {
		busy, unknown := map[string]bool{}, 0
		for _, t := range x.list {
			gone := x.removed[t.token].returned
			switch {
			case t.lease != f.lease || t.holder == f.holder || t.call > f.returned || !t.end.After(f.at):
			case t.slot == "":
				unknown++
			case gone == 0 || gone > f.call:
				busy[t.slot] = true
			}
		}
		if len(busy)+unknown < leaseSlots(f.lease) {
			return fmt.Errorf("%+v, and only %v and %d more can be had by others", f, busy, unknown)
		}
	}
	return nil
}

// freed tells whether somebody may have deleted a before b was got, or what the same holder may have got since, which may
// have been for less time.
func (x *tenancies) freed(a, b tenancy) bool {
	for _, t := range x.list {
		if t.slot == "" && t.lease == a.lease && t.holder == a.holder && t.call < b.returned {
			return true
		}
	}
	for token, gone := range x.removed {
		if token >= a.token && token < b.token && gone.slot == a.slot && gone.call < b.returned {
			return true
		}
	}
	return false
}

func leasePath(n int) string { return fmt.Sprint("/lease/", n+1) }

// leaseSlots says how many may have a lease at a time.
func leaseSlots(lease string) int { return int(lease[len(lease)-1] - '0') }

type leaseCheck struct {
	r *run
	h *history

	mu sync.Mutex
	tenancies
	got    int
	newest time.Time // of the ensemble's stamps
}

func (r *run) leasePart() part {
	c := &leaseCheck{r: r, h: newHistory(), tenancies: tenancies{removed: map[zk.Token]removal{}, valid: map[zk.Token]int64{}, guarded: map[zk.Token]int64{}}}
	return part{"TimedLease", 3, c.client, c.finish}
}

// client tries for a lease, renews it, works under its guard, and gives it back, or leaves it to its time. At times it
// goes by the name of another one, which was restarted here, and at times it is the operator who deletes a lease.
func (c *leaseCheck) client(client int, random *rand.Rand) {
	for c.r.idle(random, 2500) {
		m := c.r.c.Member(random.IntN(c.r.c.Len()))
		if m == nil {
			continue
		}
		lease := leasePath(random.IntN(leasePaths))
		c.r.did("TimedLease")
		if random.IntN(8) == 0 {
			c.evict(m, lease, random)
			continue
		}
		holder := client
		if random.IntN(6) == 0 {
			holder ^= 1
		}
		l := recipes.NewTimedLease(m, lease, fmt.Sprint("holder-", holder), millis(200+random.IntN(5000)))
		l.Slots = leaseSlots(lease)
		if s, err := c.r.source(random); err == nil && random.IntN(4) == 0 {
			l.Session, m = s, s.Member()
		}
		var held *recipes.Held
		for more := true; more; more = random.IntN(3) > 0 && sleep(c.r.ctx, millis(random.IntN(3000))) {
			ctx, cancel := context.WithTimeout(c.r.ctx, millis(1+random.IntN(2500)))
			if h := c.try(ctx, m, l, random.IntN(3) == 0); h != nil && h != held {
				held = h
				c.r.work.Go(func() { c.follow(h, m, l) })
			}
			cancel()
			if held == nil {
				break
			}
			if random.IntN(3) == 0 {
				c.guard(held)
			}
		}
		if held != nil && random.IntN(2) == 0 {
			c.release(held)
		}
	}
}

// try asks for a lease, or renews it, and notes what became of that. If it is dated it is known when that was.
func (c *leaseCheck) try(ctx context.Context, m *zk.Member, l *recipes.TimedLease, dated bool) *recipes.Held {
	s, err := m.Session(ctx)
	if err != nil {
		return nil
	}
	if dated {
		c.stamp(s.Set(ctx, "/fenced", nil, zk.AnyVersion))
	}
	c.mu.Lock()
	t, began := tenancy{lease: l.Path, holder: l.Holder, call: c.h.now()}, c.newest
	c.mu.Unlock()
	h, err := l.Try(ctx)
	if err == nil {
		t.token = h.Token()
		var now struct{ Holder, End string }
		data, st, missed := s.Get(context.Background(), h.Path())
		if missed == nil && zk.Token(st.Czxid) == t.token && json.Unmarshal(data, &now) == nil && now.Holder == l.Holder {
			t.slot, t.zxid, t.at = h.Path(), st.Mzxid, st.Mtime
			if t.end, missed = time.Parse("2006-01-02T15:04:05", now.End); missed != nil {
				c.r.t.Errorf("%s: %q", h.Path(), data)
			}
		}
	}
	t.returned = c.h.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, recipes.ErrNotAcquired):
		c.refusals = append(c.refusals, refusal{t.lease, t.holder, t.call, t.returned, began})
	case err == nil || zk.MaybeApplied(err):
		if t.slot == "" {
			t.end = s.Now().Add(l.For + time.Second)
		}
		c.list = append(c.list, t)
	}
	if err == nil {
		c.got++
	}
	return h
}

// stamp notes the ensemble's time of a write.
func (c *leaseCheck) stamp(st zk.Stat, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && st.Mtime.After(c.newest) {
		c.newest = st.Mtime
	}
}

// follow looks at a right until it has ended, and why it has.
func (c *leaseCheck) follow(h *recipes.Held, m *zk.Member, l *recipes.TimedLease) {
	for replaced := 0; ; {
		if at := c.h.now(); h.Valid() {
			c.mu.Lock()
			c.valid[h.Token()] = at
			c.mu.Unlock()
		}
		select {
		case <-h.Lost():
			c.lost(h)
			return
		case <-time.After(leaseUnit):
		}
		if s := l.Session; s != m {
			continue // the session may be over, and then nobody sees what becomes of the znode
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		s, err := m.Session(ctx)
		cancel()
		if err != nil {
			replaced = 0
			continue
		}
		if st, _, err := s.Exists(context.Background(), h.Path()); err != nil || zk.Token(st.Czxid) == h.Token() {
			replaced = 0
		} else if replaced++; replaced > 2 && h.Valid() {
			c.r.t.Errorf("%s is gone for %v and the right is valid", h.Path(), 2*leaseUnit)
			return
		}
	}
}

// lost is told of a right that has ended: one that was neither released nor taken away ends with its time, however its
// session and its member fare (TL-S2).
func (c *leaseCheck) lost(h *recipes.Held) {
	now, at := h.Session().Now(), c.h.now()
	if !errors.Is(h.Err(), context.DeadlineExceeded) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range slices.Backward(c.list) {
		if t.slot != "" && t.token == h.Token() {
			if passed := time.Duration(at - t.call); now.Before(t.end) && passed < t.end.Sub(t.at)-2*time.Millisecond {
				c.r.t.Errorf("%+v is over at %v, after %v", t, now, passed)
			}
			return
		}
	}
}

// guard writes under a right's guard.
func (c *leaseCheck) guard(h *recipes.Held) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	call := c.h.now()
	if _, err := h.Session().Txn(ctx, h.Guard(), zk.OpSet("/fenced", fmt.Append(nil, h.Token()), zk.AnyVersion)); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guarded[h.Token()] = max(c.guarded[h.Token()], call)
}

func (c *leaseCheck) release(h *recipes.Held) {
	c.remove(h.Path(), h.Token(), func(ctx context.Context) error {
		if err := h.Release(ctx); err != nil {
			return err
		}
		if err := h.Err(); !errors.Is(err, recipes.ErrReleased) { // its time was over: the znode stays and says so
			return err
		}
		return nil
	})
	if h.Valid() { // HELD-S5
		c.r.t.Errorf("%s is valid after it was released", h.Path())
	}
}

// evict deletes a lease, as an operator does.
func (c *leaseCheck) evict(m *zk.Member, lease string, random *rand.Rand) {
	ctx, cancel := context.WithTimeout(c.r.ctx, 2*time.Second)
	defer cancel()
	s, err := m.Session(ctx)
	if err != nil {
		return
	}
	slot := path.Join(lease, "lease_holder")
	if n := leaseSlots(lease); n > 1 {
		slot = path.Join(lease, fmt.Sprint(random.IntN(n)), "lease_holder")
	}
	st, ok, err := s.Exists(ctx, slot)
	if !ok || err != nil {
		return
	}
	token := zk.Token(st.Czxid)
	c.remove(slot, token, func(ctx context.Context) error {
		_, err := s.Txn(ctx, zk.OpCheckCreated(slot, token), zk.OpDelete(slot, zk.AnyVersion))
		return err
	})
}

// remove notes when a lease is deleted.
func (c *leaseCheck) remove(slot string, token zk.Token, remove func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c.mu.Lock()
	gone, again := c.removed[token]
	if !again {
		gone = removal{slot: slot, call: c.h.now()}
		c.removed[token] = gone
	}
	c.mu.Unlock()
	if err := remove(ctx); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if gone = c.removed[token]; gone.returned == 0 {
			gone.returned = c.h.now()
			c.removed[token] = gone
		}
	}
}

// finish tries for every lease with one holder more than there are slots, when all that was had is over.
func (c *leaseCheck) finish(ctx context.Context, s *zk.Session) error {
	ids := c.r.members()
	for n := range leasePaths {
		lease := leasePath(n)
		var held []*recipes.Held
		one := func(i int) *recipes.Held {
			m := c.r.c.Member(ids[i%len(ids)])
			l := recipes.NewTimedLease(m, lease, fmt.Sprint("last-", i), time.Hour)
			l.Slots = leaseSlots(lease)
			return c.try(ctx, m, l, true)
		}
		for i := range leaseSlots(lease) {
			if h := one(i); h != nil {
				held = append(held, h)
			}
		}
		if len(held) < leaseSlots(lease) {
			return fmt.Errorf("only %d have got %s, whose time was over", len(held), lease)
		}
		if one(len(held)) != nil { // TL-S1
			return fmt.Errorf("one more has got %s", lease)
		}
		for _, h := range held {
			c.remove(h.Path(), h.Token(), h.Release)
		}
		h := one(len(held))
		if h == nil {
			return fmt.Errorf("nobody has got %s, which was given back", lease)
		}
		c.remove(h.Path(), h.Token(), h.Release)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r.t.Logf("timed leases: %d got or renewed, %d refused, %d released or evicted", c.got, len(c.refusals), len(c.removed))
	if err := c.tenancies.check(); err != nil {
		var b strings.Builder
		for _, t := range c.list {
			fmt.Fprintf(&b, "\n%+v", t)
		}
		c.r.t.Logf("all leases:%s\nremoved: %v", b.String(), c.removed)
		return err
	}
	return nil
}

func TestTimedLeaseChecker(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(0, n) }
	s := func(n int64) int64 { return n * int64(time.Second) }
	one := func(slot int, holder string, token zk.Token, zxid zk.Zxid, from, until int64) tenancy {
		return tenancy{"/lease/2", fmt.Sprint("/lease/2/", slot), holder, token, zxid, at(s(from)), at(s(until)), s(from) - 1, s(from) + 1}
	}
	a, b := one(0, "a", 1, 1, 1, 10), one(1, "b", 2, 2, 2, 10)
	maybe := tenancy{lease: "/lease/2", holder: "b", end: at(s(10)), call: s(2), returned: s(3)}
	refused := []refusal{{"/lease/2", "c", s(3), s(4), at(s(3))}}
	late := []refusal{{"/lease/2", "c", s(11), s(12), at(s(11))}}
	ahead := one(0, "c", 3, 3, 3, 20)
	ahead.at = at(s(11))
	for _, j := range []struct {
		name string
		ok   bool
		x    tenancies
	}{
		{"one after the other", true, tenancies{list: []tenancy{a, b, one(0, "c", 3, 3, 10, 20)}}},
		{"two in one slot", false, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 9, 20)}}},
		{"two in one slot, one that was renewed", false, tenancies{list: []tenancy{a, one(0, "a", 1, 2, 5, 15), one(0, "c", 3, 3, 10, 20)}}},
		{"the same holder elsewhere", true, tenancies{list: []tenancy{a, one(0, "a", 3, 3, 9, 20)}}},
		{"released", true, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 9, 20)}, removed: map[zk.Token]removal{1: {a.slot, s(3), s(4)}}}},
		{"deleted, after the same holder had got it elsewhere", true, tenancies{list: []tenancy{a, one(0, "c", 4, 4, 9, 20)}, removed: map[zk.Token]removal{3: {a.slot, s(3), 0}}}},
		{"the same holder may have got it elsewhere", true, tenancies{list: []tenancy{b, maybe, one(1, "c", 4, 4, 9, 20)}}},
		{"another one may have got it elsewhere", false, tenancies{list: []tenancy{a, maybe, one(0, "c", 4, 4, 9, 20)}}},
		{"deleted in another slot", false, tenancies{list: []tenancy{a, one(0, "c", 4, 4, 9, 20)}, removed: map[zk.Token]removal{3: {b.slot, s(3), 0}}}},
		{"released later", false, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 5, 20)}, removed: map[zk.Token]removal{1: {a.slot, s(6), s(7)}}}},
		{"valid until the other has got it", true, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 10, 20)}, valid: map[zk.Token]int64{1: s(10)}}},
		{"valid when another has it", false, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 10, 20)}, valid: map[zk.Token]int64{1: s(11)}}},
		{"the ensemble's time jumped", true, tenancies{list: []tenancy{a, ahead}, valid: map[zk.Token]int64{1: s(5)}}},
		{"a token goes back", false, tenancies{list: []tenancy{one(0, "a", 4, 1, 1, 5), one(0, "c", 3, 3, 10, 20)}}},
		{"a write of one that is over", false, tenancies{list: []tenancy{a, one(0, "c", 3, 3, 10, 20)}, guarded: map[zk.Token]int64{1: s(11)}}},
		{"refused", true, tenancies{list: []tenancy{a, b}, refusals: refused}},
		{"refused, maybe rightly", true, tenancies{list: []tenancy{a, maybe}, refusals: refused}},
		{"refused where there is a slot", false, tenancies{list: []tenancy{a}, refusals: refused}},
		{"refused after the time", false, tenancies{list: []tenancy{a, b}, refusals: late}},
		{"refused after a release", false, tenancies{list: []tenancy{a, b}, refusals: refused, removed: map[zk.Token]removal{2: {b.slot, s(2), s(2) + 5}}}},
	} {
		if err := j.x.check(); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
}
