// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/seed-541fafe0/zk"
)

// grace is what PATH-grace holds while somebody with Lock.Grace has the lock. A release deletes it; a successor who finds
// it knows that the holder vanished, and waits. It stands beside the lock's own znode, which is reaped when nobody
// contends: after a crash the grace is kept until somebody has waited for it.
type grace struct {
	Holder zk.Token `json:"holder"`
	Millis int64    `json:"millis"`          // to wait from the moment the vacancy was seen
	Until  int64    `json:"until,omitempty"` // the moment it is over, once somebody has seen it; ensemble's time in ms

	there   bool  // the znode exists, whatever it holds
	version int32 // of it
	fresh   bool  // Until is not in the tree yet
}

const graceSuffix = "-grace"

// graceOf reads what a lock's last holder left behind, if anything. Whoever is first in line has seen the vacancy;
// seen is the record as of the last time.
func (l *Lock) graceOf(ctx context.Context, s *zk.Session, seen grace) (grace, error) {
	data, st, err := s.Get(ctx, l.Path+graceSuffix)
	if errors.Is(err, zk.ErrNoNode) {
		return grace{}, nil
	}
	if err != nil {
		return grace{}, err
	}
	var g grace
	if json.Unmarshal(data, &g) != nil || g.Holder == 0 || g.Millis <= 0 {
		g = grace{} // nobody's
	}
	g.there, g.version = true, st.Version
	if g.fresh = g.Holder != 0 && g.Until == 0; g.fresh {
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
	return []zk.Op{zk.OpSet(path+graceSuffix, data, g.version)}
}

// record leaves our own grace with the lock, and takes away a predecessor's that is over. It is done by the first in
// line before it is granted the lock, so that no right is held without it.
func (l *Lock) record(ctx context.Context, c *contender, old grace) error {
	var step zk.Op
	switch path := l.Path + graceSuffix; {
	case l.Grace > 0:
		data, err := json.Marshal(grace{Holder: c.token, Millis: max(l.Grace.Milliseconds(), 1)})
		if err != nil {
			return err
		}
		step = zk.OpCreate(path, data, zk.Persistent|zk.Parents)
		if old.there {
			step = zk.OpSet(path, data, zk.AnyVersion)
		}
	case old.there:
		step = zk.OpDelete(path, zk.AnyVersion)
	default:
		return nil
	}
	_, err := c.s.Txn(ctx, c.guard(), step)
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
	return []zk.Op{zk.OpDelete(l.Path+graceSuffix, zk.AnyVersion)}
}
