// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// counterPath is a counter that only goes up. So its history needs no search: the values say in which order everything
// took effect.
const counterPath = "/counter"

// tally is an addition whose outcome is known, or a look, for which after is before.
type tally struct {
	call, returned int64
	before, after  int64
}

// countCheck has what the clients of the counter have done.
type countCheck struct {
	h *history

	mu   sync.Mutex
	list []tally
	open int64 // the sum of additions whose outcome is unknown
}

func (c *countCheck) did(t tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, t)
}

// miscounted checks that additions lie beside each other, that nothing took effect before something that had returned
// when it was called, and that the last value is the sum (CNT-S1, CNT-S2).
func miscounted(list []tally, open, last int64) error {
	byCall, byReturn, byValue := slices.Clone(list), slices.Clone(list), slices.Clone(list)
	slices.SortFunc(byCall, func(a, b tally) int { return int(a.call - b.call) })
	slices.SortFunc(byReturn, func(a, b tally) int { return int(a.returned - b.returned) })
	slices.SortFunc(byValue, func(a, b tally) int { return int(a.before - b.before) })
	var sum, end int64
	for _, t := range byValue {
		if t.after > t.before && t.before < end {
			return fmt.Errorf("an addition from %d to %d, another one ends at %d", t.before, t.after, end)
		}
		end = max(end, t.after)
		sum += t.after - t.before
	}
	if end > last || sum > last || sum+open < last {
		return fmt.Errorf("the last value is %d, %d were added, at least, and at most %d more", last, sum, open)
	}
	highest := int64(0)
	for _, t := range byCall {
		for len(byReturn) > 0 && byReturn[0].returned < t.call {
			highest = max(highest, byReturn[0].after)
			byReturn = byReturn[1:]
		}
		if t.before < highest {
			return fmt.Errorf("from %d to %d, when it was known to be %d", t.before, t.after, highest)
		}
	}
	return nil
}

func (r *run) counterClient(client int, random *rand.Rand) {
	for r.idle(random, 900) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Counter")
		ctx, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(4000)))
		n := recipes.NewCounter(s, counterPath)
		var adds sync.WaitGroup
		for range 1 + random.IntN(3) { // some of them are one write
			delta := int64(1 + random.IntN(3))
			adds.Go(func() { r.add(ctx, n, delta) })
		}
		adds.Wait()
		call := r.counts.h.now()
		if s.Sync(ctx) == nil {
			if v, err := n.Get(ctx); err == nil {
				r.counts.did(tally{call, r.counts.h.now(), v, v})
			}
		}
		cancel()
	}
}

func (r *run) add(ctx context.Context, n *recipes.Counter, delta int64) error {
	call := r.counts.h.now()
	before, after, err := n.Add(ctx, delta)
	switch {
	case err == nil:
		if after != before+delta {
			r.t.Errorf("%d was added to %d: %d", delta, before, after)
		}
		r.counts.did(tally{call, r.counts.h.now(), before, after})
	case zk.MaybeApplied(err):
		r.counts.mu.Lock()
		r.counts.open += delta
		r.counts.mu.Unlock()
	}
	return err
}

// counted compares the counter with what was done to it.
func (r *run) counted(ctx context.Context, s *zk.Session) {
	last, err := recipes.NewCounter(s, counterPath).Get(ctx)
	if err == nil {
		r.counts.mu.Lock()
		defer r.counts.mu.Unlock()
		err = miscounted(r.counts.list, r.counts.open, last)
	}
	if err != nil {
		r.t.Errorf("counter: %v", err)
	}
}

func TestCounterChecker(t *testing.T) {
	for _, j := range []struct {
		name       string
		ok         bool
		open, last int64
		list       []tally
	}{
		{"one after the other", true, 0, 5, []tally{{1, 2, 0, 2}, {3, 4, 2, 5}, {5, 6, 5, 5}}},
		{"at a time", true, 0, 5, []tally{{1, 4, 2, 5}, {2, 3, 0, 2}, {2, 4, 2, 2}}},
		{"added twice", false, 0, 4, []tally{{1, 2, 0, 2}, {3, 4, 4, 4}}},
		{"two from the same value", false, 0, 4, []tally{{1, 4, 0, 2}, {2, 3, 0, 2}}},
		{"unknown and counted", true, 2, 5, []tally{{3, 4, 2, 5}}},
		{"unknown and not counted", true, 2, 3, []tally{{3, 4, 0, 3}}},
		{"unknown and counted twice", false, 2, 7, []tally{{3, 4, 4, 7}}},
		{"a look at the past", false, 0, 2, []tally{{1, 2, 0, 2}, {3, 4, 0, 0}}},
		{"an addition to the past", false, 0, 5, []tally{{1, 2, 3, 5}, {3, 4, 0, 3}}},
		{"lost", false, 0, 2, []tally{{1, 2, 0, 2}, {3, 4, 2, 5}}},
	} {
		if err := miscounted(j.list, j.open, j.last); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
}
