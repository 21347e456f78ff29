// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"math/bits"
	"sync/atomic"
)

// Summary sums up measurements of one quantity: how long something took, how large it was, how many there were.
// Quantiles are too small by less than a quarter. Without a measurement all is 0.
type Summary[T ~int64] struct {
	Count               int64
	Sum, Min, Max       T
	P50, P95, P99, P999 T
}

// Recorder takes measurements for a Summary. The zero value is ready for use, and takes 2 KiB. It is safe for concurrent
// use, and none of its methods takes a lock. The counters of Stats are made of it; a program that measures what it does
// beside them, as package wire does, may use it too.
type Recorder[T ~int64] struct {
	at       [recorderBuckets]atomic.Int64
	sum, max atomic.Int64
	least    atomic.Int64 // one more than the smallest; 0 while there is none
	last     atomic.Int64
}

// recorderBuckets is enough for every int64: four for each power of two.
const recorderBuckets = 4 * 63

// Add counts one measurement; one below 0 counts as 0.
func (r *Recorder[T]) Add(measured T) {
	v := max(int64(measured), 0)
	r.at[bucketOf(v)].Add(1)
	r.sum.Add(v)
	r.last.Store(v)
	for have := r.max.Load(); v > have && !r.max.CompareAndSwap(have, v); have = r.max.Load() {
	}
	for have := r.least.Load(); (have == 0 || v < have-1) && !r.least.CompareAndSwap(have, v+1); have = r.least.Load() {
	}
}

// Last returns the measurement added last, -1 while there is none.
func (r *Recorder[T]) Last() T {
	if r.least.Load() == 0 {
		return -1
	}
	return T(r.last.Load())
}

// Summary sums up what was added. A measurement that comes meanwhile may be in one field and not yet in another.
func (r *Recorder[T]) Summary() Summary[T] {
	var n [recorderBuckets]int64
	s := Summary[T]{Sum: T(r.sum.Load()), Min: T(max(r.least.Load()-1, 0)), Max: T(r.max.Load())}
	for i := range r.at {
		n[i] = r.at[i].Load()
		s.Count += n[i]
	}
	quantile := func(q float64) T {
		rank := int64(q * float64(s.Count))
		for i := range n {
			if rank -= n[i]; rank < 0 {
				return min(max(T(bucketFloor(i)), s.Min), s.Max)
			}
		}
		return s.Max
	}
	s.P50, s.P95, s.P99, s.P999 = quantile(.5), quantile(.95), quantile(.99), quantile(.999)
	return s
}

// bucketOf steps by a quarter of a power of two.
func bucketOf(v int64) int {
	u := uint64(max(v, 1))
	n := bits.Len64(u) - 1
	i := 4 * n
	if n >= 2 {
		i += int(u>>(n-2)) & 3
	}
	return i
}

// bucketFloor is the least value of a bucket.
func bucketFloor(i int) int64 {
	n := i / 4
	if n < 2 {
		return 1 << n
	}
	return int64(4+i%4) << (n - 2)
}
