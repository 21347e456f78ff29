// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// result is the content of a child of resultsPath.
type result struct {
	item
	Counts
	By    string `json:"by"`              // the process
	Again bool   `json:"again,omitempty"` // another consumer had received the file before, and did not finish it
}

// countFiles is a worker.
func (p *process) countFiles(ctx context.Context) error {
	for {
		if err := retry(ctx, func() error { return p.countOne(ctx) }); err != nil {
			return err
		}
	}
}

// countOne takes a file from the queue, counts it, and records the result and the acknowledgement in one
// transaction. If this process dies or loses its session before that, the file is delivered again; once it has
// happened, the entry is gone for good. So there is exactly one result per file.
func (p *process) countOne(ctx context.Context) error {
	msg, err := p.queue.Receive(ctx)
	if err != nil {
		return err
	}
	counts, err := count(p.Source, msg.Value.File)
	if err != nil {
		return err
	}
	counts.Files = 0 // it goes without saying
	data, err := json.Marshal(result{item: msg.Value, Counts: counts, By: p.ID, Again: msg.Redelivered()})
	if err != nil {
		return err
	}
	err = msg.AckWith(ctx, zk.OpCreate(fmt.Sprintf("%s/%06d", resultsPath, msg.Value.N), data, zk.Persistent))
	if errors.Is(err, zk.ErrNodeExists) {
		// This must not happen. Should it happen nevertheless, the final table will show it.
		return msg.AckWith(ctx, zk.OpCreate(doubledPath+"/", data, zk.Sequential))
	}
	if err == nil {
		p.mine.Add(1)
	}
	return err
}

// probe begins a small write every few milliseconds, whether or not the last ones have been answered, and tells of
// each that was acknowledged.
func (p *process) probe(ctx context.Context) {
	const atOnce = 500
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, atOnce)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				began := time.Now()
				s, err := p.m.Session(ctx)
				if err != nil {
					return
				}
				if _, err := s.Set(ctx, probePath, nil, zk.AnyVersion); err == nil {
					p.out.tell(notice{What: isWrite, Began: began.UnixNano(), Acked: time.Now().UnixNano()})
				}
			})
		case <-ctx.Done():
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}
