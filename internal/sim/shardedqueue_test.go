// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	shardBound = 3 // shards
	shardItems = 2 // that a shard has before another is added
)

// shardedCheck knows what was put into two queues, and into which shard each item went. The consumers of the first have a
// ShardedQueue each, so that the order in a shard is exact; those of the second share one.
type shardedCheck struct {
	*queueCheck
	r      *run
	shared *recipes.ShardedQueue[string]

	mu      sync.Mutex
	shards  map[string]string // by item of the first queue
	most    int               // shards at a time
	removed int               // shards
}

func (r *run) shardedPart() part {
	c := &shardedCheck{queueCheck: newQueueCheck(nil), r: r, shared: sharded(1, r.anybody()), shards: map[string]string{}}
	return part{"ShardedQueue", 3, c.client, c.finish}
}

func shardedPath(n int) string { return fmt.Sprint("/sharded/", n) }

func sharded(n int, src zk.SessionSource) *recipes.ShardedQueue[string] {
	q := recipes.NewShardedQueue[string](src, shardedPath(n))
	q.Threshold, q.MaxShards = shardItems, shardBound
	return q
}

func (c *shardedCheck) queue(n int, src zk.SessionSource) *recipes.ShardedQueue[string] {
	if n == 0 {
		return sharded(n, src)
	}
	return c.shared
}

func (c *shardedCheck) client(client int, random *rand.Rand) {
	for i := 0; c.r.idle(random, 1200); i++ {
		s, err := c.r.source(random)
		if err != nil {
			continue
		}
		c.r.did("ShardedQueue")
		n := random.IntN(2)
		q := c.queue(n, s)
		ctx, cancel := context.WithTimeout(c.r.ctx, millis(1+random.IntN(5000)))
		switch random.IntN(10) {
		case 0, 1, 2:
			c.fill(ctx, client, n, i, random)
		case 3, 4, 5, 6, 7:
			c.receive(ctx, client, n, q, random.IntN(4) == 0, func() { sleep(c.r.ctx, millis(random.IntN(300))) })
		case 8, 9:
			c.operate(ctx, s, n, random)
		}
		c.bounded(ctx, s)
		cancel()
	}
}

// fill puts some items at a time, on several members: each of them may find that a shard is to be added.
func (c *shardedCheck) fill(ctx context.Context, client, n, round int, random *rand.Rand) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range 1 + random.IntN(3) {
		s, err := c.r.source(random)
		if err != nil {
			continue
		}
		q, item := c.queue(n, s), fmt.Sprintf("%d.%d.%d", client, round, i)
		all.Go(func() {
			err := c.put(client, n, item, 0, func() error { return q.Put(ctx, item) })
			if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrGuard) { // others change the shards all the time
				c.r.t.Errorf("putting %q: %v", item, err)
			}
		})
	}
}

// receive receives an item, and notes its shard.
func (c *shardedCheck) receive(ctx context.Context, client, n int, q *recipes.ShardedQueue[string], back bool, work func()) error {
	msg, err := c.queueCheck.receive(c.r.t, client, n, func() (*recipes.Message[string], error) { return q.Receive(ctx) }, back, work)
	if msg == nil || n > 0 {
		return err
	}
	shard := path.Base(path.Dir(msg.Path()))
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.shards[msg.Value]; ok && was != shard {
		c.r.t.Errorf("%q was in %s and is in %s", msg.Value, was, shard)
	}
	c.shards[msg.Value] = shard
	return err
}

// operate removes a shard, if that is empty, or a claim.
func (c *shardedCheck) operate(ctx context.Context, s *zk.Session, n int, random *rand.Rand) {
	shards, _, err := s.Children(ctx, shardedPath(n))
	if err != nil || len(shards) == 0 {
		return
	}
	shard := shards[random.IntN(len(shards))]
	locks := path.Join(shardedPath(n)+"-locks", shard)
	claims, _, err := s.Children(ctx, locks)
	if err != nil || len(claims) == 0 || random.IntN(2) == 0 {
		if s.Delete(ctx, path.Join(shardedPath(n), shard), zk.AnyVersion) == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.removed++
		}
		return
	}
	claim := path.Join(locks, claims[random.IntN(len(claims))])
	st, ok, err := s.Exists(ctx, claim)
	if !ok || err != nil {
		return
	}
	token := zk.Token(st.Czxid)
	c.queueCheck.mu.Lock()
	if _, again := c.evicted[token]; !again {
		c.evicted[token] = c.h.now()
	}
	c.queueCheck.mu.Unlock()
	s.Txn(ctx, zk.OpCheckCreated(claim, token), zk.OpDelete(claim, zk.AnyVersion))
}

// bounded looks whether there are more shards than there may be.
func (c *shardedCheck) bounded(ctx context.Context, s *zk.Session) {
	for n := range 2 {
		st, _, err := s.Exists(ctx, shardedPath(n))
		if err != nil {
			continue
		}
		if st.NumChildren > shardBound {
			c.r.t.Errorf("%s has %d shards", shardedPath(n), st.NumChildren)
		}
		c.mu.Lock()
		c.most = max(c.most, st.NumChildren)
		c.mu.Unlock()
	}
}

// left counts the entries in all shards.
func (c *shardedCheck) left(ctx context.Context, s *zk.Session, n int) (entries int, err error) {
	shards, _, err := s.Children(ctx, shardedPath(n), zk.Linearizable)
	for _, shard := range shards {
		st, _, failed := s.Exists(ctx, path.Join(shardedPath(n), shard))
		if entries += st.NumChildren; failed != nil {
			return entries, failed
		}
	}
	return entries, err
}

// free says whether nothing is claimed.
func (c *shardedCheck) free(ctx context.Context, s *zk.Session, n int) error {
	for z, err := range s.Walk(ctx, shardedPath(n)+"-locks") {
		if err != nil {
			return err
		}
		if z.Stat.EphemeralOwner != 0 {
			return fmt.Errorf("%s is left behind", z.Path)
		}
	}
	return nil
}

// finish empties the queues and accounts for every item (Q-S1, Q-S2, Q-L1).
func (c *shardedCheck) finish(ctx context.Context, s *zk.Session) error {
	for n := range 2 {
		q := c.queue(n, s)
		if err := c.put(-1, n, "last", 0, func() error { return q.Put(ctx, "last") }); err != nil {
			return err
		}
		for {
			entries, err := c.left(ctx, s, n)
			if err == nil && entries == 0 {
				break
			}
			if err := c.receive(ctx, -1, n, q, false, func() {}); err != nil {
				return fmt.Errorf("%d entries are left in %s: %w", entries, shardedPath(n), err)
			}
		}
		if err := c.r.eventually(ctx, func() error { return c.free(ctx, s, n) }); err != nil {
			return err
		}
		if vanished := c.empty(n); vanished > 0 {
			return fmt.Errorf("%d items of %s vanished", vanished, shardedPath(n))
		}
	}
	c.r.t.Logf("sharded queues: %d operations, up to %d shards, %d removed, %d claims deleted", len(c.h.ops), c.most, c.removed, len(c.evicted))
	c.r.linearizable("sharded queue", queueing, c.h)
	if err := overtaken(apart(c.h.ops, c.shards)); err != nil {
		return err
	}
	return nil
}

// apart are the operations of the first queue by shards, as if each were a queue of its own.
func apart(ops []porcupine.Operation, shards map[string]string) (list []porcupine.Operation) {
	number := map[string]int{}
	for _, o := range onlyQueue(ops, 0) {
		in := o.Input.(queueIn)
		shard, ok := shards[in.item]
		if !ok {
			continue
		}
		if _, ok := number[shard]; !ok {
			number[shard] = len(number)
		}
		in.queue = number[shard]
		o.Input = in
		list = append(list, o)
	}
	return list
}

func TestShardedQueueChecker(t *testing.T) {
	op := func(call, returned int64, item string, step queueStep) porcupine.Operation {
		return did(call, returned, queueIn{item: item, step: step}, queueOut{})
	}
	ops := []porcupine.Operation{op(1, 2, "a", queuePut), op(3, 4, "b", queuePut), op(5, 6, "b", queueReceived), op(7, 8, "a", queueReceived)}
	for _, j := range []struct {
		name, shards string
		ok           bool
	}{
		{"in one shard", "xx", false},
		{"in two", "xy", true},
		{"one was never received", "x", true},
	} {
		shards := map[string]string{}
		for i, shard := range strings.Split(j.shards, "") {
			shards["ab"[i:i+1]] = shard
		}
		if err := overtaken(apart(ops, shards)); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
	c := newQueueCheck(nil)
	c.put(1, 0, "a", 0, func() error { return nil })
	c.put(1, 0, "b", 0, func() error { return &zk.Error{Code: zk.ErrUnavailable, MaybeApplied: true} })
	c.put(1, 0, "c", 0, func() error { return zk.ErrClosed })
	if vanished := c.empty(0); vanished != 1 {
		t.Errorf("%d items vanished", vanished)
	}
}
