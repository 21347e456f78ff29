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

// locking is the model of a lock, one per path. A right begins within the call that grants it, and ends between the
// last moment at which Valid was true and the moment at which Lost was closed.
type (
	lockStep uint8
	lockIn   struct {
		path  string
		step  lockStep
		token zk.Token
	}
	lockState struct {
		holder zk.Token // 0: none
		last   zk.Token // the highest granted
		gone   zk.Token // the highest whose znode is known to be gone
	}
)

const (
	lockGranted  lockStep = iota
	lockEnded             // Valid is false
	lockGlimpsed          // granted, and over before anybody could look
	lockWrote             // a transaction with the guard was applied
	lockFenced            // a transaction with the guard was refused
)

func (in lockIn) String() string {
	return fmt.Sprintf("%s: %s %d", in.path, [...]string{"granted", "ended", "glimpsed", "wrote", "fenced"}[in.step], in.token)
}

var locking = porcupine.Model{
	Partition: partition(func(in lockIn) string { return in.path }),
	Init:      func() any { return lockState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, in := state.(lockState), input.(lockIn)
		switch in.step {
		case lockGranted, lockGlimpsed:
			ok := s.holder == 0 && in.token > s.last && in.token > s.gone // HELD-S1, HELD-S2, LOCK-S1
			if s.last = in.token; in.step == lockGranted {
				s.holder = in.token
			}
			return ok, s
		case lockEnded:
			ok := s.holder == in.token
			s.holder = 0
			return ok, s
		case lockWrote:
			return s.last == in.token && s.gone < in.token, s // HELD-S3
		}
		s.gone = max(s.gone, in.token)
		return true, s
	},
	DescribeOperation: describe,
}

// lockCheck watches over everything that is held.
type lockCheck struct {
	h *history

	mu    sync.Mutex
	holds map[*hold]struct{}
}

type hold struct {
	*recipes.Held
	in    lockIn
	valid int64 // when Valid was last true
}

// look asks every right whether it is valid.
func (l *lockCheck) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h := range l.holds {
		if at := l.h.now(); h.Valid() {
			h.valid = at
		}
	}
}

// granted takes over a right. What ends is noted by a goroutine of its own, as soon as it has.
func (l *lockCheck) granted(work *sync.WaitGroup, client int, path string, call int64, held *recipes.Held) {
	h := &hold{Held: held, in: lockIn{path, lockGranted, held.Token()}}
	returned := l.h.now()
	at := l.h.now()
	if !held.Valid() {
		h.in.step = lockGlimpsed
		l.h.add(client, call, h.in, nil, at)
		return
	}
	h.valid = at
	l.h.add(client, call, h.in, nil, returned)
	l.mu.Lock()
	l.holds[h] = struct{}{}
	l.mu.Unlock()
	work.Go(func() {
		<-held.Lost()
		h.in.step = lockEnded
		l.mu.Lock()
		delete(l.holds, h)
		l.mu.Unlock()
		l.h.add(client, h.valid, h.in, nil, l.h.now())
	})
	l.look() // at the others
}

const lockPaths = 2

// lock is lock n. The second has a grace: it writes more.
func (r *run) lock(n int, src zk.SessionSource) *recipes.Lock {
	l := recipes.NewLock(src, fmt.Sprint("/lock/", n))
	if n > 0 {
		l.Grace = 300 * time.Millisecond
	}
	return l
}

func (r *run) lockClient(client int, random *rand.Rand) {
	for r.idle(random, 500) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Lock")
		lock := r.lock(random.IntN(lockPaths), s)
		paths := []string{lock.Path}
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(8000)))
		call := r.locks.h.now()
		acquire := lock.Acquire
		switch random.IntN(8) {
		case 0, 1:
			acquire = lock.TryAcquire
		case 2:
			paths = []string{r.lock(0, s).Path, r.lock(1, s).Path}
			acquire = func(ctx context.Context) (*recipes.Held, error) { return recipes.LockAll(ctx, s, paths...) }
		}
		held, err := acquire(ctx)
		cancel()
		if err != nil {
			continue
		}
		for _, path := range paths {
			r.locks.granted(&r.work, client, path, call, held)
		}
		work, stop := held.Context(r.ctx)
		for random.IntN(5) != 0 && sleep(work, millis(random.IntN(400))) {
			r.locks.look()
			if random.IntN(2) == 0 {
				r.fenced(client, paths, held)
			}
		}
		stop()
		if random.IntN(8) == 0 { // who goes on beyond the end is fenced off
			r.fenced(client, paths, held)
		}
		r.release(held)
		if random.IntN(4) == 0 {
			r.fenced(client, paths, held)
		}
	}
}

// fenced writes under the guards of a right.
func (r *run) fenced(client int, paths []string, held *recipes.Held) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	step := lockWrote
	call := r.locks.h.now()
	_, err := held.Session().Txn(ctx, append(held.Guards(), zk.OpSet("/fenced", fmt.Append(nil, held.Token()), zk.AnyVersion))...)
	switch {
	case errors.Is(err, zk.ErrGuard) && len(paths) > 1:
		return // one of them is gone, but which?
	case errors.Is(err, zk.ErrGuard):
		step = lockFenced
	case err != nil:
		return // it changes nothing in the model
	}
	returned := r.locks.h.now()
	for _, path := range paths {
		r.locks.h.add(client, call, lockIn{path, step, held.Token()}, nil, returned)
	}
}

func (r *run) release(held *recipes.Held) {
	r.locks.look()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held.Release(ctx)
	if held.Valid() { // HELD-S5, HELD-L2
		r.t.Errorf("%s is valid after it was released", held.Path())
	}
}

func TestLockChecker(t *testing.T) {
	in := func(step lockStep, token zk.Token) lockIn { return lockIn{"/l", step, token} }
	judge(t, locking, []judged{
		{"one after the other", true, []porcupine.Operation{
			did(1, 2, in(lockGranted, 5), nil), did(3, 4, in(lockWrote, 5), nil), did(5, 8, in(lockEnded, 5), nil), did(1, 7, in(lockGranted, 6), nil), did(9, 10, in(lockEnded, 6), nil),
		}},
		{"two holders", false, []porcupine.Operation{did(1, 2, in(lockGranted, 5), nil), did(3, 4, in(lockGranted, 6), nil), did(5, 6, in(lockEnded, 5), nil), did(7, 8, in(lockEnded, 6), nil)}},
		{"two holders, one of them for a moment", false, []porcupine.Operation{did(1, 2, in(lockGranted, 5), nil), did(3, 4, in(lockGlimpsed, 6), nil), did(5, 6, in(lockEnded, 5), nil)}},
		{"a token goes back", false, []porcupine.Operation{did(1, 2, in(lockGranted, 5), nil), did(3, 4, in(lockEnded, 5), nil), did(5, 6, in(lockGranted, 4), nil)}},
		{"a token comes twice", false, []porcupine.Operation{did(1, 2, in(lockGlimpsed, 5), nil), did(3, 4, in(lockGlimpsed, 5), nil)}},
		{"a write behind a successor's grant", false, []porcupine.Operation{did(1, 2, in(lockGlimpsed, 5), nil), did(3, 4, in(lockGranted, 6), nil), did(5, 6, in(lockWrote, 5), nil)}},
		{"a write of one that was fenced off", false, []porcupine.Operation{did(1, 2, in(lockGranted, 5), nil), did(3, 4, in(lockFenced, 5), nil), did(5, 6, in(lockWrote, 5), nil)}},
	})
}
