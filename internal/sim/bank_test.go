// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/seed-541fafe0/zk"
)

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
	DescribeOperation: describe,
}

// bankClient moves money between two accounts in one transaction, under the versions it has seen.
func (r *run) bankClient(client int, random *rand.Rand) {
	for r.idle(random, 1700) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("View and Txn")
		ctx, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(4000)))
		call := r.bank.now()
		var out transferOut
		err = s.View(ctx, func(v *zk.View) error {
			for i := range accounts {
				z, err := v.Get(fmt.Sprint("/bank/", i))
				if err != nil {
					return err
				}
				out.versions[i] = z.Stat.Version
				if out.balances[i], err = strconv.Atoi(z.Data); err != nil {
					return err
				}
			}
			return nil
		}, zk.Linearizable)
		if err == nil {
			r.bank.add(client, call, transferIn{read: true}, out, r.bank.now())
			in := transferIn{from: random.IntN(accounts), amount: 1 + random.IntN(10)}
			in.to = (in.from + 1 + random.IntN(accounts-1)) % accounts
			in.fromVer, in.toVer = out.versions[in.from], out.versions[in.to]
			call = r.bank.now()
			_, err = s.Txn(ctx,
				zk.OpSet(fmt.Sprint("/bank/", in.from), []byte(strconv.Itoa(out.balances[in.from]-in.amount)), in.fromVer),
				zk.OpSet(fmt.Sprint("/bank/", in.to), []byte(strconv.Itoa(out.balances[in.to]+in.amount)), in.toVer))
			switch {
			case err == nil:
				r.bank.add(client, call, in, transferOut{}, r.bank.now())
			case errors.Is(err, zk.ErrBadVersion):
				r.bank.add(client, call, in, transferOut{refused: true}, r.bank.now())
			case zk.MaybeApplied(err):
				r.bank.add(client, call, in, transferOut{unknown: true}, forever)
			}
		}
		cancel()
	}
}

func TestBankChecker(t *testing.T) {
	move := transferIn{from: 0, to: 1, amount: 5}
	whole := transferOut{balances: [accounts]int{95, 105, 100, 100}, versions: [accounts]int32{1, 1}}
	half := transferOut{balances: [accounts]int{95, 100, 100, 100}, versions: [accounts]int32{1}}
	judge(t, transfers, []judged{
		{"a transfer", true, []porcupine.Operation{did(1, 2, move, transferOut{}), did(3, 4, transferIn{read: true}, whole)}},
		{"half a transfer", false, []porcupine.Operation{did(1, 2, move, transferOut{}), did(3, 4, transferIn{read: true}, half)}},
		{"refused and done", false, []porcupine.Operation{did(1, 2, move, transferOut{refused: true}), did(3, 4, transferIn{read: true}, whole)}},
	})
}
