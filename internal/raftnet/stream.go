// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk/internal/codec"
)

// The handshake:
//
//	dialler   magic, version, class, identity
//	acceptor  magic, version, identity, verdict
//	dialler   verdict
//
// An identity has its length (uint16) in front. A verdict is one byte, zero
// for welcome, else followed by the reason with its length (uint16) in front.
// After a refusal both ends close.
const (
	magic   = 0xd2 // neither text nor the start of TLS
	version = 1

	classRaft  = 1 // carries raft's RPCs
	classCalls = 2 // carries all other calls

	maxIdentityString = 255
	maxIdentity       = 4*(2+maxIdentityString) + binary.MaxVarintLen64
	maxReason         = 512
)

// Kinds and status bytes of frames.
const (
	kindReserved = 0xf0 // from here on raft's

	kindAppendEntries   = 0xf0
	kindRequestVote     = 0xf1
	kindRequestPreVote  = 0xf2
	kindInstallSnapshot = 0xf3
	kindTimeoutNow      = 0xf4

	statusOK      = 0
	statusError   = 1 // the body is a text
	statusOngoing = 2 // not yet: go on sending, or go on waiting
)

const (
	frameHeader = 5
	chunkSize   = 1 << 20 // at most so much is allocated ahead of what arrives, or sent under one deadline
	maxText     = 1024    // of a RemoteError
)

// errViolation is how a peer that does not keep to the protocol is called out.
var errViolation = errors.New("raftnet: protocol violation")

// past is a deadline that ends I/O under way.
var past = time.Unix(1, 0)

// Identity is what each end of a stream says about itself.
type Identity struct {
	Cluster     string // the ensemble; empty while not known
	ID          string // the member
	Storage     string // random, as old as the member's storage
	Incarnation uint64 // grows with each start of the member
	Addr        string // where the member says it can be reached
}

func appendIdentity(b []byte, id Identity) []byte {
	b = codec.AppendString(b, id.Cluster)
	b = codec.AppendString(b, id.ID)
	b = codec.AppendString(b, id.Storage)
	b = codec.AppendUvarint(b, id.Incarnation)
	return codec.AppendString(b, id.Addr)
}

func decodeIdentity(b []byte) (Identity, error) {
	r := codec.NewReader(b)
	id := Identity{Cluster: r.String(), ID: r.String(), Storage: r.String(), Incarnation: r.Uvarint(), Addr: r.String()}
	if err := r.Done(); err != nil {
		return Identity{}, fmt.Errorf("%w: identity: %w", errViolation, err)
	}
	if err := id.check(); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", errViolation, err)
	}
	return id, nil
}

func (id Identity) check() error {
	if id.ID == "" {
		return errors.New("identity without id")
	}
	if max(len(id.Cluster), len(id.ID), len(id.Storage), len(id.Addr)) > maxIdentityString {
		return errors.New("identity too long")
	}
	return nil
}

// A stream is one connection. Its user, whoever dialled or serves it, is one
// goroutine at a time; close alone may be called by any.
type stream struct {
	conn   net.Conn
	in     *bufio.Reader
	class  byte
	remote Identity
	closed atomic.Bool

	out       []byte    // reused for what is sent
	calls     int       // answered
	rested    bool      // has been idle in a pool
	heard     bool      // a byte of the response to the present call has come
	spoiled   bool      // a deadline may strike late
	idleSince time.Time // while in a pool
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, in: bufio.NewReader(conn)}
}

func (s *stream) close() {
	if s.closed.CompareAndSwap(false, true) {
		s.conn.Close()
	}
}

// open dials a member, by id or by address, and shakes hands. The identity is
// that of the other end as far as it announced itself, also with an error.
func (n *Net) open(ctx context.Context, class byte, id, addr string) (*stream, Identity, error) {
	if n.cfg.Transport == nil {
		return nil, Identity{}, ErrNoTransport
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()

	if addr == "" {
		var err error
		if addr, err = n.cfg.Resolve(ctx, id); err != nil {
			return nil, Identity{}, n.explain(outer, fmt.Errorf("resolve: %w", err))
		}
	}
	conn, err := n.cfg.Transport.Dial(ctx, addr)
	if err != nil {
		return nil, Identity{}, n.explain(outer, fmt.Errorf("dial %s: %w", addr, err))
	}
	s := newStream(conn)
	s.class = class
	if !n.track(s) {
		s.close()
		return nil, Identity{}, ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(past) })
	err = n.greet(ctx, s, id)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		n.drop(s)
		return nil, s.remote, n.explain(outer, fmt.Errorf("open stream to %s: %w", addr, err))
	}
	return s, s.remote, nil
}

// greet is the dialler's handshake.
func (n *Net) greet(ctx context.Context, s *stream, want string) error {
	if err := secure(ctx, s.conn); err != nil {
		return err
	}
	local := n.cfg.Local()
	if err := local.check(); err != nil {
		return err
	}
	s.out = sized(append(s.out[:0], magic, version, s.class), func(b []byte) []byte { return appendIdentity(b, local) })
	if _, err := s.conn.Write(s.out); err != nil {
		return err
	}
	var err error
	if s.remote, err = s.readHello(nil); err != nil {
		return err
	}
	if reason, err := s.readVerdict(); err != nil {
		return err
	} else if reason != "" {
		return &RefusedError{ID: s.remote.ID, Reason: reason}
	}
	objection := n.examine(s, local)
	if objection == nil && want != "" && s.remote.ID != want {
		objection = &IdentityError{Want: want, Claimed: s.remote.ID, Problem: "another member"}
	}
	if _, err := s.conn.Write(appendVerdict(s.out[:0], objection)); err != nil && objection == nil {
		return err
	}
	return objection
}

// welcome is the acceptor's handshake. enter is asked last whether there is
// room.
func (n *Net) welcome(ctx context.Context, s *stream, enter func() error) error {
	if err := secure(ctx, s.conn); err != nil {
		return err
	}
	var err error
	if s.remote, err = s.readHello(&s.class); err != nil {
		return err
	}
	local := n.cfg.Local()
	if err := local.check(); err != nil {
		return err
	}
	objection := n.examine(s, local)
	if objection == nil && s.class == classRaft && s.remote.ID == local.ID {
		objection = &IdentityError{Claimed: s.remote.ID, Problem: "that is this member"}
	}
	if objection == nil {
		objection = enter()
	}
	s.out = sized(append(s.out[:0], magic, version), func(b []byte) []byte { return appendIdentity(b, local) })
	s.out = appendVerdict(s.out, objection)
	if _, err := s.conn.Write(s.out); err != nil && objection == nil {
		return err
	}
	if objection != nil {
		return objection
	}
	reason, err := s.readVerdict()
	if err == nil && reason != "" {
		err = &RefusedError{ID: s.remote.ID, Reason: reason}
	}
	return err
}

// secure completes TLS, if that is what conn is.
func secure(ctx context.Context, conn net.Conn) error {
	if c, ok := conn.(interface{ HandshakeContext(context.Context) error }); ok {
		return c.HandshakeContext(ctx)
	}
	return nil
}

// examine says what speaks against the other end of s, if anything.
func (n *Net) examine(s *stream, local Identity) error {
	if c, ok := s.conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		if err := certified(c.ConnectionState(), s.remote.ID); err != nil {
			return err
		}
	}
	if err := n.cfg.Admit(s.remote); err != nil {
		return err
	}
	if local.Cluster != "" && s.remote.Cluster != "" && local.Cluster != s.remote.Cluster {
		return &IdentityError{Claimed: s.remote.ID, Problem: fmt.Sprintf("belongs to cluster %q, not %q", s.remote.Cluster, local.Cluster)}
	}
	return nil
}

// certified checks that the other end's certificate bears its id, exactly, as
// a DNS name or as the URI zk://id. Whether to trust the certificate is for
// the TLS configuration to say.
func certified(state tls.ConnectionState, id string) error {
	if len(state.PeerCertificates) == 0 {
		return &IdentityError{Claimed: id, Problem: "shows no certificate"}
	}
	leaf := state.PeerCertificates[0]
	if slices.Contains(leaf.DNSNames, id) {
		return nil
	}
	for _, u := range leaf.URIs {
		if u.Scheme == "zk" && u.Host == id && u.User == nil && u.Opaque == "" && u.Path == "" && u.RawQuery == "" && u.Fragment == "" {
			return nil
		}
	}
	return &IdentityError{Claimed: id, Problem: "certificate is not for this id"}
}

// objection reports whether err means that one of the two ends refused.
func objection(err error) bool {
	var refused *RefusedError
	var identity *IdentityError
	return errors.As(err, &refused) || errors.As(err, &identity)
}

// readHello reads the other end's announcement, with the class if that is
// wanted.
func (s *stream) readHello(class *byte) (Identity, error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return Identity{}, err
	}
	if head[0] != magic {
		return Identity{}, fmt.Errorf("%w: not a member", errViolation)
	}
	if head[1] != version {
		return Identity{}, fmt.Errorf("%w: version %d, not %d", errViolation, head[1], version)
	}
	if class != nil {
		c, err := s.in.ReadByte()
		if err != nil {
			return Identity{}, short(err)
		}
		if c != classRaft && c != classCalls {
			return Identity{}, fmt.Errorf("%w: class %d", errViolation, c)
		}
		*class = c
	}
	b, err := s.readSized(maxIdentity)
	if err != nil {
		return Identity{}, err
	}
	return decodeIdentity(b)
}

// readVerdict returns why we are refused, or nothing if we are not.
func (s *stream) readVerdict() (string, error) {
	v, err := s.in.ReadByte()
	if err != nil {
		return "", short(err)
	}
	if v == 0 {
		return "", nil
	}
	b, err := s.readSized(maxReason)
	if err != nil {
		return "", err
	}
	if len(b) == 0 {
		return "no reason given", nil
	}
	return string(b), nil
}

func appendVerdict(b []byte, objection error) []byte {
	if objection == nil {
		return append(b, 0)
	}
	return sized(append(b, 1), func(b []byte) []byte { return append(b, clip(objection.Error(), maxReason)...) })
}

// readSized reads a uint16 and as many bytes.
func (s *stream) readSized(limit int) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return nil, short(err)
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes where %d are allowed", errViolation, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(s.in, b); err != nil {
		return nil, short(err)
	}
	return b, nil
}

// sized appends what add appends, with its length as a uint16 in front.
func sized(b []byte, add func([]byte) []byte) []byte {
	at := len(b)
	b = add(append(b, 0, 0))
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// call sends a request and reads the response. Without a step, which is how
// long it may stand still, ctx is the only bound.
func (s *stream) call(ctx context.Context, step time.Duration, kind byte, req []byte, limit int) ([]byte, error) {
	s.heard = false
	s.setDeadline(step)
	defer s.obey(ctx)()
	if err := s.writeFrame(step, kind, req); err != nil {
		return nil, err
	}
	if step > 0 {
		s.conn.SetReadDeadline(time.Now().Add(step))
	}
	status, resp, err := s.readResponse(step, limit)
	if err != nil {
		return nil, err
	}
	if status != statusOK {
		return nil, fmt.Errorf("%w: status %d", errViolation, status)
	}
	s.calls++
	return resp, nil
}

// obey makes I/O on s end with ctx. The function returned ends that.
func (s *stream) obey(ctx context.Context) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(past) })
	return func() {
		if !stop() {
			s.spoiled = true
		}
	}
}

func (s *stream) setDeadline(step time.Duration) {
	if step > 0 {
		s.conn.SetDeadline(time.Now().Add(step))
	} else {
		s.conn.SetDeadline(time.Time{})
	}
}

// readResponse reads a response of status OK or Ongoing. An error answered is
// a RemoteError.
func (s *stream) readResponse(step time.Duration, limit int) (byte, []byte, error) {
	status, body, err := s.readFrame(step, max(limit, maxText), &s.heard)
	if err != nil {
		return 0, nil, err
	}
	switch status {
	case statusOK, statusOngoing:
		return status, body, nil
	case statusError:
		s.calls++
		return 0, nil, &RemoteError{Text: clip(string(body), maxText)}
	}
	return 0, nil, fmt.Errorf("%w: status %d", errViolation, status)
}

// writeFrame sends a request or response. With a step, each chunk of a large
// one has that long.
func (s *stream) writeFrame(step time.Duration, kind byte, body []byte) error {
	const together = 16 << 10 // header and body in one write, up to here
	s.out = binary.BigEndian.AppendUint32(s.out[:0], uint32(len(body)))
	s.out = append(s.out, kind)
	k := min(len(body), together)
	s.out = append(s.out, body[:k]...)
	if _, err := s.conn.Write(s.out); err != nil {
		return err
	}
	for chunk := range slices.Chunk(body[k:], chunkSize) {
		if step > 0 {
			s.conn.SetWriteDeadline(time.Now().Add(step))
		}
		if _, err := s.conn.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads a request or response. Memory is taken as bytes arrive,
// whatever their number is said to be. With a step, each chunk has that long.
func (s *stream) readFrame(step time.Duration, limit int, heard *bool) (byte, []byte, error) {
	var head [frameHeader]byte
	if _, err := s.in.Peek(1); err != nil {
		return 0, nil, err
	}
	if heard != nil {
		*heard = true
	}
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, nil, short(err)
	}
	kind, size := head[4], uint64(binary.BigEndian.Uint32(head[:]))
	if size > uint64(limit) {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes where %d are allowed", errViolation, size, limit)
	}
	var body []byte
	for left := int(size); left > 0; {
		k := min(left, chunkSize)
		if step > 0 {
			s.conn.SetReadDeadline(time.Now().Add(step))
		}
		at := len(body)
		body = slices.Grow(body, k)[:at+k]
		if _, err := io.ReadFull(s.in, body[at:]); err != nil {
			return 0, nil, short(err)
		}
		left -= k
	}
	return kind, body, nil
}

// short turns an end of input inside a message into what it is.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// clip cuts a text to what may be sent.
func clip(text string, limit int) string {
	return text[:min(len(text), limit)]
}
