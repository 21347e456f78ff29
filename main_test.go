// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs fn on an ensemble in virtual time; whatever the ensemble leaves behind fails the test.
func bubble(t *testing.T, members int, cfg zktest.Config, fn func(t *testing.T, ctx context.Context, c *zktest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		c, err := zktest.Open(ctx, members, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		fn(t, ctx, c)
	})
}

func session(t *testing.T, ctx context.Context, m *zk.Member) *zk.Session {
	t.Helper()
	s, err := m.NewSession(ctx, zk.SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func leader(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	i, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, code zk.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("error is %v, want %v", err, code)
	}
}

func create(t *testing.T, ctx context.Context, s *zk.Session, path string, mode zk.CreateMode) zk.Znode {
	t.Helper()
	z, err := s.Create(ctx, path, nil, mode)
	must(t, err)
	return z
}

// next receives one event, and fails where there is none although time may pass.
func next(t *testing.T, ch <-chan zk.Event) zk.Event {
	t.Helper()
	select {
	case ev, ok := <-ch:
		if !ok {
			t.Fatal("closed without an event")
		}
		return ev
	case <-time.After(3 * time.Minute):
		t.Fatal("no event")
	}
	return zk.Event{}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what)
}
