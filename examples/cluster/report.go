// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// sharedBy is a process's line of the shared report; reportPath has a map of them by process.
type sharedBy struct {
	Counts
	Updates int `json:"updates"`
}

// reportNowAndThen keeps the shared report roughly up to date while the work is going on.
func (p *process) reportNowAndThen(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := p.report(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// report brings this process's line of the shared report up to date. All processes change the same znode, each
// reading and writing all of it: the lock keeps them apart, and its guard keeps out a process that has lost the
// lock without knowing it yet.
func (p *process) report(ctx context.Context) error {
	update := func(ctx context.Context, held *recipes.Held) error {
		s := held.Session()
		mine, err := p.tally(ctx, s)
		if err != nil {
			return err
		}
		lines := map[string]sharedBy{}
		stat, err := load(ctx, s, reportPath, &lines)
		if err != nil {
			return err
		}
		lines[p.ID] = sharedBy{Counts: mine, Updates: lines[p.ID].Updates + 1}
		data, err := json.Marshal(lines)
		if err != nil {
			return err
		}
		_, err = s.Txn(ctx, held.Guard(), zk.OpSet(reportPath, data, stat.Version))
		return err
	}
	return retry(ctx, func() error { return p.reporter.Do(ctx, update) })
}

// tally sums up this process's results, those of its former lives included, as of one moment.
func (p *process) tally(ctx context.Context, s *zk.Session) (sum Counts, err error) {
	for z, err := range s.Walk(ctx, resultsPath) {
		if err != nil {
			return sum, err
		}
		if z.Path == resultsPath {
			continue
		}
		var r result
		if err := json.Unmarshal([]byte(z.Data), &r); err != nil {
			return sum, err
		}
		if r.By == p.ID {
			r.Files = 1
			sum.add(r.Counts)
		}
	}
	return sum, nil
}

// dump tells all results, the shared report, and how many results came twice.
func (p *process) dump(ctx context.Context) {
	if err := p.dumpAll(ctx); err != nil && ctx.Err() == nil {
		p.out.tell(notice{What: isError, Text: err.Error()})
	}
}

func (p *process) dumpAll(ctx context.Context) error {
	s, err := p.m.Session(ctx)
	if err != nil {
		return err
	}
	if err := s.Sync(ctx); err != nil { // what the other processes have written must be here
		return err
	}
	for z, err := range s.Walk(ctx, resultsPath) {
		if err != nil {
			return err
		}
		if z.Path == resultsPath {
			continue
		}
		var r result
		if err := json.Unmarshal([]byte(z.Data), &r); err != nil {
			return err
		}
		p.out.tell(notice{What: isResult, Result: &r})
	}
	end := notice{What: isEnd, Report: map[string]sharedBy{}}
	if _, err := load(ctx, s, reportPath, &end.Report); err != nil {
		return err
	}
	doubled, _, err := s.Exists(ctx, doubledPath)
	if err != nil {
		return err
	}
	end.Doubled = doubled.NumChildren
	p.out.tell(end)
	return nil
}
