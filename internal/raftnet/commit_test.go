// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// follower is a member with a real raft and this log, whose entries all have the text and the term given, in a cluster of a,
// b and c. It shuts down with the test.
func follower(t *testing.T, h *hub, id string, entries ...raft.Log) *journal {
	t.Helper()
	n, _ := member(t, h, id, nil)
	logs, fsm := raft.NewInmemStore(), &journal{}
	if err := logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration("a", "b", "c"))}); err != nil {
		t.Fatal(err)
	}
	for i, l := range entries {
		l.Index = uint64(i + 2)
		if err := logs.StoreLog(&l); err != nil {
			t.Fatal(err)
		}
		logs.SetUint64([]byte("CurrentTerm"), l.Term)
	}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = raft.ServerID(id), hclog.NewNullLogger()
	r, err := raft.NewRaft(conf, fsm, logs, logs, raft.NewInmemSnapshotStore(), n.Raft())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	})
	return fsm
}

// A deposed leader has an entry that nobody else has. It does not take it for committed, although what the new leader has
// committed since has the same index, and the first request that it gets shows nothing of that.
func TestCommitIsWhatWasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		fsm := follower(t, h, "b", raft.Log{Term: 2, Data: []byte("everybody's")}, raft.Log{Term: 3, Data: []byte("lost")})
		a, _ := member(t, h, "a", nil)
		lead := func(entries ...*raft.Log) {
			t.Helper()
			args := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 4, PrevLogEntry: 2, PrevLogTerm: 2, Entries: entries, LeaderCommitIndex: 3}
			var resp raft.AppendEntriesResponse
			if err := a.Raft().AppendEntries("b", "", args, &resp); err != nil || !resp.Success {
				t.Fatal(resp, err)
			}
			synctest.Wait()
		}
		lead()
		if got := fsm.all(); !slices.Equal(got, []string{"everybody's"}) {
			t.Errorf("applied %q", got)
		}
		lead(&raft.Log{Index: 3, Term: 4, Data: []byte("committed")})
		if got := fsm.all(); !slices.Equal(got, []string{"everybody's", "committed"}) {
			t.Errorf("applied %q", got)
		}
	})
}

// A member holds to that whatever another sends.
func TestCommitIsCutByItsReader(t *testing.T) {
	for _, entries := range [][]*raft.Log{nil, {{Index: 4, Term: 4}, {Index: 5, Term: 4}}} {
		end := uint64(3 + len(entries))
		req := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 4, PrevLogEntry: 3, PrevLogTerm: 2, Entries: entries, LeaderCommitIndex: end}
		b, _, err := appendAppendEntries(nil, req, appendTarget)
		if err != nil {
			t.Fatal(err)
		}
		const at = 4 // of the commit index: what comes before it are numbers of one byte each
		for _, c := range []struct{ sent, want uint64 }{{2, 2}, {end, end}, {end + 1, end}, {100, end}} {
			if b[at] = byte(c.sent); c.sent > 127 {
				t.Fatal("not one byte")
			}
			got, err := decodeRequest(kindAppendEntries, b, "a")
			if err != nil || got.(*raft.AppendEntriesRequest).LeaderCommitIndex != c.want {
				t.Errorf("%d sent with entries up to %d: %+v, %v", c.sent, end, got, err)
			}
		}
	}
}
