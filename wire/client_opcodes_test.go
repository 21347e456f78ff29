// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// recorder is a way to the servers that notes what is asked for.
type recorder struct {
	mu   sync.Mutex
	ops  []opcode // of requests, and behind a multi or a multiRead those of its steps; without pings that nobody asked for
	conn net.Conn // the newest
}

// recorded is a connection of a recorder. The client writes whole frames; the first has no header.
type recorded struct {
	net.Conn
	r         *recorder
	connected bool
}

func (r *recorder) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = nc
	return &recorded{Conn: nc, r: r}, nil
}

func (c *recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	for rest := b; len(rest) > 4; {
		n := 4 + int(binary.BigEndian.Uint32(rest))
		if c.connected {
			c.r.ops = append(c.r.ops, asked(rest[4:n])...)
		}
		c.connected = true
		rest = rest[n:]
	}
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}

// asked are the opcodes of a request and of its steps.
func asked(frame []byte) []opcode {
	d := &decoder{b: frame}
	var h requestHeader
	h.decode(d)
	ops := []opcode{h.op}
	if h.op != opMulti && h.op != opMultiRead {
		return ops
	}
	for {
		var step multiHeader
		if step.decode(d); d.err != nil || step.done {
			return ops
		}
		ops = append(ops, step.op)
		switch step.op {
		case opCreate, opCreate2, opCreateContainer, opCreateTTL:
			new(createRequest).decode(d, step.op)
		case opSetData:
			d.string()
			d.buffer()
			d.int()
		case opDelete, opCheck:
			d.string()
			d.int()
		default: // a read
			d.string()
			d.bool()
		}
	}
}

// take returns what was asked for since it was last called, without the pings that the client sends by itself.
func (r *recorder) take(pings bool) []opcode {
	r.mu.Lock()
	defer r.mu.Unlock()
	ops := r.ops
	r.ops = nil
	return slices.DeleteFunc(ops, func(op opcode) bool { return op == opPing && !pings })
}

// cut breaks the connection there is.
func (r *recorder) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn.Close()
}

// everyOpcode sends every request of the protocol that a client may send (section 4 of docs/spec/wire-protocol.md), by
// the call that is for it, and looks at the frames.
func everyOpcode(t *testing.T, servers []string) {
	way := map[bool]*recorder{false: {}, true: {}}
	clients := map[bool]*Client{}
	var ctx context.Context
	for legacy, r := range way {
		ctx, clients[legacy] = newTestClient(t, ClientConfig{Servers: servers, Legacy: legacy, Dial: r.dial, Timeout: time.Minute})
	}
	_, err := clients[false].Txn(ctx, OpCreate("/ops", nil, zk.Persistent), OpCreate("/ops/d", nil, zk.Persistent))
	must(t, err)
	way[false].take(false)

	const modern, legacy = false, true
	// again breaks the connection under a watch and returns when the client has another: a ping that is lost is repeated.
	again := func(c *Client, r *recorder) error {
		r.cut()
		return c.Ping(ctx)
	}
	named := map[opcode]bool{}
	for _, tt := range []struct {
		sent   []opcode // by call, in this order
		legacy bool
		call   func(c *Client) error
		codes  []zk.Code // what the server may answer, other than 0
	}{
		{[]opcode{opCreate}, legacy, func(c *Client) error {
			z, err := c.Create(ctx, "/ops/a", nil, zk.Persistent)
			if z.Path != "/ops/a" || z.Stat != (zk.Stat{}) { // WP-25
				t.Errorf("create returned %+v", z)
			}
			return err
		}, nil},
		{[]opcode{opMulti, opCreate, opSetData, opCheck, opDelete}, legacy, func(c *Client) error {
			results, err := c.Txn(ctx, OpCreate("/ops/t-", nil, zk.Sequential), OpSet("/ops/a", nil, 0), OpCheck("/ops/a", 1), OpDelete("/ops/a", 1))
			if err == nil && results[0].Path != "/ops/t-0000000002" {
				t.Errorf("results %+v", results)
			}
			return err
		}, nil},
		{[]opcode{opGetChildren}, legacy, func(c *Client) error {
			names, st, err := c.Children(ctx, "/ops")
			if !slices.Equal(names, []string{"d", "t-0000000002"}) || st != (zk.Stat{}) {
				t.Errorf("children %q, %+v", names, st)
			}
			return err
		}, nil},
		{[]opcode{opGetChildren, opDelete, opGetData, opExists, opSetData, opSync}, legacy, func(c *Client) error {
			_, _, children, err := c.ChildrenW(ctx, "/ops")
			must(t, err)
			must(t, c.Delete(ctx, "/ops/t-0000000002", 0))
			wantEvent(t, ctx, children, zk.EventChildren, "/ops")
			_, _, err = c.Get(ctx, "/ops/d")
			must(t, err)
			_, _, err = c.Exists(ctx, "/ops/d")
			must(t, err)
			_, err = c.Set(ctx, "/ops/d", nil, 0)
			must(t, err)
			return c.Sync(ctx)
		}, nil},
		{nil, legacy, func(c *Client) error { // nothing that such a server does not know
			none := func(err error) {
				t.Helper()
				if want(t, err, zk.ErrUnimplemented); zk.MaybeApplied(err) {
					t.Errorf("it was never sent: %v", err)
				}
			}
			_, err := c.Create(ctx, "/ops/box", nil, zk.Container)
			none(err)
			_, err = c.Txn(ctx, OpCreate("/ops/t", nil, zk.Persistent), OpCreate("/ops/ttl", nil, zk.Persistent).WithTTL(time.Hour))
			none(err)
			_, err = c.Watch(ctx, "/ops", zk.WatchNode)
			none(err)
			_, err = c.MultiRead(ctx, zk.ReadRequest{Path: "/ops"})
			none(err)
			_, err = c.Descendants(ctx, "/ops")
			none(err)
			_, err = c.Ephemerals(ctx, "/ops")
			none(err)
			_, err = c.Identities(ctx)
			none(err)
			none(c.CheckWatches(ctx, "/ops", zk.WatchTypeAny))
			none(c.RemoveWatches(ctx, "/ops", zk.WatchTypeAny))
			_, _, err = c.Reconfig(ctx, nil, []string{"9"}, nil, -1)
			none(err)
			return nil
		}, nil},
		{[]opcode{opGetData, opExists}, legacy, func(c *Client) error { // nor to take a watch back
			watching, stop := context.WithCancel(ctx)
			_, _, data, err := c.GetW(watching, "/ops/d")
			must(t, err)
			stop()
			if ev, open := <-data; open {
				t.Errorf("a watch that was given up yields %v", ev)
			}
			_, _, err = c.Exists(ctx, "/ops")
			return err
		}, nil},
		{[]opcode{opCreate2}, modern, func(c *Client) error {
			z, err := c.Create(ctx, "/ops/b", nil, zk.Persistent)
			if z.Stat.Czxid == 0 {
				t.Errorf("create returned %+v", z)
			}
			return err
		}, nil},
		{[]opcode{opCreateContainer}, modern, func(c *Client) error {
			_, err := c.Create(ctx, "/ops/box", nil, zk.Container)
			return err
		}, nil},
		{[]opcode{opCreateTTL}, modern, func(c *Client) error {
			_, err := c.Do(ctx, OpCreate("/ops/ttl", nil, zk.Persistent).WithTTL(time.Hour))
			return err
		}, nil},
		{[]opcode{opDelete}, modern, func(c *Client) error { return c.Delete(ctx, "/ops/ttl", 0) }, nil},
		{[]opcode{opExists}, modern, func(c *Client) error { _, _, err := c.Exists(ctx, "/ops"); return err }, nil},
		{[]opcode{opGetData}, modern, func(c *Client) error { _, _, err := c.Get(ctx, "/ops"); return err }, nil},
		{[]opcode{opSetData}, modern, func(c *Client) error { _, err := c.Set(ctx, "/ops/b", nil, 0); return err }, nil},
		{[]opcode{opGetACL}, modern, func(c *Client) error { _, _, err := c.GetACL(ctx, "/ops/b"); return err }, nil},
		{[]opcode{opSetACL}, modern, func(c *Client) error { _, err := c.SetACL(ctx, "/ops/b", zk.OpenACL(), 0); return err }, nil},
		{[]opcode{opGetChildren2}, modern, func(c *Client) error {
			_, st, err := c.Children(ctx, "/ops")
			if st.NumChildren != 3 {
				t.Errorf("stat %+v", st)
			}
			return err
		}, nil},
		{[]opcode{opSync}, modern, func(c *Client) error { return c.Sync(ctx) }, nil},
		{[]opcode{opPing}, modern, func(c *Client) error { return c.Ping(ctx) }, nil},
		{[]opcode{opMulti, opCheck}, modern, func(c *Client) error { _, err := c.Do(ctx, OpCheck("/ops", 0)); return err }, nil}, // alone it is no request (WP-23)
		{[]opcode{opMulti, opCreate2, opCreateContainer, opCreateTTL}, modern, func(c *Client) error {
			_, err := c.Txn(ctx, OpCreate("/ops/1", nil, zk.Persistent), OpCreate("/ops/2", nil, zk.Container), OpCreate("/ops/3", nil, zk.Sequential).WithTTL(time.Hour))
			return err
		}, nil},
		{[]opcode{opMultiRead, opGetData, opGetChildren}, modern, func(c *Client) error {
			_, err := c.MultiRead(ctx, zk.ReadRequest{Path: "/ops"}, zk.ReadRequest{Path: "/ops", Children: true})
			return err
		}, nil},
		{[]opcode{opReconfig}, modern, func(c *Client) error {
			_, _, err := c.Reconfig(ctx, nil, []string{"9"}, nil, -1)
			return err
		}, []zk.Code{zk.ErrReconfigDisabled}},
		{[]opcode{opGetEphemerals}, modern, func(c *Client) error { _, err := c.Ephemerals(ctx, "/"); return err }, nil},
		{[]opcode{opCountChildren}, modern, func(c *Client) error { _, err := c.Descendants(ctx, "/ops"); return err }, nil},
		{[]opcode{opWhoAmI}, modern, func(c *Client) error { _, err := c.Identities(ctx); return err }, nil},
		{[]opcode{opAuth}, modern, func(c *Client) error { return c.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("ann:1")}) }, nil},
		{[]opcode{opSASL}, modern, func(c *Client) error { _, err := c.SASL(ctx, nil); return err }, nil},
		{[]opcode{opGetData, opCheckWatches, opRemoveWatches}, modern, func(c *Client) error {
			_, _, _, err := c.GetW(ctx, "/ops")
			must(t, err)
			must(t, c.CheckWatches(ctx, "/ops", zk.WatchTypeData))
			return c.RemoveWatches(ctx, "/ops", zk.WatchTypeAny)
		}, nil},
		{[]opcode{opGetData, opAuth, opSetWatches}, modern, func(c *Client) error { // WT-30
			_, _, _, err := c.GetW(ctx, "/ops")
			must(t, err)
			return again(c, way[modern])
		}, nil},
		{[]opcode{opAddWatch, opAuth, opSetWatches2}, modern, func(c *Client) error {
			_, err := c.Watch(ctx, "/ops", zk.WatchSubtree)
			must(t, err)
			return again(c, way[modern])
		}, nil},
		{[]opcode{opCloseSession}, modern, func(c *Client) error { return c.Close() }, nil},
	} {
		err := tt.call(clients[tt.legacy])
		if code := clientCode(err); err != nil && !slices.Contains(tt.codes, code) {
			t.Errorf("%v: %v", tt.sent, err)
		}
		if sent := way[tt.legacy].take(slices.Contains(tt.sent, opPing)); !slices.Equal(sent, tt.sent) {
			t.Errorf("the client sent %v, want %v", sent, tt.sent)
		}
		for _, op := range tt.sent {
			named[op] = true
		}
	}
	all := map[opcode]bool{opCheck: true}
	for op := range operations {
		all[op] = true
	}
	if !maps.Equal(named, all) {
		t.Errorf("sent were %v, the protocol has %v", slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(all)))
	}
}

// TestClientLegacy does with Legacy what there was to do before ZooKeeper 3.5, and sends nothing that came later: it would
// cost the connection (WP-23, WP-83).
func TestClientLegacy(t *testing.T) {
	addr := serve(t, &Server{Member: member(t, zk.Config{})})
	r := &recorder{}
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}, Legacy: true, Dial: r.dial})
	_, err := c.Create(ctx, "/old", nil, zk.Persistent)
	must(t, err)
	for _, mode := range [...]zk.CreateMode{zk.Ephemeral, zk.Sequential, zk.Ephemeral | zk.Sequential} {
		_, err := c.Create(ctx, "/old/n-", nil, mode)
		must(t, err)
		_, err = c.Txn(ctx, OpCreate("/old/t-", nil, mode|zk.Sequential))
		must(t, err)
	}
	if names, _, err := c.Children(ctx, "/old"); err != nil || len(names) != 6 {
		t.Errorf("children %q, %v", names, err)
	}
	_, err = c.Txn(ctx, OpCreate("/old/x", nil, zk.Persistent), OpCreate("/old", nil, zk.Persistent))
	if failed, ok := errors.AsType[*zk.TxnError](err); !ok || failed.Index != 1 {
		t.Errorf("error %v", err)
	}
	must(t, c.Close())
	for _, op := range r.take(true) {
		if op > opMulti && op != opAuth && op != opSetWatches && op != opSASL {
			t.Errorf("sent %d", op)
		}
	}
}
