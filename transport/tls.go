// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
)

// ErrConfig is the error of a TLS configuration that cannot authenticate both ends.
var ErrConfig = errors.New("transport: TLS configuration")

// TLS is TCP with mutual authentication, TLS 1.3. The streams it returns are *tls.Conn, their handshake complete.
//
// cfg needs a certificate for both roles (extended key usages serverAuth and clientAuth), and the authorities that
// sign those of the other members: RootCAs for those it dials, ClientCAs for those it accepts, or one of them for
// both. A member's certificate must carry its id, as a DNS name or as the URI zk://id; the host name is not looked
// at, for members are known by id and their addresses change. Whoever uses a stream checks the id, in the
// PeerCertificates of its ConnectionState.
//
// cfg is copied. Its callbacks are honoured: GetCertificate and GetClientCertificate rotate certificates,
// GetConfigForClient rotates ClientCAs, VerifyConnection and VerifyPeerCertificate add checks, Time tells the time.
// None of them, nor InsecureSkipVerify or ClientAuth, can switch authentication off. Sessions are not resumed: each
// stream is verified in full.
//
// Handshakes hold up nobody: accepted streams make theirs at the same time, at most 128 of them, and have 5 seconds
// for it. The error matches ErrConfig, or is the listener's.
func TLS(addr string, cfg *tls.Config) (*Transport, error) {
	server, client, err := bothRoles(cfg)
	if err != nil {
		return nil, err
	}
	l, err := listen(addr)
	if err != nil {
		return nil, err
	}
	return wrap(l, nil, usual).secure(server, client), nil
}

// secure makes t speak TLS. It comes before everything else.
func (t *Transport) secure(server, client *tls.Config) *Transport {
	t.server, t.client = server, client
	t.ready = make(chan accepted)
	t.work.Go(t.shake)
	return t
}

// bothRoles returns what the accepting and the dialling side need.
func bothRoles(cfg *tls.Config) (server, client *tls.Config, err error) {
	if cfg == nil {
		return nil, nil, fmt.Errorf("%w is missing", ErrConfig)
	}
	cfg = cfg.Clone()
	roots, clients := cfg.RootCAs, cfg.ClientCAs
	if roots == nil {
		roots = clients
	}
	if clients == nil {
		clients = roots
	}
	switch {
	case roots == nil:
		return nil, nil, fmt.Errorf("%w has neither RootCAs nor ClientCAs", ErrConfig)
	case len(cfg.Certificates) == 0 && cfg.GetCertificate == nil:
		return nil, nil, fmt.Errorf("%w has no certificate for accepted streams: set Certificates or GetCertificate", ErrConfig)
	case len(cfg.Certificates) == 0 && cfg.GetClientCertificate == nil:
		return nil, nil, fmt.Errorf("%w has no certificate for dialled streams: set Certificates or GetClientCertificate", ErrConfig)
	case cfg.MaxVersion != 0 && cfg.MaxVersion < tls.VersionTLS13:
		return nil, nil, fmt.Errorf("%w does not allow TLS 1.3: leave MaxVersion alone", ErrConfig)
	}
	return accepting(cfg, clients), dialling(cfg, roots), nil
}

// accepting returns cfg for the accepting side, which verifies certificates against clients.
func accepting(cfg *tls.Config, clients *x509.CertPool) *tls.Config {
	server := cfg.Clone()
	server.MinVersion = tls.VersionTLS13
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, clients
	server.SessionTicketsDisabled = true
	if pick := cfg.GetConfigForClient; pick != nil {
		server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			picked, err := pick(hello)
			if err != nil || picked == nil {
				return nil, err
			}
			pool := picked.ClientCAs
			if pool == nil {
				pool = clients
			}
			return accepting(picked, pool), nil
		}
	}
	return server
}

// dialling returns cfg for the dialling side, which verifies certificates against roots.
func dialling(cfg *tls.Config, roots *x509.CertPool) *tls.Config {
	client := cfg.Clone()
	client.MinVersion = tls.VersionTLS13
	client.ClientSessionCache = nil
	// This switches the standard verification off, for the sake of the host name. VerifyConnection does the rest of
	// it, and unlike VerifyPeerCertificate it is called for every handshake.
	client.InsecureSkipVerify = true
	client.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(cfg, roots, state.PeerCertificates); err != nil {
			return err
		}
		if cfg.VerifyConnection != nil {
			return cfg.VerifyConnection(state)
		}
		return nil
	}
	return client
}

// verify checks that the other end's certificate is signed by roots, in time, and good for accepting streams.
func verify(cfg *tls.Config, roots *x509.CertPool, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the other end shows no certificate")
	}
	opts := x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if cfg.Time != nil {
		opts.CurrentTime = cfg.Time()
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// clientHandshake authenticates both ends of a stream that was dialled.
func (t *Transport) clientHandshake(ctx context.Context, s *stream, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limits.handshake)
	defer cancel()
	c := tls.Client(s, t.client)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("transport: TLS handshake with %s: %w", addr, err)
	}
	return c, nil
}

// shake accepts streams, and lets each make its handshake by itself: a stuck one holds up nobody. The listener's
// errors go to Accept, whose caller knows how long to pause.
func (t *Transport) shake() {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	for t.life.Err() == nil {
		s, err := t.next()
		if err != nil {
			select {
			case t.ready <- accepted{err: err}:
			case <-t.life.Done():
			}
			continue
		}
		if !t.mayShake() {
			s.Close()
			continue
		}
		handshakes.Go(func() { t.serverHandshake(s) })
	}
}

// mayShake counts one more handshake, if the bound allows it.
func (t *Transport) mayShake() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handshake >= t.limits.handshakes {
		return false
	}
	t.handshake++
	return true
}

// serverHandshake authenticates both ends of a stream that was accepted, and hands it to Accept.
func (t *Transport) serverHandshake(s *stream) {
	ctx, cancel := context.WithTimeout(t.life, t.limits.handshake)
	c := tls.Server(s, t.server)
	err := c.HandshakeContext(ctx)
	cancel()
	t.mu.Lock()
	t.handshake--
	t.mu.Unlock()
	if err != nil {
		s.Close()
		return
	}
	select {
	case t.ready <- accepted{conn: c}:
	case <-t.life.Done():
		s.Close()
	}
}
