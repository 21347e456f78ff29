// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// visit is one attempt at a double barrier, from Enter to Leave. Times are 0 where it did not get that far.
type visit struct {
	client        int
	call, entered int64 // Enter
	leave, left   int64 // Leave
	valid         int64 // when the membership was last valid
	gone          int64 // when its znode was known to be gone for good; forever if never
}

// roomCheck collects the visits.
type roomCheck struct {
	h *history

	mu   sync.Mutex
	list []*visit
}

const roomSize = 3

func (c *roomCheck) visits() (list []visit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.list {
		list = append(list, *v)
	}
	slices.SortFunc(list, func(a, b visit) int { return cmp.Compare(a.call, b.call) })
	return list
}

func (c *roomCheck) set(field *int64, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*field = at
}

// misled finds who passed Enter although there were never enough at one moment (DB-S1, DB-S3), and who passed Leave
// although another one of the round was still inside.
func misled(visits []visit, size int) error {
	for _, v := range visits {
		if v.entered == 0 {
			continue
		}
		most := 0
		for _, at := range visits {
			if moment := max(at.call, v.call); moment <= v.entered {
				there := 0
				for _, o := range visits {
					if o.call <= moment && moment <= o.gone {
						there++
					}
				}
				most = max(most, there)
			}
		}
		if most < size {
			return fmt.Errorf("%+v has entered, at most %d of %d were there", v, most, size)
		}
		if v.left == 0 || v.valid < v.leave { // it may have been lost, and the round gone on to its end
			continue
		}
		for _, o := range visits {
			if o.entered != 0 && o.entered < v.leave && o.valid > v.left {
				return fmt.Errorf("%+v has left, %+v was still inside", v, o)
			}
		}
	}
	return nil
}

// roomClient enters and leaves under a session of its own, so that it is known when nothing of it is left.
func (r *run) roomClient(client int, random *rand.Rand) {
	for r.idle(random, 500) {
		m := r.member(random.IntN(r.c.Len()))
		if m == nil {
			continue
		}
		r.did("DoubleBarrier")
		ctx, cancel := context.WithTimeout(r.ctx, millis(500+random.IntN(8000)))
		if s, err := m.NewSession(ctx, zk.SessionConfig{Name: "room"}); err == nil {
			r.visit(ctx, client, s, func() { sleep(r.ctx, millis(random.IntN(800))) })
		}
		cancel()
	}
}

func (r *run) visit(ctx context.Context, client int, s *zk.Session, work func()) error {
	c := r.rooms
	opened := s.LastZxid()
	v := &visit{client: client, call: c.h.now(), gone: forever}
	c.mu.Lock()
	c.list = append(c.list, v)
	c.mu.Unlock()
	m, err := recipes.NewDoubleBarrier(s, "/room", roomSize).Enter(ctx)
	if err == nil {
		c.set(&v.entered, c.h.now())
		stop := make(chan struct{})
		r.work.Go(func() { // Valid is looked at until Leave makes it false
			for at := c.h.now(); m.Valid(); at = c.h.now() {
				c.set(&v.valid, at)
				select {
				case <-stop:
				case <-time.After(7 * time.Millisecond):
				}
			}
		})
		work()
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 6*time.Second)
		c.set(&v.leave, c.h.now())
		if at := c.h.now(); m.Valid() {
			c.set(&v.valid, at)
		}
		if err = m.Leave(leave); err == nil {
			c.set(&v.left, c.h.now())
		}
		cancel()
		m.Release(context.WithoutCancel(leave))
		close(stop)
	}
	for s.Close(); !r.over(s.ID(), opened); {
		if !sleep(r.ctx, 200*time.Millisecond) {
			return err
		}
	}
	c.set(&v.gone, c.h.now())
	return err
}

// over reports whether some member that has come as far as zxid knows nothing of a session any more.
func (r *run) over(id zk.SessionID, zxid zk.Zxid) bool {
	for _, i := range r.members() {
		m := r.member(i)
		if m == nil || m.Applied() < zxid {
			continue
		}
		list, err := m.Sessions(context.Background())
		if err == nil && !slices.ContainsFunc(list, func(s zk.SessionInfo) bool { return s.ID == id }) {
			return true
		}
	}
	return false
}

func TestRoomChecker(t *testing.T) {
	two := []visit{
		{call: 1, entered: 5, leave: 10, left: 14, valid: 11, gone: 15}, {call: 2, entered: 6, leave: 12, left: 13, valid: 12, gone: 16},
	}
	for _, c := range []struct {
		name string
		ok   bool
		more []visit
		size int
	}{
		{"a round", true, nil, 2},
		{"one who gave up counts", true, []visit{{call: 3, gone: 9}}, 3},
		{"too few", false, nil, 3},
		{"too few at one moment", false, []visit{{call: 7, gone: 9}}, 3},
		{"a late one passes alone", false, []visit{{call: 17, entered: 20, gone: forever}}, 2},
		{"one is still inside", false, []visit{{call: 3, entered: 4, valid: 20, gone: forever}}, 2},
	} {
		if err := misled(slices.Concat(two, c.more), c.size); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
