// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-541fafe0/zk/internal/codec"
)

func configuration(ids ...string) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return c
}

// requests are samples of all that raft sends.
func requests() map[string]any {
	at := time.Date(2031, 5, 6, 7, 8, 9, 12345, time.UTC)
	return map[string]any{
		"heartbeat": &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 3},
		"append": &raft.AppendEntriesRequest{
			RPCHeader: header("a"), Term: 9, PrevLogEntry: 100, PrevLogTerm: 2, LeaderCommitIndex: 99,
			Entries: []*raft.Log{
				{Index: 101, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: at},
				{Index: 102, Term: 2, Type: raft.LogBarrier},
				{Index: 103, Term: 9, Type: raft.LogNoop, AppendedAt: time.Unix(0, 1).UTC()},
				{Index: 104, Term: 9, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(configuration("a", "b"))},
			},
		},
		"vote": &raft.RequestVoteRequest{
			RPCHeader: header("a"), Term: math.MaxUint64, LastLogIndex: 7, LastLogTerm: 6, LeadershipTransfer: true,
		},
		"prevote": &raft.RequestPreVoteRequest{RPCHeader: header("a"), Term: 5, LastLogIndex: 1 << 40, LastLogTerm: 4},
		"snapshot": &raft.InstallSnapshotRequest{
			RPCHeader: header("a"), SnapshotVersion: 1, Term: 8, LastLogIndex: 1000, LastLogTerm: 7,
			Configuration: raft.EncodeConfiguration(configuration("a", "b", "c")), ConfigurationIndex: 900, Size: 1 << 50,
		},
		"timeout": &raft.TimeoutNowRequest{RPCHeader: header("a")},
	}
}

func encodeRequest(req any) (kind byte, b []byte, err error) {
	switch req := req.(type) {
	case *raft.AppendEntriesRequest:
		b, _, err = appendAppendEntries(nil, req, appendTarget)
		return kindAppendEntries, b, err
	case *raft.RequestVoteRequest:
		kind = kindRequestVote
	case *raft.RequestPreVoteRequest:
		kind = kindRequestPreVote
	case *raft.InstallSnapshotRequest:
		kind = kindInstallSnapshot
	case *raft.TimeoutNowRequest:
		kind = kindTimeoutNow
	}
	b, err = appendRequest(nil, req)
	return kind, b, err
}

func TestRequestsComeThrough(t *testing.T) {
	for name, req := range requests() {
		t.Run(name, func(t *testing.T) {
			kind, b, err := encodeRequest(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeRequest(kind, b, "a")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, req) {
				t.Errorf("sent %+v\ngot %+v", req, got)
			}
			for k := range b {
				if _, err := decodeRequest(kind, b[:k], "a"); !errors.Is(err, errViolation) {
					t.Fatalf("cut to %d bytes: %v", k, err)
				}
			}
			if _, err := decodeRequest(kind, append(b, 0), "a"); !errors.Is(err, errViolation) {
				t.Errorf("one byte more: %v", err)
			}
		})
	}
}

func TestResponsesComeThrough(t *testing.T) {
	for _, c := range []struct{ resp, into any }{
		{&raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 3, LastLog: 4, Success: true, NoRetryBackoff: true}, &raft.AppendEntriesResponse{}},
		{&raft.RequestVoteResponse{RPCHeader: header("b"), Term: 3, Granted: true}, &raft.RequestVoteResponse{}},
		{&raft.RequestPreVoteResponse{RPCHeader: header("b"), Term: 3, Granted: true}, &raft.RequestPreVoteResponse{}},
		{&raft.InstallSnapshotResponse{RPCHeader: header("b"), Term: 3, Success: true}, &raft.InstallSnapshotResponse{}},
		{&raft.TimeoutNowResponse{RPCHeader: header("b")}, &raft.TimeoutNowResponse{}},
	} {
		b, err := appendResponse(nil, c.resp)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > maxRaftAnswer {
			t.Errorf("%T has %d bytes", c.resp, len(b))
		}
		if err := decodeResponse(b, "b", c.into); err != nil || !reflect.DeepEqual(c.into, c.resp) {
			t.Errorf("sent %+v, got %+v, %v", c.resp, c.into, err)
		}
		if err := decodeResponse(b[:len(b)-1], "b", c.into); !errors.Is(err, errViolation) {
			t.Errorf("cut %T: %v", c.resp, err)
		}
	}
	if _, err := appendResponse(nil, nil); err == nil {
		t.Error("encoded nothing")
	}
}

var update = flag.Bool("update", false, "rewrite testdata")

// What is on the wire is fixed: members of different releases talk to each
// other. A new version gets a new file, and the old ones stay.
func TestFormat(t *testing.T) {
	lines := []string{fmt.Sprintf("identity %x", appendIdentity(nil, Identity{Cluster: "c", ID: "a", Storage: "s", Incarnation: 300, Addr: "host:1"}))}
	for name, req := range requests() {
		kind, b, err := encodeRequest(req)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %x %x", name, kind, b))
	}
	for _, resp := range []any{
		&raft.AppendEntriesResponse{RPCHeader: header("b"), Term: 3, LastLog: 4, Success: true},
		&raft.RequestVoteResponse{RPCHeader: header("b"), Term: 300, Granted: true},
		&raft.RequestPreVoteResponse{RPCHeader: header("b"), Term: 3},
		&raft.InstallSnapshotResponse{Term: 3, Success: true},
		&raft.TimeoutNowResponse{},
	} {
		b, _ := appendResponse(nil, resp)
		lines = append(lines, fmt.Sprintf("%T %x", resp, b))
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	const file = "testdata/formats/v1.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// hostileAppends are requests that raft must not see.
func hostileAppends() map[string][]byte {
	fields := func(xs ...uint64) (b []byte) {
		for _, x := range xs {
			b = codec.AppendUvarint(b, x)
		}
		return b
	}
	entry := func(b []byte, term uint64, typ byte, data []byte) []byte {
		b = codec.AppendByte(codec.AppendUvarint(b, term), typ)
		return codec.AppendBytes(codec.AppendBytes(codec.AppendUint64(b, 0), data), nil)
	}
	long := raft.Configuration{}
	for i := range 2000 {
		long.Servers = append(long.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i, strings.Repeat("x", 90))), Address: "x"})
	}
	twice := configuration("a", "a")
	nobody := configuration("a")
	nobody.Servers[0].Suffrage = raft.Nonvoter
	staging := configuration("a", "b")
	staging.Servers[0].Suffrage = raft.Staging
	config := func(c raft.Configuration) []byte {
		return entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogConfiguration), raft.EncodeConfiguration(c))
	}
	return map[string][]byte{
		"no term":                fields(3, 0, 0, 0, 0, 0),
		"too many entries":       append(fields(3, 1, 0, 0, 0, maxEntries+1), make([]byte, (maxEntries+1)*minEntry)...),
		"announced entries":      fields(3, 1, 0, 0, 0, 1<<60),
		"index overflows":        entry(fields(3, 1, math.MaxUint64, 1, 0, 1), 1, 0, nil),
		"previous term is newer": fields(3, 1, 5, 2, 0, 0),
		"entry of newer term":    entry(fields(3, 1, 0, 0, 0, 1), 2, 0, nil),
		"entry of term 0":        entry(fields(3, 1, 0, 0, 0, 1), 0, 0, nil),
		"terms fall":             entry(entry(fields(3, 9, 5, 3, 0, 2), 4, 0, nil), 3, 0, nil),
		"term below previous":    entry(fields(3, 9, 5, 3, 0, 1), 2, 0, nil),
		"old add peer":           entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogAddPeerDeprecated), nil),
		"old remove peer":        entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogRemovePeerDeprecated), nil),
		"unknown type":           entry(fields(3, 1, 0, 0, 0, 1), 1, 99, nil),
		"garbled configuration":  entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogConfiguration), []byte("\xc1garbage")),
		"empty configuration":    config(raft.Configuration{}),
		"huge configuration":     config(long),
		"member twice":           config(twice),
		"no voters":              config(nobody),
		"staging":                config(staging),
		"nested configuration":   entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogConfiguration), bytes.Repeat([]byte{0x91}, maxConfig)),
		"endless map":            entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogConfiguration), []byte{0xdf, 0xff, 0xff, 0xff, 0xff}),
		"huge array of members":  entry(fields(3, 1, 0, 0, 0, 1), 1, byte(raft.LogConfiguration), []byte("\x81\xa7Servers\xdd\xff\xff\xff\xff")),
	}
}

func TestHostileAppends(t *testing.T) {
	for name, b := range hostileAppends() {
		if got, err := decodeRequest(kindAppendEntries, b, "a"); !errors.Is(err, errViolation) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if allocated := testing.AllocsPerRun(10, func() {
		decodeRequest(kindAppendEntries, hostileAppends()["announced entries"], "a")
	}); allocated > 1e6 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestHostileSnapshots(t *testing.T) {
	good := *requests()["snapshot"].(*raft.InstallSnapshotRequest)
	for name, change := range map[string]func(*raft.InstallSnapshotRequest){
		"no configuration": func(s *raft.InstallSnapshotRequest) { s.Configuration = nil },
		"garbage":          func(s *raft.InstallSnapshotRequest) { s.Configuration = []byte("garbage") },
		"at no index":      func(s *raft.InstallSnapshotRequest) { s.LastLogIndex, s.ConfigurationIndex = 0, 0 },
		"later config":     func(s *raft.InstallSnapshotRequest) { s.ConfigurationIndex = s.LastLogIndex + 1 },
		"later term":       func(s *raft.InstallSnapshotRequest) { s.LastLogTerm = s.Term + 1 },
		"no term":          func(s *raft.InstallSnapshotRequest) { s.Term, s.LastLogTerm = 0, 0 },
	} {
		s := good
		change(&s)
		b, err := appendRequest(nil, &s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRequest(kindInstallSnapshot, b, "a"); !errors.Is(err, errViolation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := good
	old.SnapshotVersion = 0
	if _, err := appendRequest(nil, &old); err == nil {
		t.Error("sent a snapshot of an old version")
	}
	b, _ := appendRequest(nil, &good)
	b[1] = 0
	if _, err := decodeRequest(kindInstallSnapshot, b, "a"); !errors.Is(err, errViolation) {
		t.Errorf("old version: %v", err)
	}
	b, _ = appendRequest(nil, &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 1, LastLogIndex: 1, LastLogTerm: 1, Configuration: good.Configuration})
	b = codec.AppendUvarint(b[:len(b)-1], math.MaxUint64)
	if _, err := decodeRequest(kindInstallSnapshot, b, "a"); !errors.Is(err, errViolation) {
		t.Errorf("negative size: %v", err)
	}
}

func TestAppendIsCutToSize(t *testing.T) {
	req := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 1, LeaderCommitIndex: 10}
	for i := range 10 {
		req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, 1000)})
	}
	for target, want := range map[int]int{0: 1, 100: 1, 3000: 2, 4000: 3, 1 << 20: 10} {
		b, count, err := appendAppendEntries(nil, req, target)
		if err != nil || count != want || count > 1 && len(b) > target {
			t.Errorf("target %d: %d entries in %d bytes, %v; want %d", target, count, len(b), err, want)
		}
		got, err := decodeRequest(kindAppendEntries, b, "a")
		if err != nil || len(got.(*raft.AppendEntriesRequest).Entries) != want || got.(*raft.AppendEntriesRequest).LeaderCommitIndex != uint64(want) {
			t.Errorf("target %d: %v, %v", target, got, err)
		}
	}
	req.Entries[4].Index = 6
	if _, _, err := appendAppendEntries(nil, req, 1<<20); err == nil {
		t.Error("sent entries with a gap")
	}
	big := &raft.AppendEntriesRequest{RPCHeader: header("a"), Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1, Data: make([]byte, maxRaftFrame)}}}
	if _, _, err := appendAppendEntries(nil, big, appendTarget); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge entry: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, req := range requests() {
		kind, b, _ := encodeRequest(req)
		f.Add(kind, b)
	}
	for _, b := range hostileAppends() {
		if len(b) < 4096 {
			f.Add(byte(kindAppendEntries), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		req, err := decodeRequest(kind, b, "a")
		if err != nil {
			if !errors.Is(err, errViolation) {
				t.Fatal(err)
			}
			return
		}
		if a, ok := req.(*raft.AppendEntriesRequest); ok {
			for i, e := range a.Entries {
				if e.Index != a.PrevLogEntry+1+uint64(i) || e.Term > a.Term || e.Type == raft.LogAddPeerDeprecated || e.Type == raft.LogRemovePeerDeprecated || e.Type > raft.LogConfiguration {
					t.Fatalf("%+v", e)
				}
				if e.Type == raft.LogConfiguration {
					raft.DecodeConfiguration(e.Data)
				}
			}
		}
		kind2, again, err := encodeRequest(req)
		if err != nil || kind2 != kind {
			t.Fatalf("kind %#x, then %#x, %v", kind, kind2, err)
		}
		got, err := decodeRequest(kind, again, "a")
		if err != nil || !reflect.DeepEqual(got, req) {
			t.Fatalf("%+v, then %+v, %v", req, got, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte{3, 1, 1, 1, 1})
	f.Add([]byte{3, 1, 1})
	f.Add([]byte{3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, into := range []any{
			&raft.AppendEntriesResponse{}, &raft.RequestVoteResponse{}, &raft.RequestPreVoteResponse{},
			&raft.InstallSnapshotResponse{}, &raft.TimeoutNowResponse{},
		} {
			if err := decodeResponse(b, "b", into); err != nil && !errors.Is(err, errViolation) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(appendIdentity(nil, Identity{Cluster: "c", ID: "a", Storage: "s", Incarnation: 1 << 60, Addr: "a:1"}))
	f.Add(appendIdentity(nil, Identity{ID: "a"}))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			if !errors.Is(err, errViolation) {
				t.Fatal(err)
			}
			return
		}
		if id.check() != nil || !bytes.Equal(appendIdentity(nil, id), b) {
			t.Fatalf("%x is %+v", b, id)
		}
	})
}

// FuzzInbound feeds a whole stream, from its first byte on.
func FuzzInbound(f *testing.F) {
	hello := func(class byte) []byte {
		b := sized([]byte{magic, version, class}, func(b []byte) []byte { return appendIdentity(b, Identity{ID: "a"}) })
		return append(b, 0)
	}
	frame := func(b []byte, kind byte, body []byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(b, uint32(len(body))), kind), body...)
	}
	f.Add(frame(frame(hello(classCalls), 1, []byte("x")), 2, nil))
	for _, req := range requests() {
		if s, ok := req.(*raft.InstallSnapshotRequest); ok {
			s.Size = 5
		}
		kind, b, _ := encodeRequest(req)
		f.Add(append(frame(frame(hello(classRaft), kind, b), kind, b), "contents"...))
	}
	n := New(Config{
		Local:     func() Identity { return Identity{ID: "b"} },
		Handle:    func(_ context.Context, _ Identity, _ byte, req []byte) []byte { return req },
		AdmitRaft: func(Identity, any) error { return nil },
	})
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case rpc := <-n.consumer:
				if rpc.Reader != nil {
					io.Copy(io.Discard, rpc.Reader)
				}
				rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			case <-stop:
				return
			}
		}
	}()
	f.Cleanup(func() { n.Close(); close(stop); <-done })
	f.Fuzz(func(t *testing.T, b []byte) {
		n.mu.Lock()
		n.inbound++
		n.opening++
		n.mu.Unlock()
		n.inboundStream(newStream(readOnly{bytes.NewReader(b)}))
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.inbound != 0 || n.opening != 0 || len(n.perPeer) != 0 || len(n.raftIn) != 0 || len(n.streams) != 0 {
			t.Fatal("left over")
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 'a', 'b', 0, 0, 0, 0, 2}, 10)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1}, 10)
	f.Add(append(binary.BigEndian.AppendUint32(nil, 3<<20), make([]byte, 2<<20)...), 4<<20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = min(max(limit, 0), maxRaftFrame)
		s := newStream(readOnly{bytes.NewReader(b)})
		for {
			_, body, err := s.readFrame(0, limit, nil)
			if err != nil {
				return
			}
			if len(body) > limit || len(body) > len(b) {
				t.Fatalf("%d bytes of %d", len(body), len(b))
			}
		}
	})
}
