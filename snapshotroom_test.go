// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/raftstore"
)

var errFull = errors.New("nearly full")

// tightSnapshots may be short of room.
type tightSnapshots struct {
	raft.SnapshotStore
	full  atomic.Bool
	asked atomic.Int64 // the most
}

func (s *tightSnapshots) Room(bytes int64) error {
	s.asked.Store(max(s.asked.Load(), bytes))
	if s.full.Load() {
		return errFull
	}
	return nil
}

// Where there is no room for a snapshot it is put off, with a warning now and then, and the member goes on; it comes as
// soon as there is room, without more log.
func TestSnapshotWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logLines
		ctx, store := t.Context(), raft.NewInmemStore()
		snaps := &tightSnapshots{SnapshotStore: raftstore.NewMemory(auditTo(&log))}
		snaps.full.Store(true)
		m := open(t, zk.Config{SnapshotBytes: 1 << 20, Storage: zk.Storage{Log: store, Stable: store, Snapshots: snaps}, Logger: auditTo(&log)})
		s := session(t, ctx, m)
		for range 5 {
			_, err := s.Create(ctx, "/n-", []byte(strings.Repeat("x", 1<<19)), zk.Sequential)
			must(t, err)
		}
		taken := func() int {
			list, err := snaps.List()
			must(t, err)
			return len(list)
		}
		if err := m.Compact(ctx); !errors.Is(err, zk.ErrSystem) || !errors.Is(err, errFull) {
			t.Errorf("Compact: %v", err)
		}
		time.Sleep(25 * time.Second) // of the bubble
		create(t, ctx, s, "/alive", zk.Persistent)
		if n := log.count("snapshot is put off"); n != 3 || taken() != 0 {
			t.Errorf("%d snapshots, %d warnings: %s", taken(), n, log.take())
		}
		if n := snaps.asked.Load(); n < 5<<19 || n > 6<<19 {
			t.Errorf("asked for room for %d bytes", n)
		}
		snaps.full.Store(false)
		time.Sleep(2 * time.Second)
		if taken() != 1 {
			t.Errorf("%d snapshots when there is room", taken())
		}
		must(t, m.Compact(ctx))
	})
}
