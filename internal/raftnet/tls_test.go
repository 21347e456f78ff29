// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// socket is a Transport over TCP, with TLS if it has a configuration.
type socket struct {
	net.Listener
	tls *tls.Config

	mu    sync.Mutex
	conns []net.Conn
}

func listen(t *testing.T, config *tls.Config) *socket {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return &socket{Listener: l, tls: config}
}

func (s *socket) Addr() string { return s.Listener.Addr().String() }

func (s *socket) keep(c net.Conn, err error) (net.Conn, error) {
	if err == nil {
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
	}
	return c, err
}

func (s *socket) Accept() (net.Conn, error) { return s.keep(s.Listener.Accept()) }

func (s *socket) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if s.tls != nil {
		return s.keep((&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", addr))
	}
	return s.keep(new(net.Dialer).DialContext(ctx, "tcp", addr))
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	return err
}

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: "test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

// config is that of a member whose certificate bears these names. All
// certificates share one more name, by which the hosts are known.
func (a *authority) config(names ...string) *tls.Config {
	c := &x509.Certificate{DNSNames: []string{"host"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			c.URIs = append(c.URIs, u)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	cert, key := a.issue(c)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		RootCAs:      a.pool,
		ClientCAs:    a.pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   "host",
		MinVersion:   tls.VersionTLS13,
	}
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	type names []string
	for _, c := range []struct {
		a, b names
		ok   bool
	}{
		{names{"a"}, names{"b"}, true},
		{names{"zk://a"}, names{"x", "zk://x", "zk://b"}, true},
		{names{"a"}, names{"x"}, false},
		{names{"x"}, names{"b"}, false},
		{names{"a"}, names{"*"}, false},
		{names{"a"}, names{"B"}, false},
		{names{"a"}, names{"https://b"}, false},
		{names{"a"}, names{"zk://b/path"}, false},
		{names{"zk://a@a"}, names{"b"}, false},
		{names{"a"}, nil, false},
	} {
		t.Run(fmt.Sprintf("%s-%s", strings.Join(c.a, "+"), strings.Join(c.b, "+")), func(t *testing.T) {
			sa, sb := listen(t, ca.config(c.a...)), listen(t, ca.config(c.b...))
			start := func(id string, s *socket) *Net {
				n := New(Config{
					Transport: s,
					Local:     func() Identity { return Identity{ID: id} },
					Resolve:   func(context.Context, string) (string, error) { return sb.Addr(), nil },
					Handle:    func(context.Context, Identity, byte, []byte) []byte { return []byte("fine") },
				})
				t.Cleanup(func() { n.Close() })
				return n
			}
			a, _ := start("a", sa), start("b", sb)
			_, err := a.Call(t.Context(), "b", 1, nil)
			var identity *IdentityError
			var refused *RefusedError
			switch {
			case c.ok && err != nil, !c.ok && err == nil:
				t.Errorf("call: %v", err)
			case err == nil:
			case slices.Contains(c.a, "a") && !errors.As(err, &identity):
				t.Errorf("b's certificate is wrong, and a says %v", err)
			case !slices.Contains(c.a, "a") && !errors.As(err, &refused):
				t.Errorf("a's certificate is wrong, and a hears %v", err)
			}
		})
	}
}

func TestTLSWithoutCertificate(t *testing.T) {
	ca := newAuthority(t)
	server, client := ca.config("b"), ca.config("a")
	server.ClientAuth = tls.NoClientCert
	client.Certificates = nil
	sa, sb := listen(t, client), listen(t, server)
	a := New(Config{Transport: sa, Local: func() Identity { return Identity{ID: "a"} }})
	defer a.Close()
	b := New(Config{Transport: sb, Local: func() Identity { return Identity{ID: "b"} }})
	defer b.Close()
	var refused *RefusedError
	if _, _, err := a.CallAddr(t.Context(), sb.Addr(), 1, nil); !errors.As(err, &refused) {
		t.Errorf("call: %v", err)
	}
}

func TestTCP(t *testing.T) {
	sa, sb := listen(t, nil), listen(t, nil)
	addr := sb.Addr()
	resolve := func(context.Context, string) (string, error) { return addr, nil }
	a := New(Config{Transport: sa, Local: func() Identity { return Identity{ID: "a"} }, Resolve: resolve})
	defer a.Close()
	lost := make(chan string, 1)
	b := New(Config{
		Transport:  sb,
		Local:      func() Identity { return Identity{ID: "b"} },
		Handle:     func(_ context.Context, _ Identity, _ byte, req []byte) []byte { return req },
		StreamLost: func(id string, _ uint64) { lost <- id },
	})
	defer b.Close()
	big := make([]byte, 3<<20)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if got, err := a.Call(t.Context(), "b", 1, big); err != nil || len(got) != len(big) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	s, _, err := a.open(t.Context(), classRaft, "b", "")
	if err != nil {
		t.Fatal(err)
	}
	s.conn.(*net.TCPConn).SetLinger(0)
	a.drop(s) // with a reset
	if id := <-lost; id != "a" {
		t.Errorf("lost %q", id)
	}
	b.Close()
	if _, err := a.Probe(t.Context(), "b"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("probe: %v", err)
	}
}
