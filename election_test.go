// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// settled returns the leader once nobody stands for election any more.
func settled(t *testing.T, ctx context.Context, c *zktest.Cluster) int {
	t.Helper()
	eventually(t, "an election goes on", func() bool {
		for i := range c.Len() {
			if c.Member(i).Role() == zk.RoleCandidate {
				return false
			}
		}
		return true
	})
	return leader(t, ctx, c)
}
