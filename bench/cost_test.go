// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/zookeeper"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	rounds = 50
	crowd  = 20 // contenders, where there are many
)

// cost is what some uses of a recipe took. Each is counted by the servers: on zk by its members (zk.Stats), on ZooKeeper
// by the word mntr.
type cost struct {
	writes  float64 // zxids
	entries float64 // of the log
	asked   float64 // requests that a server received over its port, reads and writes; pings too
	reads   float64 // calls that a member answered by itself
	told    float64 // watchers that were told of something
	bytes   float64 // that a server received and sent over its port
	logged  float64 // bytes of the log
}

func (c cost) minus(d cost) cost {
	return cost{c.writes - d.writes, c.entries - d.entries, c.asked - d.asked, c.reads - d.reads, c.told - d.told, c.bytes - d.bytes, c.logged - d.logged}
}

func (c cost) per(n int) cost {
	f := float64(n)
	return cost{c.writes / f, c.entries / f, c.asked / f, c.reads / f, c.told / f, c.bytes / f, c.logged / f}
}

// TestCost prints what one use of a recipe costs, by one user alone and, of a lock, by many at a time. The first use,
// which creates directories, is not counted. What docs/recipes.md says a use writes is demanded.
func TestCost(t *testing.T) {
	t.Run("zk", func(t *testing.T) {
		for what, writes := range map[string]float64{"lock": 2, "semaphore": 2, "items": 3, "locks": 2} {
			c := zkCost(t, what)
			t.Logf("zk         %-10s writes %.1f, log entries %.1f, requests over a port 0, local reads %.1f, watchers told %.1f, bytes over a port 0, of log %.0f",
				what, c.writes, c.entries, c.reads, c.told, c.logged)
			if c.writes != writes {
				t.Errorf("%s: %v writes for one use, want %v", what, c.writes, writes)
			}
			if c.entries > c.writes || c.told > 1.2 || c.reads > 8 {
				t.Errorf("%s: %+v", what, c)
			}
		}
	})
	t.Run("curator", func(t *testing.T) {
		command := curator(t)
		for _, what := range []string{"lock", "semaphore", "items", "locks"} {
			users := 1
			if what == "locks" {
				users = crowd
			}
			theirCost(t, "curator", what, func(s *zookeeper.Server, n int) { run(t, command, what, s.Addr, fmt.Sprint(n), fmt.Sprint(users)) })
		}
	})
	t.Run("kazoo", func(t *testing.T) {
		if err := exec.Command("/usr/bin/python3", "-c", "import kazoo").Run(); err != nil {
			t.Skip("SKIPPED: Debian's package python3-kazoo is not installed: ", err)
		}
		for _, what := range []string{"lock", "semaphore", "items"} {
			theirCost(t, "kazoo", what, func(s *zookeeper.Server, n int) {
				run(t, []string{"/usr/bin/python3", "kazoo/recipes.py"}, what, s.Addr, fmt.Sprint(n))
			})
		}
	})
}

// zkCost is what one use costs an ensemble of zk.
func zkCost(t *testing.T, what string) cost {
	t.Helper()
	ms := openZK(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	session := func(i int) *zk.Session {
		s, err := ms[i%members].NewSession(ctx, zk.SessionConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	once := func(acquire func(context.Context) (*recipes.Held, error)) error {
		held, err := acquire(ctx)
		if err != nil {
			return err
		}
		return held.Release(ctx)
	}
	s := session(0)
	lock, semaphore, queue := recipes.NewLock(s, "/lock"), recipes.NewSemaphore(s, "/semaphore", 4), recipes.NewQueue[string](s, "/queue")
	var locks []*recipes.Lock
	for i := range crowd {
		locks = append(locks, recipes.NewLock(session(i), "/lock"))
	}
	use := map[string]func() error{
		"lock":      func() error { return once(lock.Acquire) },
		"semaphore": func() error { return once(semaphore.Acquire) },
		"items": func() error {
			if err := queue.Put(ctx, "item"); err != nil {
				return err
			}
			m, err := queue.Receive(ctx)
			if err != nil {
				return err
			}
			return m.Ack(ctx)
		},
		"locks": func() error { return once(lock.Acquire) },
	}[what]
	if err := use(); err != nil {
		t.Fatal(err)
	}
	before, n := counted(t, ctx, ms), rounds
	if what == "locks" {
		n = crowd * rounds
		var all sync.WaitGroup
		var failed atomic.Pointer[error]
		for _, l := range locks {
			all.Go(func() {
				for range rounds {
					if err := once(l.Acquire); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		all.Wait()
		if err := failed.Load(); err != nil {
			t.Fatal(*err)
		}
	} else {
		for range n {
			if err := use(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return counted(t, ctx, ms).minus(before).per(n)
}

// counted sums up what the members have counted, once all have applied the same.
func counted(t *testing.T, ctx context.Context, ms []*zk.Member) (c cost) {
	t.Helper()
	last := ms[0].Applied()
	for _, m := range ms {
		if err := m.WaitZxid(ctx, last); err != nil {
			t.Fatal(err)
		}
		st := m.Stats()
		c.entries += float64(st.Frames)
		c.reads += float64(st.Reads)
		c.told += float64(st.Created.Sum + st.Deleted.Sum + st.Changed.Sum + st.Children.Sum)
	}
	c.writes = float64(last)
	c.logged = float64(ms[0].Stats().LogBytes)
	return c
}

// theirCost asks a stand-alone ZooKeeper what a use of another client costs it: the difference between one and many.
func theirCost(t *testing.T, client, what string, use func(s *zookeeper.Server, n int)) {
	t.Helper()
	s := openZooKeeper(t, 1)[0]
	var costs [2]cost
	for i, n := range []int{1, 1 + rounds} {
		before := told(t, s)
		use(s, n)
		costs[i] = told(t, s).minus(before)
	}
	c := costs[1].minus(costs[0]).per(rounds)
	t.Logf("%-10s %-10s writes %.1f, requests over a port %.1f, watchers told %.1f, bytes over a port %.0f", client, what, c.writes, c.asked, c.told, c.bytes)
}

// told is what a ZooKeeper has counted.
func told(t *testing.T, s *zookeeper.Server) (c cost) {
	t.Helper()
	text, err := s.Word("mntr")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[strings.TrimPrefix(key, "zk_")] = v
		}
	}
	value := func(key string) float64 {
		v, ok := values[key]
		if !ok {
			t.Fatalf("mntr has no %s", key)
		}
		return v
	}
	c.asked = value("packets_received")
	c.bytes = value("bytes_received_count") + value("response_bytes")
	for _, kind := range []string{"created", "deleted", "changed", "children"} {
		c.told += value("sum_node_" + kind + "_watch_count")
	}
	if text, err = s.Word("srvr"); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(text, "Zxid: 0x")
	zxid, err := strconv.ParseInt(strings.Fields(after)[0], 16, 64)
	if err != nil {
		t.Fatalf("srvr says %q", text)
	}
	c.writes = float64(zxid)
	return c
}
