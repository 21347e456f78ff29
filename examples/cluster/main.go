// SPDX-License-Identifier: Apache-2.0

// Command cluster shows zk at work, on real input and under a real failure.
//
// It starts three processes of itself. Each of them embeds a member of one ensemble, on loopback TCP with its data
// on disk, and together they count the lines, words and identifiers of every .go file below a directory:
//
//   - a [recipes.DoubleBarrier] frames the work: nobody begins before all are there;
//   - a [recipes.Lock] elects the filler, which puts the files into a [recipes.Queue]; entries and progress are one
//     guarded transaction, so that a successor resumes exactly where it stopped (fill.go);
//   - workers in all processes take files from the queue; a result and the acknowledgement of its entry are one
//     guarded transaction, so that each file is recorded exactly once (worker.go);
//   - another lock protects the report that all processes share (report.go).
//
// Part-way, the process that hosts the leader is killed with SIGKILL, and started again a little later. At the end
// everything is counted once more in a single process and compared.
//
//	go run ./examples/cluster
//
// The first process is not a member. It starts and kills the others, and talks with them through their standard
// input and output (wire.go). What a program that embeds zk has to do itself is in process.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// childEnv makes a process one of the members.
const childEnv = "ZK_EXAMPLE_CLUSTER_MEMBER"

func main() {
	if os.Getenv(childEnv) != "" {
		os.Exit(member(os.Stdin, os.Stdout))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	dir     string
	members int
	kill    bool
	workers int
	keep    bool
	timeout time.Duration
	files   []string // below dir, in the order in which they are queued
}

// errInterrupted is the cause of a context that a signal ended.
type errInterrupted struct{ signal syscall.Signal }

func (e errInterrupted) Error() string { return "interrupted: " + e.signal.String() }

// run returns the exit code: 0 if the results are right, 1 if not, 2 for bad arguments, 128 and more for a signal.
func run(args []string, out, errout io.Writer) int {
	opt, err := parse(args, errout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(errout, "cluster:", err)
		return 2
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE) // nobody reads on: head, say
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			number, _ := s.(syscall.Signal)
			cancel(errInterrupted{number})
		case <-goRunEnded(ctx):
			cancel(errInterrupted{syscall.SIGTERM})
		case <-ctx.Done():
		}
	}()
	bounded, stop := context.WithTimeoutCause(ctx, opt.timeout, fmt.Errorf("not finished after %v", opt.timeout))
	defer stop()

	err = direct(bounded, opt, out)
	if interrupted, ok := errors.AsType[errInterrupted](err); ok {
		fmt.Fprintln(errout, "cluster:", err)
		return 128 + int(interrupted.signal)
	}
	if err != nil {
		fmt.Fprintln(errout, "cluster:", err)
		return 1
	}
	return 0
}

func parse(args []string, errout io.Writer) (opt options, err error) {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opt.dir, "dir", "", "count the .go files below this `directory` (default GOROOT/src)")
	flags.IntVar(&opt.members, "members", 3, "`number` of processes: 3 or 5")
	flags.BoolVar(&opt.kill, "kill", true, "kill the process that hosts the leader part-way, and start it again")
	flags.IntVar(&opt.workers, "workers", 32, "`number` of workers in each process, 1 to 1000")
	flags.BoolVar(&opt.keep, "keep", false, "keep the members' data and logs, and say where")
	flags.DurationVar(&opt.timeout, "timeout", 5*time.Minute, "give up after this `time`")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(errout, "usage: cluster [flags]")
			flags.SetOutput(errout)
			flags.PrintDefaults()
		}
		return opt, err
	}
	switch {
	case flags.NArg() > 0:
		return opt, fmt.Errorf("unexpected argument %q: use -dir to name a directory", flags.Arg(0))
	case opt.members != 3 && opt.members != 5:
		return opt, fmt.Errorf("-members %d: must be 3 or 5", opt.members)
	case opt.workers < 1 || opt.workers > 1000:
		return opt, fmt.Errorf("-workers %d: must be from 1 to 1000", opt.workers)
	case opt.timeout <= 0:
		return opt, fmt.Errorf("-timeout %v: must be positive", opt.timeout)
	}
	if opt.dir == "" {
		if opt.dir, err = goSource(); err != nil {
			return opt, err
		}
	}
	if opt.dir, err = filepath.Abs(opt.dir); err == nil {
		opt.dir, err = filepath.EvalSymlinks(opt.dir)
	}
	if err != nil {
		return opt, fmt.Errorf("-dir: %w", err)
	}
	if opt.files, err = list(opt.dir); err != nil {
		return opt, fmt.Errorf("-dir: %w", err)
	}
	if len(opt.files) == 0 {
		return opt, fmt.Errorf("-dir %s: no .go file below it", opt.dir)
	}
	return opt, nil
}

// goSource finds the source of Go's standard library.
func goSource() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	dir := strings.TrimSpace(string(root))
	if err != nil || dir == "" {
		dir = build.Default.GOROOT
	}
	if dir == "" {
		return "", errors.New("cannot find GOROOT/src: use -dir to name a directory with .go files")
	}
	return filepath.Join(dir, "src"), nil
}

// list returns the .go files below dir, relative to it, in lexical order.
func list(dir string) (files []string, err error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".go" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	return files, err
}
