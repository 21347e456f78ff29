// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// retry calls fn until it succeeds, unless its error is one that stays.
func retry(ctx context.Context, fn func() error) error {
	backoff := recipes.Backoff{Base: 10 * time.Millisecond, Max: 500 * time.Millisecond}
	for attempt := 0; ; attempt++ {
		err := fn()
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		if err := backoff.Wait(ctx, attempt); err != nil {
			return err
		}
	}
}

// passing reports whether err is what a change of leader or a lost session may bring about: what was held is lost
// and can be asked for again. Writes in flight are no concern, because the engine drives them to their end.
func passing(err error) bool {
	for _, e := range []error{
		recipes.ErrLost, zk.ErrSuspended, zk.ErrSessionExpired, zk.ErrUnavailable, zk.ErrThrottled, zk.ErrGuard, zk.ErrBadVersion,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// board is where the goroutines of a process see how far the work is.
type board struct {
	mu      sync.Mutex
	now     progress
	changed chan struct{} // closed at the next change; nil if nobody waits
}

func (b *board) set(now progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = now
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// wait returns once the progress is as asked for.
func (b *board) wait(ctx context.Context, ok func(progress) bool) error {
	for {
		b.mu.Lock()
		now := b.now
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		if ok(now) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow watches the results come in, from all processes. It returns errComplete when there is one for every file.
func (p *process) follow(ctx context.Context) error {
	var told time.Time
	return retry(ctx, func() error {
		s, err := p.m.Session(ctx)
		if err != nil {
			return err
		}
		w, err := s.Watch(ctx, resultsPath, zk.WatchNode)
		if err != nil {
			return err
		}
		defer w.Close()
		for { // the watch is there first, so that nothing can happen unseen between a look and the next event
			now, err := p.look(ctx, s)
			if err != nil {
				return err
			}
			p.board.set(now)
			complete := now.Total > 0 && now.Results == now.Total
			if complete || time.Since(told) > 20*time.Millisecond {
				told = time.Now()
				p.out.tell(notice{What: isProgress, Progress: &now})
			}
			if complete {
				return errComplete
			}
			if ev, ok := <-w.Events(); !ok || ev.Type == zk.EventSession {
				return w.Err()
			}
		}
	})
}

func (p *process) look(ctx context.Context, s *zk.Session) (progress, error) {
	stat, _, err := s.Exists(ctx, resultsPath)
	if err != nil {
		return progress{}, err
	}
	var f filling
	if _, err := load(ctx, s, fillPath, &f); err != nil {
		return progress{}, err
	}
	return progress{Queued: f.Queued, Total: f.Total, Results: stat.NumChildren, Mine: int(p.mine.Load())}, nil
}

// load reads a znode with JSON in it.
func load(ctx context.Context, s *zk.Session, path string, into any) (zk.Stat, error) {
	data, stat, err := s.Get(ctx, path)
	if err != nil {
		return stat, err
	}
	return stat, json.Unmarshal(data, into)
}
