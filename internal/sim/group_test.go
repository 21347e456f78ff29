// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const groupPath = "/group"

// groupCheck knows the stints of all members. They come in pairs: the first one's number is changed, and only when that is
// acknowledged the second one's, so that at no moment the first is behind the second, or more than one before it.
type groupCheck struct {
	presenceCheck

	mu    sync.Mutex
	pairs map[string]string   // the second one's stint, by that of the first one
	views map[int]*groupWatch // by members of the ensemble
}

// groupWatch is what a Watch on a member of the ensemble has shown.
type groupWatch struct {
	member  *zk.Member
	last    []recipes.Member
	tokens  map[string]zk.Token // of each id, the newest
	changed time.Time           // when somebody was last seen to come or go
}

// mixed finds a list that was never true at one moment (GRP-S1), or is not in order.
func (c *groupCheck) mixed(list []recipes.Member) error {
	numbers := map[string]int{}
	for i, m := range list {
		if i > 0 && list[i-1].ID >= m.ID {
			return fmt.Errorf("%s comes after %s", m.ID, list[i-1].ID)
		}
		id, number, _ := strings.Cut(string(m.Data), " ")
		n, err := strconv.Atoi(number)
		if err != nil || m.Token == 0 {
			return fmt.Errorf("%s is nobody's: %q, %v", m.ID, m.Data, m.Token)
		}
		numbers[id] = n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for first, a := range numbers {
		if b, ok := numbers[c.pairs[first]]; ok && (a < b || a > b+1) {
			return fmt.Errorf("%s and %s are at %d and %d", first, c.pairs[first], a, b)
		}
	}
	return nil
}

// show takes the next list of a Watch.
func (w *groupWatch) show(list []recipes.Member) error {
	came := len(list) != len(w.last)
	for _, m := range list {
		switch last := w.tokens[m.ID]; {
		case m.Token < last:
			return fmt.Errorf("%s is back from the past: %v after %v", m.ID, m.Token, last)
		case m.Token > last:
			w.tokens[m.ID], came = m.Token, true
		}
	}
	if came {
		w.changed = time.Now()
	}
	w.last = list
	return nil
}

// agrees compares a list with those who are to be there: each with what it has set last.
func agrees(list []recipes.Member, kept []*stint) error {
	if len(list) != len(kept) {
		return fmt.Errorf("%d are there, of %d", len(list), len(kept))
	}
	for _, t := range kept {
		i := slices.IndexFunc(list, func(m recipes.Member) bool { return groupPath+"/"+m.ID == t.path })
		if i < 0 {
			return fmt.Errorf("%s is not there", t.path)
		}
		if err := t.may(string(list[i].Data)); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) groupPart() part {
	c := &groupCheck{presenceCheck: presenceCheck{all: map[string]*stint{}}, pairs: map[string]string{}, views: map[int]*groupWatch{}}
	following := r.lasting()
	return part{"Group", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			following.onEach(r, func(i int, m *zk.Member, random *rand.Rand) { r.followGroup(following.ctx, c, i, m) })
		}
		for r.idle(random, 1000) {
			if m := r.member(random.IntN(r.c.Len())); m != nil {
				r.did("Group")
				r.joinGroup(following, c, client, m, random)
			}
		}
	}, func(ctx context.Context, s *zk.Session) error {
		defer following.end()
		kept := slices.DeleteFunc(c.kept(), func(t *stint) bool { return !r.runs(t.member) })
		whole := func() error {
			for _, i := range r.members() {
				list, err := recipes.NewGroup(r.c.Member(i), groupPath).Members(ctx)
				if err == nil {
					err = errors.Join(agrees(list, kept), c.mixed(list))
				}
				if err == nil {
					c.mu.Lock()
					if w := c.views[i]; w == nil {
						err = errors.New("nobody watches")
					} else if err = agrees(w.last, kept); err != nil {
						err = fmt.Errorf("watched: %w", err)
					}
					c.mu.Unlock()
				}
				if err != nil {
					return fmt.Errorf("member %d: %w", i, err)
				}
			}
			return nil
		}
		for range 2 { // the second time after all of them were deleted (GRP-L1, PRES-L1)
			if err := r.eventually(ctx, whole); err != nil {
				return err
			}
			if err := s.DeleteTree(ctx, groupPath); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return err
			}
		}
		for _, t := range c.kept() {
			r.stopStint(ctx, t)
		}
		kept = nil
		if err := r.eventually(ctx, whole); err != nil {
			return err
		}
		following.end()
		return r.watched(ctx, groupPath)
	}}
}

// joinGroup makes a pair of members, has them change their numbers in turn, and leave.
func (r *run) joinGroup(following *lasting, c *groupCheck, client int, m *zk.Member, random *rand.Rand) {
	g := recipes.NewGroup(m, groupPath)
	var pair [2]*stint
	for i := range pair {
		name := fmt.Sprint("client-", client, "-", i)
		t := c.add(&stint{path: groupPath + "/" + name, mode: zk.Ephemeral, member: m}, client)
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(10000)))
		p, err := g.Join(ctx, name, []byte(t.last))
		cancel()
		if err != nil {
			t.set(stintStopping)
			break
		}
		t.keeper = p
		t.set(stintKept)
		pair[i] = t
	}
	if pair[1] != nil {
		c.mu.Lock()
		c.pairs[pair[0].id] = pair[1].id
		c.mu.Unlock()
	}
	for n := 1; pair[1] != nil && r.runs(m) && random.IntN(10) > 0; n++ {
		if !sleep(r.ctx, millis(random.IntN(3000))) {
			return // they stay
		}
		for _, t := range pair {
			if !r.setUntil(t, fmt.Sprint(t.id, " ", n), random) {
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(5000)))
		r.lookAtGroup(ctx, c, random)
		cancel()
	}
	if r.ctx.Err() != nil {
		return
	}
	for _, t := range pair {
		for stopped := t == nil; !stopped; {
			ctx, cancel := context.WithTimeout(r.whole, millis(1+random.IntN(4000)))
			stopped = r.stopStint(ctx, t)
			cancel()
		}
	}
	if list, err := g.Members(r.ctx); err == nil && r.runs(m) { // who has left is gone at once (GRP-L1)
		for _, t := range pair {
			if t != nil && slices.ContainsFunc(list, func(m recipes.Member) bool { return idOf(string(m.Data)) == t.id }) {
				r.t.Errorf("%s is there after it has left", t.id)
			}
		}
	}
}

// setUntil sets again and again, until that is acknowledged. It is false at the end of the work.
func (r *run) setUntil(t *stint, data string, random *rand.Rand) bool {
	for r.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(4000)))
		err := t.Set(ctx, []byte(data))
		cancel()
		if t.wrote(data, err); err == nil || !r.runs(t.member) {
			return err == nil || r.ctx.Err() == nil
		}
	}
	return false
}

// lookAtGroup reads who is there on some member, waits until that stands still, or is an operator.
func (r *run) lookAtGroup(ctx context.Context, c *groupCheck, random *rand.Rand) {
	i := random.IntN(r.c.Len())
	m := r.member(i)
	if m == nil {
		return
	}
	g := recipes.NewGroup(m, groupPath)
	switch random.IntN(5) {
	case 0, 1, 2:
		if list, err := g.Members(ctx); err == nil {
			if err := c.mixed(list); err != nil {
				r.t.Errorf("member %d: %v", i, err)
			}
		}
	case 3:
		began, quiet := time.Now(), millis(100+random.IntN(2000))
		list, err := g.Settled(ctx, quiet)
		if err != nil {
			return
		}
		if err := c.mixed(list); err != nil {
			r.t.Errorf("member %d has settled: %v", i, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		w := c.views[i]
		slack := 500 * time.Millisecond // a view may have to be taken anew
		if now := time.Now(); r.dir == "" && (now.Sub(began) < quiet || w != nil && w.member == m && now.Sub(w.changed) < quiet-slack) {
			r.t.Errorf("member %d has settled for %v after %v, the last change is of %v ago", i, quiet, now.Sub(began), now.Sub(w.changed))
		}
	case 4:
		s, err := m.Session(ctx)
		if err != nil {
			return
		}
		list, err := g.Members(ctx)
		if err != nil || len(list) == 0 {
			return
		}
		if z := list[random.IntN(len(list))]; random.IntN(3) > 0 {
			path := groupPath + "/" + z.ID
			s.Txn(ctx, zk.OpCheckCreated(path, z.Token), zk.OpDelete(path, zk.AnyVersion))
		} else {
			s.DeleteTree(ctx, groupPath)
		}
	}
}

// followGroup watches the group on one member until that stops.
func (r *run) followGroup(ctx context.Context, c *groupCheck, i int, m *zk.Member) {
	w := &groupWatch{member: m, tokens: map[string]zk.Token{}}
	c.mu.Lock()
	c.views[i] = w
	c.mu.Unlock()
	for list, err := range recipes.NewGroup(m, groupPath).Watch(ctx) {
		if err == nil {
			err = c.mixed(list)
		} else if ctx.Err() != nil || r.stops(m) {
			return
		}
		c.mu.Lock()
		err = errors.Join(err, w.show(list))
		c.mu.Unlock()
		if err != nil {
			r.t.Errorf("member %d: the group is watched: %v", i, err)
		}
	}
}

func TestGroupChecker(t *testing.T) {
	c := &groupCheck{pairs: map[string]string{"a": "b"}}
	member := func(id string, token zk.Token, data string) recipes.Member {
		return recipes.Member{ID: id, Data: []byte(data), Token: token}
	}
	for _, j := range []struct {
		name string
		ok   bool
		list []recipes.Member
	}{
		{"at one moment", true, []recipes.Member{member("x", 1, "a 5"), member("y", 2, "b 5")}},
		{"between the two", true, []recipes.Member{member("x", 1, "a 6"), member("y", 2, "b 5")}},
		{"one alone", true, []recipes.Member{member("y", 2, "b 5")}},
		{"the first one read too early", false, []recipes.Member{member("x", 1, "a 5"), member("y", 2, "b 6")}},
		{"the second one read too early", false, []recipes.Member{member("x", 1, "a 7"), member("y", 2, "b 5")}},
		{"not in order", false, []recipes.Member{member("y", 2, "b 5"), member("x", 1, "a 5")}},
		{"twice", false, []recipes.Member{member("x", 1, "a 5"), member("x", 2, "a 5")}},
		{"not in the tree", false, []recipes.Member{member("x", 0, "a 5")}},
	} {
		if err := c.mixed(j.list); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
	x := func(token zk.Token) []recipes.Member { return []recipes.Member{member("x", token, "a 5")} }
	w := &groupWatch{tokens: map[string]zk.Token{}}
	if err := errors.Join(w.show(x(3)), w.show(nil), w.show(x(4)), w.show(x(4))); err != nil {
		t.Error(err)
	}
	if w.show(x(3)) == nil {
		t.Error("somebody comes back from the past, and nobody sees it")
	}
	kept := []*stint{{id: "a", path: groupPath + "/x", last: "a 5", phase: stintKept}}
	if err := agrees(x(3), kept); err != nil {
		t.Error(err)
	}
	for name, list := range map[string][]recipes.Member{
		"missing": nil, "one more": append(x(3), member("y", 4, "b 5")), "another": {member("y", 3, "a 5")}, "old data": {member("x", 3, "a 4")},
	} {
		if agrees(list, kept) == nil {
			t.Errorf("%s: it is not seen", name)
		}
	}
}
