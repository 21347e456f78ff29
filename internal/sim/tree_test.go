// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk"
)

func treePath(random *rand.Rand) string {
	path := fmt.Sprintf("/tree/%c", 'a'+random.IntN(4))
	if random.IntN(2) == 0 {
		path += fmt.Sprintf("/%c", 'a'+random.IntN(3))
	}
	return path
}

// treeClient creates, changes and deletes znodes with few names, and numbered ones.
func (r *run) treeClient(client int, random *rand.Rand) {
	for i := 0; r.idle(random, 300); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("tree")
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(3000)))
		path, data := treePath(random), fmt.Appendf(nil, "%d.%d", client, i)
		var results []zk.Result
		switch random.IntN(7) {
		case 0, 1:
			results, _ = s.Txn(ctx, zk.OpCreate(path, data, zk.Parents))
		case 2:
			results, _ = s.Txn(ctx, zk.OpCreate(path, data, zk.Ephemeral))
		case 3:
			results, _ = s.Txn(ctx, zk.OpSet(path, data, zk.AnyVersion))
		case 4:
			s.Delete(ctx, path, zk.AnyVersion)
		case 5:
			results, _ = s.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, data, zk.Persistent))
		case 6:
			results, _ = s.Txn(ctx, zk.OpCreate("/seq/n-", data, zk.Sequential), zk.OpCreate("/seq/m-", data, zk.Sequential))
			for _, res := range results {
				r.numbers.add(res)
			}
			if len(results) > 0 && random.IntN(3) > 0 { // a number is not free again
				s.Delete(ctx, results[random.IntN(2)].Path, zk.AnyVersion)
			}
		}
		for _, res := range results {
			if res.Stat.Czxid != 0 {
				r.stamps.see(res.Stat)
			}
		}
		cancel()
	}
}

// numberCheck collects the numbers that one parent has given.
type numberCheck struct {
	mu   sync.Mutex
	list []number
}

type number struct {
	zxid zk.Zxid
	seq  int64
}

func (c *numberCheck) add(res zk.Result) {
	seq, _ := zk.Sequence(res.Path)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, number{res.Stat.Czxid, seq})
}

// check says whether numbers grow with zxids, and none came twice (DM-25, E11).
func (c *numberCheck) check() error {
	slices.SortFunc(c.list, func(a, b number) int { return cmp.Or(cmp.Compare(a.zxid, b.zxid), cmp.Compare(a.seq, b.seq)) })
	for i := 1; i < len(c.list); i++ {
		if a, b := c.list[i-1], c.list[i]; b.seq <= a.seq {
			return fmt.Errorf("number %d was given at %v, %d at %v", a.seq, a.zxid, b.seq, b.zxid)
		}
	}
	return nil
}

// digestCheck compares what members are at equal zxids. It makes a digest of its own, of the znodes alone: what else
// the state has, such as the term, may change without a zxid, and is compared at the end, when all stands still. It
// samples; members compare themselves with their leader at every entry, and it hears of those that stop for that.
type digestCheck struct {
	mu       sync.Mutex
	seen     map[zk.Zxid]digest
	compared int
	stopped  error
}

type digest struct {
	member string
	sum    uint64
}

func newDigestCheck() *digestCheck { return &digestCheck{seen: map[zk.Zxid]digest{}} }

// heard looks at what members log, as slog.HandlerOptions.ReplaceAttr: one that differs stops, and says so once. When it
// is started again it may well be sound.
func (c *digestCheck) heard(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok && errors.Is(err, zk.ErrInconsistent) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopped = err
	}
	return a
}

// take compares with what another member was at that zxid (P18, CG-4). It fails as well if a member has stopped because
// it differed.
func (c *digestCheck) take(member string, sum uint64, z zk.Zxid) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.stopped; err != nil {
		c.stopped = nil
		return err
	}
	have, ok := c.seen[z]
	if !ok {
		c.seen[z] = digest{member, sum}
		return nil
	}
	if have.member != member {
		c.compared++
	}
	if have.sum != sum {
		return fmt.Errorf("at %v the digest of %s is %x, that of %s %x", z, have.member, have.sum, member, sum)
	}
	return nil
}

// fingerprint is the digest of a member's znodes, and the zxid it belongs to. The configuration is left out: it changes
// without a zxid.
func fingerprint(m *zk.Member, see func(zk.Stat)) (sum uint64, zxid zk.Zxid, err error) {
	h := fnv.New64a()
	var b []byte
	err = m.View(context.Background(), func(v *zk.View) error {
		zxid = v.Zxid()
		var walk func(path string) error
		walk = func(path string) error {
			z, err := v.Get(path)
			if err != nil {
				return err
			}
			see(z.Stat)
			st := z.Stat
			b = append(append(append(b[:0], path...), 0), z.Data...)
			for _, n := range []int64{
				int64(st.Czxid), int64(st.Mzxid), int64(st.Pzxid), st.Ctime.UnixMilli(), st.Mtime.UnixMilli(),
				int64(st.Version), int64(st.Cversion), int64(st.Aversion), int64(st.EphemeralOwner), int64(st.NumChildren),
			} {
				b = binary.AppendVarint(b, n)
			}
			h.Write(b)
			for name, err := range v.Children(path) {
				if err != nil {
					return err
				}
				if child := strings.TrimSuffix(path, "/") + "/" + name; child != "/zookeeper" {
					if err := walk(child); err != nil {
						return err
					}
				}
			}
			return nil
		}
		return walk("/")
	})
	return h.Sum64(), zxid, err
}

func TestTreeCheckers(t *testing.T) {
	for _, c := range []struct {
		name string
		ok   bool
		list []number
	}{
		{"in order", true, []number{{2, 1}, {1, 0}, {2, 2}}},
		{"twice", false, []number{{1, 0}, {2, 0}}},
		{"back", false, []number{{1, 1}, {2, 0}}},
	} {
		check := numberCheck{list: c.list}
		if err := check.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	d := newDigestCheck()
	if d.take("a", 1, 5) != nil || d.take("b", 1, 5) != nil || d.take("b", 2, 6) != nil || d.take("a", 3, 6) == nil {
		t.Error("a digest that differs is not seen")
	}
	log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{ReplaceAttr: d.heard}))
	log.Error("member stops", "err", zk.ErrClosed)
	if err := d.take("a", 1, 5); err != nil {
		t.Error(err)
	}
	log.Error("member stops", "err", fmt.Errorf("entry 5: %w", zk.ErrInconsistent))
	if err := d.take("a", 1, 5); !errors.Is(err, zk.ErrInconsistent) {
		t.Errorf("a member that stops because it differs: %v", err)
	}
}
