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

// underGoRun looks at where go run puts what it builds, go-build123/b001/exe/cluster, and where it finds it the next time:
// in its cache, 08/0853...-d/cluster.
func underGoRun() bool {
	executable, err := os.Executable()
	return err == nil && builtByGoRun(executable)
}

func builtByGoRun(executable string) bool {
	dir := filepath.Dir(executable)
	name, up := filepath.Base(dir), filepath.Base(filepath.Dir(dir))
	if name == "exe" {
		return strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(dir))), "go-build")
	}
	return len(up) == 2 && strings.HasPrefix(name, up) && strings.HasSuffix(name, "-d")
}
