// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// While a session ends others write on, and no cache of it shows some of that without the rest (CACHE-S1): what came after
// the end nobody has told it. It takes chance to look just then, so there are many.
func TestCacheWhenItsSessionEnds(t *testing.T) {
	bubble(t, 2, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		var paths []string
		for i := range 8 {
			paths = append(paths, fmt.Sprint("/d/", i))
			_, err := s.Create(ctx, paths[i], nil, zk.Persistent|zk.Parents)
			must(t, err)
		}
		for range size(200, 20) {
			ending := session(t, ctx, c.Member(0))
			var caches []*recipes.Cache
			for range 20 {
				cache := recipes.NewCache(ending, "/d")
				must(t, cache.Start(ctx))
				caches = append(caches, cache)
			}
			var all sync.WaitGroup
			written := make([][]zk.Zxid, len(paths))
			for i, path := range paths {
				st, _, err := s.Exists(ctx, path)
				must(t, err)
				written[i] = []zk.Zxid{st.Mzxid}
				all.Go(func() {
					for n := range 40 {
						st, err := s.Set(ctx, path, fmt.Append(nil, n), zk.AnyVersion)
						if err != nil {
							t.Error(err)
							return
						}
						written[i] = append(written[i], st.Mzxid)
						if i == 0 && n == 20 {
							all.Go(func() {
								moved, err := c.Member(1).Attach(ctx, ending.ID(), ending.Listener().Password(), zk.SessionConfig{})
								if err == nil {
									err = moved.Close()
								}
								if err != nil {
									t.Error(err)
								}
							})
						}
					}
				})
			}
			all.Wait()
			for _, cache := range caches {
				for _, err := range cache.Changes(ctx) {
					if err != nil {
						wants(t, err, zk.ErrSessionMoved)
					}
				}
				for i, path := range paths {
					var want zk.Zxid
					for _, z := range written[i] {
						if z <= cache.Zxid() {
							want = z
						}
					}
					if z, _ := cache.Get(path); z.Stat.Mzxid != want {
						t.Fatalf("as of %v %s is of %v, it was written at %v", cache.Zxid(), path, z.Stat.Mzxid, want)
					}
				}
				cache.Close()
			}
		}
	})
}
