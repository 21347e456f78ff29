// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are to be refused with an error

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

// verdict is what Decision has returned.
type verdict struct {
	commit bool
	err    error
	at     time.Time
}

func deciding(ctx context.Context, p *recipes.Proposal) <-chan verdict {
	ch := make(chan verdict, 1)
	go func() {
		commit, err := p.Decision(ctx)
		ch <- verdict{commit, err, time.Now()}
	}()
	return ch
}

func decided(t *testing.T, commit bool, list ...<-chan verdict) {
	t.Helper()
	for _, ch := range list {
		if v := soon(t, "no decision", ch); v.err != nil || v.commit != commit {
			t.Fatalf("%v, %v, want %v", v.commit, v.err, commit)
		}
	}
}

func propose(t *testing.T, ctx context.Context, p *recipes.TwoPhase, id string, sites ...string) *recipes.Proposal {
	t.Helper()
	got, err := p.Propose(ctx, id, []byte("request of "+id), sites...)
	must(t, err)
	return got
}

// asked returns the next proposals that a site is asked about.
func asked(t *testing.T, ctx context.Context, p *recipes.TwoPhase, site string, n int) (list []*recipes.Proposal) {
	t.Helper()
	for got, err := range p.Proposals(ctx, site) {
		must(t, err)
		if list = append(list, got); len(list) == n {
			break
		}
	}
	return list
}

func TestTwoPhase(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		coordinator := recipes.NewTwoPhase(c.Member(0), "/app/2pc")
		for round, votes := range []struct{ votes, decision string }{
			{"commit commit commit", "commit"},
			{"commit abort commit", "abort"}, // 2PC-S1
			{"abort abort abort", "abort"},
			{"commit commit abort", "abort"},
		} {
			id := fmt.Sprint("t", round)
			p := propose(t, ctx, coordinator, id, "a", "b", "c")
			if p.ID() != id || string(p.Request()) != "request of "+id {
				t.Errorf("%s, %s", p.ID(), p.Request())
			}
			list := []<-chan verdict{deciding(ctx, p)}
			for i, vote := range strings.Fields(votes.votes) {
				site := string(rune('a' + i))
				own := asked(t, ctx, recipes.NewTwoPhase(c.Member(i), "/app/2pc"), site, round+1)[round] // those before are told again
				if own.ID() != id || string(own.Request()) != "request of "+id {
					t.Fatalf("%s, %s", own.ID(), own.Request())
				}
				list = append(list, deciding(ctx, own))
				switch err := own.Vote(ctx, vote == "commit"); {
				case errors.Is(err, recipes.ErrDecided): // by a vote against
					if votes.decision != "abort" || i == 0 {
						t.Error(err)
					}
					continue
				case err != nil:
					t.Fatal(err)
				}
				must(t, own.Vote(ctx, vote == "commit"))
				wants(t, own.Vote(ctx, vote != "commit"), recipes.ErrVoted) // 2PC-S2
			}
			decided(t, votes.decision == "commit", list...)
			data, _, err := session(t, ctx, c.Member(1)).GetString(ctx, "/app/2pc/"+id+"/decision", zk.Linearizable)
			if err != nil || data != votes.decision {
				t.Errorf("%q, %v", data, err)
			}
		}
		for round := range 4 {
			p, err := coordinator.Find(ctx, fmt.Sprint("t", round))
			must(t, err)
			must(t, p.Forget(ctx))
			must(t, p.Forget(ctx))
			_, err = p.Decision(ctx)
			wants(t, err, recipes.ErrBroken)
			_, err = coordinator.Find(ctx, fmt.Sprint("t", round))
			wants(t, err, zk.ErrNoNode)
		}
		residue(t, ctx, c, "/app")
	})
}

// Votes at one moment are decided upon by whoever sees them all, and by one alone.
func TestTwoPhaseVotesAtOnce(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		c.Network().Latency(0, 3*time.Millisecond)
		for round := range size(50, 10) {
			var sites []string
			for i := range 9 {
				sites = append(sites, fmt.Sprint("site", i))
			}
			id := fmt.Sprint(round)
			p := propose(t, ctx, recipes.NewTwoPhase(c.Member(round%3), "/2pc"), id, sites...)
			must(t, c.Quiesce(ctx))
			began := time.Now()
			done := deciding(ctx, p)
			list := make([]<-chan verdict, len(sites))
			all(t, "a vote hangs", len(sites), started(len(sites), func(i int) error {
				for own, err := range recipes.NewTwoPhase(c.Member(i%3), "/2pc").Proposals(ctx, sites[i]) {
					if err != nil {
						return err
					}
					if own.ID() == id {
						list[i] = deciding(ctx, own)
						return own.Vote(ctx, true)
					}
				}
				return errors.New("the proposals have ended")
			}))
			decided(t, true, append(list, done)...)
			if took := time.Since(began); took > time.Second {
				t.Errorf("decided after %v", took)
			}
			must(t, p.Forget(ctx))
		}
		residue(t, ctx, c, "/2pc")
	})
}

// Nobody waits for who does not vote: whoever takes part decides when the time is over (2PC-L1, PEER-69).
func TestTwoPhaseDeadline(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		at := follower(t, ctx, c)
		gone := (leader(t, ctx, c) + 2) % 3
		there := recipes.NewTwoPhase(c.Member(at), "/2pc")
		there.Timeout = 20 * time.Second
		coordinator := recipes.NewTwoPhase(c.Member(gone), "/2pc")
		propose(t, ctx, coordinator, "t", "a", "b")
		began := time.Now()
		own := asked(t, ctx, there, "a", 1)[0]
		must(t, own.Vote(ctx, true))
		list := []<-chan verdict{deciding(ctx, own), deciding(ctx, own)}
		must(t, c.Crash(gone)) // it would have decided, where sites only wait
		for _, ch := range list {
			v := soon(t, "it waits for the coordinator", ch)
			if took := v.at.Sub(began); v.err != nil || v.commit || took < 19*time.Second || took > 22*time.Second {
				t.Errorf("%v, %v after %v", v.commit, v.err, took)
			}
		}
		must(t, c.Restart(ctx, gone))
		late := asked(t, ctx, recipes.NewTwoPhase(c.Member(gone), "/2pc"), "b", 1)[0]
		wants(t, late.Vote(ctx, true), recipes.ErrDecided)
		decided(t, false, deciding(ctx, late))
		// All have voted, and who was to write the decision died before it could.
		p := propose(t, ctx, there, "u", "a", "b")
		s := session(t, ctx, c.Member(at))
		for _, site := range []string{"a", "b"} {
			_, err := s.Set(ctx, "/2pc/u/"+site, []byte("commit"), 0)
			must(t, err)
		}
		began = time.Now()
		decided(t, true, deciding(ctx, p))
		if took := time.Since(began); took > time.Second {
			t.Errorf("decided after %v", took)
		}
		// And again, but they came after those who wait have looked.
		p = propose(t, ctx, there, "v", "a", "b")
		ch := deciding(ctx, p)
		synctest.Wait()
		for _, site := range []string{"a", "b"} {
			_, err := s.Set(ctx, "/2pc/v/"+site, []byte("commit"), 0)
			must(t, err)
		}
		decided(t, true, ch)
		for _, id := range []string{"t", "u", "v"} {
			p, err := there.Find(ctx, id)
			must(t, err)
			must(t, p.Forget(ctx))
		}
		residue(t, ctx, c, "/2pc")
	})
}

// Sites come and go: alive says which, and a site that comes back is told of everything again.
func TestTwoPhaseSites(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		p := propose(t, ctx, recipes.NewTwoPhase(c.Member(0), "/2pc"), "t", "b", "a", "c")
		show := func() (s string) {
			must(t, c.Quiesce(ctx))
			list, err := p.Sites(ctx)
			must(t, err)
			for _, site := range list {
				s += fmt.Sprintf("%s %v %v %v;", site.Name, site.Voted, site.Vote, site.Alive)
			}
			return s
		}
		if s := show(); s != "a false false false;b false false false;c false false false;" {
			t.Error(s)
		}
		m := c.Member(1)
		s := session(t, ctx, m)
		own := asked(t, ctx, recipes.NewTwoPhase(s, "/2pc"), "a", 1)[0]
		must(t, own.Vote(ctx, true))
		if s := show(); s != "a true true true;b false false false;c false false false;" {
			t.Error(s)
		}
		wants(t, p.Vote(ctx, true), zk.ErrBadArguments) // it is nobody's
		wants(t, p.Forget(ctx), recipes.ErrUndecided)
		must(t, s.Close())
		if s := show(); s != "a true true false;b false false false;c false false false;" { // the vote stays
			t.Error(s)
		}
		wants(t, own.Vote(ctx, true), zk.ErrClosed)

		// On a Member it goes on with the next session, and says again that it is there, but not what was told.
		some, stop := context.WithCancel(ctx)
		next, end := iter.Pull2(recipes.NewTwoPhase(m, "/2pc").Proposals(some, "a"))
		own, err, _ := next()
		must(t, err)
		must(t, own.Vote(ctx, true))
		wants(t, own.Vote(ctx, false), recipes.ErrVoted)
		shared, err := m.Session(ctx)
		must(t, err)
		ch := make(chan *recipes.Proposal, 1)
		go func() {
			p, _, _ := next()
			ch <- p
		}()
		must(t, c.Expire(ctx, shared))
		eventually(t, "it is not there again", func() bool { return strings.HasPrefix(show(), "a true true true;") })
		second := propose(t, ctx, recipes.NewTwoPhase(c.Member(2), "/2pc"), "another", "x", "a")
		if p := soon(t, "not told", ch); p == nil || p.ID() != "another" {
			t.Fatalf("%v", p)
		}
		stop()
		if _, err, ok := next(); !ok || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		end()
		for _, p := range []*recipes.Proposal{p, second} {
			x := asked(t, ctx, recipes.NewTwoPhase(c.Member(2), "/2pc"), map[string]string{"t": "b", "another": "x"}[p.ID()], 1)[0]
			must(t, x.Vote(ctx, false))
			must(t, p.Forget(ctx))
		}
		// The same id again is another proposal, of which nothing is left.
		p2 := propose(t, ctx, recipes.NewTwoPhase(c.Member(0), "/2pc"), "t", "a")
		must(t, c.Quiesce(ctx))
		wants(t, own.Vote(ctx, true), recipes.ErrBroken)
		_, err = own.Decision(ctx)
		wants(t, err, recipes.ErrBroken)
		must(t, p.Forget(ctx)) // the first one is gone: nothing of the second is touched
		x := asked(t, ctx, recipes.NewTwoPhase(m, "/2pc"), "a", 1)[0]
		must(t, x.Vote(ctx, true))
		decided(t, true, deciding(ctx, p2))
		must(t, p2.Forget(ctx))
		residue(t, ctx, c, "/2pc")
	})
}

// What goes wrong while somebody waits, or votes: the table of docs/spec/recipes.md.
func TestTwoPhaseReactions(t *testing.T) {
	for _, r := range []struct {
		event string
		fn    func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(commit bool))
	}{
		{"session expires", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			must(t, own.Vote(ctx, true))
			s, err := m.Session(ctx)
			must(t, err)
			ch := deciding(ctx, own)
			synctest.Wait()
			must(t, c.Expire(ctx, s))
			still(t, "decided", ch)
			others(true)
			decided(t, true, ch) // the vote has stayed
		}},
		{"leader changes", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			ch := deciding(ctx, own)
			must(t, m.TransferLeadership(ctx, ""))
			must(t, own.Vote(ctx, true))
			must(t, m.TransferLeadership(ctx, ""))
			others(true)
			decided(t, true, ch)
		}},
		{"answer lost", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			for i := range c.Len() {
				c.DropForwards(i, 1) // PEER-04
			}
			must(t, own.Vote(ctx, true))
			others(true)
			decided(t, true, deciding(ctx, own))
		}},
		{"ctx ends", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			some, cancel := context.WithCancelCause(ctx)
			ch := deciding(some, own)
			synctest.Wait()
			began := time.Now()
			cancel(zk.ErrNotMember)
			v := soon(t, "it waits", ch)
			wants(t, v.err, context.Canceled, zk.ErrNotMember) // PEER-10, PEER-17
			if v.at != began || v.commit {
				t.Errorf("%v later: %v", v.at.Sub(began), v.commit)
			}
			wants(t, own.Vote(some, true), context.Canceled)
			must(t, own.Vote(ctx, true))
			others(false)
			decided(t, false, deciding(ctx, own))
		}},
		{"cut off while it votes", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			c.Isolate(follower(t, ctx, c))
			some, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err := own.Vote(some, true)
			wants(t, err, context.DeadlineExceeded)
			if !zk.MaybeApplied(err) {
				t.Errorf("%v: it may stand", err)
			}
			c.Heal()
			must(t, own.Vote(ctx, true)) // whether it did or not
			others(true)
			decided(t, true, deciding(ctx, own))
		}},
		{"decided while cut off", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			c.Isolate(follower(t, ctx, c))
			synctest.Wait()
			ch := started(1, func(int) error { return own.Vote(ctx, true) }) // it knows of no decision, and of no vote
			synctest.Wait()
			others(false)
			c.Heal()
			wants(t, soon(t, "it votes on", ch), recipes.ErrDecided)
			decided(t, false, deciding(ctx, own))
		}},
		{"another's vote deleted while cut off", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			others(true)
			must(t, c.Quiesce(ctx))
			i := follower(t, ctx, c)
			s := session(t, ctx, c.Member((i+1)%3))
			c.Isolate(i)
			ch := started(1, func(int) error { return own.Vote(ctx, true) }) // the last one, as far as it knows
			synctest.Wait()
			must(t, s.DeleteTree(ctx, "/2pc/t/b"))
			c.Heal()
			must(t, soon(t, "it votes on", ch))
			decided(t, false, deciding(ctx, own)) // 2PC-S1
		}},
		{"no quorum at the deadline", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			must(t, own.Vote(ctx, true))
			ch := deciding(ctx, own)
			synctest.Wait()
			c.Partition([]int{0}, []int{1}, []int{2})
			time.Sleep(3 * time.Minute)
			still(t, "decided", ch)
			c.Heal()
			decided(t, false, ch)
		}},
		{"process dies", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			i := follower(t, ctx, c)
			must(t, own.Vote(ctx, true))
			must(t, c.Crash(i))
			others(true)
			must(t, c.Restart(ctx, i))
			again := asked(t, ctx, recipes.NewTwoPhase(c.Member(i), "/2pc"), "a", 1)[0]
			must(t, again.Vote(ctx, true))
			wants(t, again.Vote(ctx, false), recipes.ErrVoted) // 2PC-S2
			decided(t, true, deciding(ctx, again))
		}},
		{"decision deleted", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			ch := deciding(ctx, own)
			s := session(t, ctx, m)
			must(t, s.Delete(ctx, "/2pc/t/decision", zk.AnyVersion))
			wants(t, soon(t, "it waits", ch).err, recipes.ErrBroken)
			wants(t, own.Vote(ctx, true), recipes.ErrBroken)
			_, err := s.Create(ctx, "/2pc/t/decision", []byte("3"), zk.Persistent) // that is another one
			must(t, err)
			wants(t, own.Vote(ctx, true), recipes.ErrBroken)
			_, err = own.Decision(ctx)
			wants(t, err, recipes.ErrBroken)
		}},
		{"vote deleted", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			must(t, own.Vote(ctx, true))
			s := session(t, ctx, m)
			must(t, s.DeleteTree(ctx, "/2pc/t/a"))
			_, err := s.Create(ctx, "/2pc/t/a", []byte("commit"), zk.Persistent) // another one counts for nothing
			must(t, err)
			_, err = s.Set(ctx, "/2pc/t/a", []byte("commit"), 0)
			must(t, err)
			wants(t, own.Vote(ctx, true), recipes.ErrBroken)
			others(true)
			began := time.Now()
			decided(t, false, deciding(ctx, own)) // at the deadline: not all have voted (2PC-S1)
			if time.Since(began) < 30*time.Second {
				t.Error("before the deadline")
			}
		}},
		{"bad bytes", func(t *testing.T, ctx context.Context, c *zktest.Cluster, m *zk.Member, own *recipes.Proposal, others func(bool)) {
			s := session(t, ctx, m)
			st, err := s.Set(ctx, "/2pc/t/b", []byte("perhaps"), 0)
			must(t, err)
			_, err = s.Create(ctx, "/2pc/t/foreign", []byte("commit"), zk.Persistent)
			must(t, err)
			list, err := own.Sites(ctx)
			must(t, err)
			decode, ok := errors.AsType[*recipes.DecodeError](list[1].Err)
			if len(list) != 3 || !ok || decode.Path != "/2pc/t/b" || decode.Zxid != st.Mzxid || list[0].Err != nil || !list[0].Alive {
				t.Errorf("%+v", list)
			}
			decided(t, false, deciding(ctx, own)) // it counts as a vote against
			d, _, err := s.Get(ctx, "/2pc/t/decision")
			must(t, err)
			st, err = s.Set(ctx, "/2pc/t/decision", []byte("who knows"), zk.AnyVersion)
			must(t, err)
			_, err = own.Decision(ctx)
			if decode, ok := errors.AsType[*recipes.DecodeError](err); !ok || decode.Path != "/2pc/t/decision" || decode.Zxid != st.Mzxid {
				t.Errorf("%v, was %q", err, d)
			}
		}},
	} {
		t.Run(r.event, func(t *testing.T) {
			bubble(t, 3, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
				i := follower(t, ctx, c)
				m := c.Member(i)
				p := propose(t, ctx, recipes.NewTwoPhase(c.Member(leader(t, ctx, c)), "/2pc"), "t", "a", "b", "c")
				own := asked(t, ctx, recipes.NewTwoPhase(m, "/2pc"), "a", 1)[0]
				r.fn(t, ctx, c, m, own, func(commit bool) {
					t.Helper()
					for j, site := range []string{"b", "c"} {
						other := asked(t, ctx, recipes.NewTwoPhase(c.Member((i+1+j)%3), "/2pc"), site, 1)[0]
						if err := other.Vote(ctx, commit); !errors.Is(err, recipes.ErrDecided) || commit {
							must(t, err)
						}
					}
				})
				c.Heal()
				must(t, p.Forget(ctx))
				residue(t, ctx, c, "/2pc")
			})
		})
	}
}

// leaderDiesAfterCommit kills the leader after it has committed what call writes on member 0, before it has answered.
func leaderDiesAfterCommit(t *testing.T, ctx context.Context, c *zktest.Cluster, what string, call func() error) {
	t.Helper()
	if leader(t, ctx, c) == 0 {
		must(t, c.Member(0).TransferLeadership(ctx, ""))
	}
	s, err := c.Member(0).Session(ctx)
	must(t, err)
	_, err = s.Txn(ctx) // by the stream that is to be cut
	must(t, err)
	must(t, c.Quiesce(ctx))
	synctest.Wait() // until that has its answer
	lead := leader(t, ctx, c)
	z := c.Member(3 - lead).Applied()
	c.Network().Cut(zktest.Name(lead), zktest.Name(0))
	done := started(1, func(int) error { return call() })
	eventually(t, what+" was not committed", func() bool { return c.Member(3-lead).Applied() > z })
	must(t, c.Crash(lead))
	c.Heal()
	if err := soon(t, what+": no answer", done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	must(t, c.Restart(ctx, lead))
	must(t, c.Member(lead).Ready(ctx))
	must(t, c.Quiesce(ctx))
}

// Each write takes effect once, whoever dies between commit and answer (PEER-04, PEER-05, E1).
func TestTwoPhaseLeaderDiesAfterCommit(t *testing.T) {
	bubble(t, 3, zktest.Config{Base: zk.Config{SessionTimeout: 30 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		tp := recipes.NewTwoPhase(c.Member(0), "/2pc")
		var p *recipes.Proposal
		var own []*recipes.Proposal
		leaderDiesAfterCommit(t, ctx, c, "propose", func() (err error) {
			p, err = tp.Propose(ctx, "t", nil, "a", "b")
			return err
		})
		for _, site := range []string{"a", "b"} {
			leaderDiesAfterCommit(t, ctx, c, "be asked", func() error {
				for p, err := range tp.Proposals(ctx, site) {
					own = append(own, p)
					return err
				}
				return nil
			})
		}
		for _, p := range own {
			leaderDiesAfterCommit(t, ctx, c, "vote", func() error { return p.Vote(ctx, true) })
		}
		decided(t, true, deciding(ctx, p))
		for _, z := range below(t, ctx, c.Member(0), "/2pc") {
			st, _, err := session(t, ctx, c.Member(0)).Exists(ctx, z)
			if base := strings.Count(z, "/"); err != nil || base == 3 && st.Version != 1 || base != 3 && st.Version != 0 {
				t.Errorf("%s: %+v, %v", z, st, err)
			}
		}
		leaderDiesAfterCommit(t, ctx, c, "forget", func() error { return p.Forget(ctx) })
		residue(t, ctx, c, "/2pc")
	})
}

// A restore takes back what came after the backup, for who waits too; it is then decided anew.
func TestTwoPhaseRestored(t *testing.T) {
	restoring(t, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster, backup, restore func()) {
		p := propose(t, ctx, recipes.NewTwoPhase(c.Member(0), "/2pc"), "t", "a", "b")
		a := asked(t, ctx, recipes.NewTwoPhase(c.Member(1), "/2pc"), "a", 1)[0]
		must(t, a.Vote(ctx, true))
		backup()
		later := propose(t, ctx, recipes.NewTwoPhase(c.Member(2), "/2pc"), "later", "b")
		list := []<-chan verdict{deciding(ctx, p), deciding(ctx, a)}
		gone := deciding(ctx, later)
		synctest.Wait()
		restore()
		wants(t, soon(t, "it waits for what is gone", gone).err, recipes.ErrBroken)
		b := asked(t, ctx, recipes.NewTwoPhase(c.Member(2), "/2pc"), "b", 1)[0]
		must(t, b.Vote(ctx, true))
		decided(t, true, list...)
		must(t, p.Forget(ctx))
		residue(t, ctx, c, "/2pc")
	})
}

// What it costs is what its comment says.
func TestTwoPhaseCost(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		tp := recipes.NewTwoPhase(session(t, ctx, m), "/2pc")
		costs := func(what string, entries, watches int64, fn func()) {
			t.Helper()
			must(t, c.Quiesce(ctx))
			before, z := m.Stats(), m.Applied()
			fn()
			synctest.Wait()
			after := m.Stats()
			if e, l, w := int64(m.Applied()-z), after.LinearReads-before.LinearReads, after.Watches-before.Watches; e != entries || l != 0 || w != watches {
				t.Errorf("%s: %d log entries, %d rounds and %d watches, want %d, 0 and %d", what, e, l, w, entries, watches)
			}
		}
		var sites []string
		n := size(500, 100) // at most 500 are allowed
		for i := range n {
			sites = append(sites, fmt.Sprint("s", i))
		}
		var p *recipes.Proposal
		var own []*recipes.Proposal
		var list []<-chan verdict
		costs("propose", 1, 0, func() { p = propose(t, ctx, tp, "t", sites...) })
		some, stop := context.WithCancel(ctx)
		for _, site := range sites[:2] {
			next, end := iter.Pull2(tp.Proposals(some, site))
			defer end()
			costs("be asked", 1, 2, func() { // one watch, for data and for children, for as long as it goes on
				got, err, _ := next()
				must(t, err)
				own = append(own, got)
			})
		}
		for _, site := range sites[2:] {
			own = append(own, asked(t, ctx, tp, site, 1)...)
		}
		costs("wait", 0, int64(n+1), func() {
			for _, p := range append(own, p) {
				list = append(list, deciding(ctx, p))
			}
			synctest.Wait()
		})
		for _, p := range own[1:] {
			costs("vote", 1, 0, func() { must(t, p.Vote(ctx, true)) })
		}
		costs("the last vote, and the decision", 1, -int64(n+1), func() {
			must(t, own[0].Vote(ctx, true))
			decided(t, true, list...)
		})
		costs("know the decision", 0, 0, func() { decided(t, true, deciding(ctx, p)) })
		costs("vote again", 0, 0, func() { must(t, own[0].Vote(ctx, true)) })
		stop()
		synctest.Wait()
		costs("forget", 1, 0, func() { must(t, p.Forget(ctx)) })
		p = propose(t, ctx, tp, "u", sites...)
		own = asked(t, ctx, tp, "s7", 1)
		costs("a vote against", 1, 0, func() { must(t, own[0].Vote(ctx, false)) })
		costs("be told of what is decided", 0, 0, func() { asked(t, ctx, tp, "s8", 1) })
		must(t, p.Forget(ctx))
		residue(t, ctx, c, "/2pc")
	})
}

// Whatever goes wrong, all who learn of a decision learn the same, and it is true to the votes (2PC-S1, 2PC-S2).
func TestTwoPhaseFaults(t *testing.T) {
	for seed := range uint64(size(40, 6)) {
		bubble(t, 3, zktest.Config{Seed: seed, Base: zk.Config{SessionTimeout: 3 * time.Second}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
			c.Network().Latency(0, 5*time.Millisecond)
			r := rand.New(rand.NewPCG(seed, 7))
			sites := []string{"a", "b", "c", "d", "e"}
			two := func(i int) *recipes.TwoPhase {
				x := recipes.NewTwoPhase(c.Member(i), "/2pc")
				x.Timeout = 8 * time.Second
				return x
			}
			for round := range 8 {
				id := fmt.Sprint(round)
				p := propose(t, ctx, two(0), id, sites...)
				var mu sync.Mutex
				known, votes := map[bool]int{}, map[bool]int{}
				learn := func(commit bool, err error) {
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					known[commit]++
				}
				var work sync.WaitGroup
				for i, site := range sites {
					random := rand.New(rand.NewPCG(seed, uint64(100*round+i)))
					against := random.IntN(10) == 0
					work.Go(func() {
						for own, err := range two(i%3).Proposals(ctx, site) {
							if err != nil {
								t.Error(err)
								return
							}
							if own.ID() != id {
								continue
							}
							time.Sleep(time.Duration(random.IntN(9000)) * time.Millisecond)
							some, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(6000))*time.Millisecond)
							err := own.Vote(some, !against)
							cancel()
							mu.Lock()
							if votes[!against]++; err != nil && !zk.MaybeApplied(err) {
								votes[!against]--
							}
							mu.Unlock()
							learn(own.Decision(ctx))
							return
						}
					})
				}
				work.Go(func() { learn(p.Decision(ctx)) })
				for range 3 {
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
					i := r.IntN(3)
					switch r.IntN(4) {
					case 0:
						c.Isolate(i)
					case 1:
						c.DropForwards(i, 1+r.IntN(3))
					case 2:
						c.Network().Reset(zktest.Name(i), zktest.Name((i+1)%3))
					case 3:
						c.Member(i).TransferLeadership(t.Context(), "")
					}
					time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
					c.Heal()
				}
				work.Wait()
				if len(known) != 1 || known[true] > 0 && votes[true] < len(sites) {
					t.Errorf("seed %d, round %d: told %v, votes %v", seed, round, known, votes)
				}
				for err := p.Forget(ctx); err != nil; err = p.Forget(ctx) {
					wants(t, err, zk.ErrSessionExpired) // that of the member has, and it opens another one
				}
			}
			residue(t, ctx, c, "/2pc")
		})
	}
}

func TestTwoPhaseArguments(t *testing.T) {
	bubble(t, 1, zktest.Config{Base: zk.Config{MaxTxnOps: 20}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		tp := recipes.NewTwoPhase(s, "/2pc")
		for _, bad := range []*recipes.TwoPhase{{Path: "/2pc"}, {Session: s, Path: "2pc"}, {Session: s, Path: "/2pc", Timeout: -1}} {
			_, err := bad.Propose(ctx, "t", nil, "a")
			wants(t, err, zk.ErrBadArguments)
			_, err = bad.Find(ctx, "t")
			wants(t, err, zk.ErrBadArguments)
			for _, err := range bad.Proposals(ctx, "a") {
				wants(t, err, zk.ErrBadArguments)
			}
		}
		for _, bad := range []string{"", ".", "..", "a/b", "decision", "\x00"} {
			_, err := tp.Propose(ctx, bad, nil, "a")
			wants(t, err, zk.ErrBadArguments)
			_, err = tp.Propose(ctx, "t", nil, "a", bad)
			wants(t, err, zk.ErrBadArguments)
			_, err = tp.Find(ctx, bad)
			wants(t, err, zk.ErrBadArguments)
			for _, err := range tp.Proposals(ctx, bad) {
				wants(t, err, zk.ErrBadArguments)
			}
		}
		_, err := tp.Propose(ctx, "t", nil)
		wants(t, err, zk.ErrBadArguments)
		_, err = tp.Propose(ctx, "t", nil, "a", "b", "a")
		wants(t, err, zk.ErrBadArguments)
		_, err = tp.Propose(ctx, "t", nil, strings.Fields(strings.Repeat("x ", 501))...)
		wants(t, err, zk.ErrBadArguments)
		_, err = tp.Propose(nil, "t", nil, "a")
		wants(t, err, zk.ErrBadArguments)
		// What could not be decided is not proposed: a decision has two steps for each site, and three.
		_, err = tp.Propose(ctx, "t", nil, strings.Split("abcdefghij", "")...)
		wants(t, err, zk.ErrTooLarge)
		if _, ok, _ := s.Exists(ctx, "/2pc"); ok {
			t.Error("something was written")
		}
		p := propose(t, ctx, tp, "t", strings.Split("abcdefgh", "")...)
		_, err = tp.Propose(ctx, "t", nil, "a")
		wants(t, err, zk.ErrNodeExists)
		_, err = p.Decision(nil)
		wants(t, err, zk.ErrBadArguments)
		wants(t, p.Vote(nil, true), zk.ErrBadArguments)
		wants(t, p.Forget(nil), zk.ErrBadArguments)
		_, err = p.Sites(nil)
		wants(t, err, zk.ErrBadArguments)
		for _, site := range strings.Split("abcdefgh", "") {
			must(t, asked(t, ctx, tp, site, 1)[0].Vote(ctx, true))
		}
		decided(t, true, deciding(ctx, p))
		if d := p.Deadline(); time.Until(d) < 50*time.Second || time.Until(d) > time.Minute {
			t.Errorf("the deadline is in %v", time.Until(d))
		}
	})
}
