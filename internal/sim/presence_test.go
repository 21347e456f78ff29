// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// keeper is a Presence or a TTLPresence.
type keeper interface {
	Start(ctx context.Context) error
	Set(ctx context.Context, data []byte) error
	Stop(ctx context.Context) error
	Err() error
}

// stint is what is known of one keeper, from Start to Stop. Its data are its id and a number.
type stint struct {
	keeper
	id     string
	path   string
	mode   zk.CreateMode
	member *zk.Member
	bound  bool // to one session

	mu      sync.Mutex
	phase   stintPhase
	last    string   // that was acknowledged
	perhaps []string // those that may be written since
	final   zk.Zxid  // of a stint that has stopped: nothing is written after it
	up      bool     // what Published has told last
	over    bool     // Published is closed
}

type stintPhase uint8

const (
	stintStarting stintPhase = iota
	stintKept
	stintStopping // or it could not be started
	stintStopped
)

func (t *stint) set(phase stintPhase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = max(t.phase, phase)
}

// wrote notes what became of a Set.
func (t *stint) wrote(data string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.last, t.perhaps = data, nil
	case zk.MaybeApplied(err):
		t.perhaps = append(t.perhaps, data)
	}
}

// may says whether a znode that is read now may be ours and have that data.
func (t *stint) may(data string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.phase == stintStopped: // PRES-S3
		return fmt.Errorf("%s is there after Stop", data)
	case data != t.last && !slices.Contains(t.perhaps, data): // PRES-L1
		return fmt.Errorf("%q is there, it was set to %q, perhaps to %q", data, t.last, t.perhaps)
	}
	return nil
}

// remains says whether a znode of a stint may be there when everybody has had the time to go.
func (t *stint) remains(running bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase == stintKept && running || t.phase != stintStopped && (!running || t.bound) && t.mode&zk.Ephemeral == 0 {
		return nil
	}
	return fmt.Errorf("%s is left behind", t.id)
}

func idOf(data string) string {
	id, _, _ := strings.Cut(data, " ")
	return id
}

// presenceCheck knows all stints.
type presenceCheck struct {
	mu   sync.Mutex
	all  map[string]*stint
	next int
}

const (
	presenceRoot = "/presence"
	foreign      = "foreign"
)

func (c *presenceCheck) add(t *stint, client int) *stint {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	t.id = fmt.Sprint("stint-", client, "-", c.next)
	t.last = t.id + " 0"
	c.all[t.id] = t
	return t
}

// kept are those that are to be there.
func (c *presenceCheck) kept() (list []*stint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.all)) {
		t := c.all[id]
		t.mu.Lock()
		if t.phase == stintKept {
			list = append(list, t)
		}
		t.mu.Unlock()
	}
	return list
}

func (r *run) runs(m *zk.Member) bool {
	return slices.ContainsFunc(r.members(), func(i int) bool { return r.c.Member(i) == m && r.c.Up(i) })
}

func (r *run) presencePart() part {
	c := &presenceCheck{all: map[string]*stint{}}
	following := r.lasting()
	return part{"Presence", 4, func(client int, random *rand.Rand) {
		for r.idle(random, 1000) {
			m := r.member(random.IntN(r.c.Len()))
			if m == nil {
				continue
			}
			t := r.newStint(c, client, m, random)
			if t != nil && r.startStint(following, t, random) {
				r.keepStint(t, random)
			}
		}
	}, func(ctx context.Context, s *zk.Session) error {
		defer following.end()
		for _, t := range c.kept() {
			if t.bound { // it may have ended with its session
				r.stopStint(ctx, t)
			}
		}
		if err := r.tidy(ctx, s, c, presenceRoot); err != nil {
			return err
		}
		kept := slices.DeleteFunc(c.kept(), func(t *stint) bool { return !r.runs(t.member) })
		for range 2 { // the second time after all of it was deleted
			if err := r.eventually(ctx, func() error { return published(ctx, s, kept) }); err != nil {
				return err
			}
			if err := s.DeleteTree(ctx, presenceRoot); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return err
			}
		}
		for _, t := range c.kept() {
			r.stopStint(ctx, t)
		}
		return r.eventually(ctx, func() error {
			return errors.Join(gone(ctx, s, presenceRoot), r.watched(ctx, presenceRoot), closed(kept)) // PRES-S3, PRES-L2
		})
	}}
}

// newStint makes a Presence: at a path of the client's own, at one that several have, or at a numbered one.
func (r *run) newStint(c *presenceCheck, client int, m *zk.Member, random *rand.Rand) *stint {
	r.did("Presence")
	src := zk.SessionSource(m)
	bound := random.IntN(5) == 0
	if bound {
		ctx, cancel := context.WithTimeout(r.ctx, millis(2000))
		defer cancel()
		s, err := m.Session(ctx)
		if err != nil {
			return nil
		}
		src = s
	}
	t := c.add(&stint{path: fmt.Sprint(presenceRoot, "/own-", client), mode: zk.Ephemeral, member: m, bound: bound}, client)
	switch random.IntN(6) {
	case 0:
		t.path = presenceRoot + "/shared"
	case 1:
		t.path, t.mode = fmt.Sprint(presenceRoot, "/", t.id, "-"), zk.Ephemeral|zk.Sequential
	case 2:
		t.mode = zk.Persistent | zk.Parents
	}
	p := recipes.NewPresence(src, t.path, []byte(t.last))
	p.Mode, p.Replace = t.mode, random.IntN(2) == 0
	t.keeper = p
	return t
}

// startStint starts a keeper, and follows what it tells.
func (r *run) startStint(following *lasting, t *stint, random *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(10000)))
	defer cancel()
	if err := t.Start(ctx); err != nil {
		t.set(stintStopping)
		return false
	}
	t.set(stintKept)
	p, ok := t.keeper.(*recipes.Presence)
	if !ok {
		return true
	}
	states := p.Published()
	following.start(r, func() {
		for {
			select {
			case up, ok := <-states:
				t.mu.Lock()
				t.up, t.over = up, !ok
				t.mu.Unlock()
				if !ok {
					return
				}
			case <-following.ctx.Done():
				return
			}
		}
	})
	return true
}

// keepStint does to a presence what its owner and operators do, and stops it if there is time.
func (r *run) keepStint(t *stint, random *rand.Rand) {
	for n := 1; random.IntN(8) > 0 && r.runs(t.member); n++ {
		if !sleep(r.ctx, millis(random.IntN(3000))) {
			return // it is kept
		}
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(3000)))
		r.meddle(ctx, t, n, random)
		cancel()
	}
	for stopped := false; !stopped; {
		ctx, cancel := context.WithTimeout(r.whole, millis(1+random.IntN(4000)))
		stopped = r.stopStint(ctx, t)
		cancel()
	}
	ctx, cancel := context.WithTimeout(r.whole, millis(2000))
	defer cancel()
	r.seen(ctx, t, random)
}

// stopStint reports whether nothing more can be done.
func (r *run) stopStint(ctx context.Context, t *stint) bool {
	t.set(stintStopping)
	err := t.Stop(ctx)
	switch {
	case !r.runs(t.member):
		return true
	case err == nil:
		t.mu.Lock()
		t.phase, t.final = stintStopped, t.member.Applied()
		t.mu.Unlock()
		return true
	}
	if t.bound && errors.Is(err, zk.ErrSessionExpired) {
		return true
	}
	if ctx.Err() == nil && !r.stops(t.member) {
		r.t.Errorf("stopping %s: %v", t.id, err)
	}
	return ctx.Err() == nil
}

// seen reads what is there of a stint, by a read that is not older than the call, on any member.
func (r *run) seen(ctx context.Context, t *stint, random *rand.Rand) {
	s, err := r.source(random)
	if err != nil || s.Sync(ctx) != nil {
		return
	}
	paths := []string{t.path}
	if t.mode&zk.Sequential != 0 {
		names, _, err := s.Children(ctx, presenceRoot)
		if err != nil {
			return
		}
		paths = nil
		for _, name := range names {
			if path := presenceRoot + "/" + name; strings.HasPrefix(path, t.path) {
				paths = append(paths, path)
			}
		}
	}
	if len(paths) > 1 { // PRES-S1
		r.t.Errorf("several znodes of one presence: %q", paths)
	}
	for _, path := range paths {
		data, _, err := s.GetString(ctx, path)
		if err == nil && idOf(data) == t.id && r.runs(t.member) { // a crash leaves what it has begun to itself
			if err := t.may(data); err != nil {
				r.t.Errorf("%s: %v", path, err)
			}
		}
	}
}

func (r *run) meddle(ctx context.Context, t *stint, n int, random *rand.Rand) {
	switch random.IntN(6) {
	case 0, 1:
		data := fmt.Sprint(t.id, " ", n)
		t.wrote(data, t.Set(ctx, []byte(data)))
		r.seen(context.WithoutCancel(ctx), t, random)
	case 2, 3:
		r.seen(ctx, t, random)
	case 4: // an operator deletes it
		s, err := r.source(random)
		if err != nil {
			return
		}
		path := t.path
		if p, ok := t.keeper.(*recipes.Presence); ok {
			path = p.ActualPath()
		}
		if st, ok, err := s.Exists(ctx, path); err == nil && ok { // it may be done later than the call returns
			s.Txn(ctx, zk.OpCheckCreated(path, zk.Token(st.Czxid)), zk.OpDelete(path, zk.AnyVersion))
		}
	case 5: // an operator puts another one there, for a while; nobody else does at the client's own path
		s, err := r.source(random)
		if err != nil || t.mode&zk.Sequential != 0 || strings.HasSuffix(t.path, "/shared") {
			return
		}
		st, ok, err := s.Exists(ctx, t.path)
		if err != nil || !ok {
			return
		}
		results, err := s.Txn(ctx, zk.OpCheckCreated(t.path, zk.Token(st.Czxid)), zk.OpDelete(t.path, zk.AnyVersion), zk.OpCreate(t.path, []byte(foreign), zk.Persistent))
		if err != nil {
			return
		}
		if random.IntN(2) == 0 {
			stop, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(2000)))
			r.stopStint(stop, t) // PRES-S2
			cancel()
		}
		sleep(r.ctx, millis(random.IntN(2000)))
		end, cancel := context.WithTimeout(context.Background(), millis(2000))
		defer cancel()
		if s, err = r.source(random); err != nil {
			return
		}
		_, err = s.Txn(end, zk.OpCheckCreated(t.path, zk.Token(results[2].Stat.Czxid)), zk.OpDelete(t.path, zk.AnyVersion))
		if errors.Is(err, zk.ErrGuard) {
			r.t.Errorf("%s has deleted what belongs to another at %s", t.id, t.path)
		}
	}
}

// tidy deletes what is not kept by anybody who runs. Nothing may be there that somebody was to delete.
func (r *run) tidy(ctx context.Context, s *zk.Session, c *presenceCheck, root string) error {
	for z, err := range s.Walk(ctx, root, zk.Linearizable) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		if z.Path == root {
			continue
		}
		if z.Data != foreign {
			t := c.all[idOf(z.Data)]
			if t == nil {
				return fmt.Errorf("nobody knows %s: %q", z.Path, z.Data)
			}
			if err := t.remains(r.runs(t.member)); err != nil {
				return fmt.Errorf("%s: %w", z.Path, err)
			}
			if r.runs(t.member) && !t.bound {
				continue
			}
		}
		if err := s.Delete(ctx, z.Path, zk.AnyVersion); err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
	}
	return nil
}

// published checks that all of some are there: one of those who have one path.
func published(ctx context.Context, s *zk.Session, kept []*stint) error {
	there := map[string]int{}
	for _, t := range kept {
		path := t.path
		if p, ok := t.keeper.(*recipes.Presence); ok && t.mode&zk.Sequential != 0 {
			path = p.ActualPath()
		}
		there[path] += 0
		data, _, err := s.GetString(ctx, path, zk.Linearizable)
		t.mu.Lock()
		up := t.up
		t.mu.Unlock()
		if err == nil && idOf(data) == t.id {
			there[path]++
			if err := t.may(data); err != nil {
				return err
			}
			if why := t.Err(); !up || why != nil {
				return fmt.Errorf("%s is there, %s says %v: %v", path, t.id, up, why)
			}
		} else if up {
			return fmt.Errorf("%s says that it is there, at %s is %q (%v)", t.id, path, data, err)
		}
	}
	for path, n := range there {
		if n != 1 {
			return fmt.Errorf("%s is not there, or not of those who keep it", path)
		}
	}
	return nil
}

// gone checks that nothing is left below a znode.
func gone(ctx context.Context, s *zk.Session, root string) error {
	names, _, err := s.Children(ctx, root, zk.Linearizable)
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	if len(names) > 0 {
		return fmt.Errorf("%q are left in %s", names, root)
	}
	return err
}

func closed(list []*stint) error {
	for _, t := range list {
		t.mu.Lock()
		over := t.over
		t.mu.Unlock()
		if !over {
			return fmt.Errorf("%s has stopped, and Published is open", t.id)
		}
	}
	return nil
}

func TestPresenceChecker(t *testing.T) {
	maybe := &zk.Error{Code: zk.ErrUnavailable, MaybeApplied: true}
	for _, j := range []struct {
		name string
		ok   bool
		fn   func(t *stint) error
	}{
		{"as it began", true, func(t *stint) error { return t.may("a 0") }},
		{"set", true, func(t *stint) error { t.wrote("a 1", nil); return t.may("a 1") }},
		{"perhaps", true, func(t *stint) error { t.wrote("a 1", maybe); return errors.Join(t.may("a 1"), t.may("a 0")) }},
		{"refused", false, func(t *stint) error { t.wrote("a 1", zk.ErrBadArguments); return t.may("a 1") }},
		{"republished with old data", false, func(t *stint) error { t.wrote("a 1", nil); return t.may("a 0") }},
		{"replaced, and perhaps", false, func(t *stint) error { t.wrote("a 1", maybe); t.wrote("a 2", nil); return t.may("a 1") }},
		{"after Stop", false, func(t *stint) error { t.set(stintStopped); return t.may("a 0") }},
		{"kept", true, func(t *stint) error { return t.remains(true) }},
		{"kept, and crashed", false, func(t *stint) error { return t.remains(false) }},
		{"never started", false, func(t *stint) error { t.set(stintStopping); return t.remains(true) }},
		{"stopped", false, func(t *stint) error { t.set(stintStopped); return t.remains(true) }},
		{"persistent, and crashed", true, func(t *stint) error { t.mode = zk.Persistent; return t.remains(false) }},
		{"persistent, stopped, and crashed", false, func(t *stint) error { t.mode = zk.Persistent; t.set(stintStopped); return t.remains(false) }},
	} {
		s := &stint{id: "a", mode: zk.Ephemeral, last: "a 0", phase: stintKept}
		if err := j.fn(s); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
	if closed([]*stint{{over: true}}) != nil || closed([]*stint{{over: true}, {}}) == nil {
		t.Error("a channel that stays open is not seen")
	}
}
