// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"testing"

	"github.com/seed-541fafe0/zk"
)

// do makes one change of the traces: "+" creates, "-" deletes, "=" sets, "a" sets the ACL.
func (r *raw) do(changes ...string) {
	r.t.Helper()
	for _, ch := range changes {
		switch p := ch[1:]; ch[0] {
		case '+':
			r.want(0, opCreate, createBody(p, "", 0))
		case '-':
			r.want(0, opDelete, pathVersion(p, -1))
		case '=':
			r.want(0, opSetData, setBody(p, "", -1))
		case 'a':
			r.want(0, opSetACL, setACLBody(p, openACL, -1))
		}
	}
}

// The traces of docs/spec/watches-sessions.md, between two connections (WT-1 to WT-15, WT-17, WT-20 to WT-23, WT-27).
func TestTracesOnTheWire(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	get := func(r *raw, p string, code zk.Code) { r.t.Helper(); r.want(code, opGetData, pathWatch(p, true)) }
	list := func(r *raw, p string, code zk.Code) { r.t.Helper(); r.want(code, opGetChildren2, pathWatch(p, true)) }
	exists := func(r *raw, p string, code zk.Code) { r.t.Helper(); r.want(code, opExists, pathWatch(p, true)) }
	add := func(r *raw, p string, mode int32) { r.t.Helper(); r.want(0, opAddWatch, pathVersion(p, mode)) }
	c := open(t, addr)
	for _, tc := range []struct {
		name  string
		setup []string
		w     func(w *raw)
		c     []string
		want  string
	}{
		{"TR-1", nil, func(w *raw) { get(w, "/x", zk.ErrNoNode); list(w, "/x", zk.ErrNoNode) }, []string{"+/x"}, ""},
		{"TR-2", []string{"-/x"}, func(w *raw) { exists(w, "/x", zk.ErrNoNode) }, []string{"+/x", "=/x"}, "1:/x"},
		{"TR-3", nil, func(w *raw) { exists(w, "/x", 0); get(w, "/x", 0) }, []string{"=/x", "=/x"}, "3:/x"},
		{"TR-4", nil, func(w *raw) { get(w, "/x", 0); list(w, "/x", 0); list(w, "/", 0) }, []string{"-/x"}, "2:/x 4:/"},
		{"TR-5", []string{"+/x", "+/x/k"}, func(w *raw) { list(w, "/x", 0) }, []string{"=/x/k", "=/x", "a/x"}, ""},
		{"TR-5, then", nil, func(w *raw) { list(w, "/x", 0) }, []string{"-/x/k"}, "4:/x"},
		{"TR-6", nil, func(w *raw) { get(w, "/x", 0) }, []string{"+/x/k", "a/x"}, ""},
		{"TR-7", nil, func(w *raw) { add(w, "/x", 0) }, []string{"=/x", "-/x/k", "+/x/k", "-/x/k", "-/x", "+/x", "+/x/k", "+/x/k/j", "=/x/k"},
			"3:/x 4:/x 4:/x 4:/x 2:/x 1:/x 4:/x"},
		{"TR-8", nil, func(w *raw) { add(w, "/x", 1) }, []string{"=/x", "+/x/k/z", "=/x/k/z", "-/x/k/z"}, "3:/x 1:/x/k/z 3:/x/k/z 2:/x/k/z"},
		{"TR-9", nil, func(w *raw) { add(w, "/x", 1); list(w, "/x/k", 0) }, []string{"+/x/k/z"}, "1:/x/k/z 4:/x/k"},
		{"TR-10", nil, func(w *raw) { add(w, "/x", 1); get(w, "/x/k", 0) }, []string{"=/x/k"}, "3:/x/k"},
		{"TR-11", nil, func(w *raw) { add(w, "/x", 1); add(w, "/x", 0) }, []string{"=/x", "+/x/n"}, "3:/x 1:/x/n 4:/x"},
		{"TR-13", nil, func(w *raw) { add(w, "/m", 0) }, []string{"+/m"}, "1:/m"},
		{"TR-14", nil, func(w *raw) {
			add(w, "/m", 0)
			w.want(0, opRemoveWatches, pathVersion("/m", 3))
			w.want(zk.ErrNoWatch, opRemoveWatches, pathVersion("/m", 3))
			w.want(zk.ErrNoWatch, opCheckWatches, pathVersion("/m", 3))
		}, []string{"=/m"}, ""},
		{"recursive on the root", nil, func(w *raw) { add(w, "/", 1) }, []string{"+/zookeeper/foo", "-/zookeeper/foo"}, "1:/zookeeper/foo 2:/zookeeper/foo"}, // WT-11
		{"a removal elsewhere", nil, func(w *raw) { // WT-29
			add(w, "/x", 1)
			w.want(zk.ErrNoWatch, opRemoveWatches, pathVersion("/x/k", 3))
		}, []string{"=/x/k"}, "3:/x/k"},
	} {
		c.do(tc.setup...)
		w := open(t, addr)
		tc.w(w)
		c.do(tc.c...)
		if got := w.heard(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		w.want(0, opCloseSession, nil)
	}

	// TR-12: one transaction.
	c.do("+/a")
	w := open(t, addr)
	get(w, "/a", 0)
	exists(w, "/n", zk.ErrNoNode)
	list(w, "/", 0)
	add(w, "/", 1)
	var b []byte
	for _, s := range []struct {
		op   opcode
		body []byte
	}{{opSetData, setBody("/a", "", -1)}, {opSetData, setBody("/a", "", -1)}, {opCreate, createBody("/n", "", 0)}, {opDelete, pathVersion("/n", -1)}, {opCreate, createBody("/n2", "", 0)}} {
		b = append(multiHeader{s.op, false, -1}.append(b), s.body...)
	}
	c.want(0, opMulti, multiEnd.append(b))
	if got := w.heard(); got != "3:/a 3:/a 1:/n 4:/ 2:/n 1:/n2" { // DM-63
		t.Errorf("TR-12: %q", got)
	}
	// TR-15 to TR-17.
	s := open(t, addr)
	s.want(0, opSetWatches, watchesBody(0, []string{"/x", "/none"}, []string{"/x", "/none2"}, []string{"/x", "/none3"}))
	if got := fmt.Sprint(s.events); got != "[3:/x 2:/none 1:/x 4:/x 2:/none3]" {
		t.Errorf("TR-15: %s", got)
	}
	s = open(t, addr)
	s.want(0, opSetWatches, watchesBody(1<<40, []string{"/x"}, nil, []string{"/x"}))
	c.do("=/x", "+/x/tr16")
	if got := s.heard(); got != "3:/x 4:/x" {
		t.Errorf("TR-16: %q", got)
	}
	s = open(t, addr)
	s.want(0, opSetWatches2, watchesBody(0, nil, nil, nil, []string{"/x", "/np"}, []string{"/x/k"}))
	if c.do("+/np", "=/x/k"); s.heard() != "1:/np 3:/x/k" {
		t.Error("TR-17")
	}
	// TR-18.
	e := open(t, addr)
	e.want(0, opCreate, createBody("/e1", "", 1))
	e.want(0, opCreate, createBody("/e2", "", 1))
	w.events = nil
	exists(w, "/e1", 0)
	w.heard()
	e.want(0, opCloseSession, nil)
	e.ended()
	if got := w.heard(); got != "2:/e1 2:/e2" {
		t.Errorf("TR-18: %q", got)
	}
	// TR-20, WT-21: the event, then the answer.
	w = open(t, addr)
	get(w, "/x", 0)
	w.send(append(requestHeader{77, opSetData}.append(nil), setBody("/x", "", -1)...))
	for _, want := range []int32{xidEvent, 77} {
		d := decoder{b: w.receive()}
		if xid, zxid := d.int(), d.long(); xid != want || zxid != int64(m.Applied()) { // WT-18
			t.Errorf("TR-20: xid %d, zxid %d", xid, zxid)
		}
	}
}

// An event is sent at once to a client that asks for nothing (WT-25).
func TestEventUnasked(t *testing.T) {
	addr := serve(t, &Server{Member: member(t, zk.Config{})})
	w, c := open(t, addr), open(t, addr)
	w.want(0, opAddWatch, pathVersion("/", 1))
	for _, change := range []string{"+/x", "=/x", "-/x"} {
		c.do(change)
		var e watcherEvent
		d := decoder{b: w.receive()}
		if xid := d.int(); xid != xidEvent {
			t.Errorf("xid %d", xid)
		}
		d.take(12)
		if e.decode(&d); e.path != "/x" || d.err != nil {
			t.Errorf("%+v", e)
		}
	}
}

// Events of znodes that a client may not read are not for it; what it asks about on its return is (WT-24, DM-115).
func TestUnreadable(t *testing.T) {
	addr := serve(t, &Server{Member: member(t, zk.Config{})})
	owner, stranger, friend := open(t, addr), open(t, addr), open(t, addr)
	for _, c := range []*raw{owner, friend} {
		c.want(0, opAuth, authBodyOf("digest", "u:p"))
	}
	mine := []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("u:p")}}
	owner.want(0, opCreate, createACL("/s", mine, 0))
	for _, c := range []*raw{stranger, friend} {
		c.want(0, opAddWatch, pathVersion("/", 1))
		c.want(0, opAddWatch, pathVersion("/s", 0))
	}
	stranger.want(zk.ErrNoAuth, opGetData, pathWatch("/s", true))
	stranger.want(zk.ErrNoAuth, opExists, pathWatch("/s", true)) // DM-45
	stranger.want(zk.ErrNoAuth, opGetChildren, pathWatch("/s", true))
	stranger.want(zk.ErrNoAuth, opCountChildren, path("/s"))
	stranger.want(zk.ErrNoAuth, opGetACL, path("/s"))
	owner.want(0, opSetData, setBody("/s", "", -1))
	owner.want(0, opCreate, createACL("/s/k", openACL, 0))
	owner.want(0, opDelete, pathVersion("/s/k", -1))
	owner.want(0, opDelete, pathVersion("/s", -1))
	if got := friend.heard(); got != "3:/s 1:/s/k 4:/s 2:/s/k 4:/s 2:/s" {
		t.Errorf("who may read heard %q", got)
	}
	if got := stranger.heard(); got != "1:/s/k 2:/s/k" {
		t.Errorf("who may not read heard %q", got)
	}
	stranger.want(0, opSetWatches, watchesBody(0, []string{"/s"}, nil, nil))
	if got := stranger.heard(); got != "2:/s" {
		t.Errorf("catching up: %q", got)
	}
	stranger.want(zk.ErrInvalidACL, opCreate, createACL("/auth", []zk.ACL{{Perm: 31, Scheme: "auth"}}, 0)) // DM-103, DM-104
	stranger.want(0, opCreate, createACL("/ip", []zk.ACL{{Perm: 31, Scheme: "ip", ID: "127.0.0.1/8"}}, 0)) // DM-108
	friend.want(0, opSetData, setBody("/ip", "", -1))
	stranger.want(0, opSetACL, setACLBody("/ip", []zk.ACL{{Perm: 31, Scheme: "ip", ID: "10.0.0.1"}}, -1))
	stranger.want(zk.ErrNoAuth, opGetData, pathWatch("/ip", false))
}

// A client that watches and writes at once hears of everything in the order of zxids, whoever wrote it, and never reads
// a change before it hears of it (WT-20, WT-22, CG-9, CG-13, DM-64).
func TestEventOrder(t *testing.T) {
	for name, window := range map[string]int{"one by one": 1, "pipelined": 2000} {
		t.Run(name, func(t *testing.T) { eventOrder(t, window) })
	}
}

func eventOrder(t *testing.T, window int) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	a, b := open(t, addr), open(t, addr)
	a.do("+/r", "+/w")
	a.want(0, opAddWatch, pathVersion("/", 1))
	const n = 2000
	tokens := make(chan struct{}, window)
	write := func(c *raw, p string, read bool) {
		for i := range int32(n) {
			if read {
				tokens <- struct{}{}
			}
			f := append(requestHeader{i, opSetData}.append(nil), setBody(p, "", -1)...)
			if read && i%16 == 3 {
				f = append(requestHeader{i, opGetData}.append(nil), pathWatch("/r", false)...)
			}
			if read && i%4 == 1 {
				f = requestHeader{i, opPing}.append(nil)
			}
			c.nc.Write(append(appendInt(nil, int32(len(f))), f...))
		}
	}
	go write(a, "/w", true)
	go write(b, "/r", false)
	go func() {
		for range n {
			b.receive()
		}
	}()
	events, last, heard, version := int32(0), int64(0), int64(0), int32(0)
	for answers := int32(0); answers < n; {
		p := reply{decoder: decoder{b: a.receive()}}
		p.replyHeader.decode(&p.decoder)
		if p.zxid < last {
			t.Fatalf("zxid %d after %d", p.zxid, last)
		}
		last = p.zxid
		if p.xid == xidEvent {
			var e watcherEvent
			if e.decode(&p.decoder); e.path == "/r" {
				events++
			}
			heard = p.zxid
			continue
		}
		switch i := answers; {
		case p.code != 0 || p.xid != i && !(i%4 == 1 && p.xid == xidPing):
			t.Fatalf("answer %d: xid %d, code %d", i, p.xid, p.code)
		case i%4 == 1:
		case i%16 == 3:
			p.buffer()
			if version = p.stat().Version; version > events {
				t.Fatalf("version %d was read after %d events", version, events)
			}
		default:
			if own := int64(p.stat().Mzxid); own < heard {
				t.Fatalf("the answer of %d came after an event of %d", own, heard)
			}
		}
		answers++
		<-tokens
	}
}
