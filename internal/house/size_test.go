// SPDX-License-Identifier: Apache-2.0

package house

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSize weighs a service before and after it became a member. What grows past its bound is too much to embed: see what
// weighs most with go tool nm -size, and do without it. The bounds are not to be raised.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("it links four programs")
	}
	m := source(t)
	weigh := func(tags string) float64 {
		program := filepath.Join(t.TempDir(), "program")
		m.run(t, []string{"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"},
			"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-tags="+tags, "-o", program, "./internal/house/testdata/size")
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		return float64(info.Size()) / 1e6
	}
	plain := weigh("")
	t.Logf("a service on net/http and log/slog: %.2f MB (linux/amd64, CGO_ENABLED=0, -trimpath -ldflags='-s -w')", plain)
	for _, row := range []struct {
		name, tags string
		bound      float64 // MB
	}{
		{"zk, every recipe, TCP between members", "ensemble", 4},
		{"the same, and the port for ZooKeeper's clients", "ensemble,port", 6},
		{"both, and TLS between members, which is code of the standard library", "ensemble,port,secure", 6},
	} {
		grown := weigh(row.tags) - plain
		t.Logf("%s: %.2f MB more, of at most %.1f", row.name, grown, row.bound)
		if grown > row.bound {
			t.Errorf("%s: a service grows by %.2f MB, more than %.1f", row.name, grown, row.bound)
		}
	}
}
