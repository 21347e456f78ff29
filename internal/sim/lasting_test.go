// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// lasting is what clients have begun that goes on after the faults, so that it can be looked at when everything is healed.
type lasting struct {
	ctx  context.Context // ends when check is done with it
	stop context.CancelFunc
	all  sync.WaitGroup
}

func (r *run) lasting() *lasting {
	l := &lasting{}
	l.ctx, l.stop = context.WithCancel(r.whole)
	return l
}

// start runs fn, which ends with l.ctx.
func (l *lasting) start(r *run, fn func()) {
	l.all.Add(1)
	r.watch.Go(func() {
		defer l.all.Done()
		fn()
	})
}

// onEach runs fn on every member, on one incarnation after the other.
func (l *lasting) onEach(r *run, fn func(i int, m *zk.Member, random *rand.Rand)) {
	for i := range r.shape.members + 1 { // one may come
		random := rand.New(rand.NewPCG(r.seed, uint64(3000+i)))
		l.start(r, func() {
			for l.ctx.Err() == nil {
				if m := r.member(i); m != nil {
					fn(i, m, random)
				}
				sleep(l.ctx, 100*time.Millisecond)
			}
		})
	}
}

// end ends all of it.
func (l *lasting) end() {
	l.stop()
	l.all.Wait()
}

// stops waits for a member that is said to stop.
func (r *run) stops(m *zk.Member) bool {
	t := time.NewTimer(2 * r.settle)
	defer t.Stop()
	select {
	case <-m.Done():
		return true
	case <-t.C:
		return false
	}
}

// eventually waits until something is in order, for as long as sessions may take to go.
func (r *run) eventually(ctx context.Context, wrong func() error) error {
	for end := time.Now().Add(r.settle); ; {
		err := wrong()
		if err == nil || !time.Now().Before(end) {
			return err
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// watched finds a watch at a path or below it that somebody has left behind on a member.
func (r *run) watched(ctx context.Context, path string) error {
	for _, i := range r.members() {
		list, err := r.c.Member(i).Watches(ctx)
		if err != nil {
			return err
		}
		for _, w := range list {
			if w.Path == path || strings.HasPrefix(w.Path, path+"/") {
				return fmt.Errorf("member %d: nobody waits for the %v watch of session %v on %s", i, w.Type, w.Session, w.Path)
			}
		}
	}
	return nil
}
