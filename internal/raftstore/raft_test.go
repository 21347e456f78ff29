// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// These tests run hashicorp/raft itself on a store that fails.

// machine is a state machine that lists what it was given.
type machine struct {
	mu   sync.Mutex
	list []string
}

func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, string(l.Data))
	return nil
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return frozen(slices.Clone(m.list)), nil
}

func (m *machine) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = nil
	for line := range strings.Lines(string(b)) {
		m.list = append(m.list, strings.TrimSuffix(line, "\n"))
	}
	return nil
}

type frozen []string

func (f frozen) Persist(k raft.SnapshotSink) error {
	for _, line := range f {
		if _, err := io.WriteString(k, line+"\n"); err != nil {
			return errors.Join(err, k.Cancel())
		}
	}
	return k.Close()
}

func (frozen) Release() {}

// network is a transport that does not pipeline.
type network struct{ *raft.InmemTransport }

func (network) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// node is a member of an ensemble of raft alone.
type node struct {
	disk  *disk
	arm   func() // called when the store is open and raft is not
	files *Files
	told  *failures
	store *Store
	fsm   *machine
	raft  *raft.Raft
}

func newNode() *node { return &node{disk: newDisk(), files: NewMemory(quiet)} }

func (n *node) start(peers []string, id string, tr raft.Transport) error {
	n.told, n.fsm, n.raft = &failures{}, &machine{}, nil
	var err error
	if n.store, err = Open(Config{Log: n.disk, Stable: n.disk, Fail: n.told.note, CacheBytes: -1}); err != nil {
		return err
	}
	snaps, err := n.store.GuardSnapshots(n.files)
	if err != nil {
		return err
	}
	if n.arm != nil {
		n.arm()
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.TrailingLogs, c.NoLegacyTelemetry = raft.ServerID(id), hclog.NewNullLogger(), 3, true
	return n.store.Guard(func() error {
		var members raft.Configuration
		for _, p := range peers {
			members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(p), Address: raft.ServerAddress(p)})
		}
		if err := raft.BootstrapCluster(c, n.store, n.store, snaps, tr, members); err != nil && err != raft.ErrCantBootstrap {
			return err
		}
		n.raft, err = raft.NewRaft(c, n.fsm, n.store, n.store, snaps, tr)
		return err
	})
}

// stop ends raft, if it runs, within the time that a hanging call may take, and the store.
func (n *node) stop(t *testing.T) {
	t.Helper()
	began := time.Now()
	if n.raft != nil {
		if err := n.raft.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 2*defaultStall {
		t.Errorf("shutdown took %v", took)
	}
	if n.store != nil {
		n.store.Close()
	}
}

// alone is a node that is its whole ensemble.
func alone(t *testing.T, n *node) error {
	_, tr := raft.NewInmemTransport("a")
	t.Cleanup(func() { tr.Close() })
	return n.start([]string{"a"}, "a", network{tr})
}

// work applies entries and takes a snapshot, until something fails; it returns what was confirmed.
func (n *node) work(name string) (confirmed []string, err error) {
	for n.raft.State() != raft.Leader && !n.store.Stalled() {
		time.Sleep(time.Second) // in a bubble
	}
	for i := range 6 {
		data := fmt.Sprint(name, " ", i)
		if err := n.raft.Apply([]byte(data), time.Minute).Error(); err != nil {
			return confirmed, err
		}
		confirmed = append(confirmed, data)
		if i == 3 {
			if err := n.raft.Snapshot().Error(); err != nil {
				return confirmed, err
			}
		}
	}
	return confirmed, nil
}

// Whichever call of the store fails, and however, raft ends without a panic, every caller gets an answer, Shutdown
// returns, and what was confirmed is there at the next start (P19, P22, D16).
func TestRaftOverFailingStore(t *testing.T) {
	faults := []fault{failsBefore, failsAfter, failsHalf, panics, exits, hangs}
	for round := range 2 { // a new store, and one that has a log and a snapshot
		for n, more := 0, true; more; n++ {
			more = false
			for _, f := range faults {
				synctest.Test(t, func(t *testing.T) {
					node := newNode()
					var confirmed []string
					for i := range round {
						if err := alone(t, node); err != nil {
							t.Fatal(err)
						}
						done, err := node.work(fmt.Sprint("before ", i))
						if err != nil {
							t.Fatal(err)
						}
						confirmed = append(confirmed, done...)
						node.stop(t)
					}
					if f == hangs { // opening a store may take its time
						node.arm = func() { node.disk.failAt(n, f) }
					} else {
						node.disk.failAt(n, f)
					}
					err := alone(t, node)
					if err == nil {
						var done []string
						done, err = node.work("now")
						confirmed = append(confirmed, done...)
					}
					node.stop(t)
					reached := len(node.disk.log()) > n
					more = more || reached
					if failed := err != nil || len(node.told.errs) > 0; failed != reached {
						t.Errorf("call %d %v: reached %v, %v, Fail was told %v", n, f, reached, err, node.told.errs)
					}
					if f == hangs {
						close(node.disk.wake)
						synctest.Wait() // the lock is held as long
					}
					node.arm = nil
					node.disk.failAt(-1, fine)
					if err := alone(t, node); err != nil {
						t.Fatalf("call %d %v: the next start: %v", n, f, err)
					}
					after, err := node.work("after")
					if err != nil {
						t.Fatal(err)
					}
					for _, want := range append(confirmed, after...) {
						if !slices.Contains(node.fsm.list, want) {
							t.Errorf("call %d %v: %q is lost", n, f, want)
						}
					}
					node.stop(t)
				})
			}
		}
	}
}

// The same for every step of writing snapshots, and for all that a crash there may leave.
func TestRaftOverFailingSnapshots(t *testing.T) {
	for n, more := 0, true; more; n++ {
		synctest.Test(t, func(t *testing.T) {
			before := newNode()
			folder := newFaulty(1 << 30)
			var err error
			if before.files, err = openFiles(folder, quiet); err != nil {
				t.Fatal(err)
			}
			if err := alone(t, before); err != nil {
				t.Fatal(err)
			}
			confirmed, err := before.work("before")
			if err != nil {
				t.Fatal(err)
			}
			folder.failAt = len(folder.ops) + n
			done, err := before.work("now")
			confirmed = append(confirmed, done...)
			before.stop(t)
			more = len(folder.ops) > folder.failAt
			if more {
				if !errors.Is(before.told.only(t), errDisk) || err == nil {
					t.Errorf("step %d: %v, Fail was told %v", n, err, before.told.errs)
				}
			} else if err != nil {
				t.Errorf("step %d: %v", n, err)
			}
			for found := range folder.crashed {
				after := &node{disk: before.disk}
				if after.files, err = openFiles(found, quiet); err != nil {
					t.Fatal(err)
				}
				if err := alone(t, after); err != nil {
					t.Fatalf("step %d, %s: %v", n, folder.ops[len(folder.ops)-1], err)
				}
				<-after.raft.LeaderCh()
				if err := after.raft.Barrier(0).Error(); err != nil {
					t.Fatal(err)
				}
				for _, want := range confirmed {
					if !slices.Contains(after.fsm.list, want) {
						t.Errorf("step %d, %s: %q is lost", n, folder.ops[len(folder.ops)-1], want)
					}
				}
				after.stop(t)
			}
		})
	}
}

// A member whose store fails, whether it leads or follows, stops; the others go on without it, and nothing hangs.
func TestEnsembleOverFailingStore(t *testing.T) {
	ids := []string{"a", "b", "c"}
	for _, leads := range []bool{true, false} {
		for _, f := range []fault{failsBefore, hangs} {
			for _, op := range []string{"StoreLogs", "GetLog", "Set", "Get"} {
				synctest.Test(t, func(t *testing.T) {
					var trs []*raft.InmemTransport
					nodes := make([]*node, len(ids))
					for i, id := range ids {
						_, tr := raft.NewInmemTransport(raft.ServerAddress(id))
						for _, other := range trs {
							tr.Connect(other.LocalAddr(), other)
							other.Connect(tr.LocalAddr(), tr)
						}
						trs = append(trs, tr)
						nodes[i] = newNode()
						if err := nodes[i].start(ids, id, network{tr}); err != nil {
							t.Fatal(err)
						}
					}
					leader := func(among []*node) *node {
						for {
							for _, n := range among {
								if n.raft.State() == raft.Leader && n.raft.VerifyLeader().Error() == nil {
									return n
								}
							}
							time.Sleep(100 * time.Millisecond)
						}
					}
					first := leader(nodes)
					if err := first.raft.Apply([]byte("one"), 0).Error(); err != nil {
						t.Fatal(err)
					}
					victim := first
					if !leads {
						victim = nodes[(slices.Index(nodes, first)+1)%3]
					}
					victim.disk.mu.Lock()
					victim.disk.plan = func(_ int, o string) fault {
						if o == op {
							return f
						}
						return fine
					}
					victim.disk.mu.Unlock()
					others := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == victim })
					answered := make(chan error, 1)
					go func() { answered <- first.raft.Apply([]byte("two"), time.Minute).Error() }()
					if op == "Set" || op == "Get" { // it takes an election
						next := slices.IndexFunc(nodes, func(n *node) bool { return n != first && n != victim })
						first.raft.LeadershipTransferToServer(raft.ServerID(ids[next]), raft.ServerAddress(ids[next])).Error()
					}
					<-victim.store.dead
					trs[slices.Index(nodes, victim)].DisconnectAll()
					last := leader(others)
					if last.raft.Apply([]byte("three"), 0).Error() != nil {
						t.Error("the others do not go on")
					}
					for _, n := range nodes {
						n.stop(t)
					}
					<-answered
					if f == hangs {
						close(victim.disk.wake)
					}
					for _, n := range others {
						n.told.none(t)
					}
					if !slices.Contains(last.fsm.list, "one") {
						t.Errorf("what was confirmed is lost: %v", last.fsm.list)
					}
				})
			}
		}
	}
}
