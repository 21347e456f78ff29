// SPDX-License-Identifier: Apache-2.0

package zk

// draft is the tree as the earlier steps of a transaction would leave it (DM-56). Steps are checked against it
// and the tree is changed only when all are well, so nothing ever has to be undone (DM-57).
type draft struct {
	tree *tree
	over map[string]draftNode // what earlier steps change; nil until there is a second step
	many bool
}

type draftNode struct {
	exists   bool
	czxid    Zxid
	creates  int64
	children int64
	version  int32
	aversion int32
	kind     nodeKind
	acl      *aclList
	data     int64 // bytes
	owner    SessionID
}

func (d *draft) get(path string) (draftNode, bool) {
	if d.over != nil {
		if n, ok := d.over[path]; ok {
			return n, n.exists
		}
	}
	n := d.tree.nodes[path]
	if n == nil {
		return draftNode{}, false
	}
	return draftNode{
		exists: true, czxid: n.czxid, creates: n.creates, children: int64(n.numChildren()),
		version: n.version, aversion: n.aversion, kind: n.kind, acl: n.acl, data: int64(len(n.data)), owner: n.owner,
	}, true
}

func (d *draft) put(path string, n draftNode) {
	if !d.many {
		return
	}
	if d.over == nil {
		d.over = map[string]draftNode{}
	}
	d.over[path] = n
}

// step is a checked operation, ready to be performed.
type step struct {
	op      *Op
	path    string   // with the sequence suffix
	parents []string // to be created first, outermost first
	acl     []ACL    // fixed up
	kind    nodeKind
}

// check runs ZooKeeper's checks in ZooKeeper's order; the first that fails decides. owned is by how much the
// transaction changes the number of the session's ephemerals.
func (s *state) check(d *draft, o *Op, sess *session, st stamp, zxid Zxid, owned *int64) (step, Code) {
	switch o.kind {
	case opCreate:
		return s.checkCreate(d, o, sess, st, zxid, owned)
	case opDelete:
		return s.checkDelete(d, o, sess, owned)
	case opSet:
		return s.checkSet(d, o, sess, st)
	case opSetACL:
		return s.checkSetACL(d, o, sess)
	case opCheck: // DM-44
		if badPath(o.path) != "" {
			return step{}, ErrBadArguments
		}
		n, ok := d.get(o.path)
		switch {
		case !ok:
			return step{}, ErrNoNode
		case !allowed(n.acl, PermRead, sess.ids):
			return step{}, ErrNoAuth
		case o.version != AnyVersion && o.version != n.version:
			return step{}, ErrBadVersion
		}
		return step{op: o, path: o.path}, 0
	case opCheckCreated, opCheckAbsent, opCheckChildren:
		return s.checkGuard(d, o, sess)
	case opDeleteTree:
		return s.checkDeleteTree(o, sess)
	}
	return step{}, ErrMarshalling
}

// checkCreate follows DM-40.
func (s *state) checkCreate(d *draft, o *Op, sess *session, st stamp, zxid Zxid, owned *int64) (step, Code) {
	if o.mode&^(Ephemeral|Sequential|Container|Parents) != 0 {
		return step{}, ErrBadArguments
	}
	if o.hasTTL {
		if st.noTTL {
			return step{}, ErrUnimplemented
		}
		if o.n < 1 || o.n > maxTTL || o.mode&(Ephemeral|Container) != 0 {
			return step{}, ErrBadArguments
		}
	}
	if o.mode&Container != 0 && o.mode&(Ephemeral|Sequential) != 0 { // DM-22
		return step{}, ErrBadArguments
	}
	if o.mode&Ephemeral != 0 && sess.id == 0 { // of a local session
		return step{}, ErrEphemeralOnLocalSession
	}
	if !lightPath(o.path) {
		return step{}, ErrBadArguments
	}
	out := step{op: o, acl: OpenACL()}
	if o.acl != nil {
		fixed, code := fixACL(o.acl, sess.ids)
		if code != 0 {
			return step{}, code
		}
		out.acl = fixed
	}
	switch {
	case o.hasTTL:
		out.kind = nodeTTL
	case o.mode&Container != 0:
		out.kind = nodeContainer
	case o.mode&Ephemeral != 0:
		out.kind = nodeEphemeral
	}

	dir := parentPath(o.path)
	parent, ok := d.get(dir)
	for anchor := dir; !ok; { // find the nearest ancestor there is
		if o.mode&Parents == 0 {
			return step{}, ErrNoNode
		}
		if badPath(anchor) != "" {
			return step{}, ErrBadArguments
		}
		out.parents = append(out.parents, anchor)
		anchor = parentPath(anchor)
		parent, ok = d.get(anchor)
	}
	if !allowed(parent.acl, PermCreate, sess.ids) {
		return step{}, ErrNoAuth
	}
	creates := parent.creates
	if out.parents != nil {
		creates = 0
	}
	out.path = o.path
	if o.mode&Sequential != 0 {
		out.path = sequenceName(o.path, creates)
	}
	if badPath(out.path) != "" {
		return step{}, ErrBadArguments
	}
	if _, exists := d.get(out.path); exists {
		return step{}, ErrNodeExists
	}
	if parent.kind == nodeEphemeral { // DM-23
		return step{}, ErrNoChildrenForEphemerals
	}
	if st.quota && s.refuses(out.path, out.parents, int64(len(o.data))) {
		return step{}, ErrQuotaExceeded
	}
	if out.kind == nodeEphemeral {
		if have := s.ownedBy(sess.id) + *owned; sess.limit > 0 && have >= sess.limit {
			return step{}, ErrThrottled
		}
		*owned++
	}
	for i, j := 0, len(out.parents)-1; i < j; i, j = i+1, j-1 {
		out.parents[i], out.parents[j] = out.parents[j], out.parents[i]
	}
	if d.many {
		acl := &aclList{entries: out.acl}
		for _, p := range append(out.parents[:len(out.parents):len(out.parents)], out.path) {
			up, _ := d.get(parentPath(p))
			up.creates++
			up.children++
			d.put(parentPath(p), up)
			n := draftNode{exists: true, czxid: zxid, kind: nodeContainer, acl: acl}
			if p == out.path {
				n.kind, n.data = out.kind, int64(len(o.data))
				if out.kind == nodeEphemeral {
					n.owner = sess.id
				}
			}
			d.put(p, n)
		}
	}
	return out, 0
}

// special paths cannot be deleted (DM-7).
func special(path string) bool {
	return path == "/" || path == zookeeperPath || path == quotaPath || path == configPath
}

// checkDelete follows DM-41.
func (s *state) checkDelete(d *draft, o *Op, sess *session, owned *int64) (step, Code) {
	if !lightPath(o.path) || special(o.path) {
		return step{}, ErrBadArguments
	}
	parent, ok := d.get(parentPath(o.path))
	if !ok {
		return step{}, ErrNoNode
	}
	if !allowed(parent.acl, PermDelete, sess.ids) {
		return step{}, ErrNoAuth
	}
	n, ok := d.get(o.path)
	switch {
	case !ok:
		return step{}, ErrNoNode
	case o.version != AnyVersion && o.version != n.version:
		return step{}, ErrBadVersion
	case n.children > 0:
		return step{}, ErrNotEmpty
	}
	if d.many {
		parent.children--
		d.put(parentPath(o.path), parent)
		d.put(o.path, draftNode{})
	}
	if n.owner == sess.id {
		*owned--
	}
	return step{op: o, path: o.path}, 0
}

// checkSet follows DM-42: the quota comes before the version.
func (s *state) checkSet(d *draft, o *Op, sess *session, st stamp) (step, Code) {
	if badPath(o.path) != "" {
		return step{}, ErrBadArguments
	}
	n, ok := d.get(o.path)
	switch {
	case !ok:
		return step{}, ErrNoNode
	case !allowed(n.acl, PermWrite, sess.ids):
		return step{}, ErrNoAuth
	case st.quota && s.exceeds(o.path, 0, int64(len(o.data))-n.data):
		return step{}, ErrQuotaExceeded
	case o.version != AnyVersion && o.version != n.version:
		return step{}, ErrBadVersion
	}
	if d.many {
		n.version, n.data = nextVersion(n.version), int64(len(o.data))
		d.put(o.path, n)
	}
	return step{op: o, path: o.path}, 0
}

// checkSetACL follows DM-43.
func (s *state) checkSetACL(d *draft, o *Op, sess *session) (step, Code) {
	if badPath(o.path) != "" {
		return step{}, ErrBadArguments
	}
	fixed, code := fixACL(o.acl, sess.ids)
	if code != 0 {
		return step{}, code
	}
	n, ok := d.get(o.path)
	switch {
	case !ok:
		return step{}, ErrNoNode
	case !allowed(n.acl, PermAdmin, sess.ids):
		return step{}, ErrNoAuth
	case o.version != AnyVersion && o.version != n.aversion:
		return step{}, ErrBadVersion
	}
	if d.many {
		n.aversion, n.acl = nextVersion(n.aversion), &aclList{entries: fixed}
		d.put(o.path, n)
	}
	return step{op: o, path: o.path, acl: fixed}, 0
}

// checkGuard tests our additions to ZooKeeper's check. Who may not read a znode may not probe it either.
func (s *state) checkGuard(d *draft, o *Op, sess *session) (step, Code) {
	if badPath(o.path) != "" {
		return step{}, ErrBadArguments
	}
	n, ok := d.get(o.path)
	if ok && !allowed(n.acl, PermRead, sess.ids) {
		return step{}, ErrNoAuth
	}
	holds := false
	switch o.kind {
	case opCheckCreated:
		holds = ok && Token(n.czxid) == o.token
	case opCheckAbsent:
		holds = !ok
	case opCheckChildren:
		holds = o.cmp.holds(n.children, o.n)
	}
	if !holds {
		return step{}, ErrGuard
	}
	return step{op: o, path: o.path}, 0
}

// maxDeleteTree bounds how many znodes one atomic deletion may take: it holds the tree's lock.
const maxDeleteTree = 100_000

// checkDeleteTree wants DELETE on the parent of every znode that goes. It always stands alone.
func (s *state) checkDeleteTree(o *Op, sess *session) (step, Code) {
	if !lightPath(o.path) || special(o.path) {
		return step{}, ErrBadArguments
	}
	parent := s.nodes[parentPath(o.path)]
	if parent == nil {
		return step{}, ErrNoNode
	}
	if !allowed(parent.acl, PermDelete, sess.ids) {
		return step{}, ErrNoAuth
	}
	top := s.nodes[o.path]
	if top == nil {
		return step{}, ErrNoNode
	}
	count, code := 1, Code(0)
	visit := func(n *znode) bool {
		count++
		if n.children != nil && !allowed(n.acl, PermDelete, sess.ids) {
			code = ErrNoAuth
		} else if count > maxDeleteTree {
			code = ErrTooLarge
		}
		return code == 0
	}
	if top.children != nil && !allowed(top.acl, PermDelete, sess.ids) {
		return step{}, ErrNoAuth
	}
	descendants(top, visit)
	return step{op: o, path: o.path}, code
}
