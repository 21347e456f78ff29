// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/seed-541fafe0/zk"
)

// Counter is a number that all members share: a sequence of ids, a total, a version.
//
// Layout: the znode PATH itself, its data as Encoding says: that of Curator's DistributedAtomicLong by default, of its
// SharedCount and DistributedAtomicInteger, or of kazoo's Counter. PATH-lock is a line that is used after several
// conflicts, empty otherwise.
//
// Cost: Get is a local read. Add is one write for all calls that wait on one Counter at the time: share one among the
// goroutines of a process, and only processes contend. Set and CompareAndSwap are one write each; a CompareAndSwap that
// does not swap is one round of messages. A conflict costs one more write. Watch is one local watch, of data
// and children, which zk.Stats counts as two (WT-39).
//
// Every change takes effect once, whatever happens to leaders meanwhile (CNT-S1, CNT-S2). A call whose context ends may
// have taken effect: zk.MaybeApplied tells. To count what happens only a few times a day, Add is fine; to number what
// happens a thousand times a second, take a Block.
type Counter struct {
	noCopy noCopy

	Session  zk.SessionSource
	Path     string
	Encoding Encoding
	Initial  int64 // the value while there is no znode, or empty data; it is written with the first change only

	mu      sync.Mutex // guards the fields below
	waiting []*addition
	adding  bool // a goroutine carries them out
}

// NewCounter returns the counter at path.
func NewCounter(s zk.SessionSource, path string) *Counter { return &Counter{Session: s, Path: path} }

// Encoding says how a Counter is stored.
type Encoding uint8

const (
	// Int64BE is eight bytes, big-endian: Curator's DistributedAtomicLong. It is the default.
	Int64BE Encoding = iota
	// Int32BE is four bytes, big-endian: Curator's SharedCount and DistributedAtomicInteger.
	Int32BE
	// ASCII is decimal text: kazoo's Counter.
	ASCII
)

// String names the encoding.
func (e Encoding) String() string {
	if e <= ASCII {
		return [...]string{"int64", "int32", "ascii"}[e]
	}
	return "unknown"
}

// fits tells whether the encoding has room for v.
func (e Encoding) fits(v int64) bool { return e != Int32BE || int64(int32(v)) == v }

func (e Encoding) encode(v int64) []byte {
	switch e {
	case Int32BE:
		return binary.BigEndian.AppendUint32(nil, uint32(v))
	case ASCII:
		return strconv.AppendInt(nil, v, 10)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(v))
}

func (e Encoding) decode(data string) (int64, error) {
	switch {
	case e == ASCII:
		return strconv.ParseInt(data, 10, 64)
	case e == Int32BE && len(data) == 4:
		return int64(int32(binary.BigEndian.Uint32([]byte(data)))), nil
	case e == Int64BE && len(data) == 8:
		return int64(binary.BigEndian.Uint64([]byte(data))), nil
	}
	return 0, fmt.Errorf("%d bytes are not encoded as %v", len(data), e)
}

// plus adds; false where the encoding has no room for the sum.
func (e Encoding) plus(v, delta int64) (int64, bool) {
	if delta > 0 && v > math.MaxInt64-delta || delta < 0 && v < math.MinInt64-delta {
		return v, false
	}
	return v + delta, e.fits(v + delta)
}

func (c *Counter) decode(z zk.Znode) (int64, error) {
	if z.Data == "" {
		return c.Initial, nil
	}
	v, err := c.Encoding.decode(z.Data)
	if err != nil {
		return 0, &DecodeError{z.Path, z.Stat.Mzxid, err}
	}
	return v, nil
}

// begin is the first step of every call.
func (c *Counter) begin(ctx context.Context, op string, values ...int64) (*zk.Session, error) {
	s, err := session(ctx, c.Session, op, c.Path)
	if err != nil {
		return nil, err
	}
	if c.Encoding > ASCII {
		return nil, badArgument(op, c.Path, "unknown encoding")
	}
	for _, v := range append(values, c.Initial) {
		if !c.Encoding.fits(v) {
			return nil, c.overflow(v, 0)
		}
	}
	return s, nil
}

func (c *Counter) overflow(v, delta int64) error {
	return fmt.Errorf("%w: %d%+d at %s does not fit into %v", ErrOverflow, v, delta, c.Path, c.Encoding)
}

// Get returns the value as this member knows it, which may be behind others: Initial while there is no znode. Errors:
// *DecodeError for what is stored, and those of every read.
func (c *Counter) Get(ctx context.Context) (int64, error) {
	s, err := c.begin(ctx, "get counter")
	if err != nil {
		return 0, err
	}
	z, err := peek(ctx, s, c.Path)
	if err != nil {
		return 0, err
	}
	return c.decode(z)
}

// Set writes the value, whatever is there, and creates the znode where there is none. Errors: ErrOverflow, and those of every
// write.
func (c *Counter) Set(ctx context.Context, v int64) error {
	s, err := c.begin(ctx, "set counter", v)
	if err != nil {
		return err
	}
	return put(ctx, s, c.Path, c.Encoding.encode(v))
}

// CompareAndSwap writes new if the value is old. That it is not is said of what was current after the call began.
// Errors: ErrOverflow, *DecodeError, and those of every write. Only if zk.MaybeApplied says so may a failed call have swapped.
func (c *Counter) CompareAndSwap(ctx context.Context, old, new int64) (swapped bool, err error) {
	s, err := c.begin(ctx, "compare and swap", new)
	if err != nil {
		return false, err
	}
	_, err = change(ctx, s, c.Path, func(z zk.Znode) ([]byte, bool, error) {
		v, err := c.decode(z)
		swapped = err == nil && v == old
		return c.Encoding.encode(new), swapped, err
	})
	return swapped && err == nil, err
}

// addition is one call of Add.
type addition struct {
	delta         int64
	before, after int64
	err           error
	batch         *batch // that carries it out; nil while it waits
	done          chan struct{}
}

// batch is the additions that one write carries out.
type batch struct {
	adds    []*addition
	callers int                // that still wait for it
	cancel  context.CancelFunc // called when nobody does
}

// Add adds delta, which may be negative, and returns the values before and after. Concurrent calls on one Counter are
// carried out by one write, in the order of the calls. Errors: ErrOverflow, for this call alone; *DecodeError for what
// is stored; and those of every write. Only if zk.MaybeApplied says so may a failed Add have counted.
func (c *Counter) Add(ctx context.Context, delta int64) (before, after int64, err error) {
	if _, err := c.begin(ctx, "add"); err != nil {
		return 0, 0, err
	}
	a := &addition{delta: delta, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, a)
	if !c.adding {
		c.adding = true
		go c.carryOut()
	}
	c.mu.Unlock()
	select {
	case <-a.done:
	case <-ctx.Done():
		if err := c.withdraw(ctx, a); err != nil {
			return 0, 0, err
		}
	}
	return a.before, a.after, a.err
}

// withdraw takes back an addition whose caller has had enough. It returns nil if it is done.
func (c *Counter) withdraw(ctx context.Context, a *addition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-a.done:
		return nil
	default:
	}
	err := &zk.Error{Op: "add", Path: c.Path, Code: zk.ErrUnavailable, Err: ended(ctx)}
	if a.batch == nil {
		for i, w := range c.waiting {
			if w == a {
				c.waiting = append(c.waiting[:i:i], c.waiting[i+1:]...)
				break
			}
		}
		return err
	}
	err.MaybeApplied = true
	if a.batch.callers--; a.batch.callers == 0 {
		a.batch.cancel()
	}
	return err
}

// carryOut carries out what waits until nothing does. It runs under no caller's context, because it works for all.
func (c *Counter) carryOut() {
	for {
		ctx, cancel := context.WithCancel(context.Background())
		c.mu.Lock()
		b := &batch{adds: c.waiting, callers: len(c.waiting), cancel: cancel}
		for _, a := range b.adds {
			a.batch = b
		}
		c.waiting = nil
		c.adding = len(b.adds) > 0
		c.mu.Unlock()
		if len(b.adds) == 0 {
			cancel()
			return
		}
		err := c.addAll(ctx, b.adds)
		cancel()
		c.mu.Lock()
		for _, a := range b.adds {
			if err != nil {
				a.err = err
			}
			if a.err != nil {
				a.before, a.after = 0, 0
			}
			close(a.done)
		}
		c.mu.Unlock()
	}
}

// addAll deals the values out in order. One that does not fit leaves the others alone.
func (c *Counter) addAll(ctx context.Context, adds []*addition) error {
	s, err := c.begin(ctx, "add")
	if err != nil {
		return err
	}
	_, err = change(ctx, s, c.Path, func(z zk.Znode) ([]byte, bool, error) {
		v, err := c.decode(z)
		if err != nil {
			return nil, false, err
		}
		write := false
		for _, a := range adds {
			next, ok := c.Encoding.plus(v, a.delta)
			if a.err = nil; !ok {
				a.err = c.overflow(v, a.delta)
				continue
			}
			a.before, a.after = v, next
			v, write = next, write || a.delta != 0
		}
		return c.Encoding.encode(v), write, nil
	})
	return err
}

// Watch yields the value, and again whenever it has changed, as Value.Watch does: the newest only, Initial while there
// is no znode, and a *DecodeError, after which it goes on, for what cannot be decoded. It ends as Value.Watch does.
func (c *Counter) Watch(ctx context.Context) iter.Seq2[int64, error] {
	return states(ctx, c.Session, "watch counter", c.Path, c.decode)
}

// Block is a range of a counter's values that belongs to whoever took it, for ever. It is safe for concurrent use.
type Block struct {
	noCopy noCopy

	first, size int64
	used        atomic.Int64
}

// Block takes a range of size values, at least one, with one Add. They are those that so many calls of Add(ctx, 1) would
// have returned as the value after. What is not used is lost with the Block. Errors: those of Add; zk.ErrBadArguments for a
// size below 1.
func (c *Counter) Block(ctx context.Context, size int64) (*Block, error) {
	if size < 1 {
		return nil, badArgument("block", c.Path, "a block has at least one value")
	}
	before, _, err := c.Add(ctx, size)
	if err != nil {
		return nil, err
	}
	return &Block{first: before + 1, size: size}, nil
}

// Next returns the next value of the block; false when it is used up. It is an addition in memory and never waits.
func (b *Block) Next() (v int64, ok bool) {
	if n := b.used.Load(); n >= b.size {
		return 0, false
	}
	n := b.used.Add(1)
	if n > b.size {
		return 0, false
	}
	return b.first + n - 1, true
}
