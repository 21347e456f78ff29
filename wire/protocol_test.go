// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Frames that cannot be followed end the connection, and no other one (WP-2, DM-90, section 10).
func TestBadFrames(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m}
	addr := serve(t, s)
	other := open(t, addr)
	broken := int64(0)
	for what, b := range map[string][]byte{
		"negative length":         {0xff, 0xff, 0xff, 0xfe},
		"a length over the limit": {0x00, 0x10, 0x00, 0x00},
		"an unknown word":         []byte("xxxx"), // WP-62
		"HTTP":                    []byte("GET / HTTP/1.1\r\n\r\n"),
		"a frame of two bytes":    {0, 0, 0, 2, 0, 0},
		"an empty frame":          {0, 0, 0, 0},
		"telnet's interrupt":      []byte(telnetInterrupt), // WP-61
	} {
		c := dial(t, addr)
		c.write(b)
		c.ended()
		if what == "telnet's interrupt" {
			continue
		}
		broken++
		c = open(t, addr)
		if what == "an unknown word" || what == "HTTP" { // after the handshake they are lengths, and too long
			b = b[:4]
		}
		c.write(b)
		c.ended()
		broken++
	}
	eventually(t, "all of them counted", func() bool { return s.Stats().RuleBreakers == broken })
	other.want(0, opPing, nil)
}

// A frame may be as long as the limit, and the data in it nearly so (WP-2, DM-90, DM-93); answers that are longer than
// clients may take are counted (DM-92).
func TestLongestFrame(t *testing.T) {
	s := &Server{Member: member(t, zk.Config{})}
	c := open(t, serve(t, s))
	q := createRequest{path: "/long", data: nil, acl: zk.OpenACL()}
	q.data = bytes.Repeat([]byte("x"), maxFrame-8-len(q.append(nil, opCreate)))
	c.want(0, opCreate, q.append(nil, opCreate))
	p := c.want(0, opGetData, pathWatch("/long", false))
	if data := p.buffer(); !bytes.Equal(data, q.data) {
		t.Errorf("%d bytes came back, of %d", len(data), len(q.data))
	}
	if n := s.Stats().Large; n != 1 {
		t.Errorf("%d large answers", n)
	}
	c.write(requestHeader{7, opCreate}.append(appendInt(nil, maxFrame+1))) // the rest is not read
	c.ended()
}

// What is in a frame and cannot be decoded is -5, and the connection goes on (WP-5, WP-6, WP-33, DM-55, DM-91).
func TestBadBodies(t *testing.T) {
	m := member(t, zk.Config{})
	c := open(t, serve(t, &Server{Member: m}))
	before := m.Applied()
	step := func(op opcode, body []byte) []byte { return append(multiHeader{op, false, -1}.append(nil), body...) }
	for what, q := range map[string]struct {
		op   opcode
		body []byte
	}{
		"nothing":                        {opCreate, nil},
		"a null path":                    {opGetData, appendBool(appendInt(nil, -1), false)},
		"a null path to create":          {opCreate, append(appendInt(nil, -1), createBody("/x", "", 0)[6:]...)},
		"a path of negative length":      {opExists, appendInt(nil, -5)},
		"a path beyond the frame":        {opExists, appendInt(nil, 1<<30)},
		"a list beyond the frame":        {opSetWatches, appendInt(appendLong(nil, 0), 1<<30)},
		"a list of negative length":      {opSetWatches, appendInt(appendLong(nil, 0), -2)},
		"no watch flag":                  {opGetData, path("/")},
		"an unknown mode of watch":       {opAddWatch, pathVersion("/", 2)},
		"an unknown type of watch":       {opRemoveWatches, pathVersion("/", 6)},
		"a multi without an end":         {opMulti, step(opDelete, pathVersion("/x", -1))},
		"a multi of nothing at all":      {opMulti, nil},
		"a multi with a read":            {opMulti, multiEnd.append(step(opGetData, pathWatch("/", false)))},
		"a multi with setACL":            {opMulti, multiEnd.append(step(opSetACL, setACLBody("/", openACL, -1)))},
		"a multi with an unknown step":   {opMulti, multiEnd.append(step(77, nil))},
		"a multiRead with a write":       {opMultiRead, multiEnd.append(step(opDelete, pathVersion("/x", -1)))},
		"a multiRead without an end":     {opMultiRead, step(opGetData, pathWatch("/", false))},
		"a multi that fails and is torn": {opMulti, append(step(opDelete, pathVersion("/x", -1)), 0, 0)},
	} {
		if p := c.call(q.op, q.body); p.code != zk.ErrMarshalling || len(p.b) > 0 || p.zxid != int64(before) {
			t.Errorf("%s: code %d, zxid %d, body %x", what, p.code, p.zxid, p.b)
		}
	}
	if z := m.Applied(); z != before {
		t.Errorf("something was applied: %v, then %v", before, z)
	}
	c.want(0, opExists, append(pathWatch("/", false), "trailing bytes"...)) // WP-6
	p := c.want(0, opCreate, append(createBody("/x", "", 0), 1, 2, 3))
	if p.string() != "/x" {
		t.Error("trailing bytes changed a create")
	}
}

// Opcodes that are unknown, internal, or only for multi: -6, then the end (WP-23, DM-44, DM-53).
func TestUnknownOpcodes(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	seed := open(t, addr)
	seed.want(0, opCreateContainer, createBody("/c", "", 0))
	for _, op := range []opcode{13, 20, 99, 10, 23, 108, -10, -1, 0, 1 << 30, -1 << 31} {
		c := open(t, addr)
		c.send(append(requestHeader{5, op}.append(nil), pathVersion("/c", -1)...))
		c.send(append(requestHeader{6, opDelete}.append(nil), pathVersion("/c", -1)...)) // not looked at
		if p := c.reply(); p.xid != 5 || p.code != zk.ErrUnimplemented || len(p.b) > 0 {
			t.Errorf("opcode %d: %x", op, p.raw)
		}
		c.ended()
	}
	seed.want(0, opExists, pathWatch("/c", false))
}

// Requests of old and of odd clients to connect (WP-10 to WP-14, SS-4).
func TestConnect(t *testing.T) {
	m := member(t, zk.Config{MinTimeout: 2 * time.Second, MaxTimeout: 40 * time.Second})
	addr := serve(t, &Server{Member: m})
	for _, tc := range []struct {
		what    string
		q       connectRequest
		timeout int32
		size    int
	}{
		{"usual", connectRequest{timeout: 10_000, password: make([]byte, 16), hasRO: true}, 10_000, 37},
		{"up to 3.3", connectRequest{timeout: 10_000, password: make([]byte, 16)}, 10_000, 36}, // WP-11
		{"of another version", connectRequest{version: 7, timeout: 10_000, hasRO: true}, 10_000, 37},
		{"of a timeout that is too short", connectRequest{timeout: 1, hasRO: true}, 2000, 37},
		{"of a timeout that is too long", connectRequest{timeout: 1_000_000, hasRO: true}, 40_000, 37},
		{"without a timeout", connectRequest{hasRO: true}, 2000, 37},
		{"of a negative timeout", connectRequest{timeout: -5, hasRO: true}, 2000, 37},
		{"with an odd password", connectRequest{timeout: 10_000, password: []byte("short"), hasRO: true}, 10_000, 37},
		{"that would read only", connectRequest{timeout: 10_000, readOnly: true, hasRO: true}, 10_000, 37},
	} {
		c := dial(t, addr)
		c.send(tc.q.append(nil))
		b := c.receive()
		var res connectResponse
		must(t, res.decode(&decoder{b: b}))
		if len(b) != tc.size || res.timeout != tc.timeout || res.session == 0 || len(res.password) != 16 || res.readOnly {
			t.Errorf("a client %s: %x", tc.what, b)
		}
		c.want(0, opPing, nil)
	}
	for what, b := range map[string][]byte{
		"cut short":             (&connectRequest{timeout: 1}).append(nil)[:20],
		"of a negative session": appendInt((&connectRequest{}).append(nil)[:24], -7),
	} {
		c := dial(t, addr)
		c.send(b)
		if got := c.receive(); got != nil {
			t.Errorf("a request %s: %x", what, got)
		}
	}
}

// A client that has seen more than the member has is sent away, with a new session or an old one (WP-13, SS-17).
func TestSeenMore(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	c := open(t, addr)
	for _, q := range []connectRequest{
		{timeout: 10_000, lastZxid: 1 << 40, hasRO: true},
		{timeout: 10_000, lastZxid: 1 << 40, session: c.session, password: c.password, hasRO: true},
	} {
		if dial(t, addr).connect(q) {
			t.Error("it was let in")
		}
	}
	c.want(0, opPing, nil) // it was not driven out
	d := dial(t, addr)
	if !d.connect(connectRequest{timeout: 10_000, lastZxid: int64(m.Applied()), hasRO: true}) {
		t.Error("who has seen as much was sent away")
	}
}

// A session can be attached by who knows its password, and nobody else harms it (WP-14, WP-15, SS-14 to SS-16, SS-19).
func TestAttach(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m}
	addr := serve(t, s)
	c := open(t, addr)
	c.want(0, opCreate, createBody("/e", "", 1))
	for what, q := range map[string]connectRequest{
		"a wrong password":   {timeout: 10_000, session: c.session, password: make([]byte, 16), hasRO: true},
		"no password":        {timeout: 10_000, session: c.session, hasRO: true},
		"an unknown session": {timeout: 10_000, session: c.session + 1, password: c.password, hasRO: true},
		"a session below 0":  {timeout: 10_000, session: -1, password: c.password, hasRO: true},
	} {
		d := dial(t, addr)
		d.write(append(appendInt(nil, int32(len(q.append(nil)))), q.append(nil)...))
		d.write(append([]byte{0, 0, 0, 23}, append(requestHeader{1, opCreate}.append(nil), createBody("/never", "", 0)[:15]...)...)) // WP-15
		if !d.connected() || d.session != 0 || d.timeout != 0 || !bytes.Equal(d.password, make([]byte, 16)) {
			t.Errorf("%s: %+v", what, d)
		}
		d.ended()
	}
	eventually(t, "refusals counted", func() bool { return s.Stats().Refused == 4 })
	c.want(0, opExists, pathWatch("/e", false))
	c.want(zk.ErrNoNode, opExists, pathWatch("/never", false))
	for range 3 { // SS-16, SS-19: on the same member too, each drives the one before out
		d := dial(t, addr)
		if !d.connect(connectRequest{timeout: 20_000, session: c.session, password: c.password, hasRO: true}) || d.session != c.session || d.timeout != 20_000 || !bytes.Equal(d.password, c.password) { // SS-15
			t.Fatalf("not attached: %+v", d)
		}
		c.ended()
		p := d.want(0, opGetEphemerals, path(""))
		if list := p.strings(); fmt.Sprint(list) != "[/e]" {
			t.Errorf("ephemerals %v", list)
		}
		c = d
	}
	// SS-5, WP-27: without a connection the session lives on.
	c.nc.Close()
	o := open(t, addr)
	o.want(0, opExists, pathWatch("/e", false))
	d := dial(t, addr)
	if !d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, hasRO: true}) || d.session != c.session {
		t.Error("not attached again")
	}
	d.want(0, opCloseSession, nil)
	o.want(zk.ErrNoNode, opExists, pathWatch("/e", false))
	d = dial(t, addr)
	if !d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, hasRO: true}) || d.session != 0 {
		t.Error("a closed session was attached")
	}
}

// What a client sends behind its request to connect waits for the session, and is done in order (WP-15, WP-80, WP-42).
func TestEverythingAtOnce(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	c := open(t, addr)
	c.want(0, opAuth, authBodyOf("digest", "u:p"))
	c.want(0, opCreate, createACL("/secret", []zk.ACL{{Perm: 31, Scheme: "auth"}}, 0))
	d := dial(t, addr)
	var b bytes.Buffer
	put := func(frame []byte) { b.Write(append(appendInt(nil, int32(len(frame))), frame...)) }
	put((&connectRequest{timeout: 10_000, hasRO: true}).append(nil))
	put(append(requestHeader{xidAuth, opAuth}.append(nil), authBodyOf("digest", "v:q")...))
	put(append(requestHeader{xidAuth, opAuth}.append(nil), authBodyOf("digest", "u:p")...))
	put(append(requestHeader{xidSetWatches, opSetWatches}.append(nil), watchesBody(0, []string{"/secret"}, []string{"/none"}, nil)...))
	put(append(requestHeader{1, opGetData}.append(nil), pathWatch("/secret", false)...))
	put(append(requestHeader{2, opCreate}.append(nil), createBody("/none", "", 0)...))
	put(append(requestHeader{-22, opExists}.append(nil), pathWatch("/none", false)...)) // any number will do
	put(requestHeader{-2, opPing}.append(nil))
	d.write(b.Bytes())
	if !d.connected() {
		t.Fatal("closed")
	}
	var got []string
	for range 7 {
		p := d.reply()
		got = append(got, fmt.Sprint(p.xid, ":", int32(p.code)))
	}
	if s := strings.Join(got, " "); s != "-4:0 -4:0 -8:0 1:0 2:0 -22:0 -2:0" {
		t.Errorf("answers %s", s)
	}
	if s := strings.Join(d.events, " "); s != "3:/secret 1:/none" {
		t.Errorf("events %s", s)
	}
}

// Answers come in the order of requests, and each sees those before it and none behind it (WP-4, WP-26, WP-90, CG-2,
// DM-38).
func TestPipelining(t *testing.T) {
	m := member(t, zk.Config{})
	c := open(t, serve(t, &Server{Member: m}))
	c.want(0, opCreate, createBody("/p", "", 0))
	base := int64(m.Applied())
	send := func(xid int32, op opcode, body []byte) { c.send(append(requestHeader{xid, op}.append(nil), body...)) }
	send(50, opDelete, pathVersion("/p", -1))
	send(51, opExists, pathWatch("/p", false))
	send(52, opCreate, createBody("/p", "", 0))
	send(53, opExists, pathWatch("/p", false))
	for i, want := range []struct {
		code zk.Code
		zxid int64
	}{{0, 1}, {zk.ErrNoNode, 1}, {0, 2}, {0, 2}} {
		if p := c.reply(); p.xid != int32(50+i) || p.code != want.code || p.zxid != base+want.zxid {
			t.Errorf("answer %d: xid %d, code %d, zxid %d", i, p.xid, p.code, p.zxid-base)
		}
	}
	// The same at length, with everything mixed: the version that a read shows is the number of sets before it.
	const n = 3000
	go func() {
		for i := range int32(n) {
			var b []byte
			switch i % 5 {
			case 0, 1, 3:
				b = append(requestHeader{i, opSetData}.append(nil), setBody("/p", fmt.Sprint(i), -1)...)
			case 2:
				b = append(requestHeader{i, opGetData}.append(nil), pathWatch("/p", i%10 == 2)...)
			case 4:
				b = requestHeader{i, opPing}.append(nil)
			}
			c.nc.Write(append(appendInt(nil, int32(len(b))), b...))
		}
	}()
	sets, last := int32(0), base
	for i := range int32(n) {
		p := c.reply()
		if p.code != 0 || p.xid != i && !(i%5 == 4 && p.xid == xidPing) {
			t.Fatalf("answer %d: xid %d, code %d", i, p.xid, p.code)
		}
		if p.zxid < last { // CG-4
			t.Fatalf("answer %d: zxid %d after %d", i, p.zxid, last)
		}
		last = p.zxid
		switch i % 5 {
		case 0, 1, 3:
			if sets++; p.stat().Version != sets {
				t.Fatalf("answer %d: not the version of set %d", i, sets)
			}
		case 2:
			if p.buffer(); p.stat().Version != sets {
				t.Fatalf("answer %d: a read after %d sets shows another", i, sets)
			}
		}
	}
}

// What comes behind a close is not looked at; the answer comes after the ephemerals are gone (WP-27, SS-12, SS-13).
func TestBehindClose(t *testing.T) {
	addr := serve(t, &Server{Member: member(t, zk.Config{})})
	c, o := open(t, addr), open(t, addr)
	c.want(0, opCreate, createBody("/e", "", 1))
	o.want(0, opExists, pathWatch("/e", true))
	for i, q := range [][]byte{
		append(requestHeader{1, opCreate}.append(nil), createBody("/before", "", 0)...),
		requestHeader{2, opCloseSession}.append(nil),
		append(requestHeader{3, opCreate}.append(nil), createBody("/behind", "", 0)...),
	} {
		if i < 2 {
			c.send(q)
		} else {
			c.nc.Write(append(appendInt(nil, int32(len(q))), q...)) // it may be closed already
		}
	}
	for xid := range int32(2) {
		if p := c.reply(); p.xid != xid+1 || p.code != 0 || len(p.b) > 0 && xid == 1 {
			t.Errorf("answer %x", p.raw)
		}
	}
	c.ended()
	if ev := o.heard(); ev != "2:/e" {
		t.Errorf("events %q", ev)
	}
	o.want(0, opExists, pathWatch("/before", false))
	o.want(zk.ErrNoNode, opExists, pathWatch("/behind", false))
}

// Steps of a multi that fails are told their codes (DM-57, DM-58, DM-61).
func TestMultiCodes(t *testing.T) {
	c := open(t, serve(t, &Server{Member: member(t, zk.Config{})}))
	codes := func(p reply) (list []zk.Code) {
		t.Helper()
		for {
			var h multiHeader
			h.decode(&p.decoder)
			if h.done {
				break
			}
			if code := zk.Code(p.int()); h.op != opError || code != h.code {
				t.Errorf("%x", p.raw)
			}
			list = append(list, h.code)
		}
		if p.err != nil || len(p.b) > 0 {
			t.Errorf("%x", p.raw)
		}
		return list
	}
	create := func(b []byte, p string, flags int32) []byte {
		return append(multiHeader{opCreate, false, -1}.append(b), createBody(p, "", flags)...)
	}
	for what, tc := range map[string]struct {
		body []byte
		want string
	}{
		"the second":      {create(create(create(nil, "/a", 0), "/a", 0), "/b", 0), "[0 -110 -2]"},
		"a bad path":      {create(create(nil, "/a", 0), "/a/..", 0), "[0 -8]"},
		"an unknown flag": {create(create(nil, "/a", 0), "/b", 77), "[0 -8]"},
	} {
		if p := c.call(opMulti, multiEnd.append(tc.body)); p.code != 0 || fmt.Sprintf("%d", codes(p)) != tc.want {
			t.Errorf("%s: %x, want %s", what, p.raw, tc.want)
		}
	}
	c.want(zk.ErrNoNode, opExists, pathWatch("/a", false)) // DM-57
}

// Our own codes leave in the guise of ZooKeeper's (D25).
func TestVisibleCodes(t *testing.T) {
	for code := zk.Code(-2000); code <= 0; code++ {
		got := visible(code)
		if got <= -1000 || code > -1000 && got != code {
			t.Errorf("code %d is shown as %d", int32(code), int32(got))
		}
	}
	if visible(zk.ErrTooLarge) != zk.ErrBadArguments {
		t.Error("a transaction that is too large is no bad argument")
	}
}
