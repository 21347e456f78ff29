// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

type sharded = recipes.ShardedQueue[int]

func newSharded(s zk.SessionSource, threshold, shards int) *sharded {
	return &sharded{Session: s, Path: "/s", Threshold: threshold, MaxShards: shards}
}

func shardReceiving(ctx context.Context, q *sharded) <-chan receipt {
	ch := make(chan receipt, 1)
	go func() {
		m, err := q.Receive(ctx)
		ch <- receipt{m, err}
	}()
	synctest.Wait()
	return ch
}

// drain receives and acknowledges what is there.
func drain(t *testing.T, ctx context.Context, q *sharded, n int) (items []int) {
	t.Helper()
	for range n {
		r := soon(t, "nothing received", shardReceiving(ctx, q))
		must(t, r.err)
		items = append(items, r.m.Value)
		must(t, r.m.Ack(ctx))
	}
	return items
}

func shardNames(t *testing.T, ctx context.Context, s *zk.Session) (list []string) {
	t.Helper()
	for _, name := range names(t, ctx, s, "/s") {
		if strings.HasPrefix(name, "queue-") && len(name) == len("queue-")+36 {
			list = append(list, "/s/"+name)
		}
	}
	return list
}

// One shard is a queue; more are added when those that are there are full, and the least full one is put into.
func TestShardedQueue(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s, far := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(1))
		q, other := newSharded(s, 10, 3), newSharded(far, 10, 3)
		ch := shardReceiving(ctx, other) // waits where there is nothing at all yet
		must(t, q.Put(ctx, -1))
		must(t, received(t, ch, -1).Ack(ctx))
		for i := range 10 {
			must(t, q.Put(ctx, i))
		}
		if n := len(shardNames(t, ctx, s)); n != 1 {
			t.Fatalf("%d shards for the first items", n)
		}
		must(t, far.Sync(ctx))
		same(t, "one shard is a queue", drain(t, ctx, other, 10), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) // Q-S4
		for i := range 60 {
			must(t, q.Put(ctx, i))
		}
		shards := shardNames(t, ctx, s)
		if len(shards) != 3 {
			t.Fatalf("%d shards", len(shards))
		}
		last := map[string]int{}
		for _, dir := range shards {
			n := len(names(t, ctx, s, dir))
			if n < 10 || n > 40 {
				t.Errorf("%d of 60 items in one shard of three", n)
			}
			last[dir] = -1
		}
		// Of a shard they come in their order (Q-S4), whoever receives.
		must(t, far.Sync(ctx))
		var all []int
		for i := range 60 {
			must(t, s.Sync(ctx))
			r := soon(t, "nothing received", shardReceiving(ctx, []*sharded{q, other}[i%2]))
			must(t, r.err)
			dir := "/s" + r.m.Path()[len("/s-locks"):]
			dir = dir[:strings.LastIndexByte(dir, '/')]
			if r.m.Value <= last[dir] {
				t.Errorf("%d after %d in %s", r.m.Value, last[dir], dir)
			}
			last[dir] = r.m.Value
			all = append(all, r.m.Value)
			must(t, r.m.Ack(ctx))
			must(t, far.Sync(ctx))
		}
		slices.Sort(all)
		for i, v := range all {
			if v != i { // Q-S2, Q-S3
				t.Fatalf("%v", all)
			}
		}
		// A delay is refused, and the claim stays.
		must(t, q.Put(ctx, 1))
		r := soon(t, "nothing received", shardReceiving(ctx, q))
		wants(t, r.m.Nack(ctx, time.Second), zk.ErrBadArguments)
		must(t, r.m.Ack(ctx))
		wants(t, q.Put(nil, 1), zk.ErrBadArguments) //nolint:staticcheck // that is the point
		_, err := newSharded(nil, 0, 0).Receive(ctx)
		wants(t, err, zk.ErrBadArguments)
		wants(t, (&sharded{Session: s, Path: "s"}).Put(ctx, 1), zk.ErrBadArguments)
		if defaults := recipes.NewShardedQueue[int](s, "/s"); defaults.Put(ctx, 1) != nil || len(shardNames(t, ctx, s)) != 3 {
			t.Error("the defaults add no shard here")
		}
	})
}

// However many put at once on however many members, there are never more than MaxShards, nor more than are asked for.
func TestShardedQueueGrows(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 1 << 14}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		const limit, producers, each = 4, 12, 20
		s := session(t, ctx, c.Member(0))
		w, err := s.Watch(ctx, "/s", zk.WatchSubtree)
		must(t, err)
		done := started(producers, func(i int) error {
			q := newSharded(c.Member(i%3), 15, limit)
			for n := range each {
				if err := q.Put(ctx, i*each+n); err != nil {
					return err
				}
			}
			return nil
		})
		all(t, "put", producers, done)
		must(t, s.Sync(ctx))
		w.Close()
		shards := 0
		for ev := range w.Events() {
			if ev.Type == zk.EventOverflow {
				t.Fatal("too slow")
			}
			if ev.Type == zk.EventCreated && strings.Count(ev.Path, "/") == 2 {
				if shards++; shards > limit {
					t.Errorf("zxid %v: %d shards", ev.Zxid, shards)
				}
			}
		}
		if shards != limit || len(shardNames(t, ctx, s)) != limit {
			t.Errorf("%d shards of %d", shards, limit)
		}
		got := drain(t, ctx, newSharded(s, 15, limit), producers*each)
		slices.Sort(got)
		for i, v := range got {
			if v != i { // Q-S2
				t.Fatalf("%v", got)
			}
		}
	})
}

// Shards that Curator's QueueSharder has made are ours as well, and what is no shard is passed over.
func TestShardedQueueOthers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		const theirs = "/s/queue-7b1cbe92-1c0f-4f0e-8a4c-0123456789ab"
		for _, path := range []string{theirs, "/s/queue-0000000001", "/s/queue-7b1cbe92", "/s/other", "/s-leader"} {
			_, err := s.Create(ctx, path, []byte("x"), zk.Parents)
			must(t, err)
		}
		_, err := s.Create(ctx, theirs+"/queue-", curator("1", "2"), zk.Sequential)
		must(t, err)
		q := newSharded(s, 2, 2)
		same(t, "Curator's items", drain(t, ctx, q, 2), 1, 2)
		for i := range 4 {
			must(t, q.Put(ctx, i))
		}
		if n := len(names(t, ctx, s, "/s")); n != 5 {
			t.Errorf("%d children", n)
		}
		bad, err := s.Create(ctx, theirs+"/queue-", []byte("junk"), zk.Sequential)
		must(t, err)
		var got []int
		reports := 0
		for len(got) < 4 {
			r := soon(t, "nothing received", shardReceiving(ctx, q))
			if damaged, ok := errors.AsType[*recipes.DecodeError](r.err); ok { // Q-S7
				if reports++; damaged.Path != bad.Path || damaged.Zxid != bad.Stat.Mzxid {
					t.Errorf("%+v", damaged)
				}
				continue
			}
			must(t, r.err)
			got = append(got, r.m.Value)
			must(t, r.m.Ack(ctx))
		}
		if slices.Sort(got); !slices.Equal(got, []int{0, 1, 2, 3}) || reports > 1 {
			t.Errorf("%v, %d reports", got, reports)
		}
		// No child of the directory is a lock: Curator would take it for a shard.
		if n := len(names(t, ctx, s, "/s")); n != 5 {
			t.Errorf("%d children", n)
		}
	})
}

// What happens to a sharded queue, by the table of docs/spec/recipes.md.
func TestShardedQueueEvents(t *testing.T) {
	type scene struct {
		*testing.T
		ctx    context.Context
		c      *zktest.Cluster
		f      int         // a follower, where the consumer is
		s, far *zk.Session // the consumer's, and that of another on a member that stays
		q, alt *sharded
	}
	receives := func(t *scene, q *sharded, want int) *recipes.Message[int] {
		t.Helper()
		return received(t.T, shardReceiving(t.ctx, q), want)
	}
	// claimed is a message of the consumer's on a member that has two shards.
	claimed := func(t *scene) *recipes.Message[int] {
		t.Helper()
		must(t.T, t.alt.Put(t.ctx, 1))
		must(t.T, t.s.Sync(t.ctx))
		return receives(t, t.q, 1)
	}
	lost := func(t *scene, m *recipes.Message[int], cause ...error) {
		t.Helper()
		soon(t.T, "lost", m.Lost())
		wants(t.T, m.Ack(t.ctx), append(cause, recipes.ErrLost)...)
	}
	for name, run := range map[string]func(t *scene){
		"session expires, waiting": func(t *scene) {
			done := started(5, func(int) error { _, err := t.q.Receive(t.ctx); return err })
			must(t.T, t.c.Expire(t.ctx, t.s))
			for range 5 {
				wants(t.T, soon(t.T, "expired", done), zk.ErrSessionExpired)
			}
		},
		"session expires, claimed": func(t *scene) {
			m := claimed(t)
			ch := shardReceiving(t.ctx, t.alt)
			must(t.T, t.c.Expire(t.ctx, t.s))
			again := received(t.T, ch, 1) // Q-L1
			if !again.Redelivered() {
				t.Error("it was claimed before")
			}
			must(t.T, again.Ack(t.ctx))
			lost(t, m) // Q-S1
		},
		"cut off, claimed": func(t *scene) {
			m := claimed(t)
			t.c.Isolate(t.f)
			lost(t, m, zk.ErrSuspended) // Q-S1
			ch := shardReceiving(t.ctx, t.alt)
			t.c.Heal()
			must(t.T, received(t.T, ch, 1).Ack(t.ctx))
		},
		"cut off, waiting": func(t *scene) {
			ch := shardReceiving(t.ctx, t.q)
			t.c.Isolate(t.f)
			time.Sleep(t.s.Timeout() * 95 / 100)
			must(t.T, t.alt.Put(t.ctx, 1))
			t.c.Heal()
			must(t.T, received(t.T, ch, 1).Ack(t.ctx))
		},
		"cut off, putting": func(t *scene) {
			t.c.Isolate(t.f)
			some, cancel := context.WithTimeout(t.ctx, time.Second)
			defer cancel()
			wants(t.T, t.q.Put(some, 1), context.DeadlineExceeded)
			put := started(1, func(int) error { return t.q.Put(t.ctx, 2) })
			t.c.Heal()
			all(t.T, "put", 1, put)
			some, cancel = context.WithTimeout(t.ctx, time.Minute)
			defer cancel()
			got := map[int]int{}
			for {
				m, err := t.alt.Receive(some)
				if err != nil {
					break
				}
				got[m.Value]++
				must(t.T, m.Ack(t.ctx))
			}
			if got[2] != 1 || got[1] > 1 { // Q-S2; nobody knows of the first one
				t.Errorf("received %v", got)
			}
		},
		"leader changes": func(t *scene) {
			m := claimed(t)
			ch := shardReceiving(t.ctx, t.q)
			crashLeader(t.T, t.ctx, t.c)
			if !m.Valid() {
				t.Error(m.Err())
			}
			must(t.T, t.alt.Put(t.ctx, 3))
			must(t.T, received(t.T, ch, 3).Ack(t.ctx)) // Q-L2
			must(t.T, m.Ack(t.ctx))
		},
		"ctx ends, waiting": func(t *scene) {
			why := errors.New("why")
			some, cancel := context.WithCancelCause(t.ctx)
			done := started(40, func(int) error { _, err := t.q.Receive(some); return err })
			cancel(why)
			for range 40 {
				wants(t.T, soon(t.T, "ended", done), context.Canceled, why)
			}
			synctest.Wait()
			if n := t.c.Member(t.f).Stats().Watches; n != 0 {
				t.Errorf("%d watches", n)
			}
		},
		"ctx ends, claiming": func(t *scene) {
			must(t.T, t.alt.Put(t.ctx, 1))
			must(t.T, t.s.Sync(t.ctx))
			t.c.Isolate(t.f)
			some, cancel := context.WithTimeout(t.ctx, time.Second)
			defer cancel()
			_, err := t.q.Receive(some)
			wants(t.T, err, context.DeadlineExceeded)
			t.c.Heal()
			must(t.T, receives(t, t.alt, 1).Ack(t.ctx))
		},
		"process dies": func(t *scene) {
			claimed(t)
			must(t.T, t.c.Crash(t.f))
			began := time.Now()
			must(t.T, receives(t, t.alt, 1).Ack(t.ctx)) // Q-S2, Q-L1
			if took := time.Since(began); took > t.s.Timeout()*3/2 {
				t.Errorf("redelivered after %v", took)
			}
		},
		"operator deletes the entry": func(t *scene) {
			m := claimed(t)
			must(t.T, t.s.Delete(t.ctx, "/s"+strings.TrimPrefix(m.Path(), "/s-locks"), zk.AnyVersion))
			wants(t.T, m.Ack(t.ctx), recipes.ErrBroken)
		},
		"operator deletes the claim": func(t *scene) {
			m := claimed(t)
			must(t.T, t.s.Delete(t.ctx, m.Path(), zk.AnyVersion))
			lost(t, m, zk.ErrNoNode) // Q-S1
			must(t.T, receives(t, t.alt, 1).Ack(t.ctx))
		},
		"operator deletes a shard": func(t *scene) {
			m := claimed(t)
			ch := shardReceiving(t.ctx, t.q)
			dir := "/s" + strings.TrimPrefix(m.Path(), "/s-locks")
			must(t.T, t.far.DeleteTree(t.ctx, dir[:strings.LastIndexByte(dir, '/')]))
			must(t.T, t.s.Sync(t.ctx))
			wants(t.T, m.Ack(t.ctx), recipes.ErrBroken)
			must(t.T, t.alt.Put(t.ctx, 2))
			must(t.T, received(t.T, ch, 2).Ack(t.ctx))
		},
		"operator deletes the shard that is being put into": func(t *scene) {
			t.c.Network().Slow(zktest.Name(t.f), zktest.Name(leader(t.T, t.ctx, t.c)), 200*time.Millisecond)
			put := started(1, func(int) error { return t.q.Put(t.ctx, 2) })
			for _, dir := range shardNames(t.T, t.ctx, t.far) {
				must(t.T, t.far.DeleteTree(t.ctx, dir))
			}
			t.c.Heal()
			all(t.T, "put into another", 1, put)
			must(t.T, t.far.Sync(t.ctx))
			must(t.T, receives(t, t.alt, 2).Ack(t.ctx)) // Q-S2
		},
		"operator deletes everything": func(t *scene) {
			m := claimed(t)
			ch := shardReceiving(t.ctx, t.q)
			must(t.T, t.far.DeleteTree(t.ctx, "/s"))
			must(t.T, t.far.DeleteTree(t.ctx, "/s-locks"))
			lost(t, m, zk.ErrNoNode)
			must(t.T, t.alt.Put(t.ctx, 2))
			must(t.T, received(t.T, ch, 2).Ack(t.ctx))
		},
		"a snapshot is installed": func(t *scene) {
			m := claimed(t)
			ch := shardReceiving(t.ctx, t.q)
			leaveBehind(t.T, t.ctx, t.c, t.f, t.far, func() { must(t.T, t.alt.Put(t.ctx, 2)) })
			t.c.Heal()
			must(t.T, received(t.T, ch, 2).Ack(t.ctx)) // Q-L2
			if !m.Valid() {
				t.Error(m.Err())
			}
			must(t.T, m.Ack(t.ctx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				l := leader(t, ctx, c)
				s := &scene{T: t, ctx: ctx, c: c, f: (l + 1) % 3}
				s.s, s.far = session(t, ctx, c.Member(s.f)), session(t, ctx, c.Member((l+2)%3))
				s.q, s.alt = newSharded(s.s, 1, 2), newSharded(s.far, 1, 2)
				must(t, s.alt.Put(ctx, 0)) // in the first shard
				must(t, s.alt.Put(ctx, 0)) // in the second
				drain(t, ctx, s.alt, 2)
				must(t, s.s.Sync(ctx))
				run(s)
				if s.far.Err() == nil {
					ch := shardReceiving(ctx, s.alt)
					still(t, "something is left", ch)
					must(t, s.alt.Put(ctx, 9))
					must(t, received(t, ch, 9).Ack(ctx))
					eventually(t, "a claim is left", func() bool { return c.Member((l+2)%3).Stats().Ephemerals == 0 })
				}
			})
		})
	}
}

// Producers and consumers on all members, while a leader dies, members are cut off and sessions expire: what was put is
// acknowledged, each item once.
func TestShardedQueueFaults(t *testing.T) {
	for seed := range uint64(size(20, 2)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, 3, zktest.Config{Seed: seed, Base: zk.Config{SessionTimeout: 2 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				shardedQueueFaults(t, ctx, c)
			})
		})
	}
}

func shardedQueueFaults(t *testing.T, ctx context.Context, c *zktest.Cluster) {
	const producers, each, consumers = 6, 30, 9
	var mu sync.Mutex
	sure, acked, told := map[int]bool{}, map[int]int{}, map[int]bool{}
	end, stop := context.WithCancel(ctx)
	var makers, crowd sync.WaitGroup
	for p := range producers {
		makers.Go(func() {
			for v := p * each; v < (p+1)*each; {
				err := newSharded(c.Member(p%3), 1, 4).Put(ctx, v)
				if err != nil && !zk.MaybeApplied(err) {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				mu.Lock()
				sure[v] = err == nil
				mu.Unlock()
				v++
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	first := session(t, ctx, c.Member(0))
	eventually(t, "one shard takes it all", func() bool { return len(shardNames(t, ctx, first)) >= 2 }) // nobody takes yet
	for w := range consumers {
		crowd.Go(func() {
			var m *zk.Member
			var q *sharded
			for end.Err() == nil {
				if now := c.Member(w % 3); now != m {
					m, q = now, newSharded(now, 1, 4)
				}
				msg, err := q.Receive(end)
				if err != nil {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				time.Sleep(20 * time.Millisecond)
				err = msg.Ack(ctx)
				mu.Lock()
				if err == nil {
					acked[msg.Value]++
				} else if zk.MaybeApplied(err) {
					told[msg.Value] = true
				}
				mu.Unlock()
			}
		})
	}
	for round := range 4 {
		time.Sleep(300 * time.Millisecond)
		switch l := leader(t, ctx, c); round {
		case 0:
			must(t, c.Crash(l))
			time.Sleep(3 * time.Second)
			must(t, c.Restart(ctx, l))
		case 1:
			c.Isolate((l + 1) % 3)
			time.Sleep(5 * time.Second)
		case 2:
			for i := range 20 {
				c.DropForwards((l+1)%3, 1+i%2)
				time.Sleep(30 * time.Millisecond)
			}
		case 3:
			s, err := c.Member((l + 2) % 3).Session(ctx)
			must(t, err)
			must(t, c.Member(l).KillSession(ctx, s.ID()))
		}
		c.Heal()
	}
	makers.Wait()
	s := session(t, ctx, c.Member(leader(t, ctx, c)))
	eventually(t, "some are left", func() bool {
		n := 0
		for _, dir := range shardNames(t, ctx, s) {
			n += len(names(t, ctx, s, dir))
		}
		return n == 0
	})
	stop()
	crowd.Wait()
	for v := range producers * each {
		switch n := acked[v]; {
		case n > 1: // Q-S1
			t.Errorf("item %d was acknowledged %d times", v, n)
		case n == 0 && !told[v] && sure[v]: // Q-S2
			t.Errorf("item %d is lost", v)
		}
	}
	if n := len(shardNames(t, ctx, s)); n < 2 || n > 4 {
		t.Errorf("%d shards", n)
	}
	must(t, c.Quiesce(ctx))
}
