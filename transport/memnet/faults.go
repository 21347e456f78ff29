// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"math/rand/v2"
	"time"
)

// fault changes what is wrong with the network, and wakes whoever waits for that.
func (n *Network) fault(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	n.changed.raise()
}

// Partition lets hosts talk within their group alone. Hosts that no group lists are one more group: they talk among
// themselves. It replaces the last partition; without groups it ends it.
func (n *Network) Partition(groups ...[]string) {
	n.fault(func() {
		n.group = nil
		if len(groups) > 0 {
			n.group = map[string]int{}
		}
		for i, g := range groups {
			for _, name := range g {
				n.group[name] = i + 1
			}
		}
	})
}

// Isolate stalls what goes between a host and all others.
func (n *Network) Isolate(name string) { n.fault(func() { n.isolated[name] = true }) }

// Cut stalls what from sends to to. The other direction still flows, on streams that exist: a dial needs both.
func (n *Network) Cut(from, to string) { n.fault(func() { n.cut[link{from, to}] = true }) }

// Stall cuts both directions between two hosts.
func (n *Network) Stall(a, b string) {
	n.fault(func() { n.cut[link{a, b}], n.cut[link{b, a}] = true, true })
}

// Hold stalls everything that a host sends and receives until Release, as if it were paused. Heal does not end it.
func (n *Network) Hold(name string) { n.fault(func() { n.held[name] = true }) }

// Release ends Hold: what was held is delivered. A host that is not held stays as it is.
func (n *Network) Release(name string) { n.fault(func() { delete(n.held, name) }) }

// Latency delays each chunk, on every link, by a random time from min up to max. With max at most min it is min;
// zero is no delay. It replaces the last latency, for what is sent from now on. It says what the network is like, and is
// no fault: Heal keeps it.
func (n *Network) Latency(min, max time.Duration) {
	n.fault(func() { n.min, n.max = min, max })
}

// Slow delays what goes between two hosts, both ways, by d on top of the latency. It replaces the last d for that
// link, for what is sent from now on; zero is no delay.
func (n *Network) Slow(a, b string, d time.Duration) {
	n.fault(func() { n.slow[link{a, b}], n.slow[link{b, a}] = d, d })
}

// Drop loses chunks and dials at that rate, from 0, none, to 1, all. In the direction where a stream has lost
// something nothing arrives any more, not even the news that it was closed, until it is reset; Heal does that. A
// dial that is lost hangs until its context ends, or Heal.
func (n *Network) Drop(rate float64) { n.fault(func() { n.drop = rate }) }

// Reset breaks every stream that there is between two hosts: both ends get ECONNRESET, and what was under way is
// gone. New streams can be dialled.
func (n *Network) Reset(a, b string) {
	n.fault(func() {
		for _, l := range [...]link{{a, b}, {b, a}} {
			if h := n.hosts[l.from]; h != nil {
				for s := range h.streams {
					if s.out.to == l.to {
						s.resetLocked()
					}
				}
			}
		}
	})
}

// Crash ends a host as a killed process ends: both ends of its streams get ECONNRESET, Accept and Dial on it return
// net.ErrClosed, and who dials it is refused, until Host makes a fresh one. Without such a host it does nothing.
func (n *Network) Crash(name string) {
	n.fault(func() {
		if h := n.hosts[name]; h != nil {
			h.endLocked((*stream).resetLocked)
		}
	})
}

// Heal ends every fault: partitions, isolation, cuts, stalls, slow links and losses. It keeps Latency, which is how the
// network is without faults, and Hold, which is for Release to end. What was stalled is delivered, streams that have
// lost something are reset, and dials that hang go on.
func (n *Network) Heal() {
	n.fault(func() {
		n.heals++
		n.group, n.drop = nil, 0
		clear(n.isolated)
		clear(n.cut)
		clear(n.slow)
		for _, h := range n.hosts {
			for s := range h.streams {
				if s.in.lost || s.out.lost {
					s.resetLocked()
				}
			}
		}
	})
}

// stalledLocked reports whether what from sends to to waits.
func (n *Network) stalledLocked(from, to string) bool {
	if n.held[from] || n.held[to] {
		return true
	}
	if from == to {
		return false
	}
	return n.cut[link{from, to}] || n.isolated[from] || n.isolated[to] || n.group[from] != n.group[to]
}

// delayLocked returns how long a chunk takes on l.
func (n *Network) delayLocked(l link, chance *rand.Rand) time.Duration {
	d := n.min + n.slow[l]
	if n.max > n.min {
		d += time.Duration(chance.Int64N(int64(n.max-n.min) + 1))
	}
	return d
}

// losesLocked decides whether something is lost.
func (n *Network) losesLocked(chance *rand.Rand) bool { return n.drop > 0 && chance.Float64() < n.drop }
