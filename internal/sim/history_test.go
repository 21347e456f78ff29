// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// history records operations for porcupine. An operation whose outcome stays unknown is open to the end: it may
// take effect at any later time.
type history struct {
	began time.Time

	mu     sync.Mutex
	ops    []porcupine.Operation
	events []string
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// forever is when unknown operations return.
const forever = int64(1) << 62

func (h *history) add(client int, call int64, in, out any, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: returned})
}

func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, fmt.Sprintf("%12v  ", time.Since(h.began))+fmt.Sprintf(format, args...))
}

// registers is the model of znodes written by compare-and-set, one per key: the state is version and value.
type (
	registerIn struct {
		key     string
		write   bool
		version int32 // expected; -1 for any
		value   string
	}
	registerOut struct {
		unknown bool
		refused bool // the version did not match
		version int32
		value   string
	}
	register struct {
		version int32
		value   string
	}
)

var registers = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range ops {
			k := o.Input.(registerIn).key
			byKey[k] = append(byKey[k], o)
		}
		var parts [][]porcupine.Operation
		for _, p := range byKey {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(register), input.(registerIn), output.(registerOut)
		if !in.write {
			return out.unknown || out.version == s.version && out.value == s.value, s
		}
		matches := in.version == -1 || in.version == s.version
		next := register{s.version + 1, in.value}
		switch {
		case out.unknown:
			// Applied or not: where it was not applied, or did not match, porcupine may put it at the very end.
			if matches {
				return true, next
			}
			return true, s
		case out.refused:
			return !matches, s
		}
		return matches && out.version == next.version, next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// transfers is the model of transactions over all accounts at once: money moves, none is made.
type (
	transferIn struct {
		read           bool
		from, to       int
		fromVer, toVer int32
		amount         int
	}
	transferOut struct {
		unknown, refused bool
		balances         [accounts]int
		versions         [accounts]int32
	}
	bank struct {
		balances [accounts]int
		versions [accounts]int32
	}
)

const (
	accounts = 4
	deposit  = 100
)

var transfers = porcupine.Model{
	Init: func() any {
		var b bank
		for i := range b.balances {
			b.balances[i] = deposit
		}
		return b
	},
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(bank), input.(transferIn), output.(transferOut)
		if in.read {
			return out.unknown || out.balances == s.balances && out.versions == s.versions, s
		}
		matches := s.versions[in.from] == in.fromVer && s.versions[in.to] == in.toVer
		if out.refused {
			return !matches, s
		}
		if !matches {
			return out.unknown, s
		}
		s.balances[in.from] -= in.amount
		s.balances[in.to] += in.amount
		s.versions[in.from]++
		s.versions[in.to]++
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}
