// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// What strangers send is taken apart without a panic, and takes memory in proportion to its length, not to the lengths
// it claims (WP-2, WP-5, WP-6, DM-91):
//
//	go test ./wire -fuzz FuzzRequest -fuzztime 1m

// allocated returns how many bytes fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allowance is what decoding n bytes may allocate: a step of a multi takes 17 bytes at least, and becomes a zk.Op in a
// list that grows.
func allowance(n int) uint64 { return 64*uint64(n) + 1<<16 }

func FuzzConnectRequest(f *testing.F) {
	f.Add((&connectRequest{timeout: 4000, password: make([]byte, 16), hasRO: true}).append(nil))
	f.Add((&connectRequest{timeout: 4000, password: make([]byte, 16)}).append(nil))
	f.Add((&connectRequest{session: -1, lastZxid: 1 << 62}).append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var q connectRequest
		var err error
		if n := allocated(func() { err = q.decode(&decoder{b: b}) }); n > allowance(len(b)) {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
		if err != nil {
			return
		}
		again := q.append(nil)
		if len(again) > len(b) || !bytes.Equal(again[:len(again)-1], b[:len(again)-1]) { // a boolean may be any byte
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, g := range golden {
		if g.send != "" {
			b, err := hex.DecodeString(strings.Join(strings.Fields(g.send), ""))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	for op, body := range map[opcode][]byte{
		opCreateTTL: createTTL("/a", 5, 10), opCreateContainer: createBody("/a", "", 4), opSetACL: setACLBody("/a", openACL, 1), opGetACL: path("/a"),
		opDelete: pathVersion("/a", 1), opSetWatches: watchesBody(1, []string{"/a"}, nil, []string{"/b"}), opAuth: authBodyOf("digest", "a:b"),
		opSetWatches2: watchesBody(1, nil, nil, nil, []string{"/a"}, []string{"/b"}), opAddWatch: pathVersion("/a", 1), opReconfig: reconfigBody("a", "b", "c", 1),
		opGetEphemerals: appendInt(nil, -1), opRemoveWatches: pathVersion("/a", 3), opSASL: appendBuffer(nil, nil), opWhoAmI: nil, 13: pathVersion("/a", 1),
		opMultiRead: multiEnd.append(append(multiHeader{opGetData, false, -1}.append(nil), pathWatch("/", true)...)),
	} {
		f.Add(append(requestHeader{1, op}.append(nil), body...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		var r request
		if n := allocated(func() { r = decodeRequest(b) }); n > allowance(len(b)) {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
		switch known := operations[r.op] != nil; {
		case !known && (r.code != zk.ErrUnimplemented || !r.last):
			t.Fatalf("an unknown opcode is answered with %v", r.code)
		case known && r.code != 0 && r.code != zk.ErrMarshalling:
			t.Fatalf("opcode %d is answered with %v", r.op, r.code)
		case r.code != 0 && (r.ops != nil || r.kind != kindPlain):
			t.Fatalf("%+v is refused and done", r)
		case r.code == 0 && r.kind == kindWrite && r.op != opMulti && len(r.ops) != 1:
			t.Fatalf("%d steps", len(r.ops))
		}
	})
}

func FuzzMulti(f *testing.F) {
	step := func(b []byte, op opcode, body []byte) []byte {
		return append(multiHeader{op, false, -1}.append(b), body...)
	}
	b := step(nil, opCreate, createBody("/a", "x", 0))
	b = step(b, opCreateTTL, createTTL("/t", 5, 1))
	b = step(b, opSetData, setBody("/a", "y", 0))
	b = step(b, opCheck, pathVersion("/a", 1))
	b = step(b, opDelete, pathVersion("/a", 1))
	f.Add(multiEnd.append(b))
	f.Add(b)
	f.Add(multiEnd.append(nil))
	f.Add(multiEnd.append(step(nil, opGetData, pathWatch("/", false))))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, op := range [...]opcode{opMulti, opMultiRead} {
			frame := append(requestHeader{1, op}.append(nil), b...)
			var r request
			if n := allocated(func() { r = decodeRequest(frame) }); n > allowance(len(b)) {
				t.Fatalf("%d bytes allocated for %d", n, len(b))
			}
			if r.code != 0 {
				continue
			}
			if kinds, ok := r.body.([]opcode); ok && len(kinds) != len(r.ops) {
				t.Fatalf("%d steps of %d kinds", len(r.ops), len(kinds))
			}
			// However it ends, it can be answered.
			call := &zk.Call{Results: make([]zk.Result, len(r.ops)), Codes: make([]zk.Code, len(r.ops))}
			if op == opMulti {
				appendMulti(nil, &r, call)
				call.Error = zk.ErrNoNode
				appendMulti(nil, &r, call)
			}
		}
	})
}

// fuzzed is a server for whole connections.
func fuzzed(f *testing.F) *Server {
	f.Helper()
	m, err := zk.Open(context.Background(), zk.Config{SessionTimeout: time.Second, MaxTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{Member: m, Words: []string{"*"}, Reconfig: true, Logger: slog.New(slog.DiscardHandler), Limits: Limits{Frame: 1 << 16}}
	s.start()
	for s.state.now() != servingAll {
		time.Sleep(time.Millisecond)
	}
	f.Cleanup(func() {
		s.Close()
		m.Close()
	})
	return s
}

// connection sends bytes to a server and hangs up once they are read; it returns what came back.
func connection(t *testing.T, s *Server, b []byte) []byte {
	t.Helper()
	client, server := net.Pipe()
	if !s.admit(netip.Addr{}) {
		t.Fatal("not admitted")
	}
	c := newConn(s, server, netip.Addr{}, portPlain)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer s.dismiss(netip.Addr{})
		c.serve()
	}()
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(client)
		got <- b
	}()
	client.SetWriteDeadline(time.Now().Add(patience))
	client.Write(b)
	client.Close()
	<-ended
	if st := s.Stats(); st.Panics > 0 || st.Outstanding != 0 {
		t.Fatalf("after %q: %+v", b, st)
	}
	return <-got
}

// sane fails unless a client that follows the rules is served.
func sane(t *testing.T, s *Server) {
	t.Helper()
	client, server := net.Pipe()
	c := newConn(s, server, netip.Addr{}, portPlain)
	ended := make(chan struct{})
	s.admit(netip.Addr{})
	go func() {
		defer close(ended)
		defer s.dismiss(netip.Addr{})
		c.serve()
	}()
	r := use(t, client)
	if !r.connect(connectRequest{timeout: 1000, hasRO: true}) || r.session == 0 {
		t.Fatal("no session")
	}
	r.want(0, opExists, pathWatch("/", false))
	r.want(0, opCloseSession, nil)
	r.ended()
	<-ended
}

func FuzzWords(f *testing.F) {
	s := fuzzed(f)
	for w := range words {
		f.Add([]byte(w))
	}
	f.Add([]byte("stmk\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(telnetInterrupt))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := connection(t, s, b)
		if !isWord(b[:min(4, len(b))]) && len(b) < 48 && len(got) > 0 {
			t.Fatalf("%q was answered with %q", b, got)
		}
		sane(t, s)
	})
}

func FuzzConnection(f *testing.F) {
	s := fuzzed(f)
	frame := func(b []byte) []byte { return append(appendInt(nil, int32(len(b))), b...) }
	connect := frame((&connectRequest{timeout: 1000, password: make([]byte, 16), hasRO: true}).append(nil))
	all := []byte{}
	for _, g := range golden {
		b, err := hex.DecodeString(strings.Join(strings.Fields(g.send), ""))
		if err != nil {
			f.Fatal(err)
		}
		if len(b) > 0 {
			all = append(all, frame(b)...)
			f.Add(false, frame(b))
		}
	}
	f.Add(false, all)
	f.Add(true, append(connect, all...))
	f.Add(true, connect[:30])
	f.Add(false, frame(requestHeader{1, 20}.append(nil)))
	f.Add(false, frame(append(requestHeader{1, opAuth}.append(nil), authBodyOf("sasl", "x")...)))
	f.Add(false, frame([]byte{1, 2, 3}))
	f.Add(false, []byte{0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, bare bool, b []byte) {
		if !bare {
			b = append(connect[:len(connect):len(connect)], b...)
		}
		connection(t, s, b)
		sane(t, s)
	})
}
