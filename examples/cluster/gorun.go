// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// goRunEnded is closed when the go command that runs this program has ended before it. SIGTERM ends go run and is not
// passed on. The channel is nil where the program was started in another way.
func goRunEnded(ctx context.Context) <-chan struct{} {
	if !underGoRun() {
		return nil
	}
	ended := make(chan struct{})
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for parent := os.Getppid(); os.Getppid() == parent; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		close(ended)
	}()
	return ended
}

// underGoRun looks at where go run puts what it builds: go-build123/b001/exe/cluster.
func underGoRun() bool {
	executable, err := os.Executable()
	if err != nil {
		return false
	}
	exe := filepath.Dir(executable)
	return filepath.Base(exe) == "exe" && strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(exe))), "go-build")
}
