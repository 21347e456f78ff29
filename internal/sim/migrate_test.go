// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	migrationID = "/migration/steps"
	migrated    = "/migration/done" // its data is what the steps have made of it, its children the steps that were taken
	mostSteps   = 60
)

// step is step i of a program. It adds a numbered child, so that a step that is taken twice, or in another order, shows. Each third
// one reads what is there.
func step(i int) recipes.Step {
	name := fmt.Sprint("step-", i)
	took := zk.OpCreate(path.Join(migrated, fmt.Sprint(name, "-")), nil, zk.Persistent|zk.Sequential)
	switch {
	case i == 0:
		return recipes.Step{Name: name, Ops: func(context.Context, *zk.Session) ([]zk.Op, error) {
			return []zk.Op{zk.OpCreate(migrated, []byte("0"), zk.Persistent|zk.Parents), took}, nil
		}}
	case i%3 > 0:
		return recipes.Step{Name: name, Ops: func(context.Context, *zk.Session) ([]zk.Op, error) { return []zk.Op{took}, nil }}
	}
	return recipes.Step{Name: name, Reads: true, Ops: func(ctx context.Context, s *zk.Session) ([]zk.Op, error) {
		data, st, err := s.Get(ctx, migrated)
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			return nil, err
		}
		return []zk.Op{zk.OpSet(migrated, strconv.AppendInt(nil, int64(n*2+i), 10), st.Version), took}, nil
	}}
}

func program(steps int) (list []recipes.Step) {
	for i := range steps {
		list = append(list, step(i))
	}
	return list
}

// mistaken compares what is there with the steps, of which at least so many were taken.
func mistaken(children []string, data string, least int) error {
	children = slices.Clone(children)
	slices.SortFunc(children, func(a, b string) int {
		return strings.Compare(a[strings.LastIndex(a, "-"):], b[strings.LastIndex(b, "-"):])
	})
	sum := 0
	for i, name := range children {
		if want := fmt.Sprintf("step-%d-%010d", i, i); name != want { // MIG-S1
			return fmt.Errorf("%s is there in the place of %s: %q", name, want, children)
		}
		if i > 0 && i%3 == 0 {
			sum = sum*2 + i
		}
	}
	if len(children) < least { // MIG-L1
		return fmt.Errorf("%d steps were taken, at least %d were to be", len(children), least)
	}
	if want := strconv.Itoa(sum); len(children) > 0 && data != want {
		return fmt.Errorf("%q was made of %d steps, not %q", data, len(children), want)
	}
	return nil
}

type migrationCheck struct {
	r *run

	mu    sync.Mutex
	taken int // that are known to be
	older int // programs that were told that they are too old
}

func (r *run) migrationPart() part {
	c := &migrationCheck{r: r}
	return part{"Migrate", 3, c.client, c.finish}
}

// client starts programs, of newer and newer versions, and old ones too.
func (c *migrationCheck) client(client int, random *rand.Rand) {
	for c.r.idle(random, 3000) {
		s, err := c.r.source(random)
		if err != nil {
			continue
		}
		c.r.did("Migrate")
		c.mu.Lock()
		steps := min(mostSteps, max(1, c.taken+random.IntN(5)-2))
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.r.ctx, millis(1+random.IntN(6000)))
		if random.IntN(6) == 0 {
			c.evict(ctx, s)
		} else {
			c.migrate(ctx, s, steps)
		}
		cancel()
	}
}

func (c *migrationCheck) migrate(ctx context.Context, s *zk.Session, steps int) error {
	err := recipes.Migrate(ctx, s.Member(), migrationID, program(steps)...)
	c.mu.Lock()
	switch {
	case err == nil:
		c.taken = max(c.taken, steps)
	case errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrBadVersion):
		c.r.t.Errorf("a program of %d steps took one that somebody else took: %v", steps, err)
	case errors.Is(err, recipes.ErrMismatch): // MIG-S2
		if c.older++; steps == mostSteps {
			c.r.t.Errorf("the newest program: %v", err)
		}
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.look(ctx, s, steps)
}

// look compares what is there with what was done.
func (c *migrationCheck) look(ctx context.Context, s *zk.Session, least int) error {
	var children []string
	var data string
	err := s.View(ctx, func(v *zk.View) error {
		z, err := v.Get(migrated)
		if data = z.Data; err != nil {
			return err
		}
		for name, err := range v.Children(migrated) {
			if err != nil {
				return err
			}
			children = append(children, name)
		}
		return nil
	})
	if err == nil {
		if err = mistaken(children, data, least); err != nil {
			c.r.t.Errorf("migration: %v", err)
		}
	}
	return err
}

// evict waits for one who has the lock, and deletes its znode, as an operator does.
func (c *migrationCheck) evict(ctx context.Context, s *zk.Session) {
	for names, err := range s.WatchChildren(ctx, migrationID+"-lock") {
		if err != nil || len(names) > 0 && s.Delete(ctx, path.Join(migrationID+"-lock", names[0]), zk.AnyVersion) == nil {
			return
		}
	}
}

// finish starts the newest program on every member at a time.
func (c *migrationCheck) finish(ctx context.Context, s *zk.Session) error {
	var all sync.WaitGroup
	for _, i := range c.r.members() {
		s, err := c.r.c.Member(i).Session(ctx)
		if err != nil {
			return err
		}
		all.Go(func() {
			if err := c.migrate(ctx, s, mostSteps); err != nil { // MIG-L1
				c.r.t.Errorf("migrating on member %d: %v", i, err)
			}
		})
	}
	all.Wait()
	c.r.t.Logf("migration: %d programs were too old", c.older)
	return nil
}

func TestMigrateChecker(t *testing.T) {
	s := func(names ...string) []string { return names }
	for _, j := range []struct {
		name     string
		ok       bool
		children []string
		data     string
		least    int
	}{
		{"all of them", true, s("step-1-0000000001", "step-0-0000000000", "step-2-0000000002", "step-3-0000000003"), "3", 4},
		{"more than were to be", true, s("step-0-0000000000", "step-1-0000000001"), "0", 1},
		{"none", true, nil, "", 0},
		{"less", false, s("step-0-0000000000", "step-1-0000000001"), "0", 3},
		{"one twice", false, s("step-0-0000000000", "step-1-0000000001", "step-1-0000000002"), "0", 2},
		{"in another order", false, s("step-0-0000000000", "step-2-0000000001", "step-1-0000000002"), "0", 2},
		{"one is missing", false, s("step-0-0000000000", "step-2-0000000002"), "0", 2},
		{"one as a half", false, s("step-0-0000000000", "step-1-0000000001", "step-2-0000000002", "step-3-0000000003"), "0", 2},
	} {
		if err := mistaken(j.children, j.data, j.least); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
}
