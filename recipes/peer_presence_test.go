// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// The data of a Set that came while the session was about to expire is what is published under the next one; a loop that
// creates with what it began with would bring the old one back.
func TestPeerPresenceStaleData(t *testing.T) {
	for d := time.Duration(0); d < 8*time.Second; d += time.Second {
		onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
			m := sc.c.Member(sc.at[0])
			p := recipes.NewPresence(m, "/app/here/p", []byte("old"))
			must(t, p.Start(ctx))
			s, err := m.Session(ctx)
			must(t, err)
			sc.c.Isolate(sc.at[0])
			time.Sleep(d)
			set := make(chan error, 1)
			go func() { set <- p.Set(ctx, []byte("new")) }()
			eventually(t, "not expired", func() bool {
				_, err := sc.c.Member(sc.at[1]).Ephemerals(ctx, s.ID())
				return err != nil
			})
			sc.c.Heal()
			must(t, soon(t, "not set", set))
			for range 3 { // PEER-62: CURATOR-146, CURATOR-181
				z := sc.only(t, ctx, "new", zk.Znode{})
				must(t, sc.s[1].Delete(ctx, z.Path, zk.AnyVersion))
				z = sc.only(t, ctx, "new", z)
				if z.Data != "new" {
					t.Fatalf("published %q", z.Data)
				}
			}
			must(t, p.Stop(ctx))
			residue(t, ctx, sc.c, "/app")
		})
	}
}

// A znode with this name that a former session of the same process has left is not taken for ours: it would go with that.
func TestPeerPresenceOfAFormerSession(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		former := session(t, ctx, sc.c.Member(sc.at[0]))
		_, err := former.Create(ctx, "/app/here/p", []byte("former"), zk.Ephemeral|zk.Parents)
		must(t, err)
		p := recipes.NewPresence(sc.c.Member(sc.at[0]), "/app/here/p", []byte("now"))
		started := make(chan error, 1)
		go func() { started <- p.Start(ctx) }()
		synctest.Wait()
		if len(started) > 0 { // PEER-03
			t.Fatal("it has taken what is another's")
		}
		must(t, former.Close())
		must(t, soon(t, "not started", started))
		z := sc.only(t, ctx, "now", zk.Znode{})
		if s, err := sc.c.Member(sc.at[0]).Session(ctx); err != nil || z.Stat.EphemeralOwner != s.ID() {
			t.Errorf("%+v, %v", z, err)
		}
		must(t, p.Stop(ctx))
		residue(t, ctx, sc.c, "/app")
	})
}

// Directories are reaped between one member's leaving and the next one's coming.
func TestPeerPresenceReaped(t *testing.T) {
	bubble(t, 1, zktest.Config{Base: zk.Config{ReapInterval: time.Millisecond}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		g, r := recipes.NewGroup(m, "/a/b/group"), recipes.NewRegistry[string](m, "/a/b/services")
		for i := range 200 { // PEER-20
			p, err := g.Join(ctx, "p", nil)
			must(t, err)
			reg, err := r.Register(ctx, recipes.Instance[string]{Name: "web", ID: "i"})
			must(t, err)
			time.Sleep(time.Duration(i%5) * 500 * time.Microsecond)
			must(t, p.Stop(ctx))
			must(t, reg.Deregister(ctx))
			time.Sleep(time.Duration(i%7) * 500 * time.Microsecond)
		}
		time.Sleep(time.Second)
		residue(t, ctx, c, "/") // PEER-21
	})
}

// Nothing is left of those that were closed: goroutines, watches, memory.
func TestPeerPresenceLeaks(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		synctest.Wait()
		goroutines, watches := runtime.NumGoroutine(), c.Member(0).Stats().Watches
		g := recipes.NewGroup(s, "/g")
		for i := range size(10000, 300) { // PEER-63: #1263
			p := recipes.NewPresence(s, fmt.Sprint("/p/", i), nil)
			must(t, p.Start(ctx))
			ttl := recipes.NewTTLPresence(s, "/ttl", time.Hour)
			must(t, ttl.Start(ctx))
			for range g.Watch(ctx) {
				break
			}
			some, cancel := context.WithTimeout(ctx, time.Millisecond)
			_, err := g.Settled(some, time.Second)
			cancel()
			wants(t, err, context.DeadlineExceeded)
			must(t, p.Stop(ctx))
			must(t, ttl.Stop(ctx))
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > goroutines+5 { // PRES-L2, PEER-63
			t.Errorf("%d goroutines were %d", n, goroutines)
		}
		if n := c.Member(0).Stats().Watches; n != watches {
			t.Errorf("%d watches were %d", n, watches)
		}
	})
}

// Bytes that no codec can like never get further than an error of their own.
func FuzzRegistryDecode(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"name":"a","id":"b","serviceType":"DYNAMIC"}`, `{"name":"a","id":"b","serviceType":"STATIC","payload":["x",{"zone":1}],"uriSpec":{"parts":[{}]}}`} {
		f.Add([]byte(seed))
	}
	m, err := zk.Open(f.Context(), zk.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	s, err := m.Session(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	r := recipes.NewRegistry[meta](s, "/r")
	if _, err := r.Register(f.Context(), recipes.Instance[meta]{Name: "s", ID: "good"}); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Create(f.Context(), "/r/s/odd", nil, zk.Persistent); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := s.Set(t.Context(), "/r/s/odd", bytes.Clone(data), zk.AnyVersion); err != nil {
			t.Fatal(err)
		}
		list, err := r.Instances(t.Context(), "s")
		if err != nil || len(list) == 0 || list[0].ID != "good" { // PEER-62: CURATOR-574
			t.Fatalf("%+v, %v", list, err)
		}
	})
}
