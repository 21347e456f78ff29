// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// nodeModules is where ./install puts what node/package.json asks for.
func nodeModules(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "zk-e2e", "node_modules")
}

func TestNode(t *testing.T) {
	modules := nodeModules(t)
	needFiles(t, "node", filepath.Join(modules, "node-zookeeper-client"))
	t.Setenv("NODE_PATH", modules)
	e := open(t)
	suite(t, e, "every call of the API, watches, transactions, ACLs, sessions, kill of the leader", "node", "node/suite.js", e.connect())
}
