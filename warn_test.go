// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

func (l *logLines) count(msg string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), msg)
}

// A watch whose consumer is too slow is warned of, with the session and the path, and not for each event of a storm.
func TestOverflowIsWarnedOf(t *testing.T) {
	var log logLines
	bubble(t, 1, zktest.Config{Base: zk.Config{Logger: auditTo(&log), WatchBuffer: 1}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		storm := func() {
			for range 5 {
				w, err := s.Watch(ctx, "/", zk.WatchSubtree)
				must(t, err)
				for i := range 3 {
					must(t, s.DeleteTree(ctx, create(t, ctx, s, fmt.Sprint("/n", i), zk.Persistent).Path))
				}
				w.Close()
			}
		}
		storm()
		if n := log.count("watch overflow"); n != 1 || log.count("path=/n0 more=0") != 1 || log.count("session="+s.ID().String()) != 1 {
			t.Errorf("%d warnings: %s", n, log.take())
		}
		time.Sleep(time.Minute) // of the bubble
		storm()
		if n := log.count("watch overflow"); n != 2 || log.count("more=4") != 1 {
			t.Errorf("%d warnings: %s", n, log.take())
		}
	})
}

// Sessions whose leases lapse are warned of, once for all of a member; of those of a listener's clients it is the
// client that fell silent.
func TestSuspensionIsWarnedOf(t *testing.T) {
	var log logLines
	bubble(t, 3, zktest.Config{Base: zk.Config{Logger: auditTo(&log)}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		i := (leader(t, ctx, c) + 1) % 3
		var sessions []*zk.Session
		for range 4 {
			sessions = append(sessions, session(t, ctx, c.Member(i)))
		}
		quiet := connect(t, ctx, c.Member((i+1)%3), zk.SessionConfig{External: true, Timeout: 2 * time.Second})
		eventually(t, "the client's session is suspended", func() bool { return quiet.s.State() == zk.StateSuspended })
		if n := log.count("session suspended"); n != 0 {
			t.Errorf("%d warnings of a silent client: %s", n, log.take())
		}
		c.Isolate(i)
		for _, s := range sessions {
			eventually(t, "suspended", func() bool { return s.State() == zk.StateSuspended })
		}
		synctest.Wait() // the state comes before the warning
		if n := log.count("session suspended"); n != 1 {
			t.Errorf("%d warnings: %s", n, log.take())
		}
		c.Heal()
	})
}

// An ensemble of two is warned of: by each member that opens one, founded or there already, and by who removes a third.
// One that is about to grow is not, nor one of three.
func TestTwoMembersAreWarnedOf(t *testing.T) {
	const text = "an ensemble of two"
	var log logLines
	bubble(t, 2, zktest.Config{Base: zk.Config{Logger: auditTo(&log)}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		if n := log.count(text); n != 2 {
			t.Errorf("founding it: %d warnings", n)
		}
		log.take()
		must(t, c.Crash(0))
		must(t, c.Restart(ctx, 0))
		if n := log.count(text); n != 1 {
			t.Errorf("opening it again: %d warnings", n)
		}
	})
	bubble(t, 1, zktest.Config{Base: zk.Config{Logger: auditTo(&log)}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		log.take()
		for range 2 {
			_, err := c.Add(ctx, true)
			must(t, err)
		}
		eventually(t, "three vote", func() bool {
			list, err := c.Member(0).Members(ctx)
			return err == nil && len(list) == 3 && list[0].Voter && list[1].Voter && list[2].Voter
		})
		if n := log.count(text); n != 0 {
			t.Errorf("growing to three: %d warnings", n)
		}
		must(t, c.Remove(ctx, (leader(t, ctx, c)+1)%3))
		if n := log.count(text); n != 1 {
			t.Errorf("shrinking to two: %d warnings", n)
		}
	})
}
