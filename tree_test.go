// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/btree"
)

// check tests what must hold between the parts of a state (DM-120, DM-123). It knows nothing of how they are kept
// up to date.
func check(t tester, s *state) {
	t.Helper()
	if err := invariants(s); err != nil {
		t.Fatal(err)
	}
}

func invariants(s *state) error {
	var bytes int64
	var sum uint64
	ephemerals := 0
	children := map[string][]string{}
	owned := map[SessionID][]string{}
	var mortals []string
	quotas := map[string]bool{}
	refs := map[*aclList]int{}
	for path, n := range s.nodes {
		if n.path != path || badPath(path) != "" {
			return fmt.Errorf("%q is kept as %q", n.path, path)
		}
		bytes += int64(len(path) + len(n.data))
		if h := n.content.hash(path); n.sum != h {
			return fmt.Errorf("%s: sum %x, hash %x", path, n.sum, h)
		}
		sum += n.sum
		if n.null && n.data != "" {
			return fmt.Errorf("%s: null data of %d bytes", path, len(n.data))
		}
		if path != "/" {
			p := s.nodes[parentPath(path)]
			if p == nil {
				return fmt.Errorf("%s has no parent", path)
			}
			if p.kind == nodeEphemeral {
				return fmt.Errorf("%s: the parent is ephemeral", path)
			}
			children[p.path] = append(children[p.path], path)
		}
		if n.mzxid < n.czxid || n.pzxid < n.czxid || max(n.mzxid, n.pzxid) > s.zxid {
			return fmt.Errorf("%s: %s, state at %d", path, printStat(n.stat()), s.zxid)
		}
		if n.ctime > n.mtime || n.mtime > s.now {
			return fmt.Errorf("%s: times %d and %d, now %d", path, n.ctime, n.mtime, s.now)
		}
		if (n.kind == nodeEphemeral) != (n.owner != 0) || (n.kind == nodeTTL) != (n.ttl != 0) {
			return fmt.Errorf("%s: kind %d, owner %v, ttl %d", path, n.kind, n.owner, n.ttl)
		}
		switch n.kind {
		case nodeEphemeral:
			if s.session(n.owner) == nil {
				return fmt.Errorf("%s outlives its session", path)
			}
			owned[n.owner] = append(owned[n.owner], path)
			ephemerals++
		case nodeContainer, nodeTTL:
			mortals = append(mortals, path)
		}
		if strings.HasPrefix(path, "/zookeeper/quota/") && strings.HasSuffix(path, "/zookeeper_limits") && path != "/zookeeper/quota/zookeeper_limits" {
			quotas[strings.TrimSuffix(strings.TrimPrefix(path, "/zookeeper/quota"), "/zookeeper_limits")] = true
		}
		if n.acl != nil {
			refs[n.acl]++
			if s.acls[n.acl.key] != n.acl || n.acl.key != string(appendACL(nil, n.acl.entries)) {
				return fmt.Errorf("%s: list %v is not shared", path, n.acl.entries)
			}
			if slices.Equal(n.acl.entries, OpenACL()) {
				return fmt.Errorf("%s: the open ACL is stored", path)
			}
		}
		if n.since > s.vers.epoch {
			return fmt.Errorf("%s: begun in epoch %d, now %d", path, n.since, s.vers.epoch)
		}
	}
	for path, n := range s.nodes {
		names := children[path]
		slices.Sort(names)
		if got := inOrder(n.children); !slices.Equal(got, names) {
			return fmt.Errorf("%s: children %q, want %q", path, got, names)
		}
		var numbered []string
		for _, name := range names {
			if _, ok := Sequence(name); ok {
				numbered = append(numbered, name)
			}
		}
		slices.SortStableFunc(numbered, func(a, b string) int {
			i, _ := Sequence(a)
			j, _ := Sequence(b)
			switch {
			case i < j:
				return -1
			case i > j:
				return 1
			}
			return strings.Compare(a, b)
		})
		if got := inOrder(n.sequence); !slices.Equal(got, numbered) {
			return fmt.Errorf("%s: sequence %q, want %q", path, got, numbered)
		}
		builtin := 0
		if path == "/" {
			builtin = 1
		} else if path == zookeeperPath {
			builtin = 2
		}
		if n.creates < int64(len(names)-builtin) {
			return fmt.Errorf("%s: %d created, %d there", path, n.creates, len(names))
		}
		if st := n.stat(); st.numChildren != len(names) || st.cversion != int32(2*n.creates-int64(len(names))) || st.dataLength != len(n.data) {
			return fmt.Errorf("%s: %s, %d created, %d there", path, printStat(st), n.creates, len(names))
		}
	}
	if s.bytes != bytes || s.sum != sum || s.ephemerals != ephemerals {
		return fmt.Errorf("bytes %d, sum %x, ephemerals %d; want %d, %x, %d", s.bytes, s.sum, s.ephemerals, bytes, sum, ephemerals)
	}
	if len(s.owned) != len(owned) {
		return fmt.Errorf("%d owners, want %d", len(s.owned), len(owned))
	}
	for id, want := range owned {
		slices.Sort(want)
		if got := inOrder(s.owned[id]); !slices.Equal(got, want) {
			return fmt.Errorf("%v owns %q, want %q", id, got, want)
		}
	}
	slices.Sort(mortals)
	if got := inOrder(s.mortals); !slices.Equal(got, mortals) {
		return fmt.Errorf("mortals %q, want %q", got, mortals)
	}
	if !maps.Equal(s.quotas, quotas) {
		return fmt.Errorf("quotas %v, want %v", s.quotas, quotas)
	}
	if len(s.acls) != len(refs) {
		return fmt.Errorf("%d lists are shared, %d are in use", len(s.acls), len(refs))
	}
	for l, n := range refs {
		if l.refs != n {
			return fmt.Errorf("list %v: %d references, want %d", l.entries, l.refs, n)
		}
	}
	if len(s.vers.open) == 0 && len(s.vers.dying) == 0 {
		if s.vers.bytes != 0 {
			return fmt.Errorf("%d bytes kept for no view", s.vers.bytes)
		}
	}
	return nil
}

func inOrder(b *btree.BTreeG[*znode]) (paths []string) {
	if b != nil {
		b.Ascend(func(n *znode) bool {
			paths = append(paths, n.path)
			return true
		})
	}
	return paths
}

// DM-12 to DM-14.
func TestFreshTree(t *testing.T) {
	s := newState()
	if len(s.nodes) != 4 {
		t.Fatalf("%d znodes", len(s.nodes))
	}
	for path, want := range map[string]string{
		"/":           `/ czxid=0 mzxid=0 pzxid=0 ctime=0 mtime=0 version=0 cversion=-1 aversion=0 owner=0x0 length=0 children=1 creates=0 data="" kind=0 ttl=0 acl=[{cdrwa world anyone}]`,
		zookeeperPath: `/zookeeper czxid=0 mzxid=0 pzxid=0 ctime=0 mtime=0 version=0 cversion=-2 aversion=0 owner=0x0 length=0 children=2 creates=0 data="" kind=0 ttl=0 acl=[{cdrwa world anyone}]`,
		quotaPath:     `/zookeeper/quota czxid=0 mzxid=0 pzxid=0 ctime=0 mtime=0 version=0 cversion=0 aversion=0 owner=0x0 length=0 children=0 creates=0 data="" kind=0 ttl=0 acl=[{cdrwa world anyone}]`,
		configPath:    `/zookeeper/config czxid=0 mzxid=0 pzxid=0 ctime=0 mtime=0 version=0 cversion=0 aversion=-1 owner=0x0 length=0 children=0 creates=0 data="" kind=0 ttl=0 acl=[{r world anyone}]`,
	} {
		if got := printNode(path, &s.nodes[path].content); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	check(t, s)
}

// DM-31: the version after 2147483647 is negative, and -1 is skipped. A znode can be written on from there (PEER-53).
func TestNextVersion(t *testing.T) {
	for v, want := range map[int32]int32{0: 1, 5: 6, math.MaxInt32: math.MinInt32, math.MinInt32: math.MinInt32 + 1, -3: -2, -2: 0} {
		if got := nextVersion(v); got != want {
			t.Errorf("after %d comes %d, want %d", v, got, want)
		}
	}
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/a", nil, Persistent))
	n := w.nodes["/a"]
	n.version, n.aversion = -2, -2
	w.resum(n)
	w.must(t, id, OpSet("/a", nil, -2), OpSet("/a", nil, 0), Op{kind: opSetACL, path: "/a", acl: OpenACL(), version: -2})
	if n.version != 1 || n.aversion != 0 {
		t.Errorf("version %d, aversion %d", n.version, n.aversion)
	}
	n.version = math.MaxInt32
	w.resum(n)
	w.must(t, id, OpSet("/a", []byte("x"), math.MaxInt32)) // PEER-53: it is not frozen there
	w.must(t, id, OpSet("/a", []byte("y"), math.MinInt32))
	if n.version != math.MinInt32+1 || n.data != "y" {
		t.Errorf("version %d, data %q", n.version, n.data)
	}
}

// DM-29, E11: the counter grows past ten digits and past 32 bits; cversion is computed in 32 bits (DM-30).
func TestCounterNeverWraps(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/q", nil, Persistent))
	n := w.nodes["/q"]
	for _, c := range []struct {
		creates int64
		name    string
	}{
		{math.MaxInt32, "/q/n2147483647"}, {math.MaxInt32 + 1, "/q/n2147483648"}, {9_999_999_999, "/q/n9999999999"}, {10_000_000_000, "/q/n10000000000"},
	} {
		n.creates = c.creates
		w.resum(n)
		out := w.must(t, id, OpCreate("/q/n", nil, Sequential))
		if got := out.steps[0].path; got != c.name {
			t.Errorf("counter %d: %s, want %s", c.creates, got, c.name)
		}
		if seq, ok := Sequence(out.steps[0].path); !ok || seq != c.creates {
			t.Errorf("%s is read as %d, %v", c.name, seq, ok)
		}
		if got, want := n.stat().cversion, int32(2*n.creates-int64(n.numChildren())); got != want {
			t.Errorf("cversion %d, want %d", got, want)
		}
	}
	last := ""
	n.sequence.Ascend(func(n *znode) bool {
		last = n.path
		return true
	})
	if last != "/q/n10000000000" {
		t.Errorf("the last in sequence is %s", last)
	}
	check(t, w.state)
}

// E5: neighbours and pages of an ordered directory, against a sorted slice.
func TestChildIndex(t *testing.T) {
	w := newWorld()
	id := w.open()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, dir := range []string{"/", "/d"} {
		if dir != "/" {
			w.must(t, id, OpCreate(dir, nil, Persistent))
		}
		var names []string
		for range 200 {
			name := fmt.Sprintf("%c%x", 'a'+rnd.IntN(26), rnd.IntN(1000))
			if w.code(id, OpCreate(joinPath(dir, name), nil, Persistent)) == 0 {
				names = append(names, name)
			}
		}
		if dir == "/" {
			names = append(names, "zookeeper", "d")
			w.must(t, id, OpCreate("/d", nil, Persistent))
			w.must(t, id, OpDelete("/d", AnyVersion))
			names = names[:len(names)-1]
		}
		slices.Sort(names)
		c := &w.nodes[dir].content
		for range 200 {
			pivot := fmt.Sprintf("%c%x", 'a'+rnd.IntN(26), rnd.IntN(1000))
			if rnd.IntN(2) == 0 {
				pivot = names[rnd.IntN(len(names))]
			}
			i, found := slices.BinarySearch(names, pivot)
			after := names[i:]
			if found {
				after = names[i+1:]
			}
			var got []string
			childrenAfter(c, dir, pivot, func(n *znode) bool {
				got = append(got, baseName(n.path))
				return len(got) < 5
			})
			if want := after[:min(5, len(after))]; !slices.Equal(got, want) {
				t.Fatalf("%s after %q: %q, want %q", dir, pivot, got, want)
			}
			before := ""
			if i > 0 {
				before = names[i-1]
			}
			if n := childBefore(c, dir, pivot); (n == nil) != (before == "") || n != nil && baseName(n.path) != before {
				t.Fatalf("%s before %q: %v, want %q", dir, pivot, n, before)
			}
		}
		var all []string
		childrenAfter(c, dir, "", func(n *znode) bool {
			all = append(all, baseName(n.path))
			return true
		})
		if !slices.Equal(all, names) {
			t.Errorf("%s: %q, want %q", dir, all, names)
		}
	}
	if childBefore(&w.nodes[quotaPath].content, quotaPath, "x") != nil {
		t.Error("a leaf has children")
	}
}

// Contenders with random prefixes are ordered by number.
func TestPrecedes(t *testing.T) {
	w := newWorld()
	id := w.open()
	w.must(t, id, OpCreate("/l", nil, Persistent))
	rnd := rand.New(rand.NewPCG(3, 4))
	var paths []string
	for i := range 50 {
		kind := []string{"read-", "write-"}[i%2]
		out := w.must(t, id, OpCreate(fmt.Sprintf("/l/_%08x-%s", rnd.Uint32(), kind), nil, Sequential))
		paths = append(paths, out.steps[0].path)
	}
	w.must(t, id, OpCreate("/l/plain", nil, Persistent))
	for i, p := range paths {
		want := ""
		for _, q := range paths[:i] {
			if strings.Contains(q, "write-") {
				want = q
			}
		}
		got := w.precedes(w.nodes[p], func(name string) bool { return strings.Contains(name, "write-") })
		if (got == nil) != (want == "") || got != nil && got.path != want {
			t.Errorf("before %s: %v, want %q", p, got, want)
		}
	}
	if w.precedes(w.nodes["/l"], func(string) bool { return true }) != nil {
		t.Error("/l is in no sequence")
	}
}

// Equal states have equal digests whatever the order of changes; any difference shows.
func TestDigest(t *testing.T) {
	build := func(mutate func(n *znode)) uint64 {
		w := newWorld()
		id := w.open()
		w.must(t, id, OpCreate("/a", []byte("x"), Persistent))
		mutate(w.nodes["/a"])
		w.resum(w.nodes["/a"])
		return w.sum
	}
	base := build(func(*znode) {})
	for name, f := range map[string]func(*znode){
		"data": func(n *znode) { n.data = "y" }, "czxid": func(n *znode) { n.czxid++ }, "mzxid": func(n *znode) { n.mzxid++ },
		"pzxid": func(n *znode) { n.pzxid++ }, "ctime": func(n *znode) { n.ctime++ }, "mtime": func(n *znode) { n.mtime++ },
		"creates": func(n *znode) { n.creates++ }, "owner": func(n *znode) { n.owner++ }, "ttl": func(n *znode) { n.ttl++ },
		"version": func(n *znode) { n.version++ }, "aversion": func(n *znode) { n.aversion++ }, "kind": func(n *znode) { n.kind++ },
		"null": func(n *znode) { n.data, n.null = "", true }, "empty": func(n *znode) { n.data = "" },
		"acl": func(n *znode) { n.acl = &aclList{entries: ReadACL(), key: "k"} },
	} {
		if build(f) == base {
			t.Errorf("%s is not in the digest", name)
		}
	}
	if build(func(n *znode) { n.data, n.null = "", true }) == build(func(n *znode) { n.data = "" }) {
		t.Error("null and empty have the same digest")
	}
}

func BenchmarkApply(b *testing.B) {
	w := newWorld()
	id := w.open()
	mark := w.session(id).mark
	w.must(b, id, OpCreate("/d", nil, Persistent))
	w.must(b, id, OpCreate("/s", nil, Persistent))
	w.must(b, id, OpCreate("/x", nil, Persistent))
	data := make([]byte, 100)
	run := func(name string, n int, next func(i int) []Op) {
		b.Run(name, func(b *testing.B) {
			raw := make([][]byte, b.N)
			for i := range raw {
				raw[i] = appendRequest(nil, &request{kind: reqTxn, session: id, mark: mark, ops: next(i)})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range raw {
				if out := w.apply(raw[i], "m1", w.stamp); out.code != 0 {
					b.Fatal(out.code)
				}
				w.changes = w.changes[:0]
			}
		})
	}
	serial := 0
	run("create", 0, func(int) []Op {
		serial++
		return []Op{OpCreate(fmt.Sprintf("/d/%d", serial), data, Persistent)}
	})
	run("sequential", 0, func(int) []Op { return []Op{OpCreate("/s/n-", data, Ephemeral|Sequential)} })
	run("set", 0, func(int) []Op { return []Op{OpSet("/x", data, AnyVersion)} })
	run("check", 0, func(int) []Op { return []Op{OpCheck("/x", AnyVersion)} })
	run("txn4", 0, func(int) []Op {
		return []Op{OpCheck("/x", AnyVersion), OpCreate("/x/c", nil, Persistent), OpSet("/x", data, AnyVersion), OpDelete("/x/c", AnyVersion)}
	})
}

func big(b *testing.B, n int) *world {
	w := newWorld()
	id := w.open()
	for i := range n {
		if i%1000 == 0 {
			w.must(b, id, OpCreate(fmt.Sprintf("/d%d", i/1000), nil, Persistent))
		}
		w.apply(appendRequest(nil, &request{kind: reqTxn, session: id, mark: w.session(id).mark,
			ops: []Op{OpCreate(fmt.Sprintf("/d%d/n%d", i/1000, i), []byte("0123456789"), Persistent)}}), "m1", w.stamp)
		w.changes = w.changes[:0]
	}
	w.log = nil
	return w
}

func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	w := big(b, n)
	id := w.open()
	mark := w.session(id).mark
	rnd := rand.New(rand.NewPCG(1, 1))
	do := func(b *testing.B, op Op) {
		if out := w.apply(appendRequest(nil, &request{kind: reqTxn, session: id, mark: mark, ops: []Op{op}}), "m1", w.stamp); out.code != 0 {
			b.Fatal(out.code)
		}
		w.changes = w.changes[:0]
	}
	path := func() string {
		i := rnd.IntN(n)
		return fmt.Sprintf("/d%d/n%d", i/1000, i)
	}
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if w.nodes[path()] == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("createdelete", func(b *testing.B) {
		for b.Loop() {
			p := path() + "x"
			do(b, OpCreate(p, nil, Persistent))
			do(b, OpDelete(p, AnyVersion))
		}
	})
	b.Run("set", func(b *testing.B) {
		for b.Loop() {
			do(b, OpSet(path(), []byte("9876543210"), AnyVersion))
		}
	})
	b.Run("list1000", func(b *testing.B) {
		for b.Loop() {
			count := 0
			childrenAfter(&w.nodes[fmt.Sprintf("/d%d", rnd.IntN(n/1000))].content, "", "", func(*znode) bool {
				count++
				return true
			})
			if count < 1000 {
				b.Fatal(count)
			}
		}
	})
	b.Run("freeze", func(b *testing.B) {
		for b.Loop() {
			f := w.freeze()
			w.closeView(f.view, 1)
		}
	})
	b.Run("set-beside-snapshot", func(b *testing.B) {
		f := w.freeze()
		for b.Loop() {
			do(b, OpSet(path(), []byte("9876543210"), AnyVersion))
		}
		for w.closeView(f.view, 1000) {
		}
	})
	b.Run("write-snapshot", func(b *testing.B) {
		for b.Loop() {
			f := w.freeze()
			size, err := f.write(nowhere{}, func(fn func()) { fn() })
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for w.closeView(f.view, 1000) {
			}
		}
	})
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
