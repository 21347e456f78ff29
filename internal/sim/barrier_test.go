// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// barriers is the model of a barrier: up or down. Who waits passes at a moment at which it is down (BAR-S1).
type barrierIn uint8

const (
	barrierSet barrierIn = iota
	barrierLift
	barrierPass
)

func (in barrierIn) String() string { return [...]string{"set", "lift", "pass"}[in] }

var barriers = porcupine.Model{
	Init: func() any { return false },
	Step: func(state, input, _ any) (bool, any) {
		switch in := input.(barrierIn); in {
		case barrierPass:
			return !state.(bool), state
		default:
			return true, in == barrierSet
		}
	},
	DescribeOperation: describe,
}

func (r *run) barrierClient(client int, random *rand.Rand) {
	for r.idle(random, 1500) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Barrier")
		b := recipes.NewBarrier(s, "/barrier")
		in := barrierIn(random.IntN(3))
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(5000)))
		call := r.barrier.now()
		switch err := [...]func(context.Context) error{b.Set, b.Lift, b.Wait}[in](ctx); {
		case err == nil:
			r.barrier.add(client, call, in, nil, r.barrier.now())
		case in != barrierPass && zk.MaybeApplied(err):
			r.barrier.add(client, call, in, nil, forever)
		}
		cancel()
	}
}

func TestBarrierChecker(t *testing.T) {
	judge(t, barriers, []judged{
		{"lifted while one waits", true, []porcupine.Operation{did(1, 2, barrierSet, nil), did(3, 8, barrierPass, nil), did(4, 5, barrierLift, nil), did(6, 7, barrierSet, nil)}},
		{"perhaps lifted", true, []porcupine.Operation{did(1, 2, barrierSet, nil), did(3, forever, barrierLift, nil), did(4, 5, barrierPass, nil)}},
		{"through the barrier", false, []porcupine.Operation{did(1, 2, barrierSet, nil), did(3, 4, barrierPass, nil), did(5, 6, barrierLift, nil)}},
		{"lifted before the call", false, []porcupine.Operation{did(1, 2, barrierLift, nil), did(3, 4, barrierSet, nil), did(5, 6, barrierPass, nil)}},
	})
}
