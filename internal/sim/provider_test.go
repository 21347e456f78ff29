// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	poolName   = "pool"
	poolWindow = 3 * time.Second // in which two errors are too many
)

// strategies are those of the providers, by name.
var strategies = map[string]func() recipes.Strategy[int]{
	"in turn": recipes.RoundRobin[int],
	"any":     recipes.Random[int],
	"sticky":  func() recipes.Strategy[int] { return recipes.Sticky(recipes.RoundRobin[int]()) },
}

// mispicked compares picks, one after the other, with the instances that could be picked all the while, and with the one that
// was picked before.
func mispicked(strategy string, fit, picks []string, before string) error {
	for i, id := range picks {
		switch again := i > 0 && slices.Contains(picks[max(0, i-len(fit)+1):i], id); {
		case !slices.Contains(fit, id):
			return fmt.Errorf("%q was picked of %q", id, fit)
		case strategy == "in turn" && again:
			return fmt.Errorf("%q was picked again, of %q in turn: %q", id, fit, picks)
		case strategy == "sticky" && id != before && (i > 0 || slices.Contains(fit, before)):
			return fmt.Errorf("%q was picked after %q, of %q", id, before, fit)
		}
		before = id
	}
	if len(picks) == 0 && len(fit) > 0 {
		return fmt.Errorf("nothing was picked of %q", fit)
	}
	return nil
}

// desk is a Provider, and what it was told.
type desk struct {
	*recipes.Provider[int]
	strategy string
	before   string
	errs     map[string][]time.Time // by instance, as it is registered
}

func newDesk(m *zk.Member, strategy string) *desk {
	d := &desk{Provider: registry(m).Provider(poolName, strategies[strategy]()), strategy: strategy, errs: map[string][]time.Time{}}
	d.Window = poolWindow
	return d
}

func named(in recipes.Instance[int]) string { return fmt.Sprint(in.ID, " ", in.Registered.UnixMilli()) }

// fit are the instances that can be picked now.
func (d *desk) fit(all []recipes.Instance[int]) (ids []string) {
	for _, in := range all {
		errs := d.errs[named(in)]
		if n := len(errs); in.Enabled && (n < 2 || time.Since(errs[n-2]) >= poolWindow) {
			ids = append(ids, in.ID)
		}
	}
	return ids
}

type providerCheck struct {
	r *run

	mu      sync.Mutex
	picks   int
	ejected int // picks while an instance was passed over
}

func (r *run) providerPart() part {
	c := &providerCheck{r: r}
	return part{"Provider", 2, c.client, c.finish}
}

func (c *providerCheck) client(client int, random *rand.Rand) {
	desks := map[*zk.Member]*desk{}
	staff := map[string]*recipes.Registration[int]{}
	for n := 0; c.r.idle(random, 1000); n++ {
		m := c.r.member(random.IntN(c.r.c.Len()))
		if m == nil {
			continue
		}
		c.r.did("Provider")
		ctx, cancel := context.WithTimeout(c.r.ctx, millis(1+random.IntN(2000)))
		if id := fmt.Sprint(client, ".", random.IntN(3)); random.IntN(3) == 0 {
			c.hire(ctx, m, staff, id, random)
		}
		d := desks[m]
		if d == nil {
			d = newDesk(m, []string{"in turn", "any", "sticky"}[random.IntN(3)])
			desks[m] = d
		}
		c.pick(ctx, m, d, random)
		if random.IntN(20) == 0 {
			d.Close()
			if in, err := d.Pick(ctx); err == nil {
				c.r.t.Errorf("%s was picked by a provider that was closed", in.ID)
			}
			delete(desks, m)
		}
		cancel()
	}
}

// hire registers an instance, changes whether it is enabled, or takes it off.
func (c *providerCheck) hire(ctx context.Context, m *zk.Member, staff map[string]*recipes.Registration[int], id string, random *rand.Rand) {
	in := recipes.Instance[int]{Name: poolName, ID: id, Enabled: random.IntN(3) > 0}
	k := staff[id]
	switch {
	case k == nil || errors.Is(k.Err(), zk.ErrClosed):
		if k, err := registry(m).Register(ctx, in); err == nil {
			staff[id] = k
		}
	case random.IntN(4) == 0:
		k.Deregister(ctx)
		delete(staff, id)
	default:
		k.Update(ctx, in)
	}
}

// pick picks so often that every instance's turn comes, and compares that with what is registered, if nothing has changed.
func (c *providerCheck) pick(ctx context.Context, m *zk.Member, d *desk, random *rand.Rand) {
	s, err := m.Session(ctx)
	if err != nil {
		return
	}
	for range 3 {
		zxid, began, before := s.LastZxid(), time.Now(), d.before
		all, err := registry(m).Instances(ctx, poolName)
		if err != nil {
			return
		}
		fit := d.fit(all)
		var picks []string
		var last recipes.Instance[int]
		for range len(all) + 1 {
			in, err := d.Pick(ctx)
			if errors.Is(err, recipes.ErrNoInstance) {
				continue
			}
			if err != nil {
				return
			}
			picks, last, d.before = append(picks, in.ID), in, in.ID
		}
		if s.LastZxid() != zxid || !time.Now().Equal(began) {
			continue
		}
		if err := mispicked(d.strategy, fit, picks, before); err != nil {
			c.r.t.Errorf("member %s: %v", m.ID(), err)
		}
		if len(picks) > 0 && random.IntN(2) == 0 {
			d.NoteError(last)
			d.errs[named(last)] = append(d.errs[named(last)], time.Now())
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.picks += len(picks); len(fit) < len(all) {
			c.ejected++
		}
		return
	}
}

// finish picks on every member (REG-L1).
func (c *providerCheck) finish(ctx context.Context, s *zk.Session) error {
	k, err := registry(s.Member()).Register(ctx, recipes.Instance[int]{Name: poolName, ID: "last", Enabled: true})
	if err != nil {
		return err
	}
	if err := c.r.c.Quiesce(ctx); err != nil {
		return err
	}
	for _, i := range c.r.members() {
		d := newDesk(c.r.c.Member(i), "in turn")
		c.pick(ctx, c.r.c.Member(i), d, rand.New(rand.NewPCG(c.r.seed, uint64(i))))
		if d.before == "" {
			return fmt.Errorf("member %d picks nothing", i)
		}
	}
	c.r.t.Logf("providers: %d picks, %d times some were passed over", c.picks, c.ejected)
	return k.Deregister(ctx)
}

func TestProviderChecker(t *testing.T) {
	s := func(ids ...string) []string { return ids }
	for _, j := range []struct {
		name, strategy string
		ok             bool
		fit, picks     []string
		before         string
	}{
		{"in turn", "in turn", true, s("a", "b", "c"), s("b", "c", "a", "b"), "x"},
		{"not in turn", "in turn", false, s("a", "b", "c"), s("b", "c", "b"), "x"},
		{"one of one", "in turn", true, s("a"), s("a", "a"), "x"},
		{"any", "any", true, s("a", "b"), s("b", "b"), "a"},
		{"none", "any", true, nil, nil, "a"},
		{"none, where there is one", "any", false, s("a"), nil, ""},
		{"one, where there is none", "any", false, nil, s("a"), ""},
		{"another", "any", false, s("a"), s("b"), ""},
		{"it stays", "sticky", true, s("a", "b"), s("b", "b"), "b"},
		{"it is gone", "sticky", true, s("a", "b"), s("b", "b"), "c"},
		{"it does not stay", "sticky", false, s("a", "b"), s("a", "a"), "b"},
		{"it changes", "sticky", false, s("a", "b"), s("a", "b"), ""},
	} {
		if err := mispicked(j.strategy, j.fit, j.picks, j.before); (err == nil) != j.ok {
			t.Errorf("%s: the checker says %v", j.name, err)
		}
	}
}
