// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// need skips a test for want of what ./install installs; in CI and as root, which can install it, that is a failure.
func need(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") != "" || os.Geteuid() == 0:
		t.Fatalf("%v: run internal/e2e/install", err)
	default:
		t.Skipf("SKIPPED: %v: run internal/e2e/install as root", err)
	}
}

// needFiles needs files, and programs in PATH.
func needFiles(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			need(t, fmt.Errorf("there is no %s", name))
		}
	}
}
