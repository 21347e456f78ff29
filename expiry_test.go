// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk/transport/memnet"
)

// A leader that was stalled has missed heartbeats: it does not count that time against anybody, and gives everybody the
// time for another one. A tick that is late by less than the margin is none of that (SS-7, P11).
func TestStalledLeaderExpiresNobody(t *testing.T) {
	const (
		timeout = 3 * time.Second // so the margin is 300 ms
		before  = 2900 * time.Millisecond
		tick    = expiryTick
	)
	for _, c := range []struct {
		gap  time.Duration // between two ticks, the second one just before the session is to expire
		want time.Duration // when it expires instead, counted from its last heartbeat
	}{
		{tick, timeout},
		{tick + 300*time.Millisecond, timeout},
		{tick + 301*time.Millisecond, before + timeout/3 + 300*time.Millisecond},
		{2 * time.Second, timeout + 2*time.Second},
		{time.Hour, before + timeout},
	} {
		t.Run(fmt.Sprint(c.gap), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				a, b, _ := threeMembers(t, ctx, memnet.New(1))
				l := a.lead.Load()
				s, err := b.NewSession(ctx, SessionConfig{Timeout: timeout, External: true})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				time.Sleep(before)
				a.sweep(l, time.Now().Add(-c.gap), time.Now())
				<-s.Done()
				if took := time.Since(began); took < c.want || took > c.want+expiryTick {
					t.Errorf("it expired after %v, not %v", took, c.want)
				}
				if s.Err() == nil {
					t.Error("it did not expire")
				}

				// Whoever is there lives: its next heartbeat is in time.
				if c.want == timeout {
					return
				}
				if s, err = b.NewSession(ctx, SessionConfig{Timeout: timeout, External: true}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(before)
				a.sweep(l, time.Now().Add(-c.gap), time.Now())
				s.Listener().Touch()
				touched := time.Now()
				<-s.Done()
				if took := time.Since(touched); took < timeout || took > timeout+timeout/3+expiryTick {
					t.Errorf("it expired %v after it was touched", took)
				}
			})
		})
	}
}
