// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
)

func TestC(t *testing.T) {
	needFiles(t, "gcc", "/usr/include/zookeeper/zookeeper.h")
	program := filepath.Join(t.TempDir(), "suite")
	if out, err := exec.Command("gcc", "-std=gnu11", "-Wall", "-O1", "-DTHREADED", "-o", program, "c/suite.c", "-lzookeeper_mt", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	e := open(t)
	suite(t, e, "synchronous and asynchronous calls, watches, multi, ACLs, sessions taken over, kill of the leader", program, e.connect())
}
