// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"cmp"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/zookeeper"
)

var (
	seeds     = flag.Int("wire.seeds", 200, "how many seeds TestDifference compares; 2,000 is the full size")
	firstSeed = flag.Uint64("wire.first", 1, "the first seed of TestDifference")
	stepCount = flag.Int("wire.steps", 60, "steps of a seed")
)

// observation is what one side showed of one step.
type observation struct {
	values
	header replyHeader
	closed bool
	events [2][]peerEvent
}

func (o *observation) String() string {
	return fmt.Sprintf("code %d xid %d closed %t events %v %v %s", o.header.code, o.header.xid, o.closed, o.events[0], o.events[1], strings.Join(o.text, " "))
}

// side is one of the two servers, with two sessions of a run.
type side struct {
	conns [2]*peerConn
	names map[zk.SessionID]string
	zxids []int64 // in the header of each step's reply, for setWatches
}

const sessionTimeout = 20 * time.Second

func newSide(addr string) (*side, error) {
	s := &side{names: map[zk.SessionID]string{0: "none"}}
	for i := range s.conns {
		s.conns[i] = &peerConn{addr: addr}
		if err := s.begin(i); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *side) begin(i int) error {
	if err := s.conns[i].connect(sessionTimeout); err != nil {
		return err
	}
	s.names[zk.SessionID(s.conns[i].session)] = fmt.Sprint("session ", i)
	return nil
}

func (s *side) name(id zk.SessionID) string { return cmp.Or(s.names[id], "a stranger") }

// end closes both sessions, so that nothing of the run expires later.
func (s *side) end() {
	for _, c := range s.conns {
		if c.conn != nil {
			c.ask(1, opCloseSession, nil)
			c.close()
		}
	}
}

// do performs a step and observes what it did, on both connections. Its error is a fault of the comparison.
func (s *side) do(st step, root string) (o observation, err error) {
	c, other := s.conns[st.who], s.conns[1-st.who]
	var own []peerEvent
	switch st.life {
	case reconnect:
		if err := s.begin(st.who); err != nil {
			return o, err
		}
	case renew:
		if o.header, _, own, err = c.ask(c.next(), opCloseSession, nil); err != nil {
			return o, err
		}
		if _, err := c.in.ReadByte(); err == nil {
			return o, fmt.Errorf("not closed after closeSession")
		}
		*c = peerConn{addr: c.addr, zxid: c.zxid}
		if err := s.begin(st.who); err != nil {
			return o, err
		}
		slices.SortFunc(own, func(a, b peerEvent) int { return strings.Compare(a.String(), b.String()) })
	default:
		xid := st.xid
		if xid == 0 {
			xid = c.next()
		}
		var since int64
		if n := len(s.zxids) - 1 - st.since; n >= 0 {
			since = s.zxids[n]
		}
		var body []byte
		o.header, body, own, err = c.ask(xid, st.op, st.body(root, since))
		o.closed = err != nil
		if err == nil && len(body) > 0 {
			o.reply(st.op, body, s.name)
		}
		if err == nil && o.header.code != 0 && st.mayClose() { // ZooKeeper closes some time after the answer
			for until := time.Now().Add(2 * time.Second); !o.closed && time.Now().Before(until); {
				more, err := c.flush()
				own = append(own, more...)
				o.closed = err != nil
			}
		}
		if o.closed {
			if err := s.begin(st.who); err != nil {
				return o, err
			}
		}
	}
	more, err := c.flush()
	if err != nil {
		return o, fmt.Errorf("ping: %w", err)
	}
	o.events[st.who] = append(own, more...)
	if o.events[1-st.who], err = other.flush(); err != nil {
		return o, fmt.Errorf("ping of the other session: %w", err)
	}
	if st.life == renew { // its ephemerals go in the order of a hash table there
		for i := range o.events {
			o.events[i] = sorted(o.events[i])
		}
	}
	s.zxids = append(s.zxids, c.zxid)
	return o, nil
}

func (p *peerConn) next() int32 {
	p.xid++
	return p.xid
}

// writes says whether the step may change the tree.
func (s step) writes() bool {
	switch s.op {
	case opCreate, opCreate2, opCreateContainer, opCreateTTL, opDelete, opSetData, opSetACL, opMulti:
		return s.life == asks
	}
	return false
}

// mayClose says whether the connection may end after the step's answer.
func (s step) mayClose() bool { return s.op == opAuth || !s.op.public() }

func (op opcode) public() bool {
	switch op {
	case opCreate, opDelete, opExists, opGetData, opSetData, opGetACL, opSetACL, opGetChildren, opSync, opPing, opGetChildren2, opMulti, opCreate2,
		opCheckWatches, opRemoveWatches, opCreateContainer, opCreateTTL, opMultiRead, opAuth, opSetWatches, opGetEphemerals, opCountChildren, opSetWatches2,
		opAddWatch, opWhoAmI:
		return true
	}
	return false
}

// order holds pairs of zxids that stand for the same moment on both sides, and finds one that breaks the order.
type order struct{ pairs [][2]int64 }

func (o *order) add(a, b int64) bool {
	for _, p := range o.pairs {
		if cmp.Compare(a, p[0]) != cmp.Compare(b, p[1]) {
			return false
		}
	}
	o.pairs = append(o.pairs, [2]int64{a, b})
	return true
}

// difference is the first step of a trace whose outcomes differ.
type difference struct {
	at        int
	step      step
	real, our observation
	what      string
}

var runs atomic.Int64 // names the root of each run

// tally says how much was compared, and how often an allowance explained a difference.
type tally struct {
	steps   int
	allowed map[string]int
}

func newTally() *tally { return &tally{allowed: map[string]int{}} }

// compare runs the steps on both servers. It returns the first difference that no allowance explains. Where an allowed
// one leaves two trees that differ, the steps that follow it run with new sessions below another root.
func compare(zookeeper, ours string, steps []step, t *tally) (*difference, error) {
	for from := 0; ; {
		first := []step{{op: opCreate, acl: zk.OpenACL()}}
		if from > 0 {
			first = append(first, firstSteps...)
		}
		n, d, err := compareFrom(zookeeper, ours, first, steps[from:], t)
		if err != nil || d != nil || from+n == len(steps) {
			if d != nil {
				d.at += from
			}
			return d, err
		}
		from += n
	}
}

// compareFrom runs steps after the first ones, until two trees differ by an allowed difference. It returns how many it ran.
func compareFrom(zookeeper, ours string, first, steps []step, t *tally) (int, *difference, error) {
	a, err := newSide(zookeeper)
	if err != nil {
		return 0, nil, err
	}
	defer a.end()
	b, err := newSide(ours)
	if err != nil {
		return 0, nil, err
	}
	defer b.end()
	root := fmt.Sprintf("/r%d", runs.Add(1))
	var moments order
	for i, st := range slices.Concat(first, steps) {
		ran := max(0, i+1-len(first))
		theirs, err := a.do(st, root)
		if err != nil {
			return 0, nil, fmt.Errorf("ZooKeeper, step %d, %v: %w", ran, st, err)
		}
		mine, err := b.do(st, root)
		if err != nil {
			return 0, nil, fmt.Errorf("zk, step %d, %v: %w", ran, st, err)
		}
		t.steps++
		what := ""
		switch {
		case theirs.closed != mine.closed:
			what = "closed"
		case !theirs.closed && theirs.header.code != mine.header.code:
			what = "code"
		case !theirs.closed && theirs.header.xid != mine.header.xid:
			what = "xid"
		case !slices.Equal(theirs.text, mine.text):
			what = "answer"
		case !slices.Equal(theirs.events[0], mine.events[0]) || !slices.Equal(theirs.events[1], mine.events[1]):
			what = "events"
		case len(theirs.zxids) != len(mine.zxids):
			what = "zxids"
		default:
			for k := range theirs.zxids {
				if !moments.add(theirs.zxids[k], mine.zxids[k]) {
					what = "order of zxids"
				}
			}
		}
		if what == "" {
			continue
		}
		d := &difference{ran, st, theirs, mine, what}
		allowed := ""
		for _, l := range allowances {
			if l.match(d) {
				allowed = l.id
				break
			}
		}
		if allowed == "" {
			return ran, d, nil
		}
		t.allowed[allowed]++
		if st.writes() {
			return ran, nil, nil
		}
	}
	return len(steps), nil, nil
}

// shrink removes steps as long as a difference of the same kind remains.
func shrink(zookeeper, ours string, steps []step, d *difference) ([]step, *difference) {
	steps = steps[:min(d.at, len(steps))]
	for size := max(1, len(steps)/2); ; size /= 2 {
		for from := 0; from < len(steps); {
			less := slices.Delete(slices.Clone(steps), from, min(from+size, len(steps)))
			if e, err := compare(zookeeper, ours, less, newTally()); err == nil && e != nil && e.what == d.what {
				steps, d = less[:min(e.at, len(less))], e
			} else {
				from += size
			}
		}
		if size <= 1 {
			return steps, d
		}
	}
}

func (d *difference) report(seed uint64, steps []step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s differs\n", seed, d.what)
	for i, s := range steps {
		fmt.Fprintf(&b, "  %2d. %v\n", i+1, s)
	}
	fmt.Fprintf(&b, "  ZooKeeper: %v\n  zk:        %v", &d.real, &d.our)
	return b.String()
}

// firstSteps give the others something to work on.
var firstSteps = func() (steps []step) {
	for _, path := range []string{"/a", "/a/a", "/b"} {
		steps = append(steps, step{op: opCreate, path: path, data: []byte("first"), acl: zk.OpenACL()})
	}
	return steps
}()

func stepsOf(seed uint64, n int) (steps []step) {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0x7a6b))}
	steps = slices.Clone(firstSteps)
	for range n {
		steps = append(steps, g.step())
	}
	return steps
}

// realZooKeeper starts the server to compare with; a machine without it skips the test, where CI has it.
func realZooKeeper(t *testing.T) string {
	t.Helper()
	if err := zookeeper.Installed(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := zookeeper.Start(ctx, zookeeper.Options{Config: []string{"globalOutstandingLimit=10000"}, Properties: []string{"znode.container.checkIntervalMs=86400000", "zookeeper.snapCount=10000000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s.Addr
}

// ourServer serves a single member's port.
func ourServer(t *testing.T) string {
	t.Helper()
	m, err := zk.Open(t.Context(), zk.Config{ReapInterval: 24 * time.Hour, MaxTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Member: m, Limits: Limits{PerAddress: -1}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		<-done
	})
	return l.Addr().String()
}

// TestDifference asks a real ZooKeeper and zk the same, and compares every answer, error, Stat, name and event. What
// may differ is in allowances, which docs/compatibility.md lists.
func TestDifference(t *testing.T) {
	theirs, ours := realZooKeeper(t), ourServer(t)
	if testing.Short() {
		*seeds = min(*seeds, 20)
	}
	var (
		work   sync.WaitGroup
		mu     sync.Mutex
		failed bool
		sum    = newTally()
		next   atomic.Uint64
		ran    atomic.Int64
		began  = time.Now()
	)
	for range 4 {
		work.Go(func() {
			for {
				n := next.Add(1) - 1
				mu.Lock()
				stop := failed
				mu.Unlock()
				if n >= uint64(*seeds) || stop {
					return
				}
				seed := *firstSeed + n
				steps := stepsOf(seed, *stepCount)
				mine := newTally()
				d, err := compare(theirs, ours, steps, mine)
				ran.Add(1)
				mu.Lock()
				sum.steps += mine.steps
				for id, n := range mine.allowed {
					sum.allowed[id] += n
				}
				first := !failed
				failed = failed || d != nil || err != nil
				mu.Unlock()
				switch {
				case err != nil:
					t.Errorf("seed %d: %v", seed, err)
				case d != nil && first:
					less, e := shrink(theirs, ours, steps, d)
					t.Error(e.report(seed, less))
				}
			}
		})
	}
	work.Wait()
	t.Logf("%d seeds, %d steps, %.0f steps/s on each server; differences allowed: %v", ran.Load(), sum.steps, float64(sum.steps)/time.Since(began).Seconds(), sum.allowed)
}

// TestDifferenceIsSeen puts a liar between the comparison and zk: one that adds one to a Stat's version, one that
// swallows an event, one that answers a set with another code.
func TestDifferenceIsSeen(t *testing.T) {
	theirs, ours := realZooKeeper(t), ourServer(t)
	for name, lie := range map[string]func(frame []byte) []byte{
		"a version": func(f []byte) []byte {
			if len(f) == replyHeaderSize+statSize && f[replyHeaderSize+35] == 1 {
				f[replyHeaderSize+35]++
			}
			return f
		},
		"an event": func(f []byte) []byte {
			if int32(binary.BigEndian.Uint32(f)) == xidEvent {
				return nil
			}
			return f
		},
		"a code": func(f []byte) []byte {
			if len(f) == replyHeaderSize && int32(binary.BigEndian.Uint32(f[12:])) == int32(zk.ErrBadVersion) {
				binary.BigEndian.PutUint32(f[12:], 0xffffffff&uint32(0xffffff92)) // -110
			}
			return f
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			liar := lyingProxy(t, ours, lie)
			for seed := uint64(1); seed < 60; seed++ {
				steps := stepsOf(seed, *stepCount)
				d, err := compare(theirs, liar, steps, newTally())
				if err != nil {
					t.Fatal(err)
				}
				if d == nil {
					continue
				}
				less, e := shrink(theirs, liar, steps, d)
				t.Logf("caught:\n%s", e.report(seed, less))
				if len(less) > 6 {
					t.Errorf("the trace was shrunk to %d steps only", len(less))
				}
				return
			}
			t.Error("not caught in 60 seeds")
		})
	}
}

// lyingProxy passes frames through, changed by lie on the way to the client; nil drops one.
func lyingProxy(t *testing.T, to string, lie func([]byte) []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			work.Go(func() {
				io.Copy(s, c)
				s.Close()
			})
			work.Go(func() {
				defer c.Close()
				p := &peerConn{conn: s, in: nil}
				for first := true; ; first = false {
					var head [4]byte
					if _, err := io.ReadFull(s, head[:]); err != nil {
						return
					}
					frame := make([]byte, binary.BigEndian.Uint32(head[:]))
					if _, err := io.ReadFull(s, frame); err != nil {
						return
					}
					if !first {
						frame = lie(frame)
					}
					p.conn = c
					if frame != nil && p.send(frame) != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return l.Addr().String()
}

// TestAllowances holds docs/compatibility.md to the code: its table names the same differences, with the same rules.
func TestAllowances(t *testing.T) {
	text, err := os.ReadFile("../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|.*\\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = m[2]
	}
	for _, a := range allowances {
		if rule, ok := listed[a.id]; !ok {
			t.Errorf("%s is allowed and not in the table", a.id)
		} else if rule != a.rule {
			t.Errorf("%s: the table says %q, the code %q", a.id, rule, a.rule)
		}
		delete(listed, a.id)
	}
	for id := range listed {
		t.Errorf("%s is in the table and not allowed", id)
	}
}
