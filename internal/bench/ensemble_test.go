// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport"
)

// open starts n members in this process, each with its own files and a TCP port on loopback, and returns once a
// leader is known.
func open(tb testing.TB, dir string, n int) []*zk.Member {
	tb.Helper()
	ctx := context.Background()
	var peers []zk.Peer
	var trs []*transport.Transport
	for i := range n {
		tr, err := transport.TCP("127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		trs = append(trs, tr)
		peers = append(peers, zk.Peer{ID: fmt.Sprint("m", i), Addr: tr.Addr(), Voter: true})
	}
	members := make([]*zk.Member, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			members[i], errs[i] = zk.Open(ctx, zk.Config{
				ID: peers[i].ID, Dir: filepath.Join(dir, peers[i].ID), Transport: trs[i], Peers: peers, Logger: slog.New(slog.DiscardHandler),
			})
		})
	}
	all.Wait()
	for i := range n {
		if errs[i] != nil {
			tb.Fatal(errs[i])
		}
	}
	return members
}

func closeAll(members []*zk.Member) {
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() { m.Close() })
	}
	all.Wait()
}

func session(tb testing.TB, m *zk.Member) *zk.Session {
	tb.Helper()
	s, err := m.Session(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func leader(tb testing.TB, members []*zk.Member) (l int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		for i, m := range members {
			if m.Role() == zk.RoleLeader {
				return i
			}
		}
		if err := members[0].Ready(ctx); err != nil {
			tb.Fatal(err)
		}
	}
}

// empty is raft's state machine that does nothing.
type empty struct{}

func (empty) Apply(*raft.Log) any                 { return nil }
func (empty) Snapshot() (raft.FSMSnapshot, error) { return empty{}, nil }
func (empty) Restore(r io.ReadCloser) error       { return r.Close() }
func (empty) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (empty) Release()                            {}

// rawRaft starts n nodes of hashicorp/raft as its documentation does: TCP, raft-boltdb, file snapshots, defaults.
func rawRaft(tb testing.TB, dir string, n int) (nodes []*raft.Raft, stop func()) {
	tb.Helper()
	var c raft.Configuration
	var trs []*raft.NetworkTransport
	for i := range n {
		tr, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			tb.Fatal(err)
		}
		trs = append(trs, tr)
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: tr.LocalAddr()})
	}
	var closers []func()
	for i := range n {
		conf := raft.DefaultConfig()
		conf.LocalID = c.Servers[i].ID
		conf.Logger = hclog.NewNullLogger()
		d := tb.TempDir()
		store, err := raftboltdb.NewBoltStore(filepath.Join(d, "raft.db"))
		if err != nil {
			tb.Fatal(err)
		}
		snaps, err := raft.NewFileSnapshotStore(d, 2, io.Discard)
		if err != nil {
			tb.Fatal(err)
		}
		if err := raft.BootstrapCluster(conf, store, store, snaps, trs[i], c); err != nil {
			tb.Fatal(err)
		}
		r, err := raft.NewRaft(conf, empty{}, store, store, snaps, trs[i])
		if err != nil {
			tb.Fatal(err)
		}
		nodes = append(nodes, r)
		closers = append(closers, func() { r.Shutdown().Error(); trs[i].Close(); store.Close() })
	}
	return nodes, func() {
		for _, c := range closers {
			c()
		}
	}
}

// rawLeader waits until one of the nodes leads.
func rawLeader(tb testing.TB, nodes []*raft.Raft) *raft.Raft {
	tb.Helper()
	found := make(chan *raft.Raft, len(nodes))
	quit := make(chan struct{})
	defer close(quit)
	for _, r := range nodes {
		go func() {
			for {
				select {
				case yes := <-r.LeaderCh():
					if yes {
						found <- r
						return
					}
				case <-quit:
					return
				}
			}
		}()
	}
	select {
	case r := <-found:
		return r
	case <-time.After(30 * time.Second):
		tb.Fatal("raft elected no leader in 30 s")
		return nil
	}
}

// spread reports the median and the worst of some durations as metrics.
func spread(b *testing.B, name string, d []time.Duration) {
	slices.Sort(d)
	b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-p50-ms")
	b.ReportMetric(float64(d[len(d)-1].Microseconds())/1000, name+"-max-ms")
}
