// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("wire: server closed")

// Server lets ZooKeeper's clients use an ensemble through one of its members. Set Member, and what else differs from
// the defaults, before the first call of Serve; do not change it afterwards. Its methods are safe for concurrent use.
type Server struct {
	// Member is whose sessions, znodes and watches clients get. Session timeouts are negotiated within its MinTimeout
	// and MaxTimeout. The server does not close it.
	Member *zk.Member

	// Limits bound what clients can cost.
	Limits Limits

	// TLS is the configuration for ServeTLS, and for Serve with OnePort. A client's certificate that it verifies
	// becomes an x509 identity (WP-50).
	TLS *tls.Config

	// OnePort makes Serve take both TLS and plain connections (WP-51). It needs TLS.
	OnePort bool

	// Words are the four-letter words that are answered; "*" means all. Default: srvr, and isro with ReadOnly (WP-61).
	Words []string

	// Version is told by the words srvr, stat, envi and mntr. Tools parse it: it should start with a version of
	// ZooKeeper, and look like the default, DefaultVersion (WP-84, WP-88).
	Version string

	// Tick is ZooKeeper's tickTime, as the word conf shows it; nothing else depends on it. Default 2 s.
	Tick time.Duration

	// LeaderGrace is for how long connections are kept when the member knows no leader: most changes of leader take
	// less, and clients need not notice. Default 2 s; negative: none. Then connections are closed, and new ones
	// refused, until there is a leader again and the member has caught up (OP-60, WP-16).
	LeaderGrace time.Duration

	// ReadOnly serves clients that ask for it while there is no leader, from what the member has (SS-26 to SS-30).
	ReadOnly bool

	// LocalSessions makes every new session a local one, which this member alone knows (SS-22): to open, renew, expire
	// and close it costs the ensemble nothing, and no other member takes it over. It is for many clients without
	// ephemerals: those are refused with -120, unless UpgradeLocalSessions is set too.
	LocalSessions bool

	// UpgradeLocalSessions makes a local session known to the ensemble as soon as it asks for an ephemeral (SS-23): from
	// then on it is as any other.
	UpgradeLocalSessions bool

	// Reconfig lets clients with the permission to write /zookeeper/config change the ensemble's members (OP-42).
	Reconfig bool

	// Logger receives what is worth telling, bounded to a few lines a second. Nil sends warnings and errors to
	// slog.Default and drops the rest.
	Logger *slog.Logger

	once      sync.Once
	limits    Limits
	words     map[string]bool
	log       *slog.Logger
	life      context.Context
	kill      context.CancelFunc
	work      sync.WaitGroup // every goroutine but those of Serve's callers
	began     time.Time
	state     serving
	stats     counters
	noise     noise
	shakes    atomic.Int64 // TLS handshakes under way
	traceMask atomic.Int64 // of the words gtmk and stmk; it means nothing here

	mu          sync.Mutex // guards the fields below
	closing     bool
	listeners   map[net.Listener]port
	conns       map[*conn]struct{}
	connections int
	perAddress  map[netip.Addr]int
	drained     chan struct{} // closed when the last connection has ended; nil while nobody waits
}

// start fills in the defaults and begins to follow the member's leader, once.
func (s *Server) start() {
	s.once.Do(func() {
		s.limits = s.Limits.withDefaults()
		s.words = permitted(s.Words, s.ReadOnly)
		s.traceMask.Store(306)
		s.log = quiet(s.Logger)
		s.life, s.kill = context.WithCancel(context.Background())
		s.began = time.Now()
		s.stats.reset()
		s.noise.log = s.log
		s.listeners = map[net.Listener]port{}
		s.conns = map[*conn]struct{}{}
		s.perAddress = map[netip.Addr]int{}
		if s.Member != nil {
			s.work.Go(s.follow)
		}
	})
}

var (
	errNoMember = errors.New("wire: Server.Member is nil")
	errNoTLS    = errors.New("wire: Server.TLS is nil")
)

// Serve accepts clients on l until Shutdown, Close, or an error that does not pass. It closes l. The error is
// ErrServerClosed after Shutdown and Close, zk.ErrClosed when the member has stopped.
func (s *Server) Serve(l net.Listener) error {
	if s.OnePort {
		return s.serve(l, portBoth)
	}
	return s.serve(l, portPlain)
}

// ServeTLS is Serve for clients that speak TLS.
func (s *Server) ServeTLS(l net.Listener) error { return s.serve(l, portTLS) }

func (s *Server) serve(l net.Listener, p port) error {
	l = &onceListener{Listener: l}
	defer l.Close()
	if s.Member == nil {
		return errNoMember
	}
	if p != portPlain && s.TLS == nil {
		return errNoTLS
	}
	s.start()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return s.ended()
	}
	s.listeners[l] = p
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.accept(nc, p)
			continue
		}
		if s.isClosing() {
			return s.ended()
		}
		if t, ok := err.(interface{ Temporary() bool }); !ok || !t.Temporary() { // out of descriptors passes
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("accept", "err", err, "again in", pause)
		select {
		case <-time.After(pause):
		case <-s.life.Done():
			return s.ended()
		}
	}
}

func (s *Server) accept(nc net.Conn, p port) {
	addr := addressOf(nc)
	if !s.admit(addr) {
		s.stats.rejected.Add(1)
		s.noise.say("connection refused: too many", addr)
		nc.Close()
		return
	}
	c := newConn(s, nc, addr, p)
	s.mu.Lock()
	closing := s.closing
	if !closing {
		s.conns[c] = struct{}{}
		s.work.Add(1) // before Close waits
	}
	s.mu.Unlock()
	if closing {
		c.end(errShutdown)
		s.dismiss(addr)
		return
	}
	go func() {
		defer s.work.Done()
		defer s.dismiss(addr)
		defer s.forget(c)
		c.serve()
	}()
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// ended is why Serve ends.
func (s *Server) ended() error {
	select {
	case <-s.Member.Done():
		if err := s.Member.Err(); err != nil {
			return err
		}
		return zk.ErrClosed
	default:
		return ErrServerClosed
	}
}

// all returns the connections there are.
func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// stop makes Serve return and refuses connections. It returns a channel that is closed when there are none left.
func (s *Server) stop() <-chan struct{} {
	s.mu.Lock()
	s.closing = true
	listeners := s.listeners
	s.listeners = map[net.Listener]port{}
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	drained := s.drained
	if s.connections == 0 {
		close(drained)
		s.drained = nil
	}
	s.mu.Unlock()
	for l := range listeners {
		l.Close()
	}
	return drained
}

// Shutdown stops accepting, reads no further requests, answers those it has, and closes the connections; what is not
// answered when ctx ends is cut off. Sessions are not closed: clients take them to another member.
func (s *Server) Shutdown(ctx context.Context) error {
	s.start()
	drained := s.stop()
	for _, c := range s.all() {
		c.drain()
	}
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return errors.Join(err, s.Close())
}

// Close cuts off all connections at once. Sessions are not closed.
func (s *Server) Close() error {
	s.start()
	s.stop()
	s.kill()
	for _, c := range s.all() {
		c.end(errShutdown)
	}
	s.work.Wait()
	return nil
}

// quiet is the logger of a guest: the user's, or slog.Default for warnings and errors alone (D20).
func quiet(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.New(warnings{})
}

// warnings hands warnings and errors to whatever is the default logger at that time.
type warnings struct{}

func (warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && slog.Default().Handler().Enabled(ctx, l)
}

func (warnings) Handle(ctx context.Context, r slog.Record) error {
	return slog.Default().Handler().Handle(ctx, r)
}

func (warnings) WithAttrs(a []slog.Attr) slog.Handler { return slog.Default().Handler().WithAttrs(a) }
func (warnings) WithGroup(name string) slog.Handler   { return slog.Default().Handler().WithGroup(name) }

type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
