// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk/internal/zookeeper"
)

// bound is how long anything may take before the test has failed.
const bound = 60 * time.Second

// ensemble is three servers, each a process.
type ensemble struct {
	members []*server
	peers   []string // addresses of zk's members for each other
}

// server is one of them, alive or killed.
type server struct {
	addr string // of the client port
	run  func(context.Context) (kill func(), err error)
	kill func() // nil while it does not run
}

// open starts an ensemble of what the flag says, which ends with the test.
func open(t *testing.T) *ensemble {
	t.Helper()
	switch *against {
	case "zk":
		members, peers := zkServers(t)
		return openServers(t, members, peers)
	case "apache":
		return openServers(t, apacheServers(t), nil)
	}
	t.Fatalf("-server is zk or apache, not %q", *against)
	return nil
}

// openServers starts servers, which end with the test.
func openServers(t *testing.T, servers []*server, peers []string) *ensemble {
	t.Helper()
	e := &ensemble{members: servers, peers: peers}
	t.Cleanup(func() {
		for _, s := range e.members {
			if s.kill != nil {
				s.kill()
			}
		}
	})
	if err := e.restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// connect is the ensemble's connect string.
func (e *ensemble) connect() string {
	var list []string
	for _, s := range e.members {
		list = append(list, s.addr)
	}
	return strings.Join(list, ",")
}

// restart starts all that do not run, and returns when the whole ensemble serves.
func (e *ensemble) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	type started struct {
		s    *server
		kill func()
		err  error
	}
	var waiting int
	results := make(chan started)
	for _, s := range e.members {
		if s.kill == nil {
			waiting++
			go func() {
				kill, err := s.run(ctx)
				results <- started{s, kill, err}
			}()
		}
	}
	var failed error
	for range waiting {
		r := <-results
		if r.err != nil {
			failed = r.err
			continue
		}
		r.s.kill = r.kill
	}
	if failed != nil {
		return failed
	}
	_, err := e.leader(ctx)
	return err
}

// leader returns the server that leads, once all that run serve.
func (e *ensemble) leader(ctx context.Context) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var leader *server
		modes := map[string]int{}
		for _, s := range e.members {
			if s.kill == nil {
				continue
			}
			mode := s.mode()
			modes[mode]++
			if mode == "leader" {
				leader = s
			}
		}
		if leader != nil && modes["leader"] == 1 && modes[""] == 0 {
			return leader, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no leader: %v", modes)
		case <-tick.C:
		}
	}
}

// killLeader kills the process that leads and returns its address.
func (e *ensemble) killLeader(ctx context.Context) (string, error) {
	s, err := e.leader(ctx)
	if err != nil {
		return "", err
	}
	s.kill()
	s.kill = nil
	return s.addr, nil
}

// word sends a four-letter word.
func (s *server) word(word string) string {
	c, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, word); err != nil {
		return ""
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// mode asks a server what it is; "" if it does not serve.
func (s *server) mode() string {
	_, mode, _ := strings.Cut(s.word("srvr"), "\nMode: ")
	mode, _, _ = strings.Cut(mode, "\n")
	return mode
}

// sessions counts the connections of clients, without those that only sent a word.
func (s *server) sessions() int { return strings.Count(s.word("cons"), "sid=0x") }

// apacheServers describes three servers of Debian's ZooKeeper.
func apacheServers(t *testing.T) []*server {
	need(t, zookeeper.Installed())
	const n = 3
	var config []string
	for i := range n {
		config = append(config, fmt.Sprintf("server.%d=%s:%d:%d;%s:%d", i+1, host, freePort(t), freePort(t), host, freePort(t)))
	}
	var list []*server
	for i := range n {
		dir := filepath.Join(t.TempDir(), strconv.Itoa(i+1))
		_, addr, _ := strings.Cut(config[i], ";")
		list = append(list, &server{addr: addr, run: func(ctx context.Context) (func(), error) {
			s, err := zookeeper.Start(ctx, zookeeper.Options{Dir: dir, ID: i + 1, Addr: addr, Config: append([]string{"initLimit=20", "syncLimit=10"}, config...)})
			if err != nil {
				return nil, err
			}
			return s.Stop, nil
		}})
	}
	return list
}

// host is where all servers of this process's tests listen: loopback has many addresses, and another run of the tests
// on this machine takes other ones.
var host = fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()>>16&0x3f, os.Getpid()>>8&0xff, os.Getpid()&0xff)

var taken sync.Map // ports that freePort gave out

// freePort finds a port of host that nobody was given, out of the range that the kernel gives to connections.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(10000)
		if _, again := taken.LoadOrStore(port, true); again {
			continue
		}
		if l, err := net.Listen("tcp", loopback(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
