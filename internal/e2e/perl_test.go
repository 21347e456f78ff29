// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// perlModule is where ./install builds Net::ZooKeeper.
func perlModule(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "zk-e2e-perl")
	needFiles(t, "perl", filepath.Join(dir, "built"))
	return dir
}

// TestPerl runs the tests that Net::ZooKeeper comes with, but for the one of what the C client logs, and when.
func TestPerl(t *testing.T) {
	dir := perlModule(t)
	files, err := filepath.Glob(filepath.Join(dir, "t", "*.t"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", dir, err)
	}
	e := open(t)
	row := tried{t, newRow("its own tests: calls, ACLs, watches, threads")}
	row.row.client, row.row.version = "Net::ZooKeeper", "3.8.0"
	for _, file := range files {
		if filepath.Base(file) == "35_log.t" {
			continue
		}
		row.run(strings.TrimSuffix(filepath.Base(file), ".t"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			cmd := exec.CommandContext(ctx, "perl", "-Mblib", "-I.", file)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "ZK_TEST_HOSTS="+e.connect(), "ZK_TEST_PATH=/")
			out, err := cmd.CombinedOutput()
			if err != nil || bytes.HasPrefix(out, []byte("1..0")) || bytes.Contains(out, []byte("# SKIP")) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
