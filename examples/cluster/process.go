// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/transport"
)

// The tree that the members share.
const (
	jobPath      = "/job"
	fillPath     = "/job/fill"    // how far the queue is filled: see filling
	resultsPath  = "/job/results" // one child per file
	doubledPath  = "/job/doubled" // one child per result that was there already: always empty
	reportPath   = "/job/report"  // what each process has done: see sharedBy
	probePath    = "/job/probe"
	queuePath    = "/job-queue"
	framePath    = "/job-frame"
	fillerPath   = "/job-locks/filler"
	reporterPath = "/job-locks/report"
)

// sessionTimeout is how long the claims and locks of a dead process hinder the others.
const sessionTimeout = 3 * time.Second

// process is a member of the ensemble and what it does for the job.
type process struct {
	order    // to open
	m        *zk.Member
	out      *teller
	queue    *recipes.Queue[item]
	filler   *recipes.Lock
	reporter *recipes.Lock
	frame    *recipes.DoubleBarrier
	mine     atomic.Int64 // results recorded
	board    board
}

// member is the life of a member's process. It returns the exit code.
func member(in io.Reader, out io.Writer) int {
	signal.Ignore(os.Interrupt, syscall.SIGTERM) // they may be sent to the whole group; the first process decides
	t := newTeller(out)
	if err := serve(in, t); err != nil {
		t.tell(notice{What: isError, Text: err.Error()})
		return 1
	}
	return 0
}

// serve follows orders until there are no more.
func serve(in io.Reader, t *teller) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders := make(chan order)
	go func() {
		defer cancel() // the end of the input ends everything
		for dec := json.NewDecoder(in); ; {
			var o order
			if dec.Decode(&o) != nil {
				return
			}
			select {
			case orders <- o:
			case <-ctx.Done():
				return
			}
		}
	}()

	// The address must be known before the ensemble can be described, so the transport comes first.
	network, err := transport.TCP("127.0.0.1:0")
	if err != nil {
		return err
	}
	t.tell(notice{What: isListening, Addr: network.Addr()})
	p := &process{out: t}
	select {
	case p.order = <-orders:
	case <-ctx.Done():
		return network.Close()
	}
	return p.run(ctx, network, orders)
}

func (p *process) run(ctx context.Context, network zk.Transport, orders <-chan order) error {
	logFile, err := os.OpenFile(filepath.Join(p.Data, "log.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	p.m, err = zk.Open(ctx, zk.Config{
		ID: p.ID, Dir: filepath.Join(p.Data, "zk"), Transport: network, Peers: p.Peers,
		SessionTimeout: sessionTimeout, Logger: slog.New(slog.NewTextHandler(logFile, nil)),
	})
	if err != nil {
		return err
	}
	// All members stop together, so there is nobody left to say goodbye to: hence Close. A service that goes on
	// without this process would call Shutdown.
	defer p.m.Close()

	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { p.tellRoles(ctx) })
	worked := make(chan error, 1)
	wg.Go(func() { worked <- p.work(ctx) })
	rest := func() {}
	for {
		select {
		case o := <-orders:
			switch o.Do {
			case doProbe:
				probing, stop := context.WithCancel(ctx)
				defer stop()
				rest = stop
				wg.Go(func() { p.probe(probing) })
			case doRest:
				rest()
			case doDump:
				wg.Go(func() { p.dump(ctx) })
			}
		case err := <-worked:
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			}
			p.out.tell(notice{What: isDone})
		case <-p.m.Done():
			return fmt.Errorf("the member has stopped: %w", p.m.Err())
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *process) tellRoles(ctx context.Context) {
	for info, err := range p.m.Roles(ctx) {
		if err != nil {
			return
		}
		p.out.tell(notice{What: isRole, Role: info.Role.String(), Term: info.Term})
	}
}

// errComplete is the cause of the end of work that is done.
var errComplete = errors.New("all files are counted")

// work does this process's part of the job, from wherever the job stands.
func (p *process) work(ctx context.Context) error {
	// The member is the session source: should its session expire, the next call takes a new one.
	p.queue = recipes.NewQueue[item](p.m, queuePath)
	p.filler = recipes.NewLock(p.m, fillerPath)
	p.reporter = recipes.NewLock(p.m, reporterPath)
	p.frame = recipes.NewDoubleBarrier(p.m, framePath, len(p.Peers))
	p.frame.AllowLate = true // a process that was started again joins the round that is under way
	if err := retry(ctx, func() error { return p.prepare(ctx) }); err != nil {
		return err
	}

	// working ends when all results are there, or when one of the goroutines fails.
	working, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	start := func(fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(working); err != nil {
				end(err)
			}
		})
	}
	start(p.follow)
	var inside *recipes.Membership
	err := retry(working, func() (err error) {
		inside, err = p.frame.Enter(working)
		return err
	})
	if err != nil {
		end(err) // without effect if there was nothing left to do
	} else {
		start(p.fill)
		start(p.reportNowAndThen)
		for range p.Workers {
			start(p.countFiles)
		}
	}
	<-working.Done()
	wg.Wait()
	if cause := context.Cause(working); !errors.Is(cause, errComplete) {
		return cause
	}
	if err := p.report(ctx); err != nil {
		return err
	}
	if inside == nil {
		return nil
	}
	if err := inside.Leave(ctx); err != nil && !passing(err) {
		return err
	}
	return nil
}

// prepare creates the job's znodes, all or none, unless another process was faster.
func (p *process) prepare(ctx context.Context) error {
	s, err := p.m.Session(ctx)
	if err != nil {
		return err
	}
	var ops []zk.Op
	for _, path := range []string{jobPath, fillPath, resultsPath, doubledPath, reportPath, probePath} {
		ops = append(ops, zk.OpCreate(path, []byte("{}"), zk.Persistent))
	}
	if _, err = s.Txn(ctx, ops...); errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}
