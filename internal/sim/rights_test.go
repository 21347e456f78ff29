// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// stay is a right that was certainly valid from one moment to another, by the order of stayCheck's history. It is valid
// from when its grant was returned until Valid was last true: a right that was valid at a moment was so all the time before.
type stay struct {
	path        string
	units       int  // of a semaphore; 0: of a read-write lock
	writer      bool // of a read-write lock
	token       zk.Token
	first, last int64 // last < first: nobody has seen it valid
}

// stayCheck watches over read-write locks and semaphores.
type stayCheck struct {
	h *history

	mu   sync.Mutex
	open map[*recipes.Held]*stay
	all  []*stay
}

// begins takes over a right that was just granted.
func (c *stayCheck) begins(held *recipes.Held, s stay) {
	s.token, s.first = held.Token(), c.h.now()
	c.mu.Lock()
	c.open[held] = &s
	c.all = append(c.all, &s)
	c.mu.Unlock()
	c.look() // at the others too
}

// look asks every right whether it is valid.
func (c *stayCheck) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for held, s := range c.open {
		if at := c.h.now(); held.Valid() {
			s.last = at
		}
	}
}

// ends is called before a right is given back.
func (c *stayCheck) ends(held *recipes.Held) {
	c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, held)
}

func (c *stayCheck) stays() []stay {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]stay, len(c.all))
	for i, s := range c.all {
		list[i] = *s
	}
	return list
}

// together checks which stays overlap. most is how many units a semaphore may have at a time.
func together(list []stay, most func(path string) int) error {
	var errs []error
	for i, w := range list {
		for _, o := range list[i+1:] {
			if w.path != o.path || w.units > 0 {
				continue
			}
			w, o := w, o
			if !w.writer {
				w, o = o, w
			}
			if !w.writer || w.last < w.first || o.last < o.first {
				continue
			}
			switch {
			case w.first <= o.last && o.first <= w.last: // RW-S1
				errs = append(errs, fmt.Errorf("a writer beside another: %+v and %+v", w, o))
			case o.last < w.first && o.token >= w.token, w.last < o.first && o.token < w.token: // RW-S3; a downgraded one keeps its token
				errs = append(errs, fmt.Errorf("the token of a writer is out of order: %+v and %+v", w, o))
			}
		}
	}
	type step struct {
		at    int64
		units int
	}
	steps := map[string][]step{}
	for _, s := range list {
		if s.units > 0 && s.first <= s.last {
			steps[s.path] = append(steps[s.path], step{s.first, s.units}, step{s.last + 1, -s.units})
		}
	}
	for path, list := range steps {
		slices.SortFunc(list, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.units, b.units)) })
		in := 0
		for _, s := range list {
			if in += s.units; in > most(path) { // SEM-S1
				errs = append(errs, fmt.Errorf("%s: %d units of %d at %v", path, in, most(path), time.Duration(s.at)))
			}
		}
	}
	return errors.Join(errs...)
}

const (
	rwPath         = "/rw"
	fixedPath      = "/sem/fixed"
	sharedPath     = "/sem/shared"
	fixedUnits     = 3
	mostShared     = 4
	semaphoreUnits = 2 // at most at once
)

// mostUnits is the bound of a semaphore in the simulation.
func mostUnits(path string) int {
	if path == fixedPath {
		return fixedUnits
	}
	return mostShared
}

// rwClient reads, writes, and goes on reading what it has written.
func (r *run) rwClient(_ int, random *rand.Rand) {
	for r.idle(random, 500) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("RWLock")
		l := recipes.NewRWLock(s, rwPath)
		writer := random.IntN(3) == 0
		get := l.RLock
		switch {
		case writer && random.IntN(4) == 0:
			get = l.TryLock
		case writer:
			get = l.Lock
		case random.IntN(4) == 0:
			get = l.TryRLock
		}
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(8000)))
		held, err := get(ctx)
		if err != nil {
			cancel()
			continue
		}
		r.stays.begins(held, stay{path: rwPath, writer: writer})
		r.stay(random, held)
		if writer && random.IntN(2) == 0 {
			r.stays.ends(held)
			down, err := l.Downgrade(ctx, held)
			if held.Valid() { // HELD-S5
				r.t.Errorf("%s is valid after its downgrade", held.Path())
			}
			if err != nil {
				cancel()
				continue
			}
			held = down
			r.stays.begins(held, stay{path: rwPath})
			r.stay(random, held)
		}
		cancel()
		r.giveBack(held)
	}
}

// semaphore is one of the two of the simulation.
func (r *run) semaphore(path string, src zk.SessionSource) *recipes.Semaphore {
	m := recipes.NewSemaphore(src, path, fixedUnits)
	m.SharedLimit = path == sharedPath
	return m
}

// semaphoreClient takes one unit or two, and changes the limit that is shared.
func (r *run) semaphoreClient(_ int, random *rand.Rand) {
	for r.idle(random, 500) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Semaphore")
		path := [...]string{fixedPath, sharedPath}[random.IntN(2)]
		m := r.semaphore(path, s)
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(8000)))
		if path == sharedPath && random.IntN(10) == 0 {
			m.SetLimit(ctx, 1+random.IntN(mostShared)) // whatever comes of it: the bound is the highest
		}
		units := 1 + random.IntN(semaphoreUnits)
		var held *recipes.Held
		if random.IntN(4) == 0 {
			units = 1
			held, err = m.TryAcquire(ctx)
		} else {
			held, err = m.AcquireN(ctx, units)
		}
		cancel()
		if err != nil {
			if errors.Is(err, recipes.ErrMismatch) {
				r.t.Errorf("%s: %v", path, err)
			}
			continue
		}
		r.stays.begins(held, stay{path: path, units: units})
		r.stay(random, held)
		r.giveBack(held)
	}
}

// stay holds a right for a while, or until it is lost.
func (r *run) stay(random *rand.Rand, held *recipes.Held) {
	work, stop := held.Context(r.ctx)
	defer stop()
	for random.IntN(5) != 0 && sleep(work, millis(random.IntN(300))) {
		r.stays.look()
	}
}

func (r *run) giveBack(held *recipes.Held) {
	r.stays.ends(held)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held.Release(ctx)
	if held.Valid() { // HELD-S5, HELD-L2
		r.t.Errorf("%s is valid after it was released", held.Path())
	}
}

// crowded looks at a member's tree for more leases than there may be.
func crowded(m *zk.Member) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return m.View(ctx, func(v *zk.View) error {
		for _, path := range []string{fixedPath, sharedPath} {
			n := 0
			for name, err := range v.Children(path + "/leases") {
				if errors.Is(err, zk.ErrNoNode) {
					break
				}
				if err != nil {
					return err
				}
				if strings.Contains(name, "-lease-") {
					n++
				}
			}
			if n > mostUnits(path) { // SEM-S1: of the log, not only of what holders see
				return fmt.Errorf("%s: %d leases of %d at %v", path, n, mostUnits(path), v.Zxid())
			}
		}
		return nil
	})
}

// count looks at all members, again and again.
func (r *run) count(ctx context.Context) {
	for sleep(ctx, 20*time.Millisecond) {
		for _, i := range r.members() {
			if m := r.c.Member(i); r.c.Up(i) {
				if err := crowded(m); err != nil && strings.Contains(err.Error(), "leases of") {
					r.t.Error(err)
				}
			}
		}
	}
}

// lets is for the end: whatever the faults have left behind, everybody who waits is let in (RW-L1, SEM-L1, SEM-L2).
func (r *run) lets(each func(what string, fn func(n int, s *zk.Session) error), ctx context.Context) {
	each("write lock", func(_ int, s *zk.Session) error {
		held, err := recipes.NewRWLock(s, rwPath).Lock(ctx)
		if err == nil {
			r.stays.begins(held, stay{path: rwPath, writer: true})
			r.giveBack(held)
		}
		return err
	})
	each("read lock", func(_ int, s *zk.Session) error {
		held, err := recipes.NewRWLock(s, rwPath).RLock(ctx)
		if err == nil {
			r.stays.begins(held, stay{path: rwPath})
			r.giveBack(held)
		}
		return err
	})
	each("semaphore", func(n int, s *zk.Session) error {
		m := r.semaphore([...]string{fixedPath, sharedPath}[n%2], s)
		if m.SharedLimit {
			if err := m.SetLimit(ctx, mostShared); err != nil {
				return err
			}
		}
		held, err := m.AcquireN(ctx, semaphoreUnits)
		if err == nil {
			r.stays.begins(held, stay{path: m.Path, units: semaphoreUnits})
			r.giveBack(held)
		}
		return err
	})
}

func TestStayChecker(t *testing.T) {
	reader := func(token zk.Token, first, last int64) stay {
		return stay{path: "/rw", token: token, first: first, last: last}
	}
	writer := func(token zk.Token, first, last int64) stay {
		return stay{path: "/rw", writer: true, token: token, first: first, last: last}
	}
	units := func(n int, first, last int64) stay {
		return stay{path: "/sem", units: n, token: zk.Token(first), first: first, last: last}
	}
	for _, tc := range []struct {
		name string
		ok   bool
		list []stay
	}{
		{"one after the other", true, []stay{writer(1, 1, 2), reader(2, 3, 9), reader(3, 4, 6), writer(4, 10, 11), reader(4, 12, 14), writer(7, 15, 16)}},
		{"a reader beside a writer", false, []stay{writer(1, 1, 5), reader(2, 5, 9)}},
		{"two writers", false, []stay{writer(1, 1, 5), writer(2, 3, 4)}},
		{"one that nobody saw valid", true, []stay{writer(1, 1, 5), writer(2, 3, 0)}},
		{"a writer with an old token", false, []stay{reader(5, 1, 2), writer(4, 3, 4)}},
		{"a writer with the token of a reader", false, []stay{reader(5, 1, 2), writer(5, 3, 4)}},
		{"a reader with an old token", false, []stay{writer(5, 1, 2), reader(4, 3, 4)}},
		{"other paths", true, []stay{writer(5, 1, 2), {path: "/other", writer: true, token: 1, first: 1, last: 2}}},
		{"as many units as there are", true, []stay{units(2, 1, 5), units(1, 2, 3), units(1, 4, 9)}},
		{"one after the other at once", true, []stay{units(3, 1, 5), units(2, 6, 7)}},
		{"too many units", false, []stay{units(2, 1, 5), units(1, 2, 3), units(1, 3, 9)}},
	} {
		if err := together(tc.list, func(string) int { return 3 }); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
