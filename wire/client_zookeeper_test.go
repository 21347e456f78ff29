// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk/internal/zookeeper"
)

// startZooKeeper runs a stand-alone Apache ZooKeeper on loopback until the test ends.
func startZooKeeper(t *testing.T) *zookeeper.Server {
	t.Helper()
	if err := zookeeper.Installed(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := zookeeper.Start(ctx, zookeeper.Options{Properties: []string{"zookeeper.DigestAuthenticationProvider.superDigest=" + superDigest}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// TestClientZooKeeper runs the client against Apache ZooKeeper.
func TestClientZooKeeper(t *testing.T) {
	s := startZooKeeper(t)
	clientSuite(t, func(*testing.T) []string { return []string{s.Addr} })
}
