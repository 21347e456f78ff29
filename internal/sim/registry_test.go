// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	registryBase = "/registry"
	serviceName  = "mail"
)

// filing is what is known of one instance: its payload is 1 when it is registered, and one more with each update.
type filing struct {
	tried  []int64 // when payload i+1 was first written
	shown  []int64 // when it was acknowledged; 0: never
	listed []span  // times in which it is there
	absent []span  // times in which it is not
}

// span is a time in which something is so. It is open if it ends forever.
type span struct{ from, until int64 }

func (s span) covers(l listing) bool { return s.from < l.call && l.returned < s.until }

// listing is what somebody has read who was up to date.
type listing struct {
	call, returned int64
	all            []offer
}

// offer is an instance that was listed.
type offer struct {
	id      string
	payload int
}

// misfiled compares listings with what was registered.
func misfiled(filings map[string]*filing, listings []listing) error {
	for _, l := range listings {
		found := map[string]bool{}
		for _, o := range l.all {
			f := filings[o.id]
			if f == nil || o.payload < 1 || o.payload > len(f.tried) || f.tried[o.payload-1] > l.returned || found[o.id] {
				return fmt.Errorf("%+v was listed at %v: nobody has registered that, or not twice", o, time.Duration(l.call))
			}
			found[o.id] = true
			for i, at := range f.shown {
				if at > 0 && at < l.call && i+1 > o.payload { // REG-S3
					return fmt.Errorf("%+v was listed at %v, but %d was known at %v", o, time.Duration(l.call), i+1, time.Duration(at))
				}
			}
			for _, s := range f.absent {
				if s.covers(l) { // REG-S2
					return fmt.Errorf("%+v was listed at %v, deregistered at %v", o, time.Duration(l.call), time.Duration(s.from))
				}
			}
		}
		for id, f := range filings {
			for _, s := range f.listed {
				if !found[id] && s.covers(l) { // REG-S1, REG-S4
					return fmt.Errorf("%s was not listed at %v, it is registered since %v", id, time.Duration(l.call), time.Duration(s.from))
				}
			}
		}
	}
	return nil
}

// registryCheck knows all that was registered.
type registryCheck struct {
	r *run
	h *history

	mu       sync.Mutex
	clerks   map[string]*clerk
	listings []listing
	latest   map[int][]offer // by member: what Watch has yielded last
}

func (r *run) registryPart() part {
	c := &registryCheck{r: r, h: newHistory(), clerks: map[string]*clerk{}, latest: map[int][]offer{}}
	following := r.lasting()
	return part{"Registry", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			following.onEach(r, func(i int, m *zk.Member, _ *rand.Rand) { c.follow(following.ctx, i, m) })
		}
		c.client(client, random)
	}, func(ctx context.Context, s *zk.Session) error {
		defer following.end()
		return c.finish(ctx, s)
	}}
}

func registry(src zk.SessionSource) *recipes.Registry[int] {
	return recipes.NewRegistry[int](src, registryBase)
}

func (c *registryCheck) client(client int, random *rand.Rand) {
	var mine []*clerk
	for n := 0; c.r.idle(random, 1500); n++ {
		m := c.r.member(random.IntN(c.r.c.Len()))
		if m == nil {
			continue
		}
		c.r.did("Registry")
		ctx, cancel := context.WithTimeout(c.r.ctx, millis(1+random.IntN(4000)))
		switch k := random.IntN(10); {
		case k < 4:
			c.list(ctx, m)
		case k == 4:
			c.litter(ctx, m, client, random.IntN(2) == 0)
		case len(mine) < 2:
			w := &clerk{registryCheck: c, id: fmt.Sprintf("%d.%d", client, n), kind: recipes.InstanceType(random.IntN(4))}
			c.mu.Lock()
			c.clerks[w.id] = w
			c.mu.Unlock()
			w.register(ctx, m, random)
			mine = append(mine, w)
		default:
			mine[random.IntN(len(mine))].work(ctx, m, random)
		}
		cancel()
		mine = slices.DeleteFunc(mine, func(w *clerk) bool { return w.done })
	}
}

func offers(list []recipes.Instance[int]) (all []offer) {
	for _, in := range list {
		all = append(all, offer{in.ID, in.Payload})
	}
	return all
}

// list reads what is registered. What is no instance is no reason to fail (REG-L2).
func (c *registryCheck) list(ctx context.Context, m *zk.Member) error {
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	l := listing{call: c.h.now()}
	if err := s.Sync(ctx); err != nil {
		return err
	}
	all, err := registry(m).Instances(ctx, serviceName)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, zk.ErrClosed) && !errors.Is(err, zk.ErrSessionExpired) {
			c.r.t.Errorf("listing: %v", err)
		}
		return err
	}
	l.returned, l.all = c.h.now(), offers(all)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listings = append(c.listings, l)
	return nil
}

// litter writes a child that is no instance, or removes it.
func (c *registryCheck) litter(ctx context.Context, m *zk.Member, client int, write bool) {
	s, err := m.Session(ctx)
	if err != nil {
		return
	}
	where := path.Join(registryBase, serviceName, fmt.Sprint("litter-", client))
	if write {
		s.Create(ctx, where, []byte("{"), zk.Persistent|zk.Parents)
	} else {
		s.Delete(ctx, where, zk.AnyVersion)
	}
}

// follow watches the service on one member: what is new never goes back to what was before.
func (c *registryCheck) follow(ctx context.Context, i int, m *zk.Member) {
	last, ended := map[string]int{}, error(nil)
	for all, err := range registry(m).Watch(ctx, serviceName) {
		var bad *recipes.DecodeError
		switch {
		case errors.As(err, &bad):
			if !strings.Contains(bad.Path, "litter") {
				c.r.t.Errorf("member %d: %v", i, err)
			}
		case err != nil:
			ended = err
		default:
			c.see(i, offers(all), last)
		}
	}
	if ended == nil { // REG-L2
		c.r.t.Errorf("member %d: the service is not watched any more, and nobody says why", i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.latest, i)
}

func (c *registryCheck) see(i int, all []offer, last map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest[i] = all
	for _, o := range all {
		if w := c.clerks[o.id]; w != nil && o.payload < last[o.id] && !w.moving {
			c.r.t.Errorf("member %d: %+v after %d", i, o, last[o.id])
		}
		last[o.id] = max(last[o.id], o.payload)
	}
}

// clerk registers one instance: it updates it, registers it anew where that is needed, or another time elsewhere, and takes it off.
type clerk struct {
	*registryCheck
	filing
	id    string
	kind  recipes.InstanceType
	entry *recipes.Registration[int]
	runs  []func() bool // of each by which it was registered: it has a session yet
	known bool          // it is in the tree
	doubt bool          // an operator may still be about to delete it
	gone  bool          // it was taken off
	done  bool          // nothing more is done with it

	moving bool // guarded by registryCheck.mu: two registrations may take turns
}

// lasts tells whether it outlives its session and its registrar.
func (w *clerk) lasts() bool { return w.kind == recipes.Static || w.kind == recipes.Permanent }

// over tells whether the registration has ended with its session or its member.
func (w *clerk) over() bool {
	err := w.entry.Err()
	return errors.Is(err, zk.ErrClosed) || errors.Is(err, zk.ErrSessionExpired)
}

// next is the instance with its next payload, which is about to be written.
func (w *clerk) next() recipes.Instance[int] {
	w.tried, w.shown = append(w.tried, w.h.now()), append(w.shown, 0)
	return recipes.Instance[int]{Name: serviceName, ID: w.id, Payload: len(w.tried), Type: w.kind, Enabled: true}
}

// is notes that the instance is there with its last payload, and stays if it does not go with its session.
func (w *clerk) is() {
	now := w.h.now()
	w.shown[len(w.shown)-1] = now
	if !w.lasts() || w.doubt {
		return
	}
	if !w.known {
		w.listed = append(w.listed, span{now, forever})
	}
	w.known = true
}

// unclear notes that it may go.
func (w *clerk) unclear() {
	if w.known {
		w.listed[len(w.listed)-1].until = w.h.now()
	}
	w.known = false
}

func (w *clerk) register(ctx context.Context, m *zk.Member, random *rand.Rand) bool {
	up := func() bool { return w.r.runs(m) && m.Err() == nil } // one that stops by itself has closed its sessions before it says so
	src, runs := zk.SessionSource(m), up
	if s, err := m.Session(ctx); err == nil && random.IntN(4) == 0 {
		src, runs = s, func() bool { return up() && s.State() != zk.StateExpired }
	}
	w.runs = append(w.runs, runs)
	entry, err := registry(src).Register(ctx, w.next())
	if err != nil { // it is being undone, and what it has replaced may go with it
		w.unclear()
		w.done = true
		return false
	}
	w.entry = entry
	return true
}

// work does something to an instance that is registered, or is to be.
func (w *clerk) work(ctx context.Context, m *zk.Member, random *rand.Rand) {
	switch k := random.IntN(6); {
	case w.entry != nil && w.over():
		if !w.lasts() || !w.known { // it goes with its session, or nobody knows
			w.unclear()
			w.done = true
		} else if w.register(ctx, m, random) { // after a restart, elsewhere
			w.is()
		}
	case w.entry == nil || k > 2:
		w.update(ctx)
	case k == 0:
		w.deregister()
	case k == 1:
		w.unclear()
		w.evict(ctx, m)
		w.update(ctx)
	case k == 2 && w.known:
		w.move(ctx, m, random)
	}
}

func (w *clerk) update(ctx context.Context) {
	err := w.entry.Update(ctx, w.next())
	switch {
	case err == nil:
		w.is()
	case !zk.MaybeApplied(err) && !w.over() && ctx.Err() == nil:
		w.r.t.Errorf("updating %s: %v", w.id, err)
	}
}

// deregister takes it off.
func (w *clerk) deregister() {
	w.unclear()
	w.done = true
	if err := w.leave(w.entry); err == nil && (w.lasts() || w.runs[len(w.runs)-1]()) {
		w.gone = true
		w.absent = append(w.absent, span{w.h.now(), forever})
	}
}

// leave ends a registration, and tries again if it is not done in time. The error says that it cannot be.
func (w *clerk) leave(entry *recipes.Registration[int]) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := entry.Deregister(ctx)
		late := ctx.Err() != nil
		cancel()
		if err == nil || !late {
			return err
		}
	}
}

// evict deletes its znode, as an operator does.
func (w *clerk) evict(ctx context.Context, m *zk.Member) {
	s, err := m.Session(ctx)
	if err != nil {
		return
	}
	dir := path.Join(registryBase, serviceName)
	names, _, _ := s.Children(ctx, dir)
	for _, name := range names {
		if !strings.HasPrefix(name, w.id) || len(name) > len(w.id) && w.kind != recipes.DynamicSequential {
			continue
		}
		if st, ok, err := s.Exists(ctx, path.Join(dir, name)); ok && err == nil {
			_, err := s.Txn(ctx, zk.OpCheckCreated(path.Join(dir, name), zk.Token(st.Czxid)), zk.OpDelete(path.Join(dir, name), zk.AnyVersion))
			w.doubt = w.doubt || zk.MaybeApplied(err)
		}
	}
}

// move registers it once more, elsewhere, and then takes off the first registration. There is no gap: the second takes the
// znode's place, and the first writes nothing as long as that stands, whatever it is asked for.
func (w *clerk) move(ctx context.Context, m *zk.Member, random *rand.Rand) {
	turns := func(moving bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.moving = moving
	}
	turns(true)
	before, in := w.entry, w.next()
	var late sync.WaitGroup
	late.Go(func() { before.Update(ctx, in) })
	moved := w.register(ctx, m, random)
	if moved && !w.doubt {
		w.is()
	}
	if err := w.leave(before); err != nil && !errors.Is(err, zk.ErrClosed) && !errors.Is(err, zk.ErrSessionExpired) {
		w.r.t.Errorf("deregistering %s: %v", w.id, err)
	}
	late.Wait()
	if moved {
		turns(false)
		w.update(ctx)
	}
}

// wants says what is to be listed of it when everybody has had the time to go: its payload, 0 for nothing, or -1 for anything.
func (w *clerk) wants() int {
	switch {
	case w.gone:
		return 0
	case w.entry != nil && !w.done && !w.over(): // REG-L1
		return w.entry.Instance().Payload
	case !w.lasts():
		return 0
	}
	for _, runs := range w.runs {
		if !runs() { // it may have ended before all was undone
			return -1
		}
	}
	return 0
}

// settled says whether that is what there is.
func (c *registryCheck) settled(all []offer) error {
	found := map[string]int{}
	for _, o := range all {
		found[o.id] = o.payload
	}
	for id, w := range c.clerks {
		if want := w.wants(); found[id] != want && want >= 0 {
			return fmt.Errorf("%s is listed with %d, it is to be %d", id, found[id], want)
		}
	}
	return nil
}

func (c *registryCheck) finish(ctx context.Context, s *zk.Session) error {
	list := func() ([]offer, error) {
		if err := c.list(ctx, s.Member()); err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		all := c.listings[len(c.listings)-1].all
		for i, latest := range c.latest {
			if !slices.Equal(latest, all) {
				return all, fmt.Errorf("member %d was told of %+v, there are %+v", i, latest, all)
			}
		}
		return all, c.settled(all)
	}
	err := c.r.eventually(ctx, func() error { _, err := list(); return err })
	if err != nil {
		return err
	}
	moved, evicted, kinds := 0, 0, [4]int{}
	for id, w := range c.clerks {
		kinds[w.kind]++
		moved += max(len(w.runs)-1, 0)
		if w.doubt {
			evicted++
		}
		if w.entry == nil || w.done {
			continue
		}
		before := w.entry
		in := w.next()
		if w.entry, err = registry(s.Member()).Register(ctx, in); err != nil {
			return fmt.Errorf("registering %s again: %w", id, err)
		}
		w.unclear()
		for _, entry := range []*recipes.Registration[int]{before, w.entry} {
			if err := w.leave(entry); err != nil && (entry != before || !errors.Is(err, zk.ErrClosed) && !errors.Is(err, zk.ErrSessionExpired)) {
				return fmt.Errorf("deregistering %s: %w", id, err)
			}
		}
		w.gone, w.absent = true, append(w.absent, span{w.h.now(), forever})
	}
	if _, err := list(); err != nil && !strings.Contains(err.Error(), "told") {
		return err
	}
	filings := map[string]*filing{}
	for id, w := range c.clerks {
		filings[id] = &w.filing
	}
	c.r.t.Logf("registry: %v instances by type, registered %d times again, %d listings, %d evictions in doubt", kinds, moved, len(c.listings), evicted)
	return misfiled(filings, c.listings)
}

func TestRegistryChecker(t *testing.T) {
	filings := map[string]*filing{
		"a": {tried: []int64{1, 20}, shown: []int64{2, 21}, listed: []span{{2, 50}}, absent: []span{{60, forever}}},
		"b": {tried: []int64{30, 40}, shown: []int64{31, 0}},
	}
	a1, a2, b1, b2 := offer{"a", 1}, offer{"a", 2}, offer{"b", 1}, offer{"b", 2}
	for _, j := range []struct {
		name           string
		ok             bool
		call, returned int64
		all            []offer
	}{
		{"as it was registered", true, 10, 11, []offer{a1}},
		{"while it is updated", true, 20, 22, []offer{a1}},
		{"after the update", true, 22, 23, []offer{a2}},
		{"what was before the update", false, 22, 23, []offer{a1}},
		{"an update that is to come", false, 10, 11, []offer{a2}},
		{"not listed", false, 10, 11, nil},
		{"not listed before it was there", true, 1, 3, nil},
		{"while it is deregistered", true, 49, 59, nil},
		{"and it is still there", true, 55, 62, []offer{a2}},
		{"it has come back", false, 61, 62, []offer{a2}},
		{"two", true, 41, 42, []offer{a2, b1}},
		{"an update of which nobody knows", true, 41, 42, []offer{a2, b2}},
		{"one of them twice", false, 41, 42, []offer{a2, b1, b2}},
		{"nobody's", false, 41, 42, []offer{a2, {"c", 1}}},
	} {
		if err := misfiled(filings, []listing{{j.call, j.returned, j.all}}); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
}
