// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

const (
	fillBatch = 100  // files in one step
	fillAhead = 1000 // files that may wait in the queue, so that filling goes on while files are counted
)

// item is an entry of the queue.
type item struct {
	N    int    `json:"n"`
	File string `json:"file"`
}

// filling is the content of fillPath.
type filling struct {
	Queued int // files that have been put into the queue: the first ones, in order
	Total  int
}

// fill competes for the filler's role and, when elected, fills the queue. It returns when the queue has been filled,
// by whomever.
func (p *process) fill(ctx context.Context) error {
	return retry(ctx, func() error { return p.filler.Do(ctx, p.fillOn) })
}

// fillOn fills the queue from where the last filler stopped. Each step is one transaction: the lock's guard makes it
// fail unless we are still the filler, and the entries and the progress change together. A filler that dies leaves
// no step half done, and one that was taken for dead and lives on cannot do any harm.
func (p *process) fillOn(ctx context.Context, held *recipes.Held) error {
	s := held.Session()
	var f filling
	stat, err := load(ctx, s, fillPath, &f)
	if err != nil {
		return err
	}
	files, err := list(p.Source)
	if err != nil {
		return err
	}
	if f.Total != 0 && f.Total != len(files) {
		return fmt.Errorf("%s changes while it is counted: %d files, now %d", p.Source, f.Total, len(files))
	}
	if f.Total = len(files); f.Queued < f.Total {
		p.out.tell(notice{What: isFilling, Progress: &progress{Queued: f.Queued, Total: f.Total}})
	}
	for f.Queued < f.Total {
		if err := p.board.wait(ctx, func(now progress) bool { return now.Results+fillAhead >= f.Queued+fillBatch }); err != nil {
			return err
		}
		end := min(f.Queued+fillBatch, f.Total)
		batch := make([]item, 0, fillBatch)
		for ; f.Queued < end; f.Queued++ {
			batch = append(batch, item{N: f.Queued, File: files[f.Queued]})
		}
		entries, err := p.queue.PutOps(batch...)
		if err != nil {
			return err
		}
		state, err := json.Marshal(f)
		if err != nil {
			return err
		}
		step := append([]zk.Op{held.Guard(), zk.OpSet(fillPath, state, stat.Version)}, entries...)
		done, err := s.Txn(ctx, step...)
		if err != nil {
			return err
		}
		stat = done[1].Stat
	}
	return nil
}
