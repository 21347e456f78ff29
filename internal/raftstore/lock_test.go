// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// lockChild makes the test's binary lock a directory instead of testing.
const lockChild = "RAFTSTORE_LOCK_CHILD"

// lockAndWait locks a directory, says so, and holds it until its input ends.
func lockAndWait(dir string) {
	lock, err := LockDir(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("locked")
	io.Copy(io.Discard, os.Stdin)
	lock.Close()
}

func held(t *testing.T, dir string, pid int) {
	t.Helper()
	_, err := LockDir(dir)
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.PID != pid || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Fatalf("a locked directory: %v", err)
	}
}

// A directory is locked against this process and every other, and free again when its holder closes or dies.
func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	lock, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	held(t, dir, os.Getpid())
	if out := strings.TrimSpace(child(t, dir).line); !strings.Contains(out, strconv.Itoa(os.Getpid())) {
		t.Errorf("another process: %s", out)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(c *process){
		func(c *process) { c.in.Close() },
		func(c *process) { c.cmd.Process.Kill() },
	} {
		c := child(t, dir)
		if c.line != "locked\n" {
			t.Fatal(c.line)
		}
		held(t, dir, c.cmd.Process.Pid)
		end(c)
		c.cmd.Wait()
		lock, err := LockDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		lock.Close()
	}
}

type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	line string // the first it said
}

func child(t *testing.T, dir string) *process {
	t.Helper()
	c := &process{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), lockChild+"="+dir)
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.in.Close(); c.cmd.Wait() })
	if c.line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return c
}

// A holder that has not said who it is, or not all of it, is another process.
func TestUnsignedLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), lockName)
	for text, pid := range map[string]int{"": 0, "12": 0, "12\n": 12, "x\n": 0, "-3\n": 0, "12\n13\n": 0} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := holder(name); got != pid {
			t.Errorf("%q: %d", text, got)
		}
	}
	if holder(name+"x") != 0 || !strings.Contains((&LockedError{Path: "p"}).Error(), "another process") {
		t.Error("nobody")
	}
}

// Directories are made where they are missing, for the owner alone; a file in their place is an error.
func TestMakeDir(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	if err := makeDir(deep); err != nil {
		t.Fatal(err)
	}
	for p := deep; p != dir; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", p, info.Mode())
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "below")} {
		if _, err := LockDir(p); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", p, err)
		}
	}
}
