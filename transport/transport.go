// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxAccepted bounds the accepted streams that are open at a time: some dozens for each member that an ensemble
	// can sensibly have, and few enough to leave file descriptors for the program.
	maxAccepted = 4096

	// maxHandshakes bounds the TLS handshakes of accepted streams under way at a time, each of which is costly and
	// was begun by someone not yet known.
	maxHandshakes = 128

	// handshakeTimeout bounds one TLS handshake.
	handshakeTimeout = 5 * time.Second

	// keepAlive is how often an idle TCP connection is probed, to find peers that vanished without a word.
	keepAlive = 15 * time.Second
)

// limits are the bounds that one transport keeps. They vary in tests alone.
type limits struct {
	accepted, handshakes int
	handshake            time.Duration
}

var usual = limits{accepted: maxAccepted, handshakes: maxHandshakes, handshake: handshakeTimeout}

// Transport carries streams over a listener and a dial function. TCP, TLS and Wrap make one; it satisfies
// zk.Transport. Its methods are safe for concurrent use.
type Transport struct {
	limits   limits
	listener net.Listener
	dial     func(ctx context.Context, addr string) (net.Conn, error)
	server   *tls.Config // nil without TLS
	client   *tls.Config

	life  context.Context // ends with Close
	end   context.CancelFunc
	once  sync.Once // Close
	err   error     // what closing the listener has said; set by once
	work  sync.WaitGroup
	ready chan accepted // TLS only: streams whose handshake is done, and the listener's errors

	mu        sync.Mutex // guards the fields below
	closed    bool
	open      map[*stream]struct{}
	inbound   int // accepted ones among open
	handshake int // those of inbound that shake hands
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// TCP listens on addr, "host:port". A missing host means loopback, 127.0.0.1: to be reached from other hosts name an
// address, or 0.0.0.0 for all of them. Port 0 takes any free port, which Addr tells. Idle connections are probed
// every 15 seconds, and small writes are sent at once. Streams are not encrypted and nobody is authenticated: across
// hosts use TLS. At most 4096 accepted streams are open at a time. The error is the listener's.
func TCP(addr string) (*Transport, error) {
	l, err := listen(addr)
	if err != nil {
		return nil, err
	}
	return Wrap(l, nil), nil
}

// Wrap carries streams over a listener that the program has already, such as one port that it shares between
// protocols. A nil dial means plain TCP; one that is given may be called by several goroutines at once, and should
// return early when ctx ends, which is when Dial's does or with Close. Streams are counted, bounded and closed as those of TCP
// are, and the Transport owns l: Close closes it.
//
// Where l or dial yield TLS connections, the streams show their ConnectionState. Prefer the function TLS, which sees
// to it that both ends are authenticated.
func Wrap(l net.Listener, dial func(ctx context.Context, addr string) (net.Conn, error)) *Transport {
	return wrap(l, dial, usual)
}

func wrap(l net.Listener, dial func(ctx context.Context, addr string) (net.Conn, error), lim limits) *Transport {
	if dial == nil {
		d := net.Dialer{KeepAlive: keepAlive}
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	t := &Transport{limits: lim, listener: l, dial: dial, open: map[*stream]struct{}{}}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

func listen(addr string) (net.Listener, error) {
	if strings.HasPrefix(addr, ":") {
		addr = "127.0.0.1" + addr
	}
	lc := net.ListenConfig{KeepAlive: keepAlive}
	return lc.Listen(context.Background(), "tcp", addr)
}

// Addr is where the listener listens, "host:port": where other members reach this one, unless they are told another
// address.
func (t *Transport) Addr() string { return t.listener.Addr().String() }

// Dial opens a stream to addr, "host:port". Several goroutines may dial at once. It returns early when ctx ends, and
// with net.ErrClosed when the transport is closed meanwhile. Where nobody listens the error matches
// syscall.ECONNREFUSED, on every system. With TLS the other end has been authenticated when Dial returns, within 5
// seconds; whether it accepts this end's certificate shows at the first Read.
func (t *Transport) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	if err := ctx.Err(); err != nil {
		return nil, t.orClosed(err)
	}
	c, err := t.dial(ctx, addr)
	if err != nil {
		return nil, t.orClosed(refusal(runtime.GOOS, err))
	}
	s := t.track(c, false)
	if s == nil {
		c.Close()
		return nil, net.ErrClosed
	}
	if t.client == nil {
		return s.face(), nil
	}
	tc, err := t.clientHandshake(ctx, s, addr)
	if err != nil {
		s.Close()
		return nil, t.orClosed(err)
	}
	return tc, nil
}

// orClosed returns err, or net.ErrClosed where Close is what brought it about.
func (t *Transport) orClosed(err error) error {
	if t.life.Err() != nil {
		return net.ErrClosed
	}
	return err
}

// Accept waits for the next stream. After Close it returns net.ErrClosed. Another error is the listener's, such as
// too many open files, and need not be the end: call again, after a pause.
func (t *Transport) Accept() (net.Conn, error) {
	if t.server == nil {
		s, err := t.next()
		if err != nil {
			return nil, t.orClosed(err)
		}
		return s.face(), nil
	}
	if t.life.Err() != nil {
		return nil, net.ErrClosed
	}
	select {
	case a := <-t.ready:
		if a.err != nil {
			return nil, t.orClosed(a.err)
		}
		return a.conn, nil
	case <-t.life.Done():
		return nil, net.ErrClosed
	}
}

// next accepts a stream and keeps the bound.
func (t *Transport) next() (*stream, error) {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return nil, err
		}
		if s := t.track(c, true); s != nil {
			return s, nil
		}
		c.Close()
	}
}

// Close stops accepting, ends dials and handshakes under way, and closes every stream accepted or dialled, so that
// no reader is left waiting. It returns what closing the listener has said. Closing again returns the same.
func (t *Transport) Close() error {
	t.once.Do(func() {
		t.mu.Lock()
		t.closed = true
		streams := make([]*stream, 0, len(t.open))
		for s := range t.open {
			streams = append(streams, s)
		}
		t.mu.Unlock()
		t.end()
		if err := t.listener.Close(); !errors.Is(err, net.ErrClosed) {
			t.err = err
		}
		for _, s := range streams {
			s.Close()
		}
		t.work.Wait()
	})
	return t.err
}

// refused is an error that matches syscall.ECONNREFUSED.
type refused struct{ error }

func (r refused) Unwrap() error        { return r.error }
func (r refused) Is(target error) bool { return target == syscall.ECONNREFUSED }

// refusal makes err match syscall.ECONNREFUSED if that is what it means. On Windows it does not by itself: sockets
// have numbers of their own there, and package syscall's ECONNREFUSED is invented.
func refusal(goos string, err error) error {
	const wsaeConnRefused = syscall.Errno(10061)
	if goos == "windows" && errors.Is(err, wsaeConnRefused) {
		return refused{err}
	}
	return err
}
