// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
	"unsafe"
)

// stepClock makes it look as if the wall clock had run ahead of the monotonic one by d since the last tick: that is what a
// program sees of a host that slept, or of a clock that was set.
func stepClock(c *clock, d time.Duration) {
	last := *c.seen.Load()
	(*struct {
		wall uint64
		ext  int64 // the monotonic reading
	})(unsafe.Pointer(&last)).ext += int64(d)
	c.seen.Store(&last)
}

// A lease ends when the clock says so, whether or not a timer has run; at once where the wall clock has run ahead of
// the monotonic one by more than the margin; and not for a clock that was set back or by less (SS-36, D28).
func TestLeaseByClock(t *testing.T) {
	const timeout, margin = 10 * time.Second, time.Second
	for _, tc := range []struct {
		name string
		ago  time.Duration // the lease began
		step time.Duration
		want State
	}{
		{"in time", timeout / 2, 0, StateActive},
		{"at its end", timeout - margin, 0, StateSuspended},
		{"a small step", 0, margin / 2, StateActive},
		{"a step", 0, margin + time.Millisecond, StateSuspended},
		{"an hour's sleep", 0, time.Hour, StateSuspended},
		{"set back", 0, -time.Hour, StateActive},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &Member{cfg: Config{LeaseMargin: margin}, log: slog.New(slog.DiscardHandler)}
			m.clock.start(time.Now)
			l := newLive(m, 1, 1, SessionConfig{Timeout: timeout}, time.Now().Add(-tc.ago)) // without its timer
			defer l.finish(StateClosed, ErrClosed)
			s := &Session{live: l}
			lease := s.Context()
			stepClock(&m.clock, tc.step)
			if st := s.State(); st != tc.want {
				t.Errorf("state %v, want %v", st, tc.want)
			}
			if over := errors.Is(context.Cause(lease), ErrSuspended); over != (tc.want == StateSuspended) || over != (lease.Err() != nil) {
				t.Errorf("the lease: %v", context.Cause(lease))
			}
			// The next acknowledged heartbeat brings it back; one that was sent before the lease's end and is
			// heard of too late does not.
			m.clock.tick()
			l.renew(time.Now().Add(margin - timeout))
			if st := s.State(); st != tc.want {
				t.Errorf("after a late answer: %v", st)
			}
			l.renew(time.Now())
			if st := s.State(); st != StateActive || s.Context().Err() != nil {
				t.Errorf("after a heartbeat: %v, %v", st, s.Context().Err())
			}
			if tc.want == StateSuspended && lease.Err() == nil {
				t.Error("what was over is no longer over")
			}
		})
	}
}
