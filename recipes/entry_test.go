// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"pgregory.net/rapid"
)

var oddIDs = []string{"a", "=", "==", "-", "@", "a-b", "a=-", "%", "%3D", "0000000000", "-0000000000", "@0000000000001-", "/", ".", "..", "é\U0001F600", " ", "\x00\xff", "entry-100-"}

var kz = kazooNames{}

func parseEntry(name string) (entry, bool) { return kz.parse(name) }
func escapeID(id string) string            { return kz.id(id) }

func placed(t interface{ Fatal(...any) }, n naming, p place, now time.Time) string {
	prefix, err := n.prefix(p, now)
	if err != nil {
		t.Fatal(err)
	}
	return prefix
}

func idRun(prio int, id string) string { return run(prio, "="+escapeID(id)+"=-") }

func dueRun(prio int, due time.Time) string { return run(prio, fmt.Sprintf("@%013d-", dueMillis(due))) }

// What is put under an id is found under it again, and under no other.
func TestEntryIDs(t *testing.T) {
	for _, id := range append(oddIDs, strings.Repeat("/", maxIDBytes)) {
		name := idRun(100, id) + "0000000007"
		e, ok := parseEntry(name)
		if raw, err := url.PathUnescape(e.id); !ok || err != nil || raw != id || e.seq != 7 || e.prio != 100 || e.due != 0 {
			t.Errorf("%q: %q is %+v, %v, %v", id, name, e, ok, err)
		}
		if err := zk.ValidPath("/" + name); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		for _, other := range oddIDs {
			if other != id && strings.HasPrefix(name, idRun(100, other)) && e.id == escapeID(other) {
				t.Errorf("%q is taken for %q", id, other)
			}
		}
	}
}

// Moments have 13 digits, however far away they are, so that their order is that of the names.
func TestEntryDue(t *testing.T) {
	last := ""
	for _, at := range []time.Time{{}, time.UnixMilli(1), time.UnixMilli(999), time.UnixMilli(1e12), time.UnixMilli(2e12), time.Date(2286, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<55, 0)} {
		name := dueRun(100, at) + "0000000001"
		e, ok := parseEntry(name)
		if !ok || e.due < 1 || e.seq != 1 || name < last {
			t.Errorf("%v: %q after %q is %+v, %v", at, name, last, e, ok)
		}
		last = name
	}
}

// FuzzParseEntry: what is accepted can be told apart by what was parsed, and stands in the run where it is looked for.
func FuzzParseEntry(f *testing.F) {
	for _, name := range []string{
		"", "entry-", "entry-100-", "entry-100-0000000000", "entry-100-4294967296", "entry-000-00000000001", "entry-1000-0000000000", "entry--10-0000000000",
		"entry-+10-0000000000", "entry-100-@0000000000001-0000000000", "entry-100-@1-0000000000", "entry-100-@-0000000000", "entry-100-@0000000000000-0000000000",
		"entry-100-=a=-0000000000", "entry-100-=-0000000000", "entry-100-==-0000000000", "entry-100-=a-0000000000", "entry-100-=a=0000000000", "entry-100-=a=-x0000000000",
		"entry-100-99999999999999999999", "entry-100--0000000000", "lock-0000000000", "entry-100-0000000000x", "queue-0000000000",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		e, ok := parseEntry(name)
		if !ok {
			return
		}
		if e.name != name || e.prio < 0 || e.prio > maxPriority || e.seq < 0 || e.due < 0 {
			t.Fatalf("%q: %+v", name, e)
		}
		lo := run(e.prio, "")
		switch {
		case e.due > 0:
			lo = run(e.prio, fmt.Sprintf("@%013d-", e.due))
			if e.id != "" {
				lo += "=" + e.id + "=-"
			}
		case e.id != "":
			lo = run(e.prio, "="+e.id+"=-")
		default:
			if hi := run(e.prio, "="); name >= hi {
				t.Fatalf("%q is plain and stands behind %q", name, hi)
			}
		}
		if !strings.HasPrefix(name, lo) || name >= beyond(e.prio) || e.prio > 0 && name <= beyond(e.prio-1) {
			t.Fatalf("%q: %+v is not below %q", name, e, lo)
		}
		if seq, ok := zk.Sequence(name); !ok || seq != e.seq {
			t.Fatalf("%q: %d", name, seq)
		}
		again, ok := parseEntry(fmt.Sprintf("%s%010d", lo, e.seq))
		if again.name = name; !ok || again != e {
			t.Fatalf("%q: %+v, then %+v", name, e, again)
		}
	})
}

// naive is what first must find: of the entries of the first priority that has one which is due and free, the lowest
// number of its plain and named ones, or that of its first delayed one, which go by the moment they are due.
func naive(names []string, now int64, free map[string]bool) (best, next string) {
	list := parsed(kz, names)
	prio := -1
	var head []entry // candidates: of the delayed ones only the first
	delayed := false
	soonest := int64(0)
	for _, e := range list {
		if e.due > now {
			if soonest == 0 || e.due < soonest {
				soonest = e.due
			}
			continue
		}
		if !free[e.name] || prio >= 0 && e.prio != prio || e.due > 0 && delayed {
			continue
		}
		prio, delayed = e.prio, delayed || e.due > 0
		head = append(head, e)
	}
	if len(head) == 0 {
		return "", fmt.Sprint(soonest)
	}
	return slices.MinFunc(head, lowest).name, "0"
}

// lowest prefers those that have no id, where somebody has given two the same number.
func lowest(a, b entry) int {
	named := func(e entry) int {
		if e.id != "" && e.due == 0 {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.seq, b.seq), named(a)-named(b))
}

// parsed returns the entries among names, in the order of what comes before their numbers, then of those.
func parsed(n naming, names []string) (list []entry) {
	for _, name := range names {
		if e, ok := n.parse(name); ok {
			list = append(list, e)
		}
	}
	stem := func(e entry) string { return strings.TrimSuffix(e.name, fmt.Sprintf("%010d", e.seq)) }
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(strings.Compare(stem(a), stem(b)), lowest(a, b))
	})
	return list
}

// The entry that is found, by cursors, is the one that looking at all of them finds, whatever else is there.
func TestShelfFirst(t *testing.T) {
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
		h := shelf{s, fmt.Sprint("/shelf", dir), kz}
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
		for range rapid.IntRange(0, 12).Draw(t, "entries") {
			prio := rapid.SampledFrom([]int{0, 99, 100, 101, 999}).Draw(t, "prio")
			// Some numbers have grown past ten digits.
			far := rapid.SampledFrom([]int64{9_999_999_998, 9_999_999_999, 10_000_000_000, 10_000_000_001, 99_999_999_999, 100_000_000_000, 1_000_000_000}).Draw(t, "far")
			due := time.UnixMilli(rapid.Int64Range(1, 9).Draw(t, "due"))
			switch rapid.IntRange(0, 8).Draw(t, "kind") {
			case 0, 1:
				add(run(prio, ""), zk.Sequential)
			case 2:
				add(dueRun(prio, due), zk.Sequential)
			case 3:
				add(idRun(prio, rapid.SampledFrom([]string{"a", "=", "@", "%", "z"}).Draw(t, "id")), zk.Sequential)
			case 4:
				add(dueRun(prio, due)+rapid.SampledFrom([]string{"=a=-", "=z=-"}).Draw(t, "late id"), zk.Sequential)
			case 5:
				add(fmt.Sprint(run(prio, ""), far), zk.Persistent)
			case 6:
				add(fmt.Sprint(dueRun(prio, due), far), zk.Persistent)
			case 7:
				add(fmt.Sprint(idRun(prio, "z"), far), zk.Persistent)
			case 8:
				add(rapid.SampledFrom([]string{"entry-100-==-0000000000", "entry-100-", "entry-100-@1-0000000000", "entry-100-@0000000000000-0000000003", "entry-99-0000000000", "zzz", "entry-100-=",
					"entry-100-=x-0000000001", "aaa-0000000000", "entry-1000-0000000000"}).Draw(t, "foreign"), zk.Persistent)
			}
		}
		for _, name := range names {
			free[name] = rapid.IntRange(0, 3).Draw(t, "free") > 0
		}
		now := rapid.Int64Range(0, 10).Draw(t, "now")
		want, next := naive(names, now, free)
		got, due, err := kz.first(context.Background(), h, time.UnixMilli(now), func(e entry) bool { return free[e.name] })
		if err != nil || got.name != want || want == "" && fmt.Sprint(due) != next { // Q-S4
			t.Fatalf("at %d of %q, free %v: %q, due %d, %v; want %q, due %s", now, names, free, got.name, due, err, want, next)
		}
	})
}
