// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// An entry's name is entry-PPP-SEQ, as kazoo's LockingQueue has it. Ours may have something between the priority and
// the number: =ID= for an entry that has an id, @MILLIS for one that is not due before that moment, or first the moment
// and then the id. By name, the entries of a priority stand in three runs, because a digit comes before = and that
// before @.
const (
	entryPrefix     = "entry-"
	defaultPriority = 100
	maxPriority     = 999
	maxIDBytes      = 512
	maxDue          = 9_999_999_999_999 // in the year 2286; more digits would stand in the wrong place
)

// kazooNames is the layout of kazoo's LockingQueue.
type kazooNames struct{}

func (kazooNames) dirs(path string) (entries, claims string) {
	return join(path, "entries"), join(path, "taken")
}

func (kazooNames) missing() zk.CreateMode { return zk.Parents }

func (kazooNames) prefix(p place, _ time.Time) (string, error) {
	if p.prio == noPriority {
		p.prio = defaultPriority
	}
	mark := ""
	if !p.due.IsZero() {
		mark = fmt.Sprintf("@%013d-", dueMillis(p.due))
	}
	if p.id != "" {
		mark += "=" + p.id + "=-"
	}
	return run(p.prio, mark), nil
}

// id escapes =, which marks an id's end.
func (kazooNames) id(id string) string { return strings.ReplaceAll(url.PathEscape(id), "=", "%3D") }

func dueMillis(due time.Time) int64 {
	if due.Before(time.UnixMilli(maxDue)) {
		return max(due.UnixMilli(), 1)
	}
	return maxDue
}

func (kazooNames) parse(name string) (e entry, ok bool) {
	rest, ok := strings.CutPrefix(name, entryPrefix)
	if !ok {
		return e, false
	}
	prio, rest, ok := strings.Cut(rest, "-")
	if !ok || len(prio) != 3 || !allDigits(prio) {
		return e, false
	}
	e.name = name
	e.prio, _ = strconv.Atoi(prio)
	if e.seq, ok = zk.Sequence(rest); !ok {
		return e, false
	}
	if rest[0] == '@' {
		due, number, ok := strings.Cut(rest[1:], "-")
		if !ok || len(due) != 13 || !allDigits(due) {
			return e, false
		}
		if e.due, _ = strconv.ParseInt(due, 10, 64); e.due == 0 {
			return e, false
		}
		rest = number
	}
	if strings.HasPrefix(rest, "=") {
		i := strings.LastIndexByte(rest, '-')
		if i < 3 || rest[i-1] != '=' {
			return e, false
		}
		e.id, rest = rest[1:i-1], rest[i+1:]
	}
	return e, allDigits(rest)
}

// run is where the entries of a priority begin that have something before their number.
func run(prio int, mark string) string { return fmt.Sprintf("%s%03d-%s", entryPrefix, prio, mark) }

// beyond follows all entries of a priority.
func beyond(prio int) string { return fmt.Sprintf("%s%03d.", entryPrefix, prio) }

// first goes by priorities, then by numbers. Of those with a delay only the one that was due first is looked at. What it
// takes does not depend on how many entries there are, but on how many are not free; only where a priority has entries
// with ids those of other priorities that were put before them are passed over one by one.
func (n kazooNames) first(ctx context.Context, h shelf, now time.Time, free func(entry) bool) (best entry, next int64, err error) {
	for after := ""; ; after = beyond(best.prio) {
		head := entry{}
		if err := h.from(ctx, after, func(e entry) bool { head = e; return false }); err != nil || head.name == "" {
			return entry{}, next, err
		}
		best = entry{prio: head.prio}
		if err := n.best(ctx, h, &best, &next, now.UnixMilli(), free); err != nil || best.name != "" {
			return best, 0, err
		}
	}
}

// best finds the first entry of a priority.
func (kazooNames) best(ctx context.Context, h shelf, best *entry, next *int64, now int64, free func(entry) bool) error {
	prio := best.prio
	take := func(e entry, err error) error {
		if err == nil && e.name != "" {
			e, err = h.sooner(ctx, e, free)
		}
		if err == nil && e.name != "" && (best.name == "" || e.seq < best.seq) {
			*best = e
		}
		return err
	}
	var plain, delayed entry
	err := h.from(ctx, run(prio, ""), func(e entry) bool {
		if e.prio != prio || e.id != "" || e.due != 0 {
			return false
		}
		if !free(e) {
			return true
		}
		plain = e
		return false
	})
	if err := take(plain, err); err != nil {
		return err
	}
	err = h.from(ctx, run(prio, "@"), func(e entry) bool {
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
		delayed = e
		return false
	})
	if err := take(delayed, err); err != nil {
		return err
	}
	named := false
	err = h.from(ctx, run(prio, "="), func(e entry) bool {
		named = e.prio == prio && e.id != "" && e.due == 0
		return false
	})
	if err != nil || !named {
		return err
	}
	// By name these are in the order of their ids.
	return h.numbered(ctx, func(e entry) bool {
		if best.name != "" && e.seq >= best.seq {
			return false
		}
		if e.prio != prio || e.id == "" || e.due != 0 || !free(e) {
			return true
		}
		*best = e
		return false
	})
}

// withID passes over the entries with a delay one by one: those stand in the order in which they are due.
func (kazooNames) withID(ctx context.Context, h shelf, id string) (found []entry, err error) {
	for after := ""; ; {
		head := entry{}
		if err := h.from(ctx, after, func(e entry) bool { head = e; return false }); err != nil || head.name == "" {
			return found, err
		}
		err := h.from(ctx, run(head.prio, "="+id+"=-"), func(e entry) bool {
			if e.prio != head.prio || e.id != id || e.due != 0 {
				return false
			}
			found = append(found, e)
			return true
		})
		if err == nil {
			err = h.from(ctx, run(head.prio, "@"), func(e entry) bool {
				if e.prio == head.prio && e.id == id {
					found = append(found, e)
				}
				return e.prio == head.prio
			})
		}
		if err != nil {
			return found, err
		}
		after = beyond(head.prio)
	}
}

// pack is nothing: an entry is one item.
func (kazooNames) pack(items ...[]byte) []byte { return items[0] }

func (kazooNames) unpack(data string) ([]string, error) { return []string{data}, nil }
