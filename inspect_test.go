// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Members that have applied the same requests keep the same digests of their states.
func TestDigests(t *testing.T) {
	bubble(t, 2, zktest.Config{}, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		a, b := cl.Member(0), cl.Member(1)
		s := session(t, ctx, a)
		if d := a.Digests(); len(d) != 0 {
			t.Errorf("a fresh member has the digests %v", d)
		}
		create(t, ctx, s, "/a", zk.Persistent)
		l := s.Listener()
		done := make(chan *zk.Call, 3000)
		for range cap(done) {
			l.Go(ctx, done, set("/a"))
		}
		for range cap(done) {
			must(t, (<-done).Error)
		}
		must(t, b.WaitZxid(ctx, s.LastZxid()))
		mine, theirs := a.Digests(), b.Digests()
		if len(mine) < 2 || fmt.Sprint(mine) != fmt.Sprint(theirs) { // OP-77
			t.Errorf("digests %v and %v", mine, theirs)
		}
		for i := 1; i < len(mine); i++ {
			if mine[i].Zxid/128 <= mine[i-1].Zxid/128 {
				t.Errorf("digests %v are not one for every 128 requests, in order", mine)
			}
		}
	})
}

// A listener may ask what a session is allowed to do, and within which bounds timeouts are negotiated.
func TestAllowed(t *testing.T) {
	cfg := zktest.Config{Base: zk.Config{MinTimeout: 2 * time.Second, MaxTimeout: 40 * time.Second, SuperDigest: zk.DigestID("super:secret")}}
	bubble(t, 1, cfg, func(t *testing.T, ctx context.Context, cl *zktest.Cluster) {
		m := cl.Member(0)
		if least, most := m.SessionTimeouts(); least != 2*time.Second || most != 40*time.Second { // SS-4
			t.Errorf("bounds %v and %v", least, most)
		}
		l := session(t, ctx, m).Listener()
		must(t, l.Allowed(ctx, "/zookeeper/config", zk.PermRead))
		must(t, l.Allowed(ctx, "", zk.PermAll))
		wants(t, l.Allowed(ctx, "/zookeeper/config", zk.PermWrite), zk.ErrNoAuth)
		wants(t, l.Allowed(ctx, "/none", zk.PermRead), zk.ErrNoNode)
		must(t, l.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("super:secret")}))
		must(t, l.Allowed(ctx, "/zookeeper/config", zk.PermWrite)) // DM-107
	})
}
