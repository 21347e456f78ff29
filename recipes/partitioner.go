// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Partitioner shares a fixed set of items among all who take part: each item is worked on by one of them, and when
// somebody comes or goes only what has to move does.
//
// Layout, kazoo's SetPartitioner: PATH/party/HEX-ID, a Group of layout Shallow, and PATH/locks/ITEM, a Lock of layout Kazoo.
// Its programs take part if both sides assign alike: kazoo's default is Deal.
//
// Cost: one write to join and one to leave; one to get an item and one to let go of it; two local watches, one for each
// item that it has and two for each that it waits for. A change of the party costs each member one assignment, which is no
// message.
//
// All members must be given the same items and the same Assign. Who owns what is decided by the locks alone: members that
// see different parties, because one lags or is cut off, wait for each other's items. An item that is paused past its lease
// goes on until it looks: its effects carry the token, or the guard, of its Held.
type Partitioner struct {
	noCopy noCopy

	Session zk.SessionSource // a *zk.Member survives expiry; with a *zk.Session Run returns when that ends
	Path    string
	ID      string   // of this member, unique in the party
	Items   []string // each a name that a znode may have

	// Assign says, for each item, the id of the member that is to have it, and is given both lists sorted and without
	// doubles. The default is Rendezvous. It is called on Run's goroutine, must give the same result on all members, and may
	// leave items out: nobody has those.
	Assign func(members, items []string) map[string]string

	// Quiet is how long nobody must have come or gone before the items are assigned anew; 0 means 1 s. However
	// many come and go, there is at most one assignment in that time (PART-L2).
	Quiet time.Duration

	mu      sync.Mutex // guards the fields below
	running bool
	owned   map[string]bool
}

// NewPartitioner returns a member of the party at path. It does nothing before Run.
func NewPartitioner(s zk.SessionSource, path, id string, items []string) *Partitioner {
	return &Partitioner{Session: s, Path: path, ID: id, Items: items}
}

// Rendezvous is the default of Partitioner.Assign: of all members each item is given to the one whose hash together with
// it is highest. A member that comes takes items from the others, one that goes leaves its own to them, and no other item
// moves; shares are equal on average only. Where two hashes are the same, of 64 bits, the member that is listed first has
// the item, so that all who are given the same order agree. A member or an item that is listed twice changes nothing. Without
// members the result is empty. It takes time in proportion to members times items, and is the same in every version and
// on every machine. It is a pure function: safe for concurrent use.
func Rendezvous(members, items []string) map[string]string {
	owners := make(map[string]string, len(items))
	for _, item := range items {
		best, highest := "", uint64(0)
		for _, m := range members {
			if h := weight(m, item); best == "" || h > highest {
				best, highest = m, h
			}
		}
		if best != "" {
			owners[item] = best
		}
	}
	return owners
}

// weight is FNV-1a, mixed so that names with a common end differ in all bits. It must be the same on all members for ever.
func weight(member, item string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(member))
	h.Write([]byte{0}) // no name of a znode has it
	h.Write([]byte(item))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Deal is an Assign that deals the items out to the members in turn, as kazoo's SetPartitioner does. The shares differ by one
// item at most; a member that comes or goes moves most items. It goes by the order of both lists, which has to be the same
// for all: a Partitioner sorts them. A member that is listed twice has two shares; an item that is listed twice moves
// those that follow and goes by its last place. Partitioner lists nothing twice. Without members the result is empty. It
// takes time in proportion to the items. It is a pure function: safe for concurrent use.
func Deal(members, items []string) map[string]string {
	owners := make(map[string]string, len(items))
	for i, item := range items {
		if len(members) > 0 {
			owners[item] = members[i%len(members)]
		}
	}
	return owners
}

// errMoved is why an item's context ends when another member is to have it.
var errMoved = errors.New("recipes: the item is another member's now")

// Run joins the party and calls own for each item that is assigned to this member, as soon as it has the item's lock, each
// on a goroutine of its own. own's context ends when the lock is lost, when the item is another member's, or with ctx; the
// lock is given back when own has returned, not before (PART-S2). An own that returns nil while the item is this member's
// keeps it, and is not called again unless the lock was lost. What was lost with a session, or to an operator, is acquired
// again; items that stay are not disturbed by others that move.
//
// It returns when ctx ends, with ctx's error; when own returns an error, with that one, unless it comes of the end of its
// context; when own panics, by panicking with the same; and with an error of writing or reading that is not the end of a
// session. What the other functions then return with is joined to it. All have returned, all items are given back and the
// party is left, or that goes on in the background.
func (p *Partitioner) Run(ctx context.Context, own func(ctx context.Context, item string, h *Held) error) error {
	s, err := session(ctx, p.Session, "partition", p.Path)
	if err != nil {
		return err
	}
	items := slices.Compact(slices.Sorted(slices.Values(p.Items)))
	for _, item := range items {
		if strings.Contains(item, "/") || zk.ValidPath(join(p.Path, item)) != nil {
			return badArgument("partition", p.Path, "an item that cannot be the name of a znode")
		}
	}
	if own == nil {
		return badArgument("partition", p.Path, "nil function")
	}
	p.mu.Lock()
	busy := p.running
	p.running = true
	p.mu.Unlock()
	if busy {
		return badArgument("partition", p.Path, "it is running")
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.running = false
	}()
	party := &Group{Session: p.Session, Path: join(p.Path, "party"), Layout: Shallow}
	seat, err := party.Join(ctx, p.ID, nil)
	if err != nil {
		return err
	}
	defer func() {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Timeout())
		defer cancel()
		seat.Stop(rest) // what does not come through in time goes on in the background
	}()
	return p.share(ctx, party, items, own)
}

// share follows the party and has the items worked on.
func (p *Partitioner) share(ctx context.Context, party *Group, items []string, own func(ctx context.Context, item string, h *Held) error) (err error) {
	d, err := openDirectory(ctx, p.Session, party.Path)
	if err != nil {
		return err
	}
	defer d.close()
	f := &floor{p: p, own: own, left: make(chan departure), at: map[string]context.CancelCauseFunc{}}
	defer func() {
		panicked, late := f.clear()
		if panicked != nil {
			panic(panicked)
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = errors.Join(ended(ctx), err)
		}
		err = errors.Join(err, late)
	}()
	quiet := cmp.Or(p.Quiet, time.Second)
	still := time.NewTimer(quiet)
	defer still.Stop()
	for now := party.ids(d.entries()); ; {
		select {
		case <-d.changed():
			if err := d.advance(); err != nil {
				return err
			}
			if next := party.ids(d.entries()); !slices.Equal(now, next) {
				now = next
				still.Reset(quiet)
			}
		case <-still.C:
			assign := p.Assign
			if assign == nil {
				assign = Rendezvous
			}
			f.wants = map[string]bool{}
			for item, id := range assign(slices.Clone(now), slices.Clone(items)) {
				f.wants[item] = id == p.ID && slices.Contains(items, item)
			}
			f.settle(ctx)
		case gone := <-f.left:
			if err := f.note(gone); err != nil || f.panicked != nil {
				return err
			}
			f.settle(ctx)
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// ids are those of the members in a directory, sorted, each once.
func (g *Group) ids(list []zk.Znode) (ids []string) {
	for _, m := range g.members(list) {
		ids = append(ids, m.ID)
	}
	return slices.Compact(ids)
}

// floor is where the items of one member are worked on, each by a goroutine.
type floor struct {
	p     *Partitioner
	own   func(ctx context.Context, item string, h *Held) error
	wants map[string]bool
	at    map[string]context.CancelCauseFunc // of the goroutines
	left  chan departure

	panicked any
}

// departure is the end of an item's goroutine.
type departure struct {
	item     string
	err      error
	panicked any
}

// settle ends what is not wanted and begins what is. An item that is wanted again while it is being given up has to wait
// for that.
func (f *floor) settle(ctx context.Context) {
	for item, end := range f.at {
		if !f.wants[item] {
			end(errMoved)
		}
	}
	for item, wanted := range f.wants {
		if f.at[item] == nil && wanted {
			ctx, end := context.WithCancelCause(ctx)
			f.at[item] = end
			go f.work(ctx, item)
		}
	}
}

// note takes an item off the floor.
func (f *floor) note(gone departure) error {
	f.at[gone.item](nil)
	delete(f.at, gone.item)
	if f.panicked == nil {
		f.panicked = gone.panicked
	}
	return gone.err
}

// clear ends everything, and returns what one of the functions has panicked with, and what they have returned with.
func (f *floor) clear() (panicked any, err error) {
	for _, end := range f.at {
		end(errMoved)
	}
	for len(f.at) > 0 {
		err = errors.Join(err, f.note(<-f.left))
	}
	return f.panicked, err
}

// work has an item's lock, again and again, until ctx ends.
func (f *floor) work(ctx context.Context, item string) {
	gone := departure{item: item, err: errors.New("recipes: the item's function has ended its goroutine")}
	defer func() {
		if gone.panicked = recover(); gone.panicked != nil {
			gone.err = nil
		}
		f.left <- gone
	}()
	gone.err = f.repeat(ctx, item)
}

func (f *floor) repeat(ctx context.Context, item string) error {
	lock := &Lock{Session: f.p.Session, Path: join(join(f.p.Path, "locks"), item), Layout: Kazoo}
	for broken := 0; ctx.Err() == nil; {
		h, err := lock.Acquire(ctx)
		switch {
		case err == nil:
			broken = 0
			if err := f.hold(ctx, item, h); err != nil {
				return err
			}
		case errors.Is(err, ErrBroken):
			err = Backoff{}.Wait(ctx, broken)
			broken++
		case over(err):
			if _, gone := f.p.Session.Session(ctx); gone == nil {
				err = nil
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// hold calls the item's function under its lock. The error is the function's, unless it comes of the end of its context.
func (f *floor) hold(ctx context.Context, item string, h *Held) error {
	_, err := h.serve(ctx, func(under context.Context) error {
		if under.Err() != nil {
			return nil
		}
		f.p.owns(item, true)
		defer f.p.owns(item, false)
		err := f.own(under, item, h)
		if err == nil {
			<-under.Done() // the item stays ours
		}
		return err
	})
	return err
}

func (p *Partitioner) owns(item string, yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !yes {
		delete(p.owned, item)
		return
	}
	if p.owned == nil {
		p.owned = map[string]bool{}
	}
	p.owned[item] = true
}

// Owned returns the items that are being worked on here, sorted.
func (p *Partitioner) Owned() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.owned))
}
