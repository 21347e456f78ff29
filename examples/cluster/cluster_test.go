// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// compiled builds the example and returns a function that prepares a run of it, with a directory of its own for
// temporary files.
func compiled(t *testing.T) func(args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	binary := filepath.Join(t.TempDir(), "cluster")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return func(args ...string) (*exec.Cmd, string) {
		temp := t.TempDir()
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+temp, "TEMP="+temp, "TMP="+temp)
		return cmd, temp
	}
}

func source(t *testing.T, below string) string {
	t.Helper()
	src, err := goSource()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(src, filepath.FromSlash(below))
}

func TestCluster(t *testing.T) {
	prepare := compiled(t)
	for _, test := range []struct {
		name string
		args []string
	}{
		{"leader killed", []string{"-dir", source(t, "net")}},
		{"undisturbed", []string{"-dir", source(t, "net/http"), "-kill=false", "-workers", "2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd, temp := prepare(append(test.args, "-timeout", "2m")...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			rows := map[string]string{}
			for _, m := range regexp.MustCompile(`(?m)^ +(\S.*?) {2,}(\S+)$`).FindAllStringSubmatch(string(out), -1) {
				rows[m[1]] = m[2]
			}
			files, err := list(test.args[1])
			if err != nil {
				t.Fatal(err)
			}
			var sum Counts
			for _, f := range files {
				c, err := count(test.args[1], f)
				if err != nil {
					t.Fatal(err)
				}
				sum.add(c)
			}
			for name, want := range map[string]int{
				"files": sum.Files, "results": sum.Files, "lines": sum.Lines, "words": sum.Words, "identifiers": sum.Idents,
				"results doubled": 0, "results lost": 0,
			} {
				if rows[name] != strconv.Itoa(want) {
					t.Errorf("%s: %q, want %d", name, rows[name], want)
				}
			}
			gap, killed := rows["from the kill to the next acknowledged write"]
			if killed != (test.name == "leader killed") {
				t.Errorf("time from the kill to the next write: %q", gap)
			}
			empty(t, temp)
			if t.Failed() {
				t.Logf("\n%s", out)
			}
		})
	}
}

func TestBadArguments(t *testing.T) {
	prepare := compiled(t)
	hollow := t.TempDir()
	if err := os.WriteFile(filepath.Join(hollow, "file.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"-dir " + filepath.Join(hollow, "missing"), "missing"},
		{"-dir " + hollow, "no .go file"},
		{"-dir " + filepath.Join(hollow, "file.txt"), "not a directory"},
		{"-members 4", "must be 3 or 5"},
		{"-workers 0", "must be from 1 to 1000"},
		{"-timeout -1s", "must be positive"},
		{"-timeout soon", "soon"},
		{"-unknown", "-unknown"},
		{"somewhere", `unexpected argument "somewhere"`},
	} {
		cmd, temp := prepare(strings.Fields(test.args)...)
		var out, errout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errout
		_ = cmd.Run() // its exit code is looked at below
		if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(errout.String(), test.want) {
			t.Errorf("%s: exit code %d, message %q; want 2 and a message with %q", test.args, code, errout.String(), test.want)
		}
		if lines := strings.Count(errout.String(), "\n"); lines != 1 || out.Len() > 0 {
			t.Errorf("%s: printed %d lines to stderr and %q to stdout, want one line", test.args, lines, out.String())
		}
		empty(t, temp)
	}
}

// TestInterrupted stops the program in the midst of its work: nothing may be left.
func TestInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	prepare := compiled(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, temp := prepare("-kill=false")
		var out bytes.Buffer
		cmd.Stderr = &out
		stdout := startWorking(t, cmd)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		discard(stdout)
		_ = cmd.Wait() // its exit code is looked at below; it returns when the members have closed their stderr, too
		if code := cmd.ProcessState.ExitCode(); code != 128+int(sig) || !strings.Contains(out.String(), "interrupted") {
			t.Errorf("%v: exit code %d\n%s", sig, code, out.String())
		}
		empty(t, temp)
	}
}

// TestGoRunInterrupted ends the go command alone, which does not tell the program, and stops to read what it prints.
func TestGoRunInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	for _, way := range []string{"SIGTERM", "broken pipe"} {
		temp := t.TempDir()
		cmd := exec.Command("go", "run", ".", "-kill=false")
		cmd.Env = append(os.Environ(), "TMPDIR="+temp)
		stderr, err := cmd.StderrPipe() // all processes have it open
		if err != nil {
			t.Fatal(err)
		}
		stdout := startWorking(t, cmd)
		if way == "SIGTERM" {
			err = cmd.Process.Signal(syscall.SIGTERM)
			discard(stdout)
		} else {
			err = stdout.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(stderr)
		if err != nil || !strings.Contains(string(text), "interrupted") {
			t.Errorf("%s: %q, %v", way, text, err)
		}
		_ = cmd.Wait() // the go command's own end does not matter
		left, err := filepath.Glob(filepath.Join(temp, "zk-cluster-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", way, left, err)
		}
	}
}

func TestBuiltByGoRun(t *testing.T) {
	for path, want := range map[string]bool{
		"/tmp/go-build123/b001/exe/cluster": true, "/home/me/.cache/go-build/08/08535815bfc0-d/cluster": true,
		"/usr/local/bin/cluster": false, "/home/me/exe/cluster": false, "/srv/08/cluster-d/cluster": false,
	} {
		if got := builtByGoRun(filepath.FromSlash(path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// TestOrphan kills the first process, which then cannot clean up: the members must end nevertheless.
func TestOrphan(t *testing.T) {
	prepare := compiled(t)
	cmd, _ := prepare("-kill=false")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := startWorking(t, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var b bytes.Buffer
		_, err := b.ReadFrom(stderr) // the members have it open, too
		ended <- err
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("members live on without the first process")
	}
	discard(stdout)
	_ = cmd.Wait() // it was killed
}

// startWorking starts a run and returns when its members have a leader, with what it prints from then on.
func startWorking(t *testing.T, cmd *exec.Cmd) io.ReadCloser {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), " leads, in term ") {
			return stdout
		}
	}
	t.Fatal("it ends without a leader")
	return nil
}

// discard reads to the end: a pipe that is full would hold a program up.
func discard(r io.Reader) { _, _ = io.Copy(io.Discard, r) }

func TestCount(t *testing.T) {
	for _, test := range []struct {
		src  string
		want Counts
	}{
		{"", Counts{Files: 1}},
		{"package a", Counts{1, 1, 2, 1}},
		{"package a\n\nvar b, c = 1, \"d e\" // f g\n", Counts{1, 3, 12, 3}},
		{"package \x00 'unfinished", Counts{1, 1, 3, 0}},
	} {
		if have := countBytes([]byte(test.src)); have != test.want {
			t.Errorf("%q: %+v, want %+v", test.src, have, test.want)
		}
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left in the directory for temporary files", e.Name())
	}
}
