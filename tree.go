// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"hash/crc32"
	"math/bits"
	"unsafe"

	"github.com/google/btree"
)

type nodeKind uint8

const (
	nodePersistent nodeKind = iota
	nodeEphemeral
	nodeContainer
	nodeTTL
)

// znode is one node of the tree. Its path never changes; everything else is content.
type znode struct {
	path string
	content
}

// content is what a znode holds. A change under an open view leaves the old content behind in older.
type content struct {
	data                string
	acl                 *aclList              // nil: everybody may do everything
	children            *btree.BTreeG[*znode] // by name; nil: none
	sequence            *btree.BTreeG[*znode] // the children with a sequence number, by it; not for views
	older               *content              // what it was before since
	since               uint64                // the epoch in which this content was begun
	sum                 uint64                // its part in the tree's digest
	czxid, mzxid, pzxid Zxid
	ctime, mtime        int64
	creates             int64     // of children, ever: sequence numbers come from it (DM-25)
	owner               SessionID // of an ephemeral
	ttl                 int64     // milliseconds
	version, aversion   int32
	kind                nodeKind
	null                bool
}

func (c *content) numChildren() int {
	if c.children == nil {
		return 0
	}
	return c.children.Len()
}

// stat shows a content as clients see it. cversion counts creates plus deletes (DM-30); the owner of a
// container or TTL znode is not shown (DM-18).
func (c *content) stat() stat {
	n := c.numChildren()
	return stat{
		czxid: c.czxid, mzxid: c.mzxid, pzxid: c.pzxid, ctime: c.ctime, mtime: c.mtime,
		version: c.version, cversion: int32(2*c.creates - int64(n)), aversion: c.aversion,
		owner: c.owner, dataLength: len(c.data), numChildren: n,
	}
}

func lessNode(a, b *znode) bool { return a.path < b.path }

// lessSequence orders contenders whose names start with something random.
func lessSequence(a, b *znode) bool {
	i, _ := Sequence(a.path)
	j, _ := Sequence(b.path)
	return i < j || i == j && a.path < b.path
}

// tree holds the znodes. It is changed in place, by one writer.
type tree struct {
	root  *znode
	nodes map[string]*znode
	free  *btree.FreeListG[*znode] // shared by all directories

	overSoft string // the last quota whose soft limit a change has exceeded; whoever reports it resets it

	owned   map[SessionID]*btree.BTreeG[*znode] // the ephemerals of each session, by path
	mortals *btree.BTreeG[*znode]               // containers and TTL znodes, by path
	quotas  map[string]bool                     // paths with a limits znode (DM-72)
	acls    map[string]*aclList                 // equal lists are shared

	bytes      int64 // of paths and data (DM-123)
	ephemerals int
	sum        uint64 // of all znodes' sums: the digest, whatever the order of changes

	vers versions
}

const (
	btreeDegree = 16

	// viewBytesMax bounds what is kept for open views; past it the oldest one expires.
	viewBytesMax = 256 << 20
)

const (
	zookeeperPath = "/zookeeper"
	quotaPath     = "/zookeeper/quota"
	configPath    = "/zookeeper/config"
	limitsName    = "zookeeper_limits"
	statsName     = "zookeeper_stats"
)

func emptyTree(size int) *tree {
	free := btree.NewFreeListG[*znode](1024)
	return &tree{
		nodes:   make(map[string]*znode, size),
		free:    free,
		owned:   map[SessionID]*btree.BTreeG[*znode]{},
		mortals: btree.NewWithFreeListG(btreeDegree, lessNode, free),
		quotas:  map[string]bool{},
		acls:    map[string]*aclList{},
		vers:    versions{epoch: 1, limit: viewBytesMax},
	}
}

// makeRoom makes the map large enough for that many znodes.
func (t *tree) makeRoom(size int) {
	t.nodes = make(map[string]*znode, size)
	t.nodes[t.root.path] = t.root
	descendants(t.root, func(n *znode) bool {
		t.nodes[n.path] = n
		return true
	})
}

// newTree returns the tree every ensemble starts with (DM-12 to DM-14).
func newTree() *tree {
	t := emptyTree(0)
	for _, p := range [...]string{"/", zookeeperPath, quotaPath, configPath} {
		n := &znode{path: p}
		if p == configPath {
			n.acl = t.shareACL([]ACL{{PermRead, schemeWorld, "anyone"}})
			n.aversion = -1
		}
		t.link(n)
	}
	t.resumDirectories()
	return t
}

// link puts a znode that is complete in itself into the tree and its indexes. Its parent is there already.
func (t *tree) link(n *znode) {
	n.since = t.vers.epoch
	t.nodes[n.path] = n
	t.bytes += int64(len(n.path) + len(n.data))
	if n.path == "/" {
		t.root = n
	} else {
		p := t.nodes[parentPath(n.path)]
		if p.children == nil {
			p.children = btree.NewWithFreeListG(btreeDegree, lessNode, t.free)
		}
		p.children.ReplaceOrInsert(n)
		if _, ok := Sequence(n.path); ok {
			if p.sequence == nil {
				p.sequence = btree.NewWithFreeListG(btreeDegree, lessSequence, t.free)
			}
			p.sequence.ReplaceOrInsert(n)
		}
	}
	switch n.kind {
	case nodeEphemeral:
		set := t.owned[n.owner]
		if set == nil {
			set = btree.NewWithFreeListG(btreeDegree, lessNode, t.free)
			t.owned[n.owner] = set
		}
		set.ReplaceOrInsert(n)
		t.ephemerals++
	case nodeContainer, nodeTTL:
		t.mortals.ReplaceOrInsert(n)
	}
	if root, ok := quotaRoot(n.path, limitsName); ok {
		t.quotas[root] = true
	}
	t.resum(n)
}

// resum brings n's part of the digest up to date after a change.
func (t *tree) resum(n *znode) {
	t.sum -= n.sum
	n.sum = n.content.hash(n.path)
	t.sum += n.sum
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hash covers everything that is replicated. Children are covered by their own hashes and the count.
func (c *content) hash(path string) uint64 {
	h := uint64(checksum(path))<<32 | uint64(checksum(c.data))
	var acl uint64
	if c.acl != nil {
		acl = uint64(checksum(c.acl.key)) + 1
	}
	flags := uint64(c.kind) << 1
	if c.null {
		flags |= 1
	}
	for _, v := range [...]uint64{uint64(len(path)), uint64(len(c.data)), uint64(c.czxid), uint64(c.mzxid), uint64(c.pzxid), uint64(c.ctime), uint64(c.mtime),
		uint64(c.creates), uint64(c.numChildren()), uint64(c.owner), uint64(c.ttl), uint64(uint32(c.version)), uint64(uint32(c.aversion)), flags, acl} {
		h = mix(h ^ v)
	}
	return h
}

// checksum reads s where it lies: values can be large.
func checksum(s string) uint32 {
	return crc32.Checksum(unsafe.Slice(unsafe.StringData(s), len(s)), castagnoli)
}

// mix spreads x over all 64 bits (the finisher of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return bits.RotateLeft64(x^x>>31, 17)
}

// shareACL stores a list. The open ACL is nil.
func (t *tree) shareACL(list []ACL) *aclList {
	if len(list) == 1 && list[0] == (ACL{PermAll, schemeWorld, "anyone"}) {
		return nil
	}
	key := string(appendACL(nil, list))
	l := t.acls[key]
	if l == nil {
		l = &aclList{entries: list, key: key}
		t.acls[key] = l
	}
	l.refs++
	return l
}

func (t *tree) dropACL(l *aclList) {
	if l == nil {
		return
	}
	if l.refs--; l.refs == 0 {
		delete(t.acls, l.key)
	}
}

// nextVersion skips -1, which means any version (DM-31).
func nextVersion(v int32) int32 {
	if v++; v == -1 {
		return 0
	}
	return v
}

// create adds a znode whose place has been checked. It fills in what a new znode starts with.
func (t *tree) create(n *znode, zxid Zxid, now int64) {
	n.czxid, n.mzxid, n.pzxid = zxid, zxid, zxid
	n.ctime, n.mtime = now, now
	p := t.nodes[parentPath(n.path)]
	t.touch(p)
	p.creates++
	p.pzxid = max(p.pzxid, zxid)
	t.link(n)
	t.resum(p)
	t.account(n.path, 1, int64(len(n.data)))
	if root, ok := quotaRoot(n.path, statsName); ok {
		t.recount(n, root)
	}
}

// set replaces data; unchanged bytes are a change too (DM-34).
func (t *tree) set(n *znode, data string, null bool, zxid Zxid, now int64) {
	diff := int64(len(data) - len(n.data))
	t.touch(n)
	t.bytes += diff
	n.data, n.null = data, null
	n.version = nextVersion(n.version)
	n.mzxid, n.mtime = zxid, now
	t.resum(n)
	t.account(n.path, 0, diff)
}

// setACL changes the list and its version, nothing else (DM-32).
func (t *tree) setACL(n *znode, acl []ACL) {
	t.touch(n)
	t.dropACL(n.acl)
	n.acl = t.shareACL(acl)
	n.aversion = nextVersion(n.aversion)
	t.resum(n)
}

// remove takes a childless znode away.
func (t *tree) remove(n *znode, zxid Zxid) {
	if n.numChildren() > 0 {
		panic("zk: " + n.path + " removed with children")
	}
	p := t.nodes[parentPath(n.path)]
	t.touch(p)
	if _, ok := p.children.Delete(n); !ok {
		panic("zk: " + n.path + " is not among its parent's children")
	}
	if p.children.Len() == 0 {
		p.children, p.sequence = nil, nil
	} else if p.sequence != nil {
		p.sequence.Delete(n)
	}
	p.pzxid = max(p.pzxid, zxid)
	delete(t.nodes, n.path)
	t.bytes -= int64(len(n.path) + len(n.data))
	t.sum -= n.sum
	t.resum(p)
	switch n.kind {
	case nodeEphemeral:
		set := t.owned[n.owner]
		set.Delete(n)
		if set.Len() == 0 {
			delete(t.owned, n.owner)
		}
		t.ephemerals--
	case nodeContainer, nodeTTL:
		t.mortals.Delete(n)
	}
	if root, ok := quotaRoot(n.path, limitsName); ok {
		delete(t.quotas, root)
	}
	t.dropACL(n.acl)
	t.account(n.path, -1, -int64(len(n.data)))
	t.vers.deleted(n)
}

// childrenAfter calls fn for the children of c in order, those after name only, until fn returns false.
func childrenAfter(c *content, dir, name string, fn func(*znode) bool) {
	if c.children == nil {
		return
	}
	if name == "" {
		c.children.Ascend(fn)
		return
	}
	pivot := &znode{path: joinPath(dir, name)}
	c.children.AscendGreaterOrEqual(pivot, func(n *znode) bool { return n.path == pivot.path || fn(n) })
}

// childBefore returns the child of c that precedes name.
func childBefore(c *content, dir, name string) (found *znode) {
	if c.children == nil {
		return nil
	}
	pivot := &znode{path: joinPath(dir, name)}
	c.children.DescendLessOrEqual(pivot, func(n *znode) bool {
		if n.path == pivot.path {
			return true
		}
		found = n
		return false
	})
	return found
}

// precedes returns the nearest sibling before n in sequence order whose name matches.
func (t *tree) precedes(n *znode, match func(name string) bool) (found *znode) {
	p := t.nodes[parentPath(n.path)]
	if p.sequence == nil {
		return nil
	}
	p.sequence.DescendLessOrEqual(n, func(o *znode) bool {
		if o != n && match(baseName(o.path)) {
			found = o
		}
		return found == nil
	})
	return found
}

// descendants calls fn for every znode below n, children before their parents, each directory in order, until
// fn returns false.
func descendants(n *znode, fn func(*znode) bool) (ok bool) {
	ok = true
	if n.children != nil {
		n.children.Ascend(func(c *znode) bool {
			ok = descendants(c, fn) && fn(c)
			return ok
		})
	}
	return ok
}
