// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// clocks are the members' wall clocks: each is wrong in its own way, and some jump.
type clocks struct {
	mu   sync.Mutex
	rand *rand.Rand
	off  map[int]time.Duration
}

func newClocks(seed uint64) *clocks {
	return &clocks{rand: rand.New(rand.NewPCG(seed, 3)), off: map[int]time.Duration{}}
}

// wrong is a member's first error: up to three hours.
func (c *clocks) wrong() time.Duration {
	return time.Duration(c.rand.Int64N(int64(6*time.Hour))) - 3*time.Hour
}

func (c *clocks) configure(i int, cfg *zk.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.off[i]; !ok {
		c.off[i] = c.wrong()
	}
	cfg.Now = func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return time.Now().Add(c.off[i])
	}
}

func (c *clocks) jump(i int, by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[i] += by
}

// stampCheck collects which zxid bears which time.
type stampCheck struct {
	mu   sync.Mutex
	seen map[zk.Zxid]int64
	err  error
}

func newStampCheck() *stampCheck { return &stampCheck{seen: map[zk.Zxid]int64{}} }

func (c *stampCheck) see(st zk.Stat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seeLocked(st.Czxid, st.Ctime)
	c.seeLocked(st.Mzxid, st.Mtime)
}

func (c *stampCheck) seeLocked(z zk.Zxid, at time.Time) {
	if before, ok := c.seen[z]; ok && before != at.UnixMilli() {
		c.err = fmt.Errorf("zxid %v is of %v and of %v", z, time.UnixMilli(before), at)
	}
	c.seen[z] = at.UnixMilli()
}

// check says whether times never go back with zxids (E9).
func (c *stampCheck) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	type stamp struct {
		zxid zk.Zxid
		at   int64
	}
	var all []stamp
	for z, at := range c.seen {
		all = append(all, stamp{z, at})
	}
	slices.SortFunc(all, func(a, b stamp) int { return cmp.Compare(a.zxid, b.zxid) })
	for i := 1; i < len(all); i++ {
		if all[i].at < all[i-1].at {
			return fmt.Errorf("zxid %v is of %v, zxid %v of %v", all[i-1].zxid, time.UnixMilli(all[i-1].at), all[i].zxid, time.UnixMilli(all[i].at))
		}
	}
	return c.err
}

// presence is what one incarnation of a member has said the time is.
type presence struct {
	member *zk.Member
	now    time.Time
}

// says takes the ensemble's time as a member knows it: it never goes back.
func (p *presence) says(m *zk.Member, now time.Time) error {
	if p.member == m && now.Before(p.now) {
		return fmt.Errorf("%s: the time goes back from %v to %v", m.ID(), p.now, now)
	}
	p.member, p.now = m, now
	return nil
}

// mortalClient makes znodes with a time to live and waits for their end, which never comes early (DM-82).
func (r *run) mortalClient(client int, random *rand.Rand) {
	for i := 0; r.idle(random, 1000); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("TTL")
		path, ttl := fmt.Sprintf("/ttl/%d.%d", client, i), millis(1+random.IntN(8000))
		ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
		results, err := s.Txn(ctx, zk.OpCreate(path, nil, zk.Persistent).WithTTL(ttl))
		cancel()
		if err != nil {
			continue
		}
		born := results[0].Stat
		for sleep(r.ctx, millis(100+random.IntN(1000))) {
			if s, err = r.source(random); err != nil {
				continue
			}
			if s.LastZxid() < born.Czxid {
				continue
			}
			st, ok, err := s.Exists(r.ctx, path)
			if err != nil {
				continue
			}
			if ok {
				r.stamps.see(st)
				continue
			}
			if err := reaped(born.Mtime, ttl, s.Now()); err != nil {
				r.t.Errorf("%s: %v", path, err)
			}
			break
		}
	}
}

func reaped(since time.Time, ttl time.Duration, now time.Time) error {
	if due := since.Add(ttl); now.Before(due) {
		return fmt.Errorf("gone at %v, %v before its time", now, due.Sub(now))
	}
	return nil
}

// mortal waits until the last of them is gone.
func (r *run) mortal(ctx context.Context, s *zk.Session) {
	for {
		names, _, err := s.Children(ctx, "/ttl")
		if err == nil && len(names) == 0 || errors.Is(err, zk.ErrNoNode) {
			return
		}
		if !sleep(ctx, time.Second) {
			r.t.Errorf("znodes outlive their time: %v %v", names, err)
			return
		}
	}
}

func TestClockChecker(t *testing.T) {
	at := time.UnixMilli(1000)
	st := func(z zk.Zxid, ms int64) zk.Stat {
		return zk.Stat{Czxid: z, Mzxid: z, Ctime: time.UnixMilli(ms), Mtime: time.UnixMilli(ms)}
	}
	for _, c := range []struct {
		name  string
		ok    bool
		stats []zk.Stat
	}{
		{"in order", true, []zk.Stat{st(2, 20), st(1, 10), st(3, 20)}},
		{"back", false, []zk.Stat{st(2, 20), st(1, 10), st(3, 19)}},
		{"two times for one zxid", false, []zk.Stat{st(2, 20), st(2, 21)}},
	} {
		check := newStampCheck()
		for _, st := range c.stats {
			check.see(st)
		}
		if err := check.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	m, err := zk.Open(t.Context(), zk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var p presence
	if p.says(m, at) != nil || p.says(m, at.Add(1)) != nil || p.says(m, at) == nil {
		t.Error("a time that goes back is not seen")
	}
	if reaped(at, time.Second, at.Add(time.Second)) != nil || reaped(at, time.Second, at.Add(time.Millisecond)) == nil {
		t.Error("an early end is not seen")
	}
}
