// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-541fafe0/zk"
)

// watchLog counts the records with one message.
type watchLog struct {
	slog.Handler
	msg  string
	seen *atomic.Int64
}

func (w watchLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == w.msg {
		w.seen.Add(1)
	}
	return nil
}

func (w watchLog) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w watchLog) WithGroup(string) slog.Handler      { return w }

// A leader that goes while its followers' disks are busy is found by its closed sockets all the same: what it had sent
// before may take raft longer than its streams last (D17).
func TestLeaderGoneUnderLoad(t *testing.T) {
	for range zk.Size(1, 3, 100) {
		var seen atomic.Int64
		log := slog.New(watchLog{slog.NewTextHandler(t.Output(), nil), "the leader's process is gone", &seen})
		members := three(t, t.TempDir(), zk.Config{Logger: log})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var done atomic.Int64
		var lead, follow *zk.Member
		for _, m := range members {
			if m.Role() == zk.RoleLeader {
				lead = m
				continue
			}
			follow = m
			s := session(t, ctx, m)
			for range 32 {
				all.Go(func() {
					for {
						if _, err := s.Create(ctx, "/load-", make([]byte, 2000), zk.Sequential); err != nil {
							return
						}
						done.Add(1)
					}
				})
			}
		}
		eventually(t, "no load", func() bool { return done.Load() > 300 })
		must(t, lead.Close())
		s := session(t, t.Context(), follow)
		create(t, t.Context(), s, "/after", zk.Persistent)
		if seen.Load() == 0 {
			t.Error("the crash was left to raft's timeouts")
		}
		cancel()
		all.Wait()
		for _, m := range members {
			must(t, m.Close())
		}
	}
}
