// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

const (
	someUUID = "f8e2c4a0-3b1d-4e5f-8a9b-0c1d2e3f4a5b"
	someHex  = "f8e2c4a03b1d4e5f8a9b0c1d2e3f4a5b"
)

// contends are the names of others' locks, as their programs write them.
var contends = []string{
	"_c_" + someUUID + "-lock-0000000007",                  // Curator's InterProcessMutex
	"_c_" + strings.ToUpper(someUUID) + "-lock-0000000008", // whatever the case
	"_c_" + someHex + "-lock-0000000009",                   // go-zookeeper's Lock
	someHex + "__lock__0000000010",                         // kazoo's Lock
	"_c_" + someUUID + "-lock-2147483648",                  // E11, PEER-16: beyond what an int32 holds
	"_c_" + someUUID + "-lock-12345678901",                 // more than ten digits
	someHex + "__lock__9223372036854775807",                // the last number there is
}

// passedOver are names that are no contenders of a lock.
var passedOver = []string{
	"_c_", "_c_x", "x", "lock-", "lock-0000000001", "-lock-0000000001", "0000000001", "_c_-lock-0000000001",
	"_c_" + someUUID + "-lock-", "_c_" + someUUID + "-lock-000000001", // nine digits
	"_c_" + someUUID + "-lock-x0000000001", "_c_" + someUUID + "-lock-0000000001x", "_c_" + someUUID + "-lock--2147483648",
	"_c_" + someUUID + "-latch-0000000001", "_c_" + someUUID + "-lease-0000000001", "_c_" + someUUID + "0000000001",
	"_c_" + someUUID + "__READ__0000000001", "_c_" + someUUID + "-lock-٠١٢٣٤٥٦٧٨٩", // digits of another script
	"_c_" + someUUID[1:] + "-lock-0000000001", "_c_" + someHex[1:] + "-lock-0000000001", someUUID + "-lock-0000000001",
	"_c_" + strings.Replace(someUUID, "f", "g", 1) + "-lock-0000000001", "_c_" + strings.Replace(someUUID, "-", "+", 1) + "-lock-0000000001",
	someHex[1:] + "__lock__0000000001", someHex + "a__lock__0000000001", someUUID + "__lock__0000000001", "_c_" + someHex + "__lock__0000000001",
	someHex + "__rlock__0000000001", someHex + "__lock__", "замок-0000000001", "锁0000000001", strings.Repeat("z", 31) + "g__lock__0000000001",
}

// Names that others write are honoured in the order of their numbers, every other one is passed over (PEER-15).
func TestForeignNames(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		s := sc.s[1]
		make := func(name string) {
			t.Helper()
			_, err := s.Create(ctx, "/app/lock/"+name, []byte(name), zk.Ephemeral|zk.Parents)
			must(t, err)
		}
		for _, name := range passedOver {
			make(name)
			if list := inLine(t, ctx, sc.locks[1]); len(list) != 0 { // PEER-15
				t.Errorf("%q contends", name)
			}
		}
		h, err := sc.locks[0].TryAcquire(ctx)
		must(t, err)
		must(t, h.Release(ctx))
		h = acquire(t, ctx, sc.locks[0])
		must(t, h.Release(ctx))
		for _, i := range []int{3, 0, 6, 4, 2, 5, 1} {
			make(contends[i])
		}
		list := inLine(t, ctx, sc.locks[1])
		var names []string
		for i, c := range list {
			names = append(names, strings.TrimPrefix(c.Path, "/app/lock/"))
			if want, _ := zk.Sequence(c.Path); c.Seq != want || c.Holding != (i == 0) || string(c.Data) != names[i] || c.Session != s.ID() {
				t.Errorf("%+v", c)
			}
		}
		if !slices.Equal(names, contends) { // PEER-16: by number, not by name
			t.Errorf("in line are\n%s", strings.Join(names, "\n"))
		}
		// A foreign holder is waited for like one of ours: tell ours to come first, then wait for the others.
		_, err = sc.locks[0].TryAcquire(ctx)
		wants(t, err, recipes.ErrNotAcquired)
		for _, c := range list {
			must(t, sc.locks[1].Break(ctx, c))
		}
		h = acquire(t, ctx, sc.locks[0])
		must(t, h.Release(ctx))
		for _, name := range passedOver {
			must(t, s.Delete(ctx, "/app/lock/"+name, zk.AnyVersion))
		}
	})
}

// One of ours waits for others that came before it, whatever their program, and wakes when they go.
func TestWaitsForOthers(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, name := range []string{"_c_" + someUUID + "-lock-", "_c_" + someHex + "-lock-", someHex + "__lock__"} {
			first, err := sc.s[1].Create(ctx, "/app/lock/"+name, nil, zk.Ephemeral|zk.Sequential|zk.Parents)
			must(t, err)
			gap, err := sc.s[1].Create(ctx, "/app/lock/"+strings.Replace(name, "lock", "read", 1), nil, zk.Ephemeral|zk.Sequential)
			must(t, err)
			next := queue(t, ctx, sc.locks[0])
			waiting(t, next)
			must(t, sc.s[1].Delete(ctx, first.Path, zk.AnyVersion))
			must(t, granted(t, next).Release(ctx))
			must(t, sc.s[1].Delete(ctx, gap.Path, zk.AnyVersion))
		}
	})
}

// Two contenders with the same number, which only a name typed by hand can have, agree on who is first.
func TestSameNumber(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for _, first := range []string{"0", "f"} { // sorts before or after ours, nearly always
			number := 0
			if st, ok, err := sc.s[0].Exists(ctx, "/app/lock"); err == nil && ok {
				number = (int(st.Cversion) + st.NumChildren) / 2 // so many children were created
			}
			name := fmt.Sprintf("/app/lock/_c_%s%s-lock-%010d", strings.Repeat(first, 8), someUUID[8:], number+1)
			_, err := sc.s[1].Create(ctx, name, nil, zk.Ephemeral|zk.Parents)
			must(t, err)
			must(t, sc.c.Quiesce(ctx))
			try := start(ctx, sc.locks[0].Acquire)
			eventually(t, "not two in line", func() bool { return len(inLine(t, ctx, sc.locks[0])) == 2 })
			synctest.Wait()
			list := inLine(t, ctx, sc.locks[0])
			if list[0].Seq != list[1].Seq {
				t.Fatalf("in line: %+v", list)
			}
			if list[0].Path == name {
				waiting(t, try)
			}
			must(t, sc.s[1].Delete(ctx, name, zk.AnyVersion))
			must(t, granted(t, try).Release(ctx))
		}
	})
}

// What is written is what the other programs read.
func TestLayouts(t *testing.T) {
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		for layout, want := range map[recipes.Layout]string{
			0:               `^/app/lock/_c_[0-9a-f-]{36}-lock-\d{10}$`, // the default
			recipes.Curator: `^/app/lock/_c_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-lock-\d{10}$`,
			recipes.Kazoo:   `^/app/lock/[0-9a-f]{32}__lock__\d{10}$`,
		} {
			l := recipes.NewLock(sc.s[0], "/app/lock")
			l.Layout, l.Data = layout, []byte("me")
			h := acquire(t, ctx, l)
			if !regexp.MustCompile(want).MatchString(h.Path()) {
				t.Errorf("%v: path %s", layout, h.Path())
			}
			if list := inLine(t, ctx, sc.locks[1]); len(list) != 1 || string(list[0].Data) != "me" {
				t.Errorf("%v: in line %+v", layout, list)
			}
			must(t, h.Release(ctx))
		}
		for l, want := range map[recipes.Layout]string{0: "default", recipes.Curator: "curator", recipes.Kazoo: "kazoo", 7: "unknown"} {
			if l.String() != want {
				t.Errorf("layout %d is called %s", l, l)
			}
		}
	})
}

// Contenders of both layouts are in one line for us, but not for those programs: that is told, once for each Lock.
func TestMixedLayouts(t *testing.T) {
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	onStage(t, zktest.Config{}, func(t *testing.T, ctx context.Context, sc *scene) {
		kazoo := recipes.NewLock(sc.s[1], "/app/lock")
		kazoo.Layout = recipes.Kazoo
		h := acquire(t, ctx, sc.locks[0])
		alike := queue(t, ctx, sc.locks[2])
		waiting(t, alike)
		leads, err := recipes.NewElection(sc.s[0], "/app/boss").Campaign(ctx, nil)
		must(t, err)
		stands := start(ctx, func(ctx context.Context) (*recipes.Held, error) {
			l, err := recipes.NewElection(sc.s[1], "/app/boss").Campaign(ctx, nil)
			if err != nil {
				return nil, err
			}
			return l.Held, nil
		})
		waiting(t, stands)
		if log.Len() > 0 {
			t.Errorf("told of one layout: %s", &log)
		}
		must(t, leads.Resign(ctx))
		must(t, granted(t, stands).Release(ctx))
		must(t, h.Release(ctx))
		must(t, granted(t, alike).Release(ctx))
		h = acquire(t, ctx, sc.locks[0])
		for range 3 {
			next := queue(t, ctx, kazoo)
			waiting(t, next)
			must(t, h.Release(ctx))
			h = granted(t, next)
			next = queue(t, ctx, sc.locks[0])
			waiting(t, next)
			must(t, h.Release(ctx))
			h = granted(t, next)
		}
		must(t, h.Release(ctx))
		synctest.Wait()
		if n := strings.Count(log.String(), "/app/lock"); n != 2 {
			t.Errorf("%d warnings of two locks:\n%s", n, log.String())
		}
	})
}

// Names of one lock never meet.
func TestNamesAreUnique(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		seen := map[string]bool{}
		for i := range 200 {
			l := recipes.NewLock(s, fmt.Sprint("/l", i%2))
			l.Layout = []recipes.Layout{recipes.Curator, recipes.Kazoo}[i%2]
			h := acquire(t, ctx, l)
			name := strings.TrimRight(h.Path(), "0123456789")
			if seen[name] {
				t.Fatalf("%s again", name)
			}
			seen[name] = true
			must(t, h.Release(ctx))
		}
		residue(t, ctx, c, "/")
	})
}
