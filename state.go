// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/btree"
)

// session is the replicated part of a session. A record never changes, it is replaced: snapshots share them.
type session struct {
	id       SessionID
	timeout  int64 // milliseconds
	password string
	name     string
	ids      []Identity
	mark     Zxid   // of the open or the last attach: requests that carry an older one are refused (SS-18); 0 of one that began as a local session
	member   string // that hosts it
	created  int64
	limit    int64 // of ephemerals
	killed   bool  // never acknowledged again
}

// origin is what the state remembers of the requests of one member (docs/design.md, D11).
type origin struct {
	member      string
	incarnation uint64
	last        uint64 // number of the last frame applied
	kept        []keptFrame
}

// keptFrame has the results of a frame whose origin may not have seen them: it could install a snapshot that
// jumps over the frame.
type keptFrame struct {
	number   uint64
	outcomes []outcome
}

// server is one line of the ensemble's configuration.
type server struct {
	id    string
	voter bool
}

// state is everything that is replicated. Its transitions depend on the state and the command alone.
type state struct {
	*tree
	sessions *btree.BTreeG[*session]
	origins  []origin       // by member
	members  []memberRecord // by id
	servers  []server       // the ensemble's configuration, by id
	cluster  string
	zxid     Zxid
	now      int64  // of the last command, never decreasing
	term     uint64 // of the last epoch
	lastID   SessionID
	feature  uint64
	staged   *staging // a backup on its way; nil otherwise, and whenever a snapshot is taken

	// Effects of the request being applied, for the caller of apply to carry out and clear.
	changes  []change    // in order
	ended    []SessionID // sessions closed or expired, and those attached elsewhere
	replaced *state      // what a backup took the place of
	ttls     int64       // TTL znodes created
}

// change is what watchers are told.
type change struct {
	kind EventType
	path string
	acl  *aclList // of the znode the event is about, at that time (WT-24)
}

func newState() *state {
	s := &state{tree: newTree()}
	s.sessions = btree.NewG(btreeDegree, func(a, b *session) bool { return a.id < b.id })
	return s
}

func (s *state) session(id SessionID) *session {
	sess, _ := s.sessions.Get(&session{id: id})
	return sess
}

func (s *state) ownedBy(id SessionID) int64 {
	if set := s.owned[id]; set != nil {
		return int64(set.Len())
	}
	return 0
}

func (s *state) ephemeralsOf(id SessionID, fn func(path string)) {
	if set := s.owned[id]; set != nil {
		set.Ascend(func(n *znode) bool {
			fn(n.path)
			return true
		})
	}
}

func (s *state) origin(member string) *origin {
	i, ok := slices.BinarySearchFunc(s.origins, member, func(o origin, m string) int { return cmp.Compare(o.member, m) })
	if !ok {
		return nil
	}
	return &s.origins[i]
}

func (s *state) member(id string) *memberRecord {
	i, ok := slices.BinarySearchFunc(s.members, id, func(m memberRecord, id string) int { return cmp.Compare(m.id, id) })
	if !ok {
		return nil
	}
	return &s.members[i]
}

func (s *state) isServer(id string) bool {
	return slices.ContainsFunc(s.servers, func(v server) bool { return v.id == id })
}

// advance takes over the leader's stamp. Time never goes back.
func (s *state) advance(st stamp) {
	s.now = max(s.now, st.now)
	s.feature = max(s.feature, st.feature)
	if s.staged != nil && s.now-s.staged.at > restoreStall {
		s.staged = nil // whoever sent it has given up
	}
}

// openEpoch begins a leadership.
func (s *state) openEpoch(e epoch, st stamp) {
	s.advance(st)
	s.term = max(s.term, st.term)
	if s.cluster == "" {
		s.cluster = e.cluster
	}
	for _, m := range e.members {
		if s.member(m.id) == nil {
			s.recordMember(m)
		}
	}
}

// recordMember notes a member's address, and its storage the first time. The id of a member that was removed is
// never used again.
func (s *state) recordMember(m memberRecord) Code {
	if have := s.member(m.id); have != nil {
		switch {
		case have.removed: // members that lag would take it for the one that left
			return ErrNotMember
		case have.storage != "" && m.storage != have.storage:
			return ErrWiped
		}
		m.client = have.client
		*have = m
		return 0
	}
	i, _ := slices.BinarySearchFunc(s.members, m.id, func(m memberRecord, id string) int { return cmp.Compare(m.id, id) })
	s.members = slices.Insert(s.members, i, m)
	return 0
}

// recordClients notes where a member serves clients.
func (s *state) recordClients(member, addr string) Code {
	m := s.member(member)
	switch {
	case !validClients(addr):
		return ErrBadArguments
	case m == nil:
		return ErrNotMember
	case m.client == addr:
		return 0
	}
	m.client = addr
	s.showConfig()
	return 0
}

// validClients tells whether addr is "host:port" and can stand in the config znode, or is empty.
func validClients(addr string) bool {
	i := strings.LastIndexByte(addr, ':')
	port, err := strconv.ParseUint(addr[i+1:], 10, 16)
	return addr == "" || i > 0 && err == nil && port > 0 && len(addr) <= 256 && !strings.ContainsFunc(addr, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == ';' || r == '='
	})
}

// configure takes over a committed configuration: it shows in the config znode (DM-15), and requests of members
// that are no longer in it are refused from here on. A member that left may come back only as a new one.
func (s *state) configure(servers []server) {
	slices.SortFunc(servers, func(a, b server) int { return cmp.Compare(a.id, b.id) })
	if slices.Equal(servers, s.servers) {
		return
	}
	old := s.servers
	s.servers = servers
	for _, v := range old {
		if m := s.member(v.id); m != nil && !s.isServer(v.id) {
			m.removed = true
		}
	}
	s.showConfig()
}

// showConfig writes the config znode, in ZooKeeper's format (OP-40); it stays empty as long as there has only been one
// member.
func (s *state) showConfig() {
	n := s.nodes[configPath]
	if len(s.servers) < 2 && n.data == "" {
		return
	}
	text := ""
	for _, v := range s.servers {
		role, addr, client := "observer", "", ""
		if v.voter {
			role = "participant"
		}
		if m := s.member(v.id); m != nil {
			addr, client = m.addr, m.client
		}
		if i := strings.LastIndexByte(addr, ':'); i >= 0 {
			addr += addr[i:] // ZooKeeper has two ports for what members do on one
		}
		text += "server." + v.id + "=" + addr + ":" + role
		if client != "" {
			text += ";" + client
		}
		text += "\n"
	}
	text += "version=" + strconv.FormatInt(int64(s.zxid), 16)
	s.set(n, text, false, s.zxid, s.now)
	n.version = -1
	s.resum(n)
	s.changes = append(s.changes, change{EventChanged, configPath, n.acl})
}

// begin decides whether a frame is to be applied: each once, in order, and never one of an earlier incarnation or
// of a member that was removed.
func (s *state) begin(f *frame) bool {
	if !s.isServer(f.origin) {
		return false
	}
	o := s.origin(f.origin)
	if o == nil {
		i, _ := slices.BinarySearchFunc(s.origins, f.origin, func(o origin, m string) int { return cmp.Compare(o.member, m) })
		s.origins = slices.Insert(s.origins, i, origin{member: f.origin, incarnation: f.incarnation})
		o = &s.origins[i]
	}
	if f.incarnation > o.incarnation {
		*o = origin{member: f.origin, incarnation: f.incarnation}
	}
	if f.incarnation < o.incarnation || f.number != o.last+1 {
		return false
	}
	o.last = f.number
	o.kept = slices.DeleteFunc(slices.Clone(o.kept), func(k keptFrame) bool { return k.number <= f.acked })
	return true
}

// keep remembers a frame's results until its origin has acknowledged them.
func (s *state) keep(f *frame, outcomes []outcome) {
	o := s.origin(f.origin)
	o.kept = append(o.kept, keptFrame{f.number, outcomes})
}

// apply changes the state by one request and appends to s.changes what watchers are told. Every request takes a
// zxid, a refused one too (DM-37).
func (s *state) apply(raw []byte, from string, st stamp) outcome {
	s.zxid++
	q, ok := readRequest(raw)
	if !ok {
		return outcome{zxid: s.zxid, code: ErrMarshalling}
	}
	out := outcome{zxid: s.zxid}
	switch q.kind {
	case reqOpen:
		out.code, out.id = s.open(&q, from)
	case reqLocal:
		if out.code = ErrTooLarge; fit(q.ids) {
			out.steps, out.code = s.txn(q.ops, &session{ids: q.ids}, st)
		}
	case reqMember:
		if out.code = s.recordMember(q.member); out.code == 0 {
			s.showConfig()
		}
	case reqClients:
		out.code = s.recordClients(from, q.addr)
	case reqReap:
		out.code = s.reap(&q)
	case reqPart:
		out.code = s.stage(&q)
	case reqRestore:
		out.code = s.restore(&q)
		out.zxid = s.zxid
	case reqAbandon:
		if s.staged != nil && s.staged.id == q.restore {
			s.staged = nil
		}
	default:
		sess := s.session(q.session)
		if sess == nil {
			out.code = ErrSessionExpired
			break
		}
		if !sess.heeds(&q, from) {
			out.code = ErrSessionMoved
			break
		}
		switch q.kind {
		case reqTxn:
			out.steps, out.code = s.txn(q.ops, sess, st)
		case reqClose:
			s.close(sess)
		case reqExpire:
			if q.term != s.term { // the leadership that saw it silent is over
				out.code = ErrUnavailable
				break
			}
			s.close(sess)
		case reqKill:
			changed := *sess
			changed.killed = true
			s.sessions.ReplaceOrInsert(&changed)
		case reqAttach:
			if !fit(q.ids) {
				out.code = ErrTooLarge
				break
			}
			if q.password != sess.password {
				out.code = ErrAuthFailed
				break
			}
			if sess.killed { // it may not be kept alive by attaching it again and again (D28)
				out.code = ErrSessionExpired
				break
			}
			changed := *sess
			changed.mark, changed.member, changed.ids, changed.timeout = s.zxid, from, q.ids, q.timeout
			s.sessions.ReplaceOrInsert(&changed)
			s.ended = append(s.ended, sess.id)
			out.id = sess.id
		case reqAuth:
			changed := *sess
			changed.ids = joined(sess.ids, q.ids)
			if !fit(changed.ids) {
				out.code = ErrTooLarge
				break
			}
			s.sessions.ReplaceOrInsert(&changed)
		}
	}
	return out
}

// heeds tells whether a request is for the session as it is attached now (SS-18). The mark of one that began as a local
// session is not its own: it counts from its member alone.
func (sess *session) heeds(q *request, from string) bool {
	switch q.kind {
	case reqAttach, reqKill:
		return true
	case reqExpire:
		return q.mark == sess.mark
	}
	return q.mark == sess.mark && (q.mark != 0 || from == sess.member)
}

// What a session may be, at most, so that its record stays small.
const (
	maxIdentities    = 256
	maxIdentityBytes = 64 << 10 // of all of them
)

func fit(ids []Identity) bool {
	size := 0
	for _, id := range ids {
		size += len(id.Scheme) + len(id.ID)
	}
	return len(ids) <= maxIdentities && size <= maxIdentityBytes
}

// joined are identities with those added that are new. It leaves both lists alone.
func joined(have, more []Identity) []Identity {
	have = slices.Clip(have)
	for _, id := range more {
		if !slices.Contains(have, id) {
			have = append(have, id)
		}
	}
	return have
}

// localID is the first byte of the ids of sessions that began on a member alone; other ids have 1 there.
const localID SessionID = 2 << 56

// open starts a session. Its id is made from the state: unique, increasing, shaped like ZooKeeper's (SS-1); that of a
// local session stays, and so does its mark, so that what its member sends next is its own already (SS-23, SS-24).
func (s *state) open(q *request, from string) (Code, SessionID) {
	if !fit(q.ids) {
		return ErrTooLarge, 0
	}
	id, mark := q.session, Zxid(0)
	switch {
	case id == 0:
		s.lastID = max(s.lastID+1, SessionID(1<<56|s.now&(1<<40-1)<<16))
		id, mark = s.lastID, s.zxid
	case id>>56 != localID>>56 || s.session(id) != nil:
		return ErrBadArguments, 0
	}
	s.sessions.ReplaceOrInsert(&session{
		id: id, timeout: q.timeout, password: q.password, name: q.name, ids: q.ids,
		mark: mark, member: from, created: s.now, limit: q.limit,
	})
	return 0, id
}

// close ends a session and deletes its ephemerals, in the order of their paths, under one zxid (DM-33, P12).
func (s *state) close(sess *session) {
	s.sessions.Delete(sess)
	s.ended = append(s.ended, sess.id)
	if set := s.owned[sess.id]; set != nil {
		gone := make([]*znode, 0, set.Len())
		set.Ascend(func(n *znode) bool {
			gone = append(gone, n)
			return true
		})
		for _, n := range gone {
			s.delete(n)
		}
	}
}

// reap deletes a container or TTL znode if it is still the one the leader saw and still due (DM-81 to DM-84).
func (s *state) reap(q *request) Code {
	n := s.nodes[q.path]
	switch {
	case q.term != s.term:
		return ErrUnavailable
	case n == nil || Token(n.czxid) != q.token:
		return ErrNoNode
	case n.numChildren() > 0:
		return ErrNotEmpty
	case !n.due(s.now):
		return ErrBadVersion
	}
	s.delete(n)
	return 0
}

// neverUsedMillis is how long a container may wait for its first child.
const neverUsedMillis = 300_000

// due tells whether a childless container or TTL znode is to be reaped.
func (c *content) due(now int64) bool {
	switch c.kind {
	case nodeContainer:
		return c.creates > 0 || now-c.mtime > neverUsedMillis
	case nodeTTL:
		return now-c.mtime > c.ttl
	}
	return false
}

func (s *state) delete(n *znode) {
	dir := parentPath(n.path)
	s.remove(n, s.zxid)
	s.changes = append(s.changes, change{EventDeleted, n.path, n.acl}, change{EventChildren, dir, s.nodes[dir].acl})
}

// txn performs all steps or none.
func (s *state) txn(ops []Op, sess *session, st stamp) ([]result, Code) {
	d := draft{tree: s.tree, many: len(ops) > 1}
	steps := make([]step, len(ops))
	results := make([]result, len(ops))
	var owned int64
	for i := range ops {
		var code Code
		if ops[i].kind == opDeleteTree && d.many {
			code = ErrBadArguments
		} else {
			steps[i], code = s.check(&d, &ops[i], sess, st, s.zxid, &owned)
		}
		if code != 0 {
			for j := i + 1; j < len(ops); j++ {
				results[j].code = ErrInconsistent
			}
			results[i].code = code
			return results, code
		}
	}
	for i := range steps {
		results[i] = s.perform(&steps[i], sess)
	}
	return results, 0
}

func (s *state) perform(p *step, sess *session) result {
	r := result{path: p.path}
	switch p.op.kind {
	case opCreate:
		for _, dir := range p.parents {
			s.add(&znode{path: dir, content: content{kind: nodeContainer, acl: s.shareACL(p.acl)}})
		}
		n := &znode{path: p.path, content: content{data: p.op.data, null: p.op.null, kind: p.kind, acl: s.shareACL(p.acl)}}
		switch p.kind {
		case nodeEphemeral:
			n.owner = sess.id
		case nodeTTL:
			n.ttl = p.op.n
			s.ttls++
		}
		s.add(n)
		r.stat = n.stat()
	case opSet:
		n := s.nodes[p.path]
		s.set(n, p.op.data, p.op.null, s.zxid, s.now)
		s.changes = append(s.changes, change{EventChanged, p.path, n.acl})
		r.stat = n.stat()
	case opSetACL:
		n := s.nodes[p.path]
		s.setACL(n, p.acl)
		r.stat = n.stat()
	case opDelete:
		s.delete(s.nodes[p.path])
	case opDeleteTree:
		var gone []*znode
		top := s.nodes[p.path]
		descendants(top, func(n *znode) bool {
			gone = append(gone, n)
			return true
		})
		for _, n := range append(gone, top) {
			s.delete(n)
		}
	}
	return r
}

func (s *state) add(n *znode) {
	dir := parentPath(n.path)
	s.create(n, s.zxid, s.now)
	s.changes = append(s.changes, change{EventCreated, n.path, n.acl}, change{EventChildren, dir, s.nodes[dir].acl})
}
