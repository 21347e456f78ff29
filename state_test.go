// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tester is what a testing.TB and a rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is a state with what surrounds it on a member: a stamp, a watch table and names for sessions.
type world struct {
	*state
	stamp   stamp
	watches *watchTable
	lives   map[SessionID]*live
	log     []logEntry // everything applied, for replay
}

type logEntry struct {
	raw   []byte
	stamp stamp
}

func newWorld() *world {
	w := &world{state: newState(), watches: newWatchTable(), lives: map[SessionID]*live{}}
	w.stamp = stamp{now: 1000, feature: formatVersion, term: 1}
	w.openEpoch(epoch{cluster: "c", members: []memberRecord{{id: "m1", storage: "s1", addr: "a1"}}}, w.stamp)
	w.configure([]server{{"m1", true}})
	w.settle()
	return w
}

// settle carries out the effects of what was applied, as the state machine does.
func (w *world) settle() {
	for _, c := range w.changes {
		w.watches.fire(c, w.zxid)
	}
	w.changes = nil
	for _, id := range w.ended {
		if l := w.lives[id]; l != nil && w.session(id) == nil {
			delete(w.lives, id)
			w.watches.endSession(l, StateExpired)
		}
	}
	w.ended = nil
}

// do applies one request and returns what changed beside its outcome.
func (w *world) do(q request) (outcome, []change) {
	raw := appendRequest(nil, &q)
	w.log = append(w.log, logEntry{raw, w.stamp})
	w.advance(w.stamp)
	out := w.apply(raw, "m1", w.stamp)
	changes := w.changes
	w.settle()
	return out, changes
}

func (w *world) open(ids ...Identity) SessionID {
	out, _ := w.do(request{kind: reqOpen, timeout: 10_000, password: "pw", ids: ids})
	l := &live{id: out.id}
	l.ids.Store(&ids)
	w.lives[out.id] = l
	return out.id
}

func (w *world) txn(id SessionID, ops ...Op) outcome {
	q := request{kind: reqTxn, session: id, ops: ops}
	if sess := w.session(id); sess != nil {
		q.mark = sess.mark
	}
	out, _ := w.do(q)
	return out
}

// code is the outcome's code for a transaction of one step, and for requests of other kinds.
func (w *world) code(id SessionID, op Op) Code { return w.txn(id, op).code }

func (w *world) must(t tester, id SessionID, ops ...Op) outcome {
	t.Helper()
	out := w.txn(id, ops...)
	if out.code != 0 {
		t.Fatalf("%v: %v", ops, out.code)
	}
	return out
}

func (w *world) statOf(t tester, path string) stat {
	t.Helper()
	n := w.nodes[path]
	if n == nil {
		t.Fatalf("%s is missing", path)
	}
	return n.stat()
}

// restored is the state after a snapshot and its restoration.
func restored(t tester, s *state) *state {
	t.Helper()
	got, err := readSnapshot(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func written(t tester, s *state) []byte {
	t.Helper()
	var b bytes.Buffer
	f := s.freeze()
	if _, err := f.write(&b, func(fn func()) { fn() }); err != nil {
		t.Fatal(err)
	}
	for s.closeView(f.view, 7) {
	}
	return b.Bytes()
}

// listing prints everything about all znodes, in the order of their paths.
func listing(s *state) []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(s.nodes)) {
		out = append(out, printNode(p, &s.nodes[p].content))
	}
	return out
}

func printNode(path string, c *content) string {
	return fmt.Sprintf("%s %s creates=%d data=%s kind=%d ttl=%d acl=%v", path, printStat(c.stat()), c.creates, printData(c.data, c.null), c.kind, c.ttl, aclEntries(c.acl))
}

func printData(data string, null bool) string {
	if null {
		return "null"
	}
	return strconv.Quote(data)
}

func printStat(s stat) string {
	return fmt.Sprintf("czxid=%d mzxid=%d pzxid=%d ctime=%d mtime=%d version=%d cversion=%d aversion=%d owner=%v length=%d children=%d",
		s.czxid, s.mzxid, s.pzxid, s.ctime, s.mtime, s.version, s.cversion, s.aversion, s.owner, s.dataLength, s.numChildren)
}

func sameListing(t tester, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := 0; i < max(len(got), len(want)); i++ {
		g, w := "(none)", "(none)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("znodes differ:\n got %s\nwant %s", g, w)
		}
	}
}

// DM-37: every request takes one zxid, whatever comes of it.
func TestZxid(t *testing.T) {
	w := newWorld()
	id := w.open()
	before := w.zxid
	for i, q := range []request{
		{kind: reqTxn, session: id, mark: before, ops: []Op{OpCreate("/a", nil, Persistent)}},
		{kind: reqTxn, session: id, mark: before, ops: []Op{OpCreate("/a", nil, Persistent)}}, // exists
		{kind: reqTxn, session: id, mark: before},                                             // DM-60
		{kind: reqTxn, session: 99, ops: []Op{OpCreate("/b", nil, Persistent)}},               // no session
		{kind: 77},               // undecodable
		{kind: reqReap, term: 5}, // another term
		{kind: reqClose, session: id, mark: before},
		{kind: reqClose, session: id, mark: before},
	} {
		out, _ := w.do(q)
		if want := before + Zxid(i) + 1; out.zxid != want || w.zxid != want {
			t.Errorf("request %d: zxid %v, state %v, want %v", i, out.zxid, w.zxid, want)
		}
	}
}

// DM-122: a refused request leaves everything but the zxid as it was.
func TestRefusedChangesNothing(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/a", []byte("x"), Persistent))
	w.must(t, id, OpCreate("/a/b", nil, Persistent))
	w.must(t, id, OpCreate("/e", nil, Ephemeral))
	before, sum := listing(w.state), w.sum
	for _, ops := range [][]Op{
		{OpCreate("/a", nil, Persistent)},
		{OpCreate("/e/x", nil, Sequential)},
		{OpDelete("/a", AnyVersion)},
		{OpSet("/a", nil, 7)},
		{OpCreate("/a/s-", nil, Sequential), OpDelete("/a/b", AnyVersion), OpSet("/a", nil, 0), OpCheckAbsent("/")},
		{OpCreate("/n/m/o", nil, Parents), OpCreate("/a/s-", nil, Sequential), {kind: opSetACL, path: "/a", acl: ReadACL(), version: AnyVersion}, OpCheck("/", 3)},
		{OpCreate("/c", nil, Persistent), {kind: opDeleteTree, path: "/a"}},
	} {
		out, changes := w.do(request{kind: reqTxn, session: id, mark: w.session(id).mark, ops: ops})
		if out.code == 0 || len(changes) != 0 {
			t.Fatalf("%v: code %d, changes %v", ops, out.code, changes)
		}
		sameListing(t, listing(w.state), before)
		if w.sum != sum {
			t.Fatalf("%v changed the digest", ops)
		}
		check(t, w.state)
	}
	for _, q := range []request{
		{kind: reqMember, member: memberRecord{id: "m1", storage: "other"}},
		{kind: reqExpire, session: id, mark: w.session(id).mark, term: 9},
		{kind: reqAttach, session: id, timeout: 1, password: "wrong"},
		{kind: reqTxn, session: id, mark: 12345, ops: []Op{OpDelete("/e", AnyVersion)}},
		{kind: reqReap, term: 1, path: "/a", token: 1},
	} {
		if out, changes := w.do(q); out.code == 0 || len(changes) != 0 {
			t.Fatalf("%+v: code %d, changes %v", q, out.code, changes)
		}
		sameListing(t, listing(w.state), before)
	}
}

// A member with another storage is refused and the configuration stays as it is shown (DM-122, DM-15).
func TestMemberRecords(t *testing.T) {
	w := newWorld()
	w.configure([]server{{"m2", false}, {"m1", true}})
	w.settle()
	id := w.open()
	show := func() string { return w.nodes[configPath].data }
	want := "server.m1=a1:participant\nserver.m2=:observer\nversion=0"
	if show() != want {
		t.Fatalf("config shows %q, want %q", show(), want)
	}
	out, changes := w.do(request{kind: reqMember, member: memberRecord{id: "m2", storage: "s2", addr: "a2"}})
	if out.code != 0 || len(changes) != 1 || changes[0].path != configPath || changes[0].kind != EventChanged {
		t.Fatalf("code %d, changes %v", out.code, changes)
	}
	want = fmt.Sprintf("server.m1=a1:participant\nserver.m2=a2:observer\nversion=%x", int64(out.zxid))
	st := w.statOf(t, configPath)
	if show() != want || st.version != -1 || st.aversion != -1 || st.mzxid != out.zxid || st.mtime != w.now {
		t.Fatalf("config shows %q, want %q; %s", show(), want, printStat(st))
	}
	out, changes = w.do(request{kind: reqMember, member: memberRecord{id: "m2", storage: "s3", addr: "a3"}})
	if out.code != ErrWiped || len(changes) != 0 || show() != want {
		t.Fatalf("code %d, changes %v, config %q", out.code, changes, show())
	}
	if code := w.code(id, OpSet(configPath, nil, AnyVersion)); code != ErrNoAuth { // DM-13
		t.Errorf("writing the config znode: %v", code)
	}

	// Who left is refused, and what is shown follows; one member that is left is shown too.
	w.configure([]server{{"m1", true}})
	w.settle()
	if !w.member("m2").removed || strings.Contains(show(), "m2") {
		t.Errorf("m2 left, but: %+v, %q", w.member("m2"), show())
	}
	check(t, w.state)
}

// CG-10, SS-18: an older attachment's requests are refused, a newer one's are taken.
func TestAttach(t *testing.T) {
	w := newWorld()
	id := w.open()
	old := w.session(id).mark
	out, _ := w.do(request{kind: reqAttach, session: id, timeout: 5000, password: "pw", ids: []Identity{{"ip", "10.0.0.1"}}})
	if out.code != 0 || out.id != id || w.session(id).mark != out.zxid || w.session(id).timeout != 5000 {
		t.Fatalf("%+v, %+v", out, w.session(id))
	}
	out, _ = w.do(request{kind: reqTxn, session: id, mark: old, ops: []Op{OpCreate("/a", nil, Persistent)}})
	if out.code != ErrSessionMoved || w.nodes["/a"] != nil {
		t.Fatalf("%+v", out)
	}
	out, _ = w.do(request{kind: reqClose, session: id, mark: old})
	if out.code != ErrSessionMoved || w.session(id) == nil {
		t.Fatalf("%+v", out)
	}
	w.must(t, id, OpCreate("/a", nil, Persistent))
	// SS-14: a wrong password does not end the session.
	if out, _ = w.do(request{kind: reqAttach, session: id, timeout: 1, password: "no"}); out.code != ErrAuthFailed || w.session(id).timeout != 5000 {
		t.Fatalf("%+v, %+v", out, w.session(id))
	}
	if out, _ = w.do(request{kind: reqAttach, session: 1, timeout: 1, password: "pw"}); out.code != ErrSessionExpired {
		t.Fatalf("%+v", out)
	}
}

// SS-24, SS-18: the first mark of an upgraded session is known to all, and of use to its member alone. Its id has to be
// one that only local sessions have, and that nobody has yet.
func TestUpgradedSession(t *testing.T) {
	w := newWorld()
	other := w.open()
	id := localID | 7
	for _, bad := range []SessionID{1, other, 3 << 56} {
		if out, _ := w.do(request{kind: reqOpen, session: bad, timeout: 1000}); out.code != ErrBadArguments {
			t.Errorf("%v was opened: %v", bad, out.code)
		}
	}
	if out, _ := w.do(request{kind: reqLocal, ids: make([]Identity, maxIdentities+1), ops: []Op{OpCheck("/", AnyVersion)}}); out.code != ErrTooLarge {
		t.Errorf("too many identities: %v", out.code)
	}
	out, _ := w.do(request{kind: reqOpen, session: id, timeout: 1000, password: "pw"})
	if out.code != 0 || out.id != id || w.session(id).mark != 0 || w.session(id).member != "m1" {
		t.Fatalf("%+v, %+v", out, w.session(id))
	}
	if out, _ := w.do(request{kind: reqOpen, session: id, timeout: 1000}); out.code != ErrBadArguments || w.session(id).password != "pw" {
		t.Errorf("opened twice: %v", out.code)
	}
	for _, q := range []request{{kind: reqTxn, ops: []Op{OpCheck("/", AnyVersion)}}, {kind: reqAuth}, {kind: reqClose}} {
		q.session = id
		if out := w.apply(appendRequest(nil, &q), "m2", w.stamp); out.code != ErrSessionMoved || w.session(id) == nil {
			t.Errorf("another member's request %d: %v", q.kind, out.code)
		}
	}
	w.must(t, id, OpCreate("/e", nil, Ephemeral))
	q := request{kind: reqExpire, session: id, term: 1}
	if out := w.apply(appendRequest(nil, &q), "m2", w.stamp); out.code != 0 || w.nodes["/e"] != nil { // whoever leads
		t.Errorf("expired by the leader: %v", out.code)
	}
	if last, _ := w.do(request{kind: reqOpen, timeout: 1000}); last.id <= other || last.id>>56 != 1 {
		t.Errorf("the next session is %v, after %v", last.id, other)
	}
}

// A session whose upgrade is refused is over, and what was asked for after it is not done (SS-24).
func TestUpgradeIsRefused(t *testing.T) {
	ctx, m, _ := alone(t, Config{})
	s, err := m.LocalSession(SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	q := request{kind: reqOpen, session: s.id, timeout: 60_000} // a session that has the same id by chance
	if out, err := m.writes.submit(ctx, "open", "", appendRequest(nil, &q)); err != nil || out.code != 0 {
		t.Fatal(out.code, err)
	}
	m.fsm.locked(func() {
		changed := *m.fsm.st.session(s.id)
		changed.member = "m2"
		m.fsm.st.sessions.ReplaceOrInsert(&changed)
	})
	l := s.Listener()
	if err := l.Upgrade(ctx); err != nil {
		t.Fatal(err)
	}
	call := <-l.Go(ctx, nil, OpCreate("/e", nil, Ephemeral)).Done
	if !errors.Is(call.Error, ErrSessionMoved) && !errors.Is(call.Error, ErrSessionExpired) {
		t.Errorf("its write: %v", call.Error)
	}
	if s.State() != StateExpired || !errors.Is(s.Err(), ErrSessionExpired) { // before the answer
		t.Errorf("%v, %v", s.State(), s.Err())
	}
}

// A local session whose time is over cannot be attached, even if its member has not ended it yet (SS-22).
func TestSilentLocalSession(t *testing.T) {
	ctx, m, _ := alone(t, Config{})
	s, err := m.LocalSession(SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	before := m.Applied()
	s.mu.Lock()
	s.touched = s.touched.Add(-s.timeout)
	s.mu.Unlock()
	_, err = m.Attach(ctx, s.id, s.Listener().Password(), SessionConfig{})
	if !errors.Is(err, ErrSessionExpired) || m.Applied() != before || m.Stats().LocalSessions != 0 {
		t.Errorf("%v, %v applied, and before %v", err, m.Applied(), before)
	}
}

// SS-1: ids are unique, increase, are never 0 and keep the reserved top bytes free.
func TestSessionIDs(t *testing.T) {
	w := newWorld()
	last := SessionID(0)
	for i := range 50 {
		id := w.open()
		if id <= last || uint64(id)>>56 != 1 {
			t.Fatalf("session %v after %v", id, last)
		}
		if i%3 == 0 {
			w.do(request{kind: reqClose, session: id, mark: w.session(id).mark})
		}
		if i%10 == 0 {
			w.stamp.now += 7
		}
		last = id
	}
	if want := "0x100000000000000"; SessionID(1<<56).String() != want {
		t.Errorf("printed %v, want %s", SessionID(1<<56), want)
	}
}

// DM-124, SS-9, DM-33: nothing of a session outlives it, all goes under one zxid, in the order of paths.
func TestClose(t *testing.T) {
	for _, kind := range []requestKind{reqClose, reqExpire} {
		w := newWorld()
		a, b := w.open(), w.open()
		w.must(t, a, OpCreate("/p", nil, Persistent))
		for _, p := range []string{"/p/z", "/p/a", "/e", "/p/m"} {
			w.must(t, a, OpCreate(p, nil, Ephemeral))
		}
		w.must(t, b, OpCreate("/p/other", nil, Ephemeral))
		was := w.statOf(t, "/p")
		out, changes := w.do(request{kind: kind, session: a, mark: w.session(a).mark, term: 1})
		var got []string
		for _, c := range changes {
			got = append(got, c.kind.String()+" "+c.path)
		}
		want := []string{"deleted /e", "children /", "deleted /p/a", "children /p", "deleted /p/m", "children /p", "deleted /p/z", "children /p"}
		if !slices.Equal(got, want) {
			t.Errorf("changes %q, want %q", got, want)
		}
		st := w.statOf(t, "/p")
		if st.pzxid != out.zxid || st.cversion != was.cversion+3 || st.numChildren != 1 {
			t.Errorf("%s, closed at %v", printStat(st), out.zxid)
		}
		for _, n := range w.nodes {
			if n.owner == a {
				t.Errorf("%s outlives its session", n.path)
			}
		}
		if code := w.code(a, OpCreate("/late", nil, Ephemeral)); code != ErrSessionExpired { // CG-11
			t.Errorf("a write of the closed session: %v", code)
		}
		check(t, w.state)
	}
}

// CG-10: each frame takes effect once, in order; older incarnations and strangers are refused (E1).
func TestFramesOnce(t *testing.T) {
	s := newState()
	s.configure([]server{{"a", true}})
	begin := func(origin string, incarnation, number, acked uint64) bool {
		f := frame{origin: origin, incarnation: incarnation, number: number, acked: acked}
		if !s.begin(&f) {
			return false
		}
		s.keep(&f, []outcome{{zxid: Zxid(number)}})
		return true
	}
	for i, c := range []struct {
		origin                     string
		incarnation, number, acked uint64
		want                       bool
		kept                       int
	}{
		{"x", 1, 1, 0, false, 0}, // not a member
		{"a", 2, 2, 0, false, 0}, // a gap
		{"a", 2, 1, 0, true, 1},
		{"a", 2, 1, 0, false, 1}, // again
		{"a", 2, 2, 0, true, 2},
		{"a", 2, 4, 0, false, 2}, // a gap
		{"a", 2, 3, 2, true, 1},  // the first two are acknowledged
		{"a", 1, 4, 0, false, 1}, // an older incarnation
		{"a", 1, 1, 0, false, 1},
		{"a", 3, 4, 0, false, 0}, // a newer one starts at 1
		{"a", 3, 1, 0, true, 1},
		{"a", 2, 4, 0, false, 1},
	} {
		if got := begin(c.origin, c.incarnation, c.number, c.acked); got != c.want {
			t.Fatalf("%d: %+v: %v", i, c, got)
		}
		if o := s.origin("a"); o != nil && len(o.kept) != c.kept {
			t.Fatalf("%d: %+v: %d frames kept", i, c, len(o.kept))
		}
	}
	// The results survive a snapshot.
	r := restored(t, s)
	if o := r.origin("a"); o.incarnation != 3 || o.last != 1 || len(o.kept) != 1 || o.kept[0].outcomes[0].zxid != 1 || r.digest() != s.digest() {
		t.Errorf("%+v", o)
	}
	// A freeze does not see what is acknowledged later.
	f := s.freeze()
	begin("a", 3, 2, 1)
	if len(f.origins[0].kept) != 1 || f.origins[0].kept[0].number != 1 {
		t.Errorf("%+v", f.origins)
	}
}

// E9, DM-35: time comes with commands and never goes back; the feature level neither.
func TestTime(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.stamp.now = 5000
	w.must(t, id, OpCreate("/a", nil, Persistent))
	w.stamp.now = 4000
	w.must(t, id, OpSet("/a", nil, AnyVersion))
	if st := w.statOf(t, "/a"); st.ctime != 5000 || st.mtime != 5000 {
		t.Errorf("%s", printStat(st))
	}
	w.openEpoch(epoch{}, stamp{now: 1, term: 3})
	if w.now != 5000 || w.term != 3 {
		t.Errorf("now %d, term %d", w.now, w.term)
	}
	if w.openEpoch(epoch{cluster: "other"}, stamp{term: 2}); w.term != 3 || w.cluster != "c" {
		t.Errorf("term %d, cluster %q", w.term, w.cluster)
	}
}

// DM-84: a reap is checked again when it is applied: same incarnation, empty, due, and the same leadership.
func TestReap(t *testing.T) {
	w := newWorld()
	id := w.open()
	token := Token(w.must(t, id, OpCreate("/t", nil, Persistent).withTTL(100)).zxid)
	reap := func(term uint64, token Token) Code {
		out, _ := w.do(request{kind: reqReap, term: term, path: "/t", token: token})
		return out.code
	}
	w.stamp.now += 100
	if code := reap(1, token); code != ErrBadVersion { // DM-82: age must exceed the ttl
		t.Fatal(code)
	}
	w.stamp.now++
	w.must(t, id, OpSet("/t", nil, AnyVersion)) // renewed
	if code := reap(1, token); code != ErrBadVersion {
		t.Fatal(code)
	}
	w.stamp.now += 101
	w.must(t, id, OpCreate("/t/c", nil, Persistent))
	if code := reap(1, token); code != ErrNotEmpty { // DM-83
		t.Fatal(code)
	}
	w.must(t, id, OpDelete("/t/c", AnyVersion))
	if code := reap(2, token); code != ErrUnavailable {
		t.Fatal(code)
	}
	if code := reap(1, token+1); code != ErrNoNode {
		t.Fatal(code)
	}
	if code := reap(1, token); code != 0 || w.nodes["/t"] != nil {
		t.Fatal(code)
	}
	if code := reap(1, token); code != ErrNoNode {
		t.Fatal(code)
	}
	check(t, w.state)
}

// One atomic deletion takes at most 100,000 znodes: it holds the lock.
func TestDeleteTreeIsBounded(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/d", nil, Persistent))
	for range maxDeleteTree/1000 - 1 {
		ops := make([]Op, 1000)
		for i := range ops {
			ops[i] = OpCreate("/d/", nil, Sequential)
		}
		w.must(t, id, ops...)
	}
	for range 999 {
		w.must(t, id, OpCreate("/d/", nil, Sequential))
	}
	last := w.must(t, id, OpCreate("/d/", nil, Sequential)).steps[0].path
	if code := w.code(id, Op{kind: opDeleteTree, path: "/d"}); code != ErrTooLarge || len(w.nodes) != 4+maxDeleteTree+1 {
		t.Fatalf("%d znodes: %v", len(w.nodes), code)
	}
	w.must(t, id, OpDelete(last, AnyVersion))
	w.must(t, id, Op{kind: opDeleteTree, path: "/d"})
	if len(w.nodes) != 4 {
		t.Errorf("%d znodes are left", len(w.nodes))
	}
	check(t, w.state)
}

// A session's bound on ephemerals counts what a transaction takes away as well.
func TestEphemeralLimit(t *testing.T) {
	w := newWorld()
	out, _ := w.do(request{kind: reqOpen, timeout: 1, limit: 2})
	id := out.id
	w.must(t, id, OpCreate("/1", nil, Ephemeral), OpCreate("/2", nil, Ephemeral))
	if code := w.code(id, OpCreate("/3", nil, Ephemeral)); code != ErrThrottled {
		t.Errorf("the third: %v", code)
	}
	w.must(t, id, OpDelete("/1", AnyVersion), OpCreate("/3", nil, Ephemeral))
	w.must(t, id, OpDelete("/3", AnyVersion), OpCreate("/3", nil, Ephemeral), OpDelete("/3", AnyVersion), OpCreate("/4", nil, Ephemeral))
	if out := w.txn(id, OpDelete("/2", AnyVersion), OpCreate("/5", nil, Ephemeral), OpCreate("/6", nil, Ephemeral)); out.code != ErrThrottled {
		t.Errorf("one too many: %+v", out)
	}
	w.must(t, id, OpCreate("/p", nil, Persistent))
	other := w.open()
	w.must(t, other, OpCreate("/x", nil, Ephemeral))
	// Another session's ephemeral makes no room.
	if out := w.txn(id, OpDelete("/x", AnyVersion), OpCreate("/x", nil, Ephemeral)); out.code != ErrThrottled {
		t.Errorf("in the place of another's: %+v", out)
	}
	check(t, w.state)
}

// What a session may do follows its identities, which add up (DM-112).
func TestAuth(t *testing.T) {
	w := newWorld()
	id := w.open(Identity{"ip", "10.1.2.3"})
	auth := func(ids ...Identity) {
		w.do(request{kind: reqAuth, session: id, mark: w.session(id).mark, ids: ids})
	}
	auth(Identity{schemeDigest, DigestID("u:p")}, Identity{schemeDigest, DigestID("v:q")})
	auth(Identity{schemeDigest, DigestID("u:p")})
	if got := w.session(id).ids; len(got) != 3 {
		t.Fatalf("%v", got)
	}
	w.must(t, id, OpCreate("/a", nil, Persistent).WithACL(CreatorACL()...))
	if got := aclEntries(w.nodes["/a"].acl); len(got) != 2 || got[0] != (ACL{PermAll, schemeDigest, DigestID("u:p")}) || got[1].ID != DigestID("v:q") { // DM-104
		t.Errorf("%v", got)
	}
	if code := w.code(w.open(), OpSet("/a", nil, AnyVersion)); code != ErrNoAuth {
		t.Errorf("%v", code)
	}
}

// The same requests in the same order make the same state (DM-125).
func TestReplay(t *testing.T) {
	w := newWorld()
	a, b := w.open(), w.open()
	w.must(t, a, OpCreate("/p", []byte("1"), Persistent), OpCreate("/p/s-", nil, Ephemeral|Sequential), OpSet("/p", nil, 0))
	w.must(t, b, OpCreate("/c/d/e", nil, Parents))
	w.code(b, OpDelete("/c", AnyVersion))
	w.stamp.now += 10
	w.do(request{kind: reqClose, session: a, mark: w.session(a).mark})
	again := newWorld()
	for _, e := range w.log {
		again.advance(e.stamp)
		again.apply(e.raw, "m1", e.stamp)
	}
	sameListing(t, listing(again.state), listing(w.state))
	if again.digest() != w.digest() {
		t.Error("digests differ")
	}
	w.feature++
	if again.digest() == w.digest() {
		t.Error("the digest does not cover the feature level")
	}
}

func TestErrors(t *testing.T) {
	if !errors.Is(&Error{Op: "get", Path: "/a", Code: ErrNoNode}, ErrNoNode) {
		t.Error("an Error does not match its code")
	}
	for c, text := range codeText {
		if text == "" || c.Error() != text {
			t.Errorf("code %d has no text", int(c))
		}
	}
	if got := Code(-999).Error(); got != "code -999" {
		t.Errorf("%q", got)
	}
	e := &TxnError{Index: 1, Steps: []error{ErrRolledBack, &Error{Op: "set", Code: ErrBadVersion}, ErrInconsistent}}
	if !errors.Is(e, ErrBadVersion) || errors.Is(e, ErrRolledBack) {
		t.Errorf("%v", e)
	}
}
