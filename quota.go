// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"strconv"
	"strings"
)

// quotaRoot returns the path whose quota path is about, where path is .../zookeeper/quota/ROOT/name (DM-70).
// A quota on the root is not supported (DM-77).
func quotaRoot(path, name string) (root string, ok bool) {
	if !strings.HasPrefix(path, quotaPath+"/") || !strings.HasSuffix(path, "/"+name) || len(path) == len(quotaPath)+1+len(name) {
		return "", false
	}
	return path[len(quotaPath) : len(path)-len(name)-1], true
}

// isUsage tells whether path is a quota's usage, which changes without an event (DM-36).
func isUsage(path string) bool {
	_, ok := quotaRoot(path, statsName)
	return ok
}

// quotaOf returns the deepest path at or above path that has a quota (DM-73).
func (t *tree) quotaOf(path string) (root string, ok bool) {
	if len(t.quotas) == 0 || within(quotaPath, path) {
		return "", false
	}
	for ; path != "/"; path = parentPath(path) {
		if t.quotas[path] {
			return path, true
		}
	}
	return "", false
}

// account adds to the usage of the quota that covers path. The stats znode is rewritten in place: no version,
// no time, no event (DM-36).
func (t *tree) account(path string, count, bytes int64) {
	root, ok := t.quotaOf(path)
	if !ok || count == 0 && bytes == 0 {
		return
	}
	if n := t.nodes[quotaPath+root+"/"+statsName]; n != nil {
		use := parseUsage(n.data)
		use.count += count
		use.bytes += bytes
		t.rewrite(n, use)
		if limits := t.nodes[quotaPath+root+"/"+limitsName]; limits != nil && (count > 0 || bytes > 0) {
			f := quotaFields(limits.data)
			above := func(limit string, used int64) bool { most := f.get(limit); return most > -1 && used > most }
			if above("count", use.count) || above("bytes", use.bytes) {
				t.overSoft = root
			}
		}
	}
}

// recount sets a stats znode from a walk over the subtree, its root included (DM-72).
func (t *tree) recount(n *znode, root string) {
	var use usage
	if top := t.nodes[root]; top != nil {
		add := func(n *znode) bool {
			if !within(quotaPath, n.path) { // DM-77
				use.count++
				use.bytes += int64(len(n.data))
			}
			return true
		}
		descendants(top, add)
		add(top)
	}
	t.rewrite(n, use)
}

func (t *tree) rewrite(n *znode, use usage) {
	data := "count=" + strconv.FormatInt(use.count, 10) + ",bytes=" + strconv.FormatInt(use.bytes, 10)
	t.touch(n)
	t.bytes += int64(len(data) - len(n.data))
	n.data, n.null = data, false
	t.resum(n)
}

type usage struct{ count, bytes int64 }

func parseUsage(s string) usage {
	f := quotaFields(s)
	return usage{f.get("count"), f.get("bytes")}
}

// exceeds tells whether adding to path's usage breaks a hard limit (DM-75); the soft ones never refuse. Usage is the
// committed one, whatever a transaction has added (DM-65).
func (t *tree) exceeds(path string, count, bytes int64) bool {
	root, ok := t.quotaOf(path)
	if !ok {
		return false
	}
	limits, stats := t.nodes[quotaPath+root+"/"+limitsName], t.nodes[quotaPath+root+"/"+statsName]
	if limits == nil || stats == nil {
		return false
	}
	f, use := quotaFields(limits.data), parseUsage(stats.data)
	over := func(limit string, used, add int64) bool {
		hard := f.get(limit)
		return add != 0 && hard > -1 && used+add > hard
	}
	return over("countHardLimit", use.count, count) || over("byteHardLimit", use.bytes, bytes)
}

// refuses tells whether a hard limit is in the way of a new znode and its missing parents, the nearest first: each
// counts towards the deepest quota at or above it (DM-73).
func (t *tree) refuses(path string, parents []string, bytes int64) bool {
	root, _ := t.quotaOf(path)
	count := int64(1)
	for _, p := range parents {
		if r, _ := t.quotaOf(p); r != root {
			if t.exceeds(path, count, bytes) {
				return true
			}
			path, root, count, bytes = p, r, 0, 0
		}
		count++
	}
	return t.exceeds(path, count, bytes)
}

type quotaText string

func quotaFields(s string) quotaText { return quotaText(s) }

// get finds key's number in "count=1,bytes=2=;byteHardLimit=3"; -1 where there is none (DM-71).
func (q quotaText) get(key string) int64 {
	for part := range strings.FieldsFuncSeq(string(q), func(r rune) bool { return r == ',' || r == ';' }) {
		k, v, _ := strings.Cut(part, "=")
		if k == key {
			n, err := strconv.ParseInt(strings.TrimRight(v, "="), 10, 64)
			if err != nil {
				return -1
			}
			return n
		}
	}
	return -1
}
