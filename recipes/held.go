// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed-541fafe0/zk"
)

// noCopy makes go vet refuse copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Held is a right that others are kept from. It is bound to a session and to a znode, or to several that were created
// together, and ends when it is released, when the session's lease lapses, or when one of the znodes is deleted: for good,
// and on this side before the other. What TimedLease gives ends by the clock instead of with the session.
//
// HELD-S1: the times in which Valid can be true for two handles of one exclusive path never overlap, as long as clocks
// of two members run at rates that differ by less than the lease margin in a timeout. HELD-S2: tokens of successive
// grants strictly increase. An operator who deletes a holder's znode, or calls Lock.Break, is the exception to the
// first: until the holder's member has applied it, only tokens and guards protect.
//
// Cost: none while it is held, no message and no goroutine, but those of TimedLease and of Revoked; one write to release it.
// All methods are safe for concurrent use. A Held is not copied: Retain makes another handle.
type Held struct {
	noCopy   noCopy
	right    *right
	returned atomic.Bool // this handle was released
}

// right is what all handles of one grant share.
type right struct {
	contender
	fence zk.Token        // what Held.Token shows
	lease context.Context // in which it was granted
	ctx   context.Context // ends with the right
	free  func()          // ends it, unless it has ended
	gone  chan struct{}   // closed when the znodes are known to be gone, or nothing more can be done about it
	stale func() error    // may know that the right is over before ctx does; may be nil

	acking atomic.Bool // the holder is deleting the znode: that is no loss

	mu      sync.Mutex   // guards the fields below
	owed    int          // releases
	parting func() error // what an orderly release does instead of deleting the znodes; may be nil
	orderly bool         // it was released, not lost
	err     error        // of the removal; set before gone is closed
	revoked chan struct{}
}

// grant arms the right to a contender's znodes. The error is zk.ErrNoNode if one of those incarnations is gone,
// zk.ErrSuspended if the lease is not valid, or that the session is over.
func grant(c contender) (*right, error) {
	lease := c.s.Context()
	ctx := context.Background()
	var frees []func()
	free := func() {
		for _, f := range slices.Backward(frees) {
			f()
		}
	}
	for _, z := range c.znodes() {
		held, f, err := c.s.ContextWhile(ctx, z.path, z.token)
		if err != nil {
			free()
			return nil, err
		}
		ctx, frees = held, append(frees, f)
	}
	if lease.Err() != nil { // the other one that began since is not what Valid looks at
		free()
		return nil, &zk.Error{Op: "grant", Path: c.path, Code: zk.ErrSuspended}
	}
	r := &right{contender: c, fence: c.token, lease: lease, ctx: ctx, free: free, gone: make(chan struct{}), owed: 1}
	context.AfterFunc(ctx, r.vacate)
	return r, nil
}

// vacate deletes the znodes of a right that has ended, by whatever cause, unless they are gone already. It runs once, in
// the background and under no context but the session's life: a holder that stops waiting leaves nothing behind.
func (r *right) vacate() {
	defer close(r.gone)
	r.free() // where a znode was deleted by another, that leaves what watched over the lease and over the others
	switch cause := context.Cause(r.ctx); {
	case over(cause), errors.Is(cause, zk.ErrNoNode) && len(r.more) == 0:
		return
	case errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, ErrMismatch): // the znode says itself that it is over, or another's
		return
	}
	r.mu.Lock()
	depart := r.parting
	if depart == nil || !r.orderly {
		depart = func() error { return r.contender.quit() }
	}
	r.mu.Unlock()
	err := depart()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// onRelease says what an orderly release does besides deleting the znodes.
func (r *right) onRelease(steps []zk.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parting = func() error { return r.contender.quit(steps...) }
}

// departBy makes the end of the right, which is to come now, an orderly release that calls depart instead of deleting the
// znodes. It is false, and changes nothing, if h is not the only handle.
func (h *Held) departBy(depart func() error) (alone bool) {
	r := h.right
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owed != 1 || h.returned.Swap(true) {
		return false
	}
	r.owed, r.orderly, r.parting = 0, r.ctx.Err() == nil, depart
	return true
}

// lost returns nil while the right is valid, then why it is not.
func (r *right) lost() error {
	r.s.State() // looks at the clock: whoever was paused past the lease is told now
	var cause error
	switch {
	case r.ctx.Err() != nil:
		cause = context.Cause(r.ctx)
	case r.lease.Err() != nil:
		cause = context.Cause(r.lease)
	case r.stale != nil:
		cause = r.stale()
	}
	if cause == nil {
		return nil
	}
	if errors.Is(cause, context.Canceled) || r.acking.Load() && errors.Is(cause, zk.ErrNoNode) {
		return ErrReleased
	}
	return fmt.Errorf("%w: %w", ErrLost, cause)
}

// Lost is closed when the right ends for any reason, release included, like a context's Done. It needs no network: a
// local timer closes it no later than the lease's end (HELD-L1).
func (h *Held) Lost() <-chan struct{} { return h.right.ctx.Done() }

// Err returns nil while the right is held, ErrReleased once it was given back, or ErrLost with the cause.
func (h *Held) Err() error {
	if err := h.right.lost(); err != nil {
		return err
	}
	if h.returned.Load() {
		return ErrReleased
	}
	return nil
}

// Valid reports whether the right is held, from the local clock and lease alone: no I/O.
func (h *Held) Valid() bool { return h.Err() == nil }

// Token is the zxid of the grant's znode: among the grants of one path it strictly increases for ever (HELD-S2). Send
// it along with every effect outside of the tree.
func (h *Held) Token() zk.Token { return h.right.fence }

// Session returns the session the right is bound to. Guard goes into its transactions.
func (h *Held) Session() *zk.Session { return h.right.s }

// Path returns the znode the right is bound to, the first one where it is bound to several.
func (h *Held) Path() string { return h.right.path }

// Guard is a step that makes a transaction fail with zk.ErrGuard if the znode at Path is gone or another one stands in
// its place (HELD-S3). Put it first. It must be used with Session, or a session of the same prefix. Where a right is
// bound to several znodes, by LockAll or Semaphore.AcquireN, Guards has a step for each.
func (h *Held) Guard() zk.Op { return h.right.guard() }

// Guards are the steps that make a transaction fail with zk.ErrGuard unless all the znodes of the right stand: Guard, and
// more of its kind where there are more znodes.
func (h *Held) Guards() []zk.Op { return h.right.guards() }

// Verify asks the leader whether the right still stands, by one round of messages: also a znode that was deleted and that
// this member does not know of yet is found missing. It returns nil, the error of Err, or that of the read. What it says
// was so after the call began: a guard says it at the moment of a write.
func (h *Held) Verify(ctx context.Context) error {
	if err := checkContext(ctx, "verify", h.right.path); err != nil {
		return err
	}
	opts := []zk.ReadOption{zk.Linearizable}
	for _, z := range h.right.znodes() {
		st, ok, err := z.s.Exists(ctx, z.path, opts...)
		if lost := h.Err(); lost != nil {
			return lost
		}
		if err != nil {
			return err
		}
		if !ok || zk.Token(st.Czxid) != z.token {
			return fmt.Errorf("%w: %w", ErrLost, zk.ErrNoNode)
		}
		opts = nil // this member has heard of all that the first read has seen
	}
	return nil
}

// Context returns a copy of parent that ends with the right, with the error of Err as its cause. Call cancel when the
// work is done. A nil parent is context.Background.
func (h *Held) Context(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, end := context.WithCancelCause(parent)
	stop := context.AfterFunc(h.right.ctx, func() { end(h.right.lost()) })
	if err := h.Err(); err != nil {
		end(err)
	}
	return ctx, func() {
		stop()
		end(nil)
	}
}

// Revoked is closed when somebody has asked for the right by Revoke, or by Curator's means. That alone ends nothing
// (REV-S1). The first call starts a goroutine for each znode of the right; they end with it.
func (h *Held) Revoked() <-chan struct{} {
	r := h.right
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revoked == nil {
		revoked := make(chan struct{})
		r.revoked = revoked
		asked := sync.OnceFunc(func() { close(revoked) })
		for _, z := range r.znodes() {
			go z.heed(r.ctx, asked)
		}
	}
	return r.revoked
}

const (
	revokeData = "__REVOKE__" // Curator's
	unlockData = "unlock"     // of ZooKeeper's recipes page
)

// heed calls asked when the znode's data asks for it.
func (c *contender) heed(ctx context.Context, asked func()) {
	for {
		data, _, changed, err := c.s.GetW(ctx, c.path)
		if err != nil {
			return
		}
		if string(data) == revokeData || string(data) == unlockData {
			asked()
			return
		}
		<-changed // closed at the latest with ctx
	}
}

// Retain returns another handle on the same right, which ends when all its handles have been released (REENT-S1).
// It is for code that is called with the right held and wants to keep it beyond its caller. Retaining a right that
// has ended, or through a handle that was released, gives a handle that is released.
func (h *Held) Retain() *Held {
	again := &Held{right: h.right}
	h.right.mu.Lock()
	defer h.right.mu.Unlock()
	if h.returned.Load() || h.right.owed == 0 {
		again.returned.Store(true)
	} else {
		h.right.owed++
	}
	return again
}

// Release gives the right back: here at once, then in the ensemble (HELD-S5). It returns nil when the znode is gone,
// be it since long, or the session is. It deletes only the incarnation it created (HELD-S4). If ctx ends first its
// error is returned; the deletion goes on, and Release called again waits for it (HELD-L2). With Retain only the last
// release counts.
func (h *Held) Release(ctx context.Context) error {
	if ctx == nil {
		return badArgument("release", h.right.path, "nil context")
	}
	r := h.right
	r.mu.Lock()
	if !h.returned.Swap(true) {
		r.owed--
	}
	last := r.owed == 0
	if last {
		r.orderly = r.ctx.Err() == nil || r.orderly
	}
	r.mu.Unlock()
	if !last {
		return nil
	}
	r.free()
	select {
	case <-r.gone:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-ctx.Done():
		return &zk.Error{Op: "release", Path: r.path, Code: zk.ErrUnavailable, MaybeApplied: true, Err: ended(ctx)}
	}
}

// do runs fn under a right and ends it with end, which gets a context that outlives ctx.
func (h *Held) do(ctx context.Context, fn func(context.Context) error, end func(context.Context) error) (err error) {
	finish := func(end func(context.Context) error) error {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.right.s.Timeout())
		defer cancel()
		return end(rest)
	}
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			finish(h.Release)
		}
	}()
	under, cancel := h.Context(ctx)
	defer cancel()
	err = fn(under)
	returned = true
	if lost := h.Err(); errors.Is(lost, ErrLost) {
		err = errors.Join(err, lost)
	}
	return errors.Join(err, finish(end))
}

// serve runs fn under a right and gives the right back; what of that does not come through in time goes on in the
// background. fn's context has ended by then. The error is fn's unless it comes of the end of that context, by ctx or by
// the loss of the right; lost tells of the latter.
func (h *Held) serve(ctx context.Context, fn func(context.Context) error) (lost bool, err error) {
	var failure error
	loss := h.do(ctx, func(ctx context.Context) error {
		ctx, end := context.WithCancel(ctx)
		defer end() // before the right ends
		failure = fn(ctx)
		return nil
	}, func(rest context.Context) error {
		h.Release(rest)
		return nil
	})
	lost = loss != nil
	if lost && lossMade(failure) || ctx.Err() != nil && (errors.Is(failure, ctx.Err()) || errors.Is(failure, context.Cause(ctx))) {
		return lost, nil
	}
	return lost, failure
}

// lossMade tells whether the loss of a right can have led to an error.
func lossMade(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, ErrLost) || errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrSuspended) || over(err)
}
