// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Steps of every kind in one transaction, each with its result as of that step (DM-55, DM-59).
func TestTxnResults(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/p", zk.Persistent)
	before := m.Applied()
	results, err := s.Sub("/p").Txn(ctx,
		zk.OpCreate("/a", []byte("x"), zk.Persistent),
		zk.OpCreate("/a/n-", nil, zk.Ephemeral|zk.Sequential),
		zk.OpCreate("/ttl", nil, zk.Persistent).WithTTL(time.Hour),
		zk.OpCreate("/c/d", nil, zk.Parents|zk.Container),
		zk.OpSet("/a", []byte("one"), 0),
		zk.OpSet("/a", nil, 1),
		zk.OpCheck("/a", 2),
		zk.OpCheckCreated("/a", zk.Token(before+1)),
		zk.OpCheckAbsent("/b"),
		zk.OpCheckChildren("/a", zk.Equal, 1),
		zk.OpDelete("/ttl", zk.AnyVersion),
	)
	must(t, err)
	z := before + 1
	if m.Applied() != z {
		t.Errorf("it took %d zxids", m.Applied()-before)
	}
	for i, want := range []string{"/a 0 1", "/a/n-0000000000 0 0", "/ttl 0 0", "/c/d 0 0", "/a 1 3", "/a 2 0", "/a 0 0", "/a 0 0", "/b 0 0", "/a 0 0", "/ttl 0 0"} {
		r := results[i]
		if got := fmt.Sprint(r.Path, " ", r.Stat.Version, " ", r.Stat.DataLength); got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
		if written := i < 6; written != (r.Stat.Mzxid == z) || !written && r.Stat != (zk.Stat{}) { // deletes and checks have none
			t.Errorf("step %d: %+v", i, r.Stat)
		}
	}
	if results[1].Stat.EphemeralOwner != s.ID() || results[4].Stat.NumChildren != 1 {
		t.Errorf("%+v, %+v", results[1].Stat, results[4].Stat)
	}
}

// A failing step rolls back the others and is named; the codes that a listener sends are those of ZooKeeper (DM-57,
// DM-58).
func TestTxnFails(t *testing.T) {
	ctx, m, s := single(t, zk.Config{})
	create(t, ctx, s, "/a", zk.Persistent)
	ops := []zk.Op{zk.OpSet("/a", []byte("x"), 0), zk.OpCreate("/b", nil, zk.Sequential), zk.OpCheckAbsent("/a"), zk.OpDelete("/missing", zk.AnyVersion)}
	_, err := s.Txn(ctx, ops...)
	failed, ok := errors.AsType[*zk.TxnError](err)
	if !ok || failed.Index != 2 || len(failed.Steps) != 4 || !errors.Is(err, zk.ErrGuard) || errors.Is(err, zk.ErrRolledBack) || zk.MaybeApplied(err) {
		t.Fatalf("%v: %+v", err, failed)
	}
	for i, e := range failed.Steps {
		if want := i != 2; errors.Is(e, zk.ErrRolledBack) != want {
			t.Errorf("step %d: %v", i, e)
		}
	}
	if e, _ := errors.AsType[*zk.Error](err); e.Path != "/a" || !strings.Contains(err.Error(), "step 2") {
		t.Errorf("%q says too little", err)
	}
	call := <-s.Listener().Go(ctx, nil, ops...).Done
	if got := fmt.Sprint([]zk.Code(call.Codes)); call.Zxid != m.Applied() || len(call.Codes) != 4 || call.Codes[0] != 0 || call.Codes[1] != 0 || call.Codes[2] != zk.ErrGuard || call.Codes[3] != zk.ErrInconsistent {
		t.Errorf("codes %s at %v", got, call.Zxid)
	}
	if data, st, err := s.Get(ctx, "/a"); err != nil || data != nil || st.Version != 0 {
		t.Errorf("%q, %+v, %v", data, st, err)
	}
	// A single step that fails has its own code and no more.
	_, err = s.Do(ctx, ops[2])
	if failed, ok := errors.AsType[*zk.TxnError](err); ok || !errors.Is(err, zk.ErrGuard) {
		t.Errorf("%v, %v", err, failed)
	}
	_, err = s.Txn(ctx, ops[2])
	if failed, ok := errors.AsType[*zk.TxnError](err); !ok || failed.Index != 0 || !errors.Is(err, zk.ErrGuard) {
		t.Errorf("%v, %v", err, failed)
	}
	// A subtree is deleted alone (DM-55); the step is refused before anything is sent.
	before := m.Applied()
	_, err = s.Txn(ctx, zk.Op{}, ops[0])
	wants(t, err, zk.ErrBadArguments)
	if m.Applied() != before {
		t.Error("an invalid step took a zxid")
	}
}

// A transaction without steps succeeds and takes a zxid (DM-60); of a session that is over it fails like any other.
func TestEmptyTxn(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		before := c.Member(f).Applied()
		results, err := s.Txn(ctx)
		must(t, err)
		if len(results) != 0 || c.Member(f).Applied() != before+1 {
			t.Errorf("%v, zxid %v after %v", results, c.Member(f).Applied(), before)
		}
		// It is sent while its session is being expired elsewhere.
		c.Isolate(f)
		time.Sleep(3 * s.Timeout())
		done := make(chan error, 1)
		go func() {
			_, err := s.Txn(ctx)
			done <- err
		}()
		time.Sleep(time.Second)
		c.Heal()
		err = <-done
		wants(t, err, zk.ErrSessionExpired)
		if zk.MaybeApplied(err) || err.Error() == "" {
			t.Errorf("%v", err)
		}
	})
}

// What is too large is refused at once and takes no zxid (DM-93); what just fits is taken (DM-62).
func TestSizes(t *testing.T) {
	for name, cfg := range map[string]zk.Config{"default": {}, "small": {MaxValueSize: 100, MaxTxnOps: 3}, "large": {MaxValueSize: 3 << 19}} {
		ctx, m, s := single(t, cfg)
		value, steps := max(cfg.MaxValueSize, 100), max(cfg.MaxTxnOps, 3)
		if name == "default" {
			value, steps = 1<<20, 1024
		}
		if name == "large" {
			steps = 1024
		}
		check := func(n int) []zk.Op {
			ops := make([]zk.Op, n)
			for i := range ops {
				ops[i] = zk.OpCheck("/", zk.AnyVersion)
			}
			return ops
		}
		_, err := s.Create(ctx, "/v", make([]byte, value), zk.Persistent)
		must(t, err)
		if data, st, err := s.Get(ctx, "/v"); err != nil || len(data) != value || st.DataLength != value {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		_, err = s.Txn(ctx, check(steps)...)
		must(t, err)
		var fits []zk.Op // a transaction of about a mebibyte
		for i := range min(steps, 16) {
			fits = append(fits, zk.OpCreate(fmt.Sprint("/fits-", i), make([]byte, min(value, 60<<10)), zk.Persistent))
		}
		_, err = s.Txn(ctx, fits...)
		must(t, err)

		before := m.Applied()
		_, err = s.Set(ctx, "/v", make([]byte, value+1), zk.AnyVersion)
		wants(t, err, zk.ErrTooLarge)
		_, err = s.Create(ctx, "/w", make([]byte, value+1), zk.Persistent)
		wants(t, err, zk.ErrTooLarge)
		_, err = s.Txn(ctx, check(steps+1)...)
		wants(t, err, zk.ErrTooLarge)
		if value > 1<<16 {
			half := make([]byte, value*3/4) // each is small enough, together they do not fit a log entry
			_, err = s.Txn(ctx, zk.OpSet("/v", half, zk.AnyVersion), zk.OpSet("/v", half, zk.AnyVersion), zk.OpSet("/v", half, zk.AnyVersion))
			wants(t, err, zk.ErrTooLarge)
		}
		var acl []zk.ACL
		for i := range 70_000 {
			acl = append(acl, zk.ACL{Perm: zk.PermAll, Scheme: "sasl", ID: fmt.Sprintf("somebody-with-a-long-name-%d", i)})
		}
		_, err = s.SetACL(ctx, "/v", acl, zk.AnyVersion)
		wants(t, err, zk.ErrTooLarge)
		call := <-s.Listener().Go(ctx, nil, zk.OpSet("/v", make([]byte, value+1), zk.AnyVersion)).Done
		wants(t, call.Error, zk.ErrTooLarge)
		if zk.MaybeApplied(err) || m.Applied() != before {
			t.Errorf("%s: what is too large took %d zxids, %v", name, m.Applied()-before, err)
		}
	}
}

// No read on any member sees a part of a transaction or of a deleted subtree, and who reacts to the first event of one
// by reading sees all of it (P5, DM-64).
func TestTxnIsAtomic(t *testing.T) {
	const width, rounds = 8, 60
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		w := session(t, ctx, c.Member(leader(t, ctx, c)))
		path := func(i int) string { return fmt.Sprint("/t/", i) }
		var ops []zk.Op
		for i := range width {
			ops = append(ops, zk.OpCreate(path(i), []byte("0"), zk.Parents))
		}
		_, err := w.Txn(ctx, ops...)
		must(t, err)
		must(t, c.Quiesce(ctx))
		// all returns what every znode of the transactions has; of what is missing there is nothing at all.
		all := func(s *zk.Session) (value string, z zk.Zxid) {
			reads := []zk.ReadRequest{{Path: "/t", Children: true}}
			for i := range width {
				reads = append(reads, zk.ReadRequest{Path: path(i)})
			}
			got, z, err := s.Listener().MultiRead(ctx, reads...)
			if err != nil {
				t.Error(err)
				return "", z
			}
			there := got[0].Code == 0
			for i, r := range got[1:] {
				if (r.Code == 0) != there || there && (len(got[0].Names) != width || string(r.Data) != string(got[1].Data) || r.Stat.Mzxid != got[1].Stat.Mzxid) {
					t.Errorf("at %v: znode %d %q of %+v, %v; znode 0 %q, %v", z, i, r.Data, got[0].Names, r.Code, got[1].Data, got[1].Code)
				}
			}
			return string(got[1].Data), z
		}
		var watchers sync.WaitGroup
		for i := range c.Len() {
			s := session(t, ctx, c.Member(i))
			watch, err := s.Watch(ctx, "/t", zk.WatchSubtree)
			must(t, err)
			watchers.Go(func() {
				defer watch.Close()
				last := zk.Zxid(0)
				for ev := range watch.Events() {
					value, z := all(s)
					if ev.Type == zk.EventOverflow {
						continue
					}
					if ev.Zxid < last || z < ev.Zxid {
						t.Errorf("member %d: %+v after %v, read at %v", i, ev, last, z)
					}
					last = ev.Zxid
					if value == "end" {
						return
					}
				}
			})
			var readers sync.WaitGroup
			defer readers.Wait()
			readers.Go(func() {
				for value := ""; value != "end" && ctx.Err() == nil; {
					value, _ = all(s)
					if err := s.View(ctx, func(v *zk.View) error {
						n := 0
						first := ""
						for z, err := range v.Walk("/") {
							if err != nil {
								return err
							}
							if strings.HasPrefix(z.Path, "/t/") {
								if n++; n == 1 {
									first = z.Data
								}
								if z.Data != first {
									t.Errorf("a View shows %q beside %q", z.Data, first)
								}
							}
						}
						if n != 0 && n != width {
							t.Errorf("a View shows %d znodes", n)
						}
						return nil
					}); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		for round := range rounds {
			value := fmt.Append(nil, round)
			if round == rounds-1 {
				value = []byte("end")
			}
			ops := []zk.Op{}
			if round%5 == 3 {
				must(t, w.DeleteTree(ctx, "/t"))
				for i := range width {
					ops = append(ops, zk.OpCreate(path(i), value, zk.Parents))
				}
			} else {
				for i := range width {
					ops = append(ops, zk.OpSet(path(i), value, zk.AnyVersion))
				}
				if round%5 == 1 { // refused as a whole
					_, err := w.Txn(ctx, append(ops, zk.OpCheckAbsent("/"))...)
					wants(t, err, zk.ErrGuard)
				}
			}
			_, err := w.Txn(ctx, ops...)
			must(t, err)
			if round%3 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		watchers.Wait()
	})
}

// Guards on a znode's incarnation, absence and children decide the whole, on the state as it is when they are applied (E6).
func TestGuardsDecide(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		a, b := session(t, ctx, c.Member(0)), session(t, ctx, c.Member(1))
		// Two members race for one place: whoever is told that it won is alone.
		create(t, ctx, a, "/seats", zk.Persistent)
		for round := range 20 {
			var wins sync.WaitGroup
			won := make(chan string, 8)
			for i, s := range []*zk.Session{a, b, a, b} {
				wins.Go(func() {
					_, err := s.Txn(ctx, zk.OpCheckChildren("/seats", zk.Less, round+1), zk.OpCreate(fmt.Sprintf("/seats/%d-%d", round, i), nil, zk.Persistent))
					switch {
					case err == nil:
						won <- s.ID().String()
					case !errors.Is(err, zk.ErrGuard):
						t.Error(err)
					}
				})
			}
			wins.Wait()
			if len(won) != 1 {
				t.Fatalf("round %d: %d won", round, len(won))
			}
		}
		// A token names one incarnation.
		old := zk.Token(create(t, ctx, a, "/r", zk.Persistent).Stat.Czxid)
		must(t, a.Delete(ctx, "/r", zk.AnyVersion))
		now := zk.Token(create(t, ctx, b, "/r", zk.Persistent).Stat.Czxid)
		if now <= old { // P13
			t.Errorf("token %d after %d", now, old)
		}
		_, err := b.Txn(ctx, zk.OpCheckCreated("/r", old), zk.OpSet("/r", []byte("stale"), zk.AnyVersion))
		wants(t, err, zk.ErrGuard)
		_, err = a.Txn(ctx, zk.OpCheckCreated("/r", now), zk.OpSet("/r", []byte("fresh"), zk.AnyVersion))
		must(t, err)
		_, err = a.Txn(ctx, zk.OpCheckAbsent("/r"), zk.OpSet("/r", nil, zk.AnyVersion))
		wants(t, err, zk.ErrGuard)
		if data, _, err := b.GetString(ctx, "/r", zk.Linearizable); err != nil || data != "fresh" {
			t.Errorf("%q, %v", data, err)
		}
	})
}
