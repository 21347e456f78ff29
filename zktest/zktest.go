// SPDX-License-Identifier: Apache-2.0

package zktest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport/memnet"
)

// Config describes an ensemble. The zero value works.
type Config struct {
	// Base is the template of each member's configuration. ID, Peers, Transport, Storage and Dir are filled in.
	Base zk.Config

	// Configure, if not nil, changes the configuration of member i, which is Base with everything filled in, each time
	// before that member is opened: a clock of its own, say, or a Transport or Storage around the one that is there. It
	// is called for several members at once.
	Configure func(i int, cfg *zk.Config)

	// Seed fixes the network's random choices.
	Seed uint64

	// OnDisk is a directory below which each member keeps its files; "" keeps them in memory, where they survive
	// Crash but not Close. Real files do not go with a synctest bubble's idea of time, but work.
	OnDisk string

	// NonVoters makes the last so many members observers.
	NonVoters int
}

// Cluster is an ensemble of members named "m0", "m1", ... Its methods are safe for concurrent use, but two faults on
// one member at a time make no sense.
type Cluster struct {
	cfg Config
	net *memnet.Network

	mu    sync.Mutex
	slots []*slot
}

// slot is one member through all its incarnations.
type slot struct {
	name     string
	peers    []zk.Peer
	join     []string
	observer bool // it joined without a vote
	disk     *disk
	member   *zk.Member
	host     *host
	down     bool
	removed  bool
}

// Open opens an ensemble and returns once a leader is ready and every member has caught up.
func Open(ctx context.Context, members int, cfg Config) (*Cluster, error) {
	if members < 1 || cfg.NonVoters < 0 || cfg.NonVoters >= members {
		return nil, fmt.Errorf("zktest: %d members, %d of them without a vote", members, cfg.NonVoters)
	}
	c := &Cluster{cfg: cfg, net: memnet.New(cfg.Seed)}
	var peers []zk.Peer
	for i := range members {
		peers = append(peers, zk.Peer{ID: Name(i), Addr: Name(i), Voter: i < members-cfg.NonVoters})
	}
	for i := range members {
		c.slots = append(c.slots, &slot{name: Name(i), peers: peers, disk: newDisk(), down: true})
	}
	var all sync.WaitGroup
	errs := make([]error, members)
	for i := range members {
		all.Go(func() { errs[i] = c.Restart(ctx, i) })
	}
	all.Wait()
	err := errors.Join(errs...)
	for i := 0; i < members && err == nil; i++ {
		err = c.Member(i).Ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Name returns the id, and address, of member i.
func Name(i int) string { return fmt.Sprintf("m%d", i) }

// Len returns the number of members.
func (c *Cluster) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.slots)
}

// Member returns member i, its last incarnation if it is down.
func (c *Cluster) Member(i int) *zk.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[i].member
}

// Network returns the network, for faults beyond those here. Hosts are called as members are.
func (c *Cluster) Network() *memnet.Network { return c.net }

// Up reports whether member i runs: it was neither crashed nor has it stopped by itself.
func (c *Cluster) Up(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[i]
	if s.down {
		return false
	}
	select {
	case <-s.member.Done():
		return false
	default:
		return true
	}
}

// Leader returns the member that leads, once there is one that most members agree on.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	for {
		votes := map[string]int{}
		up := 0
		n := c.Len()
		for i := range n {
			if m := c.Member(i); c.Up(i) {
				up++
				if info := m.RoleInfo(); info.Leader != "" {
					votes[info.Leader]++
				}
			}
		}
		for i := range n {
			if votes[Name(i)] > up/2 && c.Up(i) && c.Member(i).Role() == zk.RoleLeader {
				return i, nil
			}
		}
		t := time.NewTimer(5 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, context.Cause(ctx)
		}
	}
}

// Crash stops member i as a killed process would: its streams break, what it has not synced is lost, its callers
// get no answer from the ensemble. It ends a pause.
func (c *Cluster) Crash(i int) error {
	c.mu.Lock()
	s := c.slots[i]
	if s.down {
		c.mu.Unlock()
		return nil
	}
	s.down = true
	c.mu.Unlock()
	c.net.Crash(s.name)
	c.net.Release(s.name) // a crash ends a pause
	s.disk.crash()
	return c.close(s.member)
}

// close waits for a member whose store calls return again, even if it has given up on them itself.
func (c *Cluster) close(m *zk.Member) error {
	err := m.Close()
	if errors.Is(err, zk.ErrStalled) && c.cfg.OnDisk == "" {
		<-m.Done()
		return nil
	}
	return err
}

// Restart opens member i again, on what it had synced. It is not paused then.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	if c.Up(i) {
		return nil
	}
	s := c.slot(i)
	c.mu.Lock()
	removed := s.removed
	c.mu.Unlock()
	if removed {
		return fmt.Errorf("zktest: %s was removed", s.name)
	}
	s.disk.resume()
	c.net.Release(s.name)
	cfg := c.cfg.Base
	cfg.ID, cfg.Peers, cfg.Join = s.name, s.peers, s.join
	if s.join != nil {
		cfg.NonVoter = s.observer
	}
	s.host = &host{Host: c.net.Host(s.name)}
	cfg.Transport, cfg.Advertise = s.host, s.name
	if c.cfg.OnDisk != "" {
		cfg.Dir = filepath.Join(c.cfg.OnDisk, s.name)
	} else {
		cfg.Storage = s.disk.open()
	}
	if c.cfg.Configure != nil {
		c.cfg.Configure(i, &cfg)
	}
	m, err := zk.Open(ctx, cfg)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.member, s.down = m, false
	return nil
}

// Add opens one more member, which joins as a voter, or as an observer. It does not wait for that.
func (c *Cluster) Add(ctx context.Context, voter bool) (int, error) {
	c.mu.Lock()
	i := len(c.slots)
	s := &slot{name: Name(i), observer: !voter, disk: newDisk(), down: true}
	for _, o := range c.slots {
		if !o.removed {
			s.join = append(s.join, o.name)
		}
	}
	c.slots = append(c.slots, s)
	c.mu.Unlock()
	return i, c.Restart(ctx, i)
}

// Remove takes member i out of the ensemble for good, and stops it. If it fails the member may or may not be in it;
// it can be called again, and should be before anything else is done with that member.
func (c *Cluster) Remove(ctx context.Context, i int) error {
	s := c.slot(i)
	err := fmt.Errorf("zktest: nobody runs who could remove %s", s.name)
	for j := range c.Len() {
		if j == i || !c.Up(j) {
			continue
		}
		if err = c.Member(j).RemoveMember(ctx, s.name); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	s.removed = true
	c.mu.Unlock()
	return c.Crash(i)
}

// Isolate cuts member i off from all others.
func (c *Cluster) Isolate(i int) { c.net.Isolate(Name(i)) }

// Partition lets only members of one group talk with each other.
func (c *Cluster) Partition(groups ...[]int) {
	var names [][]string
	for _, g := range groups {
		var list []string
		for _, i := range g {
			list = append(list, Name(i))
		}
		names = append(names, list)
	}
	c.net.Partition(names...)
}

// Heal ends every fault of the network, and keeps its latency. Crashed members stay down, paused ones paused.
func (c *Cluster) Heal() { c.net.Heal() }

// Pause makes member i stop as far as one process can do that to a part of itself: its store calls do not return
// and its links hold. Its timers go on; use SIGSTOP on a real process for more.
func (c *Cluster) Pause(i int) {
	c.slot(i).disk.pause()
	c.net.Hold(Name(i))
}

// Resume ends a pause: what was held is delivered.
func (c *Cluster) Resume(i int) {
	c.net.Release(Name(i))
	c.slot(i).disk.resume()
}

func (c *Cluster) slot(i int) *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[i]
}

// DropForwards loses the next n answers that member i gets from others: what it asked for was done, its stream
// breaks instead of telling.
func (c *Cluster) DropForwards(i, n int) { c.slot(i).host.drop.Store(int64(n)) }

// Expire makes a session expire, as if its owner had fallen silent, and waits for it: that takes the session's
// timeout, or twice as long.
func (c *Cluster) Expire(ctx context.Context, s *zk.Session) error {
	if err := s.Member().KillSession(ctx, s.ID()); err != nil {
		return err
	}
	select {
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Quiesce waits until all members that run have applied the same: the digests of their states are equal. If others
// belong to the ensemble it then returns an error that names them, and says why they stopped if they did so by
// themselves: Restart them first. Members that were removed, or have left, are not missed.
func (c *Cluster) Quiesce(ctx context.Context) error {
	for {
		digests := map[uint64][]string{}
		zxids := map[zk.Zxid]bool{}
		var up *zk.Member
		var down []int
		for i := range c.Len() {
			if !c.Up(i) {
				down = append(down, i)
				continue
			}
			up = c.Member(i)
			d, z := up.Digest()
			digests[d] = append(digests[d], Name(i))
			zxids[z] = true
		}
		if up == nil {
			return errors.New("zktest: no member runs")
		}
		if len(zxids) == 1 && len(digests) == 1 {
			return c.missing(ctx, up, down)
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("members differ: digests %x, zxids %v", digests, zxids)
		}
	}
}

// missing returns an error if members that are down belong to the ensemble, as m knows it.
func (c *Cluster) missing(ctx context.Context, m *zk.Member, down []int) error {
	if len(down) == 0 {
		return nil
	}
	list, err := m.Members(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range down {
		if !slices.ContainsFunc(list, func(p zk.MemberInfo) bool { return p.ID == Name(i) }) {
			continue
		}
		err := fmt.Errorf("zktest: %s is down", Name(i))
		if last := c.Member(i); last != nil && last.Err() != nil {
			err = fmt.Errorf("%w: %w", err, last.Err())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close stops all members.
func (c *Cluster) Close() error {
	var all sync.WaitGroup
	c.mu.Lock()
	errs := make([]error, len(c.slots))
	for i, s := range c.slots {
		s.disk.resume()
		if s.member != nil && !s.down {
			s.down = true
			all.Go(func() { errs[i] = c.close(s.member) })
		}
	}
	c.mu.Unlock()
	all.Wait()
	return errors.Join(errs...)
}
