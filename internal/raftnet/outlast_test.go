// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// What a leader sends to a member that is away fails once, when the member is back, and not while it is away: raft counts
// failures. Heartbeats fail at once, and nothing waits when leadership or the network ends.
func TestOutlast(t *testing.T) {
	entries := func() *raft.AppendEntriesRequest {
		a := heartbeat("a")
		a.Term, a.PrevLogEntry, a.PrevLogTerm = 5, 3, 5
		return a
	}
	send := map[string]func(*RaftTransport) error{
		"entries": func(r *RaftTransport) error {
			return r.AppendEntries("b", "b", entries(), new(raft.AppendEntriesResponse))
		},
		"first entry": func(r *RaftTransport) error {
			a := heartbeat("a")
			a.Term, a.Entries = 5, []*raft.Log{{Index: 1, Term: 5}}
			return r.AppendEntries("b", "b", a, new(raft.AppendEntriesResponse))
		},
		"snapshot": func(r *RaftTransport) error {
			s := &raft.InstallSnapshotRequest{RPCHeader: header("a"), SnapshotVersion: 1, Term: 5, LastLogIndex: 3, LastLogTerm: 5}
			return r.InstallSnapshot("b", "b", s, new(raft.InstallSnapshotResponse), new(bytes.Reader))
		},
	}
	for name, send := range send {
		ends := map[string]func(t *testing.T, h *hub, a *Net, leads *atomic.Bool){
			"member is back": func(t *testing.T, h *hub, _ *Net, _ *atomic.Bool) { member(t, h, "b", nil) },
			"deposed":        func(_ *testing.T, _ *hub, _ *Net, leads *atomic.Bool) { leads.Store(false) },
			"closed":         func(_ *testing.T, _ *hub, a *Net, _ *atomic.Bool) { a.Close() },
			"refused": func(t *testing.T, h *hub, _ *Net, _ *atomic.Bool) {
				member(t, h, "b", announce(func(id *Identity) { id.Cluster = "another" }))
			},
		}
		for what, end := range ends {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHub()
					var leads atomic.Bool
					leads.Store(true)
					a, _ := member(t, h, "a", func(c *Config) {
						c.Leads = func(id string, term uint64) bool { return id == "b" && term == 5 && leads.Load() }
					})
					done := make(chan error, 1)
					go func() { done <- send(a.Raft()) }()
					time.Sleep(10 * time.Minute)
					select {
					case err := <-done:
						t.Fatalf("did not wait: %v", err)
					default:
					}
					began := time.Now()
					if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("heartbeat: %v", err)
					}
					if took := time.Since(began); took > 0 {
						t.Errorf("the heartbeat took %v", took)
					}
					end(t, h, a, &leads)
					if err := <-done; err == nil {
						t.Error("what was sent before is said to have arrived")
					}
					if took := time.Since(began); took > redialEvery {
						t.Errorf("returned after %v", took)
					}
				})
			})
		}
	}
}

// However long a member was away, it has everything a moment after it is back.
func TestClusterLongAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, true, nil)
		c.apply("before")
		c.wait(1)
		lead := c.leader()
		away := c.all[slices.IndexFunc(c.all, func(v *voter) bool { return v != lead })]
		c.stop(away)
		all := c.all
		c.all = slices.DeleteFunc(slices.Clone(all), func(v *voter) bool { return v == away })
		for range 10 {
			time.Sleep(time.Minute)
			c.apply("meanwhile")
		}
		c.start(away)
		c.all = all
		start := time.Now()
		c.wait(11)
		if took := time.Since(start); took > time.Second {
			t.Errorf("caught up after %v", took)
		}
	})
}

// Raft is at a snapshot from when it takes it until it answers, even if the stream breaks meanwhile.
func TestInstalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, port := member(t, h, "a", nil)
		b, _ := member(t, h, "b", nil)
		s := &raft.InstallSnapshotRequest{
			RPCHeader: header("a"), SnapshotVersion: 1, Term: 5, LastLogIndex: 3, LastLogTerm: 5,
			Configuration: raft.EncodeConfiguration(configuration("a", "b")), ConfigurationIndex: 1, Size: 3,
		}
		failed := make(chan error, 1)
		go func() {
			failed <- a.Raft().InstallSnapshot("b", "b", s, new(raft.InstallSnapshotResponse), bytes.NewReader([]byte("abc")))
		}()
		if b.Installing() {
			t.Error("installs before it was sent anything")
		}
		rpc := <-b.Raft().Consumer()
		synctest.Wait()
		if !b.Installing() {
			t.Error("does not install while raft is at it")
		}
		if id, incarnation, term := b.Leader(); id != "a" || incarnation != 1 || term != 5 {
			t.Errorf("led by %q of incarnation %d in term %d", id, incarnation, term)
		}
		port.reset()
		if err := <-failed; err == nil {
			t.Error("the snapshot is said to be installed")
		}
		time.Sleep(time.Minute)
		if !b.Installing() {
			t.Error("does not install although raft has not answered")
		}
		rpc.Respond(&raft.InstallSnapshotResponse{Term: 5}, nil)
		synctest.Wait()
		if b.Installing() {
			t.Error("installs although raft has answered")
		}
	})
}
