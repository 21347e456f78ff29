// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
	etcdrecipes "go.etcd.io/etcd/client/v3/experimental/recipes"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const contenders = 100

// share runs do from so many workers until it was called n times in all, and reports the rate.
func share(b *testing.B, workers, n int, unit string, do func(worker int) error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for w := range workers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), unit)
}

// reportJava reports what Curator's program measured itself: its start does not count.
func reportJava(b *testing.B, printed, unit string) {
	b.Helper()
	ns, err := strconv.ParseFloat(printed, 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(ns/float64(b.N), "ns/op")
	b.ReportMetric(float64(b.N)/ns*1e9, unit)
}

// BenchmarkHandOver passes one lock among 100 contenders, each with a session of its own where the system has them
// cheaply, on three members with fsync on.
func BenchmarkHandOver(b *testing.B) {
	const unit = "hand-overs/s"
	b.Run("zk", func(b *testing.B) {
		ms := openZK(b)
		var locks []*recipes.Lock
		for i := range contenders {
			s, err := ms[i%members].NewSession(b.Context(), zk.SessionConfig{})
			if err != nil {
				b.Fatal(err)
			}
			locks = append(locks, recipes.NewLock(s, "/lock"))
		}
		share(b, contenders, b.N, unit, func(w int) error {
			held, err := locks[w].Acquire(b.Context())
			if err != nil {
				return err
			}
			return held.Release(b.Context())
		})
	})
	b.Run("etcd", func(b *testing.B) {
		clients := openEtcd(b)
		var locks []*concurrency.Mutex
		for i := range contenders {
			s, err := concurrency.NewSession(clients[i%members], concurrency.WithTTL(20))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Close() })
			locks = append(locks, concurrency.NewMutex(s, "/lock"))
		}
		share(b, contenders, b.N, unit, func(w int) error {
			if err := locks[w].Lock(b.Context()); err != nil {
				return err
			}
			return locks[w].Unlock(b.Context())
		})
	})
	b.Run("curator", func(b *testing.B) {
		command := curator(b)
		servers := openZooKeeper(b, members)
		reportJava(b, run(b, command, "locks", hosts(servers), fmt.Sprint(b.N), fmt.Sprint(contenders)), unit)
	})
}

// BenchmarkQueue sends items from 8 producers to 8 consumers, on three members with fsync on. zk's and Curator's
// consumers claim an item and acknowledge it, so that it outlives them; etcd's take it.
func BenchmarkQueue(b *testing.B) {
	const workers, unit = 8, "items/s"
	b.Run("zk", func(b *testing.B) {
		ms := openZK(b)
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		var queues [members]*recipes.Queue[string] // one for the consumers of each member
		for i, m := range ms {
			queues[i] = recipes.NewQueue[string](m, "/queue")
		}
		pipe(b, workers, b.N, unit, func(w int) error { return queues[w%members].Put(ctx, "item") }, func(w int) error {
			msg, err := queues[w%members].Receive(ctx)
			if err != nil {
				return err
			}
			return msg.Ack(ctx)
		})
	})
	b.Run("etcd", func(b *testing.B) {
		clients := openEtcd(b)
		queue := func(w int) *etcdrecipes.Queue { return etcdrecipes.NewQueue(clients[w%members], "/queue") }
		pipe(b, workers, b.N, unit, func(w int) error { return queue(w).Enqueue("item") }, func(w int) error {
			_, err := queue(w).Dequeue()
			return err
		})
	})
	b.Run("curator", func(b *testing.B) {
		command := curator(b)
		servers := openZooKeeper(b, members)
		reportJava(b, run(b, command, "queue", hosts(servers), fmt.Sprint(b.N), fmt.Sprint(workers)), unit)
	})
}

// pipe runs producers and consumers beside each other until n items went through.
func pipe(b *testing.B, workers, n int, unit string, put, get func(worker int) error) {
	b.Helper()
	var producers sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for w := range workers {
		producers.Go(func() {
			for left.Add(-1) >= 0 {
				if err := put(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	share(b, workers, n, unit, get)
	producers.Wait()
}
