// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// grace is what a lock's own znode holds while somebody with Lock.Grace has the lock. A release clears it; a successor
// who finds it knows that the holder vanished, and waits. Others call it lock-delay.
type grace struct {
	Holder zk.Token `json:"holder"`
	Millis int64    `json:"millis"`          // to wait from the moment the vacancy was seen
	Until  int64    `json:"until,omitempty"` // the moment it is over, once somebody has seen it; ensemble's time in ms

	version int32 // of the znode that had it
	fresh   bool  // Until is not in the tree yet
}

// graceOf reads what a lock's last holder left behind, if anything. Whoever is first in line has seen the vacancy;
// seen is the record as of the last time.
func (l *Lock) graceOf(ctx context.Context, s *zk.Session, seen grace) (grace, error) {
	data, st, err := s.Get(ctx, l.Path)
	var g grace
	if err != nil || len(data) == 0 || json.Unmarshal(data, &g) != nil || g.Holder == 0 || g.Millis <= 0 {
		return grace{}, err
	}
	g.version = st.Version
	if g.fresh = g.Until == 0; g.fresh {
		g.Until = s.Now().Add(time.Duration(g.Millis) * time.Millisecond).UnixMilli()
		if seen.Holder == g.Holder {
			g.Until = seen.Until
		}
	}
	return g, nil
}

// left is how long the grace goes on.
func (g grace) left(s *zk.Session) time.Duration {
	if g.Holder == 0 {
		return 0
	}
	return time.UnixMilli(g.Until).Sub(s.Now())
}

// begin are the steps that leave word of when the grace is over, for those who do not wait for it in line.
func (g grace) begin(path string) []zk.Op {
	if !g.fresh {
		return nil
	}
	data, err := json.Marshal(g)
	if err != nil {
		return nil
	}
	return []zk.Op{zk.OpSet(path, data, g.version)}
}

// record leaves our own grace with the lock, and takes away a predecessor's that is over.
func (l *Lock) record(ctx context.Context, r *right) error {
	old, err := l.graceOf(ctx, r.s, grace{})
	var data []byte
	if err == nil && l.Grace > 0 {
		data, err = json.Marshal(grace{Holder: r.token, Millis: max(l.Grace.Milliseconds(), 1)})
		r.onRelease([]zk.Op{zk.OpSet(l.Path, nil, zk.AnyVersion)})
	}
	if err == nil && (data != nil || old.Holder != 0) {
		_, err = r.s.Txn(ctx, r.guard(), zk.OpSet(l.Path, data, zk.AnyVersion))
	}
	switch lost := r.lost(); {
	case err == nil:
		return nil
	case errors.Is(lost, zk.ErrNoNode):
		return ErrBroken
	case lost != nil:
		return lost
	}
	return explain(ctx, err)
}
