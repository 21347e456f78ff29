// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// What the server can do at present.
type service uint8

const (
	servingNothing service = iota
	servingReadOnly
	servingAll
)

type serving struct {
	mu      sync.Mutex
	what    service
	changed chan struct{} // closed when what changes; nil while nobody waits for that
}

func (s *serving) now() service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.what
}

// still tells whether what was the case when a connection began is so now that it has a session.
func (s *serving) still(what service) bool { return s.now() == what }

// readOnlyAfter is for how long there must be no leader before read-only service begins (SS-26).
const readOnlyAfter = 2 * time.Second

// watchEvery is how often sessions are looked at whose leader may not confirm them any more.
const watchEvery = 500 * time.Millisecond

// follow is the goroutine that knows whether there is a leader.
func (s *Server) follow() {
	grace := s.LeaderGrace
	if grace == 0 {
		grace = 2 * time.Second
	}
	known := make(chan bool, 1) // whether there is a leader: the newest
	s.work.Go(func() {
		for info, err := range s.Member.Roles(s.life) {
			if err != nil {
				return
			}
			select {
			case <-known:
			default:
			}
			known <- info.Leader != ""
		}
		<-s.Member.Done()
		s.stop()
		for _, c := range s.all() {
			c.end(errNoLeader)
		}
	})
	ready := make(chan error, 1)
	asking := false
	without := time.NewTimer(max(grace, 0)) // since there was no leader: first nothing is served, then reads are
	look := time.NewTicker(watchEvery)
	defer func() {
		without.Stop()
		look.Stop()
	}()
	leader, patient := false, true
	for {
		select {
		case now := <-known:
			if now == leader {
				continue // another role or term, which are many while no leader is found
			}
			if leader = now; leader {
				without.Stop()
				if !asking {
					asking = true
					s.work.Go(func() { ready <- s.Member.Ready(s.life) })
				}
			} else {
				patient = true
				without.Reset(max(grace, 0))
			}
		case err := <-ready:
			asking = false
			if err == nil && leader {
				s.serveWhat(servingAll)
			} else if leader && s.life.Err() == nil && s.Member.Err() == nil {
				asking = true
				s.work.Go(func() { ready <- s.Member.Ready(s.life) })
			}
		case <-without.C:
			switch {
			case leader:
			case patient: // the grace is over
				patient = false
				s.serveWhat(servingNothing)
				without.Reset(readOnlyAfter - min(max(grace, 0), readOnlyAfter))
			case s.ReadOnly:
				s.serveWhat(servingReadOnly)
			}
		case <-look.C:
			s.endSuspended()
		case <-s.Member.Done():
			s.serveWhat(servingNothing)
			return
		case <-s.life.Done():
			return
		}
	}
}

// Ready returns once the server serves reads and writes: the member has a leader and has caught up with it. An error
// says why it stopped waiting: ctx, ErrServerClosed, or the member's end.
func (s *Server) Ready(ctx context.Context) error {
	if s.Member == nil {
		return errNoMember
	}
	s.start()
	for {
		if s.isClosing() {
			return s.ended()
		}
		s.state.mu.Lock()
		if s.state.what == servingAll {
			s.state.mu.Unlock()
			return nil
		}
		if s.state.changed == nil {
			s.state.changed = make(chan struct{})
		}
		changed := s.state.changed
		s.state.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.life.Done():
			return s.ended()
		case <-s.Member.Done():
			return s.ended()
		}
	}
}

// serveWhat changes what is served; connections of another kind of service are closed (OP-60, SS-30).
func (s *Server) serveWhat(what service) {
	s.state.mu.Lock()
	changed := s.state.what != what
	s.state.what = what
	if changed && s.state.changed != nil {
		close(s.state.changed)
		s.state.changed = nil
	}
	s.state.mu.Unlock()
	if !changed {
		return
	}
	s.log.Info("service", "now", [...]string{"none", "read-only", "all"}[what])
	for _, c := range s.all() {
		c.mu.Lock()
		other := c.listener != nil && (what == servingNothing || c.readOnly != (what == servingReadOnly))
		c.mu.Unlock()
		if other {
			c.end(errNoLeader)
		}
	}
}

// endSuspended closes the connections of clients that are alive and whose sessions the leader does not confirm: they
// may find a member that reaches it (D29).
func (s *Server) endSuspended() {
	for _, c := range s.all() {
		c.mu.Lock()
		session := c.session
		c.mu.Unlock()
		if session != nil && session.State() == zk.StateSuspended && time.Since(c.usage.lastHeard()) < session.Timeout()/3 {
			c.end(errSuspended)
		}
	}
}

// protect keeps a fault of this package within its connection.
func (s *Server) protect(c *conn) {
	if p := recover(); p != nil {
		s.stats.panics.Add(1)
		s.log.Error("panic", "client", c.addr, "panic", p, "stack", string(debug.Stack()))
		c.end(errFinished)
	}
}

// broke counts and tells that a client broke a rule; its connection ends.
func (s *Server) broke(c *conn, how string) {
	s.stats.broken.Add(1)
	s.noise.say(how, c.addr)
}

// unasked counts and tells that no request for a session came, or none that can be read; the connection ends.
func (s *Server) unasked(c *conn, what string, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.stats.silent.Add(1)
	}
	s.broke(c, what+": "+err.Error())
}

// farewell counts how a connection with a session ended. A session that ended because nothing was heard of its client for
// as long as its timeout, before or after the deadline of the read, ended for a rule (WP-17, SS-10).
func (s *Server) farewell(c *conn, why error) {
	if !c.leaving.Load() {
		s.stats.dropped.Add(1)
	}
	switch {
	case why == errSlow:
		s.stats.slow.Add(1)
		s.broke(c, why.Error())
	case why == errFrameTooLarge:
		s.stats.tooLong.Add(1)
		s.broke(c, why.Error())
	case why == errBadFrame:
		s.broke(c, why.Error())
	case why == errOver, errors.Is(why, os.ErrDeadlineExceeded):
		if time.Since(c.usage.lastHeard()) >= c.timeout {
			s.broke(c, "no request for the timeout of the session")
		}
	}
	s.log.Debug("connection closed", "client", c.addr, "session", c.session.ID(), "why", why)
}
