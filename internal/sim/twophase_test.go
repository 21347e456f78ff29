// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// pactCheck notes what sites have voted and what everybody was told: one decision for all, true to the votes (2PC-S1), and
// votes that never change (2PC-S2).
type pactCheck struct {
	mu   sync.Mutex
	made int
	list map[string]*pact
}

type pact struct {
	votes   map[string]map[bool]bool // of each site: those that stand
	perhaps map[string]map[bool]bool // those that may
	told    map[bool]int             // decisions
}

const (
	pactSites = 4
	pactTime  = 6 * time.Second
)

func pactSite(i int) string { return fmt.Sprint("site", i) }

func (r *run) pact(src zk.SessionSource) *recipes.TwoPhase {
	p := recipes.NewTwoPhase(src, "/pacts")
	p.Timeout = pactTime
	return p
}

// id returns the id of one more proposal.
func (c *pactCheck) id() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	return fmt.Sprint("pact", c.made)
}

func (c *pactCheck) see(id string, fn func(p *pact)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.list[id]
	if p == nil {
		p = &pact{votes: map[string]map[bool]bool{}, perhaps: map[string]map[bool]bool{}, told: map[bool]int{}}
		c.list[id] = p
	}
	fn(p)
}

func (c *pactCheck) voted(id, site string, commit bool, err error) {
	c.see(id, func(p *pact) {
		at := p.votes
		switch {
		case err == nil:
		case errors.Is(err, recipes.ErrVoted): // the other one stands
			commit = !commit
		case zk.MaybeApplied(err):
			at = p.perhaps
		default:
			return
		}
		if at[site] == nil {
			at[site] = map[bool]bool{}
		}
		at[site][commit] = true
	})
}

func (c *pactCheck) decided(id string, commit bool) {
	c.see(id, func(p *pact) { p.told[commit]++ })
}

// check says what is wrong.
func (c *pactCheck) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for id, p := range c.list {
		if len(p.told) > 1 { // 2PC-S1
			errs = append(errs, fmt.Errorf("%s was both committed and aborted", id))
		}
		for i := range pactSites {
			votes := p.votes[pactSite(i)]
			if len(votes) > 1 { // 2PC-S2
				errs = append(errs, fmt.Errorf("%s of %s has voted for it and against it", pactSite(i), id))
			}
			if p.told[true] > 0 && (votes[false] || !votes[true] && !p.perhaps[pactSite(i)][true]) { // 2PC-S1
				errs = append(errs, fmt.Errorf("%s was committed without %s", id, pactSite(i)))
			}
		}
	}
	return errors.Join(errs...)
}

// proposeClient proposes, and waits for some of the decisions.
func (r *run) proposeClient(client int, random *rand.Rand) {
	for r.idle(random, 3000) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("TwoPhase")
		id := r.pacts.id()
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(15000)))
		var sites []string
		for i := range pactSites {
			sites = append(sites, pactSite(i))
		}
		p, err := r.pact(s).Propose(ctx, id, []byte(id), sites...)
		if err == nil || zk.MaybeApplied(err) {
			r.pacts.see(id, func(*pact) {})
		}
		if err == nil && random.IntN(2) == 0 {
			if commit, err := p.Decision(ctx); err == nil {
				r.pacts.decided(id, commit)
			}
		}
		cancel()
	}
}

// siteClient is one site. It stops at any time and forgets everything, also what it has voted.
func (r *run) siteClient(client int, random *rand.Rand) {
	for r.idle(random, 500) {
		m := r.c.Member(random.IntN(r.c.Len()))
		if m == nil {
			continue
		}
		r.did("TwoPhase")
		life, cancel := context.WithTimeout(r.ctx, millis(2000+random.IntN(20000)))
		var waiting sync.WaitGroup
		for p, err := range r.pact(m).Proposals(life, pactSite(client)) {
			if err != nil || !sleep(life, millis(random.IntN(500))) {
				break
			}
			commit, ctx := random.IntN(12) > 0, life
			if random.IntN(3) == 0 {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(life, millis(random.IntN(50)))
				waiting.Go(func() { <-ctx.Done(); stop() })
			}
			r.pacts.voted(p.ID(), pactSite(client), commit, p.Vote(ctx, commit))
			waiting.Go(func() {
				if commit, err := p.Decision(life); err == nil {
					r.pacts.decided(p.ID(), commit)
				}
			})
		}
		cancel()
		waiting.Wait()
	}
}

// agrees has everybody who may ask about each proposal do so: with everything healed there is an answer (2PC-L1), the same for all.
func (r *run) agrees(ctx context.Context) {
	r.pacts.mu.Lock()
	var ids []string
	for id := range r.pacts.list {
		ids = append(ids, id)
	}
	r.pacts.mu.Unlock()
	for _, i := range r.members() {
		for _, id := range ids {
			p, err := r.pact(r.c.Member(i)).Find(ctx, id)
			if errors.Is(err, zk.ErrNoNode) {
				continue // it may not have been proposed
			}
			commit := false
			if err == nil {
				commit, err = p.Decision(ctx)
			}
			if err != nil {
				r.t.Errorf("member %d after healing: %s: %v", i, id, err)
				return
			}
			r.pacts.decided(id, commit)
		}
	}
}

// count counts the proposals that were committed and aborted.
func (c *pactCheck) count() (committed, aborted int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.list {
		committed += min(p.told[true], 1)
		aborted += min(p.told[false], 1)
	}
	return committed, aborted
}

func TestPactChecker(t *testing.T) {
	whole := func() *pactCheck {
		c := &pactCheck{list: map[string]*pact{}}
		for i := range pactSites {
			c.voted("p", pactSite(i), true, nil)
		}
		return c
	}
	unknown := &zk.Error{Code: zk.ErrUnavailable, MaybeApplied: true}
	for _, j := range []struct {
		name string
		ok   bool
		fn   func(c *pactCheck)
	}{
		{"committed", true, func(c *pactCheck) { c.decided("p", true); c.decided("p", true) }},
		{"aborted at the deadline", true, func(c *pactCheck) { c.decided("p", false) }},
		{"voted again", true, func(c *pactCheck) { c.voted("p", "site1", false, recipes.ErrVoted); c.decided("p", true) }},
		{"perhaps against it", true, func(c *pactCheck) { c.voted("p", "site1", false, unknown); c.decided("p", true) }},
		{"both", false, func(c *pactCheck) { c.decided("p", true); c.decided("p", false) }},
		{"against a vote", false, func(c *pactCheck) { c.voted("q", "site1", false, nil); c.decided("q", true) }},
		{"without a vote", false, func(c *pactCheck) { c.decided("q", true) }},
		{"two votes", false, func(c *pactCheck) { c.voted("p", "site1", false, nil) }},
	} {
		c := whole()
		j.fn(c)
		if err := c.check(); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
}
