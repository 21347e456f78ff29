// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// authority signs certificates in memory.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// Certificates are valid in the years of synctest bubbles, too.
var validFrom, validTo = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// sign makes a certificate of template; parent nil means that it signs itself.
func sign(t testing.TB, parent *authority, template *x509.Certificate) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = validFrom
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = validTo
	}
	signer := &authority{cert: template, key: key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func newAuthority(t testing.TB) *authority { return sign(t, nil, caTemplate("authority")) }

// issue makes a member's certificate; change may alter its template.
func (a *authority) issue(t testing.TB, id string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: id}, DNSNames: []string{id}, ExtKeyUsage: bothUsages}
	if change != nil {
		change(template)
	}
	leaf := sign(t, a, template)
	return tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}
}

func (a *authority) config(t testing.TB, id string) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.issue(t, id, nil)}, RootCAs: a.pool}
}

func (a *authority) transport(t testing.TB, id string) *Transport {
	t.Helper()
	return newTLS(t, a.config(t, id))
}

func newTLS(t testing.TB, cfg *tls.Config) *Transport {
	t.Helper()
	tr, err := TLS("127.0.0.1:0", cfg)
	must(t, err)
	t.Cleanup(func() { tr.Close() })
	return tr
}

func state(t testing.TB, c net.Conn) tls.ConnectionState {
	t.Helper()
	s, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		t.Fatalf("%T has no ConnectionState", c)
	}
	return s.ConnectionState()
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	a, b := ca.transport(t, "a"), ca.transport(t, "b")
	type result struct {
		conn net.Conn
		err  error
	}
	taken := make(chan result)
	go func() { c, err := a.Accept(); taken <- result{c, err} }()
	out, err := b.Dial(t.Context(), a.Addr())
	must(t, err)
	in := <-taken
	must(t, in.err)
	for id, c := range map[string]net.Conn{"a": out, "b": in.conn} {
		s := state(t, c)
		if s.Version != tls.VersionTLS13 || !s.HandshakeComplete || s.PeerCertificates[0].DNSNames[0] != id {
			t.Errorf("%s: version %x, complete %v, %v", id, s.Version, s.HandshakeComplete, s.PeerCertificates[0].DNSNames)
		}
	}
	must(t, out.Close())
	hasEnded(t, in.conn)
}

func TestTLSConfig(t *testing.T) {
	ca := newAuthority(t)
	mine := []tls.Certificate{ca.issue(t, "a", nil)}
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &mine[0], nil }
	getClient := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine[0], nil }
	for name, cfg := range map[string]*tls.Config{
		"nil":                        nil,
		"no authority":               {Certificates: mine},
		"no certificate":             {RootCAs: ca.pool},
		"no certificate to dial":     {RootCAs: ca.pool, GetCertificate: get},
		"no certificate to accept":   {RootCAs: ca.pool, GetClientCertificate: getClient},
		"no version that we can use": {RootCAs: ca.pool, Certificates: mine, MaxVersion: tls.VersionTLS12},
	} {
		if tr, err := TLS("127.0.0.1:0", cfg); !errors.Is(err, ErrConfig) || tr != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, cfg := range map[string]*tls.Config{
		"RootCAs":   {Certificates: mine, RootCAs: ca.pool},
		"ClientCAs": {Certificates: mine, ClientCAs: ca.pool},
		"callbacks": {GetCertificate: get, GetClientCertificate: getClient, RootCAs: ca.pool, ClientCAs: ca.pool},
	} {
		t.Run(name, func(t *testing.T) {
			tr := echo(t, newTLS(t, cfg))
			talk(t, tr, tr.Addr())
		})
	}
}

// The configuration given is copied, and left as it is.
func TestTLSConfigIsCopied(t *testing.T) {
	ca := newAuthority(t)
	cfg := ca.config(t, "a")
	cfg.VerifyConnection = func(tls.ConnectionState) error { return nil }
	a := echo(t, newTLS(t, cfg))
	if cfg.InsecureSkipVerify || cfg.ClientAuth != tls.NoClientCert || cfg.MinVersion != 0 || cfg.ClientCAs != nil {
		t.Error("it was changed")
	}
	cfg.RootCAs, cfg.Certificates, cfg.Time = nil, nil, func() time.Time { return time.Time{} }
	cfg.VerifyConnection = func(tls.ConnectionState) error { return errors.New("changed") }
	talk(t, a, a.Addr())
}

// Whom we would not believe in one role we do not believe in the other.
func TestTLSRefuses(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	a := echo(t, ca.transport(t, "a"))
	middle := sign(t, other, caTemplate("between"))
	withUsage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	for name, shown := range map[string]struct {
		cert              tls.Certificate
		dialler, acceptor bool // in which role it passes
	}{
		"a good certificate":        {cert: ca.issue(t, "b", nil), dialler: true, acceptor: true},
		"a stranger's":              {cert: other.issue(t, "b", nil)},
		"one below a stranger's":    {cert: middle.issue(t, "b", nil)},
		"one that has expired":      {cert: ca.issue(t, "b", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		"one that is not valid yet": {cert: ca.issue(t, "b", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })},
		"one for clients alone":     {cert: ca.issue(t, "b", withUsage(x509.ExtKeyUsageClientAuth)), dialler: true},
		"one for servers alone":     {cert: ca.issue(t, "b", withUsage(x509.ExtKeyUsageServerAuth)), acceptor: true},
		"one for something else":    {cert: ca.issue(t, "b", withUsage(x509.ExtKeyUsageCodeSigning))},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tryDial(t, a.Addr(), &tls.Config{Certificates: []tls.Certificate{shown.cert}}); (err == nil) != shown.dialler {
				t.Errorf("shown by who dials: %v", err)
			}
			them := echo(t, newTLS(t, &tls.Config{Certificates: []tls.Certificate{shown.cert}, RootCAs: ca.pool}))
			c, err := a.Dial(t.Context(), them.Addr())
			if (err == nil) != shown.acceptor {
				t.Errorf("shown by who accepts: %v", err)
			}
			if err == nil {
				hears(t, c)
			} else if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
				t.Errorf("%T %v", err, err)
			}
		})
	}
	if err := tryDial(t, a.Addr(), &tls.Config{}); err == nil {
		t.Error("no certificate will do")
	}
	if err := tryDial(t, a.Addr(), &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.issue(t, "b", nil)}}); err == nil {
		t.Error("TLS 1.2 will do")
	}
	talk(t, a, a.Addr())
}

// tryDial checks whether the transport at addr talks with who is configured as cfg. That one believes anybody.
func tryDial(t testing.TB, addr string, cfg *tls.Config) error {
	t.Helper()
	cfg.InsecureSkipVerify = true
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestTLSIntermediates(t *testing.T) {
	ca := newAuthority(t)
	middle := sign(t, ca, caTemplate("between"))
	cert := middle.issue(t, "b", nil)
	cert.Certificate = append(cert.Certificate, middle.cert.Raw)
	a := echo(t, ca.transport(t, "a"))
	b := echo(t, newTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.pool}))
	talk(t, a, b.Addr())
	talk(t, b, a.Addr())
}

// No field and no callback switches authentication off.
func TestTLSCannotBeWeakened(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	weak := ca.config(t, "a")
	weak.InsecureSkipVerify, weak.ClientAuth, weak.MinVersion = true, tls.NoClientCert, tls.VersionTLS10
	weak.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: weak.Certificates}, nil
	}
	weak.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
	weak.VerifyConnection = func(tls.ConnectionState) error { return nil }
	a, stranger := echo(t, newTLS(t, weak)), echo(t, other.transport(t, "b"))
	if _, err := a.Dial(t.Context(), stranger.Addr()); err == nil {
		t.Error("a stranger was believed")
	}
	if err := tryDial(t, a.Addr(), &tls.Config{}); err == nil {
		t.Error("no certificate will do")
	}
	if err := tryDial(t, a.Addr(), other.config(t, "b")); err == nil {
		t.Error("a stranger's certificate will do")
	}
	if err := tryDial(t, a.Addr(), &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: weak.Certificates}); err == nil {
		t.Error("TLS 1.2 will do")
	}
	talk(t, a, a.Addr())
}

// The checks that a configuration adds are made, in both roles.
func TestTLSAddedChecks(t *testing.T) {
	ca := newAuthority(t)
	var calls atomic.Int32
	picky := ca.config(t, "a")
	picky.VerifyConnection = func(s tls.ConnectionState) error {
		calls.Add(1)
		if s.PeerCertificates[0].DNSNames[0] == "b" {
			return errors.New("not b")
		}
		return nil
	}
	a, b, c := echo(t, newTLS(t, picky)), echo(t, ca.transport(t, "b")), echo(t, ca.transport(t, "c"))
	if _, err := a.Dial(t.Context(), b.Addr()); err == nil {
		t.Error("dialled b")
	}
	in, err := b.Dial(t.Context(), a.Addr())
	if err == nil {
		_, err = in.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("accepted b")
	}
	talk(t, a, c.Addr())
	talk(t, c, a.Addr())
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls", n)
	}
}

// Certificates and the authorities of those who dial can change while the transport runs.
func TestTLSRotation(t *testing.T) {
	old, next := newAuthority(t), newAuthority(t)
	both := x509.NewCertPool()
	both.AddCert(old.cert)
	both.AddCert(next.cert)
	var cert atomic.Pointer[tls.Certificate]
	var clients atomic.Pointer[x509.CertPool]
	first, second := old.issue(t, "a", nil), next.issue(t, "a", nil)
	cert.Store(&first)
	clients.Store(old.pool)
	cfg := &tls.Config{
		RootCAs:              both,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert.Load(), nil },
	}
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := cfg.Clone()
		c.ClientCAs = clients.Load()
		return c, nil
	}
	a := echo(t, newTLS(t, cfg))
	issuedBy := func(c net.Conn, by *authority) {
		t.Helper()
		if got := state(t, c).PeerCertificates[0].CheckSignatureFrom(by.cert); got != nil {
			t.Error(got)
		}
	}
	issuedBy(talk(t, a, a.Addr()), old)
	cert.Store(&second)
	if err := tryDial(t, a.Addr(), &tls.Config{Certificates: []tls.Certificate{second}}); err == nil {
		t.Error("the next authority is trusted already")
	}
	clients.Store(next.pool)
	issuedBy(talk(t, a, a.Addr()), next)
	if err := tryDial(t, a.Addr(), &tls.Config{Certificates: []tls.Certificate{first}}); err == nil {
		t.Error("the old authority is still trusted")
	}
}

// Config.Time decides what has expired, for both ends.
func TestTLSTime(t *testing.T) {
	then := time.Date(2001, 2, 3, 0, 0, 0, 0, time.UTC)
	ca := newAuthority(t)
	cert := ca.issue(t, "a", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = then, then.Add(time.Hour) })
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.pool}
	now := echo(t, newTLS(t, cfg))
	cfg.Time = func() time.Time { return then.Add(time.Minute) }
	past := echo(t, newTLS(t, cfg))
	talk(t, past, past.Addr())
	if _, err := now.Dial(t.Context(), past.Addr()); err == nil {
		t.Error("an expired certificate passed for one who accepts")
	}
	if err := tryDial(t, now.Addr(), &tls.Config{Certificates: []tls.Certificate{cert}}); err == nil {
		t.Error("an expired certificate passed for one who dials")
	}
}

// Streams that were TLS before they came to Wrap look like it.
func TestWrapShowsConnectionState(t *testing.T) {
	ca := newAuthority(t)
	server, client, err := bothRoles(ca.config(t, "a"))
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	must(t, err)
	w := Wrap(l, func(ctx context.Context, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", addr)
	})
	defer w.Close()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		c, err := w.Accept()
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		done <- state(t, c) // shakes hands
	}()
	c, err := w.Dial(t.Context(), w.Addr())
	must(t, err)
	for _, s := range []tls.ConnectionState{state(t, c), <-done} {
		if !s.HandshakeComplete || len(s.PeerCertificates) == 0 || s.PeerCertificates[0].DNSNames[0] != "a" {
			t.Errorf("%+v", s)
		}
	}
	must(t, c.(interface{ HandshakeContext(context.Context) error }).HandshakeContext(t.Context()))
	if opened(w) != 2 {
		t.Errorf("%d streams are known", opened(w))
	}
}

// pipeTLS is a transport in a bubble.
func pipeTLS(t testing.TB, cfg *tls.Config, lim limits) (*Transport, *pipes) {
	t.Helper()
	server, client, err := bothRoles(cfg)
	must(t, err)
	p := newPipes()
	return echo(t, wrap(p, p.dial, lim).secure(server, client)), p
}

// Whoever is stuck in the handshake delays nobody, and is gone after 5 seconds.
func TestTLSStuckHandshakes(t *testing.T) {
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		a, p := pipeTLS(t, ca.config(t, "a"), usual)
		began := time.Now()
		var stuck []net.Conn
		for range maxHandshakes - 1 {
			c, err := p.dial(t.Context(), "")
			must(t, err)
			stuck = append(stuck, c)
		}
		talk(t, a, "itself").Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		last, err := p.dial(t.Context(), "")
		must(t, err)
		stuck = append(stuck, last)
		synctest.Wait()

		// One too many is closed at once.
		more, err := p.dial(t.Context(), "")
		must(t, err)
		hasEnded(t, more)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		for _, c := range stuck {
			hasEnded(t, c)
		}
		if took := time.Since(began); took != handshakeTimeout {
			t.Errorf("the stuck ones were there for %v", took)
		}
		talk(t, a, "itself").Close()
	})
}

// A dial to someone who does not answer ends after 5 seconds, with its context, or with the transport.
func TestTLSDialStuck(t *testing.T) {
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		server, client, err := bothRoles(ca.config(t, "a"))
		must(t, err)
		mute := newPipes()
		a := wrap(newPipes(), mute.dial, usual).secure(server, client)
		var ends []net.Conn
		dial := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() { _, err := a.Dial(ctx, "mute"); done <- err }()
			c, err := mute.Accept()
			must(t, err)
			ends = append(ends, c)
			return done
		}
		began := time.Now()
		if err := <-dial(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != handshakeTimeout {
			t.Error(err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := dial(ctx)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		done = dial(t.Context())
		synctest.Wait()
		must(t, a.Close())
		if err := <-done; err != net.ErrClosed {
			t.Error(err)
		}
		for _, c := range ends {
			c.Close()
		}
	})
}

// Close ends handshakes under way, and streams that nobody has taken.
func TestTLSCloseEndsHandshakes(t *testing.T) {
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		server, client, err := bothRoles(ca.config(t, "a"))
		must(t, err)
		p := newPipes()
		a := wrap(p, p.dial, usual).secure(server, client)
		stuck, err := p.dial(t.Context(), "")
		must(t, err)
		untaken, err := a.Dial(t.Context(), "itself")
		must(t, err)
		synctest.Wait()
		began := time.Now()
		must(t, a.Close())
		hasEnded(t, stuck)
		hasEnded(t, untaken)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if opened(a) != 0 {
			t.Errorf("%d streams are still known", opened(a))
		}
	})
}
