// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// debianPython is the Python that Debian's packages belong to; another may come first in PATH.
const debianPython = "/usr/bin/python3"

func kazooVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(debianPython, "-c", "import kazoo.version; print(kazoo.version.__version__)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestKazoo(t *testing.T) {
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	e := open(t)
	suite(t, e, "every kind of call, watches, transactions, ACLs, all recipes, kill of the leader", debianPython, "-B", "kazoo/suite.py", e.connect())
}
