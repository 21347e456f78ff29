// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Config describes a member. The zero value is a working, volatile ensemble of one, without a socket. A Config is
// read by Open and never changed.
type Config struct {
	// ID names this member for ever. With a Dir it is generated once and kept there; a member of several should be
	// given one. At most 128 bytes, no spaces or control characters.
	ID string

	// Dir keeps the member's state; "" keeps it in memory, which for an ensemble of several is for tests only: a
	// restart is then a new member.
	Dir string

	// Addr is where other members reach this one, "host:port"; a missing host means loopback, port 0 any free port.
	// "" without a Transport means no network: an ensemble of one.
	Addr string

	// Transport carries the streams between members. Nil means plain TCP on Addr. Use transport.TLS across hosts.
	Transport Transport

	// Advertise is the address that peers are given; "" means Transport.Addr.
	Advertise string

	// Peers are the first members of a new ensemble, the same list on each of them, this member included. It is read
	// at the first boot only, except as a hint where to find them.
	Peers []Peer

	// Join are addresses of members of a running ensemble through which a new member asks to be added, until it is. It
	// has no meaning from then on.
	Join []string

	// NonVoter makes a joining member an observer: it has all data and all functions, and no vote.
	NonVoter bool

	SessionTimeout time.Duration // default 10 s
	MinTimeout     time.Duration // of a session, default 1 s
	MaxTimeout     time.Duration // of a session, default 2 min

	// LeaseMargin is by how much a session's own lease ends before the ensemble may expire it: it must exceed what
	// the clocks of two members can drift apart in one timeout. Default: a tenth of the timeout, at least 100 ms.
	LeaseMargin time.Duration

	Heartbeat time.Duration // raft's heartbeat timeout; default 1 s, at least 500 ms
	Election  time.Duration // raft's election timeout; default 1 s, at least 500 ms

	MaxValueSize    int // bytes; default 1 MiB, at most 1.5 MiB
	MaxTxnOps       int // steps of Session.Txn; default 1024
	MaxQueuedWrites int // requests that wait on this member; default 65,536
	MaxQueuedBytes  int // of those; default 64 MiB
	WatchBuffer     int // events a watch holds before it overflows; default 128

	// SnapshotBytes is how much log is written between snapshots; default 64 MiB. The last 128 entries
	// before a snapshot stay in the log, for followers that are a little behind.
	SnapshotBytes int64

	// ReapInterval is how often the leader looks for empty containers and overdue TTL znodes; default 1 min.
	ReapInterval time.Duration

	// EnforceQuota makes hard quotas refuse writes (DM-74). The leader's setting counts.
	EnforceQuota bool

	// RefuseTTL makes creates with a time to live fail with ErrUnimplemented (DM-20). The leader's setting counts.
	RefuseTTL bool

	// SuperDigest, "user:base64hash" as DigestID returns it, makes a session with that digest identity a super user.
	SuperDigest string

	// DisableCommitNotice leaves followers to learn of a commit from raft alone, up to 80 ms later. For tests.
	DisableCommitNotice bool

	// Storage replaces raft-boltdb under Dir. Nil fields are filled in.
	Storage Storage

	// Resolve finds a member's address; nil, or an error from it, means what the member announced last, or Peers.
	Resolve func(ctx context.Context, id string) (string, error)

	// Now is the wall clock for znodes' times; default time.Now. Nothing else depends on it.
	Now func() time.Time

	// Logger receives what is worth telling. Nil sends warnings and errors to slog.Default and drops the rest.
	Logger *slog.Logger

	// Audit receives a record for each change that is asked of this member, with its outcome: who, what, the path, never
	// data nor credentials (OP-30). Nil means none. Its handler is called on the way of the writes: it should be quick.
	Audit *slog.Logger

	Hooks Hooks
}

// Peer is a member's name and address.
type Peer struct {
	ID    string
	Addr  string
	Voter bool
}

// Transport carries streams between members. Implementations: package transport (TCP, TLS, Wrap) and
// transport/memnet.
type Transport interface {
	// Dial opens a stream to the member at addr. Several goroutines may dial at once. It returns early when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)

	// Accept waits for the next stream. One goroutine calls it. After Close it returns net.ErrClosed.
	Accept() (net.Conn, error)

	// Close stops accepting and closes every stream accepted or dialled, so that no reader is left waiting.
	Close() error

	// Addr is where other members reach this one.
	Addr() string
}

// Hooks are called synchronously from the engine: they must not block nor call back into the member. Nil fields
// are skipped.
type Hooks struct {
	RoleChanged    func(RoleInfo)
	SessionOpened  func(SessionInfo)
	SessionEnded   func(SessionInfo)
	OpDone         func(OpInfo)
	WatchOverflow  func(path string, id SessionID)
	SnapshotDone   func(SnapshotInfo)
	SlowApply      func(d time.Duration, z Zxid)
	MembersChanged func([]Peer)
}

// RoleInfo tells of a change of role or leader.
type RoleInfo struct {
	Role   Role
	Term   uint64
	Leader string // "" if unknown
}

// OpInfo tells of one write.
type OpInfo struct {
	Op        string
	Bytes     int
	Took      time.Duration
	Forwarded bool
	Code      Code
}

// SnapshotInfo tells of one snapshot.
type SnapshotInfo struct {
	Zxid  Zxid
	Bytes int64
	Took  time.Duration
	Err   error
}

const (
	defaultEphemerals = 10_000
	maxIDBytes        = 128
	maxSafeValue      = 3 << 19
)

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// withDefaults fills in a copy and checks it.
func (c Config) withDefaults() (Config, error) {
	orDefault(&c.SessionTimeout, 10*time.Second)
	orDefault(&c.MinTimeout, min(time.Second, c.SessionTimeout))
	orDefault(&c.MaxTimeout, max(2*time.Minute, c.SessionTimeout))
	orDefault(&c.Heartbeat, time.Second)
	orDefault(&c.Election, time.Second)
	orDefault(&c.MaxValueSize, 1<<20)
	orDefault(&c.MaxTxnOps, 1024)
	orDefault(&c.MaxQueuedWrites, 1<<16)
	orDefault(&c.MaxQueuedBytes, 64<<20)
	orDefault(&c.WatchBuffer, 128)
	orDefault(&c.SnapshotBytes, 64<<20)
	orDefault(&c.ReapInterval, time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
	bad := func(format string, args ...any) (Config, error) {
		return c, &Error{Op: "open", Code: ErrBadArguments, Err: fmt.Errorf(format, args...)}
	}
	if len(c.ID) > maxIDBytes {
		return bad("ID is longer than %d bytes", maxIDBytes)
	}
	for _, r := range c.ID {
		if r <= ' ' || r == 0x7f || r == '=' {
			return bad("ID %q has a space, a control character or =", c.ID)
		}
	}
	switch {
	case c.MinTimeout < 10*time.Millisecond || c.MinTimeout > c.MaxTimeout:
		return bad("MinTimeout %v and MaxTimeout %v do not bound a range", c.MinTimeout, c.MaxTimeout)
	case c.SessionTimeout < c.MinTimeout || c.SessionTimeout > c.MaxTimeout:
		return bad("SessionTimeout %v is not between MinTimeout %v and MaxTimeout %v", c.SessionTimeout, c.MinTimeout, c.MaxTimeout)
	case c.LeaseMargin < 0 || c.LeaseMargin >= c.MinTimeout:
		return bad("LeaseMargin %v is not below MinTimeout %v", c.LeaseMargin, c.MinTimeout)
	case c.Heartbeat < 500*time.Millisecond || c.Election < c.Heartbeat:
		return bad("Heartbeat %v must be at least 500ms and Election %v at least as long", c.Heartbeat, c.Election)
	case c.MaxValueSize < 1 || c.MaxValueSize > maxSafeValue:
		return bad("MaxValueSize %d is not between 1 and %d", c.MaxValueSize, maxSafeValue)
	case c.MaxTxnOps < 1 || c.MaxTxnOps > 1<<16 || c.MaxQueuedWrites < 1 || c.MaxQueuedBytes < 2*c.MaxValueSize || c.WatchBuffer < 1 || c.SnapshotBytes < 1 || c.ReapInterval < 0:
		return bad("a limit is out of range")
	case len(c.Peers) > 0 && c.ID == "":
		return bad("Peers needs an ID")
	case len(c.Join) > 0 && len(c.Peers) > 0:
		return bad("Join and Peers exclude each other: a member founds an ensemble or joins one")
	case (len(c.Join) > 0 || len(c.Peers) > 1) && c.Addr == "" && c.Transport == nil:
		return bad("an ensemble of several needs an Addr or a Transport")
	}
	self := len(c.Peers) == 0
	seen := map[string]bool{}
	voters := 0
	for _, p := range c.Peers {
		if p.ID == "" || seen[p.ID] {
			return bad("Peers has an empty or a double ID %q", p.ID)
		}
		seen[p.ID] = true
		self = self || p.ID == c.ID
		if p.Voter {
			voters++
		}
	}
	if !self {
		return bad("Peers does not list this member, %q", c.ID)
	}
	if len(c.Peers) > 0 && voters == 0 {
		return bad("Peers has no voter")
	}
	return c, nil
}

var errNilFunction = errors.New("nil function")
