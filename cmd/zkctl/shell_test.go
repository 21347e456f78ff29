// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

func digestOf(userPassword string) string {
	_, hash, _ := strings.Cut(zk.DigestID(userPassword), ":")
	return hash
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                            nil,
		"  # nothing":                 nil,
		"ls /":                        {"ls", "/"},
		"set /a 'two words' # why":    {"set", "/a", "two words"},
		`set /a "say \"hi\" \n" ''`:   {"set", "/a", `say "hi" \n`, ""},
		`create /a\ b don\'t it#is\\`: {"create", "/a b", "don't", `it#is\`},
		"ls\t/a\r":                    {"ls", "/a"},
	} {
		got, err := splitWords(line)
		if must(t, err); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	for _, line := range [...]string{"ls '", `ls "/a`, `ls \`} {
		if got, err := splitWords(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// TestScript reads commands from the standard input: one session, one exit code (CLI-1).
func TestScript(t *testing.T) {
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", addr)
	zkctl(t, "create /a 'two words'\n\nget /a # why\ncreate -e /mine\nls /\nquit\nls /never\n").want(t, 0, "/a\ntwo words\n/mine\na\nmine\nzookeeper\n")
	r := zkctl(t, "get /a\nget /none\nget /a\n")
	if r.want(t, exitNoNode, "two words\n"); !strings.Contains(r.err, "line 2") {
		t.Errorf("the error is %q", r.err)
	}
	zkctl(t, "addauth digest ann:1\ncreate /ann x auth::cdrwa\nget /ann\n").want(t, 0, "/ann\nx\n")
	zkctl(t, "get /ann\n").want(t, exitAuth, "")
	zkctl(t, "serve\n").want(t, exitUsage, "")
	zkctl(t, "get 'x\n").want(t, exitUsage, "")
}

// terminal runs the program on a terminal of script(1).
type terminal struct {
	t   *testing.T
	in  io.Writer
	mu  sync.Mutex
	out bytes.Buffer
}

func (p *terminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// types sends text and waits until what follows contains shows.
func (p *terminal) types(text, shows string) {
	p.t.Helper()
	p.mu.Lock()
	p.out.Reset()
	p.mu.Unlock()
	io.WriteString(p.in, text)
	p.screen(func(screen string) bool { return strings.Contains(screen, shows) })
}

// enters sends a line, which shows something, and waits for the next prompt.
func (p *terminal) enters(text, shows string) {
	p.t.Helper()
	p.types(text+"\r", shows)
	p.prompt()
}

// prompt waits until the last line is a prompt.
func (p *terminal) prompt() {
	p.t.Helper()
	p.screen(func(screen string) bool {
		return strings.Contains(screen[strings.LastIndexByte(screen, '\n')+1:], "zk> ")
	})
}

func (p *terminal) screen(ok func(string) bool) {
	p.t.Helper()
	for end := time.Now().Add(patience / 4); ; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		screen := p.out.String()
		p.mu.Unlock()
		if ok(screen) {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the screen shows %q", screen)
		}
	}
}

// TestShell types into a terminal: commands, completion, an interrupt, the history (CLI-5, CLI-6).
func TestShell(t *testing.T) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("SKIPPED: there is no script(1) here, which gives a terminal")
	}
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", addr)
	history := filepath.Join(t.TempDir(), "history")
	t.Setenv("ZKCTL_HISTORY", history)
	t.Setenv("TERM", "xterm")
	cmd := exec.Command(script, "-qec", "stty cols 100 rows 30; exec "+program, os.DevNull) // a line editor needs a size
	p := &terminal{t: t}
	p.in, err = cmd.StdinPipe()
	must(t, err)
	cmd.Stdout, cmd.Stderr = p, p
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	p.prompt()
	p.enters("create /application hello", "\n/application\r\n")
	p.enters("create /application/one", "\n/application/one\r\n")
	p.types("get /app\t", "get /application")
	p.enters("", "hello\r\n")
	p.types("stat /application/\t", "stat /application/one") // the only child
	p.enters("", "numChildren = 0")
	p.types("sta\t", "stat ")
	p.enters("/application", "numChildren = 1")
	p.enters("get /none", "no node")
	p.enters("addauth digest ann:secret", "\n")
	p.types("watch /\r", "watching")
	p.types("\x03", "zk> ") // ends the watch, not the shell
	p.types("deleteall /application\r", "2 znodes in all? [y/N]")
	p.enters("y", "\n")
	p.enters("ls /", "\nzookeeper\r\n")
	io.WriteString(p.in, "quit\r")
	if err := <-ended; err != nil {
		t.Errorf("it ended: %v\n%s", err, p.out.String())
	}
	kept, err := os.ReadFile(history)
	must(t, err)
	if !strings.Contains(string(kept), "deleteall /application\n") || strings.Contains(string(kept), "secret") {
		t.Errorf("the history is\n%s", kept)
	}
	if info, err := os.Stat(history); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	zkctl(t, "", "ls", "/").want(t, 0, "zookeeper\n")
}
