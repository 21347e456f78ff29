// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// fsm is raft's state machine: the one writer of the state. Everything that reads the state takes mu for reading;
// raft's goroutine takes it for writing, for at most chunk requests at a time.
type fsm struct {
	id          string
	incarnation uint64
	watches     *watchTable // locks itself; only ever after mu
	writes      *proposer   // locks itself; never under mu
	events      fsmEvents
	stop        <-chan struct{}              // closed when the member stops
	persisted   atomic.Pointer[SnapshotInfo] // the last snapshot written, or begun
	stats       *counters
	wall        func() time.Time
	old         uint64 // index of the newest entry that was in the log at the start

	failed error // belongs to raft's goroutine

	mu      sync.RWMutex // guards the fields below
	st      *state
	index   uint64    // of the last log entry applied
	term    uint64    // of that entry
	stamped time.Time // when st.now was last raised
	live    map[SessionID]*live
	checks  checkpoints
	moved   chan struct{} // closed when the state has moved on; nil while nobody waits
}

// fsmEvents is how the state machine tells the member; every function returns at once.
type fsmEvents struct {
	applied    func(index, term uint64)  // after a batch
	epoch      func(term uint64)         // a leadership has begun
	configured func(servers []server)    // a configuration was committed
	fail       func(err error)           // the state cannot be trusted any more
	expired    func(SessionInfo)         // a session was closed or expired
	slow       func(time.Duration, Zxid) // a chunk took long
	took       func(time.Duration)       // a frame was applied
	overSoft   func(path string)         // a soft quota is exceeded
	restored   func(now int64)           // a backup took the place of the state
}

// slowApply is how long one chunk may take before it is reported.
const slowApply = 100 * time.Millisecond

func newFSM(id string, incarnation uint64, watches *watchTable, writes *proposer, stop <-chan struct{}) *fsm {
	return &fsm{id: id, incarnation: incarnation, watches: watches, writes: writes, stop: stop, stats: &counters{}, wall: time.Now, st: newState(), live: map[SessionID]*live{}}
}

// Apply is never called: raft uses ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in order. It never panics and answers every entry; after a failure it
// changes nothing any more.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	for _, l := range logs {
		if f.failed != nil {
			break
		}
		f.failed = f.applyLog(l)
		if f.failed != nil {
			f.events.fail(f.failed)
		}
	}
	if f.failed == nil {
		last := logs[len(logs)-1]
		f.locked(func() {
			f.index, f.term = last.Index, last.Term
			f.moveLocked()
		})
		f.events.applied(last.Index, last.Term)
	}
	return make([]any, len(logs))
}

func (f *fsm) applyLog(l *raft.Log) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{Op: "apply", Code: ErrSystem, Err: fmt.Errorf("entry %d: %v\n%s", l.Index, p, debug.Stack())}
		}
	}()
	if l.Type == raft.LogConfiguration {
		f.configure(raft.DecodeConfiguration(l.Data))
		return nil
	}
	st, err := readStamp(l.Extensions)
	if err == nil {
		st.term = l.Term
		switch {
		case len(l.Data) > 0 && l.Data[0] == commandEpoch:
			err = f.applyEpoch(l.Data, st)
		default:
			err = f.applyFrame(l.Data, st)
			if l.Index > f.old {
				f.stats.propagation.Add(time.Duration(f.wall().UnixMilli()-st.now) * time.Millisecond)
			}
		}
	}
	if err != nil {
		code := ErrSystem
		switch {
		case errors.Is(err, errFormat):
			code = ErrUnimplemented
		case errors.Is(err, ErrInconsistent):
			code = ErrInconsistent
		}
		return &Error{Op: "apply", Code: code, Err: fmt.Errorf("entry %d: %w", l.Index, err)}
	}
	return nil
}

// locked runs fn as the one writer. A panic in it does not leave the lock behind.
func (f *fsm) locked(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fsm) configure(c raft.Configuration) {
	servers := make([]server, 0, len(c.Servers))
	for _, s := range c.Servers {
		servers = append(servers, server{string(s.ID), s.Suffrage == raft.Voter})
	}
	f.locked(func() {
		f.st.configure(servers)
		f.carryOutLocked(f.st.zxid)
	})
	f.events.configured(servers)
}

func (f *fsm) applyEpoch(data []byte, st stamp) error {
	e, err := readEpoch(data)
	if err != nil {
		return err
	}
	f.locked(func() {
		f.st.openEpoch(e, st)
		f.stamped = time.Now()
		f.carryOutLocked(f.st.zxid)
	})
	f.events.epoch(st.term)
	return nil
}

func (f *fsm) applyFrame(data []byte, st stamp) error {
	fr, err := readFrame(data)
	if err != nil {
		return err
	}
	start := time.Now()
	own := fr.origin == f.id && fr.incarnation == f.incarnation
	outcomes := make([]outcome, 0, len(fr.requests))
	for first, last := true, false; !last; first = false {
		if len(outcomes) < len(fr.requests) && restores(fr.requests[len(outcomes)]) {
			if err := f.st.prepare(); err != nil {
				return err
			}
		}
		began, from := time.Now(), len(outcomes)
		f.locked(func() {
			if first {
				f.st.advance(st)
				f.stamped = began
				if err = f.checks.compare(st.check); err != nil {
					return
				}
				if !f.st.begin(&fr) {
					last = true // a repeat, or one that must not be applied
					own = false
					return
				}
			}
			for weight := 0; len(outcomes) < len(fr.requests) && weight < chunk; {
				if weight > 0 && restores(fr.requests[len(outcomes)]) {
					break // it is prepared first, without the lock
				}
				out := f.st.apply(fr.requests[len(outcomes)], fr.origin, st)
				weight += max(1, len(out.steps))
				outcomes = append(outcomes, out)
				f.carryOutLocked(out.zxid)
			}
			if last = len(outcomes) == len(fr.requests); last {
				f.st.keep(&fr, outcomes)
				if len(outcomes) > 0 {
					f.checks.add(checkpoint{f.st.zxid, f.st.sum ^ mix(uint64(f.st.lastID))})
				}
			}
			f.moveLocked()
		})
		if err != nil {
			return err
		}
		if took := time.Since(began); took > slowApply && len(outcomes) > from {
			f.events.slow(took, outcomes[len(outcomes)-1].zxid)
		}
		if own {
			f.writes.applied(fr.number, from, outcomes[from:], last)
		}
	}
	f.events.took(time.Since(start))
	return nil
}

// changesKept bounds the room for changes that stays when they have been told: one deletion may make 200,000.
const changesKept = 16 * chunk

// carryOutLocked performs the effects of what was applied: events first, then the end of sessions.
func (f *fsm) carryOutLocked(zxid Zxid) {
	if old := f.st.replaced; old != nil {
		f.st.replaced = nil
		f.replacedLocked(old)
		f.events.restored(f.st.now)
	}
	for _, c := range f.st.changes {
		f.watches.fire(c, zxid)
	}
	if clear(f.st.changes); cap(f.st.changes) > changesKept {
		f.st.changes = nil
	}
	f.st.changes = f.st.changes[:0]
	if f.st.overSoft != "" {
		f.events.overSoft(f.st.overSoft)
		f.st.overSoft = ""
	}
	if f.st.ttls > 0 {
		f.stats.ttls.Add(f.st.ttls)
		f.st.ttls = 0
	}
	for _, id := range f.st.ended {
		if l := f.live[id]; l != nil {
			f.endLocked(l, f.st.session(id))
		}
	}
	f.st.ended = f.st.ended[:0]
}

// replacedLocked tells of the differences between the state before and the present one, and ends the handles of
// sessions that are not there any more.
func (f *fsm) replacedLocked(old *state) {
	f.watches.difference(old, f.st)
	for id, l := range f.live {
		if !l.readOnly && l.standing.Load() == standsKnown { // the state has nothing of the others
			f.endLocked(l, f.st.session(id))
		}
	}
}

// endLocked ends this member's handle of a session that is closed, expired, or attached anew; unless it is not.
func (f *fsm) endLocked(l *live, now *session) {
	if now != nil && now.mark == l.mark {
		return
	}
	st, err := StateExpired, error(ErrSessionExpired)
	switch {
	case now != nil:
		st, err = StateClosed, ErrSessionMoved
	case l.closing.Load():
		st, err = StateClosed, ErrClosed
	}
	f.dropLocked(l, st, err)
	f.events.expired(l.info())
}

// dropLocked ends a handle for good.
func (f *fsm) dropLocked(l *live, st State, err error) {
	delete(f.live, l.id)
	f.watches.endSession(l, st)
	l.finish(st, err)
}

// moveLocked wakes those who wait for the state to reach a point.
func (f *fsm) moveLocked() {
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
	}
}

// wait returns once reached holds, which is asked under the read lock. stop ends it with ErrClosed.
func (f *fsm) wait(ctx context.Context, stop <-chan struct{}, reached func() bool) error {
	for {
		f.mu.RLock()
		ok := reached()
		f.mu.RUnlock()
		if ok {
			return nil
		}
		f.mu.Lock()
		if reached() {
			f.mu.Unlock()
			return nil
		}
		if f.moved == nil {
			f.moved = make(chan struct{})
		}
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stop:
			return ErrClosed
		}
	}
}

// waitZxid returns once everything up to zxid is applied here.
func (f *fsm) waitZxid(ctx context.Context, stop <-chan struct{}, zxid Zxid) error {
	return f.wait(ctx, stop, func() bool { return f.st.zxid >= zxid })
}

// Snapshot freezes the state; Persist streams it later, beside further writes.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	if f.st.staged != nil {
		return nil, errStaged // snapshots do not have it: members that start from one would not know it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &fsmSnapshot{f, f.st.freeze()}, nil
}

type fsmSnapshot struct {
	fsm    *fsm
	frozen *frozen
}

// Persist writes the picture; an error leaves no snapshot behind.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	began := time.Now()
	n, err := s.frozen.write(stoppable{sink, s.fsm.stop}, s.fsm.reading)
	s.fsm.persisted.Store(&SnapshotInfo{Zxid: s.frozen.zxid, Bytes: n})
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	s.fsm.stats.snapshots.Add(time.Since(began))
	return nil
}

// stoppable makes writing a snapshot end when the member does.
type stoppable struct {
	w    io.Writer
	stop <-chan struct{}
}

func (s stoppable) Write(p []byte) (int, error) {
	select {
	case <-s.stop:
		return 0, ErrClosed
	default:
		return s.w.Write(p)
	}
}

// Release lets go of what was kept for the picture.
func (s *fsmSnapshot) Release() { s.fsm.closeView(s.frozen.view) }

func (f *fsm) reading(fn func()) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn()
}

// closeView lets go of a view, a little at a time.
func (f *fsm) closeView(v *view) {
	for more := true; more; {
		f.mu.Lock()
		more = v.tree.closeView(v, 16*chunk)
		f.mu.Unlock()
	}
}

// Restore replaces the state. The new one is built and verified aside; on an error the old one stays and the
// member stops. Watchers hear of the differences, and callers whose frames were jumped over get their results.
func (f *fsm) Restore(rc io.ReadCloser) (err error) {
	defer rc.Close()
	defer func() {
		if p := recover(); p != nil {
			err = &Error{Op: "restore", Code: ErrSystem, Err: fmt.Errorf("%v\n%s", p, debug.Stack())}
		}
		if err != nil {
			f.failed = err
			f.events.fail(err)
		}
	}()
	st, err := readSnapshot(rc)
	if err != nil {
		return err
	}
	var answered []keptFrame
	var last uint64
	f.locked(func() {
		old := f.st
		f.st, f.stamped = st, time.Now()
		f.checks = checkpoints{}
		f.replacedLocked(old)
		if o := st.origin(f.id); o != nil && o.incarnation == f.incarnation {
			answered, last = o.kept, o.last
		}
		f.moveLocked()
	})
	for _, k := range answered {
		f.writes.applied(k.number, 0, k.outcomes, true)
	}
	f.writes.jumped(last)
	f.events.configured(st.servers)
	f.events.epoch(st.term)
	return nil
}
