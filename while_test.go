// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"testing"
	"time"
)

// What ends with the lease has ended, with the lease's reason, when the end of the lease has returned: whatever is told
// or done next cannot come before it (HELD-S5).
func TestContextWhileEndsWithTheLease(t *testing.T) {
	m, err := Open(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(t.Context(), SessionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "mine"), time.Hour)
	defer cancel()
	z, err := s.Create(ctx, "/held", nil, Ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	held, free, err := s.ContextWhile(ctx, z.Path, Token(z.Stat.Czxid))
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	at, _ := ctx.Deadline()
	if until, ok := held.Deadline(); held.Value(key{}) != "mine" || !ok || !until.Equal(at) {
		t.Errorf("value %v, deadline %v", held.Value(key{}), until)
	}
	child, done := context.WithCancel(held)
	defer done()
	s.mu.Lock()
	s.lapse(ErrClosed)
	s.mu.Unlock()
	if held.Err() == nil || child.Err() == nil || !errors.Is(context.Cause(held), ErrClosed) || !errors.Is(context.Cause(child), ErrClosed) {
		t.Errorf("%v, %v", context.Cause(held), context.Cause(child))
	}
	// It ends with the context it was made for as well.
	s.mu.Lock()
	s.lease, s.lapse = context.WithCancelCause(context.Background())
	s.mu.Unlock()
	why := errors.New("why")
	ctx, end := context.WithCancelCause(t.Context())
	held, free, err = s.ContextWhile(ctx, z.Path, Token(z.Stat.Czxid))
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	end(why)
	<-held.Done()
	if !errors.Is(context.Cause(held), why) {
		t.Errorf("%v", context.Cause(held))
	}
}
