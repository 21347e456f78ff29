// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// Step is one change of the tree that a program needs, such as a new directory or another format of some data.
type Step struct {
	// Name says what it is. It is kept in the record.
	Name string

	// Ops returns what is to be done, as one transaction. It is called with the lock held, and with a context that ends with it;
	// s is the session of the transaction. Unless Reads is set it must return the same for ever, because a checksum of it is kept.
	Ops func(ctx context.Context, s *zk.Session) ([]zk.Op, error)

	// Reads says that Ops looks at the tree, so that what it returns depends on that: then only Name is compared later on, and Ops
	// is not called again. Such a step guards what it has read, by zk.OpCheck and the like.
	Reads bool
}

// StepError tells which step of a migration has failed, or does not agree with its record.
type StepError struct {
	Path string // of the record, whether it is there or not
	Step string // its name; that of the record, where the program has no such step
	Err  error
}

// Error names the step and the record.
func (e *StepError) Error() string {
	return fmt.Sprintf("recipes: migration step %q (%s): %v", e.Step, e.Path, e.Err)
}

// Unwrap returns what is wrong.
func (e *StepError) Unwrap() error { return e.Err }

// stepRecord is what is kept of a step that was taken.
type stepRecord struct {
	Step string `json:"step"`
	Sum  string `json:"sum"` // SHA-256 of the name and of what was done, in hex
}

// Migrate takes those of the steps that were not taken yet, each once in the life of the tree, in order, whoever else calls it:
// all instances of a program call it when they start, and return once the tree is as they need it. id is the path of the records.
//
// Each step is one transaction with its record, under a lock that the transaction checks (MIG-S1): it is taken as a whole and once,
// even if who takes it is stalled and another goes on in its place. What was taken stays, whatever becomes of the steps after it.
// Steps that were taken must be the first ones of the list and unchanged, by their checksum; otherwise nothing is done (MIG-S2). New
// ones are added at the end.
//
// Layout: ID is a container of persistent records meta-0000000000, meta-0000000001, ...; ID-lock is a Lock. The names are
// those of the metadata of Curator's MigrationManager, the records are not: each refuses what the other has done.
//
// Cost: where all steps were taken local reads, and no write; otherwise one write for the lock, one for each step, and one for the
// release. Who waits for another to do it waits as for a Lock.
//
// Migrate does not know what a step does: one that is too large for a transaction has to be divided. Records are not to be touched;
// an operator who deletes the last one has that step taken again.
//
// Errors: *StepError, which wraps ErrMismatch where a record and a step differ, ErrBroken where a record is missing, a *DecodeError for
// one that cannot be read, what Ops returns, and what the transaction does; and those of Lock.Acquire. If zk.MaybeApplied says so the step
// may have been taken: Migrate knows when it is called again.
func Migrate(ctx context.Context, src zk.SessionSource, id string, steps ...Step) error {
	s, err := session(ctx, src, "migrate", id)
	if err != nil {
		return err
	}
	if id == "/" {
		return badArgument("migrate", id, "no room for a lock beside it")
	}
	for _, step := range steps {
		if step.Name == "" || step.Ops == nil {
			return badArgument("migrate", id, "a step without a name, or without Ops")
		}
	}
	m := &migration{id: id, steps: steps}
	if taken, err := m.check(ctx, s); err != nil || taken == len(steps) {
		return err
	}
	return NewLock(src, id+promotedSuffix).Do(ctx, func(ctx context.Context, h *Held) error {
		taken, err := m.check(ctx, h.Session()) // as new as the lock: what others did they did before
		for ; err == nil && taken < len(steps); taken++ {
			err = m.take(ctx, h, taken)
		}
		return err
	})
}

type migration struct {
	id    string
	steps []Step
}

func (m *migration) record(i int) string { return join(m.id, fmt.Sprintf("meta-%010d", i)) }

func (m *migration) failed(i int, name string, err error) error {
	return &StepError{m.record(i), name, err}
}

// check compares the records with the steps, and says how many there are.
func (m *migration) check(ctx context.Context, s *zk.Session) (taken int, err error) {
	var list []zk.Znode
	err = s.View(ctx, func(v *zk.View) error {
		for name, err := range v.Children(m.id) {
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			if err != nil {
				return err
			}
			if path := join(m.id, name); path == m.record(len(list)) {
				z, err := v.Get(path)
				if err != nil {
					return err
				}
				list = append(list, z)
			} else if _, numbered := zk.Sequence(name); numbered && strings.HasPrefix(name, "meta-") {
				return m.failed(len(list), "", fmt.Errorf("%w: there is %s", ErrBroken, name))
			}
		}
		return nil
	})
	if err != nil {
		return 0, explain(ctx, err)
	}
	for i, z := range list {
		was, err := JSON[stepRecord]{}.Decode([]byte(z.Data))
		if err == nil && (was.Step == "" || was.Sum == "") {
			err = errRecord
		}
		if err != nil {
			return 0, m.failed(i, "", &DecodeError{z.Path, z.Stat.Mzxid, err})
		}
		if i >= len(m.steps) {
			return 0, m.failed(i, was.Step, fmt.Errorf("%w: this program has only %d steps", ErrMismatch, len(m.steps)))
		}
		step := m.steps[i]
		if was.Step != step.Name {
			return 0, m.failed(i, step.Name, fmt.Errorf("%w: step %q was taken there", ErrMismatch, was.Step))
		}
		var ops []zk.Op
		if !step.Reads {
			if ops, err = step.Ops(ctx, s); err != nil {
				return 0, m.failed(i, step.Name, err)
			}
		}
		if step.sum(ops) != was.Sum {
			return 0, m.failed(i, step.Name, fmt.Errorf("%w: it does something else than what was done", ErrMismatch))
		}
	}
	return len(list), nil
}

var errRecord = errors.New("no record of a step")

// sum is the checksum of a step.
func (x Step) sum(ops []zk.Op) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q reads: %v\n", x.Name, x.Reads)
	if !x.Reads {
		for _, op := range ops {
			line, _ := op.AppendText(nil)
			h.Write(append(line, '\n'))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// take takes step i.
func (m *migration) take(ctx context.Context, h *Held, i int) error {
	step := m.steps[i]
	ops, err := step.Ops(ctx, h.Session())
	if err != nil {
		return m.failed(i, step.Name, err)
	}
	data, err := JSON[stepRecord]{}.Encode(stepRecord{step.Name, step.sum(ops)})
	if err != nil {
		return m.failed(i, step.Name, err)
	}
	steps := append([]zk.Op{h.Guard()}, ops...)
	_, err = h.Session().Txn(ctx, append(steps, zk.OpCreate(m.record(i), data, zk.Persistent|zk.Parents))...)
	if err != nil {
		return m.failed(i, step.Name, err)
	}
	return nil
}
