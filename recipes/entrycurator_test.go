// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"pgregory.net/rapid"
)

// Names as Curator 5 makes them: DistributedQueue, DistributedPriorityQueue (5, 0, -5, the largest and the smallest int),
// DistributedIdQueue and DistributedDelayQueue (1, the year 2001, the year 2033).
func TestCuratorNames(t *testing.T) {
	ids, delays := curatorNames{}, curatorNames{delays: true}
	for name, want := range map[string]entry{
		"queue-0000000007":                {prio: noPriority, seq: 7},
		"queue-1234567890":                {prio: noPriority, seq: 1234567890},
		"queue-12345678901":               {prio: noPriority, seq: 12345678901},
		"queue-1000000050000000007":       {prio: 5, seq: 7},
		"queue-1000000000000000007":       {prio: 0, seq: 7},
		"queue-0FFFFFFFB0000000007":       {prio: -5, seq: 7},
		"queue-17FFFFFFF0000000007":       {prio: math.MaxInt32, seq: 7},
		"queue-0800000000000000007":       {prio: math.MinInt32, seq: 7},
		"queue-10000000512345678901":      {prio: 5, seq: 12345678901},
		"queue-|a b|0000000007":           {prio: noPriority, seq: 7, id: "a b"},
		"queue-|0123456789ab|0000000007":  {prio: noPriority, seq: 7, id: "0123456789ab"},
		"queue-|00000001|0000000007":      {prio: noPriority, seq: 7, id: "00000001"},
		"queue-|12345|12345678901":        {prio: noPriority, seq: 12345678901, id: "12345"},
		"queue-|queue-|0000000000":        {prio: noPriority, seq: 0, id: "queue-"},
		"queue-|-0000000001|0000000000":   {prio: noPriority, seq: 0, id: "-0000000001"},
		"queue-|49123456789|0000000000":   {prio: noPriority, seq: 0, id: "49123456789"},
		"queue-|E8D4A51000|0000000007":    {prio: noPriority, seq: 7, id: "E8D4A51000"},
		"queue-|1D0CA7E2DF1|0000000007":   {prio: noPriority, seq: 7, id: "1D0CA7E2DF1"},
		"queue-|\U0001F600é|000000000700": {prio: noPriority, seq: 700, id: "\U0001F600é"},
	} {
		want.name = name
		if e, ok := ids.parse(name); !ok || e != want {
			t.Errorf("%q is %+v, %v; want %+v", name, e, ok, want)
		}
	}
	for name, due := range map[string]int64{
		"queue-|00000001|0000000007": 1, "queue-|E8D4A51000|0000000007": 1e12, "queue-|1D1A94A2000|0000000007": 2e12, "queue-0000000007": 0,
	} {
		if e, ok := delays.parse(name); !ok || e.due != due || e.seq != 7 || e.id != "" {
			t.Errorf("%q is %+v, %v", name, e, ok)
		}
	}
	for _, name := range []string{
		"", "queue-", "queue", "queue-000000007", "queue-x", "queue-||0000000007", "queue-|a0000000007", "queue-|a|", "queue-|a|b|0000000007", "queue-|a|000000007", "QUEUE-0000000007",
		"queue-2000000050000000007", "queue-1FFFFFFFB0000000007", "queue-0000000050000000007", "queue-1000000G50000000007", "queue-0000000007x", "queue--000000007", "queue--0000000007",
		"queue-7b1cbe92-1c0f-4f0e-8a4c-0123456789ab", "entries", "queue-10000000500000000070000000007x",
	} {
		for _, n := range []curatorNames{ids, delays} {
			if e, ok := n.parse(name); ok {
				t.Errorf("%q is %+v", name, e)
			}
		}
	}
	for _, name := range []string{"queue-|x|0000000007", "queue-|00000000|0000000007", "queue-|FFFFFFFFFFFFFFFF|0000000007", "queue-|+5|0000000007"} {
		if e, ok := delays.parse(name); ok {
			t.Errorf("%q is %+v", name, e)
		}
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for want, p := range map[string]place{
		"queue-":                  {prio: noPriority},
		"queue-100000000":         {prio: 0},
		"queue-1000003E7":         {prio: 999},
		"queue-|a_b__|":           {prio: noPriority, id: ids.id("a/b|/")},
		"queue-|1D1A94A2000|":     {prio: noPriority, due: time.UnixMilli(2e12)},
		"queue-|10000000000|":     {prio: noPriority, due: time.UnixMilli(1e12)}, // 2001: as many digits as the present
		"queue-|10000000000|\x00": {prio: noPriority, due: time.UnixMilli(0)},
		"queue-|FFFFFFFFFFF|":     {prio: noPriority, due: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		n := curatorNames{delays: !p.due.IsZero()}
		if got := placed(t, n, p, now); got != strings.TrimSuffix(want, "\x00") {
			t.Errorf("%+v is %q, want %q", p, got, want)
		}
	}
	for _, refused := range []struct {
		n naming
		p place
	}{{ids, place{prio: noPriority, due: now}}, {delays, place{prio: 5}}, {delays, place{prio: noPriority, id: "x"}}} {
		if got, err := refused.n.prefix(refused.p, now); err == nil {
			t.Errorf("%+v is %q", refused.p, got)
		}
	}
}

// Frames as Curator 5 makes them.
func TestCuratorFrames(t *testing.T) {
	var n curatorNames
	if got, want := n.pack([]byte("ab")), "\x00\x01\x00\x01\x01\x00\x00\x00\x02ab\x02"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := n.pack([]byte("a"), nil), "\x00\x01\x00\x01\x01\x00\x00\x00\x01a\x01\x00\x00\x00\x00\x02"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{
		"", "\x00\x01\x00", "\x00\x01\x00\x02\x02", "\x00\x01\x00\x01", "\x00\x01\x00\x01\x02", "\x00\x01\x00\x01\x03", "\x00\x01\x00\x01\x01", "\x00\x01\x00\x01\x01\x00\x00\x00",
		"\x00\x01\x00\x01\x01\x00\x00\x00\x02a", "\x00\x01\x00\x01\x01\x00\x00\x00\x01a", "\x00\x01\x00\x01\x01\xff\xff\xff\xffa\x02", "{\"json\":1}",
	} {
		if items, err := n.unpack(bad); err == nil {
			t.Errorf("%q holds %q", bad, items)
		}
	}
}

// FuzzCuratorItems: what is taken apart is what makes the same again.
func FuzzCuratorItems(f *testing.F) {
	var n curatorNames
	for _, data := range []string{"", "\x00\x01\x00\x01\x02", string(n.pack([]byte("ab"))), string(n.pack(nil, []byte("x"), nil)), "\x00\x01\x00\x01\x01\x7f\xff\xff\xff"} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		items, err := n.unpack(data)
		if err != nil {
			if items != nil {
				t.Fatalf("%q and %v", items, err)
			}
			return
		}
		var raw [][]byte
		for _, item := range items {
			raw = append(raw, []byte(item))
		}
		if again := n.pack(raw...); !bytes.HasPrefix([]byte(data), again) {
			t.Fatalf("%q became %q", data, again)
		}
	})
}

// FuzzCuratorNames: what is accepted is what would be written, and stands where it is looked for.
func FuzzCuratorNames(f *testing.F) {
	for _, name := range []string{"queue-0000000007", "queue-1000000050000000007", "queue-0FFFFFFFB0000000007", "queue-|x|0000000007", "queue-|1D1A94A2000|0000000007", "queue-||0000000000", "queue-|a|b|0000000007"} {
		f.Add(name, false)
		f.Add(name, true)
	}
	f.Fuzz(func(t *testing.T, name string, delays bool) {
		n := curatorNames{delays}
		e, ok := n.parse(name)
		if !ok {
			return
		}
		barred := e.id != "" || e.due != 0
		if e.name != name || e.seq < 0 || e.due < 0 || e.id != "" && delays || e.due != 0 && !delays || e.prio != noPriority && barred || barred != (name[len(curatorPrefix)] == '|') {
			t.Fatalf("%q: %+v", name, e)
		}
		if seq, ok := zk.Sequence(name); (e.prio == noPriority) && (!ok || seq != e.seq) {
			t.Fatalf("%q: %d", name, seq)
		}
	})
}

// naiveCurator is what first must find: by name, but by number among those that differ in nothing else; ids among those
// that have neither id nor priority; with delays the others first.
func naiveCurator(n curatorNames, names []string, now int64, free map[string]bool) (best string, next int64) {
	var plain, ids, due []entry
	first := entry{}
	for _, e := range parsed(n, names) {
		switch {
		case e.due > now:
			if next == 0 || strings.Compare(e.name, fmt.Sprintf("queue-|%08X|", next)) < 0 {
				next = e.due
			}
		case !free[e.name]:
		case e.due > 0:
			due = append(due, e)
		case e.id != "":
			ids = append(ids, e)
		default:
			if first.name == "" || e.name < first.name {
				first = e
			}
			if e.prio == noPriority {
				plain = append(plain, e)
			}
		}
	}
	switch {
	case first.name != "" && first.prio == noPriority:
		return slices.MinFunc(append(plain, ids...), lowest).name, 0
	case len(ids) > 0:
		return slices.MinFunc(ids, lowest).name, 0
	case first.name != "":
		return first.name, 0
	case len(due) > 0:
		return due[0].name, 0
	}
	return "", next
}

// The entry that is found, by cursors, is the one that looking at all of them finds, whatever else is there.
func TestCuratorShelfFirst(t *testing.T) {
	ctx := t.Context()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(ctx, zk.SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	dir := 0
	rapid.Check(t, func(t *rapid.T) {
		dir++
		n := curatorNames{delays: rapid.Bool().Draw(t, "delays")}
		h := shelf{s, fmt.Sprint("/curator", dir), n}
		var names []string
		free := map[string]bool{}
		add := func(name string, mode zk.CreateMode) {
			z, err := s.Create(ctx, join(h.path, name), nil, mode|zk.Parents)
			if err != nil && !errors.Is(err, zk.ErrNodeExists) {
				t.Fatal(err)
			} else if err == nil {
				names = append(names, base(z.Path))
			}
		}
		origin := int64(0x19000000000) // so that all moments have the same number of digits
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			far := rapid.SampledFrom([]int64{9_999_999_998, 9_999_999_999, 10_000_000_000, 10_000_000_001, 100_000_000_000, 1_000_000_000, 800_000_000}).Draw(t, "far")
			switch kind := rapid.IntRange(0, 5).Draw(t, "kind"); {
			case kind == 0:
				add("queue-", zk.Sequential)
			case kind == 1:
				add(fmt.Sprintf("queue-%010d", far), zk.Persistent)
			case kind == 2 && n.delays:
				add(fmt.Sprintf("queue-|%08X|", origin+rapid.Int64Range(1, 9).Draw(t, "due")), zk.Sequential)
			case kind == 2:
				add("queue-|"+rapid.SampledFrom([]string{"a", "0", "FF", "~"}).Draw(t, "id")+"|", zk.Sequential)
			case kind == 3:
				prio := rapid.SampledFrom([]int32{0, 5, 10, 999, -1, math.MinInt32}).Draw(t, "prio")
				mark := 1
				if prio < 0 {
					mark = 0
				}
				add(fmt.Sprintf("queue-%d%08X", mark, uint32(prio)), zk.Sequential)
			case kind == 4:
				add(rapid.SampledFrom([]string{"queue-", "queue-x", "queue-||0000000000", "queue-|a|7", "zzz", "entries", "lock-0000000000", "queue-9999999999999999999"}).Draw(t, "foreign"), zk.Persistent)
			case kind == 5 && n.delays:
				add(fmt.Sprintf("queue-|%08X|%010d", origin+rapid.Int64Range(1, 9).Draw(t, "due"), far), zk.Persistent)
			case kind == 5:
				add(fmt.Sprintf("queue-|a|%010d", far), zk.Persistent)
			}
		}
		for _, name := range names {
			free[name] = rapid.IntRange(0, 3).Draw(t, "free") > 0
		}
		now := origin + rapid.Int64Range(0, 10).Draw(t, "now")
		want, next := naiveCurator(n, names, now, free)
		got, due, err := n.first(context.Background(), h, time.UnixMilli(now), func(e entry) bool { return free[e.name] })
		if err != nil || got.name != want || want == "" && due != next { // Q-S4
			t.Fatalf("at %d of %q, free %v: %q, due %d, %v; want %q, due %d", now, names, free, got.name, due, err, want, next)
		}
	})
}
