// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
	"github.com/seed-541fafe0/zk/zktest"
)

// ensemble is an ensemble in virtual time whose members all serve clients, over a network in memory.
type ensemble struct {
	*zktest.Cluster
	t       *testing.T
	ctx     context.Context
	net     *memnet.Network
	servers []*Server
	dials   int
}

type memListener struct{ *memnet.Host }

type memAddr string

func (memAddr) Network() string  { return "memory" }
func (a memAddr) String() string { return string(a) }

func (l memListener) Addr() net.Addr { return memAddr(l.Host.Addr()) }

// bubble runs fn on an ensemble; change sets what differs from a Server's defaults.
func bubble(t *testing.T, members int, cfg zktest.Config, change func(*Server), fn func(t *testing.T, e *ensemble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		cl, err := zktest.Open(ctx, members, cfg)
		must(t, err)
		e := &ensemble{Cluster: cl, t: t, ctx: ctx, net: memnet.New(1)}
		ended := make(chan error, members)
		defer func() {
			for _, s := range e.servers {
				s.Close()
				err := <-ended
				crashed := errors.Is(err, zk.ErrSystem) && strings.HasSuffix(err.Error(), "the member has crashed") // its store met that before the member ended
				if !crashed && !errors.Is(err, ErrServerClosed) && !errors.Is(err, zk.ErrClosed) && !errors.Is(err, zk.ErrNotMember) {
					t.Errorf("Serve: %v", err)
				}
			}
			if err := cl.Close(); err != nil {
				t.Error(err)
			}
		}()
		for i := range members {
			s := &Server{Member: cl.Member(i), Logger: slog.New(slog.DiscardHandler)}
			if change != nil {
				change(s)
			}
			e.servers = append(e.servers, s)
			go func() { ended <- s.Serve(memListener{e.net.Host(portName(i))}) }()
			eventually(t, "serving", func() bool { return s.state.now() == servingAll })
		}
		fn(t, e)
	})
}

func portName(i int) string { return fmt.Sprint("port", i) }

// dial connects to the port of member i.
func (e *ensemble) dial(i int) *raw {
	e.t.Helper()
	e.dials++
	nc, err := e.net.Host(fmt.Sprint("client", e.dials)).Dial(e.ctx, portName(i))
	must(e.t, err)
	r := use(e.t, nc)
	nc.SetDeadline(time.Now().Add(30 * time.Minute))
	return r
}

func (e *ensemble) open(i int) *raw {
	e.t.Helper()
	r := e.dial(i)
	if !r.connect(connectRequest{timeout: 10_000, hasRO: true}) || r.session == 0 {
		e.t.Fatal("no session")
	}
	return r
}

func (e *ensemble) leader() int {
	e.t.Helper()
	l, err := e.Leader(e.ctx)
	must(e.t, err)
	return l
}

// attach takes over r's session at the port of member i.
func (e *ensemble) attach(i int, r *raw, seen int64) *raw {
	e.t.Helper()
	d := e.dial(i)
	if !d.connect(connectRequest{timeout: 10_000, session: r.session, password: r.password, lastZxid: seen, hasRO: true}) || d.session != r.session {
		e.t.Fatalf("not attached: %+v", d)
	}
	return d
}

// A session moves between members: its ephemerals stay, its watches are set anew, and what the old connection sends
// later is not done (WP-34, WP-52, SS-15, SS-18, WT-2, WT-30 to WT-33, DM-38, TR-21, TR-22).
func TestSessionMoves(t *testing.T) {
	bubble(t, 3, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		x, o := e.open(0), e.open(2)
		x.want(0, opCreate, createBody("/e", "", 1))
		x.want(0, opCreate, createBody("/x", "", 0))
		x.want(0, opGetData, pathWatch("/x", true))
		seen := x.call(opPing, nil).zxid
		o.want(0, opSetData, setBody("/x", "1", -1)) // before y is there
		y := e.attach(1, x, seen)
		y.want(0, opSetWatches, watchesBody(seen, []string{"/x", "/e"}, []string{"/n"}, []string{"/"}))
		if ev := y.heard(); ev != "3:/x" { // WT-32
			t.Errorf("catching up: %q", ev)
		}
		if p := y.want(0, opGetEphemerals, path("/")); fmt.Sprint(p.strings()) != "[/e]" {
			t.Error("the ephemeral is not the session's")
		}
		// x may have been told already: its events come first, and no answer (WP-34).
		x.nc.Write(appendInt(nil, 0)[:0])
		b := append(requestHeader{9, opSetData}.append(nil), setBody("/x", "stale", -1)...)
		x.nc.Write(append(appendInt(nil, int32(len(b))), b...))
		for b := x.receive(); b != nil; b = x.receive() {
			if p := (&decoder{b: b}).int(); p != xidEvent {
				t.Errorf("the old connection was answered: %x", b)
			}
		}
		y.want(0, opSetData, setBody("/x", "2", 1)) // what x sent was not done
		o.want(0, opSync, path("/"))
		o.want(0, opCreate, createBody("/n", "", 0))
		if p := y.want(0, opSync, path("/")); p.zxid == 0 {
			t.Error("zxid 0")
		}
		if ev := y.heard(); ev != "1:/n 4:/" {
			t.Errorf("events %q", ev)
		}
	})
}

// A new leader takes over: connections to members that stay are kept, sessions, ephemerals and watches with them
// (SS-11, CG-7); a session of the member that went is attached elsewhere.
func TestLeaderCrash(t *testing.T) {
	bubble(t, 3, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		l := e.leader()
		kept, lost := e.open((l+1)%3), e.open(l)
		kept.want(0, opCreate, createBody("/kept", "", 1))
		lost.want(0, opCreate, createBody("/lost", "", 1))
		kept.want(zk.ErrNoNode, opExists, pathWatch("/later", true))
		seen := lost.call(opPing, nil).zxid
		must(t, e.Crash(l))
		lost.ended() // the server saw that its member stopped
		kept.want(0, opCreate, createBody("/later", "", 0))
		again := e.attach((l+2)%3, lost, seen)
		if p := again.want(0, opGetEphemerals, path("/")); fmt.Sprint(p.strings()) != "[/lost]" {
			t.Error("the ephemeral is gone")
		}
		if ev := kept.heard(); ev != "1:/later" {
			t.Errorf("events %q", ev)
		}
	})
}

// Without a quorum connections are closed, new ones refused, and words say so; when it is back, all is well (WP-16,
// WP-63, OP-60, CG-7).
func TestNoQuorum(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(s *Server) { s.Words = []string{"*"} }, func(t *testing.T, e *ensemble) {
		c, d := e.open(0), e.open(1)
		c.want(0, opCreate, createBody("/e", "", 1))
		seen := c.call(opPing, nil).zxid
		for i := range 3 {
			e.Isolate(i)
		}
		began := time.Now()
		c.ended()
		d.ended()
		if took := time.Since(began); took > 6*time.Second { // before the sessions' timeout, which closes them too
			t.Errorf("it took %v", took)
		}
		n := e.dial(0)
		if n.connect(connectRequest{timeout: 10_000, hasRO: true}) {
			t.Error("a session without a quorum")
		}
		n = e.dial(0)
		if n.connect(connectRequest{timeout: 10_000, hasRO: true, readOnly: true}) { // SS-26: disabled
			t.Error("a read-only session, which nobody allowed")
		}
		for w, want := range map[string]string{"srvr": notServing + "\n", "isro": "null", "ruok": "imok", "mntr": notServing + "\n", "hash": notServing, "gtmk": "306"} {
			if got := e.dial(0).word(w); got != want {
				t.Errorf("%s: %q", w, got)
			}
		}
		e.Heal()
		for _, s := range e.servers {
			eventually(t, "serving again", func() bool { return s.state.now() == servingAll })
		}
		again := e.attach(0, c, seen) // SS-11
		again.want(0, opExists, pathWatch("/e", false))
	})
}

// With ReadOnly, clients that ask for it are served without a quorum: reads, watches, ping and close, nothing else,
// until it is back (SS-25 to SS-30).
func TestReadOnly(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(s *Server) { s.ReadOnly, s.Words = true, []string{"*"} }, func(t *testing.T, e *ensemble) {
		c := e.open(0)
		c.want(0, opCreate, createBody("/x", "data", 0))
		if got := e.dial(0).word("isro"); got != "rw" {
			t.Errorf("isro: %q", got)
		}
		for i := range 3 {
			e.Isolate(i)
		}
		c.ended()
		s := e.servers[0]
		eventually(t, "read-only service", func() bool { return s.state.now() == servingReadOnly })
		for what, q := range map[string]connectRequest{ // SS-27, SS-29
			"does not ask for it": {timeout: 10_000, hasRO: true},
			"cannot ask for it":   {timeout: 10_000},
			"has a session":       {timeout: 10_000, session: c.session, password: c.password, readOnly: true, hasRO: true},
		} {
			if e.dial(0).connect(q) {
				t.Errorf("a client that %s was let in", what)
			}
		}
		r := e.dial(0)
		if !r.connect(connectRequest{timeout: 10_000, readOnly: true, hasRO: true}) || !r.readOnly || r.session == 0 || r.timeout != 10_000 {
			t.Fatalf("no read-only session: %+v", r)
		}
		if p := r.want(0, opGetData, pathWatch("/x", true)); string(p.buffer()) != "data" {
			t.Error("other data")
		}
		r.want(zk.ErrNoNode, opExists, pathWatch("/none", true))
		r.want(0, opPing, nil)
		r.want(0, opAddWatch, pathVersion("/x", 0))
		r.want(0, opSetWatches, watchesBody(1<<40, []string{"/x"}, nil, nil))
		r.want(0, opAuth, authBodyOf("digest", "u:p"))
		if p := r.want(0, opGetEphemerals, path("/")); p.count(4) != 0 {
			t.Error("a local session has ephemerals")
		}
		multi := append(multiHeader{opDelete, false, -1}.append(nil), pathVersion("/x", -1)...)
		for op, body := range map[opcode][]byte{
			opCreate: createBody("/y", "", 0), opCreate2: createBody("/y", "", 1), opCreateContainer: createBody("/y", "", 4), opCreateTTL: createTTL("/y", 5, 100),
			opDelete: pathVersion("/x", -1), opSetData: setBody("/x", "", -1), opSetACL: setACLBody("/x", openACL, -1),
			opMulti: multiEnd.append(multi), opSync: path("/x"),
		} {
			r.want(zk.ErrNotReadOnly, op, body)
		}
		if text := e.dial(0).word("isro"); text != "ro" {
			t.Errorf("isro: %q", text)
		}
		if text := e.dial(0).word("srvr"); !strings.Contains(text, "\nREAD-ONLY mode; serving only read-only clients\n") || !strings.Contains(text, "\nMode: read-only\n") {
			t.Errorf("srvr: %q", text)
		}
		if text := e.dial(0).word("mntr"); !strings.Contains(text, "zk_local_sessions\t1\n") { // SS-25
			t.Errorf("mntr: %q", text)
		}
		q := e.dial(0)
		if !q.connect(connectRequest{timeout: 10_000, readOnly: true, hasRO: true}) {
			t.Fatal("not let in")
		}
		q.want(0, opCloseSession, nil)
		q.ended()
		e.Heal()
		r.ended() // SS-30
		eventually(t, "serving again", func() bool { return s.state.now() == servingAll })
		eventually(t, "its watches are gone", func() bool { return s.Member.Stats().Watches == 0 }) // WT-2
		again := e.attach(0, c, 0)
		again.want(0, opSetData, setBody("/x", "", -1))
		n := e.dial(0)
		if !n.connect(connectRequest{timeout: 10_000, session: r.session, password: r.password, readOnly: true, hasRO: true}) || n.session != 0 {
			t.Error("a local session survived")
		}
	})
}

// A connection that sends nothing is closed, and so is one that sends half a request (WP-17).
func TestHandshakeTimeout(t *testing.T) {
	bubble(t, 1, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		c, began := e.open(0), time.Now()
		var mute []*raw
		for _, b := range [][]byte{nil, {0}, {0, 0, 0, 45, 0, 0}} {
			d := e.dial(0)
			d.write(b)
			mute = append(mute, d)
		}
		time.Sleep(5 * time.Second)
		c.want(0, opPing, nil)
		for _, d := range mute {
			d.ended()
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("closed after %v", took)
		}
		time.Sleep(4 * time.Second)
		c.want(0, opPing, nil) // who has shaken hands goes on
		eventually(t, "counted", func() bool { st := e.servers[0].Stats(); return st.RuleBreakers == 3 && st.Silent == 3 })
	})
}

// A client that falls silent loses its session, and so its connection, without a word; others do not (WP-17, WP-28,
// SS-6, SS-7, SS-10, SS-35).
func TestSilence(t *testing.T) {
	var log lockedBuffer
	bubble(t, 1, zktest.Config{}, func(s *Server) { s.Logger = slog.New(slog.NewTextHandler(&log, nil)) }, func(t *testing.T, e *ensemble) {
		silent, lively, o := e.open(0), e.open(0), e.open(0)
		silent.want(0, opCreate, createBody("/silent", "", 1))
		lively.want(0, opCreate, createBody("/lively", "", 1))
		o.want(0, opExists, pathWatch("/silent", true))
		for range 15 {
			time.Sleep(3 * time.Second)
			lively.want(0, opPing, nil) // SS-6
			o.want(0, opPing, nil)
		}
		silent.ended()
		if st := e.servers[0].Stats(); st.RuleBreakers != 1 || st.Dropped != 1 || st.Connections != 2 || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("%+v\n%s", st, log.String())
		}
		if ev := o.heard(); ev != "2:/silent" {
			t.Errorf("events %q", ev)
		}
		o.want(0, opExists, pathWatch("/lively", false))
		d := e.dial(0)
		if !d.connect(connectRequest{timeout: 10_000, session: silent.session, password: silent.password, hasRO: true}) || d.session != 0 { // SS-10
			t.Error("an expired session was attached")
		}
	})
}

// While there is no leader no session expires: who falls silent is ended by the connection's own deadline, and counted,
// and who asks for a session that cannot be opened in time was not silent (WP-17).
func TestSilenceWithoutLeader(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(s *Server) { s.LeaderGrace = time.Minute }, func(t *testing.T, e *ensemble) {
		l := e.leader()
		silent, s := e.open(l), e.servers[l]
		must(t, e.Crash((l+1)%3))
		must(t, e.Crash((l+2)%3))
		began := time.Now()
		d := e.dial(l)
		if d.connect(connectRequest{timeout: 10_000, hasRO: true}) {
			t.Errorf("session %#x was opened without a majority", d.session)
		}
		silent.ended()
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("ended after %v", took)
		}
		eventually(t, "both have gone", func() bool { return s.Stats().Connections == 0 })
		if st := s.Stats(); st.RuleBreakers != 1 || st.Silent != 0 || st.Dropped != 1 || st.Connects != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A session that an operator ends is not confirmed any more: its client is cut off before its ephemerals go, and cannot
// come back (D28, D29).
func TestKilled(t *testing.T) {
	bubble(t, 1, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		c, o := e.open(0), e.open(0)
		c.want(0, opCreate, createBody("/e", "", 1))
		o.want(0, opExists, pathWatch("/e", true))
		must(t, e.Member(0).KillSession(e.ctx, zk.SessionID(c.session)))
		ping := []byte{0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11}
		for b := []byte{}; b != nil; b = c.receive() {
			time.Sleep(500 * time.Millisecond)
			c.nc.Write(ping)
			o.want(0, opPing, nil)
		}
		o.want(0, opExists, pathWatch("/e", false))
		d := e.dial(0)
		if !d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, hasRO: true}) || d.session != 0 {
			t.Error("a killed session was attached")
		}
		if n := e.servers[0].Stats().RuleBreakers; n != 0 {
			t.Errorf("%d rule breakers", n)
		}
		for range 40 {
			time.Sleep(time.Second)
			o.want(0, opPing, nil)
		}
		if got := o.heard(); got != "2:/e" {
			t.Errorf("events %q", got)
		}
	})
}

// A member that hears its leader and is not heard by it cannot keep sessions: its clients go elsewhere (D29).
func TestUnheard(t *testing.T) {
	bubble(t, 3, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		l := e.leader()
		f := (l + 1) % 3
		c := e.open(f)
		e.Network().Cut(zktest.Name(f), zktest.Name(l))
		began := time.Now()
		for b := []byte{}; b != nil && time.Since(began) < time.Minute; b = c.receive() {
			time.Sleep(500 * time.Millisecond)
			c.nc.Write([]byte{0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11})
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
		e.Heal()
		e.attach((l+2)%3, c, 0)
	})
}

// A server that shuts down answers what it has read, and sessions live on (SS-5).
func TestShutdown(t *testing.T) {
	bubble(t, 3, zktest.Config{}, nil, func(t *testing.T, e *ensemble) {
		c, idle := e.open(0), e.open(0)
		c.want(0, opCreate, createBody("/e", "", 1))
		const n = 100
		for i := range int32(n) {
			c.send(append(requestHeader{i, opSetData}.append(nil), setBody("/e", "", -1)...))
		}
		synctest.Wait()
		must(t, e.servers[0].Shutdown(e.ctx))
		for i := range int32(n) {
			if p := c.reply(); p.xid != i || p.code != 0 {
				t.Fatalf("answer %x", p.raw)
			}
		}
		c.ended()
		idle.ended()
		d := e.attach(1, c, 0)
		d.want(0, opExists, pathWatch("/e", false))
		if _, err := e.net.Host("late").Dial(e.ctx, portName(0)); err == nil {
			t.Error("the port is still open")
		}
		must(t, e.servers[0].Shutdown(e.ctx)) // again
	})
}
