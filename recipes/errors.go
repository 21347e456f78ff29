// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-541fafe0/zk"
)

var (
	// ErrLost means that a right ended without its holder's doing. The cause is wrapped: zk.ErrSuspended,
	// zk.ErrSessionExpired, zk.ErrClosed, or zk.ErrNoNode where somebody deleted the znode.
	ErrLost = errors.New("recipes: right lost")

	// ErrReleased means that a right was given back by its holder.
	ErrReleased = errors.New("recipes: right released")

	// ErrNotAcquired means that somebody else holds, or waits for, what was tried for. No znode of the try is left.
	ErrNotAcquired = errors.New("recipes: held by another")

	// ErrBroken means that a znode of this recipe was deleted by another party, such as an operator.
	ErrBroken = errors.New("recipes: znode removed by another party")

	// ErrMismatch means that a znode of this recipe is used differently by another party: with another limit, count or step,
	// say.
	ErrMismatch = errors.New("recipes: znode used differently by another party")

	// ErrNoLeader means that nobody leads.
	ErrNoLeader = errors.New("recipes: nobody leads")

	// ErrOverflow means that a counter's encoding has no room for a value. Nothing was changed.
	ErrOverflow = errors.New("recipes: counter overflow")
)

// DecodeError reports stored bytes that the codec refuses, or that are not of a recipe's own form. They stay where they are.
type DecodeError struct {
	Path string  // of the znode
	Zxid zk.Zxid // of the write that stored them
	Err  error   // the codec's; it may wrap ErrMismatch
}

// Error names the path and the zxid.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("recipes: cannot decode %s as of %v: %v", e.Path, e.Zxid, e.Err)
}

// Unwrap returns the codec's error.
func (e *DecodeError) Unwrap() error { return e.Err }

// ended is the error of a call whose context ended: the context's own, and its cause if that says more.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func badArgument(op, path, why string) error {
	return &zk.Error{Op: op, Path: path, Code: zk.ErrBadArguments, Err: errors.New(why)}
}

// checkContext is the first check of every call but those that give something up: one whose context has ended does nothing
// (E10).
func checkContext(ctx context.Context, op, path string) error {
	if ctx == nil {
		return badArgument(op, path, "nil context")
	}
	if ctx.Err() != nil {
		return &zk.Error{Op: op, Path: path, Code: zk.ErrUnavailable, Err: ended(ctx)}
	}
	return nil
}

// session is the first step of every call.
func session(ctx context.Context, src zk.SessionSource, op, path string) (*zk.Session, error) {
	if err := checkContext(ctx, op, path); err != nil {
		return nil, err
	}
	if src == nil {
		return nil, badArgument(op, path, "nil session source")
	}
	if err := zk.ValidPath(path); err != nil {
		return nil, err
	}
	return src.Session(ctx)
}

// over reports whether err says that the session is gone, and with it all its ephemerals.
func over(err error) bool {
	return errors.Is(err, zk.ErrSessionExpired) || errors.Is(err, zk.ErrSessionMoved) || errors.Is(err, zk.ErrClosed)
}
