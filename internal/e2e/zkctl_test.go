// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gozk "github.com/go-zookeeper/zk"
)

// zkctlServers describes three members that zkctl serve runs.
func zkctlServers(t *testing.T, program string) []*server {
	t.Helper()
	var flags []string
	var peers []string
	for i := range 3 {
		peers = append(peers, loopback(freePort(t)))
		flags = append(flags, "--member", fmt.Sprintf("z%d=%s", i+1, peers[i]))
	}
	var list []*server
	for i := range 3 {
		addr := loopback(freePort(t))
		args := append([]string{"serve", "--id", fmt.Sprintf("z%d", i+1), "--dir", filepath.Join(t.TempDir(), "data"), "--peer-addr", peers[i], "--client-addr", addr, "--words", "*"}, flags...)
		list = append(list, &server{addr: addr, run: func(ctx context.Context) (func(), error) {
			return runServer(ctx, t, exec.Command(program, args...), addr)
		}})
	}
	return list
}

// TestZkctl runs the members that a user runs, and the commands that a user types.
func TestZkctl(t *testing.T) {
	if *against != "zk" {
		t.Skip("SKIPPED: zkctl serve is zk's")
	}
	program := filepath.Join(t.TempDir(), "zkctl")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "cmd", "zkctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	e := openServers(t, zkctlServers(t, program), nil)
	s := tried{t, newRow("zkctl serve as three processes, its one-shot commands, a Go client across the kill of the leader")}
	s.row.client, s.row.version = "zkctl", "this one"
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, append([]string{"--server", e.connect()}, args...)...).Output()
		if err != nil {
			t.Fatalf("zkctl %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	s.run("commands", func(t *testing.T) {
		run(t, "create", "/zkctl", "one")
		run(t, "create", "/zkctl/kid", "x")
		run(t, "set", "/zkctl", "two")
		if got := run(t, "get", "/zkctl"); got != "two" {
			t.Errorf("get: %q", got)
		}
		if got := run(t, "ls", "/zkctl"); got != "kid" {
			t.Errorf("ls: %q", got)
		}
		run(t, "deleteall", "--yes", "/zkctl")
		if err := exec.CommandContext(t.Context(), program, "--server", e.connect(), "get", "/zkctl").Run(); err == nil {
			t.Error("get of a missing znode ends with status 0")
		}
	})
	s.run("leader_kill", func(t *testing.T) { goLeaderKill(t, e, gozk.WorldACL(gozk.PermAll)) })
}
