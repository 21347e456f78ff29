// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/seed-541fafe0/zk"
)

// entry is what an entry's name says.
type entry struct {
	name string
	prio int // noPriority where its name has none
	seq  int64
	due  int64  // ms of the ensemble's time; 0: at once
	id   string // as it stands in the name
}

// noPriority is the priority of what was put without one.
const noPriority = math.MinInt

// place says where in a queue an entry is to stand.
type place struct {
	prio int
	due  time.Time // zero: at once
	id   string    // as it stands in a name; "": none
}

// naming is what a layout knows of a queue: the names of its entries, their order, and what they hold.
type naming interface {
	// dirs returns the directories of the entries of the queue at path, and of the claims.
	dirs(path string) (entries, claims string)

	// missing is how a directory that is not there comes to be: zk.Parents with what is created in it, or 0 where it
	// has to be created first, to stay.
	missing() zk.CreateMode

	// prefix makes the name of a new entry, up to its number. The error says what the layout has no name for.
	prefix(p place, now time.Time) (string, error)

	// id makes an id fit for a name.
	id(id string) string

	// parse is false for names that are not entries; everybody passes over those.
	parse(name string) (entry, bool)

	// first returns the first entry that is due now and free, and otherwise when the next one is due.
	first(ctx context.Context, h shelf, now time.Time, free func(entry) bool) (best entry, next int64, err error)

	// withID returns the entries that have an id.
	withID(ctx context.Context, h shelf, id string) ([]entry, error)

	// pack makes an entry's data of items, unpack takes it apart.
	pack(items ...[]byte) []byte
	unpack(data string) ([]string, error)
}

// shelf is the directory of entries as a session sees it.
type shelf struct {
	s     *zk.Session
	path  string
	names naming
}

// from yields the entries whose names follow after, in the order of their names.
func (h shelf) from(ctx context.Context, after string, fn func(entry) bool) error {
	for name, err := range h.s.ChildrenSeq(ctx, h.path, after) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := h.names.parse(name); ok && !fn(e) {
			return nil
		}
	}
	return nil
}

// numbered yields the entries in the order of their numbers, whatever they are called.
func (h shelf) numbered(ctx context.Context, fn func(entry) bool) error {
	for z, err := range h.s.Sequential(ctx, h.path) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := h.names.parse(base(z.Path)); ok && !fn(e) {
			return nil
		}
	}
	return nil
}

// sooner returns the entry that goes first of e and those whose names differ from e's in the number alone; e is the
// first of them by name. That is the lowest number as long as all have ten digits. Once they grow beyond, those with
// fewer digits go first; they are few, and soon none, so that they are looked for one by one.
func (h shelf) sooner(ctx context.Context, e entry, free func(entry) bool) (entry, error) {
	shorter := int64(1e10) // the lowest number with as many digits as e's
	if e.seq < shorter {
		return e, nil
	}
	digits := len("10000000000")
	for ; shorter <= e.seq/10; shorter *= 10 {
		digits++
	}
	stem := e.name[:len(e.name)-digits]
	best := e
	err := h.numbered(ctx, func(o entry) bool {
		if o.seq >= shorter {
			return false
		}
		if len(o.name) > len(stem) && o.name[:len(stem)] == stem && allDigits(o.name[len(stem):]) && free(o) {
			best = o
			return false
		}
		return true
	})
	return best, err
}

// allDigits reports whether s is a number and nothing else.
func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
