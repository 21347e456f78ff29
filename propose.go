// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// proposer is the way up for the writes of one member. One goroutine takes everything that waits, packs it into a
// numbered frame and drives that frame, under the same number, until the state machine has applied it: whatever
// happens to leaders and connections, each frame takes effect once, and frames take effect in order (P3, P4).
//
//	submit -> queue -> frame in flight -> (log) -> fsm -> applied -> the waiting callers
type proposer struct {
	m        *Member
	maxCount int
	maxBytes int

	wake   chan struct{} // capacity 1: there is something to propose
	retry  chan struct{} // capacity 1: the frame in flight is dead unless sent again
	leader chan struct{} // capacity 1: there is a new leader
	sent   atomic.Uint64 // term in which the frame in flight was last sent
	begun  atomic.Uint64 // term of the newest leadership that is known to have begun

	mu     sync.Mutex // guards the fields below
	queue  []*call
	bytes  int
	space  chan struct{} // closed when the queue has shrunk; nil while nobody waits
	number uint64        // of the newest frame
	acked  uint64        // every frame up to this one is answered
	flight *flight
	closed error

	lates sync.WaitGroup // functions of submitLate under way; mu is held where it grows, and none is added once closed
}

// flight is the frame that is on its way.
type flight struct {
	frame
	data  []byte
	calls []*call
	done  chan struct{}
}

// call is one request that waits for its outcome.
type call struct {
	raw    []byte
	framed bool // may be applied from here on
	ended  atomic.Bool
	done   chan struct{} // closed when out or err is set
	out    outcome
	err    error
	after  func(outcome, error) // called once, in order, when done; must not block
}

func newProposer(m *Member) *proposer {
	return &proposer{
		m: m, maxCount: m.cfg.MaxQueuedWrites, maxBytes: m.cfg.MaxQueuedBytes,
		wake: make(chan struct{}, 1), retry: make(chan struct{}, 1), leader: make(chan struct{}, 1),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxRawBytes leaves room for a frame's head.
const maxRawBytes = maxEntryBytes - 4<<10

// enqueue puts a call at the end of the queue. A full queue makes it wait if ctx has a deadline or can be
// cancelled, and is ErrThrottled otherwise.
func (p *proposer) enqueue(ctx context.Context, c *call, wait bool) error {
	if len(c.raw) > maxRawBytes {
		return ErrTooLarge // no leader would take the frame
	}
	for {
		p.mu.Lock()
		if p.closed != nil {
			defer p.mu.Unlock()
			return p.closed
		}
		if len(p.queue) == 0 || len(p.queue) < p.maxCount && p.bytes+len(c.raw) <= p.maxBytes {
			p.queue = append(p.queue, c)
			p.bytes += len(c.raw)
			p.mu.Unlock()
			signal(p.wake)
			return nil
		}
		if p.space == nil {
			p.space = make(chan struct{})
		}
		space := p.space
		p.mu.Unlock()
		if !wait || ctx.Done() == nil {
			return ErrThrottled
		}
		select {
		case <-space:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrThrottled, ctxCause(ctx))
		case <-p.m.stop:
			return ErrClosed
		}
	}
}

// submit carries one request to its outcome. The error says whether it may have been applied.
func (p *proposer) submit(ctx context.Context, op, path string, raw []byte) (outcome, error) {
	return p.submitLate(ctx, op, path, raw, nil)
}

// submitLate is submit for callers that must know how it ended: if ctx ends when nobody knows yet whether the request
// is applied, late is called with the outcome when it is known, on a goroutine of its own. Close waits for it.
func (p *proposer) submitLate(ctx context.Context, op, path string, raw []byte, late func(outcome, error)) (outcome, error) {
	began := time.Now()
	c := &call{raw: raw, done: make(chan struct{})}
	if err := p.enqueue(ctx, c, true); err != nil {
		return outcome{}, &Error{Op: op, Path: path, Code: codeOf(err), Err: unlessCode(err)}
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if p.withdraw(c) {
			return outcome{}, &Error{Op: op, Path: path, Code: ErrUnavailable, Err: ctxCause(ctx)}
		}
		if p.leave(c, late) {
			p.m.stats.failures.Add(1)
			return outcome{}, &Error{Op: op, Path: path, Code: ErrUnavailable, MaybeApplied: true, Err: ctxCause(ctx)}
		}
		<-c.done // it was answered all the same
	}
	if c.err != nil {
		return outcome{}, &Error{Op: op, Path: path, Code: codeOf(c.err), MaybeApplied: c.framed, Err: unlessCode(c.err)}
	}
	p.m.answered(op, len(raw), time.Since(began), c.out.code)
	return c.out, nil
}

// leave lets a caller go whose call is in a frame: the member goes on driving it. It is false where the answer is there
// already, or comes at once because the member stops; late is not called then.
func (p *proposer) leave(c *call, late func(outcome, error)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-c.done:
		return false
	default:
	}
	if p.closed != nil {
		return false
	}
	if late != nil {
		p.lates.Go(func() {
			<-c.done
			late(c.out, c.err)
		})
	}
	return true
}

// unlessCode returns err unless it is a bare Code, which says everything already.
func unlessCode(err error) error {
	if _, bare := err.(Code); bare {
		return nil
	}
	return err
}

// withdraw takes a call back out of the queue. It fails once the call is in a frame.
func (p *proposer) withdraw(c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, q := range p.queue {
		if q == c {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.bytes -= len(c.raw)
			p.roomLocked()
			return true
		}
	}
	return false
}

func (p *proposer) roomLocked() {
	if p.space != nil {
		close(p.space)
		p.space = nil
	}
}

// pack makes a frame of what waits.
func (p *proposer) pack() *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for n < len(p.queue) && n < maxFrameRequests && (n == 0 || size+len(p.queue[n].raw) <= maxFrameBytes) {
		size += len(p.queue[n].raw)
		n++
	}
	if n == 0 || p.closed != nil {
		return nil
	}
	f := &flight{done: make(chan struct{}), calls: append([]*call{}, p.queue[:n]...)}
	f.frame = frame{origin: p.m.cfg.ID, incarnation: p.m.incarnation, number: p.number + 1, acked: p.acked}
	p.queue = append(p.queue[:0], p.queue[n:]...)
	p.bytes -= size
	p.number++
	for _, c := range f.calls {
		c.framed = true
		f.requests = append(f.requests, c.raw)
	}
	f.data = appendFrame(make([]byte, 0, size+64+4*n), &f.frame)
	p.flight = f
	p.roomLocked()
	p.m.stats.framed(n)
	return f
}

// applied answers the calls of a frame from place first on. The state machine calls it, in order.
func (p *proposer) applied(number uint64, first int, outcomes []outcome, last bool) {
	p.mu.Lock()
	f := p.flight
	if f == nil || f.number != number {
		p.mu.Unlock()
		return
	}
	if last {
		p.flight, p.acked = nil, number
	}
	p.mu.Unlock()
	for i := range outcomes {
		f.calls[first+i].finish(outcomes[i], nil)
	}
	if last {
		close(f.done)
	}
}

// jumped answers a frame that a snapshot shows as applied without having its results: they were acknowledged by a
// frame that this member cannot have sent, so it never happens while the rules hold.
func (p *proposer) jumped(last uint64) {
	p.mu.Lock()
	f := p.flight
	if f == nil || f.number > last {
		p.mu.Unlock()
		return
	}
	p.flight, p.acked = nil, f.number
	p.mu.Unlock()
	for _, c := range f.calls {
		c.finish(outcome{}, fmt.Errorf("%w: results of frame %d are missing", ErrSystem, f.number))
	}
	close(f.done)
}

func (c *call) finish(out outcome, err error) {
	if c.ended.Swap(true) {
		return
	}
	c.out, c.err = out, err
	close(c.done)
	if c.after != nil {
		c.after(out, err)
	}
}

// resendAfter is how long an accepted frame may take to come down before it is sent once more. It is only a
// safety net: a new leadership and a failed call are told at once.
const resendAfter = 2 * time.Second

// run is the proposer's goroutine.
func (p *proposer) run() {
	for {
		select {
		case <-p.wake:
		case <-p.m.stop:
			return
		}
		for f := p.pack(); f != nil; f = p.pack() {
			if !p.drive(f) {
				return
			}
		}
	}
}

// drive sends a frame until it is applied. It is false when the member stops first.
//
// It is sent again when it was refused, when a leadership began after it was sent and has not brought it, and, as a
// safety net, when it has been on its way for long. More than one copy may be under way then; the number makes
// all but one of them void.
func (p *proposer) drive(f *flight) bool {
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			p.m.stats.redrives.Add(1)
		}
		p.sent.Store(p.m.raft.CurrentTerm())
		refused := make(chan error, 1)
		p.m.work.Go(func() {
			select {
			case <-f.done: // by another copy, while this one waited for its turn
			default:
				refused <- p.m.toLeader(p.m.life, f)
			}
		})
		timer := time.NewTimer(resendAfter)
		waiting, backingOff := true, false
		for waiting {
			select {
			case <-f.done:
				timer.Stop()
				return true
			case <-p.m.stop:
				timer.Stop()
				return false
			case err := <-refused:
				if backingOff = err != nil; backingOff {
					timer.Reset(backoff(attempt))
				}
			case <-p.retry: // which may be about the frame before
				waiting = p.sent.Load() >= p.begun.Load()
			case <-p.leader:
				waiting = !backingOff
			case <-timer.C:
				waiting = false
			}
		}
		timer.Stop()
	}
}

// epoch tells that a leadership has begun: frames sent before it are either applied by now or dead.
func (p *proposer) epoch(term uint64) {
	p.begun.Store(term)
	if p.sent.Load() < term {
		signal(p.retry)
	}
}

// backoff spreads attempts while there is no leader to be found: from 5 ms to 100 ms.
func backoff(attempt int) time.Duration {
	return min(5*time.Millisecond<<min(attempt, 5), 100*time.Millisecond)
}

// close refuses new calls and answers all that wait: those in the queue were never handed over, of those in
// flight nobody knows.
func (p *proposer) close(cause error) {
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		return
	}
	p.closed = cause
	waiting := p.queue
	p.queue, p.bytes = nil, 0
	f := p.flight
	p.flight = nil
	p.roomLocked()
	p.mu.Unlock()
	for _, c := range waiting {
		c.finish(outcome{}, cause)
	}
	if f != nil {
		for _, c := range f.calls {
			c.finish(outcome{}, cause)
		}
	}
}

// propose hands a frame to raft if this member leads, and returns once the state machine has met the frame, raft has
// refused it, or leadership is over, or ctx. That raft has committed it is not asked for: the state machine knows better.
func (m *Member) propose(ctx context.Context, lead *leadership, fr *frame, data []byte) error {
	m.stats.proposals.Add(int64(len(data)))
	future := m.raft.ApplyLog(raft.Log{Data: data, Extensions: appendStamp(nil, m.stamp())}, time.Second)
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	stop := whenRefused(future, refuse)
	defer stop()
	began := time.Now()
	err := m.fsm.wait(ctx, lead.over.Done(), func() bool {
		o := m.fsm.st.origin(fr.origin)
		return o != nil && (o.incarnation > fr.incarnation || o.incarnation == fr.incarnation && o.last >= fr.number)
	})
	if err == nil {
		m.stats.commit.Add(time.Since(began))
	}
	return err
}

// whenRefused calls refuse if raft does not take an entry: while it hands leadership over, or is too busy to, or does not
// lead any more. The function returned ends the waiting for that, which raft alone does not always: when it shuts down
// it forgets what was committed and not applied yet. For such cases a future of raft's has the field ShutdownCh, which
// raft leaves empty in those of entries. Should it have none, the proposer's net still catches what was refused.
func whenRefused(future raft.Future, refuse context.CancelCauseFunc) (stop func()) {
	look := func() {
		if err := future.Error(); err != nil {
			refuse(fmt.Errorf("%w: raft: %w", ErrUnavailable, err))
		}
	}
	f := reflect.ValueOf(future)
	if f.Kind() != reflect.Pointer { // refused on the spot
		look()
		return func() {}
	}
	end := f.Elem().FieldByName("ShutdownCh")
	if !end.CanSet() || end.Type() != reflect.TypeFor[chan struct{}]() {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	end.Set(reflect.ValueOf(over))
	go func() {
		defer close(ended)
		look()
	}()
	return func() {
		close(over)
		<-ended
	}
}
