// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// CuratorDelay, for queues alone, has the names of Curator's DistributedDelayQueue: what stands between two bars is the
// moment an item is due. With Curator it is an id, as in DistributedIdQueue. A name does not tell which it is, and
// Curator too keeps the two in different queues.
const CuratorDelay Layout = 64

// Curator's names are queue-SEQ; queue-1PPPPPPPPSEQ with a priority of eight hex digits, or queue-0PPPPPPPPSEQ if it is
// negative; queue-|ID|SEQ; queue-|MILLIS|SEQ with the moment, in hex. Its consumers sort them as strings, but those with
// an id by number and those with a moment by that.
const (
	curatorPrefix   = "queue-"
	curatorBar      = "|"
	priorityDigits  = 1 + 8
	shortestOrdinal = 10 // digits of a number
)

// curatorNames is the layout of Curator's queues.
type curatorNames struct{ delays bool }

func (curatorNames) dirs(path string) (entries, claims string) { return path, path + "-locks" }

// missing is 0 because Curator creates both directories once, when it starts, and counts on them from then on.
func (curatorNames) missing() zk.CreateMode { return 0 }

func (n curatorNames) prefix(p place, now time.Time) (string, error) {
	switch {
	case !p.due.IsZero() && !n.delays:
		return "", errors.New("in this layout an item has no delay: use CuratorDelay")
	case p.id != "" && n.delays:
		return "", errors.New("in this layout an item has no id: use Curator")
	case p.prio != noPriority && n.delays:
		return "", errors.New("in this layout an item has no priority: use Curator")
	case !p.due.IsZero():
		return fmt.Sprintf("%s|%08X|", curatorPrefix, hexMillis(p.due, now)), nil
	case p.id != "":
		return curatorPrefix + curatorBar + p.id + curatorBar, nil
	case p.prio != noPriority:
		return fmt.Sprintf("%s1%08X", curatorPrefix, p.prio), nil
	}
	return curatorPrefix, nil
}

// hexMillis keeps moments at as many hex digits as the present has: until the year 2527 that is all since 2004. With
// more or fewer they would stand in the wrong place.
func hexMillis(due, now time.Time) int64 {
	low := int64(1)
	for ; low <= now.UnixMilli()/16; low *= 16 {
	}
	high := low*16 - 1
	if due.After(time.UnixMilli(high)) {
		return high
	}
	return max(due.UnixMilli(), low)
}

// id is Curator's way to keep bars and slashes out of a name: two ids may become the same.
func (curatorNames) id(id string) string { return strings.NewReplacer("/", "_", "|", "_").Replace(id) }

func (n curatorNames) parse(name string) (e entry, ok bool) {
	rest, ok := strings.CutPrefix(name, curatorPrefix)
	if !ok {
		return e, false
	}
	e = entry{name: name, prio: noPriority}
	if marked, ok := strings.CutPrefix(rest, curatorBar); ok {
		mark, number, ok := strings.Cut(marked, curatorBar)
		if !ok || mark == "" {
			return e, false
		}
		if n.delays {
			due, err := strconv.ParseUint(mark, 16, 63)
			if err != nil || due == 0 {
				return e, false
			}
			e.due = int64(due)
		} else {
			e.id = mark
		}
		rest = number
	} else if len(rest) >= priorityDigits+shortestOrdinal {
		bits, err := strconv.ParseUint(rest[1:priorityDigits], 16, 32)
		e.prio = int(int32(uint32(bits)))
		if err != nil || rest[0] != '0' && rest[0] != '1' || (rest[0] == '0') != (e.prio < 0) {
			return e, false
		}
		rest = rest[priorityDigits:]
	}
	e.seq, ok = zk.Sequence(rest)
	return e, ok && allDigits(rest)
}

// first goes by name among those without bars. Those with an id stand among those that have neither id nor priority, by
// number; those with a delay follow the others in the order in which they are due.
func (n curatorNames) first(ctx context.Context, h shelf, now time.Time, free func(entry) bool) (best entry, next int64, err error) {
	err = h.from(ctx, curatorPrefix, func(e entry) bool {
		if e.due != 0 || e.id != "" {
			return false
		}
		if !free(e) {
			return true
		}
		best = e
		return false
	})
	if err == nil && best.prio == noPriority && best.name != "" {
		best, err = h.sooner(ctx, best, free)
	}
	if err != nil || n.delays && best.name != "" {
		return best, 0, err
	}
	named := false
	err = h.from(ctx, curatorPrefix+curatorBar, func(e entry) bool {
		switch {
		case !n.delays:
			named = true
			return false
		case e.due > now.UnixMilli():
			next = e.due
			return false
		case !free(e):
			return true
		}
		best = e
		return false
	})
	if err == nil && n.delays && best.name != "" {
		best, err = h.sooner(ctx, best, free)
		next = 0
	}
	if err != nil || !named {
		return best, next, err
	}
	plain := best.name != "" && best.prio == noPriority
	err = h.numbered(ctx, func(e entry) bool {
		switch {
		case e.prio != noPriority: // its priority may look like a part of its number
			return true
		case plain && e.seq >= best.seq:
			return false
		case e.id == "" || !free(e):
			return true
		}
		best = e
		return false
	})
	return best, 0, err
}

func (n curatorNames) withID(ctx context.Context, h shelf, id string) (found []entry, err error) {
	err = h.from(ctx, curatorPrefix+curatorBar+id+curatorBar, func(e entry) bool {
		if e.id != id {
			return false
		}
		found = append(found, e)
		return true
	})
	return found, err
}

// Curator frames the items of an entry: a version, for each item a mark, its length and its bytes, and an end mark.
// Numbers are big-endian.
const (
	itemsVersion = 0x00010001
	itemMark     = 0x01
	itemsEnd     = 0x02
)

func (curatorNames) pack(items ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, itemsVersion)
	for _, item := range items {
		b = binary.BigEndian.AppendUint32(append(b, itemMark), uint32(len(item)))
		b = append(b, item...)
	}
	return append(b, itemsEnd)
}

// unpack takes what Curator takes: it does not look at what follows the end mark.
func (curatorNames) unpack(data string) (items []string, err error) {
	rest := data
	number := func() uint32 {
		n := binary.BigEndian.Uint32([]byte(rest[:4]))
		rest = rest[4:]
		return n
	}
	if len(rest) < 4 {
		return nil, errors.New("no version of Curator's items")
	}
	if v := number(); v != itemsVersion {
		return nil, fmt.Errorf("version %#08x of Curator's items, want %#08x", v, itemsVersion)
	}
	for len(rest) > 0 {
		mark := rest[0]
		rest = rest[1:]
		switch {
		case mark == itemsEnd && len(items) == 0:
			return nil, errors.New("no item between Curator's marks")
		case mark == itemsEnd:
			return items, nil
		case mark != itemMark:
			return nil, fmt.Errorf("mark %#02x is none of Curator's", mark)
		case len(rest) < 4:
			return nil, errTruncated
		}
		size := number()
		if uint64(size) > uint64(len(rest)) {
			return nil, errTruncated
		}
		items = append(items, rest[:size])
		rest = rest[size:]
	}
	return nil, errTruncated
}

var errTruncated = errors.New("items in the frame of Curator are cut off")
