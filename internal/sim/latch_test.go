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

// latching is the model of a Latch, one per path: how often is left to count. One that is not there has its whole count.
type (
	latchStep uint8
	latchIn   struct {
		path string
		step latchStep
	}
	latchOut struct {
		unknown bool
		left    int
	}
)

const (
	latchCounted latchStep = iota
	latchPassed            // Wait has returned nil
	latchCleared           // the znode was deleted
	latchAbsent            // there was none
)

const (
	latchPaths = 2
	latchCount = 4
)

func (in latchIn) String() string {
	return in.path + ": " + [...]string{"counted", "passed", "cleared", "absent"}[in.step]
}

var latching = porcupine.Model{
	Partition: partition(func(in latchIn) string { return in.path }),
	Init:      func() any { return latchCount },
	Step: func(state, input, output any) (bool, any) {
		left, in, out := state.(int), input.(latchIn), output.(latchOut)
		switch in.step {
		case latchCounted: // LATCH-S1
			left = max(left-1, 0)
			return out.unknown || out.left == left, left
		case latchPassed:
			return left == 0, left
		case latchAbsent:
			return left == latchCount, left
		}
		return true, latchCount
	},
	DescribeOperation: describe,
}

// latchCheck knows what has become of everybody who waits.
type latchCheck struct {
	h *history

	mu     sync.Mutex
	broken []porcupine.Operation
	zero   [latchPaths]bool         // everything is over, and they are open
	passed [latchPaths]map[int]bool // by members, after that
}

// unbroken finds somebody who was told that a latch was deleted when nobody did so.
func unbroken(broken, ops []porcupine.Operation) error {
	for _, b := range broken {
		ok := false
		for _, o := range ops {
			in := o.Input.(latchIn)
			ok = ok || in.step == latchCleared && in.path == b.Input.(latchIn).path && o.Call <= b.Return && b.Call <= o.Return
		}
		if !ok {
			return fmt.Errorf("%+v was broken by nobody", b)
		}
	}
	return nil
}

func latchPath(n int) string { return fmt.Sprint("/latch/", n) }

func (r *run) latchPart() part {
	c := &latchCheck{h: newHistory()}
	for n := range c.passed {
		c.passed[n] = map[int]bool{}
	}
	waiting := r.lasting()
	return part{"Latch", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			for n := range latchPaths {
				waiting.onEach(r, func(i int, m *zk.Member, random *rand.Rand) {
					r.waitLatch(waiting.ctx, c, i, n, m)
					sleep(waiting.ctx, millis(500+random.IntN(1000)))
				})
			}
		}
		r.latchClient(c, client, random)
	}, func(ctx context.Context, s *zk.Session) error {
		for n := range latchPaths {
			for left := latchCount; left > 0; {
				var err error
				if left, err = countLatch(ctx, c, -1, n, s); err != nil {
					return err
				}
			}
			c.mu.Lock()
			c.zero[n] = true
			c.mu.Unlock()
		}
		err := r.eventually(ctx, func() error {
			c.mu.Lock()
			defer c.mu.Unlock()
			for n := range latchPaths {
				for _, i := range r.members() {
					if !c.passed[n][i] {
						return fmt.Errorf("member %d still waits at %s", i, latchPath(n))
					}
				}
			}
			return nil
		})
		if err == nil {
			err = r.breaks(ctx, s)
		}
		waiting.end()
		r.linearizable("latch", latching, c.h)
		return errors.Join(err, unbroken(c.broken, c.h.ops), r.watched(ctx, "/latch"))
	}}
}

// breaks checks that everybody who waits at a latch is told when it is deleted, and waits at no other one (3.7).
func (r *run) breaks(ctx context.Context, s *zk.Session) error {
	const path = "/latch/broken"
	ctx, cancel := context.WithTimeout(ctx, r.settle)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, r.c.Len())
	for _, i := range r.members() {
		all.Go(func() { errs[i] = recipes.NewLatch(r.c.Member(i), path, latchCount).Wait(ctx) })
	}
	sleep(ctx, time.Second)
	if _, err := s.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, []byte("1"), zk.Persistent)); err != nil {
		return err
	}
	all.Wait()
	for _, i := range r.members() {
		if !errors.Is(errs[i], recipes.ErrBroken) {
			return fmt.Errorf("member %d has waited at a latch that was deleted: %w", i, errs[i])
		}
	}
	return nil
}

// waitLatch waits at a latch, and notes how that has ended.
func (r *run) waitLatch(ctx context.Context, c *latchCheck, client, n int, src zk.SessionSource) {
	in, call := latchIn{latchPath(n), latchPassed}, c.h.now()
	c.mu.Lock()
	zero := c.zero[n]
	c.mu.Unlock()
	err := recipes.NewLatch(src, in.path, latchCount).Wait(ctx)
	switch {
	case err == nil:
		c.h.add(client, call, in, latchOut{}, c.h.now())
	case errors.Is(err, recipes.ErrBroken):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.broken = append(c.broken, did(call, c.h.now(), in, latchOut{}))
	case errors.Is(err, recipes.ErrMismatch):
		r.t.Errorf("%s: %v", in.path, err)
	}
	if err == nil && r.whole.Err() == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if zero || c.zero[n] {
			c.passed[n][client] = true
		}
	}
}

func countLatch(ctx context.Context, c *latchCheck, client, n int, src zk.SessionSource) (left int, err error) {
	in, call := latchIn{latchPath(n), latchCounted}, c.h.now()
	left, err = recipes.NewLatch(src, in.path, latchCount).CountDown(ctx)
	switch {
	case err == nil:
		c.h.add(client, call, in, latchOut{left: left}, c.h.now())
	case zk.MaybeApplied(err):
		c.h.add(client, call, in, latchOut{unknown: true}, forever)
	}
	return left, err
}

func (r *run) latchClient(c *latchCheck, client int, random *rand.Rand) {
	for r.idle(random, 1500) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Latch")
		src := zk.SessionSource(s)
		if random.IntN(2) == 0 {
			src = s.Member()
		}
		n, left := random.IntN(latchPaths), -1
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(4000)))
		switch random.IntN(8) {
		case 0, 1:
			r.waitLatch(ctx, c, 100+client, n, src)
		case 2, 3, 4, 5, 6:
			left, err = countLatch(ctx, c, client, n, src)
		}
		if err == nil && (left == 0 && random.IntN(2) == 0 || random.IntN(20) == 0) { // to use the path anew, or by mistake
			in, call := latchIn{latchPath(n), latchCleared}, c.h.now()
			err := s.Delete(ctx, in.path, zk.AnyVersion)
			switch {
			case err == nil:
				c.h.add(client, call, in, latchOut{}, c.h.now())
			case errors.Is(err, zk.ErrNoNode):
				in.step = latchAbsent
				c.h.add(client, call, in, latchOut{}, c.h.now())
			case zk.MaybeApplied(err):
				c.h.add(client, call, in, latchOut{unknown: true}, forever)
			}
		}
		cancel()
	}
}

func TestLatchChecker(t *testing.T) {
	in := func(step latchStep) latchIn { return latchIn{"/l", step} }
	count := func(call int64, left int) porcupine.Operation {
		return did(call, call+1, in(latchCounted), latchOut{left: left})
	}
	cleared := did(10, 11, in(latchCleared), latchOut{})
	down := []porcupine.Operation{count(1, 3), count(3, 2), count(5, 1), count(7, 0)}
	judge(t, latching, []judged{
		{"down to zero", true, append(down[:4:4], did(2, 9, in(latchPassed), latchOut{}), count(10, 0))},
		{"used anew", true, append(down[:4:4], cleared, did(12, 13, in(latchAbsent), latchOut{}), count(14, 3))},
		{"unknown, and counted", true, []porcupine.Operation{did(1, forever, in(latchCounted), latchOut{unknown: true}), count(3, 2)}},
		{"unknown, and not counted", true, []porcupine.Operation{did(1, forever, in(latchCounted), latchOut{unknown: true}), count(3, 3)}},
		{"unknown, and counted twice", false, []porcupine.Operation{did(1, forever, in(latchCounted), latchOut{unknown: true}), count(3, 1)}},
		{"two count the same", false, []porcupine.Operation{did(1, 5, in(latchCounted), latchOut{left: 3}), did(1, 5, in(latchCounted), latchOut{left: 3})}},
		{"counted twice", false, []porcupine.Operation{count(1, 3), count(3, 1)}},
		{"open too early", false, []porcupine.Operation{count(1, 3), did(2, 9, in(latchPassed), latchOut{})}},
		{"open once more", false, append(down[:4:4], cleared, did(12, 13, in(latchPassed), latchOut{}))},
		{"closed again", false, append(down[:4:4], count(10, 3))},
	})
	broken := []porcupine.Operation{did(5, 10, in(latchPassed), latchOut{})}
	if err := unbroken(broken, []porcupine.Operation{cleared}); err != nil {
		t.Error(err)
	}
	if unbroken(broken, []porcupine.Operation{did(3, 4, in(latchCleared), latchOut{}), did(5, 6, in(latchAbsent), latchOut{})}) == nil {
		t.Error("nobody has deleted the latch, and it is broken")
	}
}
