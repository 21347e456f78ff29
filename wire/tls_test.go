// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// authority signs certificates for these tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der := a.sign(pkix.Name{CommonName: "authority"}, &a.key.PublicKey)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(name pkix.Name, key *ecdsa.PublicKey) []byte {
	a.t.Helper()
	a.next++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: a.cert == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent := a.cert
	if parent == nil {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key, a.key)
	must(a.t, err)
	return der
}

func (a *authority) issue(name pkix.Name) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{a.sign(name, &key.PublicKey)}, PrivateKey: key}
}

func (a *authority) dial(t *testing.T, addr string, certs ...tls.Certificate) (*raw, error) {
	t.Helper()
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{RootCAs: a.pool, Certificates: certs})
	if err != nil {
		return nil, err
	}
	return use(t, nc), nil
}

// Clients speak TLS, on a port of their own or on one for both; a certificate is an identity, and sessions move between
// ports (WP-50 to WP-52, DM-109, DM-112).
func TestTLS(t *testing.T) {
	m := member(t, zk.Config{})
	a := newAuthority(t)
	name := pkix.Name{CommonName: "alice, or so", Organization: []string{"Example"}, Country: []string{"CH"}}
	alice := a.issue(name)
	const dn = `CN=alice\, or so,O=Example,C=CH`
	cfg := &tls.Config{Certificates: []tls.Certificate{a.issue(pkix.Name{CommonName: "server"})}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.pool}
	s := &Server{Member: m, TLS: cfg, Words: []string{"ruok", "conf"}, OnePort: true}
	secure := serveOn(t, s, s.ServeTLS)
	both := serve(t, s)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	own := &Server{Member: m, Logger: s.Logger} // a listener that shakes hands by itself
	wrapped := serveOn(t, own, func(l net.Listener) error { plain.Close(); return own.Serve(tls.NewListener(l, cfg)) })

	connect := func(c *raw, q connectRequest) *raw {
		t.Helper()
		q.timeout, q.hasRO = 10_000, true
		if !c.connect(q) || c.session == 0 {
			t.Fatal("no session")
		}
		return c
	}
	who := func(c *raw) map[string]string {
		p := c.want(0, opWhoAmI, nil)
		ids := map[string]string{}
		for range p.count(8) {
			scheme := p.string()
			ids[scheme] = p.string()
		}
		return ids
	}
	var first *raw
	for what, addr := range map[string]string{"its own port": secure, "the port for both": both, "a TLS listener": wrapped} {
		c, err := a.dial(t, addr, alice)
		must(t, err)
		connect(c, connectRequest{})
		if ids := who(c); ids["x509"] != dn || ids["ip"] != "127.0.0.1" {
			t.Errorf("%s: identities %v", what, ids)
		}
		c.want(0, opCreate, createBody("/"+what, "", 1))
		if first == nil {
			first = c
		}
	}
	// Without a certificate, or in plain text, nobody is alice.
	first.want(0, opCreate, createACL("/alice", []zk.ACL{{Perm: 31, Scheme: "x509", ID: dn}}, 0))
	anybody, err := a.dial(t, secure)
	must(t, err)
	connect(anybody, connectRequest{})
	for _, c := range []*raw{anybody, open(t, both)} {
		if ids := who(c); ids["x509"] != "" {
			t.Errorf("identities %v", ids)
		}
		c.want(zk.ErrNoAuth, opGetData, pathWatch("/alice", false))
	}
	first.want(0, opGetData, pathWatch("/alice", false))
	// A session moves from one port to the other; identities belong to the connection (DM-112).
	moved := connect(dial(t, both), connectRequest{session: first.session, password: first.password})
	moved.want(zk.ErrNoAuth, opGetData, pathWatch("/alice", false))
	first.ended()
	// Words work on both (WP-51); plain text on the TLS port does not.
	w, err := a.dial(t, both)
	must(t, err)
	if got := w.word("ruok"); got != "imok" {
		t.Errorf("ruok: %q", got)
	}
	if got := dial(t, both).word("ruok"); got != "imok" {
		t.Errorf("ruok: %q", got)
	}
	c := dial(t, secure)
	c.write([]byte("ruok"))
	c.ended()
	// A certificate that nobody vouches for is refused.
	stranger := newAuthority(t).issue(name)
	if c, err := a.dial(t, secure, stranger); err == nil {
		c.nc.Write(make([]byte, 8))
		c.ended()
	}
	eventually(t, "both are counted", func() bool { return s.Stats().RuleBreakers == 2 })
}

// Only so many TLS handshakes are under way at once (WP-53).
func TestHandshakes(t *testing.T) {
	m := member(t, zk.Config{})
	a := newAuthority(t)
	s := &Server{Member: m, TLS: &tls.Config{Certificates: []tls.Certificate{a.issue(pkix.Name{})}}, Limits: Limits{Handshakes: 2}}
	addr := serveOn(t, s, s.ServeTLS)
	hello := []byte{tlsRecord, 3, 1}
	for i := range 2 {
		dial(t, addr).write(hello) // and no more
		eventually(t, "a handshake has begun", func() bool { return s.shakes.Load() == int64(i+1) })
	}
	c := dial(t, addr)
	c.write(hello)
	c.ended()
	if n := s.Stats().Rejected; n != 1 {
		t.Errorf("%d rejected", n)
	}
}

// Each answer over TLS comes in a record of its own, though many are sent at once: clients that ask whether their socket
// is readable do not see what a record held beyond the frame that they took.
func TestFrameByRecord(t *testing.T) {
	m := member(t, zk.Config{})
	a := newAuthority(t)
	cfg := &tls.Config{Certificates: []tls.Certificate{a.issue(pkix.Name{CommonName: "server"})}}
	s := &Server{Member: m, TLS: cfg}
	nc, err := tls.Dial("tcp", serveOn(t, s, s.ServeTLS), &tls.Config{RootCAs: a.pool})
	must(t, err)
	c := use(t, nc)
	if !c.connect(connectRequest{timeout: 10_000, hasRO: true}) {
		t.Fatal("no session")
	}
	const n = 50
	var pings []byte
	for range n {
		pings = append(pings, 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11)
	}
	_, err = nc.Write(pings)
	must(t, err)
	for range n {
		b := make([]byte, 4096)
		must(t, nc.SetReadDeadline(time.Now().Add(patience)))
		got, err := nc.Read(b) // of one record
		must(t, err)
		if got != 4+replyHeaderSize {
			t.Fatalf("a record of %d bytes", got)
		}
	}
}
