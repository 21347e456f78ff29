// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/zookeeper"
	"github.com/seed-541fafe0/zk/recipes"
)

const rounds = 50

// TestCost prints what one use of a recipe costs, by one user alone: how many zxids it takes, which counts the writes,
// and how many requests a server receives, reads and writes. On zk a recipe's reads stay in the member; they are
// counted there. The first use, which creates directories, is not counted.
func TestCost(t *testing.T) {
	t.Run("zk", func(t *testing.T) {
		ms := openZK(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := ms[0].NewSession(ctx, zk.SessionConfig{})
		if err != nil {
			t.Fatal(err)
		}
		lock, semaphore, queue := recipes.NewLock(s, "/lock"), recipes.NewSemaphore(s, "/semaphore", 4), recipes.NewQueue[string](s, "/queue")
		uses := map[string]func() error{
			"lock": func() error {
				held, err := lock.Acquire(ctx)
				if err != nil {
					return err
				}
				return held.Release(ctx)
			},
			"semaphore": func() error {
				held, err := semaphore.Acquire(ctx)
				if err != nil {
					return err
				}
				return held.Release(ctx)
			},
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
		}
		for _, what := range []string{"lock", "semaphore", "items"} {
			if err := uses[what](); err != nil {
				t.Fatal(err)
			}
			before := ms[0].Stats()
			for range rounds {
				if err := uses[what](); err != nil {
					t.Fatal(err)
				}
			}
			after := ms[0].Stats()
			per := func(a, b int64) float64 { return float64(b-a) / rounds }
			t.Logf("%-10s %-10s writes %.1f, log entries %.1f, local reads %.1f, bytes of log %.0f", "zk", what, per(int64(before.Applied), int64(after.Applied)),
				per(before.Frames, after.Frames), per(before.Reads, after.Reads), per(before.LogBytes, after.LogBytes))
			if got := after.Applied - before.Applied; got > 4*rounds {
				t.Errorf("%s: %d writes for %d uses", what, got, rounds)
			}
		}
	})
	t.Run("curator", func(t *testing.T) {
		command := curator(t)
		costs(t, "curator", func(s *zookeeper.Server, what string, n int) { run(t, command, what, s.Addr, fmt.Sprint(n), "1") })
	})
	t.Run("kazoo", func(t *testing.T) {
		if err := exec.Command("/usr/bin/python3", "-c", "import kazoo").Run(); err != nil {
			t.Skip("SKIPPED: Debian's package python3-kazoo is not installed: ", err)
		}
		costs(t, "kazoo", func(s *zookeeper.Server, what string, n int) {
			run(t, []string{"/usr/bin/python3", "kazoo/recipes.py"}, what, s.Addr, fmt.Sprint(n))
		})
	})
}

// costs asks a stand-alone ZooKeeper what the uses of another client cost it: the difference between one use and many.
func costs(t *testing.T, client string, use func(s *zookeeper.Server, what string, n int)) {
	s := openZooKeeper(t, 1)[0]
	for _, what := range []string{"lock", "semaphore", "items"} {
		var cost [2]counters
		for i, n := range []int{1, 1 + rounds} {
			before := count(t, s)
			use(s, what, n)
			after := count(t, s)
			cost[i] = counters{after.writes - before.writes, after.requests - before.requests}
		}
		t.Logf("%-10s %-10s writes %.1f, requests %.1f", client, what, float64(cost[1].writes-cost[0].writes)/rounds, float64(cost[1].requests-cost[0].requests)/rounds)
	}
}

type counters struct{ writes, requests int64 }

var (
	zxidLine     = regexp.MustCompile(`Zxid: 0x([0-9a-f]+)`)
	receivedLine = regexp.MustCompile(`Received: (\d+)`)
)

func count(t *testing.T, s *zookeeper.Server) (c counters) {
	t.Helper()
	text, err := s.Word("srvr")
	if err != nil {
		t.Fatal(err)
	}
	zxid, received := zxidLine.FindStringSubmatch(text), receivedLine.FindStringSubmatch(text)
	if zxid == nil || received == nil {
		t.Fatalf("srvr says %q", text)
	}
	c.writes, _ = strconv.ParseInt(zxid[1], 16, 64)
	c.requests, _ = strconv.ParseInt(received[1], 10, 64)
	return c
}
