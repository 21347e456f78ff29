// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A pool holds the idle streams to one member and dials when they do not
// suffice, one at a time, for many may be asking because one broke.
type pool struct {
	net   *Net
	id    string
	class byte

	mu      sync.Mutex // never held during I/O
	idle    []*stream  // last used last
	waiting []chan lent
	open    int // idle, lent or being dialled
	dialing bool
	known   bool // has been reached before
}

type lent struct {
	s   *stream
	err error
}

// get takes an idle stream or waits for one to be dialled or put back. Past
// step, if that is above zero, it gives up.
func (p *pool) get(ctx context.Context, step time.Duration) (*stream, error) {
	p.mu.Lock()
	if last := len(p.idle) - 1; last >= 0 {
		s := p.idle[last]
		p.idle = slices.Delete(p.idle, last, last+1)
		p.mu.Unlock()
		return s, nil
	}
	w := make(chan lent, 1)
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()

	if step > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, step)
		defer cancel()
	}
	p.dial()
	select {
	case l := <-w:
		return l.s, l.err
	case <-ctx.Done():
	case <-p.net.ctx.Done():
	}
	p.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(o chan lent) bool { return o == w })
	p.mu.Unlock()
	select {
	case l := <-w: // it came before we left
		if l.s != nil {
			p.put(l.s)
		}
	default:
	}
	if p.net.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return nil, ctx.Err()
}

// put takes a stream back. The longest waiting caller gets it.
func (p *pool) put(s *stream) {
	if s.spoiled {
		p.discard(s)
		return
	}
	p.mu.Lock()
	s.idleSince = time.Now()
	if len(p.waiting) > 0 {
		p.waiting[0] <- lent{s: s} // has room
		p.waiting = slices.Delete(p.waiting, 0, 1)
	} else {
		s.rested = true
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
}

// discard closes a stream that was lent.
func (p *pool) discard(s *stream) {
	p.net.drop(s)
	p.mu.Lock()
	p.open--
	p.mu.Unlock()
	p.dial()
}

// flush closes the idle streams.
func (p *pool) flush() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.open -= len(idle)
	p.mu.Unlock()
	for _, s := range idle {
		p.net.drop(s)
	}
	p.dial()
}

// prune closes streams idle for long, all but one.
func (p *pool) prune() {
	p.mu.Lock()
	k := 0
	for k < len(p.idle)-1 && time.Since(p.idle[k].idleSince) > outboundIdle {
		k++
	}
	old := slices.Clone(p.idle[:k])
	p.idle = slices.Delete(p.idle, 0, k)
	p.open -= k
	p.mu.Unlock()
	for _, s := range old {
		p.net.drop(s)
	}
}

// dial starts dialling if someone waits and nobody dials.
func (p *pool) dial() {
	p.mu.Lock()
	start := p.wantLocked()
	p.mu.Unlock()
	if start && !p.net.spawn(p.dialAll) {
		p.failAll(ErrClosed)
	}
}

// wantLocked reports whether the caller should dial, and marks that it does.
func (p *pool) wantLocked() bool {
	if p.dialing || len(p.waiting) == 0 || p.open >= poolMax {
		return false
	}
	p.dialing = true
	p.open++
	return true
}

// dialAll dials until nobody waits. Dialling belongs to the pool, not to who
// asked first: a caller that gives up does not spoil it for the others.
func (p *pool) dialAll() {
	for more := true; more; {
		s, _, err := p.net.open(p.net.ctx, p.class, p.id, "")
		if err != nil {
			p.mu.Lock()
			known := p.known
			p.mu.Unlock()
			switch {
			case p.net.ctx.Err() != nil:
			case objection(err):
				p.net.log.failed(slog.LevelWarn, party{id: p.id}, "no agreement with peer", err)
			case known:
				p.net.log.unreachable(party{id: p.id}, err)
			default: // while an ensemble starts, some are not there yet
				p.net.log.failed(slog.LevelInfo, party{id: p.id}, "peer not reached yet", err)
			}
			p.failAll(err)
			return
		}
		p.net.log.fine(party{id: p.id})
		p.mu.Lock()
		p.known = true
		p.dialing = false
		p.mu.Unlock()
		p.put(s)
		p.mu.Lock()
		more = p.wantLocked()
		p.mu.Unlock()
	}
}

// failAll ends a dial in vain: all who waited for it learn why.
func (p *pool) failAll(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiting {
		w <- lent{err: err} // has room
	}
	p.waiting = nil
	p.open--
	p.dialing = false
}

// prune closes dialled streams that nobody needs.
func (n *Net) prune() {
	tick := time.NewTicker(outboundIdle / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		n.mu.Lock()
		peers := make([]*peer, 0, len(n.peers))
		for _, p := range n.peers {
			peers = append(peers, p)
		}
		n.mu.Unlock()
		for _, p := range peers {
			p.calls.prune()
			p.raft.prune()
		}
	}
}
