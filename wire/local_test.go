// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

func localSessions(upgrade bool) func(*Server) {
	return func(s *Server) {
		s.LocalSessions, s.UpgradeLocalSessions, s.ReadOnly, s.Words = true, upgrade, true, []string{"*"}
	}
}

// refused fails unless the session is answered as expired at the port of member i.
func (e *ensemble) refused(i int, r *raw) {
	e.t.Helper()
	d := e.dial(i)
	if !d.connect(connectRequest{timeout: 10_000, session: r.session, password: r.password, hasRO: true}) || d.session != 0 || d.timeout != 0 {
		e.t.Errorf("session %#x is not answered as expired: %+v", r.session, d)
	}
	d.ended()
}

// counts returns the numbers of local sessions and of the ensemble's, as mntr tells them.
func (e *ensemble) counts(i int) string {
	e.t.Helper()
	var local, global int
	for line := range strings.Lines(e.dial(i).word("mntr")) {
		fmt.Sscanf(line, "zk_local_sessions\t%d", &local)
		fmt.Sscanf(line, "zk_global_sessions\t%d", &global)
	}
	return fmt.Sprint(local, "+", global)
}

// step appends a step of a multi.
func (r multiRequest) step(op opcode, body []byte) multiRequest {
	return append(multiHeader{op, false, -1}.append(r), body...)
}

type multiRequest []byte

// codes reads a multi's answer: of each step its error, or 0.
func codes(t *testing.T, p *reply) string {
	t.Helper()
	var list []string
	for {
		var h multiHeader
		h.decode(&p.decoder)
		if h.done || p.err != nil {
			must(t, p.err)
			return strings.Join(list, " ")
		}
		code := int32(0)
		switch h.op {
		case opError:
			code = p.int()
		case opCreate:
			p.string()
		case opSetData:
			p.stat()
		}
		list = append(list, fmt.Sprint(code))
	}
}

// With LocalSessions a new session is this server's alone: nothing in the log opens, renews, expires or closes it, no
// other server takes it over, and it owns no ephemerals; all else it does as others do (SS-22, SS-23, SS-25, DM-67).
func TestLocalSessions(t *testing.T) {
	bubble(t, 3, zktest.Config{}, localSessions(false), func(t *testing.T, e *ensemble) {
		m := e.Member(0)
		before := m.Stats()
		c := e.open(0)
		o := e.open(1)
		for range 10 {
			time.Sleep(3 * time.Second)
			c.want(0, opPing, nil)
			o.want(0, opPing, nil)
		}
		c.want(0, opAuth, authBodyOf("digest", "u:p"))
		silent := e.open(0)
		silent.want(zk.ErrNoNode, opExists, pathWatch("/p", true))
		if got := e.counts(0); got != "2+0" {
			t.Errorf("sessions %s", got)
		}
		for range 5 {
			time.Sleep(3 * time.Second)
			c.want(0, opPing, nil)
			o.want(0, opPing, nil)
		}
		silent.ended()
		if got := e.counts(0); got != "1+0" {
			t.Errorf("sessions %s", got)
		}
		q := e.open(0)
		q.want(0, opCloseSession, nil)
		q.ended()
		if st := m.Stats(); st.Applied != before.Applied || st.Watches != 0 {
			t.Errorf("%v applied, and before %v; %d watches", st.Applied, before.Applied, st.Watches)
		}

		c.want(0, opCreate, createBody("/p", "", 0))
		o.want(0, opSync, path("/"))
		o.want(0, opGetData, pathWatch("/p", true))
		c.want(0, opCreateContainer, createBody("/p/c", "", 4))
		c.want(0, opCreateTTL, createTTL("/p/t", 5, 100_000))
		c.want(0, opCreate2, createBody("/p/s", "", 2))
		c.want(0, opSetACL, setACLBody("/p/s0000000002", []zk.ACL{{Perm: zk.PermAll, Scheme: "auth"}}, 0))
		p := c.want(0, opMulti, multiEnd.append(multiRequest{}.step(opCheck, pathVersion("/p", 0)).step(opSetData, setBody("/p", "x", 0))))
		if p.zxid != int64(m.Applied()) {
			t.Errorf("zxid %d", p.zxid)
		}
		o.want(0, opSync, path("/"))
		if ev := o.heard(); ev != "3:/p" {
			t.Errorf("events %q", ev)
		}
		o.want(zk.ErrNoAuth, opGetData, pathWatch("/p/s0000000002", false))
		for op, body := range map[opcode][]byte{opCreate: createBody("/e", "", 1), opCreate2: createBody("/e-", "", 3)} {
			c.want(zk.ErrEphemeralOnLocalSession, op, body)
		}
		p = c.want(0, opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody("/x", "", 0)).step(opCreate, createBody("/x/e", "", 1)).step(opDelete, pathVersion("/p", -1))))
		if got := codes(t, &p); got != "0 -120 -2" {
			t.Errorf("multi: %s", got)
		}
		c.want(zk.ErrNoNode, opExists, pathWatch("/x", false))
		if p := c.want(0, opGetEphemerals, path("/")); p.count(4) != 0 {
			t.Error("a local session has ephemerals")
		}
		applied := m.Applied()

		// It is attached again on its own server, after a break, or by who drives out another connection.
		c.want(0, opGetData, pathWatch("/p", true))
		c.nc.Close()
		eventually(t, "the watch is gone", func() bool { return m.Stats().Watches == 0 })
		time.Sleep(8 * time.Second)
		d := e.attach(0, c, int64(applied))
		d.want(zk.ErrNoAuth, opGetData, pathWatch("/p/s0000000002", false)) // it has to authenticate anew
		again := e.attach(0, c, int64(applied))
		d.ended()
		d = e.dial(0)
		if !d.connect(connectRequest{timeout: 10_000, session: c.session, password: make([]byte, passwordSize), hasRO: true}) || d.session != 0 { // SS-14
			t.Error("attached with a wrong password")
		}
		again.want(0, opSetWatches, watchesBody(int64(applied), []string{"/p"}, nil, nil))
		if m.Applied() != applied {
			t.Errorf("attaching took %v", m.Applied()-applied)
		}
		again.want(0, opSetData, setBody("/p", "", -1))
		if ev := again.heard(); ev != "3:/p" {
			t.Errorf("events %q", ev)
		}
		e.refused(1, again)
		again.want(0, opPing, nil) // and goes on here
		again.nc.Close()
		time.Sleep(14 * time.Second)
		e.refused(0, again)
	})
}

// With UpgradeLocalSessions the first ephemeral makes the ensemble know the session: nothing that the client sent is lost
// or overtaken, and from then on it moves as others do (SS-23, SS-24, SS-25, DM-67).
func TestLocalSessionsAreUpgraded(t *testing.T) {
	bubble(t, 3, zktest.Config{}, localSessions(true), func(t *testing.T, e *ensemble) {
		c, o := e.open(0), e.open(0)
		c.want(zk.ErrNoNode, opExists, pathWatch("/e", true))
		c.want(0, opAddWatch, pathVersion("/w", 1))
		c.want(0, opAuth, authBodyOf("digest", "u:p"))
		o.want(0, opCreate, createBody("/w", "", 0))
		for op, body := range map[opcode][]byte{
			opCreateTTL: createTTL("/t", 1, -1), opCreateContainer: createBody("/c", "", 1), // SS-23: these upgrade nothing
		} {
			if p := o.call(op, body); p.code != zk.ErrBadArguments && p.code != zk.ErrEphemeralOnLocalSession {
				t.Errorf("request of type %d: %v", op, p.code)
			}
		}
		o.want(0, opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody("/w/o", "", 0)).step(opSetData, setBody("/w", "", 0))))
		if got := e.counts(0); got != "2+0" {
			t.Errorf("sessions %s", got)
		}
		before := e.Member(0).Applied()
		requests := []struct {
			op   opcode
			body []byte
		}{
			{opSetData, setBody("/w", "", 1)}, {opGetData, pathWatch("/w", false)}, {opCreate, createBody("/w/s", "", 2)},
			{opCreate2, createBody("/e", "", 1)}, {opCreate, createBody("/w/s", "", 3)}, {opGetEphemerals, path("/")}, {opSetData, setBody("/w", "", 2)},
		}
		for i, q := range requests {
			c.send(append(requestHeader{int32(i), q.op}.append(nil), q.body...))
		}
		last := int64(0)
		for i := range requests {
			p := c.reply()
			if p.xid != int32(i) || p.code != 0 || p.zxid < last {
				t.Fatalf("answer %d: %x", i, p.raw)
			}
			if last = p.zxid; i == 5 {
				if got := strings.Join(p.strings(), " "); got != "/e /w/s0000000002" {
					t.Errorf("ephemerals %q", got)
				}
			}
		}
		if last != int64(before)+6 { // five writes and the upgrade
			t.Errorf("zxid %d, and before %v", last, before)
		}
		if got := strings.Join(c.events, " "); got != "1:/w 1:/w/o 3:/w 3:/w 1:/w/s0000000001 1:/e 1:/w/s0000000002 3:/w" {
			t.Errorf("events %q", got)
		}
		if got := e.counts(0); got != "1+1" {
			t.Errorf("sessions %s", got)
		}
		list, err := e.Member(0).Sessions(e.ctx)
		if err != nil || len(list) != 1 || list[0].ID != zk.SessionID(c.session) || list[0].Timeout != 10*time.Second {
			t.Errorf("sessions %+v, %v", list, err)
		}
		p := o.want(0, opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody("/m", "", 0)).step(opCreate, createBody("/m/e", "", 1))))
		if got := codes(t, &p); got != "0 0" {
			t.Errorf("multi: %s", got)
		}
		p = o.want(0, opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody("/m/e", "", 1))))
		if got := codes(t, &p); got != "-110" {
			t.Errorf("multi: %s", got)
		}
		e.refused(1, e.open(0)) // who asked for none is local still
		for range 10 {
			time.Sleep(3 * time.Second)
			c.want(0, opPing, nil)
		}
		o.ended() // it fell silent, and the leader expired it
		c.want(zk.ErrNoNode, opExists, pathWatch("/m/e", false))

		d := e.attach(1, c, last)
		c.events = nil
		for b := c.receive(); b != nil; b = c.receive() {
		}
		if p := d.want(0, opGetEphemerals, path("/")); strings.Join(p.strings(), " ") != "/e /w/s0000000002" {
			t.Error("other ephemerals after a move")
		}
		must(t, e.Crash(0))
		d.want(0, opSync, path("/"))
		f := e.attach(2, d, 0)
		f.want(0, opExists, pathWatch("/e", false))
		f.want(0, opCloseSession, nil)
		l := e.open(1)
		l.want(0, opSync, path("/"))
		l.want(zk.ErrNoNode, opExists, pathWatch("/e", false))
	})
}

// What a client sends while its member cannot reach the leader waits, the upgrade with it, and is done in the end; and a
// full queue refuses the request, not the session (SS-24).
func TestUpgradeWaits(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{MaxQueuedWrites: 8}}, func(s *Server) { localSessions(true)(s); s.LeaderGrace = time.Hour }, func(t *testing.T, e *ensemble) {
		i := (e.leader() + 1) % 3
		c, o := e.open(i), e.open(i)
		o.want(0, opCreate, createBody("/o", "", 0))
		e.Isolate(i)
		c.send(append(requestHeader{1, opCreate}.append(nil), createBody("/e", "", 1)...))
		synctest.Wait()
		const n = 20
		for k := range int32(n) {
			o.send(append(requestHeader{k, opSetData}.append(nil), setBody("/o", "", -1)...))
		}
		synctest.Wait()
		o.send(append(requestHeader{n, opCreate}.append(nil), createBody("/o/e", "", 1)...))
		synctest.Wait()
		e.Heal()
		if p := c.reply(); p.xid != 1 || p.code != 0 {
			t.Errorf("answer %x", p.raw)
		}
		throttled := 0
		for k := range int32(n + 1) {
			p := o.reply()
			if p.xid != k || p.code != 0 && p.code != zk.ErrThrottled {
				t.Errorf("answer %d: %x", k, p.raw)
			}
			if p.code == zk.ErrThrottled {
				throttled++
			}
			if k == n && p.code != zk.ErrThrottled {
				t.Errorf("the ephemeral: %v", p.code)
			}
		}
		if throttled == 0 || throttled == n+1 {
			t.Errorf("%d requests refused", throttled)
		}
		o.want(0, opCreate, createBody("/oe", "", 1))
		c.want(0, opExists, pathWatch("/e", false))
	})
}

// Without a leader local sessions have no connections either. They are attached again once there is one, if that is in
// time; while service is read-only they are not, and a client gets a session for reading (SS-26 to SS-30, OP-60).
func TestLocalSessionsWithoutQuorum(t *testing.T) {
	bubble(t, 3, zktest.Config{}, localSessions(false), func(t *testing.T, e *ensemble) {
		c, late := e.open(0), e.open(0)
		c.want(0, opCreate, createBody("/x", "data", 0))
		e.Isolate(0)
		c.ended()
		late.ended()
		s := e.servers[0]
		eventually(t, "read-only service", func() bool { return s.state.now() == servingReadOnly })
		d := e.dial(0)
		if d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, readOnly: true, hasRO: true}) {
			t.Error("a local session is attached for reading")
		}
		r := e.dial(0)
		if !r.connect(connectRequest{timeout: 10_000, readOnly: true, hasRO: true}) || !r.readOnly {
			t.Fatal("no read-only session")
		}
		r.want(0, opGetData, pathWatch("/x", false))
		r.want(zk.ErrNotReadOnly, opCreate, createBody("/e", "", 1))
		if got := e.counts(0); got != "3+0" {
			t.Errorf("sessions %s", got)
		}
		e.Heal()
		r.ended()
		eventually(t, "serving again", func() bool { return s.state.now() == servingAll })
		again := e.attach(0, c, 0)
		again.want(0, opSetData, setBody("/x", "", -1))
		for range 5 {
			time.Sleep(3 * time.Second)
			again.want(0, opPing, nil)
		}
		e.refused(0, late)
	})
}

// A server that shuts down answers what local sessions have asked for. They stay on their member, for another server
// there, and are unknown elsewhere; a member whom its leader does not hear sends their clients away (SS-22, D29).
func TestLocalSessionsShutdown(t *testing.T) {
	bubble(t, 3, zktest.Config{}, localSessions(true), func(t *testing.T, e *ensemble) {
		c, up := e.open(0), e.open(0)
		c.want(0, opCreate, createBody("/p", "", 0))
		const n = 50
		for i := range int32(n) {
			c.send(append(requestHeader{i, opSetData}.append(nil), setBody("/p", "", -1)...))
			up.send(append(requestHeader{i, opCreate}.append(nil), createBody(fmt.Sprint("/p/", i), "", 1)...))
		}
		synctest.Wait()
		must(t, e.servers[0].Shutdown(e.ctx))
		for _, r := range []*raw{c, up} {
			for i := range int32(n) {
				if p := r.reply(); p.xid != i || p.code != 0 {
					t.Fatalf("answer %x", p.raw)
				}
			}
			r.ended()
		}
		e.refused(1, c)
		moved := e.attach(1, up, 0)
		if p := moved.want(0, opGetEphemerals, path("/")); len(p.strings()) != n {
			t.Error("ephemerals are missing")
		}
		s := &Server{Member: e.Member(0), Logger: slog.New(slog.DiscardHandler), LocalSessions: true}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(memListener{e.net.Host("another")}) }()
		eventually(t, "serving", func() bool { return s.state.now() == servingAll })
		nc, err := e.net.Host("client").Dial(e.ctx, "another")
		must(t, err)
		d := use(t, nc)
		nc.SetDeadline(time.Now().Add(30 * time.Minute))
		if !d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, hasRO: true}) || d.session != c.session {
			t.Error("not attached at another server of its member")
		}
		d.want(0, opSetData, setBody("/p", "", n))
		must(t, s.Shutdown(e.ctx))
		if err := <-ended; err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}

		l := e.leader()
		f := (l + 1) % 3
		if f == 0 {
			f = (l + 2) % 3
		}
		u := e.open(f)
		e.Network().Cut(zktest.Name(f), zktest.Name(l))
		began := time.Now()
		for b := []byte{}; b != nil && time.Since(began) < time.Minute; b = u.receive() {
			time.Sleep(500 * time.Millisecond)
			u.nc.Write([]byte{0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11})
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("its client was sent away after %v", took)
		}
		e.Heal()
	})
}
