// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math/rand/v2"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// electionPath is a lock in the model: who leads holds it (ELEC-S1).
const electionPath = "/election"

// electionClient campaigns, leads for a while, proclaims, and resigns.
func (r *run) electionClient(client int, random *rand.Rand) {
	for r.idle(random, 800) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Election")
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(10000)))
		call := r.locks.h.now()
		l, err := recipes.NewElection(s, electionPath).Campaign(ctx, nil)
		cancel()
		if err != nil {
			continue
		}
		r.locks.granted(&r.work, 200+client, electionPath, call, l.Held)
		term, stop := l.Context(r.ctx)
		for random.IntN(5) != 0 && sleep(term, millis(random.IntN(600))) {
			r.locks.look()
			switch random.IntN(3) {
			case 0:
				r.fenced(client, []string{electionPath}, l.Held)
			case 1:
				l.Proclaim(term, []byte("busy"))
			}
		}
		stop()
		if random.IntN(6) == 0 { // who goes on beyond the end is fenced off
			r.fenced(client, []string{electionPath}, l.Held)
		}
		r.release(l.Held)
	}
}

// observe follows the election on one member: tokens never go back, as long as the member is the same (ELEC-S3).
func (r *run) observe(ctx context.Context, i int) {
	for sleep(ctx, millis(100)) {
		m := r.member(i)
		if m == nil {
			continue
		}
		var last zk.Token
		for l, err := range recipes.NewElection(m, electionPath).Observe(ctx) {
			if err != nil {
				break
			}
			if l.Token != 0 && l.Token < last {
				r.t.Errorf("member %d: leader %d after %d", i, l.Token, last)
			}
			last = max(last, l.Token)
		}
	}
}
