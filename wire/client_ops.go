// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// full puts the chroot before a path.
func (c *Client) full(path string) string {
	if path == "/" && c.chroot != "" {
		return c.chroot
	}
	return c.chroot + path
}

// local takes the chroot off a path.
func (c *Client) local(full string) string {
	if c.chroot == "" {
		return full
	}
	if full == c.chroot {
		return "/"
	}
	if rest, ok := strings.CutPrefix(full, c.chroot+"/"); ok {
		return "/" + rest
	}
	return full
}

// checked starts a request on a znode, whose path it looks at before anything is sent (DM-10).
func (c *Client) checked(op opcode, name, path string) (clientRequest, error) {
	q := clientRequest{op: op, name: name, path: path, size: len(c.chroot) + len(path)}
	if err := zk.ValidPath(path); err != nil {
		return q, &zk.Error{Op: name, Path: path, Code: zk.ErrBadArguments, Err: err}
	}
	return q, nil
}

func pathBody(full string) func([]byte) []byte {
	return func(b []byte) []byte { return appendString(b, full) }
}

func pathWatchBody(full string, watch bool) func([]byte) []byte {
	return func(b []byte) []byte { return appendBool(appendString(b, full), watch) }
}

// Get returns a znode's data, nil if it is null, and its Stat. Errors: ErrNoNode, ErrNoAuth.
func (c *Client) Get(ctx context.Context, path string) ([]byte, zk.Stat, error) {
	data, st, _, err := c.get(ctx, path, false)
	return data, st, err
}

// GetW is Get with a one-shot watch on the znode's data: the channel yields one event when the znode is changed or
// deleted, or EventSession when the session ends first, and is closed. Ending ctx, at any time, closes it without an
// event (WT-44). It survives a change of servers; changes missed meanwhile are reported with zxid -1. Where Get fails
// no watch is left.
func (c *Client) GetW(ctx context.Context, path string) ([]byte, zk.Stat, <-chan zk.Event, error) {
	return c.get(ctx, path, true)
}

func (c *Client) get(ctx context.Context, path string, watch bool) ([]byte, zk.Stat, <-chan zk.Event, error) {
	var r struct {
		data []byte
		st   zk.Stat
		w    *clientWatcher
	}
	q, err := c.checked(opGetData, "get", path)
	if err != nil {
		return nil, zk.Stat{}, nil, err
	}
	q.read, q.body = true, pathWatchBody(c.full(path), watch)
	q.decode = func(d *decoder) { r.data, r.st = bytes.Clone(d.buffer()), d.stat() }
	if watch {
		c.watchOnce(ctx, &q, func(zk.Code) int { return watchData }, &r.w)
	}
	if err := c.do(ctx, q); err != nil {
		return nil, zk.Stat{}, nil, err
	}
	return r.data, r.st, r.w.events(), nil
}

// Exists returns a znode's Stat, or false where there is none. Error: ErrNoAuth.
func (c *Client) Exists(ctx context.Context, path string) (zk.Stat, bool, error) {
	st, ok, _, err := c.exists(ctx, path, false)
	return st, ok, err
}

// ExistsW is Exists with a one-shot watch that is set whether or not the znode exists: the channel yields one event
// when it is created, changed or deleted. Otherwise as GetW.
func (c *Client) ExistsW(ctx context.Context, path string) (zk.Stat, bool, <-chan zk.Event, error) {
	return c.exists(ctx, path, true)
}

func (c *Client) exists(ctx context.Context, path string, watch bool) (zk.Stat, bool, <-chan zk.Event, error) {
	var r struct {
		st zk.Stat
		w  *clientWatcher
	}
	q, err := c.checked(opExists, "exists", path)
	if err != nil {
		return zk.Stat{}, false, nil, err
	}
	q.read, q.body = true, pathWatchBody(c.full(path), watch)
	q.decode = func(d *decoder) { r.st = d.stat() }
	if watch {
		c.watchOnce(ctx, &q, func(code zk.Code) int {
			if code == zk.ErrNoNode {
				return watchExist // it wants to hear of a creation (WT-31)
			}
			return watchData
		}, &r.w)
	}
	_, err = c.exchange(ctx, q)
	if err == nil {
		return r.st, true, r.w.events(), nil
	}
	if e, ok := err.(*zk.Error); ok && e.Code == zk.ErrNoNode {
		return zk.Stat{}, false, r.w.events(), nil
	}
	return zk.Stat{}, false, nil, err
}

// Children returns the names of a znode's children in byte order, and its Stat, which is zero with
// ClientConfig.Legacy. Errors: ErrNoNode, ErrNoAuth.
func (c *Client) Children(ctx context.Context, path string) ([]string, zk.Stat, error) {
	names, st, _, err := c.children(ctx, path, false)
	return names, st, err
}

// ChildrenW is Children with a one-shot watch on the znode's children: the channel yields one event when a child is
// created or deleted, or the znode itself is deleted. Otherwise as GetW.
func (c *Client) ChildrenW(ctx context.Context, path string) ([]string, zk.Stat, <-chan zk.Event, error) {
	return c.children(ctx, path, true)
}

func (c *Client) children(ctx context.Context, path string, watch bool) ([]string, zk.Stat, <-chan zk.Event, error) {
	var r struct {
		names []string
		st    zk.Stat
		w     *clientWatcher
	}
	op := opGetChildren2
	if c.cfg.Legacy {
		op = opGetChildren
	}
	q, err := c.checked(op, "children", path)
	if err != nil {
		return nil, zk.Stat{}, nil, err
	}
	q.read, q.body = true, pathWatchBody(c.full(path), watch)
	q.decode = func(d *decoder) {
		if r.names = d.strings(); op == opGetChildren2 {
			r.st = d.stat()
		}
	}
	if watch {
		c.watchOnce(ctx, &q, func(zk.Code) int { return watchChild }, &r.w)
	}
	if err := c.do(ctx, q); err != nil {
		return nil, zk.Stat{}, nil, err
	}
	slices.Sort(r.names)
	return r.names, r.st, r.w.events(), nil
}

// Descendants counts everything below a znode (DM-48). Errors: ErrNoNode, ErrNoAuth.
func (c *Client) Descendants(ctx context.Context, path string) (int, error) {
	q, err := c.checked(opCountChildren, "count", path)
	if err != nil {
		return 0, err
	}
	var n int32
	q.read, q.body, q.decode = true, pathBody(c.full(path)), func(d *decoder) { n = d.int() }
	if err := c.do(ctx, q); err != nil {
		return 0, err
	}
	return int(n), nil
}

// Ephemerals lists, in byte order, the paths of this session's ephemerals that start with prefix, plainly (DM-49).
func (c *Client) Ephemerals(ctx context.Context, prefix string) ([]string, error) {
	var paths []string
	q := clientRequest{op: opGetEphemerals, name: "ephemerals", path: prefix, size: len(prefix), read: true,
		body: pathBody(c.chroot + prefix), decode: func(d *decoder) { paths = d.strings() }}
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	for i := range paths {
		paths[i] = c.local(paths[i])
	}
	slices.Sort(paths)
	return paths, nil
}

// GetACL returns a znode's access control list. Without PermAdmin the hashes of digest identities are hidden (DM-50).
// Errors: ErrNoNode, ErrNoAuth.
func (c *Client) GetACL(ctx context.Context, path string) ([]zk.ACL, zk.Stat, error) {
	q, err := c.checked(opGetACL, "get acl", path)
	if err != nil {
		return nil, zk.Stat{}, err
	}
	var r struct {
		acl []zk.ACL
		st  zk.Stat
	}
	q.read, q.body, q.decode = true, pathBody(c.full(path)), func(d *decoder) { r.acl, r.st = d.acl(), d.stat() }
	if err := c.do(ctx, q); err != nil {
		return nil, zk.Stat{}, err
	}
	return r.acl, r.st, nil
}

// SetACL replaces a znode's access control list if its aversion is the one given, or AnyVersion (DM-43). Errors:
// ErrNoNode, ErrNoAuth, ErrBadVersion, ErrInvalidACL, and those of every write.
func (c *Client) SetACL(ctx context.Context, path string, acl []zk.ACL, version int32) (zk.Stat, error) {
	q, err := c.checked(opSetACL, "set acl", path)
	if err != nil {
		return zk.Stat{}, err
	}
	acl = slices.Clone(acl)
	full := c.full(path)
	var st zk.Stat
	for _, a := range acl {
		q.size += 12 + len(a.Scheme) + len(a.ID)
	}
	q.body = func(b []byte) []byte { return appendInt(appendACL(appendString(b, full), acl), version) }
	q.decode = func(d *decoder) { st = d.stat() }
	if err := c.do(ctx, q); err != nil {
		return zk.Stat{}, err
	}
	return st, nil
}

// Sync returns once the server has applied everything that was answered anywhere before the call (DM-51).
func (c *Client) Sync(ctx context.Context) error {
	return c.do(ctx, clientRequest{op: opSync, name: "sync", read: true, body: pathBody(c.full("/")), decode: func(d *decoder) { d.string() }})
}

// Ping returns once the server has answered, after all requests that were sent before (WP-26).
func (c *Client) Ping(ctx context.Context) error {
	return c.do(ctx, clientRequest{op: opPing, name: "ping", read: true, body: noBody})
}

// AddAuth adds identities to the session, here and on every later connection (DM-112). One that is refused ends the
// session for this client, with ErrAuthFailed (DM-111).
func (c *Client) AddAuth(ctx context.Context, auth ...zk.Auth) error {
	for _, a := range auth {
		a.Cred = bytes.Clone(a.Cred)
		q := clientRequest{op: opAuth, name: "auth", size: len(a.Scheme) + len(a.Cred), read: true, body: authBody(a)}
		q.accepted = func() {
			if !slices.ContainsFunc(c.auth, func(b zk.Auth) bool { return a.Scheme == b.Scheme && bytes.Equal(a.Cred, b.Cred) }) {
				c.auth = append(c.auth, a)
			}
		}
		if err := c.do(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func authBody(a zk.Auth) func([]byte) []byte {
	return func(b []byte) []byte { return appendBuffer(appendString(appendInt(b, 0), a.Scheme), a.Cred) }
}

// Identities returns who the server takes this client for (DM-52).
func (c *Client) Identities(ctx context.Context) ([]zk.Identity, error) {
	var ids []zk.Identity
	q := clientRequest{op: opWhoAmI, name: "who am i", read: true, body: noBody, decode: func(d *decoder) {
		ids = nil
		for range max(d.count(8), 0) {
			ids = append(ids, zk.Identity{Scheme: d.nullable(), ID: d.nullable()})
		}
	}}
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return ids, nil
}

// SASL sends one token of a SASL exchange and returns the server's (WP-45); a server without SASL answers nil.
func (c *Client) SASL(ctx context.Context, token []byte) ([]byte, error) {
	token = append([]byte{}, token...) // never null: ZooKeeper 3.8.0 would close the connection
	var answer []byte
	q := clientRequest{op: opSASL, name: "sasl", size: len(token), body: func(b []byte) []byte { return appendBuffer(b, token) },
		decode: func(d *decoder) { answer = bytes.Clone(d.buffer()) }}
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return answer, nil
}

// configPath is where an ensemble publishes who its members are (OP-40). No chroot applies to it.
const configPath = "/zookeeper/config"

// Config returns the ensemble's membership, one "server.ID=..." line for each member and then its version.
func (c *Client) Config(ctx context.Context) (string, zk.Stat, error) {
	var r struct {
		text string
		st   zk.Stat
	}
	q := clientRequest{op: opGetData, name: "config", path: configPath, read: true, body: pathWatchBody(configPath, false),
		decode: func(d *decoder) { r.text, r.st = d.nullable(), d.stat() }}
	if err := c.do(ctx, q); err != nil {
		return "", zk.Stat{}, err
	}
	return r.text, r.st, nil
}

// Reconfig changes the membership: ids to leave and "server.ID=..." lines to join, or a whole new list in members
// (OP-43). from is the version that the configuration must have, -1 for any. It returns the new one.
func (c *Client) Reconfig(ctx context.Context, joining, leaving, members []string, from int64) (string, zk.Stat, error) {
	var r struct {
		text string
		st   zk.Stat
	}
	// A list that is not there is null, which is not the same as empty.
	list := func(b []byte, ss []string) []byte {
		if len(ss) == 0 {
			return appendInt(b, -1)
		}
		return appendString(b, strings.Join(ss, ","))
	}
	joining, leaving, members = slices.Clone(joining), slices.Clone(leaving), slices.Clone(members)
	q := clientRequest{op: opReconfig, name: "reconfig", path: configPath,
		body:   func(b []byte) []byte { return appendLong(list(list(list(b, joining), leaving), members), from) },
		decode: func(d *decoder) { r.text, r.st = d.nullable(), d.stat() }}
	if err := c.do(ctx, q); err != nil {
		return "", zk.Stat{}, err
	}
	return r.text, r.st, nil
}
