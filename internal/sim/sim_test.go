// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
	"go.uber.org/goleak"
)

var (
	seeds   = flag.Int("sim.seeds", 12, "seeds to run, half of that with -short")
	first   = flag.Uint64("sim.first", 1, "the first seed")
	seconds = flag.Int("sim.seconds", 60, "virtual seconds of faults in each run")
	five    = flag.Bool("sim.five", false, "five members in every run")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSimulation runs work under faults, one seed after the other, and checks what happened.
func TestSimulation(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = (n + 1) / 2
	}
	for seed := *first; seed < *first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, shaped(seed)) })
		})
	}
	t.Log(&total)
}

// TestOnDisk runs one seed on real files and in real time.
func TestOnDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes real time")
	}
	simulate(t, shape{seed: *first, members: 3, faults: 4 * time.Second, timeout: time.Second, dir: t.TempDir()})
}

// shape is what a seed runs on.
type shape struct {
	seed      uint64
	members   int
	observers int  // of the members
	reshape   bool // one is added and one removed
	faults    time.Duration
	timeout   time.Duration // of a session
	dir       string        // "": disks in memory
}

func shaped(seed uint64) shape {
	s := shape{seed: seed, members: 3, reshape: seed%3 == 0, faults: time.Duration(*seconds) * time.Second, timeout: 4 * time.Second}
	if *five || seed%5 == 0 {
		s.members = 5
	}
	if seed%4 == 0 {
		s.observers = 1
		s.members++
	}
	return s
}

// run is one simulation.
type run struct {
	shape
	t      *testing.T
	c      *zktest.Cluster
	h      *history        // the record
	left   string          // the directory of its histories, once there is one
	ctx    context.Context // ends with the faults
	whole  context.Context // ends with the run
	work   sync.WaitGroup  // ends with the faults
	watch  sync.WaitGroup  // ends with the run
	settle time.Duration   // after that the sessions of who is gone are gone
	clocks *clocks
	parts  map[int]part // by their places among all

	mu      sync.Mutex
	leaving map[int]bool

	registers, bank, barrier *history
	moves                    *history
	counts                   *countCheck
	locks                    *lockCheck
	queues                   *queueCheck
	stays                    *stayCheck
	rooms                    *roomCheck
	pacts                    *pactCheck
	lives                    *lifeCheck
	stamps                   *stampCheck
	digests                  *digestCheck
	numbers                  numberCheck
	mirrors                  map[int][]*mirror
}

func simulate(t *testing.T, sh shape) {
	r := &run{
		shape: sh, t: t, h: newHistory(), settle: 2*longestLife*sh.timeout + 2*time.Second, clocks: newClocks(sh.seed), leaving: map[int]bool{},
		registers: newHistory(), bank: newHistory(), barrier: newHistory(), moves: newHistory(), counts: &countCheck{h: newHistory()}, locks: &lockCheck{h: newHistory(), holds: map[*hold]struct{}{}},
		stays: &stayCheck{h: newHistory(), open: map[*recipes.Held]*stay{}},
		pacts: &pactCheck{list: map[string]*pact{}},
		rooms: &roomCheck{h: newHistory()}, lives: newLifeCheck(), stamps: newStampCheck(), digests: newDigestCheck(), mirrors: map[int][]*mirror{},
	}
	r.queues = newQueueCheck(r.anybody())
	logger := slog.New(slog.NewTextHandler(recordWriter{r.h}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: r.digests.heard}))
	ctx := context.Background()
	var err error
	r.c, err = zktest.Open(ctx, sh.members, zktest.Config{Seed: sh.seed, OnDisk: sh.dir, NonVoters: sh.observers, Configure: r.clocks.configure, Base: zk.Config{
		SessionTimeout: sh.timeout, Logger: logger, SnapshotBytes: 64 << 10, WatchBuffer: 8, ReapInterval: 5 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			r.leave()
		}
	}()
	defer func() {
		if err := r.c.Close(); err != nil {
			t.Error(err)
		}
	}()
	r.setUp()
	whole, end := context.WithCancel(ctx)
	r.whole = whole
	defer r.watch.Wait()
	defer end()
	faults, stop := context.WithTimeout(ctx, sh.faults)
	defer stop()
	r.ctx = faults
	r.parts = r.chosen()
	for i, p := range r.parts {
		for client := range p.clients {
			r.work.Go(func() { p.work(client, rand.New(rand.NewPCG(sh.seed, uint64(100*(i+1)+client)))) })
		}
	}
	for i := range sh.members + 1 { // one may come
		for n, root := range mirrored {
			m := &mirror{root: root, leaves: map[string]leaf{}}
			r.mirrors[i] = append(r.mirrors[i], m)
			r.watch.Go(func() { r.follow(whole, i, m, rand.New(rand.NewPCG(sh.seed, uint64(2000+10*i+n)))) })
		}
		r.watch.Go(func() { r.mourn(whole, i) })
		r.watch.Go(func() { r.observe(whole, i) })
	}
	r.watch.Go(func() { r.sample(whole) })
	r.watch.Go(func() { r.count(whole) })
	n := newNemesis(r, sh.seed)
	if err := n.run(faults); err != nil {
		t.Error(err)
	}
	stop()
	total.ran(r.parts, sh.faults)
	if err := n.heal(ctx); err != nil {
		t.Fatal(err)
	}
	r.alive()
	r.rest()
	if err := n.finish(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(r.settle)
	r.serves()
	r.rest()
	r.check()
}

// rest waits for the clients: with everything healed no call of theirs takes for ever.
func (r *run) rest() {
	done := make(chan struct{})
	go func() {
		r.work.Wait()
		close(done)
	}()
	ctx, cancel := r.within(5 * r.settle)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		r.t.Fatal("a client does not come to its end")
	}
}

type recordWriter struct{ h *history }

func (w recordWriter) Write(p []byte) (int, error) {
	w.h.note("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// setUp creates what the clients work on.
func (r *run) setUp() {
	ctx := context.Background()
	s, err := r.c.Member(0).Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	var ops []zk.Op
	for _, path := range []string{"/register", "/bank", "/live", "/ttl", "/tree", "/seq", "/fenced"} {
		ops = append(ops, zk.OpCreate(path, nil, zk.Persistent))
	}
	for i := range registerKeys {
		ops = append(ops, zk.OpCreate(fmt.Sprint("/register/", i), nil, zk.Persistent))
	}
	ops = append(ops, zk.OpCreate("/purse", nil, zk.Persistent), zk.OpCreate(purseOf(0), []byte(strconv.Itoa(coins)), zk.Persistent))
	for i := range accounts {
		ops = append(ops, zk.OpCreate(fmt.Sprint("/bank/", i), []byte(strconv.Itoa(deposit)), zk.Persistent))
	}
	if _, err := s.Txn(ctx, ops...); err != nil {
		r.t.Fatal(err)
	}
}

// members are those that belong to the ensemble, or may do so, and are not about to leave it.
func (r *run) members() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.membersLocked()
}

func (r *run) membersLocked() (ids []int) {
	for i := range r.c.Len() {
		if !r.leaving[i] && r.c.Member(i) != nil {
			ids = append(ids, i)
		}
	}
	return ids
}

func (r *run) leaves(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving[i] = true
}

// member is member i, nil if there is none.
func (r *run) member(i int) *zk.Member {
	if !slices.Contains(r.members(), i) {
		return nil
	}
	return r.c.Member(i)
}

// source gives a session of any member that is up.
func (r *run) source(random *rand.Rand) (*zk.Session, error) {
	m := r.c.Member(random.IntN(r.c.Len()))
	if m == nil {
		return nil, zk.ErrClosed
	}
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
	defer cancel()
	return m.Session(ctx)
}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// idle waits for a random time, up to so many milliseconds. It is false at the end of the work.
func (r *run) idle(random *rand.Rand, most int) bool { return sleep(r.ctx, millis(random.IntN(most))) }

// mourn listens, on one member, for ephemerals that vanish.
func (r *run) mourn(ctx context.Context, i int) {
	for ctx.Err() == nil {
		if m := r.member(i); m != nil {
			if s, err := m.Session(ctx); err == nil {
				if w, err := s.Watch(ctx, "/live", zk.WatchSubtree); err == nil {
					for ev := range w.Events() {
						if ev.Type == zk.EventDeleted {
							r.lives.heard(ev.Path)
						}
					}
				}
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// sample looks at all members, again and again.
func (r *run) sample(ctx context.Context) {
	said := map[int]*presence{}
	for n := 0; sleep(ctx, 50*time.Millisecond); n++ {
		for _, i := range r.members() {
			m := r.c.Member(i)
			if !r.c.Up(i) {
				continue
			}
			if n%8 == 0 {
				if sum, zxid, err := fingerprint(m, r.stamps.see); err == nil {
					if err := r.digests.take(m.ID(), sum, zxid); err != nil {
						r.t.Error(err)
					}
				}
			}
			look, cancel := context.WithTimeout(ctx, time.Nanosecond)
			s, err := m.Session(look)
			cancel()
			if err != nil {
				continue
			}
			if said[i] == nil {
				said[i] = &presence{}
			}
			if err := said[i].says(m, s.Now()); err != nil {
				r.t.Error(err)
			}
			r.bounded(ctx, s)
		}
	}
}

func (r *run) check() {
	ctx, cancel := r.within(10 * r.settle)
	defer cancel()
	s, err := r.c.Member(r.members()[0]).Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Sync(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.drain(ctx, s)
	r.mortal(ctx, s)
	r.agrees(ctx)
	r.counted(ctx, s)
	for _, i := range slices.Sorted(maps.Keys(r.parts)) {
		if p := r.parts[i]; p.check != nil {
			if err := p.check(ctx, s); err != nil {
				r.t.Errorf("%s: %v", p.name, err)
			}
		}
	}
	// Ephemerals go with their sessions, everywhere; then all members agree (P10, P18, CG-4).
	time.Sleep(r.settle)
	if err := r.c.Quiesce(ctx); err != nil {
		r.t.Error(err)
	}
	r.same(ctx)
	sessions, err := s.Member().Sessions(ctx)
	if err != nil {
		r.t.Error(err)
	}
	alive := map[zk.SessionID]bool{}
	for _, info := range sessions {
		alive[info.ID] = true
	}
	for z, err := range s.Walk(ctx, "/") {
		if err != nil {
			r.t.Error(err)
			break
		}
		if z.Path != "/zookeeper/config" { // it changes without a zxid
			r.stamps.see(z.Stat)
		}
		if o := z.Stat.EphemeralOwner; o != 0 && !alive[o] { // DM-124
			r.t.Errorf("%s outlived its session %v", z.Path, o)
		}
	}
	lives := r.lives.list()
	for _, err := range []error{early(lives), buried(lives, alive), r.stamps.check(), r.numbers.check(), misled(r.rooms.visits(), roomSize), together(r.stays.stays(), mostUnits), r.pacts.check()} {
		if err != nil {
			r.t.Error(err)
		}
	}
	committed, aborted := r.pacts.count()
	r.t.Logf("operations: registers %d, bank %d, counter %d, transactions %d, locks and elections %d, read-write locks and semaphores %d, queues %d, barrier %d, double barrier %d; %d proposals committed, %d aborted; %d sessions, %d numbers, %d stamps, %d digests compared",
		len(r.registers.ops), len(r.bank.ops), len(r.counts.list), len(r.moves.ops), len(r.locks.h.ops), len(r.stays.stays()), len(r.queues.h.ops), len(r.barrier.ops), len(r.rooms.list), committed, aborted, len(lives), len(r.numbers.list), len(r.stamps.seen), r.digests.compared)
	r.linearizable("registers", registers, r.registers)
	r.linearizable("bank", transfers, r.bank)
	r.linearizable("transactions", serial, r.moves)
	r.linearizable("lock", locking, r.locks.h)
	r.linearizable("queue", queueing, r.queues.h)
	r.linearizable("barrier", barriers, r.barrier)
}
