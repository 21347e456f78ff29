// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk"
)

// ErrNoInstance means that a service has no instance that could be picked: none is registered, enabled, and without too many
// errors of late, as far as this member knows.
var ErrNoInstance = errors.New("recipes: no instance")

// Provider picks an instance of a service for each use, and passes over those that keep failing.
//
// Layout: that of its Registry. Cost: Pick is local reads, of as many znodes as there are instances; what it has decoded
// before it does not decode again. There is no goroutine, no watch and no message.
//
// It always goes by what this member of the ensemble knows now. An instance that has crashed is picked until its session
// has expired, unless NoteError is told.
type Provider[T any] struct {
	noCopy noCopy

	// An instance that has had Threshold errors within Window is passed over until fewer of them are that recent. 0 means
	// 2 and 30 s, as in Curator. They are set before the first call.
	Threshold int
	Window    time.Duration

	registry *Registry[T]
	service  string
	pick     Strategy[T]

	mu     sync.Mutex // guards the fields below
	closed bool
	known  map[string]decoded[T]       // by path
	errs   map[incarnation][]time.Time // the newest, at most Threshold
}

// decoded is an instance as of one write.
type decoded[T any] struct {
	at  zk.Zxid
	in  Instance[T]
	err error
}

// incarnation names an instance since it was registered: one that was restarted has no errors yet.
type incarnation struct {
	id         string
	registered int64
}

func incarnationOf[T any](in Instance[T]) incarnation {
	return incarnation{in.ID, in.Registered.UnixMilli()}
}

// Provider returns a provider of a service; pick chooses among the instances, nil is RoundRobin.
func (r *Registry[T]) Provider(service string, pick Strategy[T]) *Provider[T] {
	if pick == nil {
		pick = RoundRobin[T]()
	}
	return &Provider[T]{registry: r, service: service, pick: pick}
}

func (p *Provider[T]) threshold() int {
	if p.Threshold <= 0 {
		return 2
	}
	return p.Threshold
}

func (p *Provider[T]) window() time.Duration {
	if p.Window <= 0 {
		return 30 * time.Second
	}
	return p.Window
}

// Pick returns an instance for one use: one that is enabled and does not keep failing. It does not wait: the error is
// ErrNoInstance where there is none now. Other errors: those of every read, zk.ErrClosed after Close, zk.ErrBadArguments if
// the strategy's answer is out of range.
func (p *Provider[T]) Pick(ctx context.Context) (in Instance[T], err error) {
	s, err := session(ctx, p.registry.Session, "pick", p.registry.Base)
	if err != nil {
		return in, err
	}
	dir, err := p.registry.where(p.service)
	if err != nil {
		return in, err
	}
	list, err := entries(ctx, s, dir)
	if err != nil {
		return in, err
	}
	fit, err := p.fit(list)
	if err != nil {
		return in, err
	}
	if len(fit) == 0 {
		return in, ErrNoInstance
	}
	i := p.pick(fit) // not under the lock: it may call NoteError
	if i < 0 || i >= len(fit) {
		return in, badArgument("pick", dir, "the strategy has picked what there is not")
	}
	return fit[i], nil
}

// fit are the instances that can be picked.
func (p *Provider[T]) fit(list []zk.Znode) (fit []Instance[T], err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, &zk.Error{Op: "pick", Path: p.registry.Base, Code: zk.ErrClosed}
	}
	known := make(map[string]decoded[T], len(list)) // those that are gone are forgotten
	for _, z := range list {
		d, ok := p.known[z.Path]
		if !ok || d.at != z.Stat.Mzxid {
			d.at = z.Stat.Mzxid
			d.in, d.err = p.registry.decode(z)
		}
		known[z.Path] = d
		if d.err == nil && d.in.Enabled && !p.failing(incarnationOf(d.in)) {
			fit = append(fit, d.in)
		}
	}
	p.known = known
	return fit, nil
}

// failing tells whether an instance has had too many errors lately.
func (p *Provider[T]) failing(i incarnation) bool {
	errs := p.errs[i]
	return len(errs) >= p.threshold() && time.Since(errs[0]) < p.window()
}

// NoteError tells that an instance has failed its user. It costs nothing, and counts for this Provider alone, and for the
// instance since it was registered last (ID and Registered): one that was restarted begins anew.
func (p *Provider[T]) NoteError(in Instance[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for i, errs := range p.errs {
		if time.Since(errs[len(errs)-1]) >= p.window() {
			delete(p.errs, i)
		}
	}
	if p.errs == nil {
		p.errs = map[incarnation][]time.Time{}
	}
	i := incarnationOf(in)
	errs := append(p.errs[i], time.Now())
	p.errs[i] = errs[max(0, len(errs)-p.threshold()):]
}

// Close lets go of what the provider remembers: Pick fails with zk.ErrClosed from then on. Closing twice is fine.
func (p *Provider[T]) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.known, p.errs = true, nil, nil
}

// Strategy chooses one of several instances, of which there is at least one, by its index; Pick returns zk.ErrBadArguments
// for an index that is out of range. The instances are in the order of their znodes, those that a Pick cannot return left
// out, and others each time: an index means nothing the next time. It is called by each Pick on that caller's goroutine, by
// several at once, and must be safe for that; what it remembers is in this process alone, so that it belongs to one
// Provider.
type Strategy[T any] func(instances []Instance[T]) int

// RoundRobin takes them in turn: every call the next one, by the count of its calls. As long as the same instances are there
// each is taken as often as the others, to one; when one comes or goes the turn goes on from another. All state is that
// count, in this process: several processes begin with the same instance each. It takes constant time, without a lock, and is
// safe for concurrent use.
func RoundRobin[T any]() Strategy[T] {
	var turn atomic.Uint64
	return func(instances []Instance[T]) int {
		return int((turn.Add(1) - 1) % uint64(len(instances)))
	}
}

// Random takes any of them, each with the same chance, whatever it took before. It has no state, so that many processes
// spread what they pick without knowing of each other; it may take one several times on end. It takes constant time, without
// a lock, and is safe for concurrent use.
func Random[T any]() Strategy[T] {
	return func(instances []Instance[T]) int { return rand.IntN(len(instances)) }
}

// Sticky takes the one it took the last time, by its ID, as long as that can be picked, and otherwise the one that inner
// takes: also when that one has had too many errors (Provider.NoteError) or is not enabled any more, and then it stays with
// the new one. All state is that ID, and inner's. It looks through the instances, which takes time in proportion to their
// number, under a lock that inner is called under as well: calls take turns, so that Sticky is safe for concurrent use even if
// inner is not, and inner must not call it.
func Sticky[T any](inner Strategy[T]) Strategy[T] {
	var mu sync.Mutex // guards what follows
	var last string
	taken := false
	return func(instances []Instance[T]) int {
		mu.Lock()
		defer mu.Unlock()
		if taken {
			if i := slices.IndexFunc(instances, func(in Instance[T]) bool { return in.ID == last }); i >= 0 {
				return i
			}
		}
		i := inner(instances)
		if i >= 0 && i < len(instances) {
			taken, last = true, instances[i].ID
		}
		return i
	}
}
