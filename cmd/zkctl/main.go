// SPDX-License-Identifier: Apache-2.0

// Command zkctl looks into ensembles of package zk, and of Apache ZooKeeper, through ZooKeeper's client protocol: as
// commands for scripts, and as a shell. zkctl serve runs a member with that protocol on a port. See docs/zkctl.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
