// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport"
	"go.uber.org/goleak"
)

const childEnv = "ZK_BENCH_MEMBER"

func TestMain(m *testing.M) {
	for env, run := range map[string]func(string) error{childEnv: child, portEnv: portChild} {
		if dir := os.Getenv(env); dir != "" {
			if err := run(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	goleak.VerifyTestMain(m)
}

// child is one member in a process of its own. It prints its address, reads the peers, and then prints a line for
// every change of role and every write that was answered.
func child(dir string) error {
	tr, err := transport.TCP("127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("addr", tr.Addr())
	in := json.NewDecoder(os.Stdin)
	var peers []zk.Peer
	if err := in.Decode(&peers); err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // the parent is gone
	}()
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{ID: filepath.Base(dir), Dir: dir, Transport: tr, Peers: peers})
	if err != nil {
		return err
	}
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	path := "/probe-" + m.ID()
	if _, err := s.Create(ctx, path, nil, zk.Persistent); err != nil {
		return err
	}
	go func() {
		for info := range m.Roles(ctx) {
			fmt.Println("role", info.Role)
		}
	}()
	for {
		if _, err := s.Set(ctx, path, nil, zk.AnyVersion); err != nil {
			return err
		}
		fmt.Println("write", time.Now().UnixNano())
		time.Sleep(5 * time.Millisecond)
	}
}

type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	addr  string
}

func start(b *testing.B, dir string) *process {
	b.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), lines: make(chan string, 1<<16)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			p.lines <- sc.Text()
		}
	}()
	p.addr = strings.TrimPrefix(<-p.lines, "addr ")
	return p
}

// BenchmarkFailover kills the leader's process and measures the time to the next write that a survivor is
// answered, in ensembles of three processes, new ones each time. -benchtime 20x gives twenty.
func BenchmarkFailover(b *testing.B) {
	var took []time.Duration
	for i := range b.N {
		took = append(took, failover(b, filepath.Join(b.TempDir(), fmt.Sprint(i))))
	}
	spread(b, "failover", took)
}

func failover(b *testing.B, dir string) time.Duration {
	var ps []*process
	var peers []zk.Peer
	for i := range 3 {
		id := fmt.Sprint("m", i)
		p := start(b, filepath.Join(dir, id))
		defer func() {
			p.stdin.Close()
			p.cmd.Process.Kill()
			p.cmd.Wait()
			for range p.lines {
			}
		}()
		ps = append(ps, p)
		peers = append(peers, zk.Peer{ID: id, Addr: p.addr, Voter: true})
	}
	for _, p := range ps {
		if err := json.NewEncoder(p.stdin).Encode(peers); err != nil {
			b.Fatal(err)
		}
	}
	// Everybody writes; then the leader dies in the middle of it.
	leads := -1
	writes := make([]int, 3)
	for i := 0; leads < 0 || writes[0] < 20 || writes[1] < 20 || writes[2] < 20; i++ {
		select {
		case line, ok := <-ps[i%3].lines:
			if !ok {
				b.Fatal("a member ended")
			}
			switch {
			case line == "role leader":
				leads = i % 3
			case strings.HasPrefix(line, "write "):
				writes[i%3]++
			}
		default:
			time.Sleep(time.Millisecond)
		}
	}
	killed := time.Now()
	if err := ps[leads].cmd.Process.Kill(); err != nil {
		b.Fatal(err)
	}
	// Writes that were on their way when it died may still be answered: the gap ends with the first write that was
	// begun after the kill and answered, which no dead leader can do. Each member writes one after the other, so
	// that is its second answer after the kill.
	first := time.Duration(1 << 62)
	for i, p := range ps {
		if i == leads {
			continue
		}
		after := 0
		for line := range p.lines {
			var at int64
			if n, _ := fmt.Sscanf(line, "write %d", &at); n == 1 && at > killed.UnixNano() {
				if after++; after == 2 {
					first = min(first, time.Duration(at-killed.UnixNano()))
					break
				}
			}
		}
	}
	return first
}
