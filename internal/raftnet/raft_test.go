// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// readOnly is a stream with nobody at the other end.
type readOnly struct{ io.Reader }

func (readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (readOnly) Close() error                     { return nil }
func (readOnly) LocalAddr() net.Addr              { return nil }
func (readOnly) RemoteAddr() net.Addr             { return nil }
func (readOnly) SetDeadline(time.Time) error      { return nil }
func (readOnly) SetReadDeadline(time.Time) error  { return nil }
func (readOnly) SetWriteDeadline(time.Time) error { return nil }

// consume answers what arrives at n's raft until the test ends.
func consume(t *testing.T, n *Net, answer func(raft.RPC)) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case rpc := <-n.Raft().Consumer():
				answer(rpc)
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
}

func TestRaftRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", func(c *Config) {
			c.AdmitRaft = func(from Identity, rpc any) error {
				if _, ok := rpc.(*raft.TimeoutNowRequest); ok || from.ID != "a" {
					return errors.New("vetoed")
				}
				return nil
			}
		})
		consume(t, b, func(rpc raft.RPC) {
			head := rpc.Command.(raft.WithRPCHeader).GetRPCHeader()
			if string(head.ID) != "a" || string(head.Addr) != "a" || head.ProtocolVersion != 3 {
				t.Errorf("header %+v", head)
			}
			switch rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
			case *raft.RequestVoteRequest:
				rpc.Respond(&raft.RequestVoteResponse{Term: 8, Granted: true}, nil)
			case *raft.RequestPreVoteRequest:
				rpc.Respond(nil, errors.New("unexpected command"))
			default:
				t.Errorf("got %T", rpc.Command)
			}
		})
		r := a.Raft()
		var ar raft.AppendEntriesResponse
		if err := r.AppendEntries("b", "elsewhere", heartbeat("a"), &ar); err != nil || ar.Term != 7 || !ar.Success {
			t.Errorf("AppendEntries: %+v, %v", ar, err)
		}
		var vr raft.RequestVoteResponse
		if err := r.RequestVote("b", "b", vote("a"), &vr); err != nil || vr.Term != 8 || !vr.Granted {
			t.Errorf("RequestVote: %+v, %v", vr, err)
		}
		err := r.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{RPCHeader: header("a"), Term: 1}, new(raft.RequestPreVoteResponse))
		if err == nil || strings.Contains(err.Error(), "unexpected command") {
			t.Errorf("RequestPreVote: %v", err)
		}
		var remote *RemoteError
		err = r.TimeoutNow("b", "b", &raft.TimeoutNowRequest{RPCHeader: header("a")}, new(raft.TimeoutNowResponse))
		if !errors.As(err, &remote) || remote.Text != "vetoed" {
			t.Errorf("TimeoutNow: %v", err)
		}
		if err := r.AppendEntries("b", "b", heartbeat("x"), &ar); err == nil {
			t.Error("spoke for another member")
		}
		if _, err := r.AppendEntriesPipeline("b", "b"); err != raft.ErrPipelineReplicationNotSupported {
			t.Errorf("AppendEntriesPipeline: %v", err)
		}
		if r.LocalAddr() != "a" || string(r.EncodePeer("b", "x")) != "b" || r.DecodePeer([]byte("b")) != "b" {
			t.Error("addresses are not ids")
		}
		if _, ok := any(r).(raft.WithClose); ok {
			t.Error("raft can close the transport")
		}
	})
}

// Raft that does not listen costs a member nothing but the calls to it.
func TestDeafRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		member(t, h, "b", nil)
		start := time.Now()
		if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); err == nil {
			t.Error("answered")
		}
		if took := time.Since(start); took != defaultCallTimeout/4 {
			t.Errorf("heartbeat took %v", took)
		}
		start = time.Now()
		args := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1}}}
		if err := a.Raft().AppendEntries("b", "b", args, new(raft.AppendEntriesResponse)); err == nil {
			t.Error("answered")
		}
		if took := time.Since(start); took != defaultCallTimeout {
			t.Errorf("append took %v", took)
		}
		mustCall(t, a, "b", "a to b: 7 x")
	})
}

func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		var aStalled, bStalled, bStallsInVote atomic.Bool
		a, _ := member(t, h, "a", func(c *Config) { c.Stalled = aStalled.Load })
		b, _ := member(t, h, "b", func(c *Config) { c.Stalled = bStalled.Load })
		consume(t, b, func(rpc raft.RPC) {
			switch rpc.Command.(type) {
			case *raft.RequestVoteRequest:
				bStalled.Store(bStallsInVote.Load())
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			default:
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			}
		})
		ask := func() (bool, error) {
			var resp raft.RequestVoteResponse
			err := a.Raft().RequestVote("b", "b", vote("a"), &resp)
			return resp.Granted, err
		}
		if ok, err := ask(); !ok || err != nil {
			t.Fatal(ok, err)
		}
		bStallsInVote.Store(true)
		if ok, err := ask(); ok || err == nil {
			t.Error("vote granted by a disk that stalled meanwhile")
		}
		if ok, err := ask(); ok || err == nil {
			t.Error("vote granted by a stalled disk")
		}
		if err := b.TimeoutNow(t.Context()); !errors.Is(err, ErrStalled) {
			t.Errorf("TimeoutNow: %v", err)
		}
		if err := a.Raft().TimeoutNow("b", "b", &raft.TimeoutNowRequest{RPCHeader: header("a")}, new(raft.TimeoutNowResponse)); err == nil {
			t.Error("a stalled disk was told to stand for election")
		}
		bStallsInVote.Store(false)
		bStalled.Store(false)
		aStalled.Store(true)
		if ok, err := ask(); ok || !errors.Is(err, ErrStalled) {
			t.Errorf("a stalled disk asked for a vote: %v, %v", ok, err)
		}
		if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); !errors.Is(err, ErrStalled) {
			t.Errorf("AppendEntries: %v", err)
		}
		snap := *requests()["snapshot"].(*raft.InstallSnapshotRequest)
		if err := a.Raft().InstallSnapshot("b", "b", &snap, new(raft.InstallSnapshotResponse), nil); !errors.Is(err, ErrStalled) {
			t.Errorf("InstallSnapshot: %v", err)
		}
		aStalled.Store(false)
		if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); err != nil {
			t.Errorf("AppendEntries afterwards: %v", err)
		}
	})
}

// A heartbeat and a vote pass a large AppendEntries and a snapshot.
func TestNothingWaitsBehindBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", nil)
		var wg sync.WaitGroup
		consume(t, b, func(rpc raft.RPC) {
			switch cmd := rpc.Command.(type) {
			case *raft.InstallSnapshotRequest:
				wg.Go(func() {
					io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
				})
			case *raft.AppendEntriesRequest:
				if len(cmd.Entries) > 0 {
					wg.Go(func() {
						time.Sleep(8 * time.Second)
						rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
					})
					return
				}
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			}
		})
		wg.Go(func() {
			args := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1, Data: make([]byte, 5<<20)}}}
			if err := a.Raft().AppendEntries("b", "b", args, new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			snap := *requests()["snapshot"].(*raft.InstallSnapshotRequest)
			snap.Size = 1 << 20
			slow := &slowReader{r: io.LimitReader(rand.Reader, snap.Size), pause: time.Second}
			if err := a.Raft().InstallSnapshot("b", "b", &snap, new(raft.InstallSnapshotResponse), slow); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		for range 5 {
			start := time.Now()
			if err := a.Raft().AppendEntries("b", "b", heartbeat("a"), new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 0 {
				t.Errorf("heartbeat took %v", took)
			}
			time.Sleep(time.Second)
		}
		wg.Wait()
	})
}

// slowReader pauses before every 64 KiB.
type slowReader struct {
	r     io.Reader
	pause time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return io.ReadFull(s.r, p[:min(len(p), 64<<10)])
}

func TestSnapshotTransfer(t *testing.T) {
	content := make([]byte, 300<<10)
	rand.Read(content)
	for _, c := range []struct {
		name   string
		data   io.Reader
		answer func(t *testing.T, rpc raft.RPC)
		veto   bool
		err    string // part of the error, or empty
		took   func(time.Duration) bool
	}{
		{"all", bytes.NewReader(content), func(t *testing.T, rpc raft.RPC) {
			got, err := io.ReadAll(rpc.Reader)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Term: 8, Success: true}, nil)
		}, false, "", func(d time.Duration) bool { return d == 0 }},
		{"longer than announced", io.MultiReader(bytes.NewReader(content), strings.NewReader("more")), func(t *testing.T, rpc raft.RPC) {
			if got, _ := io.ReadAll(rpc.Reader); !bytes.Equal(got, content) {
				t.Errorf("%d bytes", len(got))
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
		}, false, "", nil},
		{"answered early", bytes.NewReader(content), func(t *testing.T, rpc raft.RPC) {
			io.CopyN(io.Discard, rpc.Reader, 1000)
			rpc.Respond(nil, errors.New("no thanks"))
		}, false, "no thanks", nil},
		{"vetoed", iotest.ErrReader(errors.New("read in vain")), nil, true, "vetoed", nil},
		{"long restore", bytes.NewReader(content), func(t *testing.T, rpc raft.RPC) {
			io.Copy(io.Discard, rpc.Reader)
			time.Sleep(10 * time.Minute)
			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
		}, false, "", func(d time.Duration) bool { return d == 10*time.Minute }},
		{"slow source", &slowReader{r: bytes.NewReader(content), pause: 20 * time.Second}, func(t *testing.T, rpc raft.RPC) {
			if k, err := io.Copy(io.Discard, rpc.Reader); err != nil || k != int64(len(content)) {
				t.Errorf("%d bytes, %v", k, err)
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
		}, false, "", func(d time.Duration) bool { return d > 40*time.Second }},
		{"source ends early", bytes.NewReader(content[:1000]), func(t *testing.T, rpc raft.RPC) {
			if _, err := io.Copy(io.Discard, rpc.Reader); err == nil {
				t.Error("took half a snapshot for a whole one")
			}
			rpc.Respond(nil, errors.New("short"))
		}, false, "unexpected EOF", nil},
		{"source stands still", &slowReader{r: bytes.NewReader(content), pause: time.Minute}, func(t *testing.T, rpc raft.RPC) {
			start := time.Now()
			if _, err := io.Copy(io.Discard, rpc.Reader); err == nil {
				t.Error("no error")
			}
			if took := time.Since(start); took != stallTimeout {
				t.Errorf("reader gave up after %v", took)
			}
			if _, err := io.Copy(io.Discard, rpc.Reader); err == nil || time.Since(start) != stallTimeout {
				t.Error("reader forgot its error")
			}
			rpc.Respond(nil, errors.New("nothing comes"))
		}, false, "closed", nil},
		{"sink stands still", bytes.NewReader(content), func(t *testing.T, rpc raft.RPC) {
			io.CopyN(io.Discard, rpc.Reader, 1000)
			time.Sleep(5 * time.Minute)
			if _, err := io.Copy(io.Discard, rpc.Reader); err == nil {
				t.Error("no error")
			}
			rpc.Respond(nil, errors.New("too late"))
		}, false, "timeout", func(d time.Duration) bool { return d == stallTimeout }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				a, _ := member(t, h, "a", nil)
				b, _ := member(t, h, "b", func(cfg *Config) {
					cfg.AdmitRaft = func(Identity, any) error {
						if c.veto {
							return errors.New("vetoed")
						}
						return nil
					}
				})
				consume(t, b, func(rpc raft.RPC) { c.answer(t, rpc) })
				snap := *requests()["snapshot"].(*raft.InstallSnapshotRequest)
				snap.Size = int64(len(content))
				var resp raft.InstallSnapshotResponse
				start := time.Now()
				err := a.Raft().InstallSnapshot("b", "b", &snap, &resp, c.data)
				if c.err == "" && (err != nil || !resp.Success) {
					t.Errorf("%+v, %v", resp, err)
				}
				if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("error %v, want %s", err, c.err)
				}
				if took := time.Since(start); c.took != nil && !c.took(took) {
					t.Errorf("took %v", took)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.inbound != 0 {
					t.Errorf("%d streams left", b.inbound)
				}
			})
		})
	}
}

func TestMatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		success := true
		for _, id := range []string{"b", "c"} {
			n, _ := member(t, h, id, nil)
			consume(t, n, func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: success}, nil) })
		}
		app := func(id raft.ServerID, term, prev uint64, entries int) {
			t.Helper()
			args := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: term, PrevLogEntry: prev, PrevLogTerm: 1}
			for i := range entries {
				args.Entries = append(args.Entries, &raft.Log{Index: prev + 1 + uint64(i), Term: term})
			}
			if err := a.Raft().AppendEntries(id, "", args, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		want := func(b, c uint64) {
			t.Helper()
			if gb, gc := a.Matched("b"), a.Matched("c"); gb != b || gc != c {
				t.Errorf("matched %d and %d, want %d and %d", gb, gc, b, c)
			}
		}
		want(0, 0)
		app("b", 2, 0, 0) // a heartbeat says nothing
		want(0, 0)
		app("b", 2, 10, 5)
		want(15, 0)
		app("c", 2, 12, 0)
		want(15, 12)
		app("b", 2, 11, 1)
		want(15, 12)
		success = false
		app("c", 2, 12, 8)
		want(15, 12)
		success = true
		app("c", 3, 0, 0) // a new term, in which b has not answered yet
		want(0, 0)
		app("b", 2, 20, 1) // late, of the old one
		want(0, 0)
		app("b", 3, 20, 1)
		want(21, 0)
	})
}

func TestNotify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, _ := member(t, h, "a", nil)
		b, _ := member(t, h, "b", nil)
		var got []uint64
		gate := make(chan struct{}, 100)
		consume(t, b, func(rpc raft.RPC) {
			cmd := rpc.Command.(*raft.AppendEntriesRequest)
			got = append(got, cmd.LeaderCommitIndex)
			if len(cmd.Entries) == 0 && (cmd.Term != 5 || cmd.PrevLogEntry != cmd.LeaderCommitIndex || cmd.PrevLogTerm != 4) {
				t.Errorf("notice %+v", cmd)
			}
			<-gate
			rpc.Respond(&raft.AppendEntriesResponse{Term: 5, Success: true}, nil)
		})
		notify := func(index uint64) { a.Notify("b", 5, index, 4, "a") }
		arrived := func(when string, want ...uint64) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", when, got, want)
			}
			got = nil
		}
		app := func(prev, commit uint64) {
			args := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 5, PrevLogEntry: prev, PrevLogTerm: 4, LeaderCommitIndex: commit, Entries: []*raft.Log{{Index: prev + 1, Term: 5}}}
			if err := a.Raft().AppendEntries("b", "b", args, new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
		}
		notify(1)
		arrived("not acknowledged")
		gate <- struct{}{}
		app(0, 0)
		arrived("acknowledged", 0, 1)
		gate <- struct{}{}
		gate <- struct{}{}
		app(29, 0)
		arrived("more acknowledged", 0)
		notify(2)
		arrived("second", 2)
		time.Sleep(carriedSoon) // it might be stuck
		for i := range uint64(10) {
			notify(3 + i)
		}
		arrived("while one is under way")
		gate <- struct{}{}
		arrived("the newest of those that came meanwhile", 12)
		gate <- struct{}{}
		synctest.Wait()
		for i := range uint64(10) {
			notify(3 + i)
		}
		arrived("old news")
		a.Notify("b", 4, 100, 4, "a")
		arrived("of an old term")

		done := make(chan struct{})
		go func() { app(13, 13); close(done) }()
		arrived("append", 13)
		notify(13)
		arrived("what an append under way carries")
		gate <- struct{}{}
		<-done
		notify(13)
		arrived("what an append has carried")
		notify(14)
		arrived("what no append has carried", 14)
		gate <- struct{}{}

		a.Notify("z", 5, 20, 4, "a") // nobody there, nothing happens
		a.Notify("b", 6, 20, 4, "x") // not us, nothing happens
		arrived("nothing")
		a.Notify("b", 5, 21, 4, "a")
		arrived("after a failure", 21)
		gate <- struct{}{}
		synctest.Wait()
		b.Close()
		notify(22) // it cannot be sent
		synctest.Wait()
		if p := &a.peer("b").said; p.active || p.next != nil {
			t.Error("still tries")
		}
	})
}

// voter is a member of a real raft cluster.
type voter struct {
	id   string
	net  *Net
	port *port
	raft *raft.Raft
	fsm  *journal
	logs *raft.InmemStore
	snap raft.SnapshotStore
	runs atomic.Pointer[raft.Raft]
}

// leads is Config.Leads.
func (v *voter) leads(_ string, term uint64) bool {
	r := v.runs.Load()
	return r != nil && r.CurrentTerm() == term && r.State() == raft.Leader
}

// cluster is three of them.
type cluster struct {
	t      *testing.T
	hub    *hub
	all    []*voter
	tweak  func(*raft.Config)
	notify bool
}

func newCluster(t *testing.T, notify bool, tweak func(*raft.Config)) *cluster {
	c := &cluster{t: t, hub: newHub(), tweak: tweak, notify: notify}
	for _, id := range []string{"a", "b", "c"} {
		v := &voter{id: id, logs: raft.NewInmemStore(), snap: raft.NewInmemSnapshotStore()}
		c.all = append(c.all, v)
		c.start(v)
	}
	if err := c.all[0].raft.BootstrapCluster(configuration("a", "b", "c")).Error(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, v := range c.all {
			c.stop(v)
		}
	})
	return c
}

func (c *cluster) start(v *voter) {
	c.t.Helper()
	v.runs.Store(nil)
	v.net, v.port = member(c.t, c.hub, v.id, func(cfg *Config) { cfg.Leads = v.leads })
	v.fsm = &journal{}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(v.id)
	conf.Logger = hclog.NewNullLogger()
	conf.ShutdownOnRemove = false
	if c.tweak != nil {
		c.tweak(conf)
	}
	var err error
	if v.raft, err = raft.NewRaft(conf, v.fsm, v.logs, v.logs, v.snap, v.net.Raft()); err != nil {
		c.t.Fatal(err)
	}
	v.runs.Store(v.raft)
	if c.notify {
		v.fsm.applied = func(l *raft.Log) {
			for _, id := range []string{"a", "b", "c"} {
				if id != v.id && v.raft.State() == raft.Leader && v.raft.CurrentTerm() == l.Term {
					v.net.Notify(id, l.Term, l.Index, l.Term, v.id)
				}
			}
		}
	}
}

func (c *cluster) stop(v *voter) {
	v.net.Close()
	if err := v.raft.Shutdown().Error(); err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) leader() *voter {
	c.t.Helper()
	for range 1000 {
		for _, v := range c.all {
			if v.raft.State() == raft.Leader && v.raft.VerifyLeader().Error() == nil {
				return v
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatal("no leader")
	return nil
}

func (c *cluster) apply(text string) {
	c.t.Helper()
	if err := c.leader().raft.Apply([]byte(text), time.Minute).Error(); err != nil {
		c.t.Fatal(err)
	}
}

// wait waits until everyone has as many entries.
func (c *cluster) wait(count int) {
	c.t.Helper()
	for range 60_000 {
		if !slices.ContainsFunc(c.all, func(v *voter) bool { return v.fsm.len() != count }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	for _, v := range c.all {
		c.t.Errorf("%s has %d entries of %d", v.id, v.fsm.len(), count)
	}
}

// journal is a state machine that remembers everything.
type journal struct {
	applied   func(*raft.Log)
	mu        sync.Mutex
	texts     []string
	installed int
}

func (j *journal) len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.texts)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.texts)
}

func (j *journal) Apply(l *raft.Log) any {
	j.mu.Lock()
	j.texts = append(j.texts, string(l.Data))
	j.mu.Unlock()
	if j.applied != nil {
		j.applied(l)
	}
	return nil
}

func (j *journal) Snapshot() (raft.FSMSnapshot, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return image(strings.Join(j.texts, "\n")), nil
}

func (j *journal) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.texts = strings.Split(string(b), "\n")
	j.installed++
	return nil
}

type image string

func (i image) Persist(sink raft.SnapshotSink) error {
	io.WriteString(sink, string(i))
	return sink.Close()
}

func (image) Release() {}

func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, true, nil)
		for i := range 500 {
			c.apply(fmt.Sprint(i))
		}
		c.wait(500)

		// The leader goes and comes back.
		old := c.leader()
		c.stop(old)
		rest := slices.DeleteFunc(slices.Clone(c.all), func(v *voter) bool { return v == old })
		all := c.all
		c.all = rest
		c.apply("without it")
		c.wait(501)
		c.all = all
		c.start(old)
		c.apply("with it")
		c.wait(502)

		// Leadership is handed over.
		from := c.leader()
		if err := from.raft.LeadershipTransfer().Error(); err != nil {
			t.Fatal(err)
		}
		if to := c.leader(); to == from {
			t.Error("leadership was not transferred")
		}
		c.apply("later")
		c.wait(503)

		// A follower takes it.
		to := c.all[0]
		if to == c.leader() {
			to = c.all[1]
		}
		if err := to.net.TimeoutNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for to.raft.State() != raft.Leader && time.Since(start) < time.Second {
			time.Sleep(time.Millisecond)
		}
		if c.leader() != to {
			t.Error("leadership was not taken")
		}

		// All streams break at once.
		for _, v := range c.all {
			v.port.reset()
		}
		c.apply("at last")
		c.wait(504)
		for _, v := range c.all {
			if !slices.Equal(v.fsm.texts, c.all[0].fsm.texts) {
				t.Errorf("%s differs", v.id)
			}
		}
	})
}

func TestClusterLargeEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, false, func(r *raft.Config) { r.MaxAppendEntries = 64 })
		c.apply("first")
		c.stop(c.all[2])
		all := c.all
		c.all = c.all[:2]
		big := strings.Repeat("x", 3<<20)
		for range 20 { // to be sent in several requests
			c.apply(big)
		}
		c.all = all
		c.start(c.all[2])
		c.wait(21)
	})
}

func TestClusterSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, true, func(r *raft.Config) { r.TrailingLogs = 5 })
		c.apply("first")
		c.wait(1)
		late := c.all[0]
		if late == c.leader() {
			late = c.all[1]
		}
		c.stop(late)
		all := c.all
		c.all = slices.DeleteFunc(slices.Clone(all), func(v *voter) bool { return v == late })
		for i := range 200 {
			c.apply(fmt.Sprint(i, strings.Repeat("-", 1000)))
		}
		for _, v := range c.all {
			if err := v.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		late.logs, late.snap = raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		c.start(late)
		c.all = all
		c.wait(201)
		if late.fsm.installed == 0 {
			t.Error("caught up without a snapshot")
		}
		c.apply("afterwards")
		c.wait(202)
	})
}

// A cut-off member neither disturbs nor misses anything for long.
func TestClusterPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, true, nil)
		c.apply("before")
		c.wait(1)
		away := c.leader()
		c.hub.isolate(away.id, true)
		away.port.reset()
		all := c.all
		c.all = slices.DeleteFunc(slices.Clone(all), func(v *voter) bool { return v == away })
		time.Sleep(2 * time.Second)
		c.apply("meanwhile")
		c.hub.isolate(away.id, false)
		c.all = all
		start := time.Now()
		c.wait(2)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v to come back", took)
		}
	})
}

// A lone write reaches the followers at once with commit notices, and by
// raft's own means only after its CommitTimeout.
func TestCommitNotice(t *testing.T) {
	reach := func(notify bool) (most, least time.Duration) {
		least = time.Hour
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, notify, nil)
			c.apply("first")
			c.wait(1)
			for i := range 20 {
				time.Sleep(777 * time.Millisecond)
				start := time.Now()
				c.apply("next")
				c.wait(2 + i)
				took := time.Since(start)
				most, least = max(most, took), min(least, took)
			}
		})
		return most, least
	}
	if most, _ := reach(true); most >= 50*time.Millisecond {
		t.Errorf("with notices: up to %v", most)
	} else {
		t.Logf("with notices: up to %v", most)
	}
	if most, least := reach(false); least <= 50*time.Millisecond {
		t.Errorf("without notices: from %v", least)
	} else {
		t.Logf("without notices: %v to %v", least, most)
	}
}

func TestTimeoutNowEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := member(t, newHub(), "a", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := a.TimeoutNow(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
