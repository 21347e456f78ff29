// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"slices"
	"sync"

	"github.com/seed-541fafe0/zk"
)

// LockAll acquires the locks on several paths: all of them or none (MULTI-S1). Each is a Lock's, of the default layout,
// whose other users take part; paths may be given in any order, and more than once. The grace of a crashed holder is waited for.
//
// One transaction joins all the lines. So two calls stand in the same order in every line that they share, and however
// their paths overlap they never wait for each other (MULTI-L1). Who takes the same locks one by one, while holding some,
// can deadlock with a LockAll as with anybody else.
//
// The right has a znode on each path and ends as a whole: if one is deleted Lost is closed and the others are deleted too.
// Path and Guard are about the first path in byte order; put all of Held.Guards into a transaction. Tokens are those of
// every path: on each, the next holder's is higher.
//
// Cost: one write to acquire and one to release, however many paths there are; one wake-up on each path. While it waits it
// has a goroutine for each path. Errors are those of Lock.Acquire; whatever the error, nothing is left in any line.
func LockAll(ctx context.Context, src zk.SessionSource, paths ...string) (*Held, error) {
	if len(paths) == 0 {
		return nil, badArgument("lock all", "", "no paths")
	}
	s, err := session(ctx, src, "lock all", paths[0])
	if err != nil {
		return nil, err
	}
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	locks, steps := make([]*Lock, len(paths)), make([]zk.Op, len(paths))
	for i, path := range paths {
		if err := zk.ValidPath(path); err != nil {
			return nil, err
		}
		locks[i] = NewLock(s, path)
		steps[i] = locks[i].contender(s)
	}
	c, err := enterAll(ctx, s, len(steps), steps...)
	if err != nil {
		return nil, err
	}
	var r *right
	if err = standAll(ctx, c, locks); err == nil {
		r, err = c.take(ctx)
	}
	return c.held(r, err)
}

// standAll waits until every znode of c is the first of its line. That one is gone is noticed at any time.
func standAll(ctx context.Context, c *contender, locks []*Lock) error {
	waiting, cancel := context.WithCancel(ctx)
	first := make(chan error, 2*len(locks))
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i, z := range c.znodes() {
		all.Go(func() {
			var parting []zk.Op // nothing, because these locks have no grace of their own
			err := z.mind(waiting, locks[i].turn(waiting, &z, &parting))
			first <- err
			if err == nil { // stay and look that it is not deleted while others wait
				first <- z.mind(waiting, func(context.Context) (bool, wait, error) { return false, wait{}, nil })
			}
		})
	}
	for range locks {
		if err := <-first; err != nil {
			return err
		}
	}
	return nil
}
