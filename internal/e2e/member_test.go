// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
)

// memberEnv makes the test binary a member; it holds the memberSpec.
const memberEnv = "ZK_E2E_MEMBER"

// memberSpec is what a member's process is told.
type memberSpec struct {
	ID, Dir string
	Peers   []zk.Peer
	Client  string // address of the ZooKeeper port
	TLS     string // directory with certificates; "" means plain connections only
}

// serveMember is the life of a member's process, until in ends.
func serveMember(text string, in io.Reader) error {
	var spec memberSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	cfg := zk.Config{ID: spec.ID, Dir: spec.Dir, Peers: spec.Peers, ReapInterval: 2 * time.Second}
	for _, p := range spec.Peers {
		if p.ID == spec.ID {
			cfg.Addr = p.Addr
		}
	}
	m, err := zk.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	l, err := net.Listen("tcp", spec.Client)
	if err != nil {
		return err
	}
	s := &wire.Server{Member: m, Words: []string{"*"}, Limits: wire.Limits{PerAddress: -1}}
	if spec.TLS != "" {
		s.OnePort = true
		if s.TLS, err = serverTLS(spec.TLS); err != nil {
			return err
		}
	}
	go func() {
		io.Copy(io.Discard, in)
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, wire.ErrServerClosed) {
		return err
	}
	return nil
}

// zkServers describes three members of one ensemble, each a process of this test binary, and where they reach each other.
func zkServers(t *testing.T) (list []*server, addrs []string) {
	t.Helper()
	return zkServersWith(t, "")
}

// zkServersWith is zkServers for clients that may use TLS, with a directory that certificates filled.
func zkServersWith(t *testing.T, certificates string) (list []*server, addrs []string) {
	t.Helper()
	const n = 3
	var peers []zk.Peer
	for i := range n {
		peers = append(peers, zk.Peer{ID: fmt.Sprintf("m%d", i+1), Addr: loopback(freePort(t)), Voter: true})
		addrs = append(addrs, peers[i].Addr)
	}
	for i := range n {
		spec := memberSpec{ID: peers[i].ID, Dir: filepath.Join(t.TempDir(), peers[i].ID), Peers: peers, Client: loopback(freePort(t)), TLS: certificates}
		list = append(list, &server{addr: spec.Client, run: func(ctx context.Context) (func(), error) { return runMember(ctx, t, spec) }})
	}
	return list, addrs
}

func loopback(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// runMember starts a member's process and waits until it serves.
func runMember(ctx context.Context, t *testing.T, spec memberSpec) (kill func(), err error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
	return runServer(ctx, t, cmd, spec.Client)
}

// runServer starts a server's process and waits until its client port serves.
func runServer(ctx context.Context, t *testing.T, cmd *exec.Cmd, addr string) (kill func(), err error) {
	var said safeBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := start(cmd); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	kill = func() {
		cmd.Process.Kill()
		<-ended
		stdin.Close()
		if text := said.String(); text != "" {
			t.Logf("the server at %s said:\n%s", addr, text)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s := (&server{addr: addr}); s.mode() == ""; {
		select {
		case <-ctx.Done():
			kill()
			return nil, fmt.Errorf("%s does not serve: %w", addr, context.Cause(ctx))
		case <-ended:
			return nil, fmt.Errorf("%s ended: %s", addr, said.String())
		case <-tick.C:
		}
	}
	return kill, nil
}
