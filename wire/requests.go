// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// requestNames are what mntr calls the requests in its keys op_count_NAME.
var requestNames = map[opcode]string{
	opPing: "ping", opCreate: "create", opCreate2: "create2", opCreateContainer: "create_container", opCreateTTL: "create_ttl",
	opDelete: "delete", opSetData: "set_data", opSetACL: "set_acl", opMulti: "multi", opExists: "exists", opGetData: "get_data",
	opGetACL: "get_acl", opGetChildren: "get_children", opGetChildren2: "get_children2", opCountChildren: "get_all_children_number",
	opGetEphemerals: "get_ephemerals", opMultiRead: "multi_read", opSync: "sync", opAddWatch: "add_watch", opCheckWatches: "check_watches",
	opRemoveWatches: "remove_watches", opSetWatches: "set_watches", opSetWatches2: "set_watches2", opAuth: "auth", opSASL: "sasl",
	opWhoAmI: "who_am_i", opReconfig: "reconfig", opCloseSession: "close_session",
}

// maxNamespaces bounds what clients can make the counters take.
const maxNamespaces = 256

// namespace counts what is asked for below one child of the root.
type namespace struct {
	read, written zk.Recorder[int64]
	exceeded      int64
}

// topOf is the first part of a path, "" of the root.
func topOf(path string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return top
}

// placeLocked counts a request for the namespace that it is about.
func (k *counters) placeLocked(r *request, code zk.Code, size int) {
	switch {
	case r.kind == kindWrite && len(r.ops) > 0 && r.call != nil:
		if r.call.Error == nil {
			if n := k.namespaceLocked(r.ops[0].Path()); n != nil {
				n.written.Add(int64(r.size))
			}
			return
		}
		if codeOf(r.call.Error) == zk.ErrQuotaExceeded {
			if n := k.namespaceLocked(r.ops[max(slices.Index(r.call.Codes, zk.ErrQuotaExceeded), 0)].Path()); n != nil {
				n.exceeded++
			}
		}
	case code == 0:
		switch r.op {
		case opGetData, opExists, opGetChildren, opGetChildren2, opGetACL, opCountChildren:
			if n := k.namespaceLocked(r.path); n != nil {
				n.read.Add(int64(size))
			}
		}
	}
}

func (k *counters) namespaceLocked(path string) *namespace {
	top := topOf(path)
	n := k.namespaces[top]
	if n != nil || top == "" || len(k.namespaces) == maxNamespaces {
		return n
	}
	if k.namespaces == nil {
		k.namespaces = map[string]*namespace{}
	}
	n = &namespace{}
	k.namespaces[strings.Clone(top)] = n
	return n
}

func (k *counters) places() map[string]NamespaceStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := map[string]NamespaceStats{}
	for name, n := range k.namespaces {
		list[name] = NamespaceStats{n.read.Summary(), n.written.Summary(), n.exceeded}
	}
	return list
}

// asked counts a request for a session, new or known.
func (k *counters) asked(session int64) {
	k.connects.Add(1)
	if session != 0 {
		k.attaches.Add(1)
	}
}

// ended counts how a connection ended.
func (k *counters) ended(c *conn) {
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	if session != nil && !c.leaving.Load() {
		k.dropped.Add(1)
	}
	if context.Cause(c.ctx) == errFrameTooLarge {
		k.tooLong.Add(1)
	}
}
