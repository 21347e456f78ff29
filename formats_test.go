// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
)

// What a version has written is read for ever, and comes to the same. The samples of a released version never change;
// a new version gets files of its own beside them, written by
//
//	go test -run Formats -update .
const formatsDir = "testdata/formats/"

func sample(kind, ext string, version int) string {
	return fmt.Sprintf("%s%s-v%d.%s", formatsDir, kind, version, ext)
}

// sampled compares what this version writes with its sample.
func sampled(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s holds\n%.2000q\nand this version writes\n%.2000q", name, want, got)
	}
}

// versions calls fn for the samples of each version that there has been, the present one included.
func versionsOf(t *testing.T, kind, ext string, fn func(name string, b []byte)) {
	t.Helper()
	files, err := filepath.Glob(formatsDir + kind + "-v*." + ext)
	if err != nil || len(files) != formatVersion {
		t.Fatalf("samples of %s: %q, %v", kind, files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fn(name, b)
	}
}

// Commands, and what members ask each other.
func TestFormatsOfCommands(t *testing.T) {
	var b strings.Builder
	line := func(name string, bytes []byte) { fmt.Fprintf(&b, "%s %x\n", name, bytes) }
	line("stamp", appendStamp(nil, stamp{now: 1_700_000_000_000, quota: true, noTTL: true, feature: 1, check: checkpoint{300, 1 << 63}}))
	line("epoch", appendEpoch(nil, sampleEpoch()))
	line("frame", appendFrame(nil, sampleFrame()))
	for _, q := range sampleRequests() {
		line(fmt.Sprint("request-", q.kind), appendRequest(nil, &q))
	}
	for _, o := range sampleOps() {
		line("step-"+strings.ReplaceAll(o.name(), " ", "-"), appendOp(nil, &o))
	}
	out := outcome{zxid: 300, code: ErrNotEmpty, id: 1 << 56, steps: []result{{code: ErrGuard, path: "/a"}, {path: "/b", stat: stat{1, 2, 3, 4, 5, 6, 7, -1, 9, 10, 11}}}}
	line("outcome", appendOutcome(nil, &out))
	line("sessions", appendSessionIDs(nil, []SessionID{1 << 56, 1<<56 + 300}))
	line("answer", answer(nil, []byte("x")))
	line("answer-not-leader", answer(errNotLeader, nil))
	line("answer-error", answer(&Error{Op: "x", Code: ErrNotMember}, nil))
	sampled(t, sample("commands", "txt", formatVersion), []byte(b.String()))

	r := codec.NewReader(appendOutcome(nil, &out))
	if got := readOutcome(&r); r.Done() != nil || fmt.Sprint(got) != fmt.Sprint(out) {
		t.Errorf("%+v, want %+v", got, out)
	}
	versionsOf(t, "commands", "txt", func(name string, b []byte) {
		for text := range strings.Lines(string(b)) {
			what, code, _ := strings.Cut(strings.TrimSpace(text), " ")
			raw, err := hex.DecodeString(code)
			if err != nil {
				t.Fatal(err)
			}
			ok := true
			r := codec.NewReader(raw)
			switch {
			case what == "stamp":
				_, err = readStamp(raw)
			case what == "epoch":
				_, err = readEpoch(raw)
			case what == "frame":
				_, err = readFrame(raw)
			case strings.HasPrefix(what, "request-"):
				_, ok = readRequest(raw)
			case strings.HasPrefix(what, "step-"):
				_, ok = readOp(&r)
			case what == "outcome":
				readOutcome(&r)
				err = r.Done()
			case what == "sessions":
				readSessionIDs(&r)
				err = r.Done()
			}
			if !ok || err != nil {
				t.Errorf("%s: %s cannot be read: %v", name, what, err)
			}
		}
	})
}

// sampleLog is what a small ensemble has in its log: every kind of entry, among them frames that are repeated, that leave
// a gap, and of a member that is not in the configuration.
func sampleLog() (entries []raft.Log) {
	add := func(typ raft.LogType, data []byte, change func(*stamp)) {
		s := stamp{now: 1_700_000_000_000 + int64(len(entries))*1000, feature: 1}
		if change != nil {
			change(&s)
		}
		l := raft.Log{Index: uint64(len(entries) + 1), Term: 1 + uint64(len(entries)/12), Type: typ, Data: data}
		if typ == raft.LogCommand {
			l.Extensions = appendStamp(nil, s)
		}
		entries = append(entries, l)
	}
	add(raft.LogConfiguration, raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{ID: "m1", Address: "m1", Suffrage: raft.Voter}, {ID: "m2", Address: "m2", Suffrage: raft.Nonvoter},
	}}), nil)
	add(raft.LogCommand, appendEpoch(nil, sampleEpoch()), nil)
	numbers := map[string]uint64{}
	frame := func(origin string, skip uint64, change func(*stamp), requests ...request) {
		numbers[origin] += skip
		f := &frame{origin: origin, incarnation: 2, number: numbers[origin]}
		if numbers[origin] > 1 {
			f.acked = numbers[origin] - 2
		}
		for _, q := range requests {
			f.requests = append(f.requests, appendRequest(nil, &q))
		}
		add(raft.LogCommand, appendFrame(nil, f), change)
	}
	id := SessionID(1<<56 | (1_700_000_000_000+2000)&(1<<40-1)<<16)
	txn := func(ops ...Op) request { return request{kind: reqTxn, session: id, mark: 1, ops: ops} }
	frame("m1", 1, nil, request{kind: reqOpen, timeout: 10_000, password: "pw", name: "n", limit: 50, ids: []Identity{{schemeDigest, "u:h"}}})
	frame("m1", 1, nil, txn(sampleOps()...), txn(), txn(OpCreate("/p", []byte("x"), Persistent), OpCreate("/p/e-", nil, Ephemeral|Sequential)))
	frame("m1", 0, nil, txn(OpDelete("/p", AnyVersion))) // again
	frame("m1", 2, nil, txn(OpDelete("/p", AnyVersion))) // a gap
	numbers["m1"] -= 2
	for i, o := range sampleOps() {
		frame("m1", 1, func(s *stamp) { s.quota, s.noTTL = i%2 == 0, i%3 == 0 }, txn(o), txn(OpCreate("/p/n-", nil, Sequential), OpSet("/p", fmt.Append(nil, i), AnyVersion)))
	}
	frame("m2", 1, nil, request{kind: reqMember, member: memberRecord{id: "m2", storage: "s2", addr: "host:2"}}, request{kind: reqOpen, timeout: 1000})
	local := localID | 7
	frame("m2", 1, nil, request{kind: reqLocal, ids: []Identity{{schemeDigest, "u:h"}}, ops: []Op{OpSet("/p", nil, AnyVersion), OpCreate("/p/l-", nil, Sequential)}},
		request{kind: reqLocal, ops: []Op{OpCreate("/p/e", nil, Ephemeral)}}, request{kind: reqOpen, session: local, timeout: 1000},
		request{kind: reqTxn, session: local, ops: []Op{OpCreate("/p/e", nil, Ephemeral)}})
	frame("m3", 1, nil, txn(OpDelete("/p", AnyVersion))) // a stranger
	frame("m1", 1, nil, txn(OpCreate("/c/d", nil, Parents|Container), OpCreate("/t", nil, Persistent).withTTL(500)), request{kind: reqKill, session: id}, request{})
	frame("m1", 1, nil, txn(OpCreate("/zookeeper/quota/p/zookeeper_limits", []byte("countHardLimit=3"), Parents), OpCreate("/zookeeper/quota/p/zookeeper_stats", nil, Persistent)))
	frame("m1", 1, func(s *stamp) { s.quota = true }, txn(OpCreate("/p/over", nil, Persistent)), request{kind: reqExpire, session: id, mark: 1, term: 99})
	add(raft.LogCommand, appendEpoch(nil, &epoch{}), nil)
	return entries
}

// A log comes to the same state on every version, and on the way through a snapshot too (P18, DM-125).
func TestFormatsOfLog(t *testing.T) {
	fresh := func() *fsm {
		s := newFSM("m9", 1, newWatchTable(), newProposer(&Member{}), nil)
		s.events = fsmEvents{
			applied: func(uint64, uint64) {}, epoch: func(uint64) {}, configured: func([]server) {}, fail: func(err error) { t.Error(err) },
			expired: func(SessionInfo) {}, slow: func(time.Duration, Zxid) {}, overSoft: func(string) {}, restored: func(int64) {}, took: func(time.Duration) {},
		}
		return s
	}
	text := func(entries []raft.Log, s *fsm) []byte {
		var b bytes.Buffer
		for _, e := range entries {
			fmt.Fprintf(&b, "%d %d %d x%x x%x\n", e.Index, e.Term, e.Type, e.Extensions, e.Data)
		}
		fmt.Fprintf(&b, "digest %016x zxid %d\n", s.st.digest(), s.st.zxid)
		return b.Bytes()
	}
	s, entries := fresh(), sampleLog()
	for i := range entries {
		s.ApplyBatch([]*raft.Log{&entries[i]})
	}
	check(t, s.st)
	if s.st.nodes["/p"] == nil || s.st.nodes["/c/d"] == nil || s.st.nodes["/p/e"] == nil || len(s.st.sessionsByID()) != 3 {
		t.Fatalf("the sample does not do what it should: %q, %d sessions", listing(s.st), len(s.st.sessionsByID()))
	}
	sampled(t, sample("log", "txt", formatVersion), text(entries, s))

	versionsOf(t, "log", "txt", func(name string, b []byte) {
		var entries []raft.Log
		end := ""
		for text := range strings.Lines(string(b)) {
			f := strings.Fields(text)
			if f[0] == "digest" {
				end = strings.TrimSpace(text)
				continue
			}
			number := func(i int) uint64 {
				n, err := strconv.ParseUint(f[i], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			bytes := func(i int) []byte {
				b, err := hex.DecodeString(f[i][1:])
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			entries = append(entries, raft.Log{Index: number(0), Term: number(1), Type: raft.LogType(number(2)), Extensions: bytes(3), Data: bytes(4)})
		}
		for from := range len(entries) { // a snapshot after each entry
			s := fresh()
			for i := range entries {
				s.ApplyBatch([]*raft.Log{&entries[i]})
				if i == from {
					s.st = restored(t, s.st)
				}
			}
			if got := fmt.Sprintf("digest %016x zxid %d", s.st.digest(), s.st.zxid); got != end {
				t.Fatalf("%s with a snapshot after entry %d: %s, want %s", name, from+1, got, end)
			}
		}
	})
}

func (s *state) sessionsByID() (list []*session) {
	s.sessions.Ascend(func(sess *session) bool {
		list = append(list, sess)
		return true
	})
	return list
}

// A snapshot of any version is read, and is the state that it was.
func TestFormatsOfSnapshot(t *testing.T) {
	s := sampleWorld().state
	sampled(t, sample("snapshot", "bin", formatVersion), written(t, s))
	describe := func(s *state) []byte {
		var b bytes.Buffer
		for _, line := range listing(s) {
			fmt.Fprintln(&b, line)
		}
		for _, sess := range s.sessionsByID() {
			fmt.Fprintf(&b, "session %+v\n", *sess)
		}
		fmt.Fprintf(&b, "origins %+v\nmembers %+v\nservers %+v\n", s.origins, s.members, s.servers)
		fmt.Fprintf(&b, "cluster %q zxid %d now %d term %d last %v feature %d digest %016x\n", s.cluster, s.zxid, s.now, s.term, s.lastID, s.feature, s.digest())
		return b.Bytes()
	}
	sampled(t, sample("snapshot", "txt", formatVersion), describe(s))
	versionsOf(t, "snapshot", "bin", func(name string, b []byte) {
		got, err := readSnapshot(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(t, got)
		want, err := os.ReadFile(strings.TrimSuffix(name, "bin") + "txt")
		if err != nil {
			t.Fatal(err)
		}
		if text := describe(got); !bytes.Equal(text, want) {
			t.Errorf("%s is\n%s\nand was\n%s", name, text, want)
		}
		// A byte that is not what it was, anywhere, and an end that is too early, are noticed (P19).
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if _, err := readSnapshot(bytes.NewReader(bad)); err == nil {
				t.Fatalf("%s with another byte %d was read", name, i)
			}
			if _, err := readSnapshot(bytes.NewReader(b[:i])); err == nil {
				t.Fatalf("%s was read up to byte %d", name, i)
			}
		}
	})
	if _, err := readSnapshot(strings.NewReader(snapshotMagic + string(rune(formatVersion+1)))); codeOf(err) != ErrUnimplemented {
		t.Errorf("a snapshot of a newer version: %v", err)
	}
}
