// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/google/btree"
	"github.com/seed-541fafe0/zk/internal/codec"
)

// A snapshot is a header, then blocks. Each block is its kind, its length, a CRC-32C over kind, length and payload,
// and the payload. The last block repeats the counts, so that a truncated stream is never taken for a whole one.
//
//	"zk snapshot\n" format
//	block 's': counters, configuration, members, origins, sessions; they may take several blocks
//	block 't': znodes, parents before their children, children in order; several blocks
//	block 'e': counts and the tree's digest
const (
	snapshotMagic = "zk snapshot\n"
	blockTarget   = 64 << 10
	blockMax      = 16 << 20

	// chunk is how many znodes are read, and how many requests applied, without letting go of the lock.
	chunk = 64
)

// frozen is a picture of the whole state, taken at one zxid.
type frozen struct {
	view     *view
	sessions *btree.BTreeG[*session]
	origins  []origin
	members  []memberRecord
	servers  []server
	cluster  string
	zxid     Zxid
	now      int64
	term     uint64
	lastID   SessionID
	feature  uint64
	nodes    int
	sum      uint64
}

// freeze takes constant time but for the members and their unacknowledged results, which are few.
func (s *state) freeze() *frozen {
	f := &frozen{
		view: s.openView(s.zxid, s.now, true), sessions: s.sessions.Clone(), members: slices.Clone(s.members), servers: s.servers,
		cluster: s.cluster, zxid: s.zxid, now: s.now, term: s.term, lastID: s.lastID, feature: s.feature, nodes: len(s.nodes), sum: s.sum,
	}
	for _, o := range s.origins {
		o.kept = slices.Clone(o.kept)
		f.origins = append(f.origins, o)
	}
	return f
}

type blockWriter struct {
	w     io.Writer
	kind  byte
	buf   []byte
	bytes int64
}

func (b *blockWriter) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	var head [9]byte
	head[0] = b.kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(b.buf)))
	binary.BigEndian.PutUint32(head[5:], crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, b.buf))
	if _, err := b.w.Write(head[:]); err != nil {
		return err
	}
	_, err := b.w.Write(b.buf)
	b.bytes += int64(len(head) + len(b.buf))
	b.buf = b.buf[:0]
	return err
}

// full writes the block out once it is large enough.
func (b *blockWriter) full() error {
	if len(b.buf) < blockTarget {
		return nil
	}
	return b.flush()
}

// write streams the picture and returns how many bytes that took. locked runs a function while the tree cannot change; it is called once for every
// chunk of znodes.
func (f *frozen) write(w io.Writer, locked func(func())) (int64, error) {
	if _, err := w.Write(append([]byte(snapshotMagic), formatVersion)); err != nil {
		return 0, err
	}
	b := &blockWriter{w: w, kind: 's', bytes: int64(len(snapshotMagic) + 1)}
	b.buf = codec.AppendVarint(b.buf, int64(f.zxid))
	b.buf = codec.AppendVarint(b.buf, f.now)
	b.buf = codec.AppendUvarint(b.buf, f.term)
	b.buf = codec.AppendVarint(b.buf, int64(f.lastID))
	b.buf = codec.AppendUvarint(b.buf, f.feature)
	b.buf = codec.AppendString(b.buf, f.cluster)
	b.buf = codec.AppendUvarint(b.buf, uint64(len(f.servers)))
	for _, v := range f.servers {
		b.buf = codec.AppendBool(codec.AppendString(b.buf, v.id), v.voter)
	}
	b.buf = codec.AppendUvarint(b.buf, uint64(len(f.members)))
	for _, m := range f.members {
		b.buf = appendMember(b.buf, m)
	}
	b.buf = codec.AppendUvarint(b.buf, uint64(len(f.origins)))
	b.buf = codec.AppendUvarint(b.buf, uint64(f.sessions.Len()))
	b.buf = codec.AppendUvarint(b.buf, uint64(f.nodes))
	if err := b.flush(); err != nil {
		return b.bytes, err
	}
	for i := range f.origins {
		b.buf = appendOrigin(b.buf, &f.origins[i])
		if err := b.full(); err != nil {
			return b.bytes, err
		}
	}
	var err error
	f.sessions.Ascend(func(s *session) bool {
		b.buf = appendSession(b.buf, s)
		err = b.full()
		return err == nil
	})
	if err == nil {
		err = b.flush()
	}
	b.kind = 't'
	var walk *walker
	locked(func() { walk = newWalker(f.view, "/") })
	for more := true; more && err == nil; {
		locked(func() {
			for i := 0; i < chunk && len(b.buf) < blockTarget; i++ {
				n, c := walk.next()
				if n == nil {
					more = false
					return
				}
				b.buf = appendNode(b.buf, n.path, c)
			}
		})
		err = b.full()
	}
	if err == nil {
		err = b.flush()
	}
	if err != nil {
		return b.bytes, err
	}
	b.kind = 'e'
	b.buf = codec.AppendUvarint(b.buf, uint64(f.nodes))
	b.buf = codec.AppendUint64(b.buf, f.sum)
	err = b.flush()
	return b.bytes, err
}

func appendOrigin(b []byte, o *origin) []byte {
	b = codec.AppendString(b, o.member)
	b = codec.AppendUvarint(b, o.incarnation)
	b = codec.AppendUvarint(b, o.last)
	b = codec.AppendUvarint(b, uint64(len(o.kept)))
	for _, k := range o.kept {
		b = codec.AppendUvarint(b, k.number)
		b = codec.AppendUvarint(b, uint64(len(k.outcomes)))
		for i := range k.outcomes {
			b = appendOutcome(b, &k.outcomes[i])
		}
	}
	return b
}

func readOrigin(r *codec.Reader) (o origin) {
	o.member, o.incarnation, o.last = r.String(), r.Uvarint(), r.Uvarint()
	o.kept = make([]keptFrame, 0, r.Count(2))
	for range cap(o.kept) {
		k := keptFrame{number: r.Uvarint()}
		k.outcomes = make([]outcome, 0, r.Count(4))
		for range cap(k.outcomes) {
			k.outcomes = append(k.outcomes, readOutcome(r))
		}
		o.kept = append(o.kept, k)
	}
	return o
}

func appendSession(b []byte, s *session) []byte {
	b = codec.AppendUvarint(b, uint64(s.id))
	b = codec.AppendVarint(b, s.timeout)
	b = codec.AppendString(b, s.password)
	b = codec.AppendString(b, s.name)
	b = appendIdentities(b, s.ids)
	b = codec.AppendVarint(b, int64(s.mark))
	b = codec.AppendString(b, s.member)
	b = codec.AppendVarint(b, s.created)
	b = codec.AppendVarint(b, s.limit)
	return codec.AppendBool(b, s.killed)
}

func readSession(r *codec.Reader) *session {
	return &session{
		id: SessionID(r.Uvarint()), timeout: r.Varint(), password: r.String(), name: r.String(), ids: readIdentities(r),
		mark: Zxid(r.Varint()), member: r.String(), created: r.Varint(), limit: r.Varint(), killed: r.Bool(),
	}
}

func appendNode(b []byte, path string, c *content) []byte {
	b = codec.AppendString(b, path)
	b = appendData(b, c.data, c.null)
	b = codec.AppendByte(b, byte(c.kind))
	for _, v := range [...]int64{int64(c.czxid), int64(c.mzxid - c.czxid), int64(c.pzxid - c.czxid), c.ctime, c.mtime - c.ctime, c.creates,
		int64(c.version), int64(c.aversion), int64(c.owner), c.ttl} {
		b = codec.AppendVarint(b, v)
	}
	return appendACL(b, aclEntries(c.acl))
}

func readNode(r *codec.Reader, t *tree) *znode {
	n := &znode{path: r.String()}
	n.data, n.null = readData(r)
	n.kind = nodeKind(r.Byte())
	n.czxid = Zxid(r.Varint())
	n.mzxid, n.pzxid = n.czxid+Zxid(r.Varint()), n.czxid+Zxid(r.Varint())
	n.ctime = r.Varint()
	n.mtime = n.ctime + r.Varint()
	n.creates, n.version, n.aversion, n.owner, n.ttl = r.Varint(), r.Int32(), r.Int32(), SessionID(r.Varint()), r.Varint()
	acl := readACL(r)
	if r.Err() == nil {
		n.acl = t.shareACL(acl)
	}
	return n
}

func damaged(format string, args ...any) error {
	return &Error{Op: "read snapshot", Code: ErrDataInconsistency, Err: fmt.Errorf(format, args...)}
}

type blockReader struct {
	r    io.Reader
	kind byte
	codec.Reader
}

// next reads and verifies one block.
func (b *blockReader) next() error {
	var head [9]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return damaged("%w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > blockMax {
		return damaged("block of %d bytes", n)
	}
	var buf bytes.Buffer // grows as bytes arrive, not as announced
	if m, err := io.CopyN(&buf, b.r, int64(n)); err != nil {
		return damaged("block ends after %d of %d bytes: %w", m, n, err)
	}
	if crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, buf.Bytes()) != binary.BigEndian.Uint32(head[5:]) {
		return damaged("checksum of a block does not match")
	}
	b.kind, b.Reader = head[0], codec.NewReader(buf.Bytes())
	return nil
}

// more makes sure that there is something to read in a block of that kind.
func (b *blockReader) more(kind byte) error {
	if b.Err() != nil {
		return damaged("%w", b.Err())
	}
	for b.Len() == 0 {
		if err := b.next(); err != nil {
			return err
		}
	}
	if b.kind != kind {
		return damaged("block %q where %q was expected", b.kind, kind)
	}
	return nil
}

// readSnapshot builds a new state. It fails, and nothing is changed, if anything about the stream is wrong.
func readSnapshot(r io.Reader) (*state, error) {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, damaged("%w", err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, damaged("not a snapshot")
	}
	if v := head[len(snapshotMagic)]; v != formatVersion {
		return nil, &Error{Op: "read snapshot", Code: ErrUnimplemented, Err: fmt.Errorf("format %d: %w", v, errFormat)}
	}
	b := &blockReader{r: r}
	if err := b.more('s'); err != nil {
		return nil, err
	}
	s := newState()
	s.zxid, s.now, s.term, s.lastID, s.feature, s.cluster = Zxid(b.Varint()), b.Varint(), b.Uvarint(), SessionID(b.Varint()), b.Uvarint(), b.String()
	s.servers = make([]server, 0, b.Count(2))
	for range cap(s.servers) {
		s.servers = append(s.servers, server{b.String(), b.Bool()})
	}
	s.members = make([]memberRecord, 0, b.Count(5))
	for range cap(s.members) {
		s.members = append(s.members, readMember(&b.Reader))
	}
	origins, sessions, nodes := b.Uvarint(), b.Uvarint(), b.Uvarint()
	if b.Err() != nil {
		return nil, damaged("%w", b.Err())
	}
	for range origins {
		if err := b.more('s'); err != nil {
			return nil, err
		}
		s.origins = append(s.origins, readOrigin(&b.Reader))
	}
	for range sessions {
		if err := b.more('s'); err != nil {
			return nil, err
		}
		s.sessions.ReplaceOrInsert(readSession(&b.Reader))
	}
	room := min(nodes, 1<<10)
	s.tree = emptyTree(int(room))
	for i := range nodes {
		if i == room { // what is announced is believed as far as it has come
			room = min(nodes, 16*room)
			s.makeRoom(int(room))
		}
		if err := b.more('t'); err != nil {
			return nil, err
		}
		n := readNode(&b.Reader, s.tree)
		if b.Err() != nil {
			return nil, damaged("%w", b.Err())
		}
		if why := s.canLink(n); why != "" {
			return nil, damaged("znode %q: %s", n.path, why)
		}
		s.link(n)
	}
	if err := b.more('e'); err != nil {
		return nil, err
	}
	count, sum := b.Uvarint(), b.Uint64()
	if err := b.Done(); err != nil {
		return nil, damaged("%w", err)
	}
	if err := s.verify(); err != nil {
		return nil, damaged("%w", err)
	}
	s.resumDirectories()
	if count != nodes || sum != s.sum {
		return nil, damaged("digest does not match")
	}
	return s, nil
}

// canLink tells why a znode from a snapshot cannot be put into the tree.
func (s *state) canLink(n *znode) string {
	if why := badPath(n.path); why != "" {
		return why
	}
	switch {
	case s.nodes[n.path] != nil:
		return "is there twice"
	case n.path != "/" && s.nodes[parentPath(n.path)] == nil:
		return "has no parent"
	case n.path != "/" && s.nodes[parentPath(n.path)].kind == nodeEphemeral:
		return "has an ephemeral parent"
	case n.kind > nodeTTL:
		return "is of an unknown kind"
	case n.kind == nodeEphemeral && s.session(n.owner) == nil:
		return "belongs to no session"
	}
	return ""
}

// resumDirectories brings the hashes of directories up to date after their children were linked.
func (t *tree) resumDirectories() {
	var visit func(n *znode) bool
	visit = func(n *znode) bool {
		if n.children != nil {
			t.resum(n)
			n.children.Ascend(visit)
		}
		return true
	}
	visit(t.root)
}

// verify checks what must hold between the parts of the state.
func (s *state) verify() error {
	for _, p := range [...]string{"/", zookeeperPath, quotaPath, configPath} {
		if n := s.nodes[p]; n == nil || n.kind != nodePersistent {
			return fmt.Errorf("%s is missing", p)
		}
	}
	if !slices.IsSortedFunc(s.origins, func(a, b origin) int { return cmp.Compare(a.member, b.member) }) ||
		!slices.IsSortedFunc(s.members, func(a, b memberRecord) int { return cmp.Compare(a.id, b.id) }) {
		return fmt.Errorf("members are out of order")
	}
	return nil
}

// digest covers everything replicated: equal on all members at equal zxid (P18).
func (s *state) digest() uint64 {
	b := codec.AppendUint64(nil, s.sum)
	b = codec.AppendVarint(b, int64(s.zxid))
	b = codec.AppendVarint(b, s.now)
	b = codec.AppendVarint(b, int64(s.lastID))
	b = codec.AppendUvarint(b, s.term)
	b = codec.AppendUvarint(b, s.feature)
	b = codec.AppendString(b, s.cluster)
	for _, m := range s.members {
		b = appendMember(b, m)
	}
	for _, v := range s.servers {
		b = codec.AppendBool(codec.AppendString(b, v.id), v.voter)
	}
	for i := range s.origins {
		b = appendOrigin(b, &s.origins[i])
	}
	s.sessions.Ascend(func(sess *session) bool {
		b = appendSession(b, sess)
		return true
	})
	return mix(uint64(crc32.Checksum(b, castagnoli))<<32 ^ s.sum ^ uint64(len(b)))
}

// walker goes through a view in depth-first order, directories in order. Each step needs the tree to stand
// still, but the tree may change between steps.
type walker struct {
	view  *view
	first *znode
	stack []level
}

type level struct {
	dir   *znode
	batch []*znode // children not yet visited; the view's set of children never changes
	after string   // path of the last child taken into a batch
	done  bool
}

// newWalker begins at path; it too needs the tree to stand still.
func newWalker(v *view, path string) *walker {
	n, _ := v.get(path)
	return &walker{view: v, first: n}
}

// next returns the next znode with its content, nil at the end.
func (w *walker) next() (*znode, *content) {
	if n := w.first; n != nil {
		w.first = nil
		w.stack = append(w.stack, level{dir: n})
		return n, w.view.content(n)
	}
	for len(w.stack) > 0 {
		l := &w.stack[len(w.stack)-1]
		if len(l.batch) == 0 && !l.done {
			l.fill(w.view.content(l.dir))
		}
		if len(l.batch) == 0 {
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		n := l.batch[0]
		l.batch = l.batch[1:]
		c := w.view.content(n)
		if c.children != nil {
			w.stack = append(w.stack, level{dir: n})
		}
		return n, c
	}
	return nil, nil
}

func (l *level) fill(c *content) {
	if c.children == nil {
		l.done = true
		return
	}
	take := func(n *znode) bool {
		if n.path == l.after {
			return true
		}
		if len(l.batch) == chunk {
			return false
		}
		l.batch = append(l.batch, n)
		return true
	}
	l.batch = make([]*znode, 0, min(chunk, c.children.Len()))
	if l.after == "" {
		c.children.Ascend(take)
	} else {
		c.children.AscendGreaterOrEqual(&znode{path: l.after}, take)
	}
	if l.done = len(l.batch) < chunk; !l.done {
		l.after = l.batch[len(l.batch)-1].path
	}
}
