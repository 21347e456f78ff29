// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/zookeeper"
	"github.com/seed-541fafe0/zk/transport"
	"github.com/seed-541fafe0/zk/wire"
)

const portEnv = "ZK_BENCH_PORT"

// portChild is one member that serves the ZooKeeper port, in a process of its own. It prints its address for members,
// reads the peers, and prints the port's address once it serves.
func portChild(dir string) error {
	tr, err := transport.TCP("127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("addr", tr.Addr())
	var peers []zk.Peer
	if err := json.NewDecoder(os.Stdin).Decode(&peers); err != nil {
		return err
	}
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{ID: filepath.Base(dir), Dir: dir, Transport: tr, Peers: peers})
	if err != nil {
		return err
	}
	if err := m.Ready(ctx); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &wire.Server{Member: m, Limits: wire.Limits{PerAddress: -1}}
	go s.Serve(l)
	fmt.Println("port", l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); { // until the parent is gone; a line asks for the memory in use
		var mem runtime.MemStats
		debug.FreeOSMemory()
		runtime.ReadMemStats(&mem)
		fmt.Println("memory", mem.HeapInuse+mem.StackInuse)
	}
	s.Close()
	return m.Close()
}

// port is a member with a port, in a process of its own.
type port struct {
	addr string // of the port
	in   io.WriteCloser
	out  *bufio.Scanner
}

// line waits for the next line that the process prints, without its prefix.
func (p *port) line(b *testing.B, prefix string) string {
	b.Helper()
	if !p.out.Scan() || !strings.HasPrefix(p.out.Text(), prefix) {
		b.Fatalf("a member said %q instead of %s", p.out.Text(), prefix)
	}
	return strings.TrimPrefix(p.out.Text(), prefix)
}

// memory is what the process has in use on its heap and stacks, in bytes, after a garbage collection.
func (p *port) memory(b *testing.B) (n float64) {
	b.Helper()
	fmt.Fprintln(p.in)
	if _, err := fmt.Sscan(p.line(b, "memory "), &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// startPorts starts n members with a port each.
func startPorts(b *testing.B, n int) (ps []*port) {
	b.Helper()
	dir := b.TempDir()
	var peers []zk.Peer
	for i := range n {
		id := fmt.Sprint("m", i)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), portEnv+"="+filepath.Join(dir, id))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			in.Close()
			cmd.Wait()
		})
		ps = append(ps, &port{in: in, out: bufio.NewScanner(out)})
		peers = append(peers, zk.Peer{ID: id, Addr: ps[i].line(b, "addr "), Voter: true})
	}
	for _, p := range ps {
		if err := json.NewEncoder(p.in).Encode(peers); err != nil {
			b.Fatal(err)
		}
	}
	for _, p := range ps {
		p.addr = p.line(b, "port ")
	}
	return ps
}

// startZooKeeper starts n real ZooKeepers, with fsync on, and returns their addresses.
func startZooKeeper(b *testing.B, n int) []string {
	b.Helper()
	if err := zookeeper.Installed(); err != nil {
		b.Skip("SKIPPED: ", err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	servers, err := zookeeper.StartEnsemble(ctx, n, zookeeper.Options{Sync: true, Config: []string{"globalOutstandingLimit=10000"}})
	if err != nil {
		b.Fatal(err)
	}
	var addrs []string
	for _, s := range servers {
		b.Cleanup(s.Stop)
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// BenchmarkPort drives the ZooKeeper port and a real ZooKeeper with the same client program: connections that each
// wait for one answer before they ask again, spread over the members, with values of 128 bytes. -benchtime 20000x is
// a fair amount for each line.
func BenchmarkPort(b *testing.B) {
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			for _, server := range []string{"zk", "zookeeper"} {
				b.Run(server, func(b *testing.B) {
					var addrs []string
					if server == "zk" {
						for _, p := range startPorts(b, members) {
							addrs = append(addrs, p.addr)
						}
					} else {
						addrs = startZooKeeper(b, members)
					}
					for _, conns := range []int{1, 64, 512} {
						clients := dialAll(b, addrs, conns)
						for _, kind := range []string{"read", "write"} {
							b.Run(fmt.Sprintf("%s/conns=%d", kind, conns), func(b *testing.B) { drivePort(b, clients, kind) })
						}
						for _, c := range clients {
							c.Close()
						}
					}
				})
			}
		})
	}
}

func dialAll(b *testing.B, addrs []string, n int) (clients []*wire.Client) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for i := range n {
		c, err := wire.Dial(ctx, wire.ClientConfig{Servers: addrs[i%len(addrs) : i%len(addrs)+1], Timeout: 20 * time.Second})
		if err != nil {
			b.Fatal(err)
		}
		clients = append(clients, c)
	}
	for i, c := range clients {
		if _, err := c.Create(ctx, fmt.Sprint("/bench-", i), make([]byte, valueSize), zk.Persistent); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			b.Fatal(err)
		}
	}
	return clients
}

func drivePort(b *testing.B, clients []*wire.Client, kind string) {
	value := make([]byte, valueSize)
	took := make([][]time.Duration, len(clients))
	var all sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for i, c := range clients {
		all.Go(func() {
			path := fmt.Sprint("/bench-", i)
			for n := i; n < b.N; n += len(clients) {
				at := time.Now()
				var err error
				if kind == "read" {
					_, _, err = c.Get(b.Context(), path)
				} else {
					_, err = c.Set(b.Context(), path, value, zk.AnyVersion)
				}
				if err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	lat := slices.Concat(took...)
	if len(lat) == 0 {
		return
	}
	slices.Sort(lat)
	b.ReportMetric(float64(len(lat))/time.Since(began).Seconds(), "ops/s")
	b.ReportMetric(float64(lat[len(lat)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(lat[len(lat)*99/100].Microseconds())/1000, "p99-ms")
}
