// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

var against = flag.String("server", "zk", `what the clients talk to: "zk", or "apache" for Debian's ZooKeeper`)

// TestMain makes the test binary a member's process too, and prints the table of results.
func TestMain(m *testing.M) {
	if spec := os.Getenv(memberEnv); spec != "" {
		if err := serveMember(spec, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	before := goleak.IgnoreCurrent()
	flag.Parse()
	code := m.Run()
	if err := goleak.Find(before); code == 0 && err != nil {
		fmt.Println(err)
		code = 1
	}
	printTable(os.Stdout)
	if code == 0 && *against == "zk" && flag.Lookup("test.run").Value.String() == "" {
		if err := compareTable("../../docs/compatibility.md"); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// start starts a command whose process is killed when this one ends, however that comes about. The kernel watches the
// thread that started it, so all are started by one thread that lasts.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error)
	starts <- func() { done <- cmd.Start() }
	return <-done
}

var starts = func() chan func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
}()
