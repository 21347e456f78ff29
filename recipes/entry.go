// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// An entry's name is entry-PPP-SEQ, as kazoo's LockingQueue has it. Ours may have something between the priority and
// the number: @MILLIS for an entry that is not due before that moment, =ID for one that has an id. By name, the
// entries of a priority stand in three runs, because a digit comes before = and that before @.
const (
	entryPrefix     = "entry-"
	defaultPriority = 100
	maxPriority     = 999
	maxIDBytes      = 512
	maxDue          = 9_999_999_999_999 // in the year 2286; more digits would stand in the wrong place
)

// entry is what an entry's name says.
type entry struct {
	name string
	prio int
	seq  int64
	due  int64  // ms of the ensemble's time; 0: at once
	id   string // escaped
}

// parseEntry is false for names that are not entries; everybody passes over those.
func parseEntry(name string) (e entry, ok bool) {
	rest, ok := strings.CutPrefix(name, entryPrefix)
	if !ok {
		return e, false
	}
	prio, rest, ok := strings.Cut(rest, "-")
	if !ok || len(prio) != 3 {
		return e, false
	}
	e.name = name
	if e.prio, ok = digits(prio); !ok {
		return e, false
	}
	if e.seq, ok = zk.Sequence(rest); !ok {
		return e, false
	}
	switch rest[0] {
	case '@':
		due, number, ok := strings.Cut(rest[1:], "-")
		if _, numbered := digits(number); !ok || !numbered || len(due) != 13 {
			return e, false
		}
		ms, err := strconv.ParseUint(due, 10, 63)
		e.due = int64(ms)
		return e, err == nil && ms > 0
	case '=':
		i := strings.LastIndexByte(rest, '-')
		if _, numbered := digits(rest[i+1:]); i < 3 || rest[i-1] != '=' || !numbered {
			return e, false
		}
		e.id = rest[1 : i-1]
		return e, true
	}
	_, ok = digits(rest)
	return e, ok
}

func digits(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int(n), err == nil && s[0] != '+'
}

// run is where the entries of a priority begin that have something before their number.
func run(prio int, mark string) string { return fmt.Sprintf("%s%03d-%s", entryPrefix, prio, mark) }

// beyond follows all entries of a priority.
func beyond(prio int) string { return fmt.Sprintf("%s%03d.", entryPrefix, prio) }

// idRun is what the names of entries with an id begin with.
func idRun(prio int, id string) string { return run(prio, "="+escapeID(id)+"=-") }

// escapeID makes an id fit for a name; = marks its end.
func escapeID(id string) string { return strings.ReplaceAll(url.PathEscape(id), "=", "%3D") }

func dueRun(prio int, due time.Time) string {
	ms := int64(maxDue)
	if due.Before(time.UnixMilli(maxDue)) {
		ms = max(due.UnixMilli(), 1)
	}
	return run(prio, fmt.Sprintf("@%013d-", ms))
}

// shelf is the directory of entries as a session sees it.
type shelf struct {
	s    *zk.Session
	path string
}

// from yields the entries whose names follow after, in order.
func (h shelf) from(ctx context.Context, after string, fn func(entry) bool) error {
	for name, err := range h.s.ChildrenSeq(ctx, h.path, after) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := parseEntry(name); ok && !fn(e) {
			return nil
		}
	}
	return nil
}

// first returns the first entry that is due now and free, in the order of priorities, then of numbers, and otherwise
// when the next one is due. Of those with a delay only the one that was due first is looked at. What it takes does not
// depend on how many entries there are, but on how many are not free; only where a priority has entries with ids those
// of other priorities that were put before them are passed over one by one.
func (h shelf) first(ctx context.Context, now time.Time, free func(entry) bool) (best entry, next int64, err error) {
	for after := ""; ; after = beyond(best.prio) {
		head := entry{}
		if err := h.from(ctx, after, func(e entry) bool { head = e; return false }); err != nil || head.name == "" {
			return entry{}, next, err
		}
		best = entry{prio: head.prio}
		if err := h.best(ctx, &best, &next, now.UnixMilli(), free); err != nil || best.name != "" {
			return best, 0, err
		}
	}
}

// best finds the first entry of a priority.
func (h shelf) best(ctx context.Context, best *entry, next *int64, now int64, free func(entry) bool) error {
	prio := best.prio
	take := func(e entry) {
		if best.name == "" || e.seq < best.seq {
			*best = e
		}
	}
	plain := func(e entry) bool {
		if e.prio != prio || e.id != "" || e.due != 0 {
			return false
		}
		if !free(e) {
			return true
		}
		take(e)
		return false
	}
	if err := h.from(ctx, run(prio, ""), plain); err != nil {
		return err
	}
	delayed := func(e entry) bool {
		switch {
		case e.prio != prio:
			return false
		case e.due > now:
			if *next == 0 || e.due < *next {
				*next = e.due
			}
			return false
		case !free(e):
			return true
		}
		take(e)
		return false
	}
	if err := h.from(ctx, run(prio, "@"), delayed); err != nil {
		return err
	}
	named := false
	if err := h.from(ctx, run(prio, "="), func(e entry) bool { named = e.prio == prio && e.id != ""; return false }); err != nil || !named {
		return err
	}
	// By name these are in the order of their ids.
	for z, err := range h.s.Sequential(ctx, h.path) {
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		e, ok := parseEntry(base(z.Path))
		if ok && best.name != "" && e.seq > best.seq {
			return nil
		}
		if ok && e.prio == prio && e.id != "" && free(e) {
			take(e)
			return nil
		}
	}
	return nil
}
