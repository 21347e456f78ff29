// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// A watch that begins with a read tells of every change that the read does not show, each once and in order, on whichever member;
// and a read after an event shows what the event tells of (E4).
func TestWatchBeginsWithRead(t *testing.T) {
	const changes = 200
	bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 2 * changes}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		writer := session(t, ctx, c.Member(0))
		paths := [2]string{"/x", "/x/y"} // in turn: adjacent events that are equal may come as one
		for _, path := range paths {
			create(t, ctx, writer, path, zk.Persistent)
		}
		must(t, c.Quiesce(ctx))
		done := make(chan []zk.Zxid, 1)
		go func() {
			var made []zk.Zxid
			for i := range changes {
				st, err := writer.Set(ctx, paths[i%2], nil, zk.AnyVersion)
				if err != nil {
					t.Error(err)
				}
				made = append(made, st.Mzxid)
			}
			done <- made
		}()
		type log struct {
			from zk.Zxid
			told []zk.Zxid
		}
		logs := make(chan log, 90)
		for i := range cap(logs) { // at whatever moments of it
			s := session(t, ctx, c.Member(i%3))
			go func() {
				w, err := s.Watch(ctx, "/x", zk.WatchSubtree)
				if err != nil {
					t.Error(err)
					logs <- log{}
					return
				}
				defer w.Close()
				l := log{from: w.From()}
				last := func(path string) (st zk.Stat) {
					if err == nil {
						_, st, err = s.Get(ctx, path)
					}
					return st
				}
				for err == nil && last(paths[1]).Version < changes/2 {
					ev := <-w.Events()
					l.told = append(l.told, ev.Zxid)
					if now := last(ev.Path).Mzxid; now < ev.Zxid { // E4
						t.Errorf("read %v after the event of %v", now, ev.Zxid)
					}
				}
				if err != nil {
					t.Error(err)
				}
				for len(w.Events()) > 0 {
					l.told = append(l.told, (<-w.Events()).Zxid)
				}
				logs <- l
			}()
		}
		made := <-done
		for range cap(logs) {
			l := <-logs
			var want []zk.Zxid
			for _, z := range made {
				if z > l.from {
					want = append(want, z)
				}
			}
			if fmt.Sprint(l.told) != fmt.Sprint(want) { // E4
				t.Fatalf("from %v on it was told of %d changes, there were %d", l.from, len(l.told), len(want))
			}
		}
	})
}

// What is handed to a call may be changed once it has returned, and what a call has handed out at any time: the state knows
// nothing of it, here or elsewhere (E13).
func TestNothingIsShared(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		var s [3]*zk.Session
		for i := range s {
			s[i] = session(t, ctx, c.Member(i))
		}
		intact := func(what string) {
			t.Helper()
			must(t, c.Quiesce(ctx))
			for _, s := range s {
				for _, path := range []string{"/a", "/b"} {
					data, _, err := s.Get(ctx, path)
					must(t, err)
					if string(data) != "data" { // E13
						t.Fatalf("%s has made %q of it", what, data)
					}
					acl, _, err := s.GetACL(ctx, path)
					must(t, err)
					if len(acl) != 1 || acl[0] != zk.OpenACL()[0] {
						t.Fatalf("%s has made %v of it", what, acl)
					}
				}
				names, _, err := s.Children(ctx, "/")
				must(t, err)
				if fmt.Sprint(names) != "[a b zookeeper]" {
					t.Fatalf("%s has made %v of it", what, names)
				}
			}
		}
		spoil := func(b []byte) { copy(b, "XXXXXXXX") }
		data, acl := []byte("data"), zk.OpenACL()
		_, err := s[0].Do(ctx, zk.OpCreate("/a", data, zk.Persistent).WithACL(acl...))
		must(t, err)
		spoil(data)
		acl[0] = zk.ACL{}
		data, acl = []byte("data"), zk.OpenACL()
		ops := []zk.Op{zk.OpCreate("/b", data, zk.Persistent).WithACL(acl...), zk.OpSet("/a", data, zk.AnyVersion)}
		_, err = s[1].Txn(ctx, ops...)
		must(t, err)
		spoil(data)
		acl[0] = zk.ACL{}
		spoil(ops[1].Data())
		ops[0] = zk.Op{}
		intact("what was handed in")
		for _, s := range s {
			for range 2 {
				data, _, err := s.Get(ctx, "/a")
				must(t, err)
				spoil(data)
				names, _, err := s.Children(ctx, "/")
				must(t, err)
				names[0] = "x"
				acl, _, err := s.GetACL(ctx, "/a")
				must(t, err)
				acl[0] = zk.ACL{}
				data, _, _, err = s.GetW(ctx, "/b")
				must(t, err)
				spoil(data)
				intact("what was handed out")
			}
		}
		data = []byte("data")
		late := s[2].Listener().Go(ctx, nil, zk.OpSet("/a", data, zk.AnyVersion))
		<-late.Done
		spoil(data)
		intact("what an asynchronous call was given")
		must(t, c.Member(0).Compact(ctx))
		must(t, c.Crash(0))
		must(t, c.Restart(ctx, 0))
		must(t, c.Member(0).Ready(ctx))
		s[0] = session(t, ctx, c.Member(0))
		intact("a restart")
	})
}
