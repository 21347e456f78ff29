// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// sharing is the model of a Value: what was written last, "" where there is no znode. Nothing is written twice.
type (
	valueStep uint8
	valueIn   struct {
		step     valueStep
		from, to string
	}
	valueOut struct{ unknown, refused bool }
)

const (
	valueRead  valueStep = iota // it is from
	valueSet                    // it becomes to
	valueSwap                   // from becomes to; refused: it is not from
	valueClear                  // the znode is deleted; refused: there is none
)

func (in valueIn) String() string {
	return fmt.Sprintf("%s %q %q", [...]string{"read", "set", "swap", "clear"}[in.step], in.from, in.to)
}

var sharing = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(valueIn), output.(valueOut)
		switch in.step {
		case valueRead:
			return now == in.from, now
		case valueSet:
			return true, in.to
		case valueClear:
			return out.unknown || out.refused == (now == ""), ""
		}
		switch { // VAL-S2
		case out.refused:
			return now != in.from, now
		case out.unknown && now != in.from:
			return true, now
		}
		return now == in.from, in.to
	},
	DescribeOperation: describe,
}

// valueCheck knows what was done to a Value, and what those who watch it were shown.
type valueCheck struct {
	h *history

	mu      sync.Mutex
	written map[string]zk.Zxid // what a reader has found out
	streams []*valueStream
	errs    []error
}

// valueStream is one Watch.
type valueStream struct {
	member int
	open   bool
	shown  []string
}

const valuePath = "/value"

// note keeps the zxid of a value, which is the same wherever it is read.
func (c *valueCheck) note(value string, z zk.Zxid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.written[value]; ok && before != z {
		c.errs = append(c.errs, fmt.Errorf("%q was written at %v and at %v", value, before, z))
	}
	c.written[value] = z
}

func (c *valueCheck) begin(member int) *valueStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &valueStream{member: member, open: true}
	c.streams = append(c.streams, s)
	return s
}

func (c *valueCheck) show(s *valueStream, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.shown = append(s.shown, value)
}

func (c *valueCheck) ended(s *valueStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.open = false
}

// backwards finds a stream that shows the same twice, or something older than before (VAL-S1).
func backwards(streams []*valueStream, written map[string]zk.Zxid) error {
	for _, s := range streams {
		var last zk.Zxid
		seen := map[string]bool{}
		for n, v := range s.shown {
			z := written[v]
			if n > 0 && v == s.shown[n-1] || v != "" && seen[v] || z != 0 && z < last {
				return fmt.Errorf("member %d: %q of %v is shown after %q (of %v) in %q", s.member, v, z, s.shown[max(0, n-1)], last, s.shown)
			}
			seen[v], last = true, max(last, z)
		}
	}
	return nil
}

// lags finds a member of which no stream has come to the last value (VAL-L1).
func (c *valueCheck) lags(members []int, last string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range members {
		ok := false
		for _, s := range c.streams {
			ok = ok || s.open && s.member == i && len(s.shown) > 0 && s.shown[len(s.shown)-1] == last
		}
		if !ok {
			return fmt.Errorf("member %d: no stream shows %q", i, last)
		}
	}
	return nil
}

var errUnwanted = errors.New("not this one")

func (r *run) valuePart() part {
	c := &valueCheck{h: newHistory(), written: map[string]zk.Zxid{}}
	following := r.lasting()
	return part{"Value", 3, func(client int, random *rand.Rand) {
		if client == 0 {
			following.onEach(r, func(i int, m *zk.Member, random *rand.Rand) {
				r.followValue(following.ctx, c, i, m, random)
			})
		}
		r.valueClient(c, client, random)
	}, func(ctx context.Context, s *zk.Session) error {
		call := c.h.now()
		last, st, err := recipes.NewValue[string](s, valuePath).Get(ctx)
		if err != nil {
			return err
		}
		c.note(last, st.Mzxid)
		c.h.add(-1, call, valueIn{step: valueRead, from: last}, valueOut{}, c.h.now())
		if err := r.eventually(ctx, func() error { return c.lags(r.members(), last) }); err != nil {
			return err
		}
		following.end()
		r.linearizable("value", sharing, c.h)
		c.mu.Lock()
		defer c.mu.Unlock()
		return errors.Join(append(c.errs, backwards(c.streams, c.written), r.watched(ctx, valuePath))...) // VAL-L2
	}}
}

// followValue watches the value on one member for a while, or until that is over. Some consumers are slow.
func (r *run) followValue(ctx context.Context, c *valueCheck, i int, m *zk.Member, random *rand.Rand) {
	watching, cancel := ctx, context.CancelFunc(func() {})
	if r.ctx.Err() == nil && random.IntN(2) == 0 {
		watching, cancel = context.WithTimeout(ctx, millis(1000+random.IntN(10000)))
	}
	defer cancel()
	stream := c.begin(i)
	defer c.ended(stream)
	for x, err := range recipes.NewValue[string](m, valuePath).Watch(watching) {
		if err != nil {
			if watching.Err() == nil && !r.stops(m) { // 3.7: an expired session is not the end
				r.t.Errorf("member %d: the stream of values has ended: %v", i, err)
			}
			return
		}
		c.show(stream, x)
		if random.IntN(10) == 0 {
			sleep(watching, millis(random.IntN(1000)))
		}
	}
}

func (r *run) valueClient(c *valueCheck, client int, random *rand.Rand) {
	for n := 0; r.idle(random, 1500); n++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Value")
		src := zk.SessionSource(s)
		if random.IntN(2) == 0 {
			src = s.Member()
		}
		ctx, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(4000)))
		r.useValue(ctx, c, client, recipes.NewValue[string](src, valuePath), s, fmt.Sprintf("%d.%d", client, n), random)
		cancel()
	}
}

// useValue does one thing to the value.
func (r *run) useValue(ctx context.Context, c *valueCheck, client int, v *recipes.Value[string], s *zk.Session, next string, random *rand.Rand) {
	in, call := valueIn{to: next}, c.h.now()
	did := func(err error) {
		switch {
		case err == nil:
			c.h.add(client, call, in, valueOut{}, c.h.now())
		case zk.MaybeApplied(err):
			c.h.add(client, call, in, valueOut{unknown: true}, forever)
		}
	}
	switch random.IntN(8) {
	case 0, 1, 2:
		in.step = valueSwap
		now, err := v.Update(ctx, func(old string) (string, error) {
			in.from = old
			return next, nil
		})
		if err == nil && now != next {
			r.t.Errorf("the value was updated to %q, and is %q", next, now)
		}
		did(err)
	case 3: // what is refused is what was current
		in.step = valueRead
		_, err := v.Update(ctx, func(old string) (string, error) {
			in.from = old
			return "", errUnwanted
		})
		if errors.Is(err, errUnwanted) {
			did(nil)
		}
	case 4:
		in.step = valueSet
		did(v.Set(ctx, next))
	case 5: // perhaps of the past
		in.step = valueSwap
		old, st, err := v.Get(ctx)
		if err != nil {
			return
		}
		c.note(old, st.Mzxid)
		sleep(ctx, millis(random.IntN(300)))
		in.from, call = old, c.h.now()
		if err = v.SetIf(ctx, next, st); errors.Is(err, zk.ErrBadVersion) {
			c.h.add(client, call, in, valueOut{refused: true}, c.h.now())
			return
		}
		did(err)
	case 6:
		in.step = valueRead
		if s.Sync(ctx) != nil {
			return
		}
		old, st, err := v.Get(ctx)
		if err == nil {
			in.from = old
			c.note(old, st.Mzxid)
			did(nil)
		}
	case 7: // an operator
		in.step = valueClear
		err := s.Delete(ctx, valuePath, zk.AnyVersion)
		if errors.Is(err, zk.ErrNoNode) {
			c.h.add(client, call, in, valueOut{refused: true}, c.h.now())
			return
		}
		did(err)
	}
	if now, st, err := v.Get(ctx); err == nil {
		c.note(now, st.Mzxid)
	}
}

func TestValueChecker(t *testing.T) {
	in := func(step valueStep, from, to string) valueIn { return valueIn{step, from, to} }
	first := did(1, 2, in(valueSwap, "", "a"), valueOut{})
	judge(t, sharing, []judged{
		{"one after the other", true, []porcupine.Operation{
			first, did(3, 4, in(valueSet, "", "b"), valueOut{}), did(5, 6, in(valueSwap, "a", "c"), valueOut{refused: true}), did(7, 8, in(valueSwap, "b", "d"), valueOut{}), did(9, 10, in(valueRead, "d", ""), valueOut{}),
		}},
		{"deleted", true, []porcupine.Operation{first, did(3, 4, in(valueClear, "", ""), valueOut{}), did(5, 6, in(valueClear, "", ""), valueOut{refused: true}), did(7, 8, in(valueRead, "", ""), valueOut{})}},
		{"unknown, and applied", true, []porcupine.Operation{first, did(3, forever, in(valueSwap, "a", "b"), valueOut{unknown: true}), did(5, 6, in(valueRead, "b", ""), valueOut{})}},
		{"unknown, and not applied", true, []porcupine.Operation{first, did(3, forever, in(valueSwap, "a", "b"), valueOut{unknown: true}), did(5, 6, in(valueRead, "a", ""), valueOut{})}},
		{"an update is lost", false, []porcupine.Operation{first, did(3, 6, in(valueSwap, "a", "b"), valueOut{}), did(4, 5, in(valueSwap, "a", "c"), valueOut{})}},
		{"refused, and nobody was there", false, []porcupine.Operation{first, did(3, 4, in(valueSwap, "a", "b"), valueOut{refused: true})}},
		{"a read of the past", false, []porcupine.Operation{first, did(3, 4, in(valueSet, "", "b"), valueOut{}), did(5, 6, in(valueRead, "a", ""), valueOut{})}},
		{"deleted, and there", false, []porcupine.Operation{first, did(3, 4, in(valueClear, "", ""), valueOut{}), did(5, 6, in(valueRead, "a", ""), valueOut{})}},
	})
	written := map[string]zk.Zxid{"a": 1, "b": 5, "c": 9}
	for _, j := range []struct {
		name  string
		ok    bool
		shown []string
	}{
		{"in order", true, []string{"", "a", "c"}},
		{"deleted at times", true, []string{"a", "", "b", "", "c"}},
		{"not known when", true, []string{"a", "x", "b"}},
		{"backwards", false, []string{"b", "a"}},
		{"backwards after a deletion", false, []string{"b", "", "a"}},
		{"again", false, []string{"x", "", "x"}},
		{"the same", false, []string{"a", "", ""}},
	} {
		if err := backwards([]*valueStream{{shown: j.shown}}, written); (err == nil) != j.ok {
			t.Errorf("%s: %v", j.name, err)
		}
	}
	c := &valueCheck{streams: []*valueStream{{member: 0, open: true, shown: []string{"a", "c"}}, {member: 1, shown: []string{"c"}}, {member: 1, open: true, shown: []string{"b"}}}}
	if err := c.lags([]int{0}, "c"); err != nil {
		t.Error(err)
	}
	if c.lags([]int{0, 1}, "c") == nil {
		t.Error("nobody sees that a stream has stopped")
	}
}
