// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// errEnded is the outcome of a goroutine that ended without returning.
var errEnded = errors.New("its goroutine has ended")

// spawn calls f on a goroutine of its own and returns where its error will be. A panic, a fault on mapped memory and a
// goroutine that ends are errors too.
func spawn(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := errEnded
		defer func() { done <- err }()
		err = Protect(f)
	}()
	return done
}

// await returns what comes out of done, or a StallError once that takes longer than limit.
func await(done <-chan error, op string, limit time.Duration) error {
	if limit < 0 {
		return <-done
	}
	tick := time.NewTicker(max(limit/stallTicks, 1))
	defer tick.Stop()
	for range stallTicks {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
	}
	return &StallError{op, limit}
}

// call runs f, which uses log, stable or snapshots, and waits for it no longer than limit. It gives up on a call that
// takes longer: f must not touch what its caller may change then.
func (s *Store) call(op string, limit time.Duration, f func() error) error {
	s.mu.Lock()
	err := s.err
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.calls++
	s.mu.Unlock()
	return await(spawn(func() error {
		defer s.returned()
		return f()
	}), op, limit)
}

// returned notes the end of a call.
func (s *Store) returned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.calls == 0 && s.closed {
		close(s.idle)
	}
}

// attempt is a call that fails the store where it returns an error.
func (s *Store) attempt(op string, limit time.Duration, f func() error) error {
	err := s.call(op, limit, f)
	if err == nil || err == ErrClosed {
		return err
	}
	if _, stalled := errors.AsType[*StallError](err); !stalled { // a StallError has it
		err = fmt.Errorf("%s: %w", op, err)
	}
	return s.fail(err)
}

const (
	slowWrite = time.Second // is worth a warning
	warnEvery = 10 * time.Second
)

// write is an attempt at what changes log or stable: one after the other, and none after a failure.
func (s *Store) write(op string, f func() error) error {
	select {
	case s.writing <- struct{}{}:
	case <-s.dead:
		return s.failure()
	}
	began := time.Now()
	err := s.attempt(op, s.stall, f)
	if took := time.Since(began); err == nil {
		s.onWrite(took)
		if took > slowWrite && began.Sub(s.warned) > warnEvery {
			s.warned = began // guarded by writing
			s.logger.Warn("slow disk", "op", op, "took", took)
		}
	}
	if err == nil || err == ErrClosed {
		<-s.writing // after a failure nobody gets it: what was given up on may still be running
	}
	return err
}

// fail makes err the store's failure if it is the first, and returns the first.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	s.err = err
	close(s.dead)
	s.mu.Unlock()
	s.logger.Debug("store failed", "err", err)
	if s.onFail != nil {
		s.onFail(err)
	}
	return err
}

// failure returns the first failure, or nil.
func (s *Store) failure() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.err
}

// orEnd returns err where raft can live with it. Otherwise it is the store's failure and ends the calling goroutine.
func (s *Store) orEnd(err error) error {
	if err != nil && err != ErrClosed {
		s.fail(err)
		runtime.Goexit()
	}
	return err
}

// Guard calls f, which may start raft, where it does no harm that f panics or that the store ends its goroutine: both
// become an error.
func (s *Store) Guard(f func() error) error {
	err := <-spawn(f)
	if failure := s.failure(); err == errEnded && failure != nil {
		return failure
	}
	return err
}

// Stalled reports that the store has failed. The member must neither send what it may not have written nor vote: that
// way the others elect one that can.
func (s *Store) Stalled() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// Close refuses further calls, waits for those that run, and releases what the store stands on. It waits no longer
// than Config.Stall, and not at all for a call that has stalled before; then it returns a *StallError, and the release
// follows when the call returns, if ever. Closing twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	if s.calls == 0 && !again {
		close(s.idle)
	}
	stalled, hung := errors.AsType[*StallError](s.err)
	hung = hung && s.calls > 0
	s.mu.Unlock()
	if again {
		<-s.ended
		return s.closeErr
	}
	defer close(s.ended)
	done := spawn(func() error {
		<-s.idle
		if s.release == nil {
			return nil
		}
		return s.release()
	})
	if hung {
		s.closeErr = stalled
	} else {
		s.closeErr = await(done, "closing the store", s.stall)
	}
	return s.closeErr
}
