// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// history records operations for porcupine, and what else happened. An operation whose outcome stays unknown is open to
// the end: it may take effect at any later time.
type history struct {
	began time.Time

	mu     sync.Mutex
	last   int64
	ops    []porcupine.Operation
	events []string
}

func newHistory() *history { return &history{began: time.Now()} }

// now is the time, later at each call: what happens at one virtual moment has its order too.
func (h *history) now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = max(h.last+1, int64(time.Since(h.began)))
	return h.last
}

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

// text is the history for a human.
func (h *history) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, e := range h.events {
		fmt.Fprintln(&b, e)
	}
	ops := slices.Clone(h.ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, o := range ops {
		returned := "open"
		if o.Return != forever {
			returned = time.Duration(o.Return).String()
		}
		fmt.Fprintf(&b, "%15v %15s  client %d  %s\n", time.Duration(o.Call), returned, o.ClientId, describe(o.Input, o.Output))
	}
	return b.String()
}

func describe(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) }

// partition splits a history by a key of its operations' inputs.
func partition[In any, K comparable](key func(In) K) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(ops []porcupine.Operation) (parts [][]porcupine.Operation) {
		at := map[K]int{}
		for _, o := range ops {
			k := key(o.Input.(In))
			i, ok := at[k]
			if !ok {
				i = len(parts)
				at[k], parts = i, append(parts, nil)
			}
			parts[i] = append(parts[i], o)
		}
		return parts
	}
}

// linearizable asks porcupine, outside of virtual time.
func (r *run) linearizable(name string, model porcupine.Model, h *history) { // CG-1, P2, P6
	result, info := porcupine.CheckOperationsVerbose(model, h.ops, 0)
	if result == porcupine.Ok {
		return
	}
	r.t.Errorf("%s: history is %v", name, result)
	path := filepath.Join(r.place(), fmt.Sprintf("%s-%d.html", name, r.seed))
	if err := porcupine.VisualizePath(model, info, path); err == nil {
		r.t.Logf("see %s", path)
	}
}

// place is where a run leaves its histories: with go test -artifacts where that puts them, else in a directory that
// outlives the test, unlike that of the test.
func (r *run) place() string {
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		return r.t.ArtifactDir()
	}
	if r.left == "" {
		dir, err := os.MkdirTemp("", fmt.Sprintf("zk-sim-%d-", r.seed))
		if err != nil {
			return r.t.ArtifactDir()
		}
		r.left = dir
	}
	return r.left
}

// leave writes the record and the histories of a failed run where they can be found.
func (r *run) leave() {
	dir := r.place()
	for name, text := range map[string]string{
		"record": r.h.text(), "registers": r.registers.text(), "bank": r.bank.text(), "counter": fmt.Sprintf("%+v\n", r.counts.list), "transactions": r.moves.text(), "lock": r.locks.h.text(),
		"queue": r.queues.h.text(), "barrier": r.barrier.text(), "rooms": fmt.Sprintf("%+v\n", r.rooms.visits()),
		"sessions": fmt.Sprintf("%+v\n", r.lives.list()), "stays": fmt.Sprintf("%+v\n", r.stays.stays()),
	} {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.txt", name, r.seed)), []byte(text), 0o644); err != nil {
			r.t.Log(err)
		}
	}
	r.t.Logf("the record and the histories of this run are in %s", dir)
}

// TestHistoryIsLeft: what a failed run leaves is there when its test has ended, and can be read.
func TestHistoryIsLeft(t *testing.T) {
	var dir string
	t.Run("a run", func(t *testing.T) {
		r := &run{shape: shape{seed: 7}, t: t, h: newHistory(), registers: newHistory(), bank: newHistory(), barrier: newHistory(), moves: newHistory(),
			counts: &countCheck{h: newHistory()}, locks: &lockCheck{h: newHistory()}, stays: &stayCheck{h: newHistory()}, rooms: &roomCheck{h: newHistory()},
			lives: newLifeCheck(), queues: &queueCheck{h: newHistory()}}
		r.h.note("crash %s", "m1")
		r.registers.add(3, 1, registerIn{key: "/register/0", write: true, value: "x"}, registerOut{unknown: true}, forever)
		r.leave()
		dir = r.place()
	})
	if f := flag.Lookup("test.artifacts"); f.Value.String() != "true" {
		defer os.RemoveAll(dir)
	}
	for name, want := range map[string]string{"record": "crash m1", "registers": "open  client 3"} {
		if text, err := os.ReadFile(filepath.Join(dir, name+"-7.txt")); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// did is an operation of a history that a test of a checker makes up.
func did(call, returned int64, in, out any) porcupine.Operation {
	return porcupine.Operation{Input: in, Call: call, Output: out, Return: returned}
}

// judged is a history that a test of a checker makes up, and whether it is in order.
type judged struct {
	name string
	ok   bool
	ops  []porcupine.Operation
}

func judge(t *testing.T, model porcupine.Model, list []judged) {
	t.Helper()
	for _, j := range list {
		if ok := porcupine.CheckOperations(model, j.ops); ok != j.ok {
			t.Errorf("%s: the checker says %v", j.name, ok)
		}
	}
}
