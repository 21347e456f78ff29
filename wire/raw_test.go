// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// patience bounds every wait of these tests; nothing takes nearly as long.
const patience = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func member(t *testing.T, cfg zk.Config) *zk.Member {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := zk.Open(ctx, cfg)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	must(t, m.Ready(ctx))
	return m
}

// serve runs s on a loopback port and returns the address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	return serveOn(t, s, s.Serve)
}

func serveOn(t *testing.T, s *Server, serve func(net.Listener) error) string {
	t.Helper()
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, ErrServerClosed) && !errors.Is(err, zk.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	eventually(t, "serving", func() bool { return s.state.now() == servingAll })
	return l.Addr().String()
}

// raw is a client that sends and receives frames as they are.
type raw struct {
	t        *testing.T
	nc       net.Conn
	session  int64
	password []byte
	timeout  int32
	readOnly bool
	events   []string // "zxid type:path" of those that came before what was waited for
	xid      int32
}

func dial(t *testing.T, addr string) *raw {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, patience)
	must(t, err)
	return use(t, nc)
}

func use(t *testing.T, nc net.Conn) *raw {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &raw{t: t, nc: nc}
}

// open connects with a new session.
func open(t *testing.T, addr string) *raw {
	t.Helper()
	r := dial(t, addr)
	if !r.connect(connectRequest{timeout: 10_000, hasRO: true}) {
		t.Fatal("closed instead of a session")
	}
	if r.session == 0 {
		t.Fatal("session refused")
	}
	return r
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.nc.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) send(frame []byte) {
	r.t.Helper()
	r.write(append(appendInt(nil, int32(len(frame))), frame...))
}

// receive returns the next frame, or nil at the end of the connection.
func (r *raw) receive() []byte {
	r.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(r.nc, head[:]); err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			r.t.Fatal("neither a frame nor the end")
		}
		return nil
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r.nc, b); err != nil {
		r.t.Fatal(err)
	}
	return b
}

// connect sends q and reads the response; it reports whether there was one.
func (r *raw) connect(q connectRequest) bool {
	r.t.Helper()
	r.send(q.append(nil))
	return r.connected()
}

func (r *raw) connected() bool {
	r.t.Helper()
	b := r.receive()
	if b == nil {
		return false
	}
	var res connectResponse
	must(r.t, res.decode(&decoder{b: b}))
	r.session, r.password, r.timeout, r.readOnly = res.session, append([]byte{}, res.password...), res.timeout, res.readOnly
	return true
}

// ended fails unless the connection is closed without another frame.
func (r *raw) ended() {
	r.t.Helper()
	if b := r.receive(); b != nil {
		r.t.Fatalf("%x instead of the end", b)
	}
}

type reply struct {
	replyHeader
	decoder
	raw []byte
}

// reply returns the next answer and notes the events before it.
func (r *raw) reply() reply {
	r.t.Helper()
	for {
		b := r.receive()
		if b == nil {
			r.t.Fatal("closed instead of an answer")
		}
		p := reply{raw: b, decoder: decoder{b: b}}
		p.replyHeader.decode(&p.decoder)
		if p.xid != xidEvent {
			return p
		}
		var e watcherEvent
		e.decode(&p.decoder)
		r.events = append(r.events, fmt.Sprintf("%d:%s", e.kind, e.path))
		if p.code != 0 || e.state != stateConnected {
			r.t.Errorf("event %x", b)
		}
	}
}

// call sends one request and returns its answer.
func (r *raw) call(op opcode, body []byte) reply {
	r.t.Helper()
	r.xid++
	r.send(append(requestHeader{r.xid, op}.append(nil), body...))
	p := r.reply()
	if want := r.xid; p.xid != want && op != opPing {
		r.t.Fatalf("answer to %d instead of %d", p.xid, want)
	}
	return p
}

// want calls and checks the code.
func (r *raw) want(code zk.Code, op opcode, body []byte) reply {
	r.t.Helper()
	p := r.call(op, body)
	if p.code != code {
		r.t.Fatalf("request of type %d: code %d, want %d", op, int32(p.code), int32(code))
	}
	if code != 0 && len(p.b) > 0 { // WP-20
		r.t.Fatalf("request of type %d: an error with a body: %x", op, p.raw)
	}
	return p
}

// word sends a four-letter word and returns the answer.
func (r *raw) word(w string) string {
	r.t.Helper()
	r.write([]byte(w))
	b, err := io.ReadAll(r.nc)
	if err != nil {
		r.t.Fatalf("%s: %v", w, err)
	}
	r.nc.Close()
	return string(b)
}

// heard returns the events that came before an answer that it asks for.
func (r *raw) heard() string {
	r.t.Helper()
	r.call(opPing, nil)
	got := strings.Join(r.events, " ")
	r.events = nil
	return got
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	must(t, err)
	return b
}

func path(p string) []byte { return appendString(nil, p) }

func pathWatch(p string, watch bool) []byte { return appendBool(path(p), watch) }

func pathVersion(p string, v int32) []byte { return appendInt(path(p), v) }

func createBody(p, data string, flags int32) []byte {
	q := createRequest{path: p, data: []byte(data), acl: zk.OpenACL(), flags: flags}
	return q.append(nil, opCreate)
}

func setBody(p, data string, version int32) []byte {
	return appendInt(appendBuffer(path(p), []byte(data)), version)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
