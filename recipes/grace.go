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

// record leaves our own grace with the lock, and takes away a predecessor's that is over. It is done by the first in
// line before it is granted the lock, so that no right is held without it.
func (l *Lock) record(ctx context.Context, c *contender, old grace) (err error) {
	var data []byte
	switch {
	case l.Grace > 0:
		data, err = json.Marshal(grace{Holder: c.token, Millis: max(l.Grace.Milliseconds(), 1)})
	case old.Holder == 0:
		return nil
	}
	if err == nil {
		_, err = c.s.Txn(ctx, c.guard(), zk.OpSet(l.Path, data, zk.AnyVersion))
	}
	if errors.Is(err, zk.ErrGuard) {
		return ErrBroken
	}
	return err
}

// clearing are the steps that take our own grace away, besides leaving.
func (l *Lock) clearing() []zk.Op {
	if l.Grace <= 0 {
		return nil
	}
	return []zk.Op{zk.OpSet(l.Path, nil, zk.AnyVersion)}
}
