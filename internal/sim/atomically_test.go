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
	"github.com/seed-541fafe0/zk/recipes"
)

// purses is how many znodes transactions move coins between. An empty purse does not exist.
const (
	purses = 4
	coins  = 10 // there are from the beginning, all in the first purse
)

// serial is the model of transactions that read all purses and move coins from one to another: strictly serializable
// (STM-S1).
type (
	purse  [purses]int
	moveIn struct {
		saw      purse // in the run that was committed
		from, to int
		amount   int // 0: nothing was written
	}
	moveOut struct{ unknown bool }
)

var serial = porcupine.Model{
	Init: func() any { return purse{coins} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(purse), input.(moveIn), output.(moveOut)
		if s != in.saw {
			return out.unknown, s
		}
		s[in.from] -= in.amount
		s[in.to] += in.amount
		return true, s
	},
	DescribeOperation: describe,
}

func purseOf(i int) string { return fmt.Sprint("/purse/", i) }

// move is one run of a transaction.
func (in *moveIn) move(tx *recipes.Tx) error {
	in.saw = purse{}
	names, err := tx.Children("/purse")
	if err != nil {
		return err
	}
	for _, name := range names {
		i, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		data, _, err := tx.Get(purseOf(i))
		if err != nil {
			return err
		}
		if in.saw[i], err = strconv.Atoi(string(data)); err != nil {
			return err
		}
	}
	if in.amount = min(in.amount, in.saw[in.from]); in.amount == 0 {
		return nil
	}
	if left := in.saw[in.from] - in.amount; left == 0 {
		err = tx.Delete(purseOf(in.from))
	} else {
		err = tx.Set(purseOf(in.from), []byte(strconv.Itoa(left)))
	}
	if err != nil {
		return err
	}
	data := []byte(strconv.Itoa(in.saw[in.to] + in.amount))
	if in.saw[in.to] == 0 {
		return tx.Create(purseOf(in.to), data, zk.Persistent)
	}
	return tx.Set(purseOf(in.to), data)
}

// sum is how many coins there are.
func (p purse) sum() (n int) {
	for _, c := range p {
		n += c
	}
	return n
}

func (r *run) atomicClient(client int, random *rand.Rand) {
	for r.idle(random, 900) {
		s, err := r.source(random)
		if err != nil {
			continue
		}
		r.did("Atomically")
		ctx, cancel := context.WithTimeout(context.Background(), millis(1+random.IntN(4000)))
		in := moveIn{from: random.IntN(purses)}
		in.to = (in.from + 1 + random.IntN(purses-1)) % purses
		most := random.IntN(4) // 0: only look
		call := r.moves.now()
		err = recipes.Atomically(ctx, s, func(tx *recipes.Tx) error {
			in.amount = most
			err := in.move(tx)
			if n := in.saw.sum(); err == nil && n != coins {
				r.t.Errorf("a picture with %d coins", n)
			}
			return err
		}, zk.Linearizable)
		cancel()
		switch {
		case err == nil:
			r.moves.add(client, call, in, moveOut{}, r.moves.now())
		case zk.MaybeApplied(err):
			r.moves.add(client, call, in, moveOut{unknown: true}, forever)
		case errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNodeExists) || errors.Is(err, zk.ErrNotEmpty) || errors.Is(err, zk.ErrGuard):
			r.t.Errorf("a transaction on one picture: %v", err)
		}
	}
}

func TestSerialChecker(t *testing.T) {
	move := func(saw purse) moveIn { return moveIn{saw: saw, to: 1, amount: 2} }
	look := func(saw purse) moveIn { return moveIn{saw: saw} }
	judge(t, serial, []judged{
		{"one after the other", true, []porcupine.Operation{did(1, 2, move(purse{10}), moveOut{}), did(3, 4, move(purse{8, 2}), moveOut{}), did(5, 6, look(purse{6, 4}), moveOut{})}},
		{"two from one state", false, []porcupine.Operation{did(1, 4, move(purse{10}), moveOut{}), did(2, 3, move(purse{10}), moveOut{})}},
		{"a look at the past", false, []porcupine.Operation{did(1, 2, move(purse{10}), moveOut{}), did(3, 4, look(purse{10}), moveOut{})}},
		{"half a transaction", false, []porcupine.Operation{did(1, 2, move(purse{10}), moveOut{}), did(3, 4, look(purse{8}), moveOut{})}},
		{"unknown and done", true, []porcupine.Operation{did(1, forever, move(purse{10}), moveOut{unknown: true}), did(3, 4, look(purse{8, 2}), moveOut{})}},
		{"unknown and not done", true, []porcupine.Operation{did(1, forever, move(purse{10}), moveOut{unknown: true}), did(3, 4, look(purse{10}), moveOut{})}},
	})
}
