// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait of these tests; nothing takes nearly as long.
const patience = 60 * time.Second

// program is the binary that all tests run.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "zkctl")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "zkctl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// result is what a run of the program came to.
type result struct {
	out, err string
	code     int
}

// zkctl runs the program to its end.
func zkctl(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// process is a run of the program that goes on.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of the standard output
	ended chan struct{}
	mu    sync.Mutex
	log   bytes.Buffer // the standard error
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), lines: make(chan string, 1000), ended: make(chan struct{})}
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	errOut, err := p.cmd.StderrPipe()
	must(t, err)
	must(t, p.cmd.Start())
	var readers sync.WaitGroup
	readers.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	})
	readers.Go(func() {
		for s := bufio.NewScanner(errOut); s.Scan(); {
			p.mu.Lock()
			p.log.WriteString(s.Text() + "\n")
			p.mu.Unlock()
		}
	})
	go func() {
		readers.Wait()
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("zkctl %s:\n%s", strings.Join(args, " "), p.errors())
		}
	})
	return p
}

func (p *process) errors() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// line returns the next line that the program prints.
func (p *process) line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			<-p.ended
			p.t.Fatalf("it ended with code %d:\n%s", p.cmd.ProcessState.ExitCode(), p.errors())
		}
		return l
	case <-time.After(patience):
		p.t.Fatalf("it prints nothing:\n%s", p.errors())
	}
	return ""
}

// says waits until the standard error has text in it.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, text, func() bool { return strings.Contains(p.errors(), text) })
}

// end sends a signal and returns the exit code.
func (p *process) end(s os.Signal) int {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(s))
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("it does not end:\n%s", p.errors())
	}
	return p.cmd.ProcessState.ExitCode()
}

// field is the value of a key=value word of a line.
func field(t *testing.T, line, key string) string {
	t.Helper()
	for w := range strings.FieldsSeq(line) {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v
		}
	}
	t.Fatalf("%q has no %s", line, key)
	return ""
}

// serve runs zkctl serve and returns it, with the client address, once it serves.
func serve(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	p := start(t, append([]string{"serve", "--client-addr", "127.0.0.1:0"}, args...)...)
	return p, field(t, p.line(), "client")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// word asks a server for a four-letter word, "" if it does not answer.
func word(addr, w string) string {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	io.WriteString(nc, w)
	b, _ := io.ReadAll(nc)
	return string(b)
}

// want checks a run of the program.
func (r result) want(t *testing.T, code int, out string) {
	t.Helper()
	if r.code != code || r.out != out {
		t.Errorf("code %d, printed %q, want %d, %q\n%s", r.code, r.out, code, out, r.err)
	}
}

const sigterm = syscall.SIGTERM
