// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"net"
	"slices"
)

// port is what a listener takes.
type port uint8

const (
	portPlain port = iota
	portTLS
	portBoth
)

// tlsRecord is the first byte of a TLS handshake. As the first byte of a length it would exceed every limit (WP-51).
const tlsRecord = 0x16

var errHandshakes = errors.New("too many TLS handshakes at once")

// secure shakes hands where the client speaks TLS: the port says so, or its first byte.
func (c *conn) secure() error {
	if t, ok := c.nc.(*tls.Conn); ok { // from a listener of package tls
		return c.shake(t)
	}
	if c.port == portPlain {
		return nil
	}
	first, err := c.in.peek(1)
	if err != nil {
		return err
	}
	if first[0] != tlsRecord {
		if c.port == portTLS {
			return errors.New("plain text on the TLS port")
		}
		return nil
	}
	t := tls.Server(&prefixed{c.raw, slices.Clone(c.in.buffered())}, c.srv.TLS)
	c.in.release()
	c.nc, c.in.from = t, t
	return c.shake(t)
}

func (c *conn) shake(t *tls.Conn) error {
	s := c.srv
	defer s.shakes.Add(-1)
	if n := s.shakes.Add(1); s.limits.Handshakes > 0 && n > int64(s.limits.Handshakes) { // WP-53
		s.stats.rejected.Add(1)
		return errHandshakes
	}
	if err := c.arm(); err != nil {
		return err
	}
	return t.HandshakeContext(c.ctx)
}

// subjectOf returns the subject of a client's verified certificate as RFC 2253 prints it, "" where there is none
// (DM-109).
func subjectOf(nc net.Conn) string {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return ""
	}
	st := t.ConnectionState()
	if len(st.VerifiedChains) == 0 || len(st.PeerCertificates) == 0 {
		return ""
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(st.PeerCertificates[0].RawSubject, &name); err != nil || len(rest) > 0 {
		return ""
	}
	return name.String()
}

// send writes frames. Over TLS each has records of its own, as from ZooKeeper: kazoo waits for its socket to be readable
// before it takes the next frame, and does not see one that came in the same record as the last.
func send(nc net.Conn, frames []byte) error {
	t, ok := nc.(*tls.Conn)
	if !ok {
		_, err := nc.Write(frames)
		return err
	}
	for len(frames) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(frames))
		if _, err := t.Write(frames[:n]); err != nil {
			return err
		}
		frames = frames[n:]
	}
	return nil
}
