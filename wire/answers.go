// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// The answers to requests that are not writes. Each runs when its turn comes, on the second goroutine.

func answerPing(_ *conn, _ *request, b []byte) ([]byte, zk.Zxid, error) { return b, 0, nil }

func answerExists(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	st, ok, z, err := c.listener.Stat(c.ctx, r.path, r.watch)
	if err == nil && !ok {
		err = zk.ErrNoNode // the watch is set all the same (WP-24)
	}
	return appendStat(b, st), z, err
}

func answerGetData(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	data, st, z, err := c.listener.Read(c.ctx, r.path, r.watch)
	return appendStat(appendBuffer(b, data), st), z, err
}

func answerGetACL(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	acl, st, z, err := c.listener.ACL(c.ctx, r.path)
	return appendStat(appendACL(b, acl), st), z, err
}

func answerGetChildren(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	names, st, z, err := c.listener.List(c.ctx, r.path, r.watch)
	if b = appendStrings(b, names); r.op == opGetChildren2 {
		b = appendStat(b, st)
	}
	return b, z, err
}

func answerCountChildren(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	n, z, err := c.listener.Descendants(c.ctx, r.path)
	return appendInt(b, int32(n)), z, err
}

func answerGetEphemerals(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	paths, z, err := c.listener.Ephemerals(c.ctx, r.path)
	return appendStrings(b, paths), z, err
}

func answerSync(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	return appendString(b, r.path), 0, c.session.Sync(c.ctx)
}

func answerAddWatch(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	return appendInt(b, 0), 0, c.listener.AddWatch(r.path, r.number == 1)
}

func answerCheckWatches(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	return b, 0, c.listener.CheckWatches(r.path, watchType(r.number))
}

func answerRemoveWatches(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	return b, 0, c.listener.RemoveWatches(r.path, watchType(r.number))
}

// watchType keeps numbers that are no type out of range (WT-27).
func watchType(n int32) zk.WatchType {
	if n < 0 || n > int32(zk.WatchTypePersistentRecursive) {
		return 0
	}
	return zk.WatchType(n)
}

func answerSetWatches(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	w := r.body.(*watchSet)
	return b, 0, c.listener.SetWatches(w.since, w.set)
}

var errScheme = errors.New("wire: a client may not claim this scheme")

// answerAuth believes a client that knows a password, and nothing else that it says about itself; its address is known
// already (DM-111).
func answerAuth(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	a := r.body.(*authPacket)
	switch a.scheme {
	case "digest":
		return b, 0, c.listener.AddAuth(c.ctx, zk.Auth{Scheme: a.scheme, Cred: a.data})
	case "ip":
		return b, 0, nil
	}
	c.srv.stats.authFailed.Add(1)
	return b, 0, errors.Join(zk.ErrAuthFailed, errScheme)
}

// answerSASL says that there is none: an empty token, and no error (WP-47).
func answerSASL(_ *conn, _ *request, b []byte) ([]byte, zk.Zxid, error) {
	return appendBuffer(b, nil), 0, nil
}

// answerWhoAmI tells who the session is; of a digest only the user, never the hash (DM-52).
func answerWhoAmI(c *conn, _ *request, b []byte) ([]byte, zk.Zxid, error) {
	ids := c.listener.Identities()
	b = appendInt(b, int32(len(ids)))
	for _, id := range ids {
		user := id.ID
		if id.Scheme == "digest" {
			user, _, _ = strings.Cut(user, ":")
		}
		b = appendString(appendString(b, id.Scheme), user)
	}
	return b, 0, nil
}

// answerClose ends the session; its ephemerals are gone before the answer is sent (WP-27).
func answerClose(c *conn, _ *request, b []byte) ([]byte, zk.Zxid, error) {
	c.leaving.Store(true)
	err := c.session.Close()
	if err == nil {
		c.closed = true
	}
	if errors.Is(err, zk.ErrSessionMoved) || errors.Is(err, zk.ErrUnavailable) {
		return b, 0, zk.ErrSessionMoved
	}
	return b, 0, nil
}
