// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"math"
	"sync"
	"testing"
	"time"
)

// OP-20: a summary is a count, a sum, the extremes and quantiles.
func TestRecorder(t *testing.T) {
	var r Recorder[time.Duration]
	if got := r.Summary(); got != (Summary[time.Duration]{}) || r.Last() != -1 {
		t.Errorf("nothing was added: %+v, last %v", got, r.Last())
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			for v := i; v < 1000; v += 10 {
				r.Add(time.Duration(v + 1))
			}
		})
	}
	all.Wait()
	got := r.Summary()
	if got.Count != 1000 || got.Sum != 500500 || got.Min != 1 || got.Max != 1000 {
		t.Errorf("%+v", got)
	}
	for _, q := range []struct {
		have time.Duration
		want int64
	}{{got.P50, 500}, {got.P95, 950}, {got.P99, 990}, {got.P999, 999}} {
		if v := int64(q.have); v > q.want || v < q.want*3/4 {
			t.Errorf("a quantile is %d, want %d or a little less", v, q.want)
		}
	}
	r.Add(7)
	if r.Last() != 7 {
		t.Errorf("the last is %v", r.Last())
	}
	r.Add(-1)
	if got := r.Summary(); got.Min != 0 || got.Count != 1002 {
		t.Errorf("after what is below 0: %+v", got)
	}
}

// One value is all quantiles of itself, and none falls out of the buckets.
func TestBuckets(t *testing.T) {
	for _, v := range []int64{0, 1, 2, 3, 4, 5, 7, 8, 1000, 1<<40 + 1, math.MaxInt64} {
		var r Recorder[int64]
		r.Add(v)
		if got := r.Summary(); got.P50 != v || got.P999 != v || got.Count != 1 {
			t.Errorf("%d: %+v", v, got)
		}
		if i := bucketOf(v); v > 0 && (bucketFloor(i) > v || i+1 < recorderBuckets && v >= 8 && bucketFloor(i+1) <= v) {
			t.Errorf("%d is in bucket %d, from %d", v, i, bucketFloor(i))
		}
	}
}
