// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spreads the attempts of a caller's own loop: exponential, with full jitter. The recipes need none, because
// they wait for what they wait for. The zero value is 10 ms up to 1 s. It is a plain value without a state, safe for
// concurrent use. It says when to try again and not whether: what may have been applied (zk.MaybeApplied) may be done twice.
type Backoff struct {
	Base time.Duration // bound of the first wait; 0 or less: 10 ms
	Max  time.Duration // bound of every wait; 0 or less: 1 s; at least Base
}

// Wait waits before the next attempt: a random time, from none at all up to Base doubled attempt times, at most Max. The
// first attempt is 0, and so is a negative one. It returns early with ctx's error, or its cause.
func (b Backoff) Wait(ctx context.Context, attempt int) error {
	if err := checkContext(ctx, "backoff", ""); err != nil {
		return err
	}
	t := time.NewTimer(rand.N(b.bound(attempt)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

func (b Backoff) bound(attempt int) time.Duration {
	if b.Base <= 0 {
		b.Base = 10 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = time.Second
	}
	b.Max = max(b.Max, b.Base)
	for ; attempt > 0 && b.Base < b.Max; attempt-- {
		b.Base += min(b.Base, b.Max-b.Base)
	}
	return b.Base
}
