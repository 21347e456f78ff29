// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/raftstore"
	"github.com/seed-541fafe0/zk/transport/memnet"
	"github.com/seed-541fafe0/zk/zktest"
)

// assemble opens an ensemble whose members differ, in a bubble, and closes it at its end.
func assemble(t *testing.T, n int, change func(i int, cfg *zk.Config), fn func(t *testing.T, ctx context.Context, members []*zk.Member)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		net := memnet.New(1)
		var peers []zk.Peer
		for i := range n {
			peers = append(peers, zk.Peer{ID: zktest.Name(i), Addr: zktest.Name(i), Voter: true})
		}
		members := make([]*zk.Member, n)
		for i := range n {
			cfg := zk.Config{ID: peers[i].ID, Peers: peers, Transport: net.Host(peers[i].ID), Logger: slog.New(slog.DiscardHandler)}
			change(i, &cfg)
			m, err := zk.Open(ctx, cfg)
			must(t, err)
			members[i] = m
			defer m.Close()
		}
		for _, m := range members {
			must(t, m.Ready(ctx))
		}
		fn(t, ctx, members)
	})
}

// led returns who leads, once the members that run agree.
func led(t *testing.T, members []*zk.Member) (at int) {
	t.Helper()
	eventually(t, "no leader", func() bool {
		votes := map[string]int{}
		for i, m := range members {
			info := m.RoleInfo()
			votes[info.Leader]++
			if info.Role == zk.RoleLeader {
				at = i
			}
		}
		return members[at].Role() == zk.RoleLeader && votes[members[at].ID()] > len(members)/2
	})
	return at
}

// badDisk is a store in memory that goes wrong when it is told to.
type badDisk struct {
	*raft.InmemStore
	fault atomic.Pointer[func(op string) error]
}

func (d *badDisk) breaks(fn func(op string) error) { d.fault.Store(&fn) }

func (d *badDisk) try(op string) error {
	if fn := d.fault.Load(); fn != nil {
		return (*fn)(op)
	}
	return nil
}

func (d *badDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *badDisk) StoreLogs(l []*raft.Log) error {
	if err := d.try("append"); err != nil {
		return err
	}
	return d.InmemStore.StoreLogs(l)
}

func (d *badDisk) DeleteRange(min, max uint64) error {
	if err := d.try("delete"); err != nil {
		return err
	}
	return d.InmemStore.DeleteRange(min, max)
}

func (d *badDisk) Set(k, v []byte) error {
	if err := d.try("set"); err != nil {
		return err
	}
	return d.InmemStore.Set(k, v)
}

func (d *badDisk) SetUint64(k []byte, v uint64) error {
	if err := d.try("set"); err != nil {
		return err
	}
	return d.InmemStore.SetUint64(k, v)
}

// A disk that fails, panics or hangs ends its member, and never the process: callers there learn why, everybody else
// is served by the others (P20, P22).
func TestDiskFails(t *testing.T) {
	full := errors.New("no space left on this device")
	for _, fault := range []string{"error", "panic", "hang"} {
		for _, who := range []string{"leader", "follower"} {
			t.Run(fault+" at the "+who, func(t *testing.T) {
				disks := make([]*badDisk, 3)
				assemble(t, 3, func(i int, cfg *zk.Config) {
					disks[i] = &badDisk{InmemStore: raft.NewInmemStore()}
					cfg.Storage = zk.Storage{Log: disks[i], Stable: disks[i]}
				}, func(t *testing.T, ctx context.Context, members []*zk.Member) {
					l := led(t, members)
					bad, good := l, members[(l+1)%3]
					if who == "follower" {
						bad = (l + 2) % 3
					}
					here, there := session(t, ctx, members[bad]), session(t, ctx, good)
					create(t, ctx, there, "/before", zk.Persistent)
					hung := make(chan struct{})
					defer close(hung)
					var broken atomic.Int64
					disks[bad].breaks(func(op string) error {
						if op != "append" {
							return nil
						}
						broken.Add(1)
						switch fault {
						case "panic":
							panic("the disk's driver")
						case "hang":
							<-hung
						}
						return full
					})
					began := time.Now()
					caller := make(chan error, 1)
					go func() {
						_, err := here.Create(ctx, "/here", nil, zk.Persistent)
						caller <- err
					}()
					synctest.Wait() // it is handed over
					create(t, ctx, there, "/there", zk.Persistent)
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("the others were served after %v", took)
					}
					<-members[bad].Done()
					if took := time.Since(began); took > 20*time.Second {
						t.Errorf("it stopped after %v", took)
					}
					if broken.Load() > 1 {
						t.Errorf("after the failure the file was written to %d times more", broken.Load()-1)
					}
					cause := members[bad].Err()
					wants(t, cause, zk.ErrSystem)
					switch {
					case fault == "error" && !errors.Is(cause, full), fault == "panic" && !strings.Contains(cause.Error(), "the disk's driver"):
						t.Errorf("it stopped because of %v", cause)
					}
					// Who waited there does not know; who comes later is told that it is over, and why.
					err := <-caller
					if !errors.Is(err, zk.ErrClosed) || !zk.MaybeApplied(err) || !errors.Is(err, cause) {
						t.Errorf("who waited is told %v", err)
					}
					_, err = here.Create(ctx, "/late", nil, zk.Persistent)
					if !errors.Is(err, fs.ErrClosed) || zk.MaybeApplied(err) || !errors.Is(err, cause) {
						t.Errorf("who comes late is told %v", err)
					}
					_, err = members[bad].NewSession(ctx, zk.SessionConfig{})
					if !errors.Is(err, zk.ErrClosed) || !errors.Is(err, cause) {
						t.Errorf("a new session there: %v", err)
					}
					if here.State() != zk.StateClosed || members[bad].Role() != zk.RoleStopped {
						t.Errorf("session %v, role %v", here.State(), members[bad].Role())
					}
					must(t, members[bad].Close())
					// What was answered is still there, and the ensemble goes on.
					for _, p := range []string{"/before", "/there"} {
						if _, ok, err := there.Exists(ctx, p, zk.Linearizable); !ok {
							t.Errorf("%s: %v", p, err)
						}
					}
					create(t, ctx, there, "/after", zk.Persistent)
				})
			})
		}
	}
}

// A vote or a compaction that cannot be written ends the member as well (P19).
func TestDiskFailsElsewhere(t *testing.T) {
	for _, op := range []string{"set", "delete"} {
		t.Run(op, func(t *testing.T) {
			disks := make([]*badDisk, 3)
			assemble(t, 3, func(i int, cfg *zk.Config) {
				disks[i] = &badDisk{InmemStore: raft.NewInmemStore()}
				cfg.Storage = zk.Storage{Log: disks[i], Stable: disks[i]}
			}, func(t *testing.T, ctx context.Context, members []*zk.Member) {
				l := led(t, members)
				bad := (l + 1) % 3
				s := session(t, ctx, members[(l+2)%3])
				for range 300 { // more than stays in the log after a snapshot
					create(t, ctx, s, "/n-", zk.Sequential)
				}
				must(t, members[bad].Ready(ctx))
				disks[bad].breaks(func(at string) error {
					if at == op {
						return io.ErrShortWrite
					}
					return nil
				})
				if op == "set" {
					must(t, members[l].TransferLeadership(ctx, members[(l+2)%3].ID()))
				} else if err := members[bad].Compact(ctx); err == nil {
					t.Error("it could be compacted")
				}
				<-members[bad].Done()
				if err := members[bad].Err(); !errors.Is(err, zk.ErrSystem) || !errors.Is(err, io.ErrShortWrite) {
					t.Errorf("it stopped because of %v", err)
				}
				create(t, ctx, s, "/after", zk.Persistent)
			})
		})
	}
}

// badSnapshots cannot write snapshots.
type badSnapshots struct {
	raft.SnapshotStore
	broken atomic.Bool
}

func (b *badSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, tr raft.Transport) (raft.SnapshotSink, error) {
	s, err := b.SnapshotStore.Create(v, index, term, c, ci, tr)
	if err == nil && b.broken.Load() {
		s = badSink{s}
	}
	return s, err
}

type badSink struct{ raft.SnapshotSink }

func (badSink) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// A snapshot that cannot be written is a disk that cannot be trusted: it ends the member, and leaves none behind. What
// was answered is there at the next start (P1, P19).
func TestSnapshotFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, log := t.Context(), raft.NewInmemStore()
		snaps := &badSnapshots{SnapshotStore: raftstore.NewMemory(slog.New(slog.DiscardHandler))}
		cfg := zk.Config{Storage: zk.Storage{Log: log, Stable: log, Snapshots: snaps}, Logger: slog.New(slog.DiscardHandler)}
		m := open(t, cfg)
		s := session(t, ctx, m)
		for range 300 {
			create(t, ctx, s, "/n-", zk.Sequential)
		}
		snaps.broken.Store(true)
		wants(t, m.Compact(ctx), zk.ErrSystem)
		<-m.Done()
		if err := m.Err(); !errors.Is(err, zk.ErrSystem) || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("it stopped because of %v", err)
		}
		snaps.broken.Store(false)
		m = open(t, cfg)
		s = session(t, ctx, m)
		if names, _, err := s.Children(ctx, "/"); err != nil || len(names) != 301 {
			t.Errorf("%d children, %v", len(names), err)
		}
		must(t, m.Compact(ctx))
		must(t, m.Close())
		m = open(t, cfg)
		if names, _, err := session(t, ctx, m).Children(ctx, "/"); err != nil || len(names) != 301 {
			t.Errorf("%d children from the snapshot, %v", len(names), err)
		}
	})
}

// Strangers that send garbage, or nothing, cost a member the stream they came on. It says so, not once for each
// (P21).
func TestGarbageOnStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		net := memnet.New(1)
		var said lines
		var warned slog.HandlerOptions
		warned.Level = slog.LevelWarn
		m := open(t, zk.Config{ID: "m", Transport: net.Host("m"), Logger: slog.New(slog.NewTextHandler(&said, &warned))})
		s := session(t, ctx, m)
		random := rand.NewChaCha8([32]byte{1})
		for i := range 300 {
			conn, err := net.Host("stranger").Dial(ctx, "m")
			must(t, err)
			b := make([]byte, 1+i*i%5000)
			switch i % 5 {
			case 0:
				random.Read(b)
			case 1:
				b = []byte("GET / HTTP/1.1\r\nHost: m\r\n\r\n")
			case 2:
				b = bytes.Repeat([]byte{0xff}, len(b))
			case 3:
				clear(b)
			case 4: // nothing at all
				b = nil
			}
			conn.Write(b)
			// It hangs up, at the latest when a stranger takes too long to say who it is.
			began := time.Now()
			if _, err := io.Copy(io.Discard, conn); time.Since(began) > 10*time.Second {
				t.Fatalf("garbage %d held a stream for %v: %v", i, time.Since(began), err)
			}
			conn.Close()
			if i%50 == 0 {
				create(t, ctx, s, "/n-", zk.Sequential)
			}
		}
		must(t, m.Err())
		if n := said.count(); n == 0 || n > 60 {
			t.Errorf("it said %d lines about 300 streams in %v", n, time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
		}
	})
}

// lines counts what is written.
type lines struct {
	mu sync.Mutex
	n  int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// fill hands over one write of a member that is cut off, and queues as many more.
func fill(t *testing.T, ctx context.Context, s *zk.Session, more, size int) (first, queued chan *zk.Call) {
	t.Helper()
	l := s.Listener()
	first, queued = make(chan *zk.Call, 1), make(chan *zk.Call, more)
	l.Go(ctx, first, zk.OpCreate("/q/first", nil, zk.Persistent))
	synctest.Wait() // it is in a frame now
	for i := range more {
		l.Go(ctx, queued, zk.OpCreate(fmt.Sprint("/q/", i), make([]byte, size), zk.Persistent))
	}
	return first, queued
}

// The queue is bounded, by count and by bytes. What finds it full waits as long as its context allows, and is refused
// at once where that has no end; what is refused had no effect and will have none (P21, P3).
func TestQueueIsBounded(t *testing.T) {
	for name, cfg := range map[string]zk.Config{
		"by count": {MaxQueuedWrites: 4},
		"by bytes": {MaxValueSize: 10_000, MaxQueuedBytes: 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, zktest.Config{Base: cfg}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				f := (leader(t, ctx, c) + 1) % 3
				s := session(t, ctx, c.Member(f))
				create(t, ctx, s, "/q", zk.Persistent)
				must(t, c.Quiesce(ctx))
				c.Isolate(f)
				first, queued := fill(t, ctx, s, 4, 4500)
				if name == "by count" && len(queued) > 0 {
					t.Fatalf("refused: %v", (<-queued).Error)
				}
				data := make([]byte, 4500)
				throttled := func(err error) {
					t.Helper()
					if !errors.Is(err, zk.ErrThrottled) || zk.MaybeApplied(err) {
						t.Errorf("%v", err)
					}
				}
				// No end: at once. An end: then.
				_, err := s.Create(context.Background(), "/q/at-once", data, zk.Persistent)
				throttled(err)
				throttled((<-s.Listener().Go(ctx, nil, zk.OpCreate("/q/listener", data, zk.Persistent)).Done).Error)
				began := time.Now()
				short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				_, err = s.Create(short, "/q/waited", data, zk.Persistent)
				cancel()
				throttled(err)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 300*time.Millisecond {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				// Room comes when the frame in flight is done.
				waiting := make(chan error, 1)
				go func() {
					_, err := s.Create(ctx, "/q/patient", data, zk.Persistent)
					waiting <- err
				}()
				synctest.Wait()
				c.Heal()
				must(t, (<-first).Error)
				for range 4 {
					must(t, (<-queued).Error)
				}
				must(t, <-waiting)
				names, _, err := s.Children(ctx, "/q", zk.Linearizable)
				must(t, err)
				if got := strings.Join(names, " "); got != "0 1 2 3 first patient" {
					t.Errorf("there is %s", got)
				}
			})
		})
	}
}

// A request that is withdrawn from a full queue makes room for the next one.
func TestWithdrawnMakesRoom(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{MaxQueuedWrites: 1}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		create(t, ctx, s, "/q", zk.Persistent)
		must(t, c.Quiesce(ctx))
		c.Isolate(f)
		fill(t, ctx, s, 0, 0)
		impatient, cancel := context.WithCancel(ctx)
		gone, in := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := s.Create(impatient, "/q/withdrawn", nil, zk.Persistent)
			gone <- err
		}()
		synctest.Wait()
		go func() {
			_, err := s.Create(ctx, "/q/next", nil, zk.Persistent)
			in <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, zk.ErrUnavailable) || !errors.Is(err, context.Canceled) || zk.MaybeApplied(err) {
			t.Errorf("withdrawn: %v", err)
		}
		synctest.Wait()
		_, err := s.Create(context.Background(), "/q/full", nil, zk.Persistent) // the next one has taken the place
		wants(t, err, zk.ErrThrottled)
		c.Heal()
		must(t, <-in)
		if names, _, _ := s.Children(ctx, "/q", zk.Linearizable); strings.Join(names, " ") != "first next" {
			t.Errorf("there is %v", names)
		}
	})
}

// Whatever the limits on a value and a transaction allow gets through an empty queue, however small that is.
func TestLargestRequestFitsTheQueue(t *testing.T) {
	ctx, _, s := single(t, zk.Config{MaxValueSize: 1000, MaxQueuedBytes: 2000})
	var ops []zk.Op
	for i := range 20 {
		ops = append(ops, zk.OpCreate(fmt.Sprint("/n", i), make([]byte, 1000), zk.Persistent))
	}
	_, err := s.Txn(context.WithoutCancel(ctx), ops...)
	must(t, err)
}

// Without a majority nothing is written and nothing expires: who was handed over does not know, who waits can be
// withdrawn, who reads locally goes on. When the majority is back, what is unknown comes to its end, once (P3, P8).
func TestMajorityLost(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		for _, here := range []int{l, (l + 1) % 3} {
			others := []int{(here + 1) % 3, (here + 2) % 3}
			m := c.Member(here)
			s := session(t, ctx, m)
			dir := fmt.Sprint("/of-", here)
			create(t, ctx, s, dir, zk.Persistent)
			create(t, ctx, s, dir+"/e", zk.Ephemeral)
			must(t, c.Quiesce(ctx))
			for _, o := range others {
				must(t, c.Crash(o))
			}
			within := func(fn func(ctx context.Context) error) error {
				ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
				defer cancel()
				return fn(ctx)
			}
			put := func(name string) error {
				return within(func(ctx context.Context) error {
					_, err := s.Create(ctx, dir+"/"+name, nil, zk.Sequential)
					return err
				})
			}
			if err := put("handed-over-"); !zk.MaybeApplied(err) || !errors.Is(err, zk.ErrUnavailable) || !errors.Is(err, zk.ErrTimeout) {
				t.Errorf("handed over: %v", err)
			}
			for range 3 {
				if err := put("queued-"); zk.MaybeApplied(err) || !errors.Is(err, zk.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("queued: %v", err)
				}
			}
			err := within(func(ctx context.Context) error { _, _, err := s.Get(ctx, dir, zk.Linearizable); return err })
			if !errors.Is(err, zk.ErrUnavailable) || zk.MaybeApplied(err) {
				t.Errorf("a linearizable read: %v", err)
			}
			time.Sleep(3 * s.Timeout())
			if _, ok, err := s.Exists(ctx, dir+"/e"); !ok || s.State() != zk.StateSuspended { // nobody expires anybody
				t.Errorf("session %v, its ephemeral %v, %v", s.State(), ok, err)
			}
			_, _, err = s.Get(ctx, dir, zk.Fresh(5*time.Second))
			wants(t, err, zk.ErrStale)
			_, _, err = s.Get(ctx, dir, zk.Fresh(time.Hour))
			must(t, err)
			for _, o := range others {
				must(t, c.Restart(ctx, o))
			}
			create(t, ctx, s, dir+"/after", zk.Persistent)
			if names, _, err := s.Children(ctx, dir); strings.Join(names, " ") != "after e handed-over-0000000001" {
				t.Errorf("there is %q, %v", names, err)
			}
			eventually(t, "the session did not recover", func() bool { return s.State() == zk.StateActive })
			must(t, c.Quiesce(ctx))
		}
	})
}

// What a member's close means for its callers: who was in a frame does not know, who waited in the queue was never
// handed over, whichever way they called.
func TestOutcomesAtClose(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		create(t, ctx, s, "/q", zk.Persistent)
		must(t, c.Quiesce(ctx))
		c.Isolate(f)
		first, queued := fill(t, ctx, s, 2, 0)
		waiting := make(chan error, 1)
		go func() {
			_, err := s.Create(ctx, "/q/waiting", nil, zk.Persistent)
			waiting <- err
		}()
		synctest.Wait()
		must(t, c.Crash(f))
		if err := (<-first).Error; !errors.Is(err, zk.ErrClosed) || !zk.MaybeApplied(err) {
			t.Errorf("in a frame: %v", err)
		}
		if err := <-waiting; !errors.Is(err, zk.ErrClosed) || zk.MaybeApplied(err) {
			t.Errorf("waiting in the queue: %v", err)
		}
		for range 2 {
			if err := (<-queued).Error; !errors.Is(err, zk.ErrClosed) || zk.MaybeApplied(err) {
				t.Errorf("a listener's call in the queue: %v", err)
			}
		}
		_, err := s.Create(ctx, "/q/late", nil, zk.Persistent)
		if !errors.Is(err, zk.ErrClosed) || zk.MaybeApplied(err) {
			t.Errorf("after the close: %v", err)
		}
	})
}

// Who stops waiting for a transaction that was handed over can be told later how it ended: once, and in no other case
// (E10).
func TestTxnLate(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		create(t, ctx, s, "/q", zk.Persistent)
		must(t, c.Quiesce(ctx))
		type end struct {
			results []zk.Result
			err     error
		}
		ends := make(chan end, 10)
		late := func(wait time.Duration, ops ...zk.Op) error {
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			_, err := s.TxnLate(ctx, func(r []zk.Result, err error) { ends <- end{r, err} }, ops...)
			return err
		}
		none := func(when string) {
			t.Helper()
			synctest.Wait()
			if len(ends) != 0 {
				t.Errorf("%s: told of %+v", when, <-ends)
			}
		}
		must(t, late(time.Minute, zk.OpCreate("/q/n-", nil, zk.Sequential)))
		wants(t, late(time.Minute, zk.OpCheckAbsent("/q")), zk.ErrGuard)
		wants(t, late(time.Minute, zk.OpCheckAbsent("bad")), zk.ErrBadArguments)
		none("answered in time")
		for i, k := range []struct {
			op   zk.Op
			path string
			code zk.Code
		}{{zk.OpCreate("/q/n-", nil, zk.Sequential), "/q/n-0000000001", 0}, {zk.OpCheckAbsent("/q"), "", zk.ErrGuard}} {
			c.Isolate(f)
			if err := late(100*time.Millisecond, k.op); !zk.MaybeApplied(err) {
				t.Fatalf("%d: %v", i, err)
			}
			if err := late(100*time.Millisecond, zk.OpCreate("/q/withdrawn", nil, zk.Persistent)); err == nil || zk.MaybeApplied(err) {
				t.Fatalf("%d, queued: %v", i, err)
			}
			none("nobody knows yet")
			c.Heal()
			e := <-ends
			if k.code == 0 && (e.err != nil || e.results[0].Path != k.path) || k.code != 0 && (!errors.Is(e.err, k.code) || zk.MaybeApplied(e.err)) {
				t.Errorf("%d ended with %+v", i, e)
			}
			none("told once")
		}
		c.Isolate(f)
		if err := late(100*time.Millisecond, zk.OpCreate("/q/n-", nil, zk.Sequential)); !zk.MaybeApplied(err) {
			t.Fatal(err)
		}
		must(t, c.Crash(f))
		if e := <-ends; !errors.Is(e.err, zk.ErrClosed) || !zk.MaybeApplied(e.err) {
			t.Errorf("at the member's end: %+v", e)
		}
		none("the end")
	})
}

// Close waits for functions of TxnLate, so that none runs when it has returned; who calls back into the member meets
// ErrClosed, and one that does not return keeps Close no longer than its bound (P22).
func TestCloseWaitsForLate(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			f := (leader(t, ctx, c) + 1) % 3
			s := session(t, ctx, c.Member(f))
			must(t, c.Quiesce(ctx))
			c.Isolate(f)
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			free, began := make(chan struct{}), make(chan struct{})
			var ended atomic.Bool
			_, err := s.TxnLate(short, func([]zk.Result, error) {
				close(began)
				_, err := s.Create(ctx, "/late", nil, zk.Persistent)
				wants(t, err, zk.ErrClosed)
				if stuck {
					<-free
				} else {
					time.Sleep(time.Second)
				}
				ended.Store(true)
			}, zk.OpCreate("/n", nil, zk.Persistent))
			if !zk.MaybeApplied(err) {
				t.Fatal(err)
			}
			at := time.Now()
			must(t, c.Crash(f))
			select {
			case <-began:
			default:
				t.Error("Close did not wait for the outcome to be told")
			}
			if ended.Load() == stuck || time.Since(at) > 6*time.Second {
				t.Errorf("stuck %v: Close returned after %v, the function had ended: %v", stuck, time.Since(at), ended.Load())
			}
			close(free)
			synctest.Wait()
		})
	}
}

// Stamps go on from the newest one in the log by the leader's monotonic clock, whatever its wall clock says: they never
// go back, and a clock that is set while its member leads changes nothing (D19).
func TestClocksOff(t *testing.T) {
	var off [3]atomic.Int64
	assemble(t, 3, func(i int, cfg *zk.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(off[i].Load())) }
	}, func(t *testing.T, ctx context.Context, members []*zk.Member) {
		s := session(t, ctx, members[0])
		newest := time.Time{}
		stamp := func() time.Time {
			t.Helper()
			z := create(t, ctx, s, "/n-", zk.Sequential)
			if z.Stat.Ctime.Before(newest) {
				t.Errorf("stamp %v after %v", z.Stat.Ctime, newest)
			}
			newest = z.Stat.Ctime
			return newest
		}
		hour := int64(time.Hour)
		now := s.Now()
		later := func() { // the ensemble's time, as a session sees it, does not go back either
			t.Helper()
			next := s.Now()
			if next.Before(now) {
				t.Errorf("%v after %v", next, now)
			}
			now = next
		}
		lead := func(i int) {
			t.Helper()
			time.Sleep(time.Minute) // the session's time runs on without a stamp
			later()
			defer later()
			if led(t, members) != i {
				must(t, members[led(t, members)].TransferLeadership(ctx, members[i].ID()))
			}
			if led(t, members) != i {
				t.Fatalf("member %d does not lead", i)
			}
		}
		lead(0)
		if got := stamp(); time.Until(got).Abs() > time.Millisecond {
			t.Errorf("stamp %v, now %v", got, time.Now())
		}
		// Set while it leads: nothing.
		for _, d := range []int64{5 * hour, -5 * hour, 0} {
			off[0].Store(d)
			before := stamp()
			time.Sleep(10 * time.Second)
			if took := stamp().Sub(before); took < 10*time.Second || took > 10*time.Second+10*time.Millisecond {
				t.Errorf("a clock set by %v: 10 s are %v", time.Duration(d), took)
			}
		}
		// Ahead at an election: times follow.
		off[1].Store(hour)
		lead(1)
		if got := stamp(); got.Sub(time.Now().Add(time.Hour)).Abs() > time.Second {
			t.Errorf("an hour ahead: stamp %v, now %v", got, time.Now())
		}
		// Behind: they go on from the newest, and not faster or slower than time does. What passed without a stamp is lost.
		off[2].Store(-hour)
		lead(2)
		before := stamp()
		if lag := time.Now().Add(time.Hour).Sub(before); lag < -time.Second || lag > 65*time.Second {
			t.Errorf("stamp %v, %v behind", before, lag)
		}
		time.Sleep(time.Minute)
		if took := stamp().Sub(before); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("a minute is %v", took)
		}
		lead(0) // a right clock, now an hour behind the log
		stamp()
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			later()
			stamp()
			later()
		}
		if d := s.Now().Sub(newest); d < 0 || d > 2*time.Minute {
			t.Errorf("the session's time is %v after the newest stamp", d)
		}
	})
}

// TTLs follow the leader's stamps: a wrong clock at an election moves them forward, never back; sessions do not care
// (D19, DM-82).
func TestTTLFollowsStamps(t *testing.T) {
	var off [3]atomic.Int64
	assemble(t, 3, func(i int, cfg *zk.Config) {
		cfg.ReapInterval = 10 * time.Second
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(off[i].Load())) }
	}, func(t *testing.T, ctx context.Context, members []*zk.Member) {
		l := led(t, members)
		s := session(t, ctx, members[l])
		create(t, ctx, s, "/e", zk.Ephemeral)
		_, err := s.Do(ctx, zk.OpCreate("/ttl", nil, zk.Persistent).WithTTL(time.Hour))
		must(t, err)
		create(t, ctx, s, "/c", zk.Container)
		there := func(path string) bool {
			t.Helper()
			_, ok, err := s.Exists(ctx, path)
			must(t, err)
			return ok
		}
		off[(l+1)%3].Store(int64(-2 * time.Hour)) // behind: nothing is due earlier or later
		must(t, members[l].TransferLeadership(ctx, members[(l+1)%3].ID()))
		time.Sleep(4 * time.Minute)
		if !there("/ttl") || !there("/c") {
			t.Error("reaped too early")
		}
		time.Sleep(2 * time.Minute)
		if !there("/ttl") || there("/c") {
			t.Errorf("after six minutes: ttl %v, container %v", there("/ttl"), there("/c"))
		}
		off[(l+2)%3].Store(int64(2 * time.Hour)) // ahead: an hour has passed, as far as anybody can tell
		must(t, members[led(t, members)].TransferLeadership(ctx, members[(l+2)%3].ID()))
		time.Sleep(30 * time.Second)
		if there("/ttl") {
			t.Error("not reaped")
		}
		if !there("/e") || s.State() != zk.StateActive {
			t.Errorf("the session is %v", s.State())
		}
	})
}

// Reaping is spread: at most 40 znodes in 250 ms (DM-83). The leader alone looks for what is due (DM-80): each znode
// costs one request, whoever else there is.
func TestReapingIsSpread(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{ReapInterval: 20 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		s := session(t, ctx, c.Member(l))
		const count = 500
		var ops []zk.Op
		for i := range count {
			ops = append(ops, zk.OpCreate(fmt.Sprintf("/t%03d", i), nil, zk.Persistent).WithTTL(time.Millisecond))
		}
		var mu sync.Mutex
		at := map[time.Duration]int{} // by tick
		zxids := map[zk.Zxid]bool{}
		began := time.Now()
		o, err := c.Member(l).NewSession(ctx, zk.SessionConfig{Events: func(ev zk.Event) {
			if ev.Type == zk.EventDeleted {
				mu.Lock()
				defer mu.Unlock()
				at[time.Since(began).Truncate(250*time.Millisecond)]++
				zxids[ev.Zxid] = true
			}
		}})
		must(t, err)
		must(t, o.Listener().AddWatch("/", true))
		time.Sleep(time.Second)
		results, err := s.Txn(ctx, ops...)
		must(t, err)
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if took := c.Member(l).Applied() - results[0].Stat.Czxid; len(zxids) != count || took != count {
			t.Errorf("of %d znodes %d were reaped, with %d requests", count, len(zxids), took)
		}
		for tick, n := range at {
			if n > 40 {
				t.Errorf("%d were reaped within 250 ms, %v after the start", n, tick)
			}
		}
		if len(at) > 2*count/40 {
			t.Errorf("it took %d ticks", len(at))
		}
	})
}

// A session whose member is heard within its timeout is never expired, however often the leader changes; once its member
// is gone it and its ephemerals are, within twice the timeout and one election (P9, P10).
func TestExpiryIsInTime(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		steady := 0
		s := session(t, ctx, c.Member(steady))
		create(t, ctx, s, "/steady", zk.Ephemeral)
		for round := range 12 {
			l := leader(t, ctx, c)
			if l == steady {
				must(t, c.Member(l).TransferLeadership(ctx, zktest.Name(1+round%2)))
				l = leader(t, ctx, c)
			}
			o := session(t, ctx, c.Member(l))
			path := create(t, ctx, o, "/e-", zk.Ephemeral|zk.Sequential).Path
			must(t, s.Sync(ctx))
			_, ok, gone, err := s.ExistsW(ctx, path)
			must(t, err)
			if !ok {
				t.Fatalf("%s is not there", path)
			}
			if round == 5 { // heartbeats alone keep it alive as well
				time.Sleep(time.Minute)
				must(t, s.Err())
				must(t, o.Err())
			}
			must(t, c.Crash(l)) // the leader, and with it the session's member
			died := time.Now()
			if ev := next(t, gone); ev.Type != zk.EventDeleted {
				t.Fatalf("%+v", ev)
			}
			if took := time.Since(died); took < o.Timeout()-o.Timeout()/3 || took > 2*o.Timeout()+3*time.Second {
				t.Errorf("round %d: gone after %v, the timeout is %v", round, took, o.Timeout())
			}
			must(t, c.Restart(ctx, l))
			must(t, c.Member(l).Ready(ctx))
		}
		must(t, s.Err())
		if _, ok, err := s.Exists(ctx, "/steady", zk.Linearizable); !ok {
			t.Errorf("/steady: %v", err)
		}
	})
}

// Neither sessions nor watches nor rights nor waiters cost a goroutine (P21).
func TestGoroutinesAreBounded(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/r", zk.Persistent)
	st, _, err := s.Exists(ctx, "/r")
	must(t, err)
	before := runtime.NumGoroutine()
	cancels := []context.CancelFunc{}
	for range 300 {
		o := session(t, ctx, m)
		_, err := o.Watch(ctx, "/r", zk.WatchSubtree)
		must(t, err)
		_, _, _, err = o.GetW(ctx, "/r")
		must(t, err)
		_, cancel, err := o.ContextWhile(ctx, "/r", zk.Token(st.Czxid))
		must(t, err)
		cancels = append(cancels, cancel)
	}
	if n := runtime.NumGoroutine() - before; n > 20 {
		t.Errorf("300 sessions, 600 watches and 300 rights cost %d goroutines", n)
	}
	for _, cancel := range cancels {
		cancel()
	}
}

// The log is bounded by what is written between two snapshots, whatever is written in all (P21).
func TestLogIsBounded(t *testing.T) {
	const each = 10_000
	bubble(t, 3, zktest.Config{Base: zk.Config{SnapshotBytes: 50 * each}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/v", zk.Persistent)
		for range 1500 {
			_, err := s.Set(ctx, "/v", make([]byte, each), zk.AnyVersion)
			must(t, err)
			time.Sleep(100 * time.Millisecond)
			for i := range 3 { // the entries since the snapshot, what a second may add, and 128 that stay
				if n := c.Member(i).Stats().LogBytes; n > (50+20+128)*(each+1000) {
					t.Fatalf("member %d has a log of %d bytes", i, n)
				}
			}
		}
	})
}

// A session has a bound on its ephemerals, and is told where it is (P21).
func TestEphemeralsAreBounded(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	few, err := m.NewSession(ctx, zk.SessionConfig{MaxEphemerals: 2})
	must(t, err)
	create(t, ctx, few, "/1", zk.Ephemeral)
	create(t, ctx, few, "/2", zk.Ephemeral)
	_, err = few.Create(ctx, "/3", nil, zk.Ephemeral)
	if !errors.Is(err, zk.ErrThrottled) || zk.MaybeApplied(err) {
		t.Errorf("the third: %v", err)
	}
	create(t, ctx, few, "/3", zk.Persistent)
	must(t, few.Delete(ctx, "/1", zk.AnyVersion))
	create(t, ctx, few, "/1", zk.Ephemeral)
	for range 10 {
		var ops []zk.Op
		for range 1000 {
			ops = append(ops, zk.OpCreate("/e-", nil, zk.Ephemeral|zk.Sequential))
		}
		_, err := s.Txn(ctx, ops...)
		must(t, err)
	}
	_, err = s.Create(ctx, "/e-", nil, zk.Ephemeral|zk.Sequential) // the default is 10,000
	wants(t, err, zk.ErrThrottled)
}

// The tokens of one right strictly increase: from holder to holder, over leaders, snapshots and restarts of everything
// (P13).
func TestTokensIncrease(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		newest := zk.Token(0)
		hold := func(i int) {
			t.Helper()
			s := session(t, ctx, c.Member(i))
			z := create(t, ctx, s, "/right", zk.Ephemeral)
			if token := zk.Token(z.Stat.Czxid); token <= newest {
				t.Errorf("token %d after %d", token, newest)
			} else {
				newest = token
			}
			must(t, s.Close())
		}
		for round := range 4 {
			for i := range 3 {
				hold(i)
			}
			l := leader(t, ctx, c)
			switch round {
			case 0:
				must(t, c.Crash(l))
				hold((l + 1) % 3)
				must(t, c.Restart(ctx, l))
			case 1: // zxids have no epoch half: a new leadership goes on counting (DM-39)
				before := c.Member(l).Applied()
				must(t, c.Member(l).TransferLeadership(ctx, ""))
				s := session(t, ctx, c.Member((l+1)%3))
				if after := s.LastZxid(); after <= before || after > before+10 || after>>32 != 0 {
					t.Errorf("zxid %v before the new leadership, %v after", before, after)
				}
			case 2:
				c.Isolate(l)
				hold((l + 1) % 3)
				for i := range 3 {
					if i != l {
						must(t, c.Member(i).Compact(ctx))
					}
				}
				c.Heal()
			case 3:
				for i := range 3 {
					must(t, c.Crash(i))
				}
				for i := range 3 {
					must(t, c.Restart(ctx, i))
				}
			}
			for i := range 3 {
				must(t, c.Member(i).Ready(ctx))
				hold(i)
			}
			must(t, c.Quiesce(ctx))
		}
	})
}

// A watch hears of everything after its registration once and in order, while leaders crash and its own member is cut
// off; the registration is one with the read, and no read shows a change before its event is there (P14, P15, P17).
func TestWatchUnderFaults(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 2000}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		w, s := session(t, ctx, c.Member((l+2)%3)), session(t, ctx, c.Member(f))
		create(t, ctx, w, "/w", zk.Persistent)
		must(t, c.Quiesce(ctx))
		const count = 400
		stop := make(chan struct{})
		var readers sync.WaitGroup
		// Readers set a watch each time they read: what they missed at the read they are told of.
		readers.Go(func() {
			for known := 0; known < count; {
				names, _, changed, err := s.ChildrenW(ctx, "/w")
				if err != nil {
					t.Error(err)
					return
				}
				if known = len(names); known == count {
					return
				}
				select {
				case <-changed:
				case <-stop:
					t.Errorf("a reader that watches knows %d of %d", known, count)
					return
				}
			}
		})
		watch, err := s.Watch(ctx, "/w", zk.WatchSubtree)
		must(t, err)
		from := watch.From()
		go func() {
			for i := range count {
				if _, err := w.Create(ctx, fmt.Sprintf("/w/%04d", i), nil, zk.Persistent); err != nil {
					t.Error(err)
				}
				switch i {
				case 100:
					c.Isolate(f)
				case 150:
					time.Sleep(2 * time.Second)
					c.Heal()
				case 250:
					if err := c.Crash(l); err != nil {
						t.Error(err)
					}
				case 350:
					if err := c.Restart(ctx, l); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		last := from
		for i := range count {
			// Whatever a read shows, its events are in the channel.
			names, st, err := s.Children(ctx, "/w")
			must(t, err)
			if len(names) > i && len(watch.Events()) < len(names)-i {
				t.Fatalf("a read shows %d, of which %d were heard and %d wait", len(names), i, len(watch.Events()))
			}
			ev := next(t, watch.Events())
			if want := fmt.Sprintf("/w/%04d", i); ev.Type != zk.EventCreated || ev.Path != want || ev.Zxid <= last {
				t.Fatalf("event %+v after zxid %v, want %s", ev, last, want)
			}
			last = ev.Zxid
			if st.Pzxid > last && len(names) <= i {
				t.Fatalf("read at %v shows %d", st.Pzxid, len(names))
			}
			if _, ok, err := s.Exists(ctx, ev.Path); !ok {
				t.Fatalf("%s was heard of and is not there: %v", ev.Path, err)
			}
		}
		time.Sleep(time.Second)
		close(stop)
		readers.Wait()
		select {
		case ev := <-watch.Events():
			t.Errorf("one event too many: %+v", ev)
		default:
		}
		must(t, c.Quiesce(ctx))
	})
}

// A consumer that does not read holds up nobody: not writers, not other watchers. It is told that it missed something,
// and from what it reads then on it misses nothing (P16).
func TestSlowConsumer(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{WatchBuffer: 4}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s, o := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(f))
		create(t, ctx, s, "/w", zk.Persistent)
		slow, err := s.Watch(ctx, "/w", zk.WatchSubtree)
		must(t, err)
		fast, err := o.Watch(ctx, "/w", zk.WatchSubtree)
		must(t, err)
		heard := make(chan int, 1)
		const count = 100
		go func() {
			n := 0
			for ev := range fast.Events() {
				if ev.Type != zk.EventCreated || ev.Path != fmt.Sprintf("/w/%03d", n) {
					t.Errorf("event %d is %+v", n, ev)
				}
				if n++; n == count {
					heard <- n
					return
				}
			}
		}()
		began := time.Now()
		for i := range count {
			create(t, ctx, s, fmt.Sprintf("/w/%03d", i), zk.Persistent)
			synctest.Wait() // the fast one has read
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%d writes took %v", count, took)
		}
		<-heard
		// The first few, the marker, and nothing after it.
		n := 0
		for ev := range slow.Events() {
			if ev.Type == zk.EventOverflow {
				break
			}
			if ev.Path != fmt.Sprintf("/w/%03d", n) {
				t.Errorf("event %d is %+v", n, ev)
			}
			n++
		}
		if n < 1 || n > 4 || len(slow.Events()) != 0 {
			t.Errorf("%d events before the marker, %d after it", n, len(slow.Events()))
		}
		if got := c.Member(f).Stats().WatchOverflows; got != 1 {
			t.Errorf("%d overflows", got)
		}
		names, _, err := s.Children(ctx, "/w") // reading again covers what was dropped
		must(t, err)
		if len(names) != count {
			t.Errorf("%d children", len(names))
		}
		create(t, ctx, s, "/w/new", zk.Persistent)
		if ev := next(t, slow.Events()); ev.Type != zk.EventCreated || ev.Path != "/w/new" {
			t.Errorf("after the drain: %+v", ev)
		}
	})
}
