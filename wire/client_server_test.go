// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// TestClientServer runs the client against Server.
func TestClientServer(t *testing.T) {
	m := member(t, zk.Config{SuperDigest: superDigest})
	addr := serve(t, &Server{Member: m})
	clientSuite(t, func(*testing.T) []string { return []string{addr} })
}

// TestClientTLS speaks TLS, and refuses a server that it does not know (WP-50).
func TestClientTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	s := &Server{Member: member(t, zk.Config{}), TLS: web.TLS}
	addr := serveOn(t, s, s.ServeTLS)
	known := x509.NewCertPool()
	known.AddCert(web.Certificate())
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}, TLS: &tls.Config{RootCAs: known}})
	_, err := c.Create(ctx, "/tls", nil, zk.Persistent)
	must(t, err)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = Dial(ctx, ClientConfig{Servers: []string{addr}, TLS: &tls.Config{RootCAs: x509.NewCertPool()}})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("an unknown server: %v", err)
	}
	_, err = Dial(ctx, ClientConfig{Servers: []string{addr}})
	want(t, err, zk.ErrUnavailable)
}

// ported is an ensemble with a port on each member.
type ported struct {
	*zktest.Cluster
	servers []*Server
	addrs   []string
}

func newPorted(t *testing.T, members int, base zk.Config) *ported {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := zktest.Open(ctx, members, zktest.Config{Base: base})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	p := &ported{Cluster: c}
	for i := range members {
		s := &Server{Member: c.Member(i)}
		p.servers = append(p.servers, s)
		p.addrs = append(p.addrs, serve(t, s))
	}
	return p
}

// of returns the member that serves addr.
func (p *ported) of(addr string) int {
	for i, a := range p.addrs {
		if a == addr {
			return i
		}
	}
	return -1
}

// suspended waits until the client has noticed that its connection is gone.
func suspended(t *testing.T, ctx context.Context, c *Client) {
	t.Helper()
	for st, err := range c.States(ctx) {
		if must(t, err); st == zk.StateSuspended {
			return
		}
	}
	t.Fatalf("the session is over: %v", c.Err())
}

// gate is a way to the servers that can be shut.
type gate struct {
	open chan chan struct{} // holds the channel that is closed while the gate is open
}

func newGate() *gate {
	g := &gate{make(chan chan struct{}, 1)}
	open := make(chan struct{})
	close(open)
	g.open <- open
	return g
}

func (g *gate) shut() {
	<-g.open
	g.open <- make(chan struct{})
}

func (g *gate) unlock() {
	ch := <-g.open
	close(ch)
	g.open <- ch
}

func (g *gate) dial(ctx context.Context, addr string) (net.Conn, error) {
	ch := <-g.open
	g.open <- ch
	select {
	case <-ch:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// TestClientMoves loses its server, and finds on another one the same session with its ephemerals, identities and
// watches (SS-15, WT-30 to WT-34, DM-112).
func TestClientMoves(t *testing.T) {
	p := newPorted(t, 3, zk.Config{})
	way := newGate()
	ctx, c := newTestClient(t, ClientConfig{Servers: p.addrs, Dial: way.dial, Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("ann:1")}}})
	must(t, c.AddAuth(ctx, zk.Auth{Scheme: "digest", Cred: []byte("bob:2")}))
	_, err := c.Do(ctx, OpCreate("/private", nil, zk.Persistent).WithACL(zk.ACL{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("bob:2")}))
	must(t, err)
	for _, path := range [...]string{"/data", "/same", "/gone", "/parent", "/tree"} {
		_, err := c.Create(ctx, path, nil, zk.Persistent)
		must(t, err)
	}
	_, err = c.Create(ctx, "/mine", nil, zk.Ephemeral)
	must(t, err)

	_, _, data, err := c.GetW(ctx, "/data")
	must(t, err)
	_, _, same, err := c.GetW(ctx, "/same")
	must(t, err)
	_, _, gone, err := c.GetW(ctx, "/gone")
	must(t, err)
	_, _, born, err := c.ExistsW(ctx, "/born")
	must(t, err)
	_, _, parent, err := c.ChildrenW(ctx, "/parent")
	must(t, err)
	node, err := c.Watch(ctx, "/tree", zk.WatchNode)
	must(t, err)
	tree, err := c.Watch(ctx, "/tree", zk.WatchSubtree)
	must(t, err)
	id, before := c.ID(), c.Server()

	way.shut()
	must(t, p.servers[p.of(before)].Close())
	suspended(t, ctx, c)
	other, err := p.Member((p.of(before)+1)%3).NewSession(ctx, zk.SessionConfig{})
	must(t, err)
	_, err = other.Txn(ctx, zk.OpSet("/data", nil, -1), zk.OpDelete("/gone", -1), zk.OpCreate("/born", nil, zk.Persistent),
		zk.OpCreate("/parent/child", nil, zk.Persistent), zk.OpCreate("/tree/leaf", nil, zk.Persistent))
	must(t, err)
	way.unlock()

	for ch, e := range map[<-chan zk.Event]zk.Event{
		data: {Type: zk.EventChanged, Path: "/data"}, gone: {Type: zk.EventDeleted, Path: "/gone"}, born: {Type: zk.EventCreated, Path: "/born"},
		parent: {Type: zk.EventChildren, Path: "/parent"}, node.Events(): {Type: zk.EventOverflow, Path: "/tree"}, tree.Events(): {Type: zk.EventOverflow, Path: "/tree"},
	} {
		if ev := nextEvent(t, ctx, ch); ev.Type != e.Type || ev.Path != e.Path || ev.Zxid != -1 {
			t.Errorf("after the move %+v, want %v %s", ev, e.Type, e.Path)
		}
	}
	if c.ID() != id || c.Server() == before || c.Server() == "" {
		t.Errorf("session %v on %s became %v on %s", id, before, c.ID(), c.Server())
	}
	if paths, err := c.Ephemerals(ctx, "/"); err != nil || len(paths) != 1 {
		t.Errorf("ephemerals %q, %v", paths, err)
	}
	_, _, err = c.Get(ctx, "/private")
	must(t, err)
	select {
	case ev := <-same:
		t.Errorf("nothing happened, and yet %+v", ev)
	default:
	}
	_, err = other.Txn(ctx, zk.OpSet("/same", nil, -1), zk.OpSet("/tree/leaf", nil, -1), zk.OpSet("/tree", nil, -1))
	must(t, err)
	wantEvent(t, ctx, same, zk.EventChanged, "/same")
	wantEvent(t, ctx, tree.Events(), zk.EventChanged, "/tree/leaf")
	wantEvent(t, ctx, tree.Events(), zk.EventChanged, "/tree")
	wantEvent(t, ctx, node.Events(), zk.EventChanged, "/tree")
}

// TestClientOutlivesLeader crashes the leader under a client of the leader.
func TestClientOutlivesLeader(t *testing.T) {
	p := newPorted(t, 3, zk.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	leader, err := p.Leader(ctx)
	must(t, err)
	// The first connection goes to the leader, whatever the order.
	first := true
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		if first {
			first, addr = false, p.addrs[leader]
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	_, c := newTestClient(t, ClientConfig{Servers: p.addrs, Dial: dial})
	_, err = c.Create(ctx, "/mine", nil, zk.Ephemeral)
	must(t, err)
	w, err := c.Watch(ctx, "/", zk.WatchSubtree)
	must(t, err)
	must(t, p.Crash(leader))
	_, err = c.Create(ctx, "/after", nil, zk.Persistent)
	for zk.MaybeApplied(err) {
		_, err = c.Create(ctx, "/after", nil, zk.Persistent)
	}
	if err != nil && !strings.Contains(err.Error(), "exists") {
		t.Fatal(err)
	}
	if st, ok, err := c.Exists(ctx, "/mine"); err != nil || !ok || st.EphemeralOwner != c.ID() {
		t.Errorf("the ephemeral: %+v %v %v", st, ok, err)
	}
	wantEvent(t, ctx, w.Events(), zk.EventOverflow, "/")
	_, err = c.Create(ctx, "/end", nil, zk.Persistent)
	must(t, err)
	for ev := range w.Events() {
		if ev.Type == zk.EventCreated && ev.Path == "/end" {
			break
		}
	}
}

// TestClientSetsManyWatches has more paths to watch again than one request may carry (WT-30).
func TestClientSetsManyWatches(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m}
	addr := serve(t, s)
	way := newGate()
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}, Dial: way.dial})
	long := strings.Repeat("x", 1000)
	const n = 600
	var born []<-chan zk.Event
	for i := range n {
		_, _, ch, err := c.ExistsW(ctx, fmt.Sprintf("/%s-%d", long, i))
		must(t, err)
		born = append(born, ch)
	}
	way.shut()
	for _, sc := range s.all() {
		sc.nc.Close()
	}
	suspended(t, ctx, c)
	way.unlock()
	must(t, c.Ping(ctx))
	for i := range n {
		path := fmt.Sprintf("/%s-%d", long, i)
		_, err := c.Create(ctx, path, nil, zk.Persistent)
		must(t, err)
		wantEvent(t, ctx, born[i], zk.EventCreated, path)
	}
}

// TestClientExpires stays away for too long.
func TestClientExpires(t *testing.T) { // SS-14, WT-36, WT-40
	m := member(t, zk.Config{MinTimeout: 200 * time.Millisecond})
	s := &Server{Member: m}
	addr := serve(t, s)
	way := newGate()
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}, Dial: way.dial, Timeout: time.Millisecond})
	if c.Timeout() != 200*time.Millisecond { // SS-4
		t.Errorf("timeout %v", c.Timeout())
	}
	_, err := c.Create(ctx, "/mine", nil, zk.Ephemeral)
	must(t, err)
	_, _, mine, err := c.GetW(ctx, "/mine")
	must(t, err)
	w, err := c.Watch(ctx, "/x", zk.WatchNode)
	must(t, err)
	other, err := m.NewSession(ctx, zk.SessionConfig{})
	must(t, err)
	_, _, end, err := other.GetW(ctx, "/mine")
	must(t, err)
	way.shut()
	for _, sc := range s.all() {
		sc.nc.Close()
	}
	wantEvent(t, ctx, end, zk.EventDeleted, "/mine")
	way.unlock()
	last := zk.StateActive
	for st, err := range c.States(ctx) {
		must(t, err)
		last = st
	}
	if last != zk.StateExpired || c.State() != last {
		t.Errorf("it ends %v", last)
	}
	<-c.Done()
	want(t, c.Err(), zk.ErrSessionExpired)
	_, _, err = c.Get(ctx, "/")
	want(t, err, zk.ErrSessionExpired)
	for _, ch := range [...]<-chan zk.Event{mine, w.Events()} {
		if ev := nextEvent(t, ctx, ch); ev.Type != zk.EventSession || ev.State != zk.StateExpired {
			t.Errorf("at the end %+v", ev)
		}
	}
	want(t, w.Err(), zk.ErrSessionExpired)
	must(t, c.Close()) // there is nothing left to close
}

// TestServerReady waits for service, and for what ends it.
func TestServerReady(t *testing.T) {
	p := newPorted(t, 3, zk.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := &Server{Member: p.Member(0)}
	must(t, s.Ready(ctx)) // without a port yet
	must(t, s.Close())
	want(t, s.Ready(ctx), ErrServerClosed)
	must(t, p.Crash(1))
	must(t, p.Crash(2))
	eventually(t, "no leader", func() bool { _, known := p.Member(0).Leader(); return !known })
	alone := &Server{Member: p.Member(0)}
	defer alone.Close()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	want(t, alone.Ready(short), context.DeadlineExceeded)
	ended := make(chan error, 1)
	go func() { ended <- alone.Ready(ctx) }()
	must(t, p.Crash(0))
	want(t, <-ended, zk.ErrClosed)
}

// TestClientTellsWatchesApart has watches of several kinds on one path, whose events the server sends once (WT-6, WT-13,
// WT-16).
func TestClientTellsWatchesApart(t *testing.T) {
	addr := serve(t, &Server{Member: member(t, zk.Config{})})
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}})
	_, err := c.Create(ctx, "/x", nil, zk.Persistent)
	must(t, err)
	tree, err := c.Watch(ctx, "/", zk.WatchSubtree)
	must(t, err)
	node, err := c.Watch(ctx, "/x", zk.WatchNode)
	must(t, err)
	_, _, children, err := c.ChildrenW(ctx, "/x")
	must(t, err)
	_, _, data, err := c.GetW(ctx, "/x")
	must(t, err)
	_, _, again, err := c.ExistsW(ctx, "/x")
	must(t, err)
	_, err = c.Create(ctx, "/x/k", nil, zk.Persistent)
	must(t, err)
	_, err = c.Set(ctx, "/x", nil, -1)
	must(t, err)
	wantEvent(t, ctx, children, zk.EventChildren, "/x")
	wantEvent(t, ctx, data, zk.EventChanged, "/x")
	wantEvent(t, ctx, again, zk.EventChanged, "/x")
	wantEvent(t, ctx, node.Events(), zk.EventChildren, "/x")
	wantEvent(t, ctx, node.Events(), zk.EventChanged, "/x")
	wantEvent(t, ctx, tree.Events(), zk.EventCreated, "/x/k") // and not that /x has another child
	wantEvent(t, ctx, tree.Events(), zk.EventChanged, "/x")
}

// TestClientMissesNoChange races reads that set a watch with the change that they must either show or report: CG-13,
// and WT-20 on the way, since an event must not overtake the answer that sets its watch.
func TestClientMissesNoChange(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}})
	writer, err := m.NewSession(ctx, zk.SessionConfig{})
	must(t, err)
	_, err = writer.Create(ctx, "/x", nil, zk.Persistent)
	must(t, err)
	before, after := 0, 0
	for i := range int32(1000) {
		set := make(chan error, 1)
		go func() { _, err := writer.Set(ctx, "/x", nil, i); set <- err }()
		_, st, ch, err := c.GetW(ctx, "/x")
		must(t, err)
		if st.Version == i { // not yet: it must be told
			before++
			wantEvent(t, ctx, ch, zk.EventChanged, "/x")
			must(t, <-set)
			continue
		}
		after++
		must(t, <-set)
		select {
		case ev := <-ch:
			t.Fatalf("told of what it has read already: %+v", ev)
		default:
		}
		must(t, c.RemoveWatches(ctx, "/x", zk.WatchTypeData))
	}
	t.Logf("%d reads before the change, %d after it", before, after)
}
