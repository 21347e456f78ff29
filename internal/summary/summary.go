// SPDX-License-Identifier: Apache-2.0

package summary

import (
	"math/bits"
	"sync/atomic"
)

// buckets is enough for every int64: four for each power of two.
const buckets = 4 * 63

// Recorder takes measurements. The zero value is ready for use. It is safe for concurrent use, and Add takes no lock.
type Recorder struct {
	at       [buckets]atomic.Int64
	sum, max atomic.Int64
	least    atomic.Int64 // one more than the smallest; 0 while there is none
	last     atomic.Int64
}

// Add counts one measurement; one below 0 counts as 0.
func (r *Recorder) Add(v int64) {
	v = max(v, 0)
	r.at[bucket(v)].Add(1)
	r.sum.Add(v)
	r.last.Store(v)
	for have := r.max.Load(); v > have && !r.max.CompareAndSwap(have, v); have = r.max.Load() {
	}
	for have := r.least.Load(); (have == 0 || v < have-1) && !r.least.CompareAndSwap(have, v+1); have = r.least.Load() {
	}
}

// bucket steps by a quarter of a power of two.
func bucket(v int64) int {
	u := uint64(max(v, 1))
	n := bits.Len64(u) - 1
	i := 4 * n
	if n >= 2 {
		i += int(u>>(n-2)) & 3
	}
	return i
}

// floor is the least value of a bucket.
func floor(i int) int64 {
	n := i / 4
	if n < 2 {
		return 1 << n
	}
	return int64(4+i%4) << (n - 2)
}

// Last returns the measurement added last, -1 while there is none.
func (r *Recorder) Last() int64 {
	if r.least.Load() == 0 {
		return -1
	}
	return r.last.Load()
}

// Of is what a Recorder has taken. Quantiles are too small by less than a quarter. Without a measurement all is 0.
type Of[T ~int64] struct {
	Count               int64
	Sum, Min, Max       T
	P50, P95, P99, P999 T
}

// Read sums up what r has taken. Measurements that come at the same time may be in one field and not yet in another.
func Read[T ~int64](r *Recorder) Of[T] {
	var n [buckets]int64
	s := Of[T]{Sum: T(r.sum.Load()), Min: T(max(r.least.Load()-1, 0)), Max: T(r.max.Load())}
	for i := range r.at {
		n[i] = r.at[i].Load()
		s.Count += n[i]
	}
	quantile := func(q float64) T {
		rank := int64(q * float64(s.Count))
		for i := range n {
			if rank -= n[i]; rank < 0 {
				return min(max(T(floor(i)), s.Min), s.Max)
			}
		}
		return s.Max
	}
	s.P50, s.P95, s.P99, s.P999 = quantile(.5), quantile(.95), quantile(.99), quantile(.999)
	return s
}
