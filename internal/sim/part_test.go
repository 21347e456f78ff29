// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

var only = flag.String("sim.only", "", "a regular expression: run no clients but those of parts whose name it matches, 3 times as many")

// part is a kind of clients, named after the recipe or the calls that they use, and what is checked of them at the end.
// A part that checks elsewhere has no check.
type part struct {
	name    string
	clients int
	work    func(client int, random *rand.Rand) // until r.ctx ends
	check   func(ctx context.Context, s *zk.Session) error
}

// kinds are all kinds of clients. New ones come last: the place of a part is a part of the seeds of its clients.
func (r *run) kinds() []part {
	return []part{
		{"Get and Set", 6, r.registerClient, nil},
		{"View and Txn", 3, r.bankClient, nil},
		{"Lock", 4, r.lockClient, nil},
		{"Queue", 4, r.queueClient, nil},
		{"Barrier", 3, r.barrierClient, nil},
		{"DoubleBarrier", 5, r.roomClient, nil},
		{"sessions", 3, r.sessionClient, nil},
		{"TTL", 2, r.mortalClient, nil},
		{"one-shot watches", 3, r.onceClient, nil},
		{"tree", 3, r.treeClient, nil},
		{"RWLock", 4, r.rwClient, nil},
		{"Semaphore", 4, r.semaphoreClient, nil},
		{"Election", 4, r.electionClient, nil},
		{"Counter", 3, r.counterClient, nil},
		{"Atomically", 3, r.atomicClient, nil},
		{"Partitioner", 4, r.partitionClient, nil},
		{"TwoPhase", 2, r.proposeClient, nil},
		{"TwoPhase", pactSites, r.siteClient, nil},
		r.valuePart(),
		r.cachePart(),
		r.presencePart(),
		r.leasePart(),
		r.registryPart(),
		r.ttlPart(),
		r.latchPart(),
		r.groupPart(),
		r.shardedPart(),
		r.providerPart(),
		r.migrationPart(),
	}
}

// chosen are the parts of this run, by their places.
func (r *run) chosen() map[int]part {
	chosen := map[int]part{}
	for i, p := range r.kinds() {
		if *only != "" {
			if !regexp.MustCompile(*only).MatchString(p.name) {
				continue
			}
			if p.name != "TwoPhase" { // it has as many sites as it has
				p.clients *= 3
			}
		}
		chosen[i] = p
	}
	return chosen
}

// effort counts what was done, and what was done to it.
type effort struct {
	mu     sync.Mutex
	runs   int
	time   map[string]time.Duration // by part: how long its clients ran under faults
	rounds map[string]int           // by part: how often a client did something
	faults map[string]int
}

var total = effort{time: map[string]time.Duration{}, rounds: map[string]int{}, faults: map[string]int{}}

// did counts a round of a part's client.
func (r *run) did(part string) {
	total.mu.Lock()
	defer total.mu.Unlock()
	total.rounds[part]++
}

// struck notes and counts a fault.
func (r *run) struck(kind, format string, args ...any) {
	r.h.note(kind+" "+format, args...)
	total.mu.Lock()
	defer total.mu.Unlock()
	total.faults[kind]++
}

func (e *effort) ran(parts map[int]part, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runs++
	seen := map[string]bool{}
	for _, p := range parts {
		if !seen[p.name] {
			seen[p.name] = true
			e.time[p.name] += d
		}
	}
}

func (e *effort) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	sum := 0
	for _, kind := range slices.Sorted(maps.Keys(e.faults)) {
		sum += e.faults[kind]
		fmt.Fprintf(&b, "\n\t%-24s %7d", kind, e.faults[kind])
	}
	faults := b.String()
	b.Reset()
	for _, name := range slices.Sorted(maps.Keys(e.time)) {
		fmt.Fprintf(&b, "\n\t%-24s %7d rounds in %v", name, e.rounds[name], e.time[name])
	}
	return fmt.Sprintf("%d runs, %d faults:%s\nclients under faults, virtual time:%s", e.runs, sum, faults, b.String())
}
