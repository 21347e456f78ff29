// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk/recipes"
)

// What is shared among those who take part is what locks are for: an item's owner is the holder of its lock in the model
// (PART-S1), and what it writes is fenced.
var partItems = []string{"a", "b", "c", "d"}

func (r *run) partitionClient(client int, random *rand.Rand) {
	for r.idle(random, 3000) {
		ids := r.members()
		m := r.c.Member(ids[random.IntN(len(ids))])
		if m == nil {
			continue
		}
		r.did("Partitioner")
		p := recipes.NewPartitioner(m, "/part", fmt.Sprint("client-", client), partItems)
		p.Quiet = millis(100 + random.IntN(400))
		ctx, cancel := context.WithTimeout(r.ctx, millis(1000+random.IntN(15000)))
		began := r.locks.h.now()
		var mu sync.Mutex
		busy := map[string]bool{}
		p.Run(ctx, func(ctx context.Context, item string, held *recipes.Held) error {
			mu.Lock()
			if busy[item] {
				r.t.Errorf("client %d works twice on %s", client, item)
			}
			busy[item] = true
			mu.Unlock()
			r.ownItem(ctx, client, "/part/locks/"+item, began, held, rand.New(rand.NewPCG(r.seed, uint64(held.Token()))))
			mu.Lock()
			defer mu.Unlock()
			busy[item] = false
			return nil
		})
		cancel()
		if left := p.Owned(); len(left) > 0 { // PART-S2
			r.t.Errorf("client %d has returned and owns %q", client, left)
		}
	}
}

// ownItem works on an item until it is to be given up, and at times a little longer.
func (r *run) ownItem(ctx context.Context, client int, path string, began int64, held *recipes.Held, random *rand.Rand) {
	call := r.locks.h.now()
	if !held.Valid() { // it was granted, and over, before
		call = began
	}
	r.locks.granted(&r.work, client, path, call, held)
	for sleep(ctx, millis(random.IntN(800))) {
		r.locks.look()
		if random.IntN(4) == 0 {
			r.fenced(client, []string{path}, held)
		}
	}
	if random.IntN(3) == 0 { // who goes on beyond the end is fenced off
		sleep(context.Background(), time.Duration(random.IntN(2000))*time.Millisecond)
		r.fenced(client, []string{path}, held)
	}
}
