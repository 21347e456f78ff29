// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// step is one request of the comparison, whole in itself, so that a trace can be cut at will.
type step struct {
	who     int // which of the two sessions
	op      opcode
	path    string // below the run's own root, or absolute with a leading "!"
	data    []byte
	version int32
	flags   int32
	ttl     int64
	acl     []zk.ACL
	flag    bool // watch
	number  int32
	lists   [5][]string // setWatches2
	since   int         // setWatches2: as far back as this many steps
	multi   []step
	raw     []byte // sent as the body, if not nil
	xid     int32  // 0: the next
	life    life
}

// life is what happens to a session instead of a request.
type life uint8

const (
	asks      life = iota
	reconnect      // the connection is cut, the session resumed
	renew          // the session is closed and another begun
)

func (s step) String() string {
	if s.life != asks {
		return fmt.Sprintf("session %d: %s", s.who, []string{"", "reconnect", "close and open"}[s.life])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "session %d: op %d path %q data %.40q version %d flags %d ttl %d acl %v watch %t number %d", s.who, s.op, s.path, s.data, s.version, s.flags, s.ttl, s.acl, s.flag, s.number)
	if s.op == opSetWatches || s.op == opSetWatches2 {
		fmt.Fprintf(&b, " lists %q since %d", s.lists, s.since)
	}
	if s.raw != nil {
		fmt.Fprintf(&b, " raw %x", s.raw)
	}
	for _, m := range s.multi {
		fmt.Fprintf(&b, "\n      step: %v", m)
	}
	return b.String()
}

func full(root, path string) string {
	if abs, ok := strings.CutPrefix(path, "!"); ok {
		return abs
	}
	return root + path
}

func fullAll(root string, paths []string) (all []string) {
	for _, p := range paths {
		all = append(all, full(root, p))
	}
	return all
}

// body encodes the request; since is the zxid for setWatches.
func (s step) body(root string, since int64) []byte {
	if s.raw != nil {
		return s.raw
	}
	path := full(root, s.path)
	b := []byte{}
	switch s.op {
	case opCreate, opCreate2, opCreateContainer, opCreateTTL:
		r := createRequest{path: path, data: s.data, acl: s.acl, flags: s.flags, ttl: s.ttl}
		return r.append(b, s.op)
	case opDelete, opCheck:
		return appendInt(appendString(b, path), s.version)
	case opExists, opGetData, opGetChildren, opGetChildren2:
		return appendBool(appendString(b, path), s.flag)
	case opSetData:
		return appendInt(appendBuffer(appendString(b, path), s.data), s.version)
	case opSetACL:
		return appendInt(appendACL(appendString(b, path), s.acl), s.version)
	case opGetACL, opSync, opGetEphemerals, opCountChildren:
		return appendString(b, path)
	case opCheckWatches, opRemoveWatches, opAddWatch:
		return appendInt(appendString(b, path), s.number)
	case opAuth:
		return appendBuffer(appendString(appendInt(b, 0), s.path[1:]), s.data)
	case opSetWatches, opSetWatches2:
		b = appendLong(b, since)
		n := 3
		if s.op == opSetWatches2 {
			n = 5
		}
		for _, l := range s.lists[:n] {
			b = appendStrings(b, fullAll(root, l))
		}
		return b
	case opMulti, opMultiRead:
		for _, m := range s.multi {
			b = append(multiHeader{m.op, false, -1}.append(b), m.body(root, 0)...)
		}
		return multiEnd.append(b)
	}
	return b
}

// generator makes steps from a seed.
type generator struct {
	r *rand.Rand
}

func pick[T any](g *generator, of ...T) T { return of[g.r.IntN(len(of))] }

// path is mostly one of a few, so that the steps meet; some are wrong in a way of their own.
func (g *generator) path() string {
	switch g.r.IntN(40) {
	case 0:
		return pick(g, "/", "/a/", "//a", "/a//b", "/./a", "/a/..", "/\x01", "/a\u0080b", "/\uf000", "!", "!a", "!/zookeeper", "!/zookeeper/config", "!/zookeeper/quota")
	case 1:
		return ""
	case 2:
		return pick(g, "/ü", "/日本", "/a b", "/.a", "/a/...", "/A", "/\u00a0")
	}
	p := pick(g, "/a", "/a", "/b", "/a/a", "/a/a", "/a/b", "/b/a", "/a/a/a", "/c")
	if g.r.IntN(10) == 0 {
		p += fmt.Sprintf("/%s%010d", pick(g, "", "s", "q-"), g.r.IntN(4))
	}
	return p
}

// watchMode is the one mode of watch that a path may have in a run: ZooKeeper 3.8.0 keeps one per connection and path,
// the last one (WT-4), so that mixed ones differ from then on.
func (g *generator) watchMode(path string) int { return int(crc32.ChecksumIEEE([]byte(path)) % 3) }

// watched picks a path that may have watches of a mode: 0 standard, 1 persistent, 2 recursive.
func (g *generator) watched(mode int) string {
	for {
		if p := g.path(); g.watchMode(p) == mode {
			return p
		}
	}
}

func (g *generator) paths(mode int) (ps []string) {
	for range g.r.IntN(4) {
		ps = append(ps, g.watched(mode))
	}
	return ps
}

func (g *generator) content() []byte {
	switch g.r.IntN(8) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return []byte(strings.Repeat("x", g.r.IntN(3000)))
	}
	return fmt.Appendf(nil, "data %d", g.r.IntN(100))
}

func (g *generator) ver() int32 {
	return pick[int32](g, -1, -1, -1, -1, -1, 0, 0, 0, 1, 1, 2, -2, 1<<31-1)
}

// The digests are of bob:secret and amy:word.
var digests = []string{zk.DigestID("bob:secret"), zk.DigestID("amy:word")}

func (g *generator) acl() []zk.ACL {
	open := []zk.ACL{{Perm: zk.PermAll, Scheme: "world", ID: "anyone"}}
	switch g.r.IntN(40) {
	case 0:
		return nil
	case 1:
		return []zk.ACL{{Perm: zk.PermAll, Scheme: "auth", ID: ""}}
	case 2:
		return []zk.ACL{{Perm: zk.Perm(g.r.IntN(32)), Scheme: "digest", ID: pick(g, digests...)}, {Perm: zk.PermRead, Scheme: "world", ID: "anyone"}}
	case 3, 7, 8:
		return []zk.ACL{{Perm: zk.Perm(g.r.IntN(32)), Scheme: "world", ID: "anyone"}}
	case 9, 10:
		return []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: pick(g, digests...)}}
	case 4:
		return []zk.ACL{{Perm: zk.PermAll, Scheme: "ip", ID: pick(g, "127.0.0.1", "127.0.0.0/8", "10.0.0.1", "10.0.0.0/8", "nonsense", "127.0.0.1/99")}}
	case 5:
		return []zk.ACL{{Perm: zk.PermAll, Scheme: pick(g, "nonsense", "world", "digest", ""), ID: pick(g, "anybody", "", "bob:x", "x")}}
	case 6:
		return append(open, open...)
	}
	return open
}

// create fills in a create of any kind.
func (g *generator) create(op opcode) step {
	s := step{op: op, path: g.path(), data: g.content(), acl: g.acl()}
	switch op {
	case opCreateContainer:
		s.flags = pick[int32](g, 4, 4, 4, 4, 0, 0, 9, 5)
		if g.r.IntN(30) == 0 {
			s.flags = pick[int32](g, 1, 2, 3)
		}
	case opCreateTTL:
		s.flags = pick[int32](g, 5, 5, 6, 6, 0, 1, 4)
		s.ttl = pick[int64](g, 3_600_000, 3_600_000, 1<<39, 0, -1, 1<<40, 1<<41)
		if s.flags < 5 { // a negative one stops ZooKeeper 3.8.0 for ever: the entry in its log fails again at each start
			s.ttl = max(s.ttl, 0)
		}
	default:
		s.flags = pick[int32](g, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 5, 6, 7, -1)
		if g.r.IntN(100) == 0 {
			s.flags = 4
		}
	}
	if s.flags == 2 || s.flags == 3 || s.flags == 6 {
		if s.path == "" { // the number would be one of the directory that all runs share
			s.path = "/"
		}
		s.path += pick(g, "", "-", "/", "/s", "/q-")
	}
	return s
}

func (g *generator) writeStep() step {
	switch g.r.IntN(12) {
	case 0, 1, 2, 3:
		return g.create(pick(g, opCreate, opCreate, opCreate2))
	case 4:
		return g.create(pick(g, opCreateContainer, opCreateTTL))
	case 5, 6:
		return step{op: opDelete, path: g.path(), version: g.ver()}
	case 8:
		return step{op: opCheck, path: g.path(), version: g.ver()}
	}
	return step{op: opSetData, path: g.path(), data: g.content(), version: g.ver()}
}

// step makes the next one.
func (g *generator) step() step {
	for {
		s := g.any()
		s.who = g.r.IntN(2)
		// Other runs share what is outside of the run's own root: it is left as it is, and neither read nor watched.
		shared := func(s step) bool {
			return strings.HasPrefix(s.path, "!/zookeeper") && s.op != opDelete && s.op != opCreate || s.path == "!" && !s.writes()
		}
		if !s.has(shared) && !slices.ContainsFunc(slices.Concat(s.lists[:]...), func(p string) bool { return p[:min(1, len(p))] == "!" }) {
			return s
		}
	}
}

func (g *generator) any() step {
	read := func(of ...opcode) step {
		s := step{op: pick(g, of...), path: g.path()}
		if g.r.IntN(2) == 0 {
			s.path, s.flag = g.watched(0), true
		}
		return s
	}
	switch n := g.r.IntN(100); {
	case n < 36:
		if s := g.writeStep(); s.op != opCheck {
			return s
		}
		return read(opExists)
	case n < 43:
		s := step{op: opMulti}
		for range g.r.IntN(5) {
			s.multi = append(s.multi, g.writeStep())
		}
		return s
	case n < 45:
		s := step{op: opMultiRead}
		for range g.r.IntN(4) {
			s.multi = append(s.multi, step{op: pick(g, opGetData, opGetChildren), path: g.path()})
		}
		return s
	case n < 65:
		return read(opExists, opGetData, opGetChildren, opGetChildren2)
	case n < 68:
		return step{op: opSetACL, path: g.path(), acl: g.acl(), version: g.ver()}
	case n < 71:
		return step{op: opGetACL, path: g.path()}
	case n < 77:
		s := step{op: opAddWatch, number: pick[int32](g, 0, 0, 0, 1, 1, 1, 2, -1)}
		s.path = g.watched(1 + int(s.number&1))
		return s
	case n < 81:
		s := step{op: pick(g, opCheckWatches, opRemoveWatches), number: pick[int32](g, 1, 2, 3, 1, 2, 3, 4, 5, 0, 9)}
		s.path = g.watched(0)
		if s.number == 3 { // 3.8.0 takes 1 and 2 for all modes
			s.path = g.path()
		}
		return s
	case n < 83:
		return step{op: pick(g, opGetEphemerals, opCountChildren, opSync), path: g.path()}
	case n < 84:
		return step{op: opWhoAmI}
	case n < 86:
		return step{op: opAuth, path: "!" + pick(g, "digest", "digest", "digest", "nonsense", "world", "ip"), data: pick(g, []byte("bob:secret"), []byte("amy:word"), []byte("bob"), []byte{}), xid: xidAuth}
	case n < 91:
		s := step{op: pick(g, opSetWatches, opSetWatches2), since: g.r.IntN(12), xid: xidSetWatches}
		for i := range s.lists {
			s.lists[i] = g.paths(max(0, i-2))
		}
		return s
	case n < 95:
		return step{life: reconnect}
	case n < 97:
		return step{life: renew}
	case n < 98:
		return step{op: opPing, xid: pick(g, xidPing, 77)}
	case n < 99: // requests that cannot be read
		return step{op: pick(g, opCreate, opGetData, opSetData, opDelete, opSetACL, opMulti, opAddWatch), raw: pick(g, []byte{}, []byte{0, 0, 0}, []byte{255, 255, 255, 255}, []byte{0, 0, 0, 9, '/'}, []byte{127, 255, 255, 255, 1, 2})}
	}
	// not 13, which ZooKeeper 3.8.0 leaves unanswered, nor 20, 0 and -10, which it takes for internal ones
	return step{op: pick[opcode](g, 10, 99, 12345, 108, -12)}
}
