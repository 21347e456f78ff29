// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
)

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

const registerKeys = 5

var registers = porcupine.Model{
	Partition: partition(func(in registerIn) string { return in.key }),
	Init:      func() any { return register{} },
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
	DescribeOperation: describe,
}

func (r *run) registerClient(client int, random *rand.Rand) {
	for i := 0; r.idle(random, 600); i++ {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Get and Set")
		key := fmt.Sprint("/register/", random.IntN(registerKeys))
		ctx, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(4000)))
		in := registerIn{key: key}
		call := r.registers.now()
		value, st, err := s.GetString(ctx, key, zk.Linearizable)
		if err == nil {
			r.stamps.see(st)
			r.registers.add(client, call, in, registerOut{version: st.Version, value: value}, r.registers.now())
			if random.IntN(2) == 0 {
				in = registerIn{key: key, write: true, version: st.Version, value: fmt.Sprintf("%d.%d", client, i)}
				if random.IntN(4) == 0 {
					in.version = -1
				}
				call = r.registers.now()
				st, err := s.Set(ctx, key, []byte(in.value), in.version)
				switch {
				case err == nil:
					r.stamps.see(st)
					r.registers.add(client, call, in, registerOut{version: st.Version}, r.registers.now())
				case errors.Is(err, zk.ErrBadVersion):
					r.registers.add(client, call, in, registerOut{refused: true}, r.registers.now())
				case zk.MaybeApplied(err):
					r.registers.add(client, call, in, registerOut{unknown: true}, forever)
				}
			}
		}
		cancel()
	}
}

func TestRegisterChecker(t *testing.T) {
	write := registerIn{key: "a", write: true, value: "x"}
	read := registerIn{key: "a"}
	judge(t, registers, []judged{
		{"a write and a read", true, []porcupine.Operation{did(1, 2, write, registerOut{version: 1}), did(3, 4, read, registerOut{version: 1, value: "x"})}},
		{"a stale read", false, []porcupine.Operation{did(1, 2, write, registerOut{version: 1}), did(3, 4, read, registerOut{})}},
		{"a lost update", false, []porcupine.Operation{did(1, 2, write, registerOut{version: 1}), did(3, 4, write, registerOut{version: 1})}},
		{"unknown, then seen, then unseen", false, []porcupine.Operation{
			did(1, forever, write, registerOut{unknown: true}), did(3, 4, read, registerOut{version: 1, value: "x"}), did(5, 6, read, registerOut{}),
		}},
	})
}
