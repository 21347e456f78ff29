// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// ttlCheck knows who keeps a znode with a time to live, and how its incarnations have ended.
type ttlCheck struct {
	presenceCheck
	ttl time.Duration

	mu     sync.Mutex
	doomed map[zk.Zxid]bool // incarnations that an operator deletes
	ends   []ttlEnd
}

// ttlEnd is the end of an incarnation, as one member saw it.
type ttlEnd struct {
	last zk.Stat
	by   string    // who has created it
	at   time.Time // when it was gone at the latest, by the ensemble's time
}

const ttlPath = "/kept"

// shortLived finds a znode that has gone before its time was over, although nobody deleted it. Who could not start may have
// deleted what it had created.
func (c *ttlCheck) shortLived() error {
	for _, e := range c.ends {
		if t := c.all[e.by]; c.doomed[e.last.Czxid] || t == nil || t.phase == stintStarting || t.phase == stintStopping {
			continue
		}
		if err := reaped(e.last.Mtime, c.ttl, e.at); err != nil {
			return fmt.Errorf("%+v: %w", e, err)
		}
	}
	return nil
}

// late finds a write of somebody who has stopped (PRES-S3).
func (c *ttlCheck) late(z zk.Znode) error {
	c.presenceCheck.mu.Lock()
	t := c.all[idOf(z.Data)]
	c.presenceCheck.mu.Unlock()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase == stintStopped && z.Stat.Mzxid > t.final {
		return fmt.Errorf("%q is written at %v, it was stopped at %v", z.Data, z.Stat.Mzxid, t.final)
	}
	return nil
}

func (r *run) ttlPart() part {
	c := &ttlCheck{presenceCheck: presenceCheck{all: map[string]*stint{}}, ttl: r.timeout / 2, doomed: map[zk.Zxid]bool{}}
	following := r.lasting()
	return part{"TTLPresence", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			following.onEach(r, func(i int, m *zk.Member, _ *rand.Rand) { r.followKept(following.ctx, c, m) })
		}
		for r.idle(random, 1000) {
			m := r.member(random.IntN(r.c.Len()))
			if m == nil {
				continue
			}
			r.did("TTLPresence")
			t := c.add(&stint{path: ttlPath, mode: zk.Persistent, member: m}, client)
			p := recipes.NewTTLPresence(m, ttlPath, c.ttl)
			p.Data = []byte(t.last)
			t.keeper = p
			if r.startStint(following, t, random) {
				r.keepTTL(c, t, random)
			}
		}
	}, func(ctx context.Context, s *zk.Session) error {
		defer following.end()
		if err := r.outlives(ctx, c, s); err != nil {
			return err
		}
		following.end()
		c.mu.Lock()
		defer c.mu.Unlock()
		return errors.Join(c.shortLived(), r.watched(ctx, ttlPath)) // PRES-L2
	}}
}

func (r *run) keepTTL(c *ttlCheck, t *stint, random *rand.Rand) {
	for n := 1; random.IntN(8) > 0 && r.runs(t.member); n++ {
		if !sleep(r.ctx, millis(random.IntN(3000))) {
			return // it is kept
		}
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(3000)))
		switch random.IntN(4) {
		case 0, 1:
			data := fmt.Sprint(t.id, " ", n)
			t.wrote(data, t.Set(ctx, []byte(data)))
		case 2: // an operator
			if s, err := r.source(random); err == nil {
				if st, ok, err := s.Exists(ctx, ttlPath); err == nil && ok {
					c.delete(ctx, s, st)
				}
			}
		}
		cancel()
	}
	for stopped := false; !stopped; {
		ctx, cancel := context.WithTimeout(r.whole, millis(1+random.IntN(4000)))
		stopped = r.stopStint(ctx, t)
		cancel()
	}
}

func (c *ttlCheck) delete(ctx context.Context, s *zk.Session, st zk.Stat) error {
	c.mu.Lock()
	c.doomed[st.Czxid] = true
	c.mu.Unlock()
	_, err := s.Txn(ctx, zk.OpCheckCreated(ttlPath, zk.Token(st.Czxid)), zk.OpDelete(ttlPath, zk.AnyVersion))
	return err
}

// followKept notes when incarnations end, as long as a member's session lasts.
func (r *run) followKept(ctx context.Context, c *ttlCheck, m *zk.Member) {
	s, err := m.Session(ctx)
	if err != nil {
		return
	}
	var last zk.Znode
	var by string
	for z, err := range s.WatchValue(ctx, ttlPath) {
		if err != nil {
			return
		}
		if err := c.late(z); err != nil {
			r.t.Error(err)
		}
		if z.Stat.Czxid != last.Stat.Czxid {
			at := s.Now()
			if z.Stat.Czxid != 0 {
				at = z.Stat.Ctime
			}
			c.mu.Lock()
			c.ends = append(c.ends, ttlEnd{last.Stat, by, at})
			c.mu.Unlock()
			if by = ""; z.Stat.Version == 0 {
				by = idOf(z.Data)
			}
		}
		last = z
	}
}

// outlives checks, with everything healed, that the znode is there as long as somebody keeps it, with the data of one who
// does, and then for its time to live and not for ever.
func (r *run) outlives(ctx context.Context, c *ttlCheck, s *zk.Session) error {
	var st zk.Stat
	there := func() (err error) {
		data := ""
		if data, st, err = s.GetString(ctx, ttlPath, zk.Linearizable); err != nil {
			return err
		}
		for _, t := range c.kept() {
			if t.id == idOf(data) && r.runs(t.member) {
				return t.may(data)
			}
		}
		return fmt.Errorf("%q is of nobody who keeps it", data)
	}
	for _, t := range c.kept() {
		if !r.runs(t.member) {
			t.set(stintStopping)
		}
	}
	if len(c.kept()) > 0 {
		if err := r.eventually(ctx, there); err != nil {
			return err
		}
		if err := c.delete(ctx, s, st); err != nil { // PRES-L1
			return err
		}
		if err := r.eventually(ctx, there); err != nil {
			return err
		}
		made := st.Czxid
		for end := time.Now().Add(2*c.ttl + 6*time.Second); time.Now().Before(end) && r.dir == ""; sleep(ctx, 200*time.Millisecond) { // the leader looks meanwhile
			if err := there(); err != nil {
				return err
			}
			if st.Czxid != made {
				return fmt.Errorf("%s was not renewed in time", ttlPath)
			}
		}
		for _, t := range c.kept() {
			r.stopStint(ctx, t)
		}
		var err error
		if st, _, err = s.Exists(ctx, ttlPath, zk.Linearizable); err != nil || st.Czxid == 0 {
			return fmt.Errorf("%s is gone with its last keeper (%v)", ttlPath, err)
		}
	}
	absent := func() error {
		_, ok, err := s.Exists(ctx, ttlPath, zk.Linearizable)
		if ok {
			return fmt.Errorf("%s outlives its time", ttlPath)
		}
		return err
	}
	if err := r.eventually(ctx, absent); err != nil {
		return err
	}
	sleep(ctx, c.ttl)
	return absent() // PRES-S3
}

func TestTTLPresenceChecker(t *testing.T) {
	at := time.UnixMilli(100_000)
	st := zk.Stat{Czxid: 5, Mzxid: 7, Mtime: at}
	for _, j := range []struct {
		name  string
		ok    bool
		end   ttlEnd
		phase stintPhase
	}{
		{"in time", true, ttlEnd{st, "a", at.Add(time.Second)}, stintKept},
		{"too early", false, ttlEnd{st, "a", at.Add(999 * time.Millisecond)}, stintKept},
		{"too early after Stop", false, ttlEnd{st, "a", at.Add(999 * time.Millisecond)}, stintStopped},
		{"never started", true, ttlEnd{st, "a", at}, stintStopping},
		{"not known by whom", true, ttlEnd{st, "", at}, stintKept},
		{"deleted", true, ttlEnd{zk.Stat{Czxid: 6, Mtime: at}, "a", at}, stintKept},
	} {
		c := &ttlCheck{presenceCheck: presenceCheck{all: map[string]*stint{"a": {phase: j.phase, final: 9}}}, ttl: time.Second, doomed: map[zk.Zxid]bool{6: true}, ends: []ttlEnd{j.end}}
		if err := c.shortLived(); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
		for _, mzxid := range []zk.Zxid{9, 10} {
			err := c.late(zk.Znode{Data: "a 1", Stat: zk.Stat{Mzxid: mzxid}})
			if (err != nil) != (j.phase == stintStopped && mzxid == 10) {
				t.Errorf("%s, written at %v: %v", j.name, mzxid, err)
			}
		}
	}
}
