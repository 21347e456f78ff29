// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// peerConn is one client connection of the comparison, on the level of frames.
type peerConn struct {
	addr     string
	conn     net.Conn
	in       *bufio.Reader
	xid      int32
	session  int64
	password []byte
	zxid     int64 // newest in a reply's header
}

// frames of the comparison are never waited for longer than this
const peerPatience = 20 * time.Second

// connect opens the connection; with a session it resumes it.
func (p *peerConn) connect(timeout time.Duration) error {
	conn, err := net.DialTimeout("tcp", p.addr, peerPatience)
	if err != nil {
		return err
	}
	p.close()
	p.conn, p.in = conn, bufio.NewReader(conn)
	if p.password == nil {
		p.password = make([]byte, passwordSize)
	}
	r := connectRequest{lastZxid: p.zxid, timeout: int32(timeout.Milliseconds()), session: p.session, password: p.password, hasRO: true}
	if err := p.send(r.append(nil)); err != nil {
		return err
	}
	frame, err := p.receive()
	if err != nil {
		return err
	}
	var answer connectResponse
	if err := answer.decode(&decoder{b: frame}); err != nil {
		return err
	}
	if answer.session == 0 {
		return fmt.Errorf("session %#x is refused", p.session)
	}
	p.session, p.password = answer.session, answer.password
	return nil
}

func (p *peerConn) close() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

func (p *peerConn) send(frame []byte) error {
	p.conn.SetDeadline(time.Now().Add(peerPatience))
	_, err := p.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (p *peerConn) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(p.in, frame)
	return frame, err
}

// peerEvent is an event as it was received.
type peerEvent struct {
	kind, state int32
	path        string
}

func (e peerEvent) String() string { return fmt.Sprintf("event(%d,%d,%s)", e.kind, e.state, e.path) }

// ask sends a request and returns its reply, and the events that came before it.
func (p *peerConn) ask(xid int32, op opcode, body []byte) (header replyHeader, reply []byte, events []peerEvent, err error) {
	if err := p.send(append(requestHeader{xid, op}.append(nil), body...)); err != nil {
		return header, nil, nil, err
	}
	for {
		frame, err := p.receive()
		if err != nil {
			return header, nil, events, err
		}
		d := &decoder{b: frame}
		header.decode(d)
		if header.xid != xidEvent {
			if header.zxid > 0 {
				p.zxid = header.zxid
			}
			return header, d.b, events, d.err
		}
		var e watcherEvent
		e.decode(d)
		if d.err != nil {
			return header, nil, events, d.err
		}
		events = append(events, peerEvent(e))
	}
}

// flush returns the events that are under way: a ping's answer comes after them (WP-26).
func (p *peerConn) flush() ([]peerEvent, error) {
	_, _, events, err := p.ask(xidPing, opPing, nil)
	return events, err
}

// values is a reply in comparable form: text, and numbers of which only the order is compared.
type values struct {
	text  []string
	zxids []int64
}

func (v *values) say(format string, args ...any) {
	v.text = append(v.text, fmt.Sprintf(format, args...))
}

func (v *values) stat(st zk.Stat, who func(zk.SessionID) string) {
	v.zxids = append(v.zxids, int64(st.Czxid), int64(st.Mzxid), int64(st.Pzxid))
	v.say("stat(v=%d,cv=%d,av=%d,owner=%s,len=%d,children=%d,modified=%t,changed=%t,timed=%t)", st.Version, st.Cversion, st.Aversion,
		who(st.EphemeralOwner), st.DataLength, st.NumChildren, st.Mzxid != st.Czxid, st.Pzxid != st.Czxid, st.Ctime.UnixMilli() > 0 && !st.Mtime.Before(st.Ctime))
}

func (v *values) data(b []byte) {
	if b == nil {
		v.say("null")
	} else {
		v.say("%q", b)
	}
}

func (v *values) acl(acl []zk.ACL) {
	for _, a := range acl {
		v.say("acl(%d,%s,%s)", a.Perm, a.Scheme, a.ID)
	}
}

// reply decodes a reply's body. Sets are sorted: ZooKeeper gives them in the order of a hash table.
func (v *values) reply(op opcode, body []byte, who func(zk.SessionID) string) {
	d := &decoder{b: body}
	switch op {
	case opCreate, opSync:
		v.say("path %s", d.string())
	case opCreate2, opCreateContainer, opCreateTTL:
		v.say("path %s", d.string())
		v.stat(d.stat(), who)
	case opExists, opSetData, opSetACL:
		v.stat(d.stat(), who)
	case opGetData:
		v.data(d.buffer())
		v.stat(d.stat(), who)
	case opGetACL:
		v.acl(d.acl())
		v.stat(d.stat(), who)
	case opGetChildren, opGetEphemerals:
		v.set(d.strings())
	case opGetChildren2:
		v.set(d.strings())
		v.stat(d.stat(), who)
	case opCountChildren, opAddWatch:
		v.say("%d", d.int())
	case opWhoAmI:
		var ids []string
		for range d.count(8) {
			ids = append(ids, d.nullable()+":"+d.nullable())
		}
		v.set(ids)
	case opMulti, opMultiRead:
		for {
			var h multiHeader
			h.decode(d)
			v.say("step(%d,%t,%d)", h.op, h.done, h.code)
			if d.err != nil || h.done {
				break
			}
			switch {
			case h.op == opError:
				v.say("code %d", d.int())
			case h.op == opDelete || h.op == opCheck:
			default:
				v.stepResult(h.op, d, who)
			}
		}
	}
	v.say("rest %d, %v", len(d.b), d.err)
}

func (v *values) stepResult(op opcode, d *decoder, who func(zk.SessionID) string) {
	switch op {
	case opCreate:
		v.say("path %s", d.string())
	case opCreate2:
		v.say("path %s", d.string())
		v.stat(d.stat(), who)
	case opSetData:
		v.stat(d.stat(), who)
	case opGetData:
		v.data(d.buffer())
		v.stat(d.stat(), who)
	case opGetChildren:
		v.set(d.strings())
	}
}

func (v *values) set(ss []string) {
	slices.Sort(ss)
	v.say("{%s}", strings.Join(ss, " "))
}

// sorted orders events as sets are ordered.
func sorted(events []peerEvent) []peerEvent {
	return slices.SortedFunc(slices.Values(events), func(a, b peerEvent) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.kind, b.kind))
	})
}
