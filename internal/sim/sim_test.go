// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
	"go.uber.org/goleak"
)

var (
	seeds   = flag.Int("sim.seeds", 12, "seeds to run, half of that with -short")
	first   = flag.Uint64("sim.first", 1, "the first seed")
	seconds = flag.Int("sim.seconds", 60, "virtual seconds of faults in each run")
	five    = flag.Bool("sim.five", false, "five members instead of three")
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
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

// run is one simulation.
type run struct {
	t    *testing.T
	seed uint64
	c    *zktest.Cluster
	h    *history
	ctx  context.Context // ends with the faults
	work sync.WaitGroup

	registers, bank *history
	locks           lockCheck
	queue           queueCheck
}

func simulate(t *testing.T, seed uint64) {
	members := 3
	if *five {
		members = 5
	}
	record := newHistory()
	logger := slog.New(slog.NewTextHandler(recordWriter{record}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	ctx := context.Background()
	c, err := zktest.Open(ctx, members, zktest.Config{Seed: seed, Base: zk.Config{
		SessionTimeout: 4 * time.Second, Logger: logger, SnapshotBytes: 64 << 10, WatchBuffer: 8, ReapInterval: 5 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, seed: seed, c: c, h: record, registers: newHistory(), bank: newHistory()}
	defer func() {
		if t.Failed() {
			r.leave()
		}
	}()
	r.setUp()
	faults, stop := context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
	r.ctx = faults
	random := rand.New(rand.NewPCG(seed, 1))
	for client := range 6 {
		r.work.Go(func() { r.registerClient(client, rand.New(rand.NewPCG(seed, 100+uint64(client)))) })
	}
	for client := range 3 {
		r.work.Go(func() { r.bankClient(client, rand.New(rand.NewPCG(seed, 200+uint64(client)))) })
	}
	for client := range 4 {
		r.work.Go(func() { r.lockClient(client, rand.New(rand.NewPCG(seed, 300+uint64(client)))) })
		r.work.Go(func() { r.queueClient(client, rand.New(rand.NewPCG(seed, 400+uint64(client)))) })
	}
	for i := range members {
		r.work.Go(func() { r.watcher(i) })
	}
	n := newNemesis(c, record, random.Uint64())
	if err := n.run(faults); err != nil {
		t.Error(err)
	}
	stop()
	if err := n.heal(ctx); err != nil {
		t.Fatal(err)
	}
	r.alive()
	r.work.Wait()
	r.check()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

type recordWriter struct{ h *history }

func (w recordWriter) Write(p []byte) (int, error) {
	w.h.note("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

var _ io.Writer = recordWriter{}

// setUp creates what the clients work on.
func (r *run) setUp() {
	s, err := r.c.Member(0).Session(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range registerKeys {
		if _, err := s.Create(r.t.Context(), fmt.Sprint("/register/", i), nil, zk.Parents); err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range accounts {
		if _, err := s.Create(r.t.Context(), fmt.Sprint("/bank/", i), []byte(strconv.Itoa(deposit)), zk.Parents); err != nil {
			r.t.Fatal(err)
		}
	}
}

const registerKeys = 5

// source gives a session of any member that is up.
func (r *run) source(random *rand.Rand) (*zk.Session, error) {
	m := r.c.Member(random.IntN(r.c.Len()))
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
	defer cancel()
	return m.Session(ctx)
}

func (r *run) registerClient(client int, random *rand.Rand) {
	for i := 0; sleep(r.ctx, time.Duration(random.IntN(600))*time.Millisecond); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		key := fmt.Sprint("/register/", random.IntN(registerKeys))
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(4000))*time.Millisecond)
		in := registerIn{key: key}
		call := r.registers.now()
		value, st, err := s.GetString(ctx, key, zk.Linearizable)
		if err == nil {
			r.registers.add(client, call, in, registerOut{version: st.Version, value: value}, r.registers.now())
			if random.IntN(2) == 0 {
				in = registerIn{key: key, write: true, version: st.Version, value: fmt.Sprintf("%d.%d", client, i)}
				if random.IntN(4) == 0 {
					in.version = -1
				}
				call = r.registers.now()
				st, err := s.Set(ctx, key, []byte(in.value), in.version)
				switch {
				case err == nil:
					r.registers.add(client, call, in, registerOut{version: st.Version}, r.registers.now())
				case errors.Is(err, zk.ErrBadVersion):
					r.registers.add(client, call, in, registerOut{refused: true}, r.registers.now())
				case zk.MaybeApplied(err):
					r.registers.add(client, call, in, registerOut{unknown: true}, forever)
				}
			}
		}
		cancel()
	}
}

// bankClient moves money between two accounts in one transaction, under the versions it has seen.
func (r *run) bankClient(client int, random *rand.Rand) {
	for sleep(r.ctx, time.Duration(200+random.IntN(1500))*time.Millisecond) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(4000))*time.Millisecond)
		call := r.bank.now()
		var out transferOut
		err = s.View(ctx, func(v *zk.View) error {
			for i := range accounts {
				z, err := v.Get(fmt.Sprint("/bank/", i))
				if err != nil {
					return err
				}
				out.versions[i] = z.Stat.Version
				if out.balances[i], err = strconv.Atoi(z.Data); err != nil {
					return err
				}
			}
			return nil
		}, zk.Linearizable)
		if err == nil {
			r.bank.add(client, call, transferIn{read: true}, out, r.bank.now())
			in := transferIn{from: random.IntN(accounts), amount: 1 + random.IntN(10)}
			in.to = (in.from + 1 + random.IntN(accounts-1)) % accounts
			in.fromVer, in.toVer = out.versions[in.from], out.versions[in.to]
			call = r.bank.now()
			_, err = s.Txn(ctx,
				zk.OpSet(fmt.Sprint("/bank/", in.from), []byte(strconv.Itoa(out.balances[in.from]-in.amount)), in.fromVer),
				zk.OpSet(fmt.Sprint("/bank/", in.to), []byte(strconv.Itoa(out.balances[in.to]+in.amount)), in.toVer))
			switch {
			case err == nil:
				r.bank.add(client, call, in, transferOut{}, r.bank.now())
			case errors.Is(err, zk.ErrBadVersion):
				r.bank.add(client, call, in, transferOut{refused: true}, r.bank.now())
			case zk.MaybeApplied(err):
				r.bank.add(client, call, in, transferOut{unknown: true}, forever)
			}
		}
		cancel()
	}
}

// lockCheck watches over one lock: valid windows never overlap, tokens never go back.
type lockCheck struct {
	mu     sync.Mutex
	token  zk.Token
	holder *recipes.Held
	grants int
}

func (l *lockCheck) granted(t *testing.T, h *recipes.Held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants++
	if h.Token() <= l.token { // HELD-S2
		t.Errorf("token %d was granted after %d", h.Token(), l.token)
	}
	if l.holder != nil && l.holder.Valid() && h.Valid() { // HELD-S1
		t.Errorf("%s and %s are valid at the same time", l.holder.Path(), h.Path())
	}
	l.token, l.holder = max(l.token, h.Token()), h
}

func (r *run) lockClient(client int, random *rand.Rand) {
	for sleep(r.ctx, time.Duration(random.IntN(500))*time.Millisecond) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(r.ctx, time.Duration(1+random.IntN(8000))*time.Millisecond)
		held, err := recipes.NewLock(s, "/lock").Acquire(ctx)
		cancel()
		if err != nil {
			continue
		}
		r.locks.granted(r.t, held)
		work := held.Session().Context()
		sleep(work, time.Duration(random.IntN(1500))*time.Millisecond)
		ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
		held.Release(ctx)
		cancel()
	}
}

// queueCheck counts what went in and what came out.
type queueCheck struct {
	mu      sync.Mutex
	put     map[string]bool // true: answered; false: unknown
	acked   map[string]int
	perhaps map[string]bool // ack with unknown outcome
}

func (r *run) queueClient(client int, random *rand.Rand) {
	q := &r.queue
	q.mu.Lock()
	if q.put == nil {
		q.put, q.acked, q.perhaps = map[string]bool{}, map[string]int{}, map[string]bool{}
	}
	q.mu.Unlock()
	for i := 0; sleep(r.ctx, time.Duration(random.IntN(800))*time.Millisecond); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		queue := recipes.NewQueue[string](s, "/queue")
		ctx, cancel := context.WithTimeout(r.ctx, time.Duration(1+random.IntN(5000))*time.Millisecond)
		if random.IntN(2) == 0 {
			item := fmt.Sprintf("%d.%d", client, i)
			err := queue.Put(ctx, item)
			q.mu.Lock()
			switch {
			case err == nil:
				q.put[item] = true
			case zk.MaybeApplied(err):
				q.put[item] = false
			}
			q.mu.Unlock()
		} else if msg, err := queue.Receive(ctx); err == nil {
			sleep(r.ctx, time.Duration(random.IntN(300))*time.Millisecond)
			actx, acancel := context.WithTimeout(context.Background(), 3*time.Second)
			r.ack(actx, msg)
			acancel()
		}
		cancel()
	}
}

func (r *run) ack(ctx context.Context, msg *recipes.Message[string]) {
	err := msg.Ack(ctx)
	q := &r.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err == nil:
		if q.acked[msg.Value]++; q.acked[msg.Value] > 1 { // Q-S1
			r.t.Errorf("%q was acknowledged twice", msg.Value)
		}
	case zk.MaybeApplied(err):
		q.perhaps[msg.Value] = true
	}
}

// watcher follows a subtree on one member, through its incarnations: zxids never go back, and a read after an event
// sees at least that event.
func (r *run) watcher(i int) {
	for r.ctx.Err() == nil {
		s, err := r.c.Member(i).Session(r.ctx)
		if err != nil {
			sleep(r.ctx, 100*time.Millisecond)
			continue
		}
		w, err := s.Watch(r.ctx, "/register", zk.WatchSubtree)
		if err != nil {
			sleep(r.ctx, 100*time.Millisecond)
			continue
		}
		last := w.From()
		for ev, err := range w.All() {
			if err != nil {
				break
			}
			if ev.Zxid < last { // WT-22
				r.t.Errorf("member %d: event %+v after zxid %v", i, ev, last)
			}
			last = ev.Zxid
			if now := s.LastZxid(); now < ev.Zxid { // WT-20
				r.t.Errorf("member %d: event %+v before its zxid is applied: %v", i, ev, now)
			}
		}
	}
}

// alive is the liveness check: with everything healed, writes succeed through every member (P20).
func (r *run) alive() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range r.c.Len() {
		err := error(zk.ErrSessionExpired)
		for errors.Is(err, zk.ErrSessionExpired) { // the member may not know yet that its session is over
			var s *zk.Session
			if s, err = r.c.Member(i).Session(ctx); err == nil {
				_, err = s.Create(ctx, "/alive-", nil, zk.Sequential)
			}
		}
		if err != nil {
			r.t.Fatalf("member %d after healing: %v (member: %v)", i, err, r.c.Member(i).Err())
		}
	}
}

func (r *run) check() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	s, err := r.c.Member(0).Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Sync(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.drain(ctx, s)
	// Ephemerals go with their sessions, everywhere; then all members agree (P10, P18, CG-4).
	time.Sleep(10 * time.Second)
	if err := r.c.Quiesce(ctx); err != nil {
		r.t.Error(err)
	}
	sessions, err := r.c.Member(0).Sessions(ctx)
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
		if o := z.Stat.EphemeralOwner; o != 0 && !alive[o] { // DM-124
			r.t.Errorf("%s outlived its session %v", z.Path, o)
		}
	}
	r.t.Logf("registers %d operations, bank %d, lock %d grants, queue %d put %d acknowledged", len(r.registers.ops), len(r.bank.ops), r.locks.grants, len(r.queue.put), len(r.queue.acked))
	r.linearizable("registers", registers, r.registers.ops)
	r.linearizable("bank", transfers, r.bank.ops)
}

// linearizable asks porcupine, outside of virtual time.
func (r *run) linearizable(name string, model porcupine.Model, ops []porcupine.Operation) { // CG-1, P2, P6
	result, info := porcupine.CheckOperationsVerbose(model, ops, 0)
	if result == porcupine.Ok {
		return
	}
	r.t.Errorf("%s: history is %v", name, result)
	path := filepath.Join(r.t.ArtifactDir(), fmt.Sprintf("%s-%d.html", name, r.seed))
	if err := porcupine.VisualizePath(model, info, path); err == nil {
		r.t.Logf("see %s", path)
	}
}

// drain empties the queue and accounts for every item (Q-S1, Q-S2).
func (r *run) drain(ctx context.Context, s *zk.Session) {
	time.Sleep(10 * time.Second) // claims of sessions that are gone go too
	queue := recipes.NewQueue[string](s, "/queue")
	for {
		n, err := queue.Len(ctx)
		if err == nil && n == 0 {
			break
		}
		msg, err := queue.Receive(ctx)
		if err != nil {
			r.t.Errorf("%d entries are left in the queue: %v", n, err)
			break
		}
		r.ack(ctx, msg)
	}
	q := &r.queue
	for item, sure := range q.put {
		if sure && q.acked[item] == 0 && !q.perhaps[item] {
			r.t.Errorf("%q was put and is lost", item)
		}
	}
	for item := range q.acked {
		if _, ok := q.put[item]; !ok {
			r.t.Errorf("%q was received and never put", item)
		}
	}
}

// leave writes the record of a failed run where it can be found.
func (r *run) leave() {
	path := filepath.Join(r.t.ArtifactDir(), fmt.Sprintf("seed-%d.txt", r.seed))
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	if err := os.WriteFile(path, []byte(strings.Join(r.h.events, "\n")+"\n"), 0o644); err == nil {
		r.t.Logf("the record of this run is %s; go test -artifacts keeps it", path)
	}
}
