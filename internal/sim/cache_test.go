// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const cacheRoot = "/cache"

// cacheShapes are a cache of one znode, of a directory and of a subtree.
var cacheShapes = [...]struct {
	root  string
	depth int
}{{cacheRoot + "/0", 1}, {cacheRoot, 2}, {cacheRoot, 0}}

func covers(shape int, path string) bool {
	c := cacheShapes[shape]
	below, ok := strings.CutPrefix(path, c.root)
	return ok && (c.depth == 0 || strings.Count(below, "/") < c.depth)
}

// image is what somebody has seen at a zxid, all of it and all Stats; "" where there was nothing.
type image struct {
	zxid    zk.Zxid
	content string
	by      string // who has seen it
}

// torn finds images that cannot be those of one tree (CACHE-S1). Nothing is ever the same again after a change, because
// it has other zxids: all images between two that are the same must be so too. There may be nothing more than once.
func torn(images []image) error {
	type span struct{ from, to image }
	spans := map[string]*span{}
	var none []image
	for _, im := range images {
		if im.content == "" {
			none = append(none, im)
			continue
		}
		s := spans[im.content]
		if s == nil {
			s = &span{im, im}
			spans[im.content] = s
		}
		if im.zxid < s.from.zxid {
			s.from = im
		}
		if im.zxid > s.to.zxid {
			s.to = im
		}
	}
	list := slices.SortedFunc(maps.Values(spans), func(a, b *span) int { return cmp.Compare(a.from.zxid, b.from.zxid) })
	for i, s := range list {
		said := fmt.Sprintf("by %s at %v, by %s at %v it is %s", s.from.by, s.from.zxid, s.to.by, s.to.zxid, s.to.content)
		if i > 0 && s.from.zxid <= list[i-1].to.zxid {
			last := list[i-1]
			return fmt.Errorf("by %s at %v, by %s at %v it is %s\n%s", last.from.by, last.from.zxid, last.to.by, last.to.zxid, last.to.content, said)
		}
		for _, z := range none {
			if s.from.zxid <= z.zxid && z.zxid <= s.to.zxid {
				return fmt.Errorf("by %s at %v there is nothing, %s", z.by, z.zxid, said)
			}
		}
	}
	return nil
}

// cacheCheck collects images of all shapes, from caches and from the trees themselves.
type cacheCheck struct {
	mu     sync.Mutex
	images [len(cacheShapes)][]image
	caches map[*cacheCopy]bool // those that run
}

// cacheCopy is what a consumer of Changes makes of them, and the cache that they come from.
type cacheCopy struct {
	member int
	shape  int
	cache  *recipes.Cache

	mu      sync.Mutex
	znodes  map[string]zk.Znode
	removed map[string]zk.Zxid // what was there before
}

func (c *cacheCheck) see(by string, shape int, z zk.Zxid, znodes []zk.Znode) {
	var b strings.Builder
	for _, n := range znodes {
		fmt.Fprintf(&b, "%s %q %+v\n", n.Path, n.Data, n.Stat)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.images[shape] = append(c.images[shape], image{z, b.String(), by})
}

// seeTree looks at the tree of one member.
func (c *cacheCheck) seeTree(ctx context.Context, s *zk.Session) error {
	return s.View(ctx, func(v *zk.View) error {
		var all []zk.Znode
		for z, err := range v.Walk(cacheRoot) {
			if errors.Is(err, zk.ErrNoNode) {
				break
			}
			if err != nil {
				return err
			}
			all = append(all, z)
		}
		for shape := range cacheShapes {
			c.see("the tree of "+s.Member().ID(), shape, v.Zxid(), slices.DeleteFunc(slices.Clone(all), func(z zk.Znode) bool { return !covers(shape, z.Path) }))
		}
		return nil
	})
}

// seeCache looks at a cache, unless it changes meanwhile.
func (c *cacheCheck) seeCache(p *cacheCopy) error {
	from := p.cache.Zxid()
	var all []zk.Znode
	for path, z := range p.cache.All() {
		if !covers(p.shape, path) {
			return fmt.Errorf("%s is in a cache of %+v", path, cacheShapes[p.shape])
		}
		all = append(all, z)
	}
	if to := p.cache.Zxid(); to < from {
		return fmt.Errorf("a cache went back from %v to %v", from, to)
	} else if to == from {
		c.see(fmt.Sprint("a cache of member ", p.member), p.shape, to, all)
	}
	return nil
}

// apply does what a change says, if that can be done to what there is (CACHE-S2, CACHE-S3).
func (p *cacheCopy) apply(ch recipes.Change) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, ok := p.znodes[ch.Path]
	fits := false
	switch ch.Kind {
	case recipes.Reset:
		return nil
	case recipes.Added:
		fits = !ok && ch.New.Stat.Czxid > p.removed[ch.Path]
	case recipes.Updated:
		fits = ok && sameZnode(have, ch.Old) && ch.New.Stat.Czxid == have.Stat.Czxid && ch.New.Stat.Mzxid > have.Stat.Mzxid
	case recipes.Removed:
		fits = ok && sameZnode(have, ch.Old)
		for path := range p.znodes {
			fits = fits && !strings.HasPrefix(path, ch.Path+"/")
		}
	}
	if !fits {
		return fmt.Errorf("%+v of %+v", ch, have)
	}
	if ch.Kind == recipes.Removed {
		delete(p.znodes, ch.Path)
		p.removed[ch.Path] = have.Stat.Mzxid
	} else {
		p.znodes[ch.Path] = ch.New
	}
	return nil
}

// sameZnode compares what Changes are about.
func sameZnode(a, b zk.Znode) bool {
	return a.Path == b.Path && a.Data == b.Data && a.Stat.Czxid == b.Stat.Czxid && a.Stat.Mzxid == b.Stat.Mzxid
}

// differs compares a copy with the tree, which stands still.
func (p *cacheCopy) differs(want []zk.Znode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, z := range want {
		if covers(p.shape, z.Path) {
			if n++; !sameZnode(p.znodes[z.Path], z) {
				return fmt.Errorf("member %d: %s is %+v, by the changes it is %+v", p.member, z.Path, z, p.znodes[z.Path])
			}
			if got, _ := p.cache.Get(z.Path); got != z { // CACHE-L1
				return fmt.Errorf("member %d: %s is %+v, cached as %+v", p.member, z.Path, z, got)
			}
		}
	}
	if len(p.znodes) != n {
		return fmt.Errorf("member %d: %d znodes are there, by the changes %d", p.member, n, len(p.znodes))
	}
	return nil
}

func (r *run) cachePart() part {
	c := &cacheCheck{caches: map[*cacheCopy]bool{}}
	following := r.lasting()
	return part{"Cache", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			for shape := range cacheShapes {
				following.onEach(r, func(i int, m *zk.Member, random *rand.Rand) { r.followCache(following.ctx, c, i, shape, m, m, random) })
			}
		}
		r.cacheClient(c, client, random)
	}, func(ctx context.Context, s *zk.Session) error {
		for _, i := range r.members() {
			s, err := r.c.Member(i).Session(ctx)
			if err == nil {
				err = s.Sync(ctx)
			}
			if err == nil {
				err = r.eventually(ctx, func() error { return c.cached(ctx, s, i) })
			}
			if err != nil {
				return err
			}
		}
		following.end()
		errs := []error{r.watched(ctx, cacheRoot)} // CACHE-L4
		c.mu.Lock()
		defer c.mu.Unlock()
		for shape, images := range c.images {
			if err := torn(images); err != nil {
				errs = append(errs, fmt.Errorf("%+v: %w", cacheShapes[shape], err))
			}
		}
		return errors.Join(errs...)
	}}
}

// cached checks that a member has a cache of each shape that has come to the end (CACHE-S2, CACHE-L1).
func (c *cacheCheck) cached(ctx context.Context, s *zk.Session, member int) error {
	if err := c.seeTree(ctx, s); err != nil {
		return err
	}
	var want []zk.Znode
	for z, err := range s.Walk(ctx, cacheRoot) {
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		if err == nil {
			want = append(want, z)
		}
	}
	c.mu.Lock()
	copies := slices.Collect(maps.Keys(c.caches))
	c.mu.Unlock()
	found := map[int]bool{}
	for _, p := range copies {
		if p.member != member {
			continue
		}
		if err := errors.Join(c.seeCache(p), p.differs(want)); err != nil {
			return err
		}
		found[p.shape] = true
	}
	if len(found) < len(cacheShapes) {
		return fmt.Errorf("member %d has caches of %v only", member, found)
	}
	return nil
}

// followCache keeps a cache, and a copy that is made of its changes, for a while or until the member stops.
func (r *run) followCache(ctx context.Context, c *cacheCheck, i, shape int, m *zk.Member, src zk.SessionSource, random *rand.Rand) {
	watching, cancel := context.WithCancel(ctx)
	if r.ctx.Err() == nil && random.IntN(2) == 0 {
		watching, cancel = context.WithTimeout(ctx, millis(1000+random.IntN(10000)))
	}
	defer cancel()
	p := &cacheCopy{member: i, shape: shape, znodes: map[string]zk.Znode{}, removed: map[string]zk.Zxid{}}
	p.cache = recipes.NewCache(src, cacheShapes[shape].root)
	p.cache.Depth = cacheShapes[shape].depth
	defer p.cache.Close()
	start, stop := context.WithTimeout(watching, millis(1+random.IntN(3000)))
	err := p.cache.Start(start)
	stop()
	if err != nil {
		return
	}
	if src == zk.SessionSource(m) {
		c.mu.Lock()
		c.caches[p] = true
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.caches, p)
		}()
	}
	for ch, err := range p.cache.Changes(watching) {
		if err != nil {
			if watching.Err() == nil && src == zk.SessionSource(m) && !r.stops(m) { // 3.7: an expired session is not the end
				r.t.Errorf("member %d: the cache has ended: %v", i, err)
			}
			return
		}
		if err := errors.Join(p.apply(ch), c.seeCache(p)); err != nil {
			r.t.Errorf("member %d: %v", i, err)
		}
		if random.IntN(20) == 0 { // a slow consumer
			sleep(watching, millis(random.IntN(1500)))
		}
	}
}

// cacheClient changes what is cached, and looks whether the caches of its member show it.
func (r *run) cacheClient(c *cacheCheck, client int, random *rand.Rand) {
	for n := 0; r.idle(random, 2000); n++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Cache")
		ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(4000)))
		for range 1 + random.IntN(3) {
			if path, st, err := cacheWrite(ctx, s, fmt.Sprint(client, ".", n), random); err == nil {
				r.shownSoon(c, s, path, st)
			}
		}
		if err := c.seeTree(ctx, s); err != nil && ctx.Err() == nil && !errors.Is(err, zk.ErrViewExpired) && !errors.Is(err, zk.ErrClosed) && !errors.Is(err, zk.ErrSessionExpired) {
			r.t.Errorf("looking at %s: %v", cacheRoot, err)
		}
		cancel()
		if random.IntN(8) == 0 { // one more, for a moment, that ends with its session
			ctx, cancel := context.WithTimeout(r.ctx, millis(1+random.IntN(3000)))
			r.followCache(ctx, c, -1, random.IntN(len(cacheShapes)), s.Member(), s, random)
			cancel()
		}
	}
}

// cacheWrite changes something, and returns what was written.
func cacheWrite(ctx context.Context, s *zk.Session, data string, random *rand.Rand) (path string, st zk.Stat, err error) {
	path = fmt.Sprint(cacheRoot, "/", random.IntN(4))
	if random.IntN(2) == 0 {
		path += fmt.Sprint("/", random.IntN(3))
		if random.IntN(4) == 0 {
			path += "/x"
		}
	}
	mode := []zk.CreateMode{zk.Persistent, zk.Ephemeral}[random.IntN(2)]
	switch random.IntN(12) {
	case 0, 1, 2, 3:
		made, err := s.Create(ctx, path, []byte(data), mode|zk.Parents)
		return path, made.Stat, err
	case 4, 5, 6:
		st, err = s.Set(ctx, path, []byte(data), zk.AnyVersion)
		return path, st, err
	case 7, 8: // a new one with the same version (PEER-56)
		results, err := s.Txn(ctx, zk.OpDelete(path, zk.AnyVersion), zk.OpCreate(path, []byte(data), mode))
		if err == nil {
			st = results[1].Stat
		}
		return path, st, err
	case 9: // more at once than a watch has room for
		var ops []zk.Op
		for n := range 6 {
			if n > 0 {
				ops = append(ops, zk.OpDelete(path, zk.AnyVersion))
			}
			ops = append(ops, zk.OpCreate(path, fmt.Append(nil, data, n), mode))
		}
		results, err := s.Txn(ctx, ops...)
		if err == nil {
			st = results[len(results)-1].Stat
		}
		return path, st, err
	case 10:
		if random.IntN(3) == 0 {
			path = cacheRoot
		}
		return path, st, s.DeleteTree(ctx, path)
	}
	return path, st, s.Delete(ctx, path, zk.AnyVersion)
}

// shownSoon checks that what was written through a member is in its caches at once, by the clock of the simulation, or soon
// if views have to be taken anew (CACHE-L1).
func (r *run) shownSoon(c *cacheCheck, s *zk.Session, path string, st zk.Stat) {
	c.mu.Lock()
	copies := slices.Collect(maps.Keys(c.caches))
	c.mu.Unlock()
	for _, p := range copies {
		if r.member(p.member) != s.Member() || st.Mzxid == 0 || !covers(p.shape, path) {
			continue
		}
		for end := time.Now().Add(time.Second); p.cache.Zxid() < st.Mzxid && p.cache.Err() == nil && s.Err() == nil && r.dir == ""; {
			if !time.Now().Before(end) {
				r.t.Errorf("member %d: %s was written at %v, its cache of %+v is of %v", p.member, path, st.Mzxid, cacheShapes[p.shape], p.cache.Zxid())
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestCacheChecker(t *testing.T) {
	for _, j := range []struct {
		name   string
		ok     bool
		images []image
	}{
		{"in order", true, []image{{9, "b", "x"}, {1, "a", "x"}, {3, "a", "x"}, {5, "b", "x"}}},
		{"gone and back", true, []image{{1, "a", "x"}, {2, "", "x"}, {3, "b", "x"}, {4, "", "x"}}},
		{"late", false, []image{{1, "a", "x"}, {5, "b", "x"}, {6, "a", "x"}}},
		{"early", false, []image{{1, "a", "x"}, {3, "b", "x"}, {4, "a", "x"}}},
		{"two at one moment", false, []image{{3, "b", "x"}, {3, "a", "x"}}},
		{"gone, and unchanged", false, []image{{1, "a", "x"}, {2, "", "x"}, {3, "a", "x"}}},
	} {
		if err := torn(j.images); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
	z := func(path string, czxid, mzxid zk.Zxid) zk.Znode {
		return zk.Znode{Path: path, Stat: zk.Stat{Czxid: czxid, Mzxid: mzxid}}
	}
	a, b, c := z("/cache/0", 1, 1), z("/cache/0", 1, 5), z("/cache/0", 7, 7)
	below := z("/cache/0/1", 2, 2)
	for _, j := range []struct {
		name string
		ok   bool
		list []recipes.Change
	}{
		{"a life", true, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: a}, {Kind: recipes.Updated, Path: a.Path, Old: a, New: b}, {Kind: recipes.Removed, Path: a.Path, Old: b}, {Kind: recipes.Added, Path: a.Path, New: c}}},
		{"added twice", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: a}, {Kind: recipes.Added, Path: a.Path, New: c}}},
		{"an update is lost", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: a}, {Kind: recipes.Removed, Path: a.Path, Old: b}}},
		{"an update backwards", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: b}, {Kind: recipes.Updated, Path: a.Path, Old: b, New: a}}},
		{"an update of another one", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: a}, {Kind: recipes.Updated, Path: a.Path, Old: a, New: c}}},
		{"removed, and was not there", false, []recipes.Change{{Kind: recipes.Removed, Path: a.Path, Old: a}}},
		{"back from the past", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: c}, {Kind: recipes.Removed, Path: a.Path, Old: c}, {Kind: recipes.Added, Path: a.Path, New: a}}},
		{"removed before its children", false, []recipes.Change{{Kind: recipes.Added, Path: a.Path, New: a}, {Kind: recipes.Added, Path: below.Path, New: below}, {Kind: recipes.Removed, Path: a.Path, Old: a}}},
	} {
		p := &cacheCopy{znodes: map[string]zk.Znode{}, removed: map[string]zk.Zxid{}}
		var err error
		for _, ch := range j.list {
			err = errors.Join(err, p.apply(ch))
		}
		if (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
	p := &cacheCopy{shape: 2, cache: &recipes.Cache{}, znodes: map[string]zk.Znode{a.Path: a}}
	for _, want := range [][]zk.Znode{{b}, {}, {a, below}, {a}} {
		if p.differs(want) == nil { // the last one is not in the cache itself
			t.Errorf("a copy with %+v is taken for %+v", a, want)
		}
	}
}
