// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// A soft quota refuses nothing; that it is exceeded is told by the leader, and not too often (DM-74).
func TestSoftQuotaIsReported(t *testing.T) {
	var told atomic.Int64
	log := slog.New(watchLog{slog.NewTextHandler(t.Output(), nil), "soft quota exceeded", &told})
	bubble(t, 3, zktest.Config{Base: zk.Config{Logger: log, EnforceQuota: true}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		create(t, ctx, s, "/app", zk.Persistent)
		_, err := s.Create(ctx, "/zookeeper/quota/app/zookeeper_limits", []byte("count=3,bytes=-1"), zk.Parents)
		must(t, err)
		_, err = s.Create(ctx, "/zookeeper/quota/app/zookeeper_stats", []byte("count=0,bytes=0"), zk.Persistent)
		must(t, err)
		for i := range 2 {
			create(t, ctx, s, fmt.Sprint("/app/", i), zk.Persistent)
		}
		must(t, c.Quiesce(ctx))
		if n := told.Load(); n != 0 {
			t.Fatalf("told %d times with the quota just used up", n)
		}
		for i := range 50 {
			create(t, ctx, s, fmt.Sprint("/app/more-", i), zk.Persistent)
		}
		must(t, c.Quiesce(ctx))
		if n := told.Load(); n != 1 {
			t.Errorf("told %d times at once", n)
		}
		time.Sleep(time.Minute)
		create(t, ctx, s, "/app/last", zk.Persistent)
		must(t, c.Quiesce(ctx))
		if n := told.Load(); n != 2 {
			t.Errorf("told %d times in all", n)
		}
	})
}
