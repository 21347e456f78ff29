// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// link is one direction between two hosts.
type link struct{ from, to string }

// Network is a set of hosts, and what is wrong between them. Its methods are safe for concurrent use; none of them
// waits.
type Network struct {
	seed uint64

	mu       sync.Mutex // guards everything below, all hosts and all their streams; never held while waiting
	hosts    map[string]*Host
	dials    map[link]uint64 // how many there were
	changed  signal          // a fault has begun or ended
	heals    int             // how many there were
	group    map[string]int  // nil without a partition; 0 is the group of those not listed
	isolated map[string]bool
	held     map[string]bool
	cut      map[link]bool
	slow     map[link]time.Duration
	min, max time.Duration
	drop     float64
}

// New returns a network without hosts and faults. The seed fixes its random choices: delays and losses.
func New(seed uint64) *Network {
	return &Network{
		seed:     seed,
		hosts:    map[string]*Host{},
		dials:    map[link]uint64{},
		isolated: map[string]bool{},
		held:     map[string]bool{},
		cut:      map[link]bool{},
		slow:     map[link]time.Duration{},
	}
}

// Host returns the host of that name, a fresh one if there was none, or if the last one was closed or has crashed.
// Its name is its address.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = newHost(n, name)
		n.hosts[name] = h
	}
	return h
}

// chanceLocked returns the source of chance of the next stream on l.
func (n *Network) chanceLocked(l link) *rand.Rand {
	n.dials[l]++
	h := fnv.New64a()
	h.Write([]byte(l.from + "\x00" + l.to + "\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, n.dials[l]))
	return rand.New(rand.NewPCG(n.seed, h.Sum64()))
}

// signal wakes whoever waits. The zero value is ready to use.
type signal struct{ c chan struct{} }

// wait returns a channel that is closed by the next raise.
func (s *signal) wait() <-chan struct{} {
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) raise() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
