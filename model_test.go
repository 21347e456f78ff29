// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive is the tree again, slow and obvious: whole paths in a map, scanned for everything. A transaction works on
// a copy, which is thrown away when a step fails.
type naive struct {
	nodes    map[string]*naiveNode
	sessions map[SessionID]*naiveSession
	zxid     Zxid
	now      int64
}

type naiveSession struct {
	ids   []Identity
	limit int
	local bool // the state does not know it
}

type naiveNode struct {
	data                string
	null                bool
	kind                nodeKind
	owner               SessionID
	ttl                 int64
	acl                 []ACL
	czxid, mzxid, pzxid Zxid
	ctime, mtime        int64
	version, aversion   int32
	creates             int64
}

func newNaive() *naive {
	m := &naive{nodes: map[string]*naiveNode{}, sessions: map[SessionID]*naiveSession{}}
	for _, p := range []string{"/", "/zookeeper", "/zookeeper/quota"} {
		m.nodes[p] = &naiveNode{acl: OpenACL()}
	}
	m.nodes["/zookeeper/config"] = &naiveNode{acl: ReadACL(), aversion: -1}
	return m
}

func (m *naive) copy() *naive {
	c := &naive{nodes: map[string]*naiveNode{}, sessions: m.sessions, zxid: m.zxid, now: m.now}
	for p, n := range m.nodes {
		d := *n
		c.nodes[p] = &d
	}
	return c
}

func up(path string) string {
	i := strings.LastIndex(path, "/")
	if i <= 0 {
		return "/"
	}
	return path[:i]
}

func (m *naive) children(path string) (names []string) {
	for p := range m.nodes {
		if p != "/" && up(p) == path {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return names
}

func (m *naive) stat(path string) stat {
	n, children := m.nodes[path], len(m.children(path))
	return stat{n.czxid, n.mzxid, n.pzxid, n.ctime, n.mtime, n.version, int32(2*n.creates) - int32(children), n.aversion, n.owner, len(n.data), children}
}

func (m *naive) listing() (out []string) {
	for _, p := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[p]
		out = append(out, fmt.Sprintf("%s %s creates=%d data=%s kind=%d ttl=%d acl=%v", p, printStat(m.stat(p)), n.creates, printData(n.data, n.null), n.kind, n.ttl, n.acl))
	}
	return out
}

type told struct {
	kind EventType
	path string
	acl  string
}

func (m *naive) permits(acl []ACL, want Perm, sess *naiveSession) bool {
	for _, id := range sess.ids {
		if id.Scheme == "super" {
			return true
		}
	}
	for _, e := range acl {
		ok := e.Scheme == "world"
		for _, id := range sess.ids {
			ok = ok || id.Scheme == e.Scheme && id.ID == e.ID
		}
		if ok && e.Perm&want != 0 {
			return true
		}
	}
	return false
}

// quota finds the deepest path at or above path with a limits znode.
func (m *naive) quota(path string) string {
	if path == "/zookeeper/quota" || strings.HasPrefix(path, "/zookeeper/quota/") {
		return ""
	}
	for ; path != "/"; path = up(path) {
		if m.nodes["/zookeeper/quota"+path+"/zookeeper_limits"] != nil {
			return path
		}
	}
	return ""
}

func (m *naive) usage(path string, count, bytes int) {
	q := m.quota(path)
	n := m.nodes["/zookeeper/quota"+q+"/zookeeper_stats"]
	if q == "" || n == nil || count == 0 && bytes == 0 {
		return
	}
	c, b := -1, -1
	fmt.Sscanf(n.data, "count=%d,bytes=%d", &c, &b)
	n.data, n.null = fmt.Sprintf("count=%d,bytes=%d", c+count, b+bytes), false
}

func (m *naive) over(path string, count, bytes int) bool {
	q := ""
	if path != "" {
		q = m.quota(path)
	}
	l, s := m.nodes["/zookeeper/quota"+q+"/zookeeper_limits"], m.nodes["/zookeeper/quota"+q+"/zookeeper_stats"]
	if q == "" || l == nil || s == nil {
		return false
	}
	var c, b, maxCount, maxBytes int
	fmt.Sscanf(s.data, "count=%d,bytes=%d", &c, &b)
	fmt.Sscanf(l.data, "byteHardLimit=%d;countHardLimit=%d", &maxBytes, &maxCount)
	return count != 0 && c+count > maxCount || bytes != 0 && b+bytes > maxBytes
}

func (m *naive) create(path string, n naiveNode, events *[]told) {
	n.czxid, n.mzxid, n.pzxid, n.ctime, n.mtime = m.zxid, m.zxid, m.zxid, m.now, m.now
	m.nodes[path] = &n
	p := m.nodes[up(path)]
	p.creates++
	p.pzxid = m.zxid
	m.usage(path, 1, len(n.data))
	if root, ok := strings.CutSuffix(path, "/zookeeper_stats"); ok && strings.HasPrefix(root, "/zookeeper/quota/") {
		root = strings.TrimPrefix(root, "/zookeeper/quota")
		count, bytes := 0, 0
		for p, n := range m.nodes {
			if p == root || strings.HasPrefix(p, root+"/") {
				count++
				bytes += len(n.data)
			}
		}
		m.nodes[path].data, m.nodes[path].null = fmt.Sprintf("count=%d,bytes=%d", count, bytes), false
	}
	*events = append(*events, told{EventCreated, path, fmt.Sprint(n.acl)}, told{EventChildren, up(path), fmt.Sprint(p.acl)})
}

func (m *naive) remove(path string, events *[]told) {
	n := m.nodes[path]
	delete(m.nodes, path)
	p := m.nodes[up(path)]
	p.pzxid = m.zxid
	m.usage(path, -1, -len(n.data))
	*events = append(*events, told{EventDeleted, path, fmt.Sprint(n.acl)}, told{EventChildren, up(path), fmt.Sprint(p.acl)})
}

// step performs one step on m or says why not. committed is the state before the transaction: quotas look at it.
func (m *naive) step(committed *naive, o Op, id SessionID, st stamp, events *[]told) (r result) {
	sess := m.sessions[id]
	n := m.nodes[o.path]
	fail := func(c Code) result { return result{code: c} }
	r.path = o.path
	switch o.kind {
	case opCreate:
		if sess.local && o.mode&Ephemeral != 0 {
			return fail(ErrEphemeralOnLocalSession)
		}
		var acl []ACL
		for _, a := range append([]ACL{}, o.acl...) {
			switch {
			case a.Scheme == "auth":
				found := false
				for _, i := range sess.ids {
					if i.Scheme == "digest" {
						found = true
						if e := (ACL{a.Perm, "digest", i.ID}); !slices.Contains(acl, e) {
							acl = append(acl, e)
						}
					}
				}
				if !found {
					return fail(ErrInvalidACL)
				}
			case !slices.Contains(acl, a):
				acl = append(acl, a)
			}
		}
		if o.acl == nil {
			acl = OpenACL()
		} else if len(acl) == 0 {
			return fail(ErrInvalidACL)
		}
		var missing []string
		anchor := up(o.path)
		for m.nodes[anchor] == nil {
			if o.mode&Parents == 0 {
				return fail(ErrNoNode)
			}
			missing = append([]string{anchor}, missing...)
			anchor = up(anchor)
		}
		if !m.permits(m.nodes[anchor].acl, PermCreate, sess) {
			return fail(ErrNoAuth)
		}
		if o.mode&Sequential != 0 {
			number := int64(0)
			if missing == nil {
				number = m.nodes[anchor].creates
			}
			r.path = fmt.Sprintf("%s%010d", o.path, number)
		}
		if m.nodes[r.path] != nil {
			return fail(ErrNodeExists)
		}
		if m.nodes[anchor].kind == nodeEphemeral {
			return fail(ErrNoChildrenForEphemerals)
		}
		quotas := map[string]int{} // how many znodes each gets
		for _, p := range append(missing, r.path) {
			quotas[committed.quota(p)]++
		}
		for root, count := range quotas {
			bytes := 0
			if root == committed.quota(r.path) {
				bytes = len(o.data)
			}
			if st.quota && committed.over(root, count, bytes) {
				return fail(ErrQuotaExceeded)
			}
		}
		node := naiveNode{data: o.data, null: o.null, acl: acl}
		switch {
		case o.hasTTL:
			node.kind, node.ttl = nodeTTL, o.n
		case o.mode&Container != 0:
			node.kind = nodeContainer
		case o.mode&Ephemeral != 0:
			node.kind, node.owner = nodeEphemeral, id
			have := 0
			for _, n := range m.nodes {
				if n.owner == id {
					have++
				}
			}
			if sess.limit > 0 && have >= sess.limit {
				return fail(ErrThrottled)
			}
		}
		for _, p := range missing {
			m.create(p, naiveNode{kind: nodeContainer, acl: acl}, events)
		}
		m.create(r.path, node, events)
		r.stat = m.stat(r.path)
	case opSet:
		switch {
		case n == nil:
			return fail(ErrNoNode)
		case !m.permits(n.acl, PermWrite, sess):
			return fail(ErrNoAuth)
		case st.quota && committed.over(o.path, 0, len(o.data)-len(n.data)):
			return fail(ErrQuotaExceeded)
		case o.version != -1 && o.version != n.version:
			return fail(ErrBadVersion)
		}
		diff := len(o.data) - len(n.data)
		n.data, n.null, n.mzxid, n.mtime = o.data, o.null, m.zxid, m.now
		n.version++
		m.usage(o.path, 0, diff)
		*events = append(*events, told{EventChanged, o.path, fmt.Sprint(n.acl)})
		r.stat = m.stat(o.path)
	case opSetACL:
		switch {
		case n == nil:
			return fail(ErrNoNode)
		case !m.permits(n.acl, PermAdmin, sess):
			return fail(ErrNoAuth)
		case o.version != -1 && o.version != n.aversion:
			return fail(ErrBadVersion)
		}
		n.acl = o.acl
		n.aversion++
		r.stat = m.stat(o.path)
	case opDelete:
		p := m.nodes[up(o.path)]
		switch {
		case o.path == "/" || o.path == "/zookeeper" || o.path == "/zookeeper/quota":
			return fail(ErrBadArguments)
		case p == nil:
			return fail(ErrNoNode)
		case !m.permits(p.acl, PermDelete, sess):
			return fail(ErrNoAuth)
		case n == nil:
			return fail(ErrNoNode)
		case o.version != -1 && o.version != n.version:
			return fail(ErrBadVersion)
		case len(m.children(o.path)) > 0:
			return fail(ErrNotEmpty)
		}
		m.remove(o.path, events)
	case opDeleteTree:
		p := m.nodes[up(o.path)]
		switch {
		case o.path == "/" || o.path == "/zookeeper" || o.path == "/zookeeper/quota":
			return fail(ErrBadArguments)
		case p == nil:
			return fail(ErrNoNode)
		case !m.permits(p.acl, PermDelete, sess):
			return fail(ErrNoAuth)
		case n == nil:
			return fail(ErrNoNode)
		}
		var gone []string
		var visit func(path string) bool
		visit = func(path string) bool {
			below := m.children(path)
			if len(below) > 0 && !m.permits(m.nodes[path].acl, PermDelete, sess) {
				return false
			}
			for _, c := range below {
				if !visit(c) {
					return false
				}
			}
			gone = append(gone, path)
			return true
		}
		if !visit(o.path) {
			return fail(ErrNoAuth)
		}
		for _, p := range gone {
			m.remove(p, events)
		}
	case opCheck:
		switch {
		case n == nil:
			return fail(ErrNoNode)
		case !m.permits(n.acl, PermRead, sess):
			return fail(ErrNoAuth)
		case o.version != -1 && o.version != n.version:
			return fail(ErrBadVersion)
		}
	case opCheckCreated, opCheckAbsent, opCheckChildren:
		if n != nil && !m.permits(n.acl, PermRead, sess) {
			return fail(ErrNoAuth)
		}
		count := len(m.children(o.path))
		ok := map[opKind]bool{
			opCheckCreated:  n != nil && n.czxid == Zxid(o.token),
			opCheckAbsent:   n == nil,
			opCheckChildren: o.cmp == Less && count < int(o.n) || o.cmp == LessEq && count <= int(o.n) || o.cmp == Equal && count == int(o.n) || o.cmp == GreaterEq && count >= int(o.n) || o.cmp == Greater && count > int(o.n),
		}[o.kind]
		if !ok {
			return fail(ErrGuard)
		}
	}
	return r
}

func (m *naive) txn(ops []Op, id SessionID, st stamp) (results []result, code Code, events []told) {
	work := m.copy()
	for i, o := range ops {
		r := work.step(m, o, id, st, &events)
		results = append(results, r)
		if r.code != 0 {
			for j := range results[:i] {
				results[j] = result{}
			}
			for range ops[i+1:] {
				results = append(results, result{code: ErrInconsistent})
			}
			return results, r.code, nil
		}
	}
	m.nodes = work.nodes
	return results, 0, events
}

func (m *naive) end(id SessionID) (events []told) {
	delete(m.sessions, id)
	for _, p := range slices.Sorted(maps.Keys(m.nodes)) {
		if m.nodes[p].owner == id {
			m.remove(p, &events)
		}
	}
	return events
}

func (m *naive) reap(path string, token Token) (Code, []told) {
	n := m.nodes[path]
	switch {
	case n == nil || Token(n.czxid) != token:
		return ErrNoNode, nil
	case len(m.children(path)) > 0:
		return ErrNotEmpty, nil
	case n.kind == nodeContainer && (n.creates > 0 || m.now-n.mtime > 300_000), n.kind == nodeTTL && m.now-n.mtime > n.ttl:
		var events []told
		m.remove(path, &events)
		return 0, events
	}
	return ErrBadVersion, nil
}

var (
	modelPaths = []string{
		"/a", "/b", "/a/a", "/a/b", "/a/a/a", "/b/c", "/b/c/d", "/b/c/d/e", "/a/0000000001", "/", "/zookeeper", "/zookeeper/quota",
		"/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits", "/zookeeper/quota/a/zookeeper_stats",
		"/zookeeper/quota/a/a", "/zookeeper/quota/a/a/zookeeper_limits", "/zookeeper/quota/a/a/zookeeper_stats",
	}
	modelACLs = [][]ACL{
		OpenACL(), ReadACL(), CreatorACL(), {{PermAll, "digest", "u:1"}, {PermRead | PermCreate, "world", "anyone"}},
		{{PermAll, "digest", "v:2"}, {PermAll, "digest", "u:1"}, {PermAll, "digest", "v:2"}}, {{PermAll &^ PermDelete, "world", "anyone"}},
	}
)

// drawOp draws a step that makes sense often enough.
func drawOp(t *rapid.T, m *naive) Op {
	path := rapid.SampledFrom(modelPaths).Draw(t, "path")
	if rapid.IntRange(0, 2).Draw(t, "there") == 0 {
		path = rapid.SampledFrom(slices.Sorted(maps.Keys(m.nodes))).Draw(t, "existing")
		if path == configPath {
			path = "/a"
		}
	}
	data := []byte(strings.Repeat("x", rapid.IntRange(0, 20).Draw(t, "size")))
	if len(data) == 20 {
		data = nil
	}
	if strings.HasSuffix(path, "limits") {
		data = fmt.Appendf(nil, "byteHardLimit=%d;countHardLimit=%d", rapid.IntRange(0, 60).Draw(t, "bytes"), rapid.IntRange(1, 6).Draw(t, "count"))
	}
	if strings.HasSuffix(path, "stats") {
		data = []byte("count=1,bytes=7")
	}
	version := int32(rapid.SampledFrom([]int{-1, -1, -1, 0, 1, 2}).Draw(t, "version"))
	switch rapid.IntRange(0, 15).Draw(t, "kind") {
	case 0, 1, 2, 3, 4, 5:
		mode := rapid.SampledFrom([]CreateMode{0, 0, 0, Ephemeral, Sequential, Ephemeral | Sequential, Container, Parents, Parents | Ephemeral, Parents | Sequential}).Draw(t, "mode")
		o := OpCreate(path, data, mode)
		if mode&Sequential != 0 {
			o.path = joinPath(path, rapid.SampledFrom([]string{"", "n-", "m-"}).Draw(t, "prefix"))
		}
		if mode&(Ephemeral|Container) == 0 && rapid.IntRange(0, 9).Draw(t, "ttl") == 0 {
			o = o.withTTL(50)
		}
		if rapid.IntRange(0, 4).Draw(t, "acl") == 0 {
			o.acl = rapid.SampledFrom(modelACLs).Draw(t, "list")
		}
		return o
	case 6, 7, 8:
		return OpSet(path, data, version)
	case 9, 10:
		return OpDelete(path, version)
	case 11:
		return OpCheck(path, version)
	case 12:
		return Op{kind: opSetACL, path: path, acl: rapid.SampledFrom([][]ACL{OpenACL(), ReadACL(), modelACLs[5], modelACLs[3]}).Draw(t, "list"), version: version}
	case 13:
		token := Token(rapid.IntRange(1, 40).Draw(t, "token"))
		if n := m.nodes[path]; n != nil && rapid.Bool().Draw(t, "own") {
			token = Token(n.czxid)
		}
		return OpCheckCreated(path, token)
	case 14:
		return OpCheckAbsent(path)
	}
	return OpCheckChildren(path, Cmp(rapid.IntRange(0, 4).Draw(t, "cmp")), rapid.IntRange(0, 3).Draw(t, "n"))
}

// TestModel runs random requests on the state and on the naive model: the same results, stats, events and znodes
// (DM-120 to DM-125), whatever snapshots are written, restored and looked at in between.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m := newWorld(), newNaive()
		m.now = w.now
		var ids []SessionID
		type open struct {
			v    *view
			want []string
		}
		var views []open
		look := func(o open) {
			if o.v.expired {
				t.Fatal("a view expired")
			}
			sameListing(t, viewListing(o.v), o.want)
			for _, line := range o.want {
				path, _, _ := strings.Cut(line, " ")
				if n, c := o.v.get(path); c == nil || printNode(n.path, c) != line {
					t.Fatalf("the view has not %s", line)
				}
			}
			for _, path := range modelPaths {
				if n, c := o.v.get(path); c != nil && !slices.Contains(o.want, printNode(n.path, c)) {
					t.Fatalf("the view has %s", printNode(n.path, c))
				}
			}
		}
		shut := func(o open, n int) {
			for w.closeView(o.v, n) {
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.stamp.now += int64(rapid.SampledFrom([]int{0, 0, 1, 60, 300_001}).Draw(t, "time"))
			var got []told
			run := func(q request) outcome {
				out, changes := w.do(q)
				for _, c := range changes {
					got = append(got, told{c.kind, c.path, fmt.Sprint(aclEntries(c.acl))})
				}
				m.zxid, m.now = w.zxid, max(m.now, w.stamp.now)
				return out
			}
			session := func() SessionID { return rapid.SampledFrom(ids).Draw(t, "session") }
			mark := func(id SessionID) Zxid {
				if sess := w.session(id); sess != nil {
					return sess.mark
				}
				return 0
			}
			txn := func(id SessionID, ops []Op) request {
				if sess := m.sessions[id]; sess != nil && sess.local {
					return request{kind: reqLocal, ids: sess.ids, ops: ops}
				}
				return request{kind: reqTxn, session: id, mark: mark(id), ops: ops}
			}
			var events []told
			before := w.zxid
			requests := Zxid(1)
			kind := rapid.IntRange(0, 23).Draw(t, "request")
			if len(ids) == 0 {
				kind = 0
			}
			switch kind {
			case 0:
				sess := &naiveSession{ids: rapid.SampledFrom([][]Identity{{}, {{"digest", "u:1"}}, {{"digest", "u:1"}, {"digest", "v:2"}}, {{"super", ""}}}).Draw(t, "ids")}
				sess.limit = rapid.SampledFrom([]int{0, 2}).Draw(t, "limit")
				if sess.local = rapid.IntRange(0, 3).Draw(t, "local") == 0; sess.local { // nobody hears of it (SS-22)
					id := localID | SessionID(len(ids))
					m.sessions[id] = sess
					ids = append(ids, id)
					requests = 0
					break
				}
				out := run(request{kind: reqOpen, timeout: 1, ids: sess.ids, limit: int64(sess.limit)})
				m.sessions[out.id] = sess
				ids = append(ids, out.id)
			case 1:
				id := session()
				if sess := m.sessions[id]; sess != nil && sess.local { // SS-23
					if out := run(request{kind: reqOpen, session: id, timeout: 1, ids: sess.ids, limit: int64(sess.limit)}); out.code != 0 || out.id != id {
						t.Fatalf("an upgrade: %+v", out)
					}
					sess.local = false
					break
				}
				q := request{kind: reqClose, session: id, mark: mark(id)}
				if rapid.Bool().Draw(t, "expire") {
					q.kind, q.term = reqExpire, 1
				}
				out := run(q)
				if m.sessions[id] == nil {
					if out.code != ErrSessionExpired {
						t.Fatalf("closed twice: %v", out.code)
					}
					break
				}
				events = m.end(id)
			case 2:
				path := rapid.SampledFrom(modelPaths).Draw(t, "path")
				token := Token(0)
				if n := m.nodes[path]; n != nil {
					token = Token(n.czxid)
				}
				out := run(request{kind: reqReap, term: 1, path: path, token: token})
				var code Code
				if code, events = m.reap(path, token); out.code != code {
					t.Fatalf("reap %s: %v, want %v", path, out.code, code)
				}
			case 3:
				old := w.state
				w.state = restored(t, old)
				views = nil
				if w.digest() != old.digest() {
					t.Fatal("restored to another digest")
				}
				requests = 0
			case 4, 5:
				views = append(views, open{w.openView(w.zxid, w.now, rapid.Bool().Draw(t, "pinned")), listing(w.state)})
				requests = 0
			case 6:
				if len(views) > 0 {
					i := rapid.IntRange(0, len(views)-1).Draw(t, "view")
					look(views[i])
					shut(views[i], rapid.IntRange(1, 3).Draw(t, "piece"))
					views = slices.Delete(views, i, i+1)
				}
				requests = 0
			case 7:
				w.stamp.quota = !w.stamp.quota
				requests = 0
			case 8:
				id, o := session(), Op{kind: opDeleteTree, path: rapid.SampledFrom(modelPaths[:9]).Draw(t, "tree")}
				out := run(txn(id, []Op{o}))
				if m.sessions[id] == nil {
					break
				}
				_, code, want := m.txn([]Op{o}, id, w.stamp)
				if events = want; code != out.code {
					t.Fatalf("delete tree %s: %v, want %v", o.path, out.code, code)
				}
			default:
				id := session()
				work := m.copy()
				var ops []Op
				var ignored []told
				for range rapid.SampledFrom([]int{1, 1, 1, 2, 3, 4, 5, 6, 0}).Draw(t, "ops") {
					o := drawOp(t, work)
					ops = append(ops, o)
					if m.sessions[id] != nil {
						work.step(m, o, id, w.stamp, &ignored)
					}
				}
				out := run(txn(id, ops))
				if m.sessions[id] == nil {
					if out.code != ErrSessionExpired {
						t.Fatalf("a closed session: %v", out.code)
					}
					break
				}
				results, code, want := m.txn(ops, id, w.stamp)
				events = want
				if code != out.code || len(results) != len(out.steps) {
					t.Fatalf("%+v: %v, want %v", ops, out.code, code)
				}
				for i, r := range results {
					if r != out.steps[i] {
						t.Fatalf("%+v: step %d: %+v, want %+v", ops, i, out.steps[i], r)
					}
				}
			}
			if w.zxid != before+requests { // DM-37
				t.Fatalf("zxid %v after %v", w.zxid, before)
			}
			if !slices.Equal(got, events) {
				t.Fatalf("events\n got %v\nwant %v", got, events)
			}
			sameListing(t, listing(w.state), m.listing())
			if err := invariants(w.state); err != nil {
				t.Fatal(err)
			}
			for _, o := range views {
				look(o)
			}
		}
		for _, o := range views {
			look(o)
			shut(o, 2)
		}
		nothingKept(t, w.state)

		// The log alone, on two states, one of them with views open all the time.
		plain, busy := newWorld(), newWorld()
		var open1, open2 *view
		for i, e := range w.log {
			if i%3 == 0 {
				if open1 != nil {
					for busy.closeView(open1, 1) {
					}
				}
				open1, open2 = open2, busy.openView(busy.zxid, busy.now, i%2 == 0)
			}
			for _, s := range []*world{plain, busy} {
				s.advance(e.stamp)
				s.apply(e.raw, "m1", e.stamp)
			}
		}
		if plain.digest() != w.digest() || busy.digest() != w.digest() {
			t.Fatal("replay ends at another digest")
		}
	})
}

func viewListing(v *view) (out []string) {
	walk := newWalker(v, "/")
	for {
		n, c := walk.next()
		if n == nil {
			slices.Sort(out)
			return out
		}
		out = append(out, printNode(n.path, c))
	}
}

// nothingKept tests that no closed view has left anything behind.
func nothingKept(t tester, s *state) {
	t.Helper()
	if s.vers.bytes != 0 || len(s.vers.open) != 0 {
		t.Fatalf("%d bytes kept, %d views open", s.vers.bytes, len(s.vers.open))
	}
	for _, n := range s.nodes {
		if n.older != nil {
			t.Fatalf("%s keeps an older content", n.path)
		}
	}
}

// TestSplit: a transaction does what its steps do one by one, but for zxids; and fails where they first fail.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, single := newWorld(), newWorld()
		a, b := whole.open(Identity{"digest", "u:1"}), single.open(Identity{"digest", "u:1"})
		m := newNaive()
		m.sessions[a] = &naiveSession{ids: []Identity{{"digest", "u:1"}}}
		shape := func(s *state) (out []string) {
			for _, p := range slices.Sorted(maps.Keys(s.nodes)) {
				n := s.nodes[p]
				out = append(out, fmt.Sprint(p, n.data, n.null, n.kind, n.version, n.aversion, n.creates, n.numChildren(), n.owner != 0, n.ttl, aclEntries(n.acl)))
			}
			return out
		}
		for range rapid.IntRange(1, 15).Draw(t, "txns") {
			var ops []Op
			var ignored []told
			work := m.copy()
			for range rapid.IntRange(1, 6).Draw(t, "ops") {
				o := drawOp(t, work)
				if o.kind != opCheckCreated { // tokens are zxids
					ops = append(ops, o)
					work.step(m, o, a, whole.stamp, &ignored)
				}
			}
			before := restored(t, single.state)
			out, changes := whole.do(request{kind: reqTxn, session: a, mark: whole.session(a).mark, ops: ops})
			var all []change
			var code Code
			for i, o := range ops {
				one, c := single.do(request{kind: reqTxn, session: b, mark: single.session(b).mark, ops: []Op{o}})
				if code = one.code; code != 0 {
					if out.code != code || out.steps[i].code != code {
						t.Fatalf("%+v: step %d fails with %v, alone with %v", ops, i, out.code, code)
					}
					break
				}
				if out.code == 0 && one.steps[0].path != out.steps[i].path {
					t.Fatalf("%+v: step %d made %s, alone %s", ops, i, out.steps[i].path, one.steps[0].path)
				}
				all = append(all, c...)
			}
			if (code == 0) != (out.code == 0) {
				t.Fatalf("%+v: %v, one by one %v", ops, out.code, code)
			}
			if code != 0 {
				single.state = before
				continue
			}
			m.txn(ops, a, whole.stamp)
			if !slices.EqualFunc(changes, all, func(a, b change) bool {
				return a.kind == b.kind && a.path == b.path && slices.Equal(aclEntries(a.acl), aclEntries(b.acl))
			}) {
				t.Fatalf("events %v, one by one %v", changes, all)
			}
			sameListing(t, shape(single.state), shape(whole.state))
		}
	})
}

// TestSnapshotBesideWriter: a snapshot written while the tree changes is what the tree was, byte for byte.
func TestSnapshotBesideWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		id := w.open()
		for i := range rapid.IntRange(0, 300).Draw(t, "nodes") {
			w.txn(id, OpCreate(fmt.Sprintf("/n%03d", i%150), nil, Persistent))
			w.txn(id, OpCreate(fmt.Sprintf("/n%03d/%d", i%7, i), []byte("x"), CreateMode(i%2)))
		}
		want := written(t, w.state)
		f := w.freeze()
		m := newNaive()
		var b bytes.Buffer
		if _, err := f.write(&b, func(fn func()) {
			fn()
			for range 20 {
				w.txn(id, OpSet(fmt.Sprintf("/n%03d", rapid.IntRange(0, 150).Draw(t, "n")), []byte("new"), AnyVersion))
				w.txn(id, Op{kind: opDeleteTree, path: fmt.Sprintf("/n%03d", rapid.IntRange(0, 150).Draw(t, "n"))})
				w.txn(id, drawOp(t, m))
			}
		}); err != nil {
			t.Fatal(err)
		}
		for w.closeView(f.view, 10) {
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatal("the snapshot shows later changes")
		}
		nothingKept(t, w.state)
		if err := invariants(w.state); err != nil {
			t.Fatal(err)
		}
	})
}
