// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// TwoPhase lets several sites agree to do something all together, or not at all: a proposal is committed if every site has
// voted for it in time, and aborted otherwise. It is the two-phased commit of ZooKeeper's recipes page, and does not wait for
// a coordinator that has crashed: whoever takes part can write the decision.
//
// Layout, all persistent but for alive: PATH/ID with the request; PATH/ID/SITE with the vote, empty before and then "commit"
// or "abort"; PATH/ID/decision in the same manner, but for the number of sites that is there before; and PATH/ID/SITE/alive,
// ephemeral, as long as the site's session lives. What Propose creates has one zxid; anything else in its place is not taken for
// it. Whoever speaks ZooKeeper's protocol can vote by setting version 0 of the site's znode.
//
// Cost: Propose is one write, and so is Forget. For each site there is one write to say that it is there, and one for its vote; the last
// vote, and one against, carry the decision with them. One more write decides where the last votes came at one moment, and
// one for each party that still waits when the time for the votes is over. Waiting is one local watch, of decision alone, and
// no message; the decision wakes everybody once. Proposals has one local watch, which zk.Stats counts as two (WT-39), and reads
// the names under PATH again, locally, for each new proposal: Forget those that are done with.
//
// Who has voted to commit is bound by it until it knows the decision, whatever else fails: keep on disk what is needed to
// carry it out, and ask Proposals again after a restart. A decision tells that all have promised, not that they have done it.
// A restore from a backup takes back decisions that came after it.
type TwoPhase struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Timeout time.Duration // for the votes, by the ensemble's time since Propose; 0 means a minute. All users give the same
}

// NewTwoPhase returns a two-phased commit for proposals under path.
func NewTwoPhase(s zk.SessionSource, path string) *TwoPhase { return &TwoPhase{Session: s, Path: path} }

var (
	// ErrDecided means that a vote came too late: the proposal was decided without it. Decision tells how.
	ErrDecided = errors.New("recipes: decided already")

	// ErrVoted means that the site has voted otherwise; a vote is never changed.
	ErrVoted = errors.New("recipes: voted otherwise")

	// ErrUndecided means that a proposal cannot be forgotten, because it was not decided yet.
	ErrUndecided = errors.New("recipes: not decided yet")
)

const (
	decisionName = "decision"
	aliveName    = "alive"
	commitVote   = "commit"
	abortVote    = "abort"
	votesTime    = time.Minute
	mostSites    = 500 // a decision is one transaction, with two guards for each of them
)

var errVote = errors.New("neither commit nor abort")

// Proposal is one thing to agree on. All its methods are safe for concurrent use, and none needs the session on which
// it was found.
type Proposal struct {
	noCopy noCopy

	of      *TwoPhase
	id      string
	path    string
	site    string // "": of whoever only looks on
	token   zk.Token
	request string
	made    time.Time // by the ensemble's time
}

// Site is what is known of one participant of a Proposal.
type Site struct {
	Name  string
	Voted bool
	Vote  bool  // to commit
	Alive bool  // the session on which it has found the proposal still lives
	Err   error // a *DecodeError: what it has voted cannot be read, and counts as a vote against
}

// find is the first step of every call.
func (t *TwoPhase) find(ctx context.Context, op string) (*zk.Session, error) {
	s, err := session(ctx, t.Session, op, t.Path)
	if err == nil && t.Timeout < 0 {
		err = badArgument(op, t.Path, "a negative timeout")
	}
	return s, err
}

// named checks a part of a path.
func (t *TwoPhase) named(op, name string) error {
	if name == "" || name == decisionName || strings.Contains(name, "/") {
		return badArgument(op, t.Path, fmt.Sprintf("%q is no name for a proposal or a site", name))
	}
	return zk.ValidPath(join(t.Path, name))
}

// Propose puts a request to sites, at least one and at most 500, under an id that is new under Path. Errors:
// zk.ErrNodeExists where there is such a proposal already, which Find finds; and those of every write. Only if zk.MaybeApplied
// says so may a failed call have proposed something.
func (t *TwoPhase) Propose(ctx context.Context, id string, request []byte, sites ...string) (*Proposal, error) {
	s, err := t.find(ctx, "propose")
	if err != nil {
		return nil, err
	}
	if len(sites) == 0 || len(sites) > mostSites {
		return nil, badArgument("propose", t.Path, "not one to 500 sites")
	}
	if err := t.named("propose", id); err != nil {
		return nil, err
	}
	path := join(t.Path, id)
	steps := []zk.Op{zk.OpCreate(path, request, zk.Persistent|zk.Parents), zk.OpCreate(join(path, decisionName), strconv.AppendInt(nil, int64(len(sites)), 10), zk.Persistent)}
	// Checks are for their own sake: with as many steps as a decision has what cannot be decided cannot be proposed.
	steps = append(steps, zk.OpCheck(join(path, decisionName), 0))
	for i, site := range sites {
		if err := t.named("propose", site); err != nil {
			return nil, err
		}
		if slices.Contains(sites[:i], site) {
			return nil, badArgument("propose", t.Path, fmt.Sprintf("%q is named twice", site))
		}
		steps = append(steps, zk.OpCreate(join(path, site), []byte{}, zk.Persistent), zk.OpCheck(join(path, site), 0))
	}
	results, err := s.Txn(ctx, steps...)
	if err != nil {
		return nil, err
	}
	return t.proposal(id, "", zk.Znode{Path: path, Data: string(request), Stat: results[0].Stat}), nil
}

func (t *TwoPhase) proposal(id, site string, z zk.Znode) *Proposal {
	return &Proposal{of: t, id: id, path: z.Path, site: site, token: zk.Token(z.Stat.Czxid), request: z.Data, made: z.Stat.Ctime}
}

// Find returns a proposal for whoever only looks on: a coordinator that was restarted, say. The error is zk.ErrNoNode
// where there is none.
func (t *TwoPhase) Find(ctx context.Context, id string) (*Proposal, error) {
	s, err := t.find(ctx, "find proposal")
	if err == nil {
		err = t.named("find proposal", id)
	}
	if err != nil {
		return nil, err
	}
	z := zk.Znode{Path: join(t.Path, id)}
	if z.Data, z.Stat, err = s.GetString(ctx, z.Path, zk.Linearizable); err != nil {
		return nil, explain(ctx, err)
	}
	return t.proposal(id, "", z), nil
}

// Proposals yields every proposal that names the site, each once, in the order in which they were made: first those that are
// there, decided ones too, because this site may have stopped before it could carry them out; then each new one. Before one is
// yielded that is not decided the site's alive is there. It ends with ctx, and with an error of reading or writing; with the
// session only if that is a *zk.Session: a *zk.Member opens another one.
func (t *TwoPhase) Proposals(ctx context.Context, site string) iter.Seq2[*Proposal, error] {
	return func(yield func(*Proposal, error) bool) {
		_, err := t.find(ctx, "proposals")
		if err == nil {
			err = t.named("proposals", site)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		told, stopped := map[string]zk.Token{}, false
		err = eachSession(ctx, t.Session, "proposals", t.Path, func(s *zk.Session) error {
			known := map[string]zk.Token{} // on this session
			for _, err := range s.WatchChildren(ctx, t.Path) {
				if err != nil {
					return err
				}
				list, err := t.list(ctx, s, site, known)
				if err != nil {
					return err
				}
				for _, p := range list {
					if err := p.attend(ctx, s); err != nil {
						return err
					}
					if known[p.id] = p.token; told[p.id] == p.token {
						continue
					}
					told[p.id] = p.token
					if stopped = !yield(p, nil); stopped {
						return nil
					}
				}
				for id := range told {
					if known[id] == 0 {
						delete(told, id)
					}
				}
			}
			return nil
		})
		if !stopped {
			yield(nil, err)
		}
	}
}

// list lists the proposals that name the site and are not known, and forgets those that are gone.
func (t *TwoPhase) list(ctx context.Context, s *zk.Session, site string, known map[string]zk.Token) (list []*Proposal, err error) {
	there := map[string]bool{}
	err = s.View(ctx, func(v *zk.View) error {
		for id, err := range v.Children(t.Path) {
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			if err != nil {
				return err
			}
			z, err := v.Get(join(t.Path, id))
			if err == nil {
				if there[id] = true; known[id] == zk.Token(z.Stat.Czxid) {
					continue
				}
				var own zk.Znode
				own, err = v.Get(join(z.Path, site))
				if err == nil && own.Stat.Czxid == z.Stat.Czxid {
					list = append(list, t.proposal(id, site, z))
				}
			}
			if err != nil && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrNoAuth) {
				return err
			}
		}
		return nil
	})
	for id := range known {
		if !there[id] {
			delete(known, id)
		}
	}
	slices.SortFunc(list, func(a, b *Proposal) int { return cmp.Compare(a.token, b.token) })
	return list, err
}

// attend says that the site is there, on this session, unless all is decided or gone. What an earlier session has left is
// replaced, because it will go.
func (p *Proposal) attend(ctx context.Context, s *zk.Session) error {
	alive := join(p.at(p.site), aliveName)
	for {
		z, err := peek(ctx, s, alive)
		if err != nil || z.Stat.EphemeralOwner == s.ID() {
			return err
		}
		steps := []zk.Op{zk.OpCheckCreated(p.at(p.site), p.token), zk.OpCheckCreated(p.at(decisionName), p.token), zk.OpCheck(p.at(decisionName), 0)}
		if d, err := peek(ctx, s, p.at(decisionName)); err != nil || d.Stat.Version > 0 {
			return err
		}
		needed := len(steps)
		if z.Stat.Czxid != 0 {
			steps = append(steps, zk.OpCheckCreated(alive, zk.Token(z.Stat.Czxid)), zk.OpDelete(alive, zk.AnyVersion))
		}
		_, err = s.Txn(ctx, append(steps, zk.OpCreate(alive, []byte{}, zk.Ephemeral))...)
		if txn, ok := errors.AsType[*zk.TxnError](err); ok && txn.Index < needed {
			return nil
		}
		if !conflicting(err) {
			return err
		}
	}
}

func (p *Proposal) at(name string) string { return join(p.path, name) }

// ID returns the proposal's id.
func (p *Proposal) ID() string { return p.id }

// Request returns a copy of what is proposed.
func (p *Proposal) Request() []byte { return []byte(p.request) }

// Deadline returns when the time for the votes is over, by the ensemble's time: see zk.Session.Now.
func (p *Proposal) Deadline() time.Time {
	d := p.of.Timeout
	if d == 0 {
		d = votesTime
	}
	return p.made.Add(d)
}

// poll is what the tree knows of a proposal at one moment.
type poll struct {
	decision zk.Znode
	sites    []Site
	guards   []zk.Op // make a transaction fail if a vote is not what it is here
	expected int     // sites, if nothing is decided
}

// read reads the poll. It is ErrBroken where the decision's znode is gone, and with it all else.
func (p *Proposal) read(ctx context.Context, s *zk.Session, opt ...zk.ReadOption) (l poll, err error) {
	err = s.View(ctx, func(v *zk.View) error {
		l.decision, err = v.Get(p.at(decisionName))
		if errors.Is(err, zk.ErrNoNode) || err == nil && zk.Token(l.decision.Stat.Czxid) != p.token {
			return ErrBroken
		}
		if err != nil {
			return err
		}
		if l.decision.Stat.Version == 0 {
			if l.expected, err = strconv.Atoi(l.decision.Data); err != nil {
				return &DecodeError{l.decision.Path, l.decision.Stat.Mzxid, err}
			}
		}
		for name, err := range v.Children(p.path) {
			if err != nil {
				return err
			}
			z, err := v.Get(p.at(name))
			if err != nil && !errors.Is(err, zk.ErrNoAuth) {
				return err
			}
			if name == decisionName || zk.Token(z.Stat.Czxid) != p.token { // the latter is not of the proposal
				continue
			}
			site := Site{Name: name}
			site.Voted, site.Vote, site.Err = ballot(z)
			alive, err := v.Get(join(z.Path, aliveName))
			site.Alive = err == nil && alive.Stat.EphemeralOwner != 0
			l.sites = append(l.sites, site)
			l.guards = append(l.guards, zk.OpCheckCreated(z.Path, p.token), zk.OpCheck(z.Path, z.Stat.Version))
		}
		return nil
	}, opt...)
	return l, err
}

// ballot reads a vote, or a decision.
func ballot(z zk.Znode) (voted, commit bool, err error) {
	switch {
	case z.Stat.Version == 0:
		return false, false, nil
	case z.Data == commitVote:
		return true, true, nil
	case z.Data == abortVote:
		return true, false, nil
	}
	return true, false, &DecodeError{z.Path, z.Stat.Mzxid, errVote}
}

func ballotOf(commit bool) []byte {
	if commit {
		return []byte(commitVote)
	}
	return []byte(abortVote)
}

// outcome is what follows from the votes: nothing as long as some are missing and there is time for them. Under its guards it is
// true to the votes.
func (l *poll) outcome(late bool) (known, commit bool, guards []zk.Op) {
	voted := 0
	for _, site := range l.sites {
		if site.Voted && !site.Vote {
			return true, false, nil // which no other vote can change
		}
		if site.Voted {
			voted++
		}
	}
	commit = voted == l.expected
	return commit || late, commit, l.guards
}

// undecided make a transaction fail once there is a decision.
func (p *Proposal) undecided() []zk.Op {
	return []zk.Op{zk.OpCheckCreated(p.at(decisionName), p.token), zk.OpCheck(p.at(decisionName), 0)}
}

// Vote says whether this site can do what is proposed, and will if all can. It returns nil once the vote stands, or did before:
// a vote never changes (2PC-S2). Errors: ErrVoted after a vote of the other kind; ErrDecided if it came too late; ErrBroken if
// somebody has deleted the proposal or the site's part of it; *DecodeError for a vote that cannot be read; and those of every
// write. Only if zk.MaybeApplied says so may the vote of a failed call stand: vote again to know.
func (p *Proposal) Vote(ctx context.Context, commit bool) error {
	s, err := p.of.find(ctx, "vote")
	if err == nil && p.site == "" {
		err = badArgument("vote", p.path, "it was not found by a site")
	}
	if err != nil {
		return err
	}
	for {
		l, err := p.read(ctx, s)
		if err != nil {
			return explain(ctx, err)
		}
		i := slices.IndexFunc(l.sites, func(site Site) bool { return site.Name == p.site })
		switch {
		case i < 0:
			return ErrBroken
		case l.sites[i].Err != nil:
			return l.sites[i].Err
		case l.sites[i].Voted && l.sites[i].Vote != commit:
			return ErrVoted
		case l.sites[i].Voted:
			return nil
		case l.decision.Stat.Version > 0:
			return ErrDecided
		}
		l.sites[i].Voted, l.sites[i].Vote = true, commit
		l.guards = slices.Delete(l.guards, 2*i, 2*i+2) // the write below has its own
		known, committed, guards := l.outcome(false)
		steps := p.undecided()
		if known { // it is the last vote, or decides by itself
			steps = append(steps, guards...)
		}
		steps = append(steps, zk.OpCheckCreated(p.at(p.site), p.token), zk.OpSet(p.at(p.site), ballotOf(commit), 0))
		if known {
			steps = append(steps, zk.OpSet(p.at(decisionName), ballotOf(committed), 0))
		}
		_, err = s.Txn(ctx, steps...)
		if conflicting(err) || errors.Is(err, zk.ErrNoNode) {
			continue // this member has applied what was in the way
		}
		if err == nil && !known {
			p.decide(ctx, s, false) // another may have come at the same moment; whoever waits will see to it otherwise
		}
		return err
	}
}

// decide writes the decision if one can be made, unless there is one.
func (p *Proposal) decide(ctx context.Context, s *zk.Session, late bool) error {
	for {
		l, err := p.read(ctx, s)
		if err != nil || l.decision.Stat.Version > 0 {
			return err
		}
		known, commit, guards := l.outcome(late)
		if !known {
			return nil
		}
		steps := append(p.undecided(), guards...)
		_, err = s.Txn(ctx, append(steps, zk.OpSet(p.at(decisionName), ballotOf(commit), 0))...)
		if !conflicting(err) && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
	}
}

// spread is within which time those who wait begin to decide once the deadline has passed: one of them is enough.
const spread = 100 * time.Millisecond

// Decision waits until it is decided, and tells how; it is the same for all, for ever (2PC-S1). When the time for the votes is
// over it decides itself: whatever was not voted for by all is aborted (2PC-L1). Errors: ctx's; ErrBroken if somebody has deleted
// the proposal or the decision; *DecodeError for a decision that cannot be read; those of a write; and that of the session if it
// ends, only if that is a *zk.Session.
func (p *Proposal) Decision(ctx context.Context) (committed bool, err error) {
	if _, err := p.of.find(ctx, "decision"); err != nil {
		return false, err
	}
	after := rand.N(spread)
	err = eachSession(ctx, p.of.Session, "decision", p.path, func(s *zk.Session) error {
		for first := true; ; first = false {
			left := p.Deadline().Add(after).Sub(s.Now())
			if first || left <= 0 {
				if err := p.decide(ctx, s, left <= 0); err != nil {
					return err
				}
			}
			decided, err := p.glance(ctx, s, left, &committed)
			if decided || err != nil {
				return err
			}
		}
	})
	return committed, err
}

// glance looks at the decision, and, if there is none, waits until there may be one or the time is over.
func (p *Proposal) glance(ctx context.Context, s *zk.Session, left time.Duration, committed *bool) (decided bool, err error) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	data, st, changed, err := s.GetW(watching, p.at(decisionName))
	if errors.Is(err, zk.ErrNoNode) || err == nil && zk.Token(st.Czxid) != p.token {
		return false, ErrBroken
	}
	if err != nil {
		return false, err
	}
	decided, *committed, err = ballot(zk.Znode{Path: p.at(decisionName), Data: string(data), Stat: st})
	if decided || err != nil {
		return decided, err
	}
	due := time.NewTimer(left)
	defer due.Stop()
	select {
	case <-changed:
	case <-due.C:
	case <-ctx.Done():
		return false, ended(ctx)
	}
	return false, nil
}

// Sites tells what is known of the participants, by name, as this member knows it. Whoever is not alive is not out: it may
// come back and vote as long as there is time. Errors: ErrBroken, and those of every read.
func (p *Proposal) Sites(ctx context.Context) ([]Site, error) {
	s, err := p.of.find(ctx, "sites")
	if err != nil {
		return nil, err
	}
	l, err := p.read(ctx, s)
	return l.sites, explain(ctx, err)
}

// Forget deletes a proposal that was decided, or that somebody has broken: once all sites have carried out the decision, because
// nobody can ask for it afterwards. It is nil if the proposal is gone. Errors: ErrUndecided, and those of every write.
func (p *Proposal) Forget(ctx context.Context) error {
	s, err := p.of.find(ctx, "forget proposal")
	if err != nil {
		return err
	}
	var fresh []zk.ReadOption
	for {
		l, err := p.read(ctx, s, fresh...)
		switch {
		case errors.Is(err, ErrBroken):
		case err != nil:
			return explain(ctx, err)
		case l.decision.Stat.Version == 0 && fresh == nil: // as far as this member knows
			fresh = []zk.ReadOption{zk.Linearizable}
			continue
		case l.decision.Stat.Version == 0:
			return ErrUndecided
		}
		steps := []zk.Op{zk.OpCheckCreated(p.path, p.token)}
		for z, err := range s.Walk(ctx, p.path) {
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			if err != nil {
				return explain(ctx, err)
			}
			steps = append(steps, zk.OpDelete(z.Path, zk.AnyVersion))
		}
		slices.Reverse(steps[1:])
		_, err = s.Txn(ctx, steps...)
		switch txn, ok := errors.AsType[*zk.TxnError](err); {
		case ok && txn.Index == 0:
			return nil
		case !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrNotEmpty):
			return err
		}
	}
}
