// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Writes work on every member, and the member that made one sees it at once, events included (WT-21, P7).
func TestEveryMemberWrites(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for i := range c.Len() {
			s := session(t, ctx, c.Member(i))
			path := fmt.Sprint("/from-", i)
			_, ok, changed, err := s.ExistsW(ctx, path)
			must(t, err)
			if ok {
				t.Fatal("it is there already")
			}
			z := create(t, ctx, s, path, zk.Persistent)
			select {
			case ev := <-changed: // WT-21
				if ev.Type != zk.EventCreated || ev.Zxid != z.Stat.Czxid {
					t.Fatalf("event %+v of %+v", ev, z)
				}
			default:
				t.Fatal("the write was answered before its event")
			}
			if _, _, err := s.Get(ctx, path); err != nil { // CG-2
				t.Fatal(err)
			}
			for j := range c.Len() {
				o := session(t, ctx, c.Member(j))
				if _, _, err := o.Get(ctx, path, zk.Linearizable); err != nil { // P6
					t.Fatalf("member %d does not see what member %d wrote: %v", j, i, err)
				}
			}
		}
		must(t, c.Quiesce(ctx))
	})
}

// A crashed leader is invisible to callers: they wait for the next one (P1, P3).
func TestLeaderCrash(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for round := range 3 {
			l := leader(t, ctx, c)
			s := session(t, ctx, c.Member((l+1)%3))
			parent := fmt.Sprint("/round-", round)
			create(t, ctx, s, parent, zk.Persistent)
			var all sync.WaitGroup
			const writers = 20
			for range writers {
				all.Go(func() {
					if _, err := s.Create(ctx, parent+"/w-", nil, zk.Sequential); err != nil {
						t.Error(err)
					}
				})
			}
			must(t, c.Crash(l))
			began := time.Now()
			all.Wait()
			if took := time.Since(began); took > 500*time.Millisecond { // D17: no timeout is waited for
				t.Errorf("writes took %v of virtual time after the crash", took)
			}
			names, st, err := s.Children(ctx, parent)
			must(t, err)
			if len(names) != writers || st.Cversion != writers { // P3: each once
				t.Fatalf("%d children, cversion %d", len(names), st.Cversion)
			}
			must(t, c.Restart(ctx, l))
			must(t, c.Member(l).Ready(ctx))
			must(t, c.Quiesce(ctx))
		}
	})
}

// Lost answers make a member send its frame again; the state applies it once (P3).
func TestLostAnswers(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		create(t, ctx, s, "/q", zk.Persistent)
		for i := range 30 {
			c.DropForwards(f, 1+i%3)
			create(t, ctx, s, "/q/n-", zk.Sequential)
		}
		names, st, err := s.Children(ctx, "/q")
		must(t, err)
		if len(names) != 30 || st.Cversion != 30 {
			t.Fatalf("%d children, cversion %d", len(names), st.Cversion)
		}
	})
}

// Sequential calls of one session take effect in order, across a partition of their member (P4, CG-2).
func TestSessionOrder(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		create(t, ctx, s, "/o", zk.Persistent)
		l := s.Listener()
		done := make(chan *zk.Call, 200)
		for i := range 200 {
			if i == 50 {
				c.Isolate(f)
			}
			if i == 120 {
				time.Sleep(1500 * time.Millisecond)
				c.Heal()
			}
			l.Go(ctx, done, zk.OpCreate("/o/n-", fmt.Append(nil, i), zk.Sequential))
		}
		for i := range 200 {
			call := <-done
			must(t, call.Error)
			if want := fmt.Sprintf("/o/n-%010d", i); call.Results[0].Path != want {
				t.Fatalf("call %d made %s", i, call.Results[0].Path)
			}
		}
	})
}

// A call whose context ends while its request waits in the queue is withdrawn; one that was handed over is unknown,
// and is driven to its end (section 2 of docs/design.md; P3).
func TestContextEnds(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		f := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(f))
		c.Isolate(f)
		first, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := s.Create(first, "/handed-over", nil, zk.Persistent)
		if !zk.MaybeApplied(err) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, zk.ErrTimeout) {
			t.Fatalf("handed over: %v", err)
		}
		second, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err = s.Create(second, "/queued", nil, zk.Persistent)
		if err == nil || zk.MaybeApplied(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("queued: %v", err)
		}
		c.Heal()
		create(t, ctx, s, "/after", zk.Persistent)
		if _, ok, _ := s.Exists(ctx, "/handed-over"); !ok {
			t.Error("the request that was handed over was not driven to its end")
		}
		if _, ok, _ := s.Exists(ctx, "/queued"); ok {
			t.Error("the withdrawn request was applied")
		}
	})
}

// A deposed leader does not answer linearizable reads with what it has (P6; stale linearizable read after pause).
func TestNoStaleLinearizableRead(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		for range 3 {
			l := leader(t, ctx, c)
			old := session(t, ctx, c.Member(l))
			other := session(t, ctx, c.Member((l+1)%3))
			if _, ok, _ := old.Exists(ctx, "/v"); !ok {
				create(t, ctx, old, "/v", zk.Persistent)
			}
			c.Isolate(l)
			st, err := other.Set(ctx, "/v", []byte("new"), zk.AnyVersion)
			must(t, err)
			read, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			_, seen, err := old.Get(read, "/v", zk.Linearizable)
			cancel()
			if err == nil && seen.Version < st.Version {
				t.Fatalf("the deposed leader answered version %d after version %d was written", seen.Version, st.Version)
			}
			if err != nil && !errors.Is(err, zk.ErrUnavailable) {
				t.Fatal(err)
			}
			if _, _, err := old.Get(ctx, "/v", zk.Local); err != nil { // P8: local reads go on
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			_, _, err = old.Get(ctx, "/v", zk.Fresh(time.Second))
			wants(t, err, zk.ErrStale) // P8
			c.Heal()
			must(t, c.Quiesce(ctx))
		}
	})
}

// A leader that was deposed without knowing answers no linearizable read and extends no lease, although raft still
// calls it the leader (P6, P11).
func TestDeposedLeader(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 1500 * time.Millisecond}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		old, other := session(t, ctx, c.Member(l)), session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, other, "/v", zk.Persistent)
		must(t, c.Quiesce(ctx))
		time.Sleep(2100 * time.Millisecond)
		// Its host is gone from the network, but the member runs on: the others elect long before its lease ends.
		c.Network().Crash(zktest.Name(l))
		cut := time.Now()
		_, err := other.Set(ctx, "/v", []byte("new"), zk.AnyVersion)
		must(t, err)
		if r := c.Member(l).Role(); r != zk.RoleLeader {
			t.Skipf("the old leader is a %v already", r)
		}
		read, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if data, _, err := old.Get(read, "/v", zk.Linearizable); err == nil {
			t.Errorf("it answered %q", data)
		}
		time.Sleep(old.Timeout())
		if max := cut.Add(old.Timeout()); old.Deadline().After(max) {
			t.Errorf("its lease ends %v after the cut", old.Deadline().Sub(cut))
		}
		if old.State() != zk.StateSuspended {
			t.Errorf("state %v", old.State())
		}
	})
}

// A frame that went to a leader which was cut off is sent again as soon as the next leader has begun (D11).
func TestResendAtEpoch(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		s := session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, s, "/n", zk.Persistent)
		must(t, c.Quiesce(ctx))
		c.Isolate(l)
		done := make(chan time.Time, 1)
		go func() {
			if _, err := s.Create(ctx, "/n/x-", nil, zk.Sequential); err != nil {
				t.Error(err)
			}
			done <- time.Now()
		}()
		next := c.Member((l + 1) % 3)
		eventually(t, "no other leader", func() bool {
			info := next.RoleInfo()
			return info.Leader != "" && info.Leader != zktest.Name(l)
		})
		began := time.Now()
		if took := (<-done).Sub(began); took > 200*time.Millisecond {
			t.Errorf("the write was answered %v after the next leader was known", took)
		}
	})
}

// All members stop and start again with their data (CG-5).
func TestWholeEnsembleRestarts(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		for i := range 50 {
			create(t, ctx, s, fmt.Sprint("/n", i), zk.Persistent)
		}
		id := c.Member(0).ClusterID()
		for i := range 3 {
			must(t, c.Crash(i))
		}
		for i := range 3 {
			must(t, c.Restart(ctx, i))
		}
		for i := range 3 {
			must(t, c.Member(i).Ready(ctx))
		}
		n := session(t, ctx, c.Member(1))
		names, _, err := n.Children(ctx, "/")
		must(t, err)
		if len(names) != 51 || c.Member(2).ClusterID() != id {
			t.Fatalf("%d children, cluster %s was %s", len(names), c.Member(2).ClusterID(), id)
		}
		must(t, c.Quiesce(ctx))
	})
}

// A member joins, becomes a voter, is removed and learns of it; an observer has everything but a vote.
func TestMembership(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/before", zk.Persistent)
		i, err := c.Add(ctx, true)
		must(t, err)
		must(t, c.Member(i).Ready(ctx))
		o, err := c.Add(ctx, false)
		must(t, err)
		must(t, c.Member(o).Ready(ctx))
		eventually(t, "the new members were not all added", func() bool {
			list, err := c.Member(0).Members(ctx)
			must(t, err)
			return len(list) == 5 && slices.ContainsFunc(list, func(m zk.MemberInfo) bool { return m.ID == zktest.Name(i) && m.Voter }) &&
				slices.ContainsFunc(list, func(m zk.MemberInfo) bool { return m.ID == zktest.Name(o) && !m.Voter })
		})
		for _, k := range []int{i, o} {
			n := session(t, ctx, c.Member(k))
			if _, ok, err := n.Exists(ctx, "/before"); !ok {
				t.Fatalf("member %d: %v", k, err)
			}
			create(t, ctx, n, fmt.Sprint("/by-", k), zk.Persistent)
		}
		if r := c.Member(o).Role(); r != zk.RoleNonVoter {
			t.Errorf("the observer is a %v", r)
		}
		// The config znode shows the ensemble (DM-15).
		data, st, err := s.Get(ctx, "/zookeeper/config")
		must(t, err)
		if n := strings.Count(string(data), "server."); n != 5 || st.Version != -1 {
			t.Errorf("config znode, version %d:\n%s", st.Version, data)
		}
		must(t, c.Member(1).RemoveMember(ctx, zktest.Name(i)))
		<-c.Member(i).Done()
		wants(t, c.Member(i).Err(), zk.ErrNotMember)
		must(t, c.Member(0).TransferLeadership(ctx, ""))
		create(t, ctx, s, "/after", zk.Persistent)
		// The leader can be removed as well: it hands over first.
		l := leader(t, ctx, c)
		must(t, c.Member((l+1)%3).RemoveMember(ctx, zktest.Name(l)))
		<-c.Member(l).Done()
		wants(t, c.Member(l).Err(), zk.ErrNotMember)
		n := session(t, ctx, c.Member((l+1)%3))
		create(t, ctx, n, "/still", zk.Persistent)
		// A voter that cannot be reached is refused.
		actx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		wants(t, c.Member((l+1)%3).AddMember(actx, zk.Peer{ID: "x", Addr: "nowhere", Voter: true}), zk.ErrNoQuorumForConfig)
	})
}

// A lagging follower gets a snapshot; its watchers hear of the differences, its sessions live on (E8, P17).
func TestSnapshotInstall(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		w := session(t, ctx, c.Member(l))
		for _, p := range []string{"/same", "/set", "/del", "/again", "/dir", "/dir/old"} {
			create(t, ctx, w, p, zk.Persistent)
		}
		must(t, c.Quiesce(ctx))
		s := session(t, ctx, c.Member(f))
		watch := func(path string) <-chan zk.Event {
			_, _, ch, err := s.ExistsW(ctx, path)
			must(t, err)
			return ch
		}
		same, set, del, again, made := watch("/same"), watch("/set"), watch("/del"), watch("/again"), watch("/new")
		_, _, dir, err := s.ChildrenW(ctx, "/dir")
		must(t, err)
		tree, err := s.Watch(ctx, "/dir", zk.WatchSubtree)
		must(t, err)
		c.Isolate(f)
		_, err = w.Set(ctx, "/set", []byte("x"), zk.AnyVersion)
		must(t, err)
		must(t, w.Delete(ctx, "/del", zk.AnyVersion))
		must(t, w.Delete(ctx, "/again", zk.AnyVersion))
		create(t, ctx, w, "/again", zk.Persistent)
		create(t, ctx, w, "/new", zk.Persistent)
		must(t, w.Delete(ctx, "/dir/old", zk.AnyVersion))
		create(t, ctx, w, "/dir/young", zk.Persistent)
		for range 200 { // more than the trailing log holds
			_, err := w.Set(ctx, "/set", []byte("y"), zk.AnyVersion)
			must(t, err)
		}
		must(t, c.Member(l).Compact(ctx))
		must(t, c.Member((l+2)%3).Compact(ctx))
		c.Heal()
		for _, want := range []struct {
			ch   <-chan zk.Event
			kind zk.EventType
			path string
		}{{set, zk.EventChanged, "/set"}, {del, zk.EventDeleted, "/del"}, {again, zk.EventDeleted, "/again"}, {made, zk.EventCreated, "/new"}, {dir, zk.EventChildren, "/dir"}} {
			if ev := next(t, want.ch); ev.Type != want.kind || ev.Path != want.path {
				t.Errorf("%s: %+v", want.path, ev)
			}
		}
		got := map[string]zk.EventType{}
		for range 2 {
			ev := next(t, tree.Events())
			got[ev.Path] = ev.Type
		}
		if got["/dir/old"] != zk.EventDeleted || got["/dir/young"] != zk.EventCreated {
			t.Errorf("subtree: %v", got)
		}
		select {
		case ev := <-same:
			t.Errorf("an unchanged znode fired %+v", ev)
		default:
		}
		must(t, c.Quiesce(ctx))
		create(t, ctx, s, "/alive", zk.Ephemeral)
	})
}

// A frame that was jumped over by a snapshot is answered from the results the snapshot keeps (D11).
func TestSnapshotAnswersFrames(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		s, w := session(t, ctx, c.Member(f)), session(t, ctx, c.Member(l))
		create(t, ctx, w, "/n", zk.Persistent)
		must(t, c.Quiesce(ctx))
		synctest.Wait() // until every call has its answer: its stream is free
		// What the leader sends does not arrive; what the follower sends does.
		c.Network().Cut(zktest.Name(l), zktest.Name(f))
		_, err := w.Set(ctx, "/n", nil, zk.AnyVersion) // this the leader sends once it can
		must(t, err)
		synctest.Wait()
		done := make(chan error, 1)
		go func() {
			z, err := s.Create(ctx, "/n/seq-", nil, zk.Sequential)
			if err == nil && z.Path != "/n/seq-0000000000" {
				err = fmt.Errorf("made %s", z.Path)
			}
			done <- err
		}()
		eventually(t, "the frame was not committed", func() bool {
			_, ok, err := w.Exists(ctx, "/n/seq-0000000000")
			must(t, err)
			return ok
		})
		for range 200 {
			_, err := w.Set(ctx, "/n", nil, zk.AnyVersion)
			must(t, err)
		}
		must(t, c.Member(l).Compact(ctx))
		must(t, c.Member((l+2)%3).Compact(ctx))
		c.Network().Reset(zktest.Name(l), zktest.Name(f)) // entries are under way
		c.Heal()
		must(t, <-done)
		eventually(t, "no snapshot was sent", func() bool { return c.Member(l).Stats().SnapshotsSent > 0 })
		names, _, err := s.Children(ctx, "/n", zk.Linearizable)
		must(t, err)
		if len(names) != 1 {
			t.Errorf("children %v", names)
		}
	})
}

// DeleteTree is one transaction, and quotas are the leader's to enforce (DM-74).
func TestDeleteTreeAndQuota(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{EnforceQuota: true}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(1))
		for i := range 20 {
			create(t, ctx, s, fmt.Sprintf("/t/a%d/b/c", i), zk.Parents)
		}
		must(t, s.DeleteTree(ctx, "/t"))
		if _, ok, _ := s.Exists(ctx, "/t"); ok {
			t.Error("/t is there")
		}
		create(t, ctx, s, "/limited", zk.Persistent)
		_, err := s.Create(ctx, "/zookeeper/quota/limited/zookeeper_limits", []byte("count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3"), zk.Parents)
		must(t, err)
		create(t, ctx, s, "/zookeeper/quota/limited/zookeeper_stats", zk.Persistent)
		create(t, ctx, s, "/limited/1", zk.Persistent)
		create(t, ctx, s, "/limited/2", zk.Persistent)
		_, err = s.Create(ctx, "/limited/3", nil, zk.Persistent)
		wants(t, err, zk.ErrQuotaExceeded)
		must(t, s.Delete(ctx, "/limited/1", zk.AnyVersion))
		create(t, ctx, s, "/limited/3", zk.Persistent)
	})
}

// The leader reaps containers and TTL znodes (DM-80 to DM-87).
func TestReaping(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		create(t, ctx, s, "/used", zk.Container)
		create(t, ctx, s, "/used/child", zk.Persistent)
		create(t, ctx, s, "/unused", zk.Container)
		_, err := s.Do(ctx, zk.OpCreate("/ttl", nil, zk.Persistent).WithTTL(90*time.Second))
		must(t, err)
		_, _, used, err := s.ExistsW(ctx, "/used")
		must(t, err)
		must(t, s.Delete(ctx, "/used/child", zk.AnyVersion))
		if ev := next(t, used); ev.Type != zk.EventDeleted { // DM-85, TR-19
			t.Fatalf("%+v", ev)
		}
		time.Sleep(30 * time.Second)
		_, err = s.Set(ctx, "/ttl", nil, zk.AnyVersion) // DM-82: writing renews
		must(t, err)
		time.Sleep(80 * time.Second)
		for _, p := range []string{"/ttl", "/unused"} {
			if _, ok, _ := s.Exists(ctx, p); !ok {
				t.Fatalf("%s was reaped too early", p)
			}
		}
		time.Sleep(5 * time.Minute)
		for _, p := range []string{"/ttl", "/unused"} {
			if _, ok, _ := s.Exists(ctx, p); ok {
				t.Errorf("%s was not reaped", p)
			}
		}
		must(t, c.Quiesce(ctx))
	})
}
