// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	defaultCallTimeout = 10 * time.Second
	defaultMaxFrame    = 4 << 20

	// openTimeout bounds opening a stream: dial, TLS and handshake together.
	openTimeout = 5 * time.Second

	// stallTimeout is how long a transfer under way may stand still.
	stallTimeout = 30 * time.Second

	// inboundIdle is how long an accepted stream may wait for a request. Whoever
	// dialled it finds it closed at the next call and dials again.
	inboundIdle = 10 * time.Minute

	// outboundIdle is how long a dialled stream may be idle beside another idle
	// one. The last one stays, for a peer that has lost all our streams takes us
	// for dead.
	outboundIdle = time.Minute

	// poolMax is how many streams of one pool are open at a time. Two pools
	// fit twice into what the other end accepts, so that a member that
	// restarted is let in while the streams of its former life still fade.
	poolMax = 16

	maxInbound        = 1024 // accepted streams
	maxInboundPerPeer = 64   // accepted streams of one member
	maxOpening        = 256  // accepted streams whose handshake is not done
)

var (
	// ErrNoTransport is returned for calls of a Net without a Transport.
	ErrNoTransport = errors.New("raftnet: no transport")

	// ErrClosed is returned for everything after Close.
	ErrClosed = errors.New("raftnet: closed")

	// ErrStalled is returned instead of sending what a member with a stalled
	// disk must not send.
	ErrStalled = errors.New("raftnet: storage stalled")

	// ErrTooLarge is returned for a request above the limit.
	ErrTooLarge = errors.New("raftnet: message too large")
)

// A RefusedError says that the other end refused a stream.
type RefusedError struct {
	ID     string // who refused, as far as known
	Reason string // in its words
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("raftnet: refused by %q: %s", e.ID, e.Reason)
}

// An IdentityError says that the other end of a stream is not who it should
// be, or cannot prove that it is who it claims to be.
type IdentityError struct {
	Want    string // the id we meant to reach; empty if any
	Claimed string // the id the other end announced
	Problem string
}

func (e *IdentityError) Error() string {
	if e.Want != "" && e.Want != e.Claimed {
		return fmt.Sprintf("raftnet: looked for %q and found %q: %s", e.Want, e.Claimed, e.Problem)
	}
	return fmt.Sprintf("raftnet: identity %q: %s", e.Claimed, e.Problem)
}

// A RemoteError is an error that the other end answered a call with. The
// stream is fine.
type RemoteError struct {
	Text string
}

func (e *RemoteError) Error() string {
	return "raftnet: answered: " + e.Text
}

// A Transport carries streams between members.
type Transport interface {
	// Dial opens a stream to the member at addr. Several goroutines may dial
	// at once. It returns early when ctx ends. When nobody listens at addr
	// the error matches syscall.ECONNREFUSED.
	Dial(ctx context.Context, addr string) (net.Conn, error)

	// Accept waits for the next stream. One goroutine calls it. After Close
	// it returns an error.
	Accept() (net.Conn, error)

	// Close stops accepting and makes a waiting Accept return.
	Close() error

	// Addr is where other members reach this one.
	Addr() string
}

// Config says how a Net reaches others and whom it asks. All functions may be
// called by several goroutines at once, and none while a lock is held.
type Config struct {
	// Transport carries the streams. The Net closes it. Nil means that there
	// is nobody to talk to: calls fail with ErrNoTransport.
	Transport Transport

	// Local is what this member announces; asked at each handshake. Its ID
	// never changes.
	Local func() Identity

	// Resolve finds the address of a member; asked at each dial. Nil means
	// that the id is the address.
	Resolve func(ctx context.Context, id string) (string, error)

	// Admit decides on each stream, dialled or accepted, once the other end
	// has said who it is. An error refuses the stream: its text goes to the
	// other end as a RefusedError, and whoever dialled at this end gets the
	// error wrapped. Nil admits all. Two different clusters, both known, never
	// talk, whatever Admit says.
	Admit func(remote Identity) error

	// AdmitRaft decides on each request for raft; rpc is a pointer to one of
	// raft's five request types. An error is the answer, and raft does not
	// see the request. Nil admits all.
	AdmitRaft func(remote Identity, rpc any) error

	// Handle answers calls. Each stream has its own goroutine. The context
	// ends when the stream breaks or the Net closes, and Handle must then
	// return. It may keep req. A request may arrive twice: see Call.
	Handle func(ctx context.Context, from Identity, kind byte, req []byte) []byte

	// StreamLost is told that the last raft stream which this incarnation of
	// a member had opened to us was broken by the other end: it crashed,
	// closed, or was reset. It is not told of streams that this end closed. It
	// must not block.
	StreamLost func(id string, incarnation uint64)

	// Leads reports whether this member leads another in a term. While it does,
	// an AppendEntries or snapshot that has failed returns only when the other can
	// be reached again; a heartbeat at once. It must not block. Nil means never.
	Leads func(id string, term uint64) bool

	// Logger receives what went wrong, at most once in 10 s per member. Nil
	// discards it.
	Logger *slog.Logger

	// CallTimeout is how long a raft RPC may take, not counting the time in
	// which a large one visibly moves on. Heartbeats, votes and commit notices
	// have a quarter of it: later their answers mean nothing. Zero means 10 s.
	CallTimeout time.Duration

	// MaxFrame is the size of the largest request and response of a call,
	// in bytes. Zero means 4 MiB. Raft's RPCs have limits of their own: 64 MiB
	// for AppendEntries, which are cut at 8 MiB where more than one entry is
	// sent, none for the contents of a snapshot.
	MaxFrame int

	// Stalled reports that the disk does not answer. While it does, no
	// AppendEntries or snapshot is sent, no vote is asked for or answered, and
	// no TimeoutNow is heard: the others elect someone who can write. Nil means
	// never.
	Stalled func() bool
}

// Net is a member's end of the network.
type Net struct {
	cfg      Config // with defaults, never changed
	log      complaints
	consumer chan raft.RPC
	ctx      context.Context // ends at Close
	cancel   context.CancelFunc
	done     chan struct{} // closed when Close has finished
	wg       sync.WaitGroup

	sentTerm   atomic.Uint64 // newest term an AppendEntries was sent in
	installing atomic.Int32  // snapshots that raft is at

	mu      sync.Mutex // guards the fields below; never held during I/O or a callback
	closed  bool
	streams map[*stream]struct{} // all open ones
	peers   map[string]*peer     // whom we have called
	inbound int                  // accepted streams
	opening int                  // of those, in handshake
	perPeer map[string]int       // of those past it, by claimed id
	raftIn  map[life]int         // of those, for raft
	leader  life                 // who led this member last
	ledTerm uint64               // in which term
}

// life is one incarnation of a member.
type life struct {
	id          string
	incarnation uint64
}

// New starts to accept streams.
func New(cfg Config) *Net {
	if cfg.Local == nil {
		cfg.Local = func() Identity { return Identity{} }
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(_ context.Context, id string) (string, error) { return id, nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(Identity) error { return nil }
	}
	if cfg.AdmitRaft == nil {
		cfg.AdmitRaft = func(Identity, any) error { return nil }
	}
	if cfg.StreamLost == nil {
		cfg.StreamLost = func(string, uint64) {}
	}
	if cfg.Leads == nil {
		cfg.Leads = func(string, uint64) bool { return false }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = defaultCallTimeout
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	if cfg.Stalled == nil {
		cfg.Stalled = func() bool { return false }
	}
	n := &Net{
		cfg:      cfg,
		log:      complaints{log: cfg.Logger, about: make(map[party]*complaint)},
		consumer: make(chan raft.RPC),
		done:     make(chan struct{}),
		streams:  make(map[*stream]struct{}),
		peers:    make(map[string]*peer),
		perPeer:  make(map[string]int),
		raftIn:   make(map[life]int),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if cfg.Transport != nil {
		n.spawn(n.accept)
		n.spawn(n.prune)
	}
	return n
}

// Close closes the transport and every stream, and waits for every goroutine
// of the Net, those in Handle included. So Handle must not call it. It may be
// called any number of times, before raft is shut down or after.
func (n *Net) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	open := make([]*stream, 0, len(n.streams))
	for s := range n.streams {
		open = append(open, s)
	}
	n.mu.Unlock()
	if !first {
		<-n.done
		return nil
	}
	n.cancel()
	var err error
	if n.cfg.Transport != nil {
		err = n.cfg.Transport.Close()
	}
	for _, s := range open {
		s.close()
	}
	n.wg.Wait()
	close(n.done)
	return err
}

// Call asks a member and returns its answer. The context alone bounds the
// call; a call given up costs the stream it is on. At most 16 calls to a member
// are under way at a time, others wait.
//
// If an idle stream turns out to be broken before the first byte of the
// answer, because the other end restarted, say, the call is made once more on
// a fresh stream. The first request may have been handled nevertheless.
// Requests must be such that doing them twice is doing them once.
//
// Kinds of 0xF0 and above are raft's.
func (n *Net) Call(ctx context.Context, id string, kind byte, req []byte) ([]byte, error) {
	if err := n.checkRequest(kind, req); err != nil {
		return nil, err
	}
	resp, err := n.do(ctx, &n.peer(id).calls, 0, kind, req, n.cfg.MaxFrame)
	if err != nil {
		return nil, fmt.Errorf("raftnet: call %q: %w", id, err)
	}
	return resp, nil
}

// CallAddr asks whoever listens at addr, on a stream of its own, and also
// returns who that was. The identity is known as soon as the other end has
// announced it, even when it then refused the stream.
func (n *Net) CallAddr(ctx context.Context, addr string, kind byte, req []byte) ([]byte, Identity, error) {
	if err := n.checkRequest(kind, req); err != nil {
		return nil, Identity{}, err
	}
	s, remote, err := n.open(ctx, classCalls, "", addr)
	if err != nil {
		return nil, remote, fmt.Errorf("raftnet: call %s: %w", addr, err)
	}
	defer n.drop(s)
	resp, err := s.call(ctx, 0, kind, req, n.cfg.MaxFrame)
	if err != nil {
		return nil, remote, fmt.Errorf("raftnet: call %s: %w", addr, n.explain(ctx, err))
	}
	return resp, remote, nil
}

// Probe opens a stream to a member and closes it again, to learn whether it
// is there and in which incarnation. As with CallAddr, the identity is valid
// when the other end refused. The error matches syscall.ECONNREFUSED when
// nobody listens.
func (n *Net) Probe(ctx context.Context, id string) (Identity, error) {
	s, remote, err := n.open(ctx, classCalls, id, "")
	if err != nil {
		return remote, fmt.Errorf("raftnet: probe %q: %w", id, err)
	}
	n.drop(s)
	return remote, nil
}

func (n *Net) checkRequest(kind byte, req []byte) error {
	if kind >= kindReserved {
		return fmt.Errorf("raftnet: call kind %#x is reserved", kind)
	}
	if len(req) > n.cfg.MaxFrame {
		return fmt.Errorf("%w: request of %d bytes", ErrTooLarge, len(req))
	}
	return nil
}

// do makes a call on a pooled stream. A step above zero is how long it may
// stand still; with zero the context is the only bound.
func (n *Net) do(ctx context.Context, p *pool, step time.Duration, kind byte, req []byte, limit int) ([]byte, error) {
	for again := false; ; again = true {
		s, err := p.get(ctx, step)
		if err != nil {
			return nil, n.explain(ctx, err)
		}
		reused := s.rested || s.calls > 0
		resp, err := s.call(ctx, step, kind, req, limit)
		if err == nil || answered(err) {
			p.put(s)
			return resp, err
		}
		heard := s.heard
		p.discard(s)
		if timedOut(err) && ctx.Err() == nil {
			p.flush() // where one stream is stuck the idle ones may be
		}
		if again || heard || !reused || timedOut(err) || ctx.Err() != nil || n.ctx.Err() != nil {
			return nil, n.explain(ctx, err)
		}
		p.flush() // the others are as old as this one
	}
}

// explain prefers the cause to its consequence: a stream that breaks because
// the caller or the Net has had enough reports the latter.
func (n *Net) explain(ctx context.Context, err error) error {
	switch {
	case n.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// answered reports whether err is the other end's answer rather than a
// failure to get one.
func answered(err error) bool {
	var remote *RemoteError
	return errors.As(err, &remote)
}

// A peer is a member as seen by its caller.
type peer struct {
	id    string
	calls pool
	raft  pool
	said  progress
}

// peer returns the record of a member, made at the first call to it. There is
// one for each member that ever was, which is few.
func (n *Net) peer(id string) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil {
		p = &peer{id: id}
		p.calls = pool{net: n, id: id, class: classCalls}
		p.raft = pool{net: n, id: id, class: classRaft}
		n.peers[id] = p
	}
	return p
}

// spawn runs f on a goroutine that Close waits for. It reports false, and does
// not run f, once the Net is closed.
func (n *Net) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Go(f)
	return true
}

// track makes Close close s. It reports false once the Net is closed.
func (n *Net) track(s *stream) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.streams[s] = struct{}{}
	return true
}

// drop closes s.
func (n *Net) drop(s *stream) {
	n.mu.Lock()
	delete(n.streams, s)
	n.mu.Unlock()
	s.close()
}
