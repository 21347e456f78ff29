// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/seed-541fafe0/zk/recipes"
)

// BenchmarkCounter adds to one counter from 64 goroutines on each of three members, with fsync on, and reports how long
// one of them waits for its addition (CNT-L1). etcd's client has no counter: its transactions, which are tried again after
// a conflict, do the same.
func BenchmarkCounter(b *testing.B) {
	const workers = 64 * members
	timed := func(b *testing.B, add func(worker int) error) {
		var mu sync.Mutex
		var took []time.Duration
		share(b, workers, b.N, "additions/s", func(w int) error {
			began := time.Now()
			err := add(w)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
			return err
		})
		if slices.Sort(took); len(took) > 0 {
			millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(millis(took[len(took)/2]), "p50-ms")
			b.ReportMetric(millis(took[len(took)*99/100]), "p99-ms")
		}
	}
	b.Run("zk", func(b *testing.B) {
		ms := openZK(b)
		var counters []*recipes.Counter
		for _, m := range ms {
			counters = append(counters, recipes.NewCounter(m, "/counter"))
		}
		before := ms[0].Applied()
		timed(b, func(w int) error {
			_, _, err := counters[w%members].Add(b.Context(), 1)
			return err
		})
		n, err := counters[0].Get(b.Context())
		if err != nil || n < int64(b.N) {
			b.Errorf("%d after %d additions, %v", n, b.N, err)
		}
		b.ReportMetric(float64(ms[0].Applied()-before)/float64(b.N), "writes/op")
	})
	b.Run("etcd", func(b *testing.B) {
		clients := openEtcd(b)
		timed(b, func(w int) error {
			_, err := concurrency.NewSTM(clients[w%members], func(tx concurrency.STM) error {
				n, _ := strconv.Atoi(tx.Get("/counter"))
				tx.Put("/counter", strconv.Itoa(n+1))
				return nil
			})
			return err
		})
	})
}
