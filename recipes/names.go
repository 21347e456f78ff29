// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// Layout selects the names a recipe writes. The known names of others are always understood. The zero value is Curator, for
// a Queue Kazoo.
type Layout uint8

const (
	// Curator writes Apache Curator's protected names, which go-zookeeper's are close to.
	Curator Layout = iota + 1
	// Kazoo writes kazoo's names.
	Kazoo
	// Selector writes the names of Curator's LeaderSelector. It is for elections only.
	Selector
)

// String names the layout.
func (l Layout) String() string {
	switch l {
	case 0:
		return "default"
	case Curator:
		return "curator"
	case Kazoo:
		return "kazoo"
	case Selector:
		return "selector"
	case CuratorDelay:
		return "curator delay"
	case Shallow:
		return "kazoo shallow"
	}
	return "unknown"
}

// kind is a kind of contender, by what its name has between the owner's random part and the sequence number.
type kind struct{ curator, kazoo string }

var lockKind = kind{curator: "-lock-", kazoo: "__lock__"}

const protected = "_c_" // Curator's and go-zookeeper's mark

// prefix makes the name, up to the sequence number, of a new contender.
func (k kind) prefix(l Layout) string {
	if l == Kazoo {
		return strings.ReplaceAll(newUUID(), "-", "") + k.kazoo
	}
	return protected + newUUID() + k.curator
}

// layout says whose contender a name is; false where it is none of this kind, and everybody passes over it.
func (k kind) layout(name string) (Layout, bool) {
	if _, ok := zk.Sequence(name); !ok {
		return 0, false
	}
	name = strings.TrimRight(name, "0123456789")
	if id, ok := strings.CutSuffix(name, k.kazoo); ok && k.kazoo != "" {
		return Kazoo, isHex(id, 32)
	}
	id, ok := strings.CutSuffix(name, k.curator)
	if !ok {
		return 0, false
	}
	id, ok = strings.CutPrefix(id, protected)
	return Curator, ok && (isUUID(id) || isHex(id, 32))
}

// contends reports whether a name is a contender of this kind.
func (k kind) contends(name string) bool {
	_, ok := k.layout(name)
	return ok
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	return isHex(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:], 32)
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// join returns the path of a child.
func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// base returns the last name of a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
