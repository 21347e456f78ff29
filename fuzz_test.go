// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
	"github.com/seed-541fafe0/zk/internal/raftnet"
)

// Every decoder of this package is fuzzed here: what comes from a disk or from another member never panics, and never
// costs more memory than a multiple of its own length. What is decoded can be encoded again and means the same.

// sampleOps has every kind of step.
func sampleOps() []Op {
	return []Op{
		OpCreate("/a", []byte("x"), Ephemeral|Sequential).WithACL(ACL{PermAll, schemeDigest, "u:h"}, ACL{99, schemeIP, "10.0.0.0/8"}),
		OpCreate("/b/c", nil, Parents).withTTL(1), OpSet("/a", []byte{}, 7), OpDelete("/a", AnyVersion), OpCheck("/a", -5), OpCheckCreated("/a", 300),
		OpCheckAbsent("/b"), OpCheckChildren("/b", GreaterEq, 12), {kind: opSetACL, path: "/a", acl: ReadACL(), version: 1}, {kind: opDeleteTree, path: "/b"},
	}
}

// sampleRequests has every kind of request.
func sampleRequests() []request {
	ids := []Identity{{schemeDigest, "u:h"}, {schemeSuper, ""}}
	return []request{
		{kind: reqTxn, session: 1<<56 | 5, mark: 300, ops: sampleOps()}, {kind: reqTxn}, {kind: reqOpen, timeout: 10_000, password: "pw", name: "n", ids: ids, limit: 3},
		{kind: reqClose, session: 7, mark: 1}, {kind: reqExpire, session: 7, mark: 1, term: 9}, {kind: reqKill, session: 7},
		{kind: reqAttach, session: 7, timeout: 1, password: "pw", ids: ids}, {kind: reqAuth, session: 7, ids: ids},
		{kind: reqReap, term: 2, path: "/a", token: 5}, {kind: reqMember, member: memberRecord{"m", "s", "host:1", true, "host:2181"}}, {kind: reqClients, addr: "host:2181"},
		{kind: reqPart, restore: 7, data: "zk"}, {kind: reqRestore, restore: 7, number: 1}, {kind: reqAbandon, restore: 7},
		{kind: reqLocal, ids: ids, ops: sampleOps()}, {kind: reqOpen, session: localID | 7, timeout: 10_000, password: "pw", ids: ids, limit: 3},
	}
}

func sampleFrame() *frame {
	f := &frame{origin: "m1", incarnation: 3, number: 9, acked: 8}
	for _, q := range sampleRequests() {
		f.requests = append(f.requests, appendRequest(nil, &q))
	}
	return f
}

func sampleEpoch() *epoch {
	return &epoch{cluster: "c", members: []memberRecord{{"m1", "s1", "a1", false, "h:2181"}, {"m2", "", "", true, ""}}}
}

// sampleWorld has something of everything that the state can hold.
func sampleWorld() *world {
	w := newWorld()
	w.configure([]server{{"m1", true}, {"m2", false}, {"m3", true}})
	w.settle()
	a, b := w.open(Identity{schemeDigest, "u:h"}, Identity{schemeIP, "10.0.0.1"}), w.open()
	w.do(request{kind: reqMember, member: memberRecord{id: "m2", storage: "s2", addr: "a2"}})
	w.txn(a, OpCreate("/p", []byte("data"), Persistent), OpCreate("/p/e", nil, Ephemeral), OpCreate("/p/s-", []byte{}, Sequential|Ephemeral), OpCreate("/c/d", nil, Container|Parents))
	w.stamp.now += 5000
	w.txn(a, OpCreate("/t", nil, Persistent).withTTL(77).WithACL(ACL{PermAll, schemeAuth, ""}, ACL{PermRead, schemeWorld, "anyone"}), OpSet("/p", []byte("more"), 0), Op{kind: opSetACL, path: "/p", acl: ReadACL(), version: 0})
	w.txn(b, OpCreate("/zookeeper/quota/q/zookeeper_limits", []byte("countHardLimit=9"), Parents), OpCreate("/zookeeper/quota/q/zookeeper_stats", nil, Persistent), OpCreate("/q/"+strings.Repeat("é", 40), nil, Parents))
	w.do(request{kind: reqKill, session: b})
	f := frame{origin: "m3", incarnation: 2, number: 1}
	if w.begin(&f) {
		w.keep(&f, []outcome{w.txn(b, OpSet("/q", []byte("1"), AnyVersion)), {zxid: w.zxid, code: ErrSessionExpired}})
	}
	return w
}

func FuzzStamp(f *testing.F) {
	f.Add(appendStamp(nil, stamp{now: 1 << 41, quota: true, feature: 1, check: checkpoint{5, 77}}))
	f.Add(appendStamp(nil, stamp{now: -1, noTTL: true}))
	f.Add([]byte{formatVersion + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readStamp(b)
		if err == nil {
			if again, err := readStamp(appendStamp(nil, s)); err != nil || again != s {
				t.Fatalf("%+v, then %+v, %v", s, again, err)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	good := appendFrame(nil, sampleFrame())
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{commandFrame, formatVersion + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, err := readFrame(b); err == nil && !bytes.Equal(appendFrame(nil, &fr), b) {
			t.Fatalf("%x is %+v", b, fr)
		}
	})
}

func FuzzEpoch(f *testing.F) {
	f.Add(appendEpoch(nil, sampleEpoch()))
	f.Add([]byte{commandEpoch, formatVersion + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := readEpoch(b); err == nil && !bytes.Equal(appendEpoch(nil, &e), b) {
			t.Fatalf("%x is %+v", b, e)
		}
	})
}

func FuzzRequestBytes(f *testing.F) {
	for _, q := range sampleRequests() {
		f.Add(appendRequest(nil, &q))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, ok := readRequest(b); ok {
			if again, ok := readRequest(appendRequest(nil, &q)); !ok || !reflect.DeepEqual(again, q) {
				t.Fatalf("%+v, then %+v", q, again)
			}
		}
	})
}

func FuzzSessionIDs(f *testing.F) {
	f.Add(appendSessionIDs(nil, []SessionID{1 << 56, 1<<56 + 1, 1<<56 + 300}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := codec.NewReader(b)
		if ids := readSessionIDs(&r); r.Done() == nil && !bytes.Equal(appendSessionIDs(nil, ids), b) {
			t.Fatalf("%x is %v", b, ids)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(answer(nil, []byte("body")))
	f.Add(answer(errNotLeader, nil))
	f.Add(answer(&Error{Op: "x", Code: ErrNoAuth}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readAnswer(b)
		switch {
		case err == nil && (len(b) == 0 || b[0] != answerOK || r.Len() != len(b)-1):
			t.Fatalf("%x is taken for an answer", b)
		case err != nil:
			_ = err.Error()
			if again, err2 := readAnswer(answer(err, nil)); err2 == nil || codeOf(err2) != codeOf(err) && !errors.Is(err, errNotLeader) {
				t.Fatalf("%v becomes %v, %v", err, again, err2)
			}
		}
	})
}

// FuzzHandle asks a member what no member would ask.
func FuzzHandle(f *testing.F) {
	m, err := Open(context.Background(), Config{ID: "m1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	if err := m.Ready(context.Background()); err != nil {
		f.Fatal(err)
	}
	strange := &frame{origin: "x", incarnation: 1, number: 1, requests: [][]byte{{1, 2, 3}}}
	f.Add(byte(kindHello), []byte{})
	f.Add(byte(kindForward), appendFrame(nil, strange))
	f.Add(byte(kindForward), appendFrame(nil, sampleFrame()))
	f.Add(byte(kindHeartbeat), appendSessionIDs(nil, []SessionID{1, 2}))
	f.Add(byte(kindConfirm), []byte{})
	f.Add(byte(kindTerm), codec.AppendUint64(nil, 5))
	f.Add(byte(kindWitness), []byte{1, 1, 'x', 1, 1, 1})
	f.Add(byte(kindAdmin), codec.AppendString([]byte{adminRemove}, "m1"))
	f.Add(byte(kindAdmin), codec.AppendString([]byte{adminTransfer}, ""))
	f.Add(byte(kindAdmin), codec.AppendBool(appendMember([]byte{adminJoin}, memberRecord{id: "x", addr: "y"}), true))
	f.Add(byte(kindStatus), []byte{})
	f.Add(byte(99), []byte{1})
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
		defer cancel()
		b := m.handle(ctx, raftnet.Identity{Cluster: m.ClusterID(), ID: "x", Incarnation: 1}, kind, body)
		if r, err := readAnswer(b); err == nil && len(b) == 0 || err != nil && r.Err() != nil {
			t.Fatalf("%d %x is answered by %x", kind, body, b)
		}
		if err := m.Err(); err != nil {
			t.Fatalf("%d %x stopped the member: %v", kind, body, err)
		}
	})
}

// FuzzApply applies whatever can stand in a log to two state machines, one of which is written and restored in
// between. Neither panics, both come to the same, and what must hold between the parts of a state holds.
func FuzzApply(f *testing.F) {
	pack := func(list ...[]byte) (b []byte) {
		for _, e := range list {
			b = codec.AppendBytes(b, e)
		}
		return b
	}
	var raws [][]byte
	for _, q := range sampleRequests() {
		raws = append(raws, appendRequest(nil, &q))
	}
	f.Add(pack(raws...))
	raws = nil
	for _, e := range sampleWorld().log {
		raws = append(raws, e.raw)
	}
	f.Add(pack(raws...))
	raws = nil
	for _, o := range sampleOps() {
		raws = append(raws, appendRequest(nil, &request{kind: reqTxn, ops: []Op{OpCreate("/a", nil, Persistent), o, o}}))
	}
	f.Add(pack(append(raws, []byte{}, []byte{1, 0, 0, 0xff}, raws[0][:10])...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := newWorld(), newWorld()
		r := codec.NewReader(b)
		for n := 0; r.Len() > 0 && n < 100; n++ {
			raw := r.Bytes()
			if q, ok := readRequest(raw); ok { // its session is one that there is
				q.session, q.mark = a.some(q.session), a.markOf(a.some(q.session), q.mark)
				if n%5 == 0 && q.session == 0 {
					q = request{kind: reqOpen, timeout: 1, ids: []Identity{{schemeDigest, "u:h"}}, limit: 5}
				}
				raw = appendRequest(nil, &q)
			}
			for _, w := range []*world{a, c} {
				w.stamp.now += int64(n)
				w.stamp.quota = n%2 == 0
				w.advance(w.stamp)
			}
			x, y := a.apply(raw, "m1", a.stamp), c.apply(raw, "m1", c.stamp)
			if !reflect.DeepEqual(x, y) || len(a.changes) != len(c.changes) {
				t.Fatalf("%x: %+v and %+v", raw, x, y)
			}
			a.settle()
			c.settle()
			if n%7 == 3 {
				c.state = restored(t, c.state)
			}
			if len(a.nodes) > 2000 {
				break
			}
		}
		check(t, a.state)
		if a.digest() != c.digest() {
			t.Fatal("digests differ")
		}
		check(t, restored(t, c.state))
	})
}

// some picks a session that there is, by chance; 0 where there is none.
func (w *world) some(id SessionID) (found SessionID) {
	n := w.sessions.Len()
	if n == 0 {
		return 0
	}
	skip := int(uint64(id) % uint64(n))
	w.sessions.Ascend(func(s *session) bool {
		found = s.id
		skip--
		return skip >= 0
	})
	return found
}

// markOf is that session's mark, but for requests that want another one.
func (w *world) markOf(id SessionID, mark Zxid) Zxid {
	if s := w.session(id); s != nil && mark != 12345 {
		return s.mark
	}
	return mark
}

// FuzzEntry feeds whole log entries to a state machine. It never panics: an entry that cannot be applied is an error.
func FuzzEntry(f *testing.F) {
	st := appendStamp(nil, stamp{now: 5, feature: formatVersion})
	f.Add(st, appendFrame(nil, sampleFrame()))
	f.Add(st, appendFrame(nil, &frame{origin: "m1", incarnation: 1, number: 1, requests: sampleFrame().requests}))
	f.Add(st, appendEpoch(nil, sampleEpoch()))
	f.Add([]byte{}, []byte{commandEpoch})
	f.Add(st, []byte{})
	f.Fuzz(func(t *testing.T, stamp, data []byte) {
		m := &Member{}
		s := newFSM("m1", 1, newWatchTable(), newProposer(m), nil)
		s.events = fsmEvents{
			applied: func(uint64, uint64) {}, epoch: func(uint64) {}, configured: func([]server) {}, fail: func(error) {},
			expired: func(SessionInfo) {}, slow: func(time.Duration, Zxid) {}, overSoft: func(string) {}, restored: func(int64) {}, took: func(time.Duration) {},
		}
		s.st.configure([]server{{"m1", true}})
		for i := range uint64(2) {
			err := s.applyLog(&raft.Log{Index: i + 1, Term: 1, Type: raft.LogCommand, Data: data, Extensions: stamp})
			if err != nil && strings.Contains(err.Error(), "goroutine") {
				t.Fatal(err)
			}
		}
		check(t, s.st)
	})
}

// block writes one block of a snapshot with the right checksum.
func block(b []byte, kind byte, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
	return append(binary.BigEndian.AppendUint32(append(b, head...), sum), payload...)
}

// blocks takes a snapshot apart.
func blocks(t testing.TB, snapshot []byte) (kinds []byte, payloads [][]byte) {
	for b := snapshot[len(snapshotMagic)+1:]; len(b) > 0; {
		n := int(binary.BigEndian.Uint32(b[1:]))
		kinds, payloads = append(kinds, b[0]), append(payloads, b[9:9+n])
		b = b[9+n:]
	}
	if len(kinds) < 4 {
		t.Fatalf("blocks %q", kinds)
	}
	return kinds, payloads
}

// FuzzSnapshot reads what is not a snapshot, or no longer: as it is, and with checksums that are right. It is refused,
// or it is a state like any other.
func FuzzSnapshot(f *testing.F) {
	good := written(f, sampleWorld().state)
	kinds, payloads := blocks(f, good)
	f.Add(good[len(snapshotMagic)+1:], false)
	f.Add(good[len(snapshotMagic)+1:len(good)-3], false)
	pack := func(list [][]byte) (b []byte) {
		for i, p := range list {
			b = codec.AppendBytes(codec.AppendByte(b, kinds[i]), p)
		}
		return b
	}
	f.Add(pack(payloads), true)
	for i := range payloads {
		for _, at := range []int{0, len(payloads[i]) / 2, len(payloads[i]) - 1} {
			changed := append([][]byte{}, payloads...)
			changed[i] = bytes.Clone(payloads[i])
			changed[i][at] ^= 0x41
			f.Add(pack(changed), true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		text := append([]byte(snapshotMagic), formatVersion)
		if sealed {
			for r := codec.NewReader(b); r.Len() > 0; {
				kind, payload := r.Byte(), r.Bytes()
				text = block(text, kind, payload)
			}
		} else {
			text = append(text, b...)
		}
		s, err := readSnapshot(bytes.NewReader(text))
		if err != nil {
			if codeOf(err) != ErrDataInconsistency {
				t.Fatal(err)
			}
			return
		}
		if again := restored(t, s); again.digest() != s.digest() {
			t.Fatal("written and read again it is another state")
		}
	})
}

// A snapshot whose bytes are whole but whose tree is not the one that was written is refused: its digest says so (P19).
func TestSnapshotDigest(t *testing.T) {
	kinds, payloads := blocks(t, written(t, sampleWorld().state))
	build := func(change func(kind byte, payload []byte) []byte) error {
		text := append([]byte(snapshotMagic), formatVersion)
		for i, kind := range kinds {
			text = block(text, kind, change(kind, bytes.Clone(payloads[i])))
		}
		_, err := readSnapshot(bytes.NewReader(text))
		return err
	}
	if err := build(func(_ byte, p []byte) []byte { return p }); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(kind byte, p []byte) []byte{
		"other digest": func(kind byte, p []byte) []byte {
			if kind == 'e' {
				p[len(p)-1]++
			}
			return p
		},
		"other data": func(_ byte, p []byte) []byte { return bytes.Replace(p, []byte("more"), []byte("less"), 1) },
		"other name": func(_ byte, p []byte) []byte { return bytes.Replace(p, []byte("/p/e"), []byte("/p/f"), 1) },
		"other count": func(kind byte, p []byte) []byte {
			if kind == 'e' {
				p[0]++
			}
			return p
		},
		"a tail": func(kind byte, p []byte) []byte {
			if kind == 'e' {
				return append(p, 0)
			}
			return p
		},
	} {
		if err := build(change); codeOf(err) != ErrDataInconsistency || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPath compares the check of paths with one that reads the rule word by word (DM-2 to DM-6).
func FuzzPath(f *testing.F) {
	for _, p := range []string{"", "/", "//", "/a", "/a/", "/a/./b", "/a/..", "/...", "/\x00", "/\x7f", "/é", "/\ufffd", "/\xff", "/\U0001F600", "/\ue000", "a", strings.Repeat("/a", 513)} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		want := p == "/" || strings.HasPrefix(p, "/") && !strings.HasSuffix(p, "/") && len(p) <= 16<<10 && strings.Count(p, "/") <= 512
		for i, segment := range strings.Split(p, "/") {
			if i > 0 && (segment == "" && p != "/" || segment == "." || segment == "..") {
				want = false
			}
		}
		for _, r := range p {
			if r == utf8.RuneError || r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
				want = false
			}
		}
		if got := ValidPath(p) == nil; got != want {
			t.Fatalf("%q: %v, want %v", p, got, want)
		}
		if want && (!lightPath(p) || p != "/" && joinPath(parentPath(p), baseName(p)) != p || !within(parentPath(p), p)) {
			t.Fatalf("%q: parent %q, name %q", p, parentPath(p), baseName(p))
		}
		if n, ok := Sequence(p); ok && (n < 0 || !strings.HasSuffix(p, fmt.Sprint(n))) {
			t.Fatalf("%q has number %d", p, n)
		}
		if want && p != "/" {
			for _, n := range []int64{0, 7, 9_999_999_999, 10_000_000_000} {
				if got, ok := Sequence(sequenceName(p+"-", n)); !ok || got != n {
					t.Fatalf("%q with %d is read as %d, %v", p, n, got, ok)
				}
			}
		}
	})
}

// FuzzACL fixes lists that anybody may send and asks them for permission.
func FuzzACL(f *testing.F) {
	f.Add(uint32(31), "digest", "u:h", "digest", "u:h")
	f.Add(uint32(1), "ip", "10.0.0.0/8", "ip", "10.1.2.3")
	f.Add(uint32(1), "ip", "::ffff:1.2.3.4/1", "ip", "::1%eth0")
	f.Add(uint32(1), "auth", "", "sasl", "x")
	f.Add(uint32(99), "world", "anyone", "", "")
	f.Fuzz(func(t *testing.T, perm uint32, scheme, id, have, who string) {
		ids := []Identity{{have, who}}
		fixed, code := fixACL([]ACL{{Perm(perm), scheme, id}, {Perm(perm), scheme, id}}, ids)
		if (code == 0) == (len(fixed) != 1) || code != 0 && code != ErrInvalidACL {
			t.Fatalf("%v, %v", fixed, code)
		}
		if code != 0 {
			return
		}
		if again, code := fixACL(fixed, nil); code != 0 || !reflect.DeepEqual(again, fixed) { // what is stored can be stored
			t.Fatalf("%v, then %v, %v", fixed, again, code)
		}
		l := &aclList{entries: fixed}
		if allowed(l, PermRead, ids) && perm&1 == 0 && have != schemeSuper {
			t.Fatalf("%v lets %v read", fixed, ids)
		}
		maskDigests(fixed)
	})
}

// FuzzQuotaText reads limits as anybody may write them (DM-71).
func FuzzQuotaText(f *testing.F) {
	f.Add("count=1,bytes=2=;byteHardLimit=3;countHardLimit=4")
	f.Add("countHardLimit=;;=,=countHardLimit==5==")
	f.Fuzz(func(t *testing.T, s string) {
		for _, key := range []string{"count", "bytes", "countHardLimit", "byteHardLimit", ""} {
			quotaFields(s).get(key)
		}
		if n := quotaFields("countHardLimit=12;" + s).get("countHardLimit"); n != 12 {
			t.Fatalf("%d", n)
		}
	})
}

// Numbers that announce more than there is cost nothing: memory is taken as bytes arrive (P21).
func TestHostileCounts(t *testing.T) {
	huge := codec.AppendUvarint(nil, 1<<60)
	many := codec.AppendUvarint(nil, 1<<20)
	with := func(head []byte, count []byte, tail int) []byte {
		return append(append(bytes.Clone(head), count...), make([]byte, tail)...)
	}
	frameHead := codec.AppendString([]byte{commandFrame, formatVersion}, "m1")
	frameHead = append(frameHead, 1, 1, 0)
	header := append([]byte(snapshotMagic), formatVersion)
	snapshot := func(servers, members, origins, sessions, nodes []byte) []byte {
		p := append([]byte{0, 0, 0, 0, 0, 0}, servers...)
		for _, c := range [][]byte{members, origins, sessions, nodes} {
			p = append(p, c...)
		}
		return block(bytes.Clone(header), 's', p)
	}
	none := []byte{0}
	for name, c := range map[string]struct {
		in   []byte
		read func(b []byte) bool // whether it was taken
	}{
		"requests of a frame":   {with(frameHead, huge, 100), func(b []byte) bool { _, err := readFrame(b); return err == nil }},
		"too many requests":     {with(frameHead, codec.AppendUvarint(nil, maxFrameRequests+1), maxFrameRequests+1), func(b []byte) bool { _, err := readFrame(b); return err == nil }},
		"bytes of a request":    {with(append(bytes.Clone(frameHead), 1), huge, 100), func(b []byte) bool { _, err := readFrame(b); return err == nil }},
		"members of an epoch":   {with([]byte{commandEpoch, formatVersion, 0}, huge, 100), func(b []byte) bool { _, err := readEpoch(b); return err == nil }},
		"steps":                 {with([]byte{byte(reqTxn), 0, 0}, huge, 100), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"entries of a list":     {with([]byte{byte(reqTxn), 0, 0, 1, byte(opSetACL), 0, 0}, huge, 100), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"identities":            {with([]byte{byte(reqAuth), 0, 0}, huge, 100), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"identities of none":    {with([]byte{byte(reqLocal), 0, 0}, huge, 100), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"steps of none":         {with([]byte{byte(reqLocal), 0, 0, 0}, huge, 100), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"sessions":              {with(nil, huge, 100), func(b []byte) bool { r := codec.NewReader(b); readSessionIDs(&r); return r.Done() == nil }},
		"a block":               {append(bytes.Clone(header), 's', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0), takes},
		"a large block":         {append(bytes.Clone(header), 's', 0, 0xff, 0xff, 0xff, 0, 0, 0, 0), takes},
		"servers":               {snapshot(huge, none, none, none, none), takes},
		"members of a snapshot": {snapshot(none, huge, none, none, none), takes},
		"origins":               {snapshot(none, none, huge, none, none), takes},
		"sessions of snapshot":  {snapshot(none, none, none, huge, none), takes},
		"znodes, a million":     {snapshot(none, none, none, none, many), takes},
		"kept frames":           {block(snapshot(none, none, []byte{1}, none, none), 's', with([]byte{0, 0, 0}, huge, 100)), takes},
		"kept outcomes":         {block(snapshot(none, none, []byte{1}, none, none), 's', with([]byte{0, 0, 0, 1, 1}, huge, 100)), takes},
		"kept steps":            {block(snapshot(none, none, []byte{1}, none, none), 's', with([]byte{0, 0, 0, 1, 1, 1, 0, 0, 0}, huge, 100)), takes},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		taken := c.read(c.in)
		runtime.ReadMemStats(&after)
		if taken {
			t.Errorf("%s: it was taken", name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes of input cost %d bytes of memory", name, len(c.in), n)
		}
	}
}

func takes(b []byte) bool {
	_, err := readSnapshot(bytes.NewReader(b))
	return err == nil
}

// Whatever a log entry of the largest size says, decoding it costs a bounded multiple of its size (P21).
func TestDecodingIsBounded(t *testing.T) {
	fill := func(head, unit []byte) []byte {
		n := (maxEntryBytes - len(head) - 8) / len(unit)
		return append(codec.AppendUvarint(bytes.Clone(head), uint64(n)), bytes.Repeat(unit, n)...)
	}
	for name, c := range map[string]struct {
		in   []byte
		read func(b []byte) bool
	}{
		"steps":      {fill([]byte{byte(reqTxn), 0, 0}, []byte{byte(opCheckAbsent), 0}), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"entries":    {fill([]byte{byte(reqTxn), 0, 0, 1, byte(opSetACL), 0, 0}, []byte{0, 0, 0}), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"identities": {fill([]byte{byte(reqAuth), 0, 0}, []byte{0, 0}), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"local":      {fill([]byte{byte(reqLocal), 0, 0, 0}, []byte{byte(opCheckAbsent), 0}), func(b []byte) bool { _, ok := readRequest(b); return ok }},
		"members":    {fill([]byte{commandEpoch, formatVersion, 0}, []byte{0, 0, 0, 0, 0}), func(b []byte) bool { _, err := readEpoch(b); return err == nil }},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		taken := c.read(c.in)
		runtime.ReadMemStats(&after)
		if !taken {
			t.Errorf("%s: it was refused", name)
		}
		if factor := (after.TotalAlloc - before.TotalAlloc) / uint64(len(c.in)); factor > 80 {
			t.Errorf("%s: one byte costs %d bytes of memory", name, factor)
		}
	}
}
