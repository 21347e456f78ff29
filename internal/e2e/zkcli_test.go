// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const zkCliScript = "/usr/share/zookeeper/bin/zkCli.sh"

// zkCli is a running zkCli.sh, which is told commands as a user would type them.
type zkCli struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan string

	version string
	events  []string // that came in the output of a command
}

// zkCliMark is what the command "version" prints: it tells that the command before it is done.
const zkCliMark = "ZooKeeper CLI version: "

func openCli(t *testing.T, e *ensemble) *zkCli {
	t.Helper()
	cmd := exec.Command(zkCliScript, "-server", e.connect(), "-timeout", "10000")
	cmd.Env = append(os.Environ(), "CLIENT_JVMFLAGS=-Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC", "ZOO_LOG_DIR="+t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	in.Close()
	c := &zkCli{t: t, stdin: stdin, lines: make(chan string, 1024)}
	ended := make(chan struct{})
	go func() {
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		stdin.Close() // the end of its input ends the script and the java under it
		select {
		case <-ended:
		case <-time.After(bound):
			t.Error("zkCli.sh does not end")
			cmd.Process.Kill()
		}
		out.Close()
	})
	c.do("ls /") // it is connected then
	return c
}

// do runs a command and returns what it printed.
func (c *zkCli) do(command string) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.stdin, "%s\nversion\n", command); err != nil {
		c.t.Fatal(err)
	}
	var said []string
	for late := time.After(bound); ; {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("zkCli.sh ended: %s", strings.Join(said, "\n"))
			}
			if version, ok := strings.CutPrefix(line, zkCliMark); ok {
				c.version, _, _ = strings.Cut(version, "-")
				return strings.Join(said, "\n")
			}
			// Events come between, after "", "WATCHER::" and "".
			if strings.HasPrefix(line, "WatchedEvent ") && len(said) >= 3 {
				c.events = append(c.events, line)
				said = said[:len(said)-3]
				continue
			}
			said = append(said, line)
		case <-late:
			c.t.Fatalf("no answer to %q: %s", command, strings.Join(said, "\n"))
		}
	}
}

// expect runs a command whose output must match.
func (c *zkCli) expect(command, pattern string) string {
	c.t.Helper()
	said := c.do(command)
	if !regexp.MustCompile(pattern).MatchString(said) {
		c.t.Errorf("%s: %q, want %q", command, said, pattern)
	}
	return said
}

// hears waits for a line that nobody asked for.
func (c *zkCli) hears(pattern string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	if slices.ContainsFunc(c.events, re.MatchString) {
		return
	}
	for late := time.After(bound); ; {
		select {
		case line := <-c.lines:
			if re.MatchString(line) {
				return
			}
		case <-late:
			c.t.Fatalf("does not hear %q", pattern)
		}
	}
}

func TestZkCli(t *testing.T) {
	needFiles(t, zkCliScript, "java")
	e := open(t)
	s := tried{t, newRow("its commands through standard input, kill of the leader")}
	s.row.client, s.row.version = "zkCli.sh", "?"
	s.run("commands", func(t *testing.T) {
		c := openCli(t, e)
		s.row.version = c.version
		for _, step := range []struct{ command, want string }{
			{"create /cli one", "^Created /cli$"},
			{"get /cli", "^one$"},
			{"set /cli two", "^$"},
			{"set -v 0 /cli three", "version No is not valid : /cli"},
			{"get -s /cli", "(?s)^two\n.*dataVersion = 1\n.*numChildren = 0"},
			{"stat /cli", `(?s)^cZxid = 0x[0-9a-f]+\nctime = .*\nmZxid = 0x.*\ndataLength = 3\nnumChildren = 0`},
			{"create /cli", "Node already exists: /cli"},
			{"create -s /cli/s- x", "^Created /cli/s-0000000000$"},
			{"create -e /cli/e x", "^Created /cli/e$"},
			{"create -e -s /cli/e- x", "^Created /cli/e-0000000002$"},
			{"create -c /cli/container", "^Created /cli/container$"},
			{"create -t 60000 /cli/ttl x", "^Created /cli/ttl$"},
			{"ls /cli", `^\[container, e, e-0000000002, s-0000000000, ttl\]$`},
			{"ls -s /cli", "numChildren = 5"},
			{"ls -R /cli", "(?s)^/cli\n/cli/container\n/cli/e\n"},
			{"getAllChildrenNumber /cli", "^5$"},
			{"getEphemerals /cli", `(?s)^\[/cli/e, /cli/e-0000000002\]$|^\[/cli/e-0000000002, /cli/e\]$`},
			{"create /cli/e/x", "Ephemerals cannot have children"},
			{"get /cli/none", "(Node does not exist|NoNode).*/cli/none"},
			{"delete /cli", "Node not empty: /cli"},
			{"getAcl /cli", "(?s)^'world,'anyone\n: cdrwa$"},
			{"addauth digest joe:secret", "^$"},
			{"whoami", "(?s)digest.*joe"},
			{"create /cli/mine x auth::cdrwa", "^Created /cli/mine$"},
			{"getAcl /cli/mine", "(?s)^'digest,'joe:.*\n: cdrwa$"},
			{"setAcl /cli/mine world:anyone:r", "^$"},
			{"set /cli/mine y", "Insufficient permission : /cli/mine"},
			{"sync /cli", "^Sync is OK$"},
			{"config", "(?s)version="},
			{"setquota -n 100 /cli/container", "^$"},
			{"listquota /cli/container", "count=100"},
			{"delquota -n /cli/container", "^$"},
			{"deleteall /cli/container", "^$"},
			{"delete /cli/ttl", "^$"},
			{"stat /cli/ttl", "(Node does not exist|NoNode).*/cli/ttl"},
			{"nosuchcommand", "(?i)command not found|ZooKeeper -server"},
		} {
			c.expect(step.command, step.want)
		}
	})
	s.run("watches", func(t *testing.T) {
		c, w := openCli(t, e), openCli(t, e)
		c.expect("create /cli-w", "^Created")
		w.expect("sync /cli-w", "^Sync is OK$")
		w.expect("get -w /cli-w", "")
		c.expect("set /cli-w x", "^$")
		w.hears("WatchedEvent state:SyncConnected type:NodeDataChanged path:/cli-w")
		w.expect("ls -w /cli-w", "")
		w.expect("addWatch -m PERSISTENT_RECURSIVE /cli-r", "^$")
		c.expect("create /cli-w/kid", "^Created")
		w.hears("type:NodeChildrenChanged path:/cli-w")
		c.expect("create /cli-r", "^Created")
		w.hears("type:NodeCreated path:/cli-r")
		c.expect("create /cli-r/a", "^Created")
		w.hears("type:NodeCreated path:/cli-r/a")
		w.expect("removewatches /cli-r", "PersistentWatchRemoved|^$")
	})
	s.run("quit_ends_ephemerals", func(t *testing.T) {
		c, w := openCli(t, e), openCli(t, e)
		c.expect("create -e /cli-e", "^Created")
		w.expect("sync /", "^Sync is OK$")
		w.expect("stat -w /cli-e", "ephemeralOwner = 0x[1-9a-f]")
		fmt.Fprintln(c.stdin, "quit")
		w.hears("type:NodeDeleted path:/cli-e")
	})
	s.run("leader_kill", func(t *testing.T) {
		leader := must(e.leader(t.Context()))(t)
		var c *zkCli
		for range 20 {
			before := leader.sessions()
			c = openCli(t, e)
			if leader.sessions() > before {
				break
			}
		}
		c.expect("create /cli-k", "^Created")
		c.expect("create -e /cli-k/e", "^Created")
		c.do("get -w /cli-k")
		owner := regexp.MustCompile("ephemeralOwner = 0x[1-9a-f][0-9a-f]*").FindString(c.do("stat /cli-k/e"))
		if killed := must(e.killLeader(t.Context()))(t); killed != leader.addr || owner == "" {
			t.Fatalf("killed %s, not %s; %q", killed, leader.addr, owner)
		}
		eventually(t, func() error {
			if said := c.do("stat /cli-k/e"); !strings.Contains(said, owner) {
				return fmt.Errorf("%q", said)
			}
			return nil
		})
		w := openCli(t, e)
		w.expect("sync /cli-k", "^Sync is OK$")
		w.expect("stat /cli-k/e", owner)
		w.expect("set /cli-k x", "^$")
		c.hears("type:NodeDataChanged path:/cli-k")
		if err := e.restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
