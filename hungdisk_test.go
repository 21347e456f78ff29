// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// A follower whose disk hung has everything a moment after the disk works again, or after it was started again if that
// stopped it, every time, however much was written meanwhile: nothing that failed makes the leader leave it alone for long.
func TestHungDiskCatchesUp(t *testing.T) {
	for _, c := range []struct {
		hung  time.Duration
		stops bool
	}{{100 * time.Millisecond, false}, {3 * time.Second, false}, {4900 * time.Millisecond, false}, {time.Minute, true}} {
		for _, writes := range []int{1, 200} {
			t.Run(fmt.Sprintf("%v, %d writes", c.hung, writes), func(t *testing.T) {
				disks := make([]badDisk, 3)
				for i := range disks {
					disks[i].InmemStore = raft.NewInmemStore()
				}
				cfg := zktest.Config{Configure: func(i int, cfg *zk.Config) { cfg.Storage.Log, cfg.Storage.Stable = &disks[i], &disks[i] }}
				bubble(t, 3, cfg, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
					l := leader(t, ctx, cl)
					f := (l + 1) % 3
					s := session(t, ctx, cl.Member(l))
					for range 3 {
						works := make(chan struct{})
						disks[f].breaks(func(string) error { <-works; return nil })
						for range writes {
							_, err := s.Set(ctx, "/", nil, zk.AnyVersion)
							must(t, err)
							time.Sleep(c.hung / time.Duration(writes))
						}
						z := cl.Member(l).Applied()
						if got := cl.Member(f).Applied(); got >= z {
							t.Fatalf("its disk did not hang: it has applied %v of %v", got, z)
						}
						close(works)
						if err := cl.Member(f).Err(); errors.Is(err, zk.ErrSystem) != c.stops {
							t.Errorf("the disk hung, and the member says %v", err)
						}
						if c.stops {
							must(t, cl.Crash(f))
							must(t, cl.Restart(ctx, f))
						}
						began := time.Now()
						eventually(t, "the member has caught up", func() bool { return cl.Member(f).Applied() >= z })
						if took := time.Since(began); took > 500*time.Millisecond {
							t.Errorf("it has caught up after %v", took)
						}
					}
				})
			})
		}
	}
}
