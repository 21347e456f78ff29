// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/internal/raftnet"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

// A member that meets what it must not go on with stops, says why, and lets its host live: an entry of a newer format,
// a digest that is not its own, a damaged entry, a panic of its own (section 4 of docs/spec/reliability.md).
func TestMemberStops(t *testing.T) {
	good := func(m *Member, change func(*stamp)) []byte {
		s := m.stamp()
		change(&s)
		return appendStamp(nil, s)
	}
	frameOf := func(m *Member, raws ...[]byte) []byte {
		return appendFrame(nil, &frame{origin: m.cfg.ID, incarnation: m.incarnation, number: m.fsm.st.origin(m.cfg.ID).last + 1, requests: raws})
	}
	for name, c := range map[string]struct {
		entry func(m *Member) raft.Log
		code  Code
		says  string
	}{
		"newer frame": {func(m *Member) raft.Log {
			return raft.Log{Data: []byte{commandFrame, formatVersion + 1}, Extensions: good(m, func(*stamp) {})}
		}, ErrUnimplemented, "newer release"},
		"newer epoch": {func(m *Member) raft.Log {
			return raft.Log{Data: []byte{commandEpoch, formatVersion + 1}, Extensions: good(m, func(*stamp) {})}
		}, ErrUnimplemented, "newer release"},
		"newer kind of command": {func(m *Member) raft.Log {
			return raft.Log{Data: []byte{77, formatVersion}, Extensions: good(m, func(*stamp) {})}
		}, ErrUnimplemented, "newer release"},
		"newer stamp": {func(m *Member) raft.Log { return raft.Log{Data: frameOf(m), Extensions: []byte{formatVersion + 1}} }, ErrUnimplemented, "newer release"},
		"newer feature": {func(m *Member) raft.Log {
			return raft.Log{Data: frameOf(m), Extensions: good(m, func(s *stamp) { s.feature++ })}
		}, ErrUnimplemented, "newer release"},
		"damaged frame": {func(m *Member) raft.Log {
			return raft.Log{Data: frameOf(m, []byte{1, 2, 3})[:9], Extensions: good(m, func(*stamp) {})}
		}, ErrSystem, "entry"},
		"digest": {func(m *Member) raft.Log {
			return raft.Log{Data: frameOf(m), Extensions: good(m, func(s *stamp) {
				s.check = m.fsm.checkpoint()
				s.check.sum++
			})}
		}, ErrInconsistent, "digest"},
		"panic": {func(m *Member) raft.Log {
			m.fsm.mu.Lock()
			m.fsm.st.nodes["/gone"] = &znode{path: "/gone"} // not among its parent's children
			m.fsm.mu.Unlock()
			raw := appendRequest(nil, &request{kind: reqTxn, session: m.fsm.sessions()[0].id, mark: m.fsm.sessions()[0].mark, ops: []Op{OpDelete("/gone", AnyVersion)}})
			return raft.Log{Data: frameOf(m, raw), Extensions: good(m, func(*stamp) {})}
		}, ErrSystem, "state.go"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, m, s := alone(t, Config{Logger: slog.New(slog.DiscardHandler)})
			for i := range 10 {
				if _, err := s.Do(ctx, OpCheck("/", AnyVersion)); err != nil {
					t.Fatal(i, err)
				}
			}
			before := listing(m.fsm.st)
			l := c.entry(m)
			m.raft.ApplyLog(l, time.Second)
			select {
			case <-m.Done():
			case <-time.After(20 * time.Second):
				t.Fatal("it does not stop")
			}
			err := m.Err()
			if codeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "entry ") {
				t.Errorf("it stopped because of %.300v", err)
			}
			st, differs := m.Stats(), int64(0)
			if c.code == ErrInconsistent {
				differs = 1
			}
			if st.Faults != 1 || st.DigestMismatches != differs { // OP-20
				t.Errorf("%d faults, %d digests that differ", st.Faults, st.DigestMismatches)
			}
			_, err = s.Create(ctx, "/late", nil, Persistent)
			if codeOf(err) != ErrClosed || !errors.Is(err, c.code) || MaybeApplied(err) {
				t.Errorf("a later call: %.200v", err)
			}
			if name != "panic" {
				sameListing(t, listing(m.fsm.st), before)
			}
		})
	}
}

// An undecodable request inside a good frame harms nobody: it has its zxid and its code, like the others beside it (D9).
func TestUndecodableRequest(t *testing.T) {
	_, m, s := alone(t, Config{})
	before := m.Applied()
	var codes []Code
	done := make(chan struct{})
	for i, raw := range [][]byte{{}, {99}, {byte(reqTxn), 0, 0, 1}, appendRequest(nil, &request{kind: reqClose, session: 12345})} {
		c := &call{raw: raw, done: make(chan struct{}), after: func(out outcome, err error) {
			if err != nil {
				t.Error(err)
			}
			if codes = append(codes, out.code); i == 3 {
				close(done)
			}
		}}
		if err := m.writes.enqueue(t.Context(), c, true); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	if want := fmt.Sprint([]Code{ErrMarshalling, ErrMarshalling, ErrMarshalling, ErrSessionExpired}); fmt.Sprint(codes) != want || m.Applied() != before+4 {
		t.Errorf("codes %v, %d zxids", codes, m.Applied()-before)
	}
	if _, err := s.Create(t.Context(), "/fine", nil, Persistent); err != nil {
		t.Error(err)
	}
}

// What another member hands on is taken only in its own name, in its own incarnation, and within the bounds of an entry
// (D9, P3): nothing else reaches the log. A stranger is not even listened to.
func TestHostileFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(1)
		ctx, m, s := alone(t, Config{ID: "m", Transport: net.Host("m"), Logger: slog.New(slog.DiscardHandler)})
		if _, err := s.Create(ctx, "/before", nil, Persistent); err != nil {
			t.Fatal(err)
		}
		peer := func(id, cluster string) *raftnet.Net {
			n := raftnet.New(raftnet.Config{
				Transport: net.Host(id),
				Local: func() raftnet.Identity {
					return raftnet.Identity{Cluster: cluster, ID: id, Storage: "x", Incarnation: 7, Addr: id}
				},
			})
			t.Cleanup(func() { n.Close() })
			return n
		}
		evil, stranger := peer("evil", m.ClusterID()), peer("stranger", "")
		// asked returns the code of an answer.
		asked := func(n *raftnet.Net, kind byte, body []byte) Code {
			t.Helper()
			brief, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			b, err := n.Call(brief, "m", kind, body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := readAnswer(b); err != nil {
				return codeOf(err)
			}
			return 0
		}
		steal := appendRequest(nil, &request{kind: reqTxn, session: s.id, mark: s.mark, ops: []Op{OpDelete("/before", AnyVersion)}})
		frameOf := func(origin string, incarnation uint64, requests ...[]byte) []byte {
			return appendFrame(nil, &frame{origin: origin, incarnation: incarnation, number: 1, requests: requests})
		}
		synctest.Wait() // a second copy of a frame of its own may be on its way
		index, term := m.raft.LastIndex(), m.raft.CurrentTerm()
		for name, c := range map[string]struct {
			frame []byte
			want  Code
		}{
			"in another's name":       {appendFrame(nil, &frame{origin: "m", incarnation: m.incarnation, number: m.fsm.st.origin("m").last + 1, requests: [][]byte{steal}}), ErrNoAuth},
			"of another incarnation":  {frameOf("evil", 8, steal), ErrNoAuth},
			"of an older incarnation": {frameOf("evil", 6, steal), ErrNoAuth},
			"too many requests":       {frameOf("evil", 7, make([][]byte, maxFrameRequests+1)...), ErrMarshalling},
			"too large":               {frameOf("evil", 7, make([]byte, maxEntryBytes)), ErrMarshalling},
			"cut":                     {frameOf("evil", 7, steal)[:20], ErrMarshalling},
			"with a tail":             {append(frameOf("evil", 7, steal), 0), ErrMarshalling},
			"of another version":      {append([]byte{commandFrame, formatVersion + 1}, frameOf("evil", 7, steal)[2:]...), ErrMarshalling},
			"an epoch":                {appendEpoch(nil, sampleEpoch()), ErrMarshalling},
			"nothing":                 {nil, ErrMarshalling},
		} {
			if got := asked(evil, kindForward, c.frame); got != c.want {
				t.Errorf("a frame %s: %v, want %v", name, got, c.want)
			}
		}
		for kind, body := range map[byte][]byte{kindHeartbeat: {0xff}, kindTerm: {1}, kindWitness: {0x80}, kindAdmin: {adminJoin, 0xff}, 99: nil} {
			if got := asked(evil, kind, body); got == 0 {
				t.Errorf("kind %d is answered", kind)
			}
		}
		// Who does not name the ensemble and is no member of it may introduce itself, and ask to become one.
		for kind, body := range map[byte][]byte{
			kindForward: frameOf("stranger", 7, steal), kindHeartbeat: appendSessionIDs(nil, []SessionID{s.id}), kindConfirm: nil, kindTerm: make([]byte, 8), kindStatus: nil,
			kindWitness: nil, kindAdmin: codec.AppendString([]byte{adminRemove}, "m"),
		} {
			if got := asked(stranger, kind, body); got != ErrNotMember {
				t.Errorf("kind %d of a stranger: %v", kind, got)
			}
		}
		if got := asked(stranger, kindHello, nil); got != 0 {
			t.Errorf("a stranger's hello: %v", got)
		}
		if err := stranger.Raft().RequestVote("m", "m", &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("stranger"), Addr: []byte("stranger")}, Term: term + 1000}, &raft.RequestVoteResponse{}); err == nil {
			t.Error("a stranger may ask for votes")
		}
		if now := m.raft.LastIndex(); now != index || m.raft.CurrentTerm() != term {
			t.Errorf("%d entries reached the log, term %d was %d", now-index, m.raft.CurrentTerm(), term)
		}
		// A frame in its own name reaches the log, and not the state: its origin is no member.
		brief, cancel := context.WithTimeout(ctx, time.Second)
		evil.Call(brief, "m", kindForward, frameOf("evil", 7, steal))
		cancel()
		if m.raft.LastIndex() != index+1 || m.fsm.st.origin("evil") != nil || m.fsm.st.nodes["/before"] == nil {
			t.Error("a frame of who is no member was applied")
		}
		b, err := evil.Call(ctx, "m", kindHeartbeat, appendSessionIDs(nil, []SessionID{1, s.id}))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := readAnswer(b); err != nil || fmt.Sprint(readSessionIDs(&r)) != fmt.Sprint([]SessionID{1}) {
			t.Errorf("a heartbeat of a session that is not there: %v", err)
		}
		if err := m.Err(); err != nil {
			t.Error(err)
		}
		if _, err := s.Create(ctx, "/after", nil, Persistent); err != nil {
			t.Error(err)
		}
	})
}

// A refusal that the peers put into words stops the member that it is about, and no other: what is not a refusal of this
// kind is ignored.
func TestRefusals(t *testing.T) {
	for text, want := range map[string]Code{
		ErrNotMember.Error() + ": \"m\" was removed":    ErrNotMember,
		ErrWiped.Error() + ": remove it":                ErrWiped,
		ErrClusterMismatch.Error() + ": \"a\", \"b\"":   ErrClusterMismatch,
		"an earlier incarnation of \"m\"":               0,
		"too many streams":                              0,
		ErrNotEmpty.Error() + " what it should contain": 0,
	} {
		_, m, _ := alone(t, Config{Logger: slog.New(slog.DiscardHandler)})
		m.noteRefusal(fmt.Errorf("asking: %w", &raftnet.RefusedError{ID: "other", Reason: text}))
		if want != 0 {
			<-m.Done()
		}
		if got := m.Err(); (got == nil) != (want == 0) || got != nil && codeOf(got) != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
