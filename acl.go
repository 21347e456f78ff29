// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"crypto/sha1"
	"encoding/base64"
	"net/netip"
	"strings"
)

// Perm is a set of permissions on one znode; it is not inherited (DM-100).
type Perm uint32

// The five permissions and their union.
const (
	PermRead Perm = 1 << iota
	PermWrite
	PermCreate
	PermDelete
	PermAdmin
	PermAll = PermRead | PermWrite | PermCreate | PermDelete | PermAdmin
)

// String prints the letters in ZooKeeper's order, c d r w a.
func (p Perm) String() string {
	var b strings.Builder
	for _, l := range [...]struct {
		bit    Perm
		letter byte
	}{{PermCreate, 'c'}, {PermDelete, 'd'}, {PermRead, 'r'}, {PermWrite, 'w'}, {PermAdmin, 'a'}} {
		if p&l.bit != 0 {
			b.WriteByte(l.letter)
		}
	}
	return b.String()
}

// ACL is one entry of a znode's access control list.
type ACL struct {
	Perm   Perm
	Scheme string // world, auth, digest, ip, x509 or sasl
	ID     string
}

// Identity is who a session is, in one scheme. A session may have several.
type Identity struct {
	Scheme string
	ID     string
}

// The schemes an ACL may name. auth is replaced by the session's own identities when it is stored.
const (
	schemeWorld  = "world"
	schemeAuth   = "auth"
	schemeDigest = "digest"
	schemeIP     = "ip"
	schemeX509   = "x509"
	schemeSASL   = "sasl"
	schemeSuper  = "super"
)

// OpenACL is the default: everybody may do everything.
func OpenACL() []ACL { return []ACL{{PermAll, schemeWorld, "anyone"}} }

// CreatorACL gives everything to the identities of the session that creates the znode, and nothing to others.
func CreatorACL() []ACL { return []ACL{{PermAll, schemeAuth, ""}} }

// ReadACL lets everybody read and nobody change.
func ReadACL() []ACL { return []ACL{{PermRead, schemeWorld, "anyone"}} }

// DigestID returns the identity for "user:password" as ZooKeeper computes it (DM-106).
func DigestID(userPassword string) string {
	user, _, _ := strings.Cut(userPassword, ":")
	sum := sha1.Sum([]byte(userPassword))
	return user + ":" + base64.StdEncoding.EncodeToString(sum[:])
}

// aclList is a stored list. Equal lists are shared through tree.internACL; nil is the open ACL.
type aclList struct {
	entries []ACL
	key     string
	refs    int
}

func aclEntries(l *aclList) []ACL {
	if l == nil {
		return OpenACL()
	}
	return l.entries
}

// allowed decides whether any of ids has any of the wanted permissions (DM-101).
func allowed(l *aclList, want Perm, ids []Identity) bool {
	if l == nil || len(l.entries) == 0 {
		return true
	}
	for _, id := range ids {
		if id.Scheme == schemeSuper {
			return true
		}
	}
	for _, e := range l.entries {
		if e.Perm&want == 0 {
			continue
		}
		if e.Scheme == schemeWorld && e.ID == "anyone" {
			return true
		}
		for _, id := range ids {
			if id.Scheme == e.Scheme && matches(e, id.ID) {
				return true
			}
		}
	}
	return false
}

func matches(e ACL, id string) bool {
	if e.Scheme == schemeIP {
		want, ok := parseIPRange(e.ID)
		addr, err := netip.ParseAddr(id)
		return ok && err == nil && want.Contains(addr.Unmap().WithZone(""))
	}
	return e.ID == id
}

func parseIPRange(s string) (netip.Prefix, bool) {
	if strings.Contains(s, ":") && strings.Contains(s, ".") { // no IPv4 within IPv6 (DM-108)
		return netip.Prefix{}, false
	}
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p, true
}

// fixACL is what create and setACL do to a list before they store it (DM-103): duplicates go, auth becomes the
// session's authenticated identities, and everything unknown is refused.
func fixACL(list []ACL, ids []Identity) ([]ACL, Code) {
	if len(list) == 0 {
		return nil, ErrInvalidACL
	}
	out := make([]ACL, 0, len(list))
	add := func(a ACL) {
		for _, have := range out {
			if have == a {
				return
			}
		}
		out = append(out, a)
	}
	for _, a := range list {
		switch a.Scheme {
		case schemeWorld:
			if a.ID != "anyone" {
				return nil, ErrInvalidACL
			}
			add(a)
		case schemeAuth:
			found := false
			for _, id := range ids {
				if id.Scheme == schemeDigest || id.Scheme == schemeX509 || id.Scheme == schemeSASL { // DM-104
					add(ACL{a.Perm, id.Scheme, id.ID})
					found = true
				}
			}
			if !found {
				return nil, ErrInvalidACL
			}
		case schemeDigest:
			// Java's split drops trailing empty parts, so "u:" counts as one part (DM-106).
			_, hash, _ := strings.Cut(strings.TrimRight(a.ID, ":"), ":")
			if hash == "" || strings.Contains(hash, ":") {
				return nil, ErrInvalidACL
			}
			add(a)
		case schemeIP:
			if _, ok := parseIPRange(a.ID); !ok {
				return nil, ErrInvalidACL
			}
			add(a)
		case schemeX509, schemeSASL:
			if a.ID == "" {
				return nil, ErrInvalidACL
			}
			add(a)
		default:
			return nil, ErrInvalidACL
		}
	}
	return out, 0
}

// maskDigests hides the hashes of digest identities from readers without PermAdmin (DM-50).
func maskDigests(list []ACL) []ACL {
	out := make([]ACL, len(list))
	for i, a := range list {
		if a.Scheme == schemeDigest {
			user, _, _ := strings.Cut(a.ID, ":")
			a.ID = user + ":x"
		}
		out[i] = a
	}
	return out
}
