// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// nemesis does harm, and undoes it, until ctx ends. What it does is fixed by its random source.
type nemesis struct {
	r    *run
	c    *zktest.Cluster
	h    *history
	rand *rand.Rand

	paused map[int]bool
	joined int // members that were added, or were to be
	left   int // the member that is to be removed, or was; -1: none
}

func newNemesis(r *run, seed uint64) *nemesis {
	return &nemesis{r: r, c: r.c, h: r.h, rand: rand.New(rand.NewPCG(seed, 2)), paused: map[int]bool{}, left: -1}
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
	ids := n.r.members()
	x := n.rand.IntN(len(ids))
	i, j := ids[x], ids[(x+1+n.rand.IntN(len(ids)-1))%len(ids)]
	if leader, err := n.leader(ctx); err == nil && n.rand.IntN(2) == 0 && leader != i {
		i, j = leader, i
	}
	a, b := zktest.Name(i), zktest.Name(j)
	switch k := n.rand.IntN(17); k {
	case 0, 1:
		n.r.struck("crash", "%s", a)
		return n.c.Crash(i)
	case 2, 3:
		n.r.struck("isolate", "%s", a)
		n.c.Isolate(i)
	case 4:
		n.r.struck("cut", "%s -> %s", a, b)
		n.c.Network().Cut(a, b)
	case 5:
		n.r.struck("stall", "%s %s", a, b)
		n.c.Network().Stall(a, b)
	case 6:
		n.r.struck("reset", "%s %s", a, b)
		n.c.Network().Reset(a, b)
	case 7:
		n.r.struck("slow", "%s %s", a, b)
		n.c.Network().Slow(a, b, time.Duration(n.rand.IntN(200))*time.Millisecond)
	case 8:
		n.r.struck("pause", "%s", a)
		n.paused[i] = true
		n.c.Pause(i)
	case 9:
		n.r.struck("lose answers", "to %s", a)
		n.c.DropForwards(i, 1+n.rand.IntN(4))
	case 10:
		if n.c.Up(i) {
			n.r.struck("snapshot", "%s", a)
			tctx, cancel := context.WithTimeout(ctx, time.Second)
			n.c.Member(i).Compact(tctx)
			cancel()
		}
	case 11:
		if n.c.Up(i) {
			n.r.struck("transfer leadership", "from %s", a)
			tctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			n.c.Member(i).TransferLeadership(tctx, "")
			cancel()
		}
	case 12:
		by := time.Duration(n.rand.Int64N(int64(4*time.Hour))) - 2*time.Hour
		n.r.struck("jump a clock", "of %s by %v", a, by)
		n.r.clocks.jump(i, by)
	case 13:
		by := millis(n.rand.IntN(20000) - 10000)
		n.r.struck("jump a clock", "of %s by %v", a, by)
		n.r.clocks.jump(i, by)
	case 14:
		if n.r.reshape {
			return n.change(ctx, i)
		}
	case 15:
		if n.c.Up(i) { // the next leader knows writes that nobody was answered
			n.r.struck("lose answers and transfer", "to %s, from %s", b, a)
			n.c.DropForwards(j, 1+n.rand.IntN(4))
			tctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			n.c.Member(i).TransferLeadership(tctx, "")
			cancel()
		}
	case 16:
		n.kill(ctx, i)
	}
	if n.rand.IntN(3) == 0 {
		return n.heal(context.WithoutCancel(ctx))
	}
	return nil
}

// kill expires a session of those of which nobody asks when it may end.
func (n *nemesis) kill(ctx context.Context, i int) {
	if !n.c.Up(i) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m := n.c.Member(i)
	list, err := m.Sessions(ctx)
	if err != nil {
		return
	}
	list = slices.DeleteFunc(list, func(info zk.SessionInfo) bool { return info.Name == lifeName })
	if len(list) == 0 {
		return
	}
	id := list[n.rand.IntN(len(list))].ID
	n.r.struck("expire a session", "%v", id)
	m.KillSession(ctx, id)
}

// change adds a member, and later removes one.
func (n *nemesis) change(ctx context.Context, i int) error {
	switch {
	case n.joined == 0:
		n.joined++
		voter := n.rand.IntN(3) > 0
		n.r.struck("add a member", "voter: %v", voter)
		_, err := n.c.Add(ctx, voter)
		return err
	case n.left < 0:
		n.left = i
		n.r.struck("remove a member", "%s", zktest.Name(i))
		n.r.leaves(i)
		ctx, cancel := context.WithTimeout(ctx, millis(n.rand.IntN(4000)))
		defer cancel()
		if err := n.c.Remove(ctx, i); err != nil {
			n.h.note("remove %s: %v", zktest.Name(i), err)
		}
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
	for _, i := range n.r.members() { // a member that was paused for too long has stopped by itself
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

// finish does what a change of membership has left undone.
func (n *nemesis) finish() error {
	ctx, cancel := n.r.within(60 * time.Second)
	defer cancel()
	for n.left >= 0 {
		err := n.c.Remove(ctx, n.left)
		if err == nil {
			break
		}
		n.h.note("remove %s: %v", zktest.Name(n.left), err)
		if !sleep(ctx, time.Second) {
			return err
		}
	}
	for _, i := range n.r.members() {
		if err := n.c.Member(i).Ready(ctx); err != nil {
			return fmt.Errorf("member %d is not ready: %w", i, err)
		}
	}
	return nil
}
