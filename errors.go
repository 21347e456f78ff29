// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
)

// Code is a result code and an error, in the manner of [syscall.Errno]: comparable, immutable and usable
// with [errors.Is]. Values from -1 to -999 are ZooKeeper's own (rule table in docs/spec/data-model.md,
// section 13); values at -1000 and below are ours and never leave through the ZooKeeper port.
type Code int32

// ZooKeeper's result codes.
const (
	// ErrSystem is an internal fault: a bug or a failed disk. The member stops; Member.Err has the cause.
	ErrSystem Code = -1
	// ErrInconsistent is the result of the transaction steps after the failing one.
	ErrInconsistent Code = -2
	// ErrDataInconsistency reports a damaged log, snapshot or backup.
	ErrDataInconsistency Code = -3
	// ErrUnavailable means that no leader could be reached before the context ended.
	ErrUnavailable Code = -4
	// ErrMarshalling means that a request could not be decoded.
	ErrMarshalling Code = -5
	// ErrUnimplemented means that the ensemble's feature level does not allow the request yet.
	ErrUnimplemented Code = -6
	// ErrTimeout matches an ended deadline; the error itself is context.DeadlineExceeded.
	ErrTimeout Code = -7
	// ErrBadArguments reports a bad path, mode, TTL, configuration or a nil argument.
	ErrBadArguments Code = -8
	// ErrUnknownSession means that there is no such session.
	ErrUnknownSession Code = -12
	// ErrNoQuorumForConfig means that a membership change could not be committed.
	ErrNoQuorumForConfig Code = -13
	// ErrReconfigInProgress means that another membership change is under way.
	ErrReconfigInProgress Code = -14
	// ErrAPI is ZooKeeper's boundary marker; never returned.
	ErrAPI Code = -100
	// ErrNoNode means that the znode does not exist. It matches fs.ErrNotExist.
	ErrNoNode Code = -101
	// ErrNoAuth means that the session lacks the permission. It matches fs.ErrPermission.
	ErrNoAuth Code = -102
	// ErrBadVersion means that the version given is not the znode's.
	ErrBadVersion Code = -103
	// ErrNoChildrenForEphemerals means that the parent is ephemeral.
	ErrNoChildrenForEphemerals Code = -108
	// ErrNodeExists means that the znode exists already. It matches fs.ErrExist.
	ErrNodeExists Code = -110
	// ErrNotEmpty means that the znode has children.
	ErrNotEmpty Code = -111
	// ErrSessionExpired means that the session is over.
	ErrSessionExpired Code = -112
	// ErrInvalidACL means that an ACL is empty, malformed or names an unknown scheme.
	ErrInvalidACL Code = -114
	// ErrAuthFailed means that an identity was refused.
	ErrAuthFailed Code = -115
	// ErrClosed means that the member or the session was closed. It matches fs.ErrClosed.
	ErrClosed Code = -116
	// ErrSessionMoved means that the session was attached elsewhere.
	ErrSessionMoved Code = -118
	// ErrNotReadOnly is a write, or a read that needs a leader, asked of a read-only session.
	ErrNotReadOnly Code = -119
	// ErrEphemeralOnLocalSession is an ephemeral asked of a local session.
	ErrEphemeralOnLocalSession Code = -120
	// ErrNoWatch means that there is no such watch.
	ErrNoWatch Code = -121
	// ErrRequestTimeout is ZooKeeper's per-request timeout; never returned by this package.
	ErrRequestTimeout Code = -122
	// ErrReconfigDisabled is ZooKeeper's answer while reconfiguration is off; never returned by this package.
	ErrReconfigDisabled Code = -123
	// ErrAuthRequired is ZooKeeper's answer where an authentication scheme is enforced.
	ErrAuthRequired Code = -124
	// ErrQuotaExceeded means that a hard quota would be exceeded.
	ErrQuotaExceeded Code = -125
	// ErrThrottled means that a queue or a limit is full.
	ErrThrottled Code = -127
)

// Our own codes.
const (
	// ErrSuspended means that the session's lease has lapsed; it may recover.
	ErrSuspended Code = -1001
	// ErrClusterMismatch means that a peer belongs to another ensemble.
	ErrClusterMismatch Code = -1002
	// ErrTooLarge means that a value, path or transaction exceeds its limit.
	ErrTooLarge Code = -1003
	// ErrRolledBack is the result of a transaction step that was fine while another failed.
	ErrRolledBack Code = -1004
	// ErrGuard means that OpCheckCreated, OpCheckAbsent or OpCheckChildren did not hold.
	ErrGuard Code = -1005
	// ErrNotMember means that this member was removed from the ensemble, or never was in it.
	ErrNotMember Code = -1006
	// ErrWiped means that a recorded member came back with another storage: remove it, add it under a new id.
	ErrWiped Code = -1007
	// ErrViewExpired means that a View outlived the bound on kept versions.
	ErrViewExpired Code = -1008
	// ErrStalled means that a system call on the store did not return.
	ErrStalled Code = -1009
	// ErrLocked means that another process, or this one, has the directory open.
	ErrLocked Code = -1010
	// ErrStale means that no leader was heard from for longer than the read allows.
	ErrStale Code = -1011
	// ErrStream means that a reader or writer given by the caller failed; the error wraps its own.
	ErrStream Code = -1012
)

var codeText = map[Code]string{
	ErrSystem: "system error", ErrInconsistent: "runtime inconsistency", ErrDataInconsistency: "damaged data",
	ErrUnavailable: "no leader reachable", ErrMarshalling: "undecodable request", ErrUnimplemented: "not implemented at this feature level",
	ErrTimeout: "timed out", ErrBadArguments: "bad arguments", ErrUnknownSession: "unknown session",
	ErrNoQuorumForConfig: "no quorum of the new configuration", ErrReconfigInProgress: "another membership change is in progress",
	ErrAPI: "api error", ErrNoNode: "no node", ErrNoAuth: "not authorized", ErrBadVersion: "version conflict",
	ErrNoChildrenForEphemerals: "ephemeral nodes have no children", ErrNodeExists: "node already exists", ErrNotEmpty: "node has children",
	ErrSessionExpired: "session expired", ErrInvalidACL: "invalid ACL", ErrAuthFailed: "authentication failed", ErrClosed: "closed",
	ErrSessionMoved: "session moved", ErrNotReadOnly: "not read only", ErrEphemeralOnLocalSession: "ephemeral on a local session",
	ErrNoWatch: "no such watch", ErrRequestTimeout: "request timed out", ErrReconfigDisabled: "reconfiguration disabled",
	ErrAuthRequired: "authentication required", ErrQuotaExceeded: "quota exceeded", ErrThrottled: "throttled",
	ErrSuspended: "session suspended", ErrClusterMismatch: "member of another ensemble", ErrTooLarge: "too large",
	ErrRolledBack: "rolled back with the transaction", ErrGuard: "guard does not hold", ErrNotMember: "not a member of the ensemble",
	ErrWiped: "member came back without its storage", ErrViewExpired: "view expired", ErrStalled: "store call does not return",
	ErrLocked: "directory is in use", ErrStale: "no leader heard from recently", ErrStream: "reader or writer failed",
}

// Error returns the code's text.
func (c Code) Error() string {
	if t, ok := codeText[c]; ok {
		return t
	}
	return "code " + strconv.Itoa(int(c))
}

// String returns the code's text.
func (c Code) String() string { return c.Error() }

// Is makes errors.Is(err, fs.ErrNotExist) and its likes true for the codes that mean the same.
func (c Code) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return c == ErrNoNode
	case fs.ErrExist:
		return c == ErrNodeExists
	case fs.ErrPermission:
		return c == ErrNoAuth
	case fs.ErrClosed:
		return c == ErrClosed
	}
	return false
}

// Error is what every method of this package returns. It unwraps to the Code and to the cause.
type Error struct {
	Op   string // the operation, such as "create"
	Path string // the znode, if there is one
	Code Code

	// MaybeApplied is true when and only when the outcome of a write is unknown: the caller stopped waiting,
	// or the member stopped, after the request had been handed over. Reads never set it.
	MaybeApplied bool

	Err error // the cause: a context's error, a disk's error, or nil
}

// Error returns "op path: code: cause".
func (e *Error) Error() string {
	s := e.Op
	if e.Path != "" {
		s += " " + e.Path
	}
	s += ": " + e.Code.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.MaybeApplied {
		s += " (outcome unknown)"
	}
	return s
}

// Unwrap returns the code and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// Is makes errors.Is(err, ErrTimeout) true for an ended deadline.
func (e *Error) Is(target error) bool {
	return target == ErrTimeout && errors.Is(e.Err, context.DeadlineExceeded)
}

// TxnError tells which step of a transaction failed (DM-58). errors.Is sees that step's error.
type TxnError struct {
	Index int     // of the failing step
	Steps []error // one per step; ErrRolledBack for the innocent
}

// Error names the failing step and its error.
func (e *TxnError) Error() string {
	return "step " + strconv.Itoa(e.Index) + ": " + e.Steps[e.Index].Error()
}

// Unwrap returns the failing step's error.
func (e *TxnError) Unwrap() error { return e.Steps[e.Index] }

// MaybeApplied reports whether err says that a write's outcome is unknown.
func MaybeApplied(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.MaybeApplied
}
