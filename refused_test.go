// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

// While leadership is being handed over raft refuses entries, and says so. Frames that it refused are sent again until it
// takes them, each takes effect once and in order, and nobody waits for the proposer's net (D11, P3, P4).
func TestWriteDuringTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		a, _, c := threeMembers(t, ctx, network)
		writers := []*Member{a, c}
		var sessions []*Session
		for _, m := range writers {
			s, err := m.Session(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(ctx, "/"+m.ID(), nil, Persistent); err != nil {
				t.Fatal(err)
			}
			sessions = append(sessions, s)
		}

		// The heir does not hear of it, and raft waits for the call to fail.
		network.Hold("b")
		began := time.Now()
		a.handOver(a.lead.Load(), "b")
		time.Sleep(10 * time.Millisecond)
		type result struct {
			version int32
			err     error
			took    time.Duration
		}
		results := make(chan result, 2*len(sessions))
		for i, s := range sessions {
			go func() {
				for range 2 {
					z, err := s.Set(ctx, "/"+writers[i].ID(), nil, AnyVersion)
					results <- result{z.Version, err, time.Since(began)}
				}
			}()
		}
		bound := 2500*time.Millisecond + 2*backoff(10) // raft waits for 2.5 s
		seen := int32(0)
		for range cap(results) {
			r := <-results
			if r.err != nil || r.took > bound {
				t.Errorf("%v after %v", r.err, r.took)
			}
			seen += r.version
		}
		if seen != 6 { // 1 and 2 of each
			t.Errorf("versions add up to %d", seen)
		}
		if !a.leading() {
			t.Error("leadership was handed over: this tests nothing")
		}
		for _, m := range writers {
			if m.Stats().Redrives == 0 {
				t.Errorf("%s: raft refused nothing: this tests nothing", m.ID())
			}
		}
		network.Release("b")
	})
}

// What raft says to an entry is heard, and whoever does not want to hear it any more need not wait: raft may never say it.
func TestWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		a, b, _ := threeMembers(t, ctx, network)
		said := func(m *Member) (context.Context, func()) {
			ctx, refuse := context.WithCancelCause(ctx)
			return ctx, whenRefused(m.raft.ApplyLog(raft.Log{Data: []byte("?")}, time.Second), refuse)
		}

		hears, stop := said(b)
		<-hears.Done()
		if err := context.Cause(hears); !errors.Is(err, raft.ErrNotLeader) {
			t.Errorf("a follower's raft says %v", err)
		}
		stop()

		network.Isolate("a")
		hears, stop = said(a)
		synctest.Wait()
		if hears.Err() != nil {
			t.Errorf("a leader without a quorum says %v", context.Cause(hears))
		}
		stop()

		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		hears, stop = said(a)
		if err := context.Cause(hears); !errors.Is(err, raft.ErrRaftShutdown) {
			t.Errorf("a raft that is shut down says %v", err)
		}
		stop()
	})
}

// Leadership is not handed to a member that is gone, and to try costs nobody anything. If it goes just then, the others
// wait for no more than the time of an election, however often that happens: replication to that member, which waits
// for it, ends first.
func TestTransferToWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		network := memnet.New(1)
		a, b, c := threeMembers(t, ctx, network)
		network.Crash("b")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := c.Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		writes := func(bound time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := s.Create(ctx, "/x-", nil, Sequential); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > bound {
				t.Errorf("a write took %v", took)
			}
		}
		writes(0)
		time.Sleep(time.Minute)
		for range 3 {
			short, end := context.WithTimeout(ctx, 10*time.Millisecond)
			if err := a.TransferLeadership(short, "b"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("to hand over to a member that is gone: %v", err)
			}
			end()
			writes(0)
		}
		for range 3 {
			a.handOver(a.lead.Load(), "b")
			writes(a.cfg.Election + 2*backoff(10))
			time.Sleep(time.Minute)
		}
		if err := a.TransferLeadership(ctx, ""); err != nil { // not to b, which is the first
			t.Fatal(err)
		}
		if l := a.RoleInfo().Leader; l != "c" {
			t.Errorf("%q leads", l)
		}
	})
}

// A log from which raft takes back what is applied here has parted from the others': the member stops.
func TestAppliedEntryTakenBack(t *testing.T) {
	m, err := Open(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := m.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "/a", nil, Persistent); err != nil {
		t.Fatal(err)
	}
	first, err := m.store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "/b", nil, Persistent); err != nil { // by then the store knows that the one before is applied
		t.Fatal(err)
	}
	last, err := m.store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	go m.store.DeleteRange(first, last) // the store ends who asks for that
	<-m.Done()
	if err := m.Err(); !errors.Is(err, ErrDataInconsistency) {
		t.Errorf("%v", err)
	}
}
