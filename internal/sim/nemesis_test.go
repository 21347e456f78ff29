// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/seed-541fafe0/zk/zktest"
)

// nemesis does harm, and undoes it, until ctx ends. What it does is fixed by its random source.
type nemesis struct {
	c    *zktest.Cluster
	h    *history
	rand *rand.Rand

	paused map[int]bool
}

func newNemesis(c *zktest.Cluster, h *history, seed uint64) *nemesis {
	return &nemesis{c: c, h: h, rand: rand.New(rand.NewPCG(seed, 2)), paused: map[int]bool{}}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (n *nemesis) run(ctx context.Context) error {
	for sleep(ctx, time.Duration(n.rand.IntN(4000))*time.Millisecond) {
		if err := n.strike(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (n *nemesis) strike(ctx context.Context) error {
	i := n.rand.IntN(n.c.Len())
	j := (i + 1 + n.rand.IntN(n.c.Len()-1)) % n.c.Len()
	if leader, err := n.leader(ctx); err == nil && n.rand.IntN(2) == 0 {
		i = leader
		j = (i + 1) % n.c.Len()
	}
	a, b := zktest.Name(i), zktest.Name(j)
	switch k := n.rand.IntN(12); k {
	case 0, 1:
		n.h.note("crash %s", a)
		return n.c.Crash(i)
	case 2, 3:
		n.h.note("isolate %s", a)
		n.c.Isolate(i)
	case 4:
		n.h.note("cut %s -> %s", a, b)
		n.c.Network().Cut(a, b)
	case 5:
		n.h.note("stall %s %s", a, b)
		n.c.Network().Stall(a, b)
	case 6:
		n.h.note("reset %s %s", a, b)
		n.c.Network().Reset(a, b)
	case 7:
		n.h.note("slow %s %s", a, b)
		n.c.Network().Slow(a, b, time.Duration(n.rand.IntN(200))*time.Millisecond)
	case 8:
		n.h.note("pause %s", a)
		n.paused[i] = true
		n.c.Pause(i)
	case 9:
		n.h.note("drop answers to %s", a)
		n.c.DropForwards(i, 1+n.rand.IntN(4))
	case 10:
		if n.c.Up(i) {
			n.h.note("snapshot %s", a)
			tctx, cancel := context.WithTimeout(ctx, time.Second)
			n.c.Member(i).Compact(tctx)
			cancel()
		}
	case 11:
		if n.c.Up(i) {
			n.h.note("transfer leadership from %s", a)
			tctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			n.c.Member(i).TransferLeadership(tctx, "")
			cancel()
		}
	}
	if n.rand.IntN(3) == 0 {
		return n.heal(context.WithoutCancel(ctx))
	}
	return nil
}

func (n *nemesis) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	return n.c.Leader(ctx)
}

// heal undoes everything.
func (n *nemesis) heal(ctx context.Context) error {
	n.h.note("heal")
	for i := range n.paused {
		n.c.Resume(i)
	}
	clear(n.paused)
	n.c.Heal()
	for i := range n.c.Len() { // a member that was paused for too long has stopped by itself
		if n.c.Up(i) {
			continue
		}
		n.h.note("restart %s", zktest.Name(i))
		if err := n.c.Restart(ctx, i); err != nil {
			return fmt.Errorf("restart %s: %w", zktest.Name(i), err)
		}
	}
	return nil
}
