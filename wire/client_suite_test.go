// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

var superDigest = zk.DigestID("super:secret")

// newTestClient dials, and closes the client at the end. The context bounds every wait of the test.
func newTestClient(t *testing.T, cfg ClientConfig) (context.Context, *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c, err := Dial(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return ctx, c
}

func want(t *testing.T, err, code error) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got %v, want %v", err, code)
	}
}

func nextEvent(t *testing.T, ctx context.Context, ch <-chan zk.Event) zk.Event {
	t.Helper()
	select {
	case ev, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return ev
	case <-ctx.Done():
		t.Fatal("no event")
		return zk.Event{}
	}
}

func wantEvent(t *testing.T, ctx context.Context, ch <-chan zk.Event, typ zk.EventType, path string) {
	t.Helper()
	if ev := nextEvent(t, ctx, ch); ev.Type != typ || ev.Path != path {
		t.Fatalf("got %v %s, want %v %s", ev.Type, ev.Path, typ, path)
	}
}

// clientSuite is what a Client must be able to do on every server.
func clientSuite(t *testing.T, servers func(*testing.T) []string) {
	dial := func(t *testing.T, change func(*ClientConfig)) (context.Context, *Client) {
		t.Helper()
		cfg := ClientConfig{Servers: servers(t)}
		if change != nil {
			change(&cfg)
		}
		return newTestClient(t, cfg)
	}

	t.Run("znodes", func(t *testing.T) {
		ctx, c := dial(t, nil)
		z, err := c.Create(ctx, "/znodes", []byte("one"), zk.Persistent)
		must(t, err)
		if z.Path != "/znodes" || z.Data != "one" || z.Stat.Czxid == 0 || z.Stat.DataLength != 3 {
			t.Errorf("create returned %+v", z)
		}
		_, err = c.Create(ctx, "/znodes", nil, zk.Persistent)
		want(t, err, zk.ErrNodeExists)
		want(t, err, fs.ErrExist)
		if zk.MaybeApplied(err) {
			t.Error("a refused write is not in doubt")
		}
		data, st, err := c.Get(ctx, "/znodes")
		must(t, err)
		if string(data) != "one" || st != z.Stat {
			t.Errorf("get returned %q, %+v; create %+v", data, st, z.Stat)
		}
		st, err = c.Set(ctx, "/znodes", []byte("two"), 0)
		must(t, err)
		if st.Version != 1 {
			t.Errorf("version %d after one set", st.Version)
		}
		_, err = c.Set(ctx, "/znodes", nil, 0)
		want(t, err, zk.ErrBadVersion)
		_, ok, err := c.Exists(ctx, "/znodes/none")
		if must(t, err); ok {
			t.Error("a znode that nobody has created is there")
		}
		_, _, err = c.Get(ctx, "/znodes/none")
		want(t, err, zk.ErrNoNode)
		for _, name := range [...]string{"b", "a", "c"} {
			_, err = c.Create(ctx, "/znodes/"+name, nil, zk.Persistent)
			must(t, err)
		}
		names, st, err := c.Children(ctx, "/znodes")
		must(t, err)
		if !slices.Equal(names, []string{"a", "b", "c"}) || st.NumChildren != 3 {
			t.Errorf("children %q of %d", names, st.NumChildren)
		}
		if n, err := c.Descendants(ctx, "/znodes"); err != nil || n != 3 {
			t.Errorf("%d descendants, %v", n, err)
		}
		data, _, err = c.Get(ctx, "/znodes/a")
		if must(t, err); data != nil {
			t.Errorf("null came back as %q", data) // DM-24
		}
		want(t, c.Delete(ctx, "/znodes", zk.AnyVersion), zk.ErrNotEmpty)
		want(t, c.Delete(ctx, "/znodes/a", 7), zk.ErrBadVersion)
		must(t, c.Delete(ctx, "/znodes/a", 0))
		must(t, c.Sync(ctx))
		must(t, c.Ping(ctx))
		if c.LastZxid() == 0 {
			t.Error("no zxid was seen")
		}
	})

	t.Run("modes", func(t *testing.T) {
		ctx, c := dial(t, nil)
		_, err := c.Create(ctx, "/modes", nil, zk.Persistent)
		must(t, err)
		z, err := c.Create(ctx, "/modes/e", nil, zk.Ephemeral)
		must(t, err)
		if z.Stat.EphemeralOwner != c.ID() {
			t.Errorf("owner %v, session %v", z.Stat.EphemeralOwner, c.ID())
		}
		z, err = c.Create(ctx, "/modes/s-", nil, zk.Sequential)
		must(t, err)
		if z.Path != "/modes/s-0000000001" {
			t.Errorf("a sequential znode is called %s", z.Path) // DM-25
		}
		z, err = c.Create(ctx, "/modes/", nil, zk.Sequential|zk.Ephemeral)
		must(t, err)
		if z.Path != "/modes/0000000002" { // DM-9
			t.Errorf("a sequential znode is called %s", z.Path)
		}
		if paths, err := c.Ephemerals(ctx, "/modes"); err != nil || !slices.Equal(paths, []string{"/modes/0000000002", "/modes/e"}) {
			t.Errorf("ephemerals %q, %v", paths, err)
		}
		_, err = c.Create(ctx, "/modes/e/child", nil, zk.Persistent)
		want(t, err, zk.ErrNoChildrenForEphemerals)
		_, err = c.Create(ctx, "/modes/box", nil, zk.Container)
		must(t, err)
		_, err = c.Do(ctx, OpCreate("/modes/ttl", nil, zk.Persistent).WithTTL(time.Hour))
		must(t, err)
		r, err := c.Do(ctx, OpCreate("/modes/ttl-", nil, zk.Sequential).WithTTL(time.Hour))
		if must(t, err); r.Path != "/modes/ttl-0000000005" {
			t.Errorf("a sequential znode with a TTL is called %s", r.Path)
		}
		_, err = c.Do(ctx, OpCreate("/modes/never", nil, zk.Persistent).WithTTL(1<<40*time.Millisecond))
		want(t, err, zk.ErrBadArguments) // DM-19
		_, err = c.Do(ctx, OpCreate("/modes/never", nil, zk.Ephemeral).WithTTL(time.Hour))
		want(t, err, zk.ErrBadArguments)
		_, err = c.Create(ctx, "/modes/a/b", nil, zk.Parents)
		want(t, err, zk.ErrBadArguments)
		for _, bad := range [...]string{"", "a", "/a/", "//", "/a/../b"} {
			_, _, err := c.Get(ctx, bad)
			want(t, err, zk.ErrBadArguments)
		}
	})

	t.Run("txn", func(t *testing.T) {
		ctx, c := dial(t, nil)
		results, err := c.Txn(ctx, OpCreate("/txn", nil, zk.Persistent), OpCreate("/txn/s-", []byte("x"), zk.Sequential), OpSet("/txn", []byte("v"), 0),
			OpCheck("/txn", 1), OpCreate("/txn/box", nil, zk.Container), OpDelete("/txn/box", 0))
		must(t, err)
		if results[1].Path != "/txn/s-0000000000" || results[2].Stat.Version != 1 || results[3].Path != "/txn" {
			t.Errorf("results %+v", results)
		}
		_, err = c.Txn(ctx, OpSet("/txn", nil, 1), OpDelete("/none", -1), OpCheck("/txn", -1)) // DM-58
		want(t, err, zk.ErrNoNode)
		failed, ok := errors.AsType[*zk.TxnError](err)
		if !ok || failed.Index != 1 || !errors.Is(failed.Steps[0], zk.ErrRolledBack) || !errors.Is(failed.Steps[2], zk.ErrRolledBack) {
			t.Errorf("error %v, %+v", err, failed)
		}
		if st, _, err := c.Exists(ctx, "/txn"); err != nil || st.Version != 1 {
			t.Errorf("a failed transaction left version %d, %v", st.Version, err)
		}
		_, err = c.Txn(ctx)
		must(t, err) // DM-60
		_, err = c.Do(ctx, OpCheck("/txn", 7))
		want(t, err, zk.ErrBadVersion)
		reads, err := c.MultiRead(ctx, zk.ReadRequest{Path: "/txn"}, zk.ReadRequest{Path: "/none"}, zk.ReadRequest{Path: "/txn", Children: true}) // DM-66
		must(t, err)
		if string(reads[0].Data) != "v" || reads[1].Code != zk.ErrNoNode || !slices.Equal(reads[2].Names, []string{"s-0000000000"}) {
			t.Errorf("reads %+v", reads)
		}
	})

	t.Run("acl", func(t *testing.T) {
		ctx, c := dial(t, func(cfg *ClientConfig) { cfg.Auth = []zk.Auth{{Scheme: "digest", Cred: []byte("ann:1")}} })
		_, err := c.Do(ctx, OpCreate("/acl", nil, zk.Persistent).WithACL(zk.CreatorACL()...))
		must(t, err)
		acl, st, err := c.GetACL(ctx, "/acl")
		must(t, err)
		if len(acl) != 1 || acl[0].ID != zk.DigestID("ann:1") || acl[0].Perm != zk.PermAll {
			t.Errorf("acl %+v", acl)
		}
		_, other := dial(t, nil)
		_, _, err = other.Get(ctx, "/acl")
		want(t, err, zk.ErrNoAuth)
		want(t, err, fs.ErrPermission)
		must(t, other.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("ann:1")}))
		_, _, err = other.Get(ctx, "/acl")
		must(t, err)
		st, err = other.SetACL(ctx, "/acl", append(zk.ReadACL(), acl...), st.Aversion)
		if must(t, err); st.Aversion != 1 {
			t.Errorf("aversion %d", st.Aversion)
		}
		_, err = other.SetACL(ctx, "/acl", nil, zk.AnyVersion)
		want(t, err, zk.ErrInvalidACL)
		ids, err := other.Identities(ctx)
		must(t, err)
		if !slices.ContainsFunc(ids, func(id zk.Identity) bool { return id.Scheme == "digest" && strings.HasPrefix(id.ID, "ann") }) {
			t.Errorf("identities %v", ids)
		}
		_, third := dial(t, nil)
		want(t, third.AddAuth(ctx, zk.Auth{Scheme: "nonsense"}), zk.ErrAuthFailed) // DM-111
		<-third.Done()
		_, _, err = third.Get(ctx, "/")
		want(t, err, zk.ErrAuthFailed)
	})

	t.Run("watch once", func(t *testing.T) {
		ctx, c := dial(t, nil)
		_, w := dial(t, nil)
		_, ok, born, err := w.ExistsW(ctx, "/once")
		if must(t, err); ok {
			t.Fatal("it is there")
		}
		_, _, _, err = w.GetW(ctx, "/once")
		want(t, err, zk.ErrNoNode)
		_, err = c.Create(ctx, "/once", nil, zk.Persistent)
		must(t, err)
		wantEvent(t, ctx, born, zk.EventCreated, "/once")
		if _, open := <-born; open {
			t.Error("a one-shot watch yields twice") // WT-40
		}
		must(t, w.Sync(ctx))
		_, _, data, err := w.GetW(ctx, "/once")
		must(t, err)
		_, _, data2, err := w.ExistsW(ctx, "/once")
		must(t, err)
		_, _, children, err := w.ChildrenW(ctx, "/once")
		must(t, err)
		_, err = c.Create(ctx, "/once/k", nil, zk.Persistent)
		must(t, err)
		wantEvent(t, ctx, children, zk.EventChildren, "/once")
		_, err = c.Set(ctx, "/once", nil, -1)
		must(t, err)
		wantEvent(t, ctx, data, zk.EventChanged, "/once")
		wantEvent(t, ctx, data2, zk.EventChanged, "/once")
		must(t, w.Sync(ctx))
		_, _, data, err = w.GetW(ctx, "/once/k")
		must(t, err)
		_, _, children, err = w.ChildrenW(ctx, "/once/k")
		must(t, err)
		must(t, c.Delete(ctx, "/once/k", -1))
		wantEvent(t, ctx, data, zk.EventDeleted, "/once/k")
		wantEvent(t, ctx, children, zk.EventDeleted, "/once/k")

		watching, stop := context.WithCancel(ctx)
		_, _, data, err = w.GetW(watching, "/once")
		must(t, err)
		must(t, w.CheckWatches(ctx, "/once", zk.WatchTypeData))
		stop()
		if ev, open := <-data; open {
			t.Errorf("a watch that was given up yields %v", ev) // WT-44
		}
		want(t, w.CheckWatches(ctx, "/once", zk.WatchTypeData), zk.ErrNoWatch)

		_, _, data, err = w.GetW(ctx, "/once")
		must(t, err)
		must(t, w.RemoveWatches(ctx, "/once", zk.WatchTypeAny))
		if ev, open := <-data; open {
			t.Errorf("a watch that was removed yields %v", ev)
		}
		want(t, w.RemoveWatches(ctx, "/once", zk.WatchTypeAny), zk.ErrNoWatch)

		_, _, data, err = w.GetW(ctx, "/once")
		must(t, err)
		must(t, w.Close())
		if ev := nextEvent(t, ctx, data); ev.Type != zk.EventSession || ev.State != zk.StateClosed { // WT-40
			t.Errorf("at the session's end the watch yields %+v", ev)
		}
	})

	t.Run("watch for long", func(t *testing.T) {
		ctx, c := dial(t, nil)
		_, client := dial(t, nil)
		node, err := client.Watch(ctx, "/long/x", zk.WatchNode)
		must(t, err)
		_, client2 := dial(t, nil)
		tree, err := client2.Watch(ctx, "/long", zk.WatchSubtree)
		must(t, err)
		_, client3 := dial(t, nil)
		set, err := client3.Watch(ctx, "/long/x", zk.WatchChildSet)
		must(t, err)
		for _, path := range [...]string{"/long", "/long/x", "/long/x/k"} {
			_, err = c.Create(ctx, path, nil, zk.Persistent)
			must(t, err)
		}
		_, err = c.Set(ctx, "/long/x/k", nil, -1)
		must(t, err)
		_, err = c.Set(ctx, "/long/x", nil, -1)
		must(t, err)
		must(t, c.Delete(ctx, "/long/x/k", -1))
		must(t, c.Delete(ctx, "/long/x", -1))
		for _, e := range [...]zk.EventType{zk.EventCreated, zk.EventChildren, zk.EventChanged, zk.EventChildren, zk.EventDeleted} { // WT-7
			wantEvent(t, ctx, node.Events(), e, "/long/x")
		}
		for _, e := range [...]zk.Event{{Type: zk.EventCreated, Path: "/long"}, {Type: zk.EventCreated, Path: "/long/x"}, {Type: zk.EventCreated, Path: "/long/x/k"},
			{Type: zk.EventChanged, Path: "/long/x/k"}, {Type: zk.EventChanged, Path: "/long/x"}, {Type: zk.EventDeleted, Path: "/long/x/k"}, {Type: zk.EventDeleted, Path: "/long/x"}} { // WT-6
			wantEvent(t, ctx, tree.Events(), e.Type, e.Path)
		}
		wantEvent(t, ctx, set.Events(), zk.EventChildren, "/long/x")
		wantEvent(t, ctx, set.Events(), zk.EventChildren, "/long/x")
		node.Close()
		if _, open := <-node.Events(); open || !errors.Is(node.Err(), zk.ErrClosed) {
			t.Errorf("a closed watch: %v", node.Err())
		}
		must(t, client2.Close())
		want(t, client.RemoveWatches(ctx, "/long/x", zk.WatchTypeAny), zk.ErrNoWatch) // where others watch, 3.8.0's CheckWatches errs
		wantEvent(t, ctx, tree.Events(), zk.EventSession, "/long")
		for _, err := range tree.All() {
			want(t, err, zk.ErrClosed)
		}
	})

	t.Run("others watch on", func(t *testing.T) { // WT-44: to give one up costs nobody else
		ctx, c := dial(t, nil)
		_, err := c.Create(ctx, "/on", nil, zk.Persistent)
		must(t, err)
		once, stop := context.WithCancel(ctx)
		_, _, gone, err := c.GetW(once, "/on")
		must(t, err)
		for _, kind := range [...]zk.WatchKind{zk.WatchNode, zk.WatchSubtree} {
			keep, err := c.Watch(ctx, "/on", kind)
			must(t, err)
			other, err := c.Watch(ctx, "/on", kind)
			must(t, err)
			other.Close()
			_, err = c.Set(ctx, "/on", nil, -1)
			must(t, err)
			wantEvent(t, ctx, keep.Events(), zk.EventChanged, "/on")
			keep.Close()
		}
		stop()
		for range gone { // the change
		}
		keep, err := c.Watch(ctx, "/on", zk.WatchNode)
		must(t, err)
		once, stop = context.WithCancel(ctx)
		_, _, gone, err = c.GetW(once, "/on")
		must(t, err)
		stop()
		if ev, open := <-gone; open {
			t.Errorf("a watch that was given up yields %v", ev)
		}
		_, err = c.Create(ctx, "/on/k", nil, zk.Persistent)
		must(t, err)
		wantEvent(t, ctx, keep.Events(), zk.EventChildren, "/on")
	})

	t.Run("overflow", func(t *testing.T) {
		ctx, c := dial(t, func(cfg *ClientConfig) { cfg.WatchBuffer = 2 })
		_, err := c.Create(ctx, "/overflow", nil, zk.Persistent)
		must(t, err)
		w, err := c.Watch(ctx, "/overflow", zk.WatchNode)
		must(t, err)
		for range 5 {
			_, err := c.Set(ctx, "/overflow", nil, -1)
			must(t, err)
		}
		must(t, c.Sync(ctx))
		for _, e := range [...]zk.EventType{zk.EventChanged, zk.EventChanged, zk.EventOverflow} { // WT-42
			wantEvent(t, ctx, w.Events(), e, "/overflow")
		}
		_, err = c.Set(ctx, "/overflow", nil, -1)
		must(t, err)
		wantEvent(t, ctx, w.Events(), zk.EventChanged, "/overflow")
	})

	t.Run("chroot", func(t *testing.T) { // WP-81
		ctx, c := dial(t, nil)
		_, err := c.Create(ctx, "/chroot", []byte("top"), zk.Persistent)
		must(t, err)
		_, sub := dial(t, func(cfg *ClientConfig) { cfg.Chroot = "/chroot" })
		if data, _, err := sub.Get(ctx, "/"); err != nil || string(data) != "top" {
			t.Errorf("the chroot's own znode: %q, %v", data, err)
		}
		w, err := sub.Watch(ctx, "/", zk.WatchSubtree)
		must(t, err)
		z, err := sub.Create(ctx, "/a-", nil, zk.Ephemeral|zk.Sequential)
		must(t, err)
		if z.Path != "/a-0000000000" {
			t.Errorf("created %s", z.Path)
		}
		wantEvent(t, ctx, w.Events(), zk.EventCreated, "/a-0000000000")
		if paths, err := sub.Ephemerals(ctx, "/"); err != nil || !slices.Equal(paths, []string{z.Path}) {
			t.Errorf("ephemerals %q, %v", paths, err)
		}
		results, err := sub.Txn(ctx, OpCreate("/b", nil, zk.Persistent))
		if must(t, err); results[0].Path != "/b" {
			t.Errorf("created %s", results[0].Path)
		}
		_, ok, err := c.Exists(ctx, "/chroot/b")
		if must(t, err); !ok {
			t.Error("/chroot/b is not there")
		}
	})

	t.Run("pipelined", func(t *testing.T) { // WP-3
		ctx, c := dial(t, func(cfg *ClientConfig) { cfg.MaxOutstanding = 50 })
		_, err := c.Create(ctx, "/many", nil, zk.Persistent)
		must(t, err)
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				path := fmt.Sprint("/many/", i)
				if _, err := c.Create(ctx, path, []byte(path), zk.Ephemeral); err != nil {
					t.Error(err)
				}
				if data, _, err := c.Get(ctx, path); err != nil || string(data) != path {
					t.Errorf("%s: %q, %v", path, data, err)
				}
			})
		}
		all.Wait()
		must(t, c.Close())
		_, c = dial(t, nil)
		if names, _, err := c.Children(ctx, "/many"); err != nil || len(names) > 0 { // SS-12
			t.Errorf("the ephemerals of a closed session: %q, %v", names, err)
		}
	})

	t.Run("every opcode", func(t *testing.T) { everyOpcode(t, servers(t)) })

	t.Run("too large", func(t *testing.T) { // DM-90
		ctx, c := dial(t, nil)
		_, err := c.Create(ctx, "/large", make([]byte, 1<<20), zk.Persistent)
		want(t, err, zk.ErrTooLarge)
		_, err = c.Create(ctx, "/large", make([]byte, 1<<20-200), zk.Persistent)
		must(t, err)
		data, _, err := c.Get(ctx, "/large")
		if must(t, err); len(data) != 1<<20-200 {
			t.Errorf("%d bytes came back", len(data))
		}
	})

	t.Run("take over", func(t *testing.T) { // SS-14, SS-15
		ctx, a := dial(t, nil)
		_, err := a.Create(ctx, "/taken", nil, zk.Ephemeral)
		must(t, err)
		a.Detach()
		want(t, a.Err(), zk.ErrClosed)
		_, _, err = a.Get(ctx, "/")
		want(t, err, zk.ErrClosed)
		_, b := dial(t, func(cfg *ClientConfig) { cfg.Session, cfg.Password, cfg.LastZxid = a.ID(), a.Password(), a.LastZxid() })
		if b.ID() != a.ID() {
			t.Errorf("session %v became %v", a.ID(), b.ID())
		}
		if paths, err := b.Ephemerals(ctx, "/taken"); err != nil || len(paths) != 1 {
			t.Errorf("ephemerals %q, %v", paths, err)
		}
		_, err = Dial(ctx, ClientConfig{Servers: servers(t), Session: a.ID(), Password: make([]byte, passwordSize)})
		want(t, err, zk.ErrSessionExpired)
		must(t, b.Ping(ctx)) // a wrong password kills nothing
		must(t, b.Close())
		_, err = Dial(ctx, ClientConfig{Servers: servers(t), Session: a.ID(), Password: a.Password()})
		want(t, err, zk.ErrSessionExpired)
	})
}
