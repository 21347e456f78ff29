// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// life is what is known of one session with one ephemeral.
type life struct {
	id       zk.SessionID
	path     string
	timeout  time.Duration
	deadline time.Time // the latest at which the lease was to end, as its owner saw it while Active
	closing  time.Time // when its owner began to close it; zero if it did not
	gone     time.Time // when a member first told that the ephemeral is gone; zero if none has
}

// lifeCheck knows all of them.
type lifeCheck struct {
	mu     sync.Mutex
	lives  []*life
	byPath map[string]*life
}

func newLifeCheck() *lifeCheck { return &lifeCheck{byPath: map[string]*life{}} }

func (c *lifeCheck) list() (list []life) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lives {
		list = append(list, *l)
	}
	return list
}

func (c *lifeCheck) begin(l *life) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives = append(c.lives, l)
	c.byPath[l.path] = l
}

// look samples the lease.
func (c *lifeCheck) look(l *life, s *zk.Session) zk.State {
	deadline := s.Deadline() // it only moves forward
	st := s.State()
	if st == zk.StateActive {
		c.mu.Lock()
		defer c.mu.Unlock()
		l.deadline = deadline
	}
	return st
}

// heard takes a Deleted event of a member.
func (c *lifeCheck) heard(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.byPath[path]; l != nil && l.gone.IsZero() {
		l.gone = time.Now()
	}
}

// early finds a session that expired before its owner had to expect it (P9, P11).
func early(lives []life) error {
	for _, l := range lives {
		if l.gone.IsZero() || !l.closing.IsZero() && !l.gone.Before(l.closing) {
			continue
		}
		if l.gone.Before(l.deadline) {
			return fmt.Errorf("session %v: %s vanished %v before the lease's end", l.id, l.path, l.deadline.Sub(l.gone))
		}
	}
	return nil
}

const longestLife = 2 // times the default timeout

// lifeName is the name of the sessions that are watched for when they end.
const lifeName = "life"

func (r *run) sessionClient(client int, random *rand.Rand) {
	for i := 0; r.idle(random, 1000); i++ {
		m := r.member(random.IntN(r.c.Len()))
		if m == nil {
			continue
		}
		r.did("sessions")
		ctx, cancel := context.WithTimeout(r.ctx, 3*time.Second)
		timeout := r.timeout/2 + time.Duration(random.Int64N(int64(longestLife*r.timeout-r.timeout/2)))
		s, err := m.NewSession(ctx, zk.SessionConfig{Timeout: timeout, Name: lifeName})
		if err == nil {
			r.live(ctx, s, fmt.Sprintf("/live/%d.%d", client, i), random)
		}
		cancel()
	}
}

// live is the life of one session.
func (r *run) live(ctx context.Context, s *zk.Session, path string, random *rand.Rand) {
	l := &life{id: s.ID(), path: path, timeout: s.Timeout()}
	r.lives.begin(l)
	_, err := s.Create(ctx, path, nil, zk.Ephemeral)
	created := err == nil
	for end := time.Now().Add(millis(random.IntN(20000))); time.Now().Before(end) && r.ctx.Err() == nil; {
		st := r.lives.look(l, s)
		if st == zk.StateExpired {
			if left := time.Until(l.deadline); left > 0 { // P11
				r.t.Errorf("session %v expired %v before the lease's end", s.ID(), left)
			}
			if _, err := s.Create(ctx, path+"-late", nil, zk.Ephemeral); err == nil { // P12, SS-13
				r.t.Errorf("session %v wrote after it had expired", s.ID())
			}
		}
		if st > zk.StateSuspended {
			return
		}
		if created {
			_, ok, err := s.Exists(context.Background(), path)
			if now := s.State(); err == nil && !ok && now == zk.StateActive { // DM-124, P11
				r.t.Errorf("%s is gone, its session %v is %v", path, s.ID(), now)
			}
		}
		if random.IntN(200) == 0 {
			if m := r.member(random.IntN(r.c.Len())); m != nil {
				r.h.note("kill session %v", s.ID())
				kill, cancel := context.WithTimeout(r.ctx, time.Second)
				m.KillSession(kill, s.ID())
				cancel()
			}
		}
		time.Sleep(millis(20 + random.IntN(200)))
	}
	r.lives.mu.Lock()
	l.closing = time.Now()
	r.lives.mu.Unlock()
	s.Close()
}

// buried reports which of the sessions that are over the ensemble still has (P10).
func buried(lives []life, have map[zk.SessionID]bool) error {
	for _, l := range lives {
		if have[l.id] {
			return fmt.Errorf("session %v of %s is there for ever", l.id, l.path)
		}
	}
	return nil
}

func TestLifeChecker(t *testing.T) {
	now := time.Now()
	lease := now.Add(time.Second)
	for _, c := range []struct {
		name string
		ok   bool
		life life
	}{
		{"alive", true, life{deadline: lease}},
		{"expired in time", true, life{deadline: lease, gone: lease.Add(time.Millisecond)}},
		{"closed", true, life{deadline: lease, closing: now, gone: now}},
		{"expired early", false, life{deadline: lease, gone: now}},
		{"expired early, then closed", false, life{deadline: lease, gone: now, closing: now.Add(time.Millisecond)}},
	} {
		if err := early([]life{c.life}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if buried([]life{{id: 7}}, map[zk.SessionID]bool{7: true}) == nil || buried([]life{{id: 7}}, map[zk.SessionID]bool{8: true}) != nil {
		t.Error("buried does not see who is there")
	}
}
