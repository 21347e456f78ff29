// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport"
	"github.com/seed-541fafe0/zk/wire"
	"github.com/spf13/cobra"
)

// serveFlags say what zkctl serve runs.
type serveFlags struct {
	id, dir              string
	peerAddr, clientAddr string
	members              []string
	tick                 time.Duration
	minTimeout           time.Duration
	maxTimeout           time.Duration
	superDigest          string
	enforceQuota         bool
	reapInterval         time.Duration
	perAddress           int
	words                []string
	readOnly             bool
	local, upgradeLocal  bool
	reconfig             bool
	tls                  tlsFiles
	plainToo             bool
	logLevel             string
	dev                  int

	peers    []zk.Peer
	level    slog.Level
	clients  *tls.Config // nil without TLS
	ensemble *tls.Config // between members; nil without --tls-ca
}

func serveCommand(a *app) *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a member of an ensemble, with ZooKeeper's protocol on a port",
		Long: "Run one member of an ensemble, or a whole one in this process with --dev-cluster, until SIGTERM or an interrupt.\n" +
			"When it serves it prints one line with its addresses.",
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return f.serve(cmd.Context(), a.out, a.err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.id, "id", "", "this member's `name` in the ensemble, for ever")
	flags.StringVar(&f.dir, "dir", "", "the `directory` that keeps its state; without it, memory does")
	flags.StringVar(&f.peerAddr, "peer-addr", "", "`host:port` to listen on for other members; default the one in --member")
	flags.StringVar(&f.clientAddr, "client-addr", "127.0.0.1:2181", "`host:port` to listen on for clients")
	flags.StringArrayVar(&f.members, "member", nil, "`id=host:port` of a member of the ensemble, this one too; once for each. Without it the ensemble is this member")
	flags.DurationVar(&f.tick, "tick", 2*time.Second, "ZooKeeper's tickTime: a unit for the two below")
	flags.DurationVar(&f.minTimeout, "min-session-timeout", 0, "shortest session timeout (default twice --tick)")
	flags.DurationVar(&f.maxTimeout, "max-session-timeout", 0, "longest session timeout (default twenty times --tick)")
	flags.StringVar(&f.superDigest, "super-digest", "", "`user:base64hash` of the identity that may do everything")
	flags.BoolVar(&f.enforceQuota, "enforce-quota", false, "let hard quotas refuse writes")
	flags.DurationVar(&f.reapInterval, "container-check-interval", time.Minute, "how often to look for empty containers and overdue TTL znodes")
	flags.IntVar(&f.perAddress, "max-connections-per-address", 60, "how many connections one address may have; 0 for any number")
	flags.StringSliceVar(&f.words, "words", nil, "four-letter words to answer, or *; default srvr, and isro with --read-only-mode")
	flags.BoolVar(&f.readOnly, "read-only-mode", false, "serve reads, to clients that ask for it, while there is no leader")
	flags.BoolVar(&f.local, "local-sessions", false, "let new sessions be this member's alone: they cost the ensemble nothing, and have no ephemerals")
	flags.BoolVar(&f.upgradeLocal, "upgrade-local-sessions", false, "with --local-sessions, let a session have ephemerals: with the first one the ensemble knows it")
	flags.BoolVar(&f.reconfig, "reconfig", false, "let clients that may write /zookeeper/config change the ensemble's members")
	flags.StringVar(&f.tls.cert, "tls-cert", "", "certificate, PEM `file`: clients connect over TLS. Needs --tls-key")
	flags.StringVar(&f.tls.key, "tls-key", "", "its key, PEM `file`")
	flags.StringVar(&f.tls.ca, "tls-ca", "", "PEM `file` with authorities: clients need a certificate of theirs, and members use TLS among themselves")
	flags.BoolVar(&f.plainToo, "plain-too", false, "with TLS, take plain connections on the client port as well")
	flags.StringVar(&f.logLevel, "log-level", "warn", "what to log on the standard error: debug, info, warn, error or off")
	flags.IntVar(&f.dev, "dev-cluster", 0, "run an ensemble of `N` members in this process, to play with")
	return cmd
}

// hostPort checks an address. A missing host is fine.
func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has no port between 0 and 65535", s)
	}
	return nil
}

// check finds mistakes before anything is opened.
func (f *serveFlags) check(given func(string) bool) error {
	if err := hostPort(f.clientAddr); err != nil {
		return usagef("--client-addr: %w", err)
	}
	if f.peerAddr != "" {
		if err := hostPort(f.peerAddr); err != nil {
			return usagef("--peer-addr: %w", err)
		}
	}
	for name, d := range map[string]*time.Duration{"tick": &f.tick, "min-session-timeout": &f.minTimeout, "max-session-timeout": &f.maxTimeout, "container-check-interval": &f.reapInterval} {
		if *d < 0 || *d == 0 && given(name) || *d > 0 && *d < time.Millisecond {
			return usagef("--%s %v: it must be at least a millisecond", name, *d)
		}
	}
	if f.minTimeout == 0 {
		f.minTimeout = 2 * f.tick
	}
	if f.maxTimeout == 0 {
		f.maxTimeout = max(20*f.tick, f.minTimeout)
	}
	if f.minTimeout > f.maxTimeout {
		return usagef("--min-session-timeout %v is longer than --max-session-timeout %v", f.minTimeout, f.maxTimeout)
	}
	if f.perAddress < 0 {
		return usagef("--max-connections-per-address %d: it must not be negative", f.perAddress)
	}
	for _, w := range f.words {
		if w != "*" && len(w) != 4 {
			return usagef("--words %q: they have four letters", w)
		}
	}
	if f.upgradeLocal && !f.local {
		return usagef("--upgrade-local-sessions needs --local-sessions")
	}
	if user, hash, ok := strings.Cut(f.superDigest, ":"); f.superDigest != "" && (!ok || user == "" || hash == "") {
		return usagef("--super-digest: it is user:base64hash")
	}
	if f.logLevel != "off" {
		if err := f.level.UnmarshalText([]byte(f.logLevel)); err != nil {
			return usagef("--log-level %s: it is debug, info, warn, error or off", f.logLevel)
		}
	}
	if err := f.checkMembers(given); err != nil {
		return err
	}
	return f.checkTLS()
}

func (f *serveFlags) checkMembers(given func(string) bool) error {
	if f.dev < 0 || f.dev > 7 || f.dev == 0 && given("dev-cluster") {
		return usagef("--dev-cluster %d: from 1 to 7 members", f.dev)
	}
	if f.dev > 0 {
		for _, name := range [...]string{"member", "id", "peer-addr"} {
			if given(name) {
				return usagef("--dev-cluster names its members by itself: leave --%s away", name)
			}
		}
		return nil
	}
	if len(f.members) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, m := range f.members {
		id, addr, ok := strings.Cut(m, "=")
		if !ok || id == "" {
			return usagef("--member %q: it is id=host:port", m)
		}
		if err := hostPort(addr); err != nil {
			return usagef("--member %s: %w", m, err)
		}
		if _, port, _ := net.SplitHostPort(addr); port == "0" {
			return usagef("--member %s: the other members have to know the port", m)
		}
		if seen[id] || seen[addr] {
			return usagef("--member %s: its id or address is there twice", m)
		}
		seen[id], seen[addr] = true, true
		f.peers = append(f.peers, zk.Peer{ID: id, Addr: addr, Voter: true})
	}
	switch {
	case f.id == "":
		return usagef("--member needs --id: which of them is this one?")
	case !seen[f.id]:
		return usagef("--id %s is not among the --member flags", f.id)
	case f.dir == "":
		return usagef("--member needs --dir: a member that forgets its vote may break the ensemble")
	}
	return nil
}

func (f *serveFlags) checkTLS() error {
	switch {
	case (f.tls.cert == "") != (f.tls.key == ""):
		return usagef("--tls-cert and --tls-key go together")
	case f.tls.cert == "" && f.tls.ca != "":
		return usagef("--tls-ca needs --tls-cert and --tls-key")
	case f.tls.cert == "" && f.plainToo:
		return usagef("--plain-too is for a port with TLS")
	case f.tls.cert == "":
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.tls.cert, f.tls.key)
	if err != nil {
		return usageError{err}
	}
	f.clients = &tls.Config{Certificates: []tls.Certificate{pair}}
	if f.tls.ca == "" {
		return nil
	}
	pool, err := authorities(f.tls.ca)
	if err != nil {
		return err
	}
	f.clients.ClientCAs, f.clients.ClientAuth = pool, tls.RequireAndVerifyClientCert
	f.ensemble = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool}
	return nil
}

func (f *serveFlags) logger(w io.Writer) *slog.Logger {
	if f.logLevel == "off" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: f.level}))
}

// seat is one member with its port.
type seat struct {
	member *zk.Member
	server *wire.Server
	client net.Listener
}

// open opens a member and listens for clients.
func (f *serveFlags) open(ctx context.Context, cfg zk.Config, clientAddr string) (*seat, error) {
	client, err := net.Listen("tcp", clientAddr)
	if err != nil {
		if cfg.Transport != nil {
			cfg.Transport.Close()
		}
		return nil, err
	}
	cfg.MinTimeout, cfg.MaxTimeout = f.minTimeout, f.maxTimeout
	cfg.SessionTimeout = min(max(10*time.Second, f.minTimeout), f.maxTimeout)
	cfg.SuperDigest, cfg.EnforceQuota, cfg.ReapInterval = f.superDigest, f.enforceQuota, f.reapInterval
	m, err := zk.Open(ctx, cfg)
	if err != nil {
		client.Close()
		return nil, err
	}
	s := &wire.Server{
		Member: m, TLS: f.clients, OnePort: f.plainToo, Words: f.words, Tick: f.tick, ReadOnly: f.readOnly, Reconfig: f.reconfig, Logger: cfg.Logger,
		LocalSessions: f.local, UpgradeLocalSessions: f.upgradeLocal,
		Limits: wire.Limits{PerAddress: f.perAddress},
	}
	if f.perAddress == 0 {
		s.Limits.PerAddress = -1
	}
	return &seat{m, s, client}, nil
}

// seats opens what the flags describe.
func (f *serveFlags) seats(ctx context.Context, log *slog.Logger) (list []*seat, err error) {
	defer func() {
		if err != nil {
			for _, s := range list {
				s.client.Close()
				s.member.Close()
			}
			list = nil
		}
	}()
	if f.dev > 0 {
		return f.devSeats(ctx, log)
	}
	cfg := zk.Config{ID: f.id, Dir: f.dir, Peers: f.peers, Logger: log}
	listen := f.peerAddr
	for _, p := range f.peers {
		if p.ID != f.id {
			continue
		}
		if cfg.Advertise = p.Addr; listen == "" {
			listen = p.Addr
		}
	}
	if listen != "" {
		if f.ensemble != nil {
			cfg.Transport, err = transport.TLS(listen, f.ensemble)
		} else {
			cfg.Transport, err = transport.TCP(listen)
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := f.open(ctx, cfg, f.clientAddr)
	if err != nil {
		return nil, err
	}
	return []*seat{s}, nil
}

// serve runs the seats until ctx ends or a member stops by itself.
func (f *serveFlags) serve(ctx context.Context, out, errOut io.Writer) (err error) {
	list, err := f.seats(ctx, f.logger(errOut))
	if err != nil {
		return err
	}
	failed := make(chan error, len(list))
	for _, s := range list {
		serve := s.server.Serve
		if f.clients != nil && !f.plainToo {
			serve = s.server.ServeTLS
		}
		go func() { failed <- serve(s.client) }()
	}
	running := len(list)
	defer func() {
		err = errors.Join(err, shutdown(list))
		for range running {
			if e := <-failed; !errors.Is(e, wire.ErrServerClosed) && !errors.Is(e, zk.ErrClosed) {
				err = errors.Join(err, e)
			}
		}
	}()

	ready := make(chan error, 1)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for _, s := range list {
			if err := s.announce(waiting); err != nil {
				ready <- err
				return
			}
		}
		ready <- nil
	}()
	for {
		select {
		case err := <-ready:
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			}
			fmt.Fprintln(out, f.announcement(list))
		case err := <-failed:
			running--
			return fmt.Errorf("the client port has ended: %w", err)
		case <-ctx.Done():
			return nil
		}
	}
}

// announce waits until the seat serves and tells the ensemble where, so that clients find it in /zookeeper/config.
func (s *seat) announce(ctx context.Context) error {
	if err := s.server.Ready(ctx); err != nil {
		return err
	}
	addr := s.client.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() { // no place to dial: take the host that other members dial
		var err error
		if host, _, err = net.SplitHostPort(s.member.Addr()); err != nil {
			return nil // a member alone, whose clients have an address already
		}
	}
	return s.member.SetClientAddr(ctx, net.JoinHostPort(host, strconv.Itoa(addr.Port)))
}

// announcement is the line that says that it serves.
func (f *serveFlags) announcement(list []*seat) string {
	var clients []string
	for _, s := range list {
		clients = append(clients, s.client.Addr().String())
	}
	if f.dev > 0 {
		return fmt.Sprintf("serving members=%d client=%s", len(list), strings.Join(clients, ","))
	}
	line := fmt.Sprintf("serving id=%s client=%s", list[0].member.ID(), clients[0])
	if peer := list[0].member.Addr(); peer != "" {
		line += " peer=" + peer
	}
	return line
}

// shutdownPatience bounds the farewell to clients and to the ensemble.
const shutdownPatience = 5 * time.Second

// shutdown ends the ports and then the members, all at a time.
func shutdown(list []*seat) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
	defer cancel()
	each := func(fn func(*seat) error) error {
		results := make(chan error, len(list))
		for _, s := range list {
			go func() { results <- fn(s) }()
		}
		var err error
		for range list {
			err = errors.Join(err, <-results)
		}
		return err
	}
	err := each(func(s *seat) error { return s.server.Shutdown(ctx) })
	return errors.Join(err, each(func(s *seat) error { return s.member.Shutdown(ctx) }))
}
