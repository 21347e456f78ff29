// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	gozk "github.com/go-zookeeper/zk"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// section is what the lock guards: a directory with a counter that every holder reads and writes in two steps, a file
// that is there while somebody is inside, and a log of the holders' sequence numbers in the order of the grants.
type section struct{ dir string }

func newSection(t *testing.T) section {
	t.Helper()
	s := section{t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "counter"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// pass goes through the section as the holder with a contender's znode; it fails if anybody else is inside.
func (s section) pass(node, who string) error {
	sequence, ok := zk.Sequence(node)
	if !ok {
		return fmt.Errorf("no sequence number in %q", node)
	}
	held := filepath.Join(s.dir, "held")
	f, err := os.OpenFile(held, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	n, err := s.count()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "%d %s\n", sequence, who)
	if err := log.Close(); err != nil {
		return err
	}
	next := filepath.Join(s.dir, "counter."+who)
	if err := os.WriteFile(next, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(s.dir, "counter")); err != nil {
		return err
	}
	return os.Remove(held)
}

func (s section) count() (int, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "counter"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(b))
}

// check says whether there were so many grants, one at a time, in the order of the line.
func (s section) check(t *testing.T, want int) {
	t.Helper()
	if n, err := s.count(); n != want || err != nil {
		t.Errorf("the counter is at %d, want %d: %v", n, want, err)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	last, grants, turns, changes, before := int64(-1), 0, map[string]int{}, 0, ""
	for line := range strings.Lines(string(b)) {
		var sequence int64
		var who string
		if _, err := fmt.Sscan(line, &sequence, &who); err != nil {
			t.Fatal(err)
		}
		if sequence <= last {
			t.Errorf("%s was granted the lock as number %d after number %d", who, sequence, last)
		}
		last = sequence
		grants++
		kind := strings.TrimRight(who, "0123456789")
		turns[kind]++
		if kind != before {
			changes++
		}
		before = kind
	}
	if grants != want {
		t.Errorf("%d grants, want %d", grants, want)
	}
	if len(turns) > 1 && changes < fleetTurns {
		t.Errorf("the lock went to another kind of contender only %d times: they did not contend", changes)
	}
	t.Logf("grants: %v; %d times to another kind than before", turns, changes)
}

// fleetTurns is how often each of the fleet's contenders takes the lock; there are two of each kind.
const fleetTurns = 12

// Names of a holder, up to the sequence number.
const (
	curatorHolder = "_c_00000000-0000-0000-0000-000000000000-lock-"
	kazooHolder   = "00000000000000000000000000000000__lock__"
)

// observe opens a member without a vote in this process: recipes run on members.
func observe(t *testing.T, e *ensemble) *zk.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{ID: "observer", Addr: loopback(freePort(t)), Dir: t.TempDir(), Join: e.peers, NonVoter: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// contendRecipes is the part of recipes.Lock.
func contendRecipes(ctx context.Context, m *zk.Member, path, who string, layout recipes.Layout, s section) error {
	session, err := m.NewSession(ctx, zk.SessionConfig{})
	if err != nil {
		return err
	}
	defer session.Close()
	l := recipes.NewLock(session, path)
	l.Layout = layout
	for range fleetTurns {
		h, err := l.Acquire(ctx)
		if err != nil {
			return err
		}
		if err := s.pass(h.Path(), who); err != nil {
			return err
		}
		if err := h.Release(ctx); err != nil {
			return err
		}
	}
	return nil
}

// contendGo is the part of go-zookeeper's Lock, which gives up when its connection breaks and leaves its znode behind:
// its user has to close the session then.
func contendGo(t *testing.T, e *ensemble, path, who string, s section) error {
	c := goConnect(t, e)
	for turn := 0; turn < fleetTurns; {
		l := gozk.NewLock(c.Conn, path, gozk.WorldACL(gozk.PermAll))
		mark := fmt.Sprintf("%s turn %d of session %x", who, turn, c.SessionID())
		if err := l.LockWithData([]byte(mark)); err != nil {
			c.Close()
			c = goConnect(t, e)
			continue
		}
		var node string
		eventually(t, func() error {
			names, _, err := c.Children(path)
			if err != nil {
				return err
			}
			for _, name := range names {
				data, _, err := c.Get(path + "/" + name)
				if err == nil && string(data) == mark {
					node = name
					return nil
				}
			}
			return errors.New("the holder has no znode")
		})
		if err := s.pass(node, who); err != nil {
			return err
		}
		eventually(t, func() error {
			if err := l.Unlock(); !errors.Is(err, gozk.ErrNoNode) {
				return err
			}
			return nil // an attempt whose answer was lost
		})
		turn++
	}
	return nil
}

func TestMixedFleet(t *testing.T) {
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	path, version := curatorPath(t)
	cmd := java(t, "Fleet", path, "fleet/Fleet.java")
	e := open(t)
	var observer *zk.Member
	if e.peers != nil {
		observer = observe(t, e)
	}
	owner := goConnect(t, e)
	fleets := tried{t, newRow("Curator's InterProcessMutex, go-zookeeper's Lock, kazoo's Lock and recipes.Lock on one path, kill of the leader")}
	fleets.row.client, fleets.row.version = "mixed fleet", "as above"

	curator := func(t *testing.T, lock string, s section) {
		args := append(cmd[1:], e.connect(), lock, s.dir, strconv.Itoa(fleetTurns), version)
		program(t, e, &row{}, cmd[0], args...)
	}
	kazoo := func(t *testing.T, lock string, s section, patterns ...string) {
		args := append([]string{"-B", "fleet/fleet.py", e.connect(), lock, s.dir, strconv.Itoa(fleetTurns)}, patterns...)
		program(t, e, &row{}, debianPython, args...)
	}
	// ours runs two contenders of each kind that lives in this process.
	ours := func(t *testing.T, wg *sync.WaitGroup, lock string, layout recipes.Layout, withGo bool, s section) (contenders int) {
		for i := range 2 {
			if observer != nil {
				contenders++
				wg.Go(func() {
					if err := contendRecipes(t.Context(), observer, lock, fmt.Sprintf("recipes%d", i), layout, s); err != nil {
						t.Errorf("recipes.Lock: %v", err)
					}
				})
			}
			if withGo {
				contenders++
				wg.Go(func() {
					if err := contendGo(t, e, lock, fmt.Sprintf("go%d", i), s); err != nil {
						t.Errorf("go-zookeeper's Lock: %v", err)
					}
				})
			}
		}
		return contenders
	}
	for _, fleet := range []struct {
		name   string
		holder string // a name that all of the fleet take for a contender
		run    func(t *testing.T, wg *sync.WaitGroup, lock string, s section) (contenders int)
	}{
		{"curator_go_recipes", curatorHolder, func(t *testing.T, wg *sync.WaitGroup, lock string, s section) int {
			wg.Go(func() { curator(t, lock, s) })
			return 2 + ours(t, wg, lock, recipes.Curator, true, s)
		}},
		{"kazoo_recipes_in_kazoo_layout", kazooHolder, func(t *testing.T, wg *sync.WaitGroup, lock string, s section) int {
			wg.Go(func() { kazoo(t, lock, s) })
			return 2 + ours(t, wg, lock, recipes.Kazoo, false, s)
		}},
		{"kazoo_with_pattern_go_recipes", curatorHolder, func(t *testing.T, wg *sync.WaitGroup, lock string, s section) int {
			wg.Go(func() { kazoo(t, lock, s, "-lock-") })
			return 2 + ours(t, wg, lock, recipes.Curator, true, s)
		}},
	} {
		fleets.run(fleet.name, func(t *testing.T) {
			lock := "/fleet-" + fleet.name
			// The parent is made first and stays: numbers are of one line from the first grant to the last.
			must(owner.Create(lock, nil, 0, gozk.WorldACL(gozk.PermAll)))(t)
			s := newSection(t)
			// Nobody is granted it before all are in line.
			first := must(owner.Create(lock+"/"+fleet.holder, nil, gozk.FlagEphemeral|gozk.FlagSequence, gozk.WorldACL(gozk.PermAll)))(t)
			var wg sync.WaitGroup
			contenders := fleet.run(t, &wg, lock, s)
			want := fleetTurns * contenders
			eventually(t, func() error {
				if names, _, err := owner.Children(lock); err != nil || len(names) != 1+contenders {
					return fmt.Errorf("in line: %v, %v", names, err)
				}
				return nil
			})
			if err := owner.Delete(first, -1); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if n, err := s.count(); n < want/3 {
					return fmt.Errorf("%d grants: %v", n, err)
				}
				return nil
			})
			must(e.killLeader(t.Context()))(t)
			wg.Wait()
			s.check(t, want)
			if err := e.restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			owner.settle(t, "/")
		})
	}
}
