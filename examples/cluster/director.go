// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-541fafe0/zk"
)

const (
	killAt      = 35                      // per cent of the results
	reviveAfter = 2500 * time.Millisecond // the process that was killed is started again, or earlier,
	reviveAt    = 60                      // per cent of the results, so that there is something left for it to do
	patience    = 3 * time.Second         // for members to stop when asked to
)

// director starts, kills and ends the members' processes, and collects what they tell. One goroutine does it all.
type director struct {
	options
	screen     *screen
	executable string
	children   []*child
	told       chan told
	revive     <-chan time.Time // when to start the victim again; nil unless it is dead

	victim   *child // nil until one is killed
	killed   time.Time
	gap      time.Duration // from the kill to the next acknowledged write; 0 while there was none
	leader   string
	progress progress
	dumping  bool
	finished bool
	results  []result
	report   map[string]sharedBy
	doubled  int
}

// direct runs the whole show.
func direct(ctx context.Context, opt options, out io.Writer) (err error) {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "zk-cluster-")
	if err != nil {
		return err
	}
	d := &director{options: opt, screen: newScreen(out), executable: executable, told: make(chan told, 1024)}
	defer func() {
		d.stop()
		if opt.keep {
			d.screen.say("data and logs are in %s", temp)
		} else if e := os.RemoveAll(temp); err == nil {
			err = e
		}
	}()
	d.screen.say("counting %d files below %s with %d processes of %d workers", len(opt.files), opt.dir, opt.members, opt.workers)
	for i := range opt.members {
		c := &child{id: fmt.Sprintf("p%d", i+1), told: d.told}
		c.data = filepath.Join(temp, c.id)
		if err := os.Mkdir(c.data, 0o700); err != nil {
			return err
		}
		d.children = append(d.children, c)
		if err := c.start(executable); err != nil {
			return err
		}
	}
	if err := d.listen(ctx); err != nil {
		return err
	}
	took := time.Since(d.screen.began)
	d.stop()
	return d.verify(ctx, took)
}

// listen handles what the processes tell until all has been told.
func (d *director) listen(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !d.finished {
		select {
		case t := <-d.told:
			if t.life != t.from.life || t.from == d.victim && !t.from.running && t.What != isGone {
				continue // from a former life
			}
			if err := d.hear(t); err != nil {
				return err
			}
		case <-d.revive:
			if err := d.startAgain(); err != nil {
				return err
			}
		case <-tick.C:
			d.screen.show(d.status())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (d *director) hear(t told) error {
	c := t.from
	switch t.What {
	case isListening:
		c.addr = t.Addr
		d.open(c)
	case isRole:
		c.role, c.term = t.Role, t.Term
		d.findLeader()
		d.maybeKill()
	case isFilling:
		d.screen.say("%s fills the queue, from file %d of %d", c.id, t.Progress.Queued+1, t.Progress.Total)
	case isProgress:
		c.mine = t.Progress.Mine
		if t.Progress.Results > d.progress.Results {
			d.progress = *t.Progress
		}
		d.maybeKill()
		if d.revive != nil && d.progress.Results*100 >= d.progress.Total*reviveAt {
			return d.startAgain()
		}
	case isWrite:
		d.acknowledged(t.notice)
	case isDone:
		c.done = true
	case isResult:
		d.results = append(d.results, *t.Result)
	case isEnd:
		d.report, d.doubled, d.finished = t.Report, t.Doubled, true
	case isError:
		return fmt.Errorf("%s: %s", c.id, t.Text)
	case isGone:
		c.running, c.gone = false, true
		if c != d.victim || c.life > 1 {
			return fmt.Errorf("%s has ended unexpectedly: %s", c.id, t.Text)
		}
		d.revive = time.After(reviveAfter - time.Since(d.killed))
	}
	d.maybeDump()
	return nil
}

// open tells processes who their peers are, as soon as all addresses are known. A process that was started again has
// a new address, which it will announce to the others by itself.
func (d *director) open(started *child) {
	var peers []zk.Peer
	for _, c := range d.children {
		if c.addr == "" {
			return
		}
		peers = append(peers, zk.Peer{ID: c.id, Addr: c.addr, Voter: true})
	}
	for _, c := range d.children {
		if started.life == 1 || c == started {
			c.give(order{Do: doOpen, ID: c.id, Data: c.data, Source: d.dir, Workers: d.workers, Peers: peers})
		}
	}
}

// maybeDump asks for the results when every process has finished, the revived one included.
func (d *director) maybeDump() {
	if d.dumping || d.kill && (d.victim == nil || d.gap == 0) {
		return
	}
	for _, c := range d.children {
		if !c.done || !c.running {
			return
		}
	}
	d.dumping = true
	d.children[0].give(order{Do: doDump})
}

// stop ends all processes: politely, then by force.
func (d *director) stop() {
	for _, c := range d.children {
		if c.stdin != nil {
			c.stdin.Close()
		}
	}
	force := time.NewTimer(patience)
	defer force.Stop()
	for {
		running := false
		for _, c := range d.children {
			running = running || c.cmd != nil && !c.gone
		}
		if !running {
			return
		}
		select {
		case t := <-d.told:
			if t.What == isGone && t.life == t.from.life {
				t.from.gone = true
			}
		case <-force.C:
			for _, c := range d.children {
				if c.cmd != nil && !c.gone {
					_ = c.kill() // it may have ended just now
				}
			}
		}
	}
}
