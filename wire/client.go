// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// ClientConfig says where and as whom a Client connects. Servers alone is enough.
type ClientConfig struct {
	// Servers are the addresses, "host:port", of members that serve the protocol. The client keeps one connection, to
	// any of them, and goes to the next when it breaks. They are tried in a random order.
	Servers []string

	// Timeout is the session timeout to ask for, of at least a millisecond; the server brings it within its bounds
	// (SS-4). Default 10 s.
	Timeout time.Duration

	// Chroot is put before every path that is sent, and taken off every path that comes back (WP-81). "" is none.
	Chroot string

	// Auth are identities, sent on every connection before anything else (DM-112). A digest needs "user:password".
	Auth []zk.Auth

	// ReadOnly accepts a server that has lost its quorum and serves reads alone. The client then looks for another one
	// in the background, and moves there when it finds it (SS-30).
	ReadOnly bool

	// Legacy is for servers before ZooKeeper 3.5, and for what is like them. Such servers close the connection of a
	// client that asks for what they do not know (WP-83), so this one then sends nothing else: creates, also those of
	// transactions, and Children are asked for in the form whose answer has no Stat (opcodes 1 and 8), so the Stat in
	// their results is zero. Containers, times to live, persistent watches, MultiRead, Ephemerals, Descendants,
	// Identities, CheckWatches, RemoveWatches and Reconfig fail with ErrUnimplemented, and nothing is sent.
	Legacy bool

	// Session and Password, if Session is not 0, attach to a session that was opened before: see Client.ID, Password
	// and Detach. LastZxid is what its former owner had seen, so that a server that is behind is passed over (SS-17).
	Session  zk.SessionID
	Password []byte
	LastZxid zk.Zxid

	// TLS makes every connection a TLS one. ServerName is filled in from the address if it is empty.
	TLS *tls.Config

	// Dial opens the connections; nil means TCP. It returns early when ctx ends.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	// MaxFrame is the longest request in bytes: a longer one fails with ErrTooLarge, because a server would close the
	// connection without a word (DM-90). Default 1,048,575, which is ZooKeeper's own limit.
	MaxFrame int

	// MaxReply is the longest reply in bytes; a longer one ends the connection. Default 64 MiB.
	MaxReply int

	// MaxOutstanding is how many requests may be under way at a time, and MaxOutstandingBytes how long they may be
	// together; further callers wait. Defaults 1024 and 16 MiB.
	MaxOutstanding      int
	MaxOutstandingBytes int

	// WatchBuffer is how many events a persistent watch holds before it overflows. Default 128.
	WatchBuffer int

	// Logger hears of connections made and lost, at level Debug. Nil drops that.
	Logger *slog.Logger
}

// Client is a session with a ZooKeeper server or an ensemble of this package's Servers. Its methods are those of
// zk.Session as far as the protocol goes, and return the same types and codes; read them there first. What differs:
//
// A connection can break at any time. The client then connects to another server, sets its watches again and goes on
// with the same session. Calls made meanwhile wait. A read that was under way is repeated. A write that was under way
// fails with ErrUnavailable and MaybeApplied, for nobody knows its outcome (SS-34). A call whose context ends while
// it is under way fails likewise.
//
// StateSuspended means that there is no connection: the session may expire, and nothing is heard of changes.
//
// The zero Client is not usable: see Dial. A Client is safe for concurrent use, and its requests share the connection
// without waiting for each other's answers.
type Client struct {
	cfg     ClientConfig
	chroot  string // "" or "/a/b"
	log     *slog.Logger
	ctx     context.Context // ends with the client
	cancel  context.CancelFunc
	over    chan struct{} // closed in a final state
	stopped chan struct{} // closed when the last goroutine is gone

	mu       sync.Mutex // guards everything below
	state    zk.State
	changed  chan struct{} // closed, and replaced, when state or conn change
	err      error         // of a final state
	closing  bool
	conn     *clientConn // nil while there is none
	id       zk.SessionID
	password []byte
	timeout  time.Duration
	seen     zk.Zxid
	failure  error // of the connection tried last
	wasRW    bool  // the session is known to the ensemble, not to one read-only server alone
	xid      int32
	auth     []zk.Auth
	window   clientWindow
	watches  clientWatches
}

const defaultClientTimeout = 10 * time.Second

// Dial opens a session, or takes over the one that cfg names, and returns once it is established. ctx bounds Dial
// alone. Errors: ErrBadArguments; ErrUnavailable when ctx ends first; ErrSessionExpired when cfg.Session is over or
// its password is wrong; ErrAuthFailed when an identity is refused.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if ctx == nil {
		return nil, &zk.Error{Op: "dial", Code: zk.ErrBadArguments, Err: errNilContext}
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, &zk.Error{Op: "dial", Code: zk.ErrBadArguments, Err: err}
	}
	go c.run()
	for {
		c.mu.Lock()
		state, changed, failed := c.state, c.changed, c.err
		c.mu.Unlock()
		switch state {
		case zk.StateActive:
			return c, nil
		case zk.StateExpired, zk.StateClosed:
			<-c.stopped
			return nil, &zk.Error{Op: "dial", Code: clientCode(failed), Err: failed}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			why := clientCause(ctx)
			if last := c.lastFailure(); last != nil {
				why = fmt.Errorf("%w; %w", why, last)
			}
			c.Detach()
			return nil, &zk.Error{Op: "dial", Code: zk.ErrUnavailable, Err: why}
		}
	}
}

func newClient(cfg ClientConfig) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("no servers")
	}
	cfg.Servers = slices.Clone(cfg.Servers)
	rand.Shuffle(len(cfg.Servers), func(i, j int) { cfg.Servers[i], cfg.Servers[j] = cfg.Servers[j], cfg.Servers[i] })
	if cfg.Chroot = strings.TrimSuffix(cfg.Chroot, "/"); cfg.Chroot != "" {
		if err := zk.ValidPath(cfg.Chroot); err != nil {
			return nil, err
		}
	}
	for _, v := range []*int{&cfg.MaxFrame, &cfg.MaxReply, &cfg.MaxOutstanding, &cfg.MaxOutstandingBytes, &cfg.WatchBuffer} {
		if *v < 0 {
			return nil, errors.New("negative limit")
		}
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("negative timeout")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultClientTimeout
	}
	orElse(&cfg.MaxFrame, maxFrame)
	orElse(&cfg.MaxReply, 64<<20)
	orElse(&cfg.MaxOutstanding, 1024)
	orElse(&cfg.MaxOutstandingBytes, 16<<20)
	orElse(&cfg.WatchBuffer, 128)
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	c := &Client{
		cfg: cfg, chroot: cfg.Chroot, log: cfg.Logger,
		over: make(chan struct{}), stopped: make(chan struct{}), changed: make(chan struct{}),
		state: zk.StateSuspended, id: cfg.Session, password: bytes.Clone(cfg.Password), seen: cfg.LastZxid,
		timeout: cfg.Timeout, wasRW: cfg.Session != 0,
		window: clientWindow{calls: cfg.MaxOutstanding, bytes: cfg.MaxOutstandingBytes},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	for _, a := range cfg.Auth {
		c.auth = append(c.auth, zk.Auth{Scheme: a.Scheme, Cred: bytes.Clone(a.Cred)})
	}
	c.watches.init()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func orElse(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

// ID returns the session's id. It changes only where a session with a read-only server gives way to a real one.
func (c *Client) ID() zk.SessionID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Password returns what another Client needs, with ID, to take the session over.
func (c *Client) Password() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.password)
}

// Timeout returns the session's timeout after negotiation, on the connection made last.
func (c *Client) Timeout() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timeout
}

// LastZxid returns the highest zxid that a reply has carried.
func (c *Client) LastZxid() zk.Zxid {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Server returns the address of the server that the client is connected with, "" while there is none.
func (c *Client) Server() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return ""
	}
	return c.conn.server
}

// ReadOnly reports whether the server that the client is connected with serves reads alone.
func (c *Client) ReadOnly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil && c.conn.readOnly
}

// State returns StateActive while there is a connection, StateSuspended while there is none, and at last
// StateExpired or StateClosed.
func (c *Client) State() zk.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// States yields the state and then every change of it, the newest only. It ends after a final state, or with ctx's
// error.
func (c *Client) States(ctx context.Context) iter.Seq2[zk.State, error] {
	return func(yield func(zk.State, error) bool) {
		if ctx == nil {
			yield(zk.StateClosed, &zk.Error{Op: "states", Code: zk.ErrBadArguments, Err: errNilContext})
			return
		}
		for last, first := zk.StateClosed, true; ; first = false {
			c.mu.Lock()
			st, changed := c.state, c.changed
			c.mu.Unlock()
			if (first || st != last) && !yield(st, nil) || st > zk.StateSuspended {
				return
			}
			last = st
			select {
			case <-changed:
			case <-ctx.Done():
				yield(st, &zk.Error{Op: "states", Code: zk.ErrUnavailable, Err: clientCause(ctx)})
				return
			}
		}
	}
}

// Done is closed when the session is over for this client: expired, closed or detached.
func (c *Client) Done() <-chan struct{} { return c.over }

// Err returns nil while the session may be alive, then ErrSessionExpired, ErrAuthFailed or ErrClosed.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the session: its ephemerals are deleted, and its watches closed, before it returns. Requests under way
// are answered first. It waits at most the session's timeout. Without a connection it does not wait: the error then
// says that the session goes on until it expires. Closing twice is fine.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.state > zk.StateSuspended || c.closing {
		c.mu.Unlock()
		<-c.stopped
		return nil
	}
	c.closing = true
	conn, timeout := c.conn, c.timeout
	call := &clientCall{op: opCloseSession, done: make(chan struct{})}
	if conn != nil {
		conn.add(call, c.nextXid(call.op), noBody)
	}
	c.mu.Unlock()
	err := error(zk.ErrUnavailable)
	if conn != nil {
		late := time.NewTimer(timeout)
		select {
		case <-call.done:
			if err = call.err; err == nil && call.code != 0 {
				err = call.code
			}
		case <-late.C:
		case <-c.over:
		}
		late.Stop()
	}
	c.finish(zk.StateClosed, zk.ErrClosed)
	<-c.stopped
	if err != nil {
		return &zk.Error{Op: "close session", Code: zk.ErrUnavailable, Err: err}
	}
	return nil
}

// Detach lets go of the session without closing it: it lives on until its timeout, and another Client may take it
// over with ID, Password and LastZxid. Requests under way fail, their outcome unknown.
func (c *Client) Detach() {
	c.finish(zk.StateClosed, zk.ErrClosed)
	<-c.stopped
}

// finish ends the client for good; the first reason counts.
func (c *Client) finish(s zk.State, err error) {
	c.mu.Lock()
	if c.state > zk.StateSuspended {
		c.mu.Unlock()
		return
	}
	c.state, c.err, c.closing = s, err, true
	c.watches.endAll(s, err)
	close(c.over)
	c.broadcast()
	conn := c.conn
	c.mu.Unlock()
	c.cancel()
	if conn != nil {
		conn.nc.Close() // without the lock: over TLS there is a farewell
	}
}

// broadcast wakes those who wait for a change. c.mu is held.
func (c *Client) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}
