// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowDisk takes a while to write.
type slowDisk struct {
	*raft.InmemStore
	takes time.Duration
}

func (d *slowDisk) StoreLogs(l []*raft.Log) error {
	time.Sleep(d.takes) // of the bubble
	return d.InmemStore.StoreLogs(l)
}

// A disk that takes longer than a second is warned of, at most every 10 s.
func TestSlowDiskIsWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := &slowDisk{raft.NewInmemStore(), time.Second}
		s, err := Open(Config{Log: d, Stable: d, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		index := uint64(0)
		write := func(n, want int) {
			t.Helper()
			for range n {
				index++
				if err := s.StoreLog(entry(index, 1, "x")); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Count(log.String(), "slow disk"); got != want {
				t.Errorf("%d warnings, want %d: %s", got, want, log.String())
			}
		}
		write(3, 0)
		d.takes = 1500 * time.Millisecond
		write(3, 1)
		write(6, 2)
		time.Sleep(time.Minute)
		write(2, 3)
	})
}
