// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/seed-541fafe0/zk/internal/zookeeper"
)

// TestCommands runs every command once, and its refusals.
func TestCommands(t *testing.T) {
	_, addr := serve(t, "--super-digest", "super:"+digestOf("super:secret"))
	testCommands(t, addr)
}

// TestCommandsZooKeeper does so with Apache ZooKeeper.
func TestCommandsZooKeeper(t *testing.T) {
	if err := zookeeper.Installed(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := zookeeper.Start(ctx, zookeeper.Options{Properties: []string{"zookeeper.DigestAuthenticationProvider.superDigest=super:" + digestOf("super:secret")}})
	must(t, err)
	defer s.Stop()
	testCommands(t, s.Addr)
}

// testCommands checks what is printed, and where, and exit codes (CLI-3, CLI-4, CLI-7, CLI-8).
func testCommands(t *testing.T, addr string) {
	t.Setenv("ZK_SERVERS", addr)
	file := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(file, []byte("from a file"), 0o600))
	for _, step := range []struct {
		stdin string
		args  string // separated by spaces
		code  int
		out   string
	}{
		{"", "create /a hello", 0, "/a\n"},
		{"", "create /a", exitNodeExists, ""},
		{"", "get /a", 0, "hello\n"},
		{"", "get -o raw /a", 0, "hello"},
		{"", "get /none", exitNoNode, ""},
		{"", "create -s /a/b-", 0, "/a/b-0000000000\n"},
		{"", "create -p /deep/er/est x", 0, "/deep/er/est\n"},
		{"", "create /none/x", exitNoNode, ""},
		{"", "create -c /box", 0, "/box\n"},
		{"", "create -t 1h /ttl", 0, "/ttl\n"},
		{"", "create -e -t 1h /bad", exitUsage, ""},
		{"", "create bad", exitUsage, ""},
		{"", "ls /", 0, "a\nbox\ndeep\nttl\nzookeeper\n"},
		{"", "ls -R /a", 0, "/a\n/a/b-0000000000\n"},
		{"", "ls -o json /a", 0, "[\"b-0000000000\"]\n"},
		{"", "ls /none", exitNoNode, ""},
		{"", "set /a @" + file, 0, ""},
		{"", "get /a", 0, "from a file\n"},
		{"from stdin", "set /a -", 0, ""},
		{"", "get /a", 0, "from stdin\n"},
		{"", "set /a 0x00ff", 0, ""},
		{"", "get -o raw /a", 0, "\x00\xff"},
		{"", "set /a base64:aGk=", 0, ""},
		{"", "get /a", 0, "hi\n"},
		{"", "set /a text:0x", 0, ""},
		{"", "get /a", 0, "0x\n"},
		{"", "set /a 0xzz", exitUsage, ""},
		{"", "set -v 5 /a x", 0, ""},
		{"", "set -v 5 /a x", exitBadVersion, ""},
		{"", "set /none x", exitNoNode, ""},
		{"", "delete /a", exitNotEmpty, ""},
		{"", "delete -v 7 /box", exitBadVersion, ""},
		{"", "delete /box", 0, ""},
		{"", "delete /box", exitNoNode, ""},
		{"", "deleteall /deep", exitUsage, ""},
		{"", "deleteall --dry-run /deep", 0, "/deep\n/deep/er\n/deep/er/est\n"},
		{"", "ls /deep", 0, "er\n"},
		{"", "deleteall --yes /deep", 0, ""},
		{"", "ls /deep", exitNoNode, ""},
		{"", "deleteall --yes /deep", exitNoNode, ""},
		{"", "stat /none", exitNoNode, ""},
		{"", "create /secret x digest:ann:" + digestOf("ann:1") + ":cdrwa", 0, "/secret\n"},
		{"", "get /secret", exitAuth, ""},
		{"", "get --auth digest:ann:1 /secret", 0, "x\n"},
		{"", "get --auth digest:super:secret /secret", 0, "x\n"},
		{"", "ls --auth nonsense:1 /", exitAuth, ""},
		{"", "ls --auth nonsense /", exitUsage, ""},
		{"", "create /bad x world:anyone:q", exitUsage, ""},
		{"", "create /bad x nonsense", exitUsage, ""},
		{"", "create /bad x digest:nonsense:r", exitUsage, ""},
		{"", "ls --server " + addr + "/a /", 0, "b-0000000000\n"},
		{"", "nonsense", exitUsage, ""},
		{"", "ls", exitUsage, ""},
		{"", "ls --nonsense /", exitUsage, ""},
		{"", "ls -o nonsense /", exitUsage, ""},
		{"", "ls --server nonsense /", exitUsage, ""},
		{"", "ls --timeout 0s /", exitUsage, ""},
		{"", "ls --cert x /", exitUsage, ""},
		{"", "ls --server 127.0.0.1:1 --timeout 200ms /", exitUnreachable, ""},
		{"", "watch --kind nonsense /", exitUsage, ""},
	} {
		t.Run(step.args, func(t *testing.T) {
			r := zkctl(t, step.stdin, strings.Fields(step.args)...)
			if r.want(t, step.code, step.out); (r.err == "") != (step.code == 0) {
				t.Errorf("the standard error has %q", r.err)
			}
		})
	}

	t.Run("stat", func(t *testing.T) {
		r := zkctl(t, "", "stat", "/a")
		for _, line := range [...]string{`cZxid = 0x[0-9a-f]+`, `ctime = 20\d\d-\d\d-\d\dT.*Z`, `mZxid = 0x[0-9a-f]+`, `dataVersion = 6`, `ephemeralOwner = 0x0`, `dataLength = 1`, `numChildren = 1`} {
			if !regexp.MustCompile("(?m)^" + line + "$").MatchString(r.out) {
				t.Errorf("no line %s in\n%s", line, r.out)
			}
		}
		if got := zkctl(t, "", "get", "--stat", "/a").out; got != "x\n"+r.out {
			t.Errorf("get --stat printed\n%s", got)
		}
	})
	t.Run("json", func(t *testing.T) {
		var z jsonZnode
		must(t, json.Unmarshal([]byte(zkctl(t, "", "get", "-o", "json", "/a").out), &z))
		if z.Path != "/a" || *z.Data != "x" || z.Encoding != "" || z.Stat.Version != 6 || z.Stat.NumChildren != 1 {
			t.Errorf("%+v %+v", z, z.Stat)
		}
		zkctl(t, "", "set", "/a", "0xff").want(t, 0, "")
		must(t, json.Unmarshal([]byte(zkctl(t, "", "get", "-o", "json", "/a").out), &z))
		if *z.Data != "/w==" || z.Encoding != "base64" {
			t.Errorf("%+v", z)
		}
		var s struct{ Stat jsonStat }
		must(t, json.Unmarshal([]byte(zkctl(t, "", "stat", "-o", "json", "/a").out), &s))
		if s.Stat.Version != 7 || !strings.HasPrefix(s.Stat.Czxid, "0x") {
			t.Errorf("%+v", s)
		}
	})
}

// TestWatch prints changes as they come, and survives its server.
func TestWatch(t *testing.T) {
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", addr)
	w := start(t, "watch", "/")
	w.says("watching")
	three := start(t, "watch", "-o", "json", "--kind", "children", "--count", "1", "/")
	three.says("watching")
	zkctl(t, "", "create", "/a", "x").want(t, 0, "/a\n")
	zkctl(t, "", "set", "/a", "y").want(t, 0, "")
	zkctl(t, "", "delete", "/a").want(t, 0, "")
	for _, want := range [...]string{"created /a 0x", "changed /a 0x", "deleted /a 0x"} {
		if l := w.line(); !strings.HasPrefix(l, want) {
			t.Errorf("%q instead of %q", l, want)
		}
	}
	var ev struct{ Type, Path, Zxid string }
	must(t, json.Unmarshal([]byte(three.line()), &ev))
	if ev.Type != "children" || ev.Path != "/" || ev.Zxid == "" {
		t.Errorf("%+v", ev)
	}
	<-three.ended
	if code := three.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("after --count it ended with %d", code)
	}
	if code := w.end(os.Interrupt); code != exitInterrupted {
		t.Errorf("code %d after an interrupt", code)
	}
}

// TestEphemeral keeps an ephemeral znode as long as the command runs.
func TestEphemeral(t *testing.T) {
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", addr)
	p := start(t, "create", "-e", "/mine")
	if l := p.line(); l != "/mine" {
		t.Errorf("printed %q", l)
	}
	zkctl(t, "", "ls", "/").want(t, 0, "mine\nzookeeper\n")
	if code := p.end(os.Interrupt); code != 0 {
		t.Errorf("code %d", code)
	}
	zkctl(t, "", "ls", "/").want(t, 0, "zookeeper\n") // closed, not expired
}

// TestLegacy runs the commands with a server that, like ZooKeeper 3.4, closes the connection of who asks for what came
// later (WP-83).
func TestLegacy(t *testing.T) {
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", oldServer(t, addr))
	zkctl(t, "", "--timeout", "1s", "create", "/a").want(t, exitUnreachable, "")
	for _, step := range []struct {
		stdin string
		args  string // separated by spaces
		code  int
		out   string
	}{
		{"", "create /a hello", 0, "/a\n"},
		{"", "create -p /a/b/c", 0, "/a/b/c\n"},
		{"", "create -s -o json /a/s-", 0, "{\"path\":\"/a/s-0000000001\"}\n"},
		{"", "create -c /box", exitUsage, ""},
		{"", "create -t 1h /ttl", exitUsage, ""},
		{"", "ls /a", 0, "b\ns-0000000001\n"},
		{"", "ls -R /a", 0, "/a\n/a/b\n/a/b/c\n/a/s-0000000001\n"},
		{"", "ls -R /none", exitNoNode, ""},
		{"", "get /a", 0, "hello\n"},
		{"", "set -v 0 /a more", 0, ""},
		{"", "watch /a", exitUsage, ""},
		{"create -e /mine x\nls /\ndelete /mine\n", "", 0, "/mine\na\nmine\nzookeeper\n"},
		{"", "deleteall --yes /a/b", 0, ""},
		{"", "ls /a", 0, "s-0000000001\n"},
	} {
		r := zkctl(t, step.stdin, append([]string{"--legacy"}, strings.Fields(step.args)...)...)
		if r.want(t, step.code, step.out); (r.err == "") != (step.code == 0) {
			t.Errorf("%s: the standard error has %q", step.args, r.err)
		}
	}
	if got, want := zkctl(t, "", "--legacy", "ls", "--stat", "/a").out, "s-0000000001\n"+zkctl(t, "", "stat", "/a").out; got != want || !strings.Contains(got, "dataVersion = 1\n") {
		t.Errorf("ls --stat printed\n%s", got)
	}
}

// oldServer hands on to addr what clients of ZooKeeper 3.4 send, and hangs up on others.
func oldServer(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var work sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", addr)
			if err != nil {
				c.Close()
				continue
			}
			work.Go(func() {
				defer c.Close()
				io.Copy(c, s)
			})
			work.Go(func() {
				defer s.Close()
				for first := true; ; first = false {
					b := make([]byte, 4)
					if _, err := io.ReadFull(c, b); err != nil {
						return
					}
					b = append(b, make([]byte, binary.BigEndian.Uint32(b))...)
					if _, err := io.ReadFull(c, b[4:]); err != nil {
						return
					}
					op := int32(binary.BigEndian.Uint32(b[8:]))
					if !first && op > 14 && op != 100 && op != 101 { // up to multi, auth and setWatches
						return
					}
					if _, err := s.Write(b); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}
