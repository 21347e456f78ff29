// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patroni is one instance of patroni with its PostgreSQL.
type patroni struct {
	t                *testing.T
	name, dir        string
	bin              string // directory of PostgreSQL's programs
	rest, port       int
	account          *syscall.Credential // nil: this process's
	cmd              *exec.Cmd
	ended            chan struct{}
	log              *os.File // not a pipe: PostgreSQL inherits it and outlives patroni
	configFile, data string
}

const patroniConfig = `scope: e2e
name: %[1]s
restapi: {listen: "%[8]s:%[2]d", connect_address: "%[8]s:%[2]d"}
zookeeper: {hosts: [%[3]s]}
bootstrap:
  dcs:
    {ttl: 8, loop_wait: 1, retry_timeout: 3, maximum_lag_on_failover: 1048576, postgresql: {use_pg_rewind: true, use_slots: true}}
  initdb: [encoding: UTF8, locale: C, auth: trust, no-sync]
  pg_hba: [local all all trust, host all all 127.0.0.0/8 trust, host replication all 127.0.0.0/8 trust]
postgresql:
  listen: "%[8]s:%[4]d"
  connect_address: "%[8]s:%[4]d"
  data_dir: %[5]s
  bin_dir: %[6]s
  pgpass: %[5]s.pgpass
  authentication: {superuser: {username: admin, password: x}, replication: {username: replicator, password: x}, rewind: {username: rewind, password: x}}
  parameters: {unix_socket_directories: %[7]s, fsync: "off", shared_buffers: 16MB}
`

// patroniProgram is what Debian's package patroni has in PATH.
const patroniProgram = "/usr/bin/patroni"

func newPatroni(t *testing.T, e *ensemble, name, dir, bin string, account *syscall.Credential) *patroni {
	t.Helper()
	p := &patroni{t: t, name: name, dir: dir, bin: bin, rest: freePort(t), port: freePort(t), account: account}
	p.data, p.configFile = filepath.Join(dir, name), filepath.Join(dir, name+".yml")
	hosts := `"` + strings.ReplaceAll(e.connect(), ",", `", "`) + `"`
	text := fmt.Sprintf(patroniConfig, name, p.rest, hosts, p.port, p.data, bin, dir, host)
	if err := os.WriteFile(p.configFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p.log = must(os.Create(filepath.Join(dir, name+".log")))(t)
	t.Cleanup(p.stop)
	return p
}

// command prepares a program to run as the account that PostgreSQL may run as.
func (p *patroni) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PGCONNECT_TIMEOUT=5", "HOME="+p.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	return cmd
}

func (p *patroni) start() {
	p.t.Helper()
	p.cmd = p.command(context.Background(), debianPython, patroniProgram, p.configFile)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := start(p.cmd); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
}

// kill ends patroni and its PostgreSQL without a word.
func (p *patroni) kill() {
	p.cmd.Process.Kill()
	<-p.ended
	if pid := p.postmaster(); pid != 0 {
		syscall.Kill(pid, syscall.SIGQUIT)
		for late := time.Now().Add(bound); runs(pid) && time.Now().Before(late); {
			time.Sleep(10 * time.Millisecond) // it is not this process's child: nothing tells of its end
		}
	}
}

// runs reports whether a process has not ended; one that nobody has waited for yet has.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// postmaster is the process of the PostgreSQL that runs; 0 if none does.
func (p *patroni) postmaster() int {
	b, err := os.ReadFile(filepath.Join(p.data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// stop ends patroni, which ends its PostgreSQL.
func (p *patroni) stop() {
	if p.cmd != nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(bound):
		}
		p.kill()
	}
	p.log.Close()
	if said, err := os.ReadFile(p.log.Name()); p.t.Failed() {
		p.t.Logf("%s said:\n%s%v", p.name, said[max(0, len(said)-keptOutput):], err)
	}
}

// is asks patroni's REST interface whether it is "leader" or "replica".
func (p *patroni) is(role string) error {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(fmt.Sprintf("http://%s/%s", loopback(p.rest), role))
	if err != nil {
		return err
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is no %s: %s", p.name, role, r.Status)
	}
	return nil
}

func (p *patroni) sql(query string) (string, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	b, err := p.command(ctx, filepath.Join(p.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", strconv.Itoa(p.port), "-U", "admin", "-c", query, "postgres").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", query, err, b)
	}
	return strings.TrimSpace(string(b)), nil
}

func TestPatroni(t *testing.T) {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	needFiles(t, debianPython, patroniProgram)
	if len(bins) == 0 {
		need(t, fmt.Errorf("there is no PostgreSQL in /usr/lib/postgresql"))
	}
	slices.Sort(bins)
	bin := bins[len(bins)-1]
	version := must(exec.Command(debianPython, patroniProgram, "--version").Output())(t)

	dir := must(os.MkdirTemp("", "zk-e2e-patroni-"))(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	var account *syscall.Credential
	if os.Geteuid() == 0 { // which PostgreSQL does not run as
		u := must(user.Lookup("postgres"))(t)
		uid, gid := must(strconv.Atoi(u.Uid))(t), must(strconv.Atoi(u.Gid))(t)
		account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}

	e := open(t)
	watcher := goConnect(t, e)
	a, b := newPatroni(t, e, "pg1", dir, bin, account), newPatroni(t, e, "pg2", dir, bin, account)
	s := tried{t, newRow("a PostgreSQL cluster of two: its leader's key, kill of zk's leader, failover, rejoin, switchover")}
	s.row.client, s.row.version = "patroni", strings.TrimPrefix(strings.TrimSpace(string(version)), "patroni ")+", PostgreSQL "+filepath.Base(filepath.Dir(bin))
	// leads waits until a patroni leads and the ensemble says so, and returns the session of its key.
	leads := func(t *testing.T, p *patroni) (owner int64) {
		t.Helper()
		eventually(t, func() error { return p.is("leader") })
		eventually(t, func() error {
			data, st, err := watcher.Get("/service/e2e/leader")
			if err != nil || string(data) != p.name || st.EphemeralOwner == 0 {
				return fmt.Errorf("leader key %q, %+v, %v", data, st, err)
			}
			owner = st.EphemeralOwner
			return nil
		})
		return owner
	}
	follows := func(t *testing.T, p *patroni, rows string) {
		t.Helper()
		eventually(t, func() error {
			if err := p.is("replica"); err != nil {
				return err
			}
			if got, err := p.sql("select count(*) from t"); got != rows {
				return fmt.Errorf("%s has %s rows, want %s: %v", p.name, got, rows, err)
			}
			return nil
		})
	}
	s.run("first_leader", func(t *testing.T) {
		a.start()
		leads(t, a)
		must(a.sql("create table t (n int); insert into t values (1)"))(t)
	})
	s.run("replica", func(t *testing.T) {
		b.start()
		follows(t, b, "1")
	})
	s.run("kill_of_the_leader_of_the_ensemble", func(t *testing.T) {
		before := leads(t, a)
		must(e.killLeader(t.Context()))(t)
		watcher.settle(t, "/")
		must(a.sql("insert into t values (2)"))(t)
		follows(t, b, "2")
		if after := leads(t, a); after != before {
			t.Errorf("the session of the leader's key was %#x and is %#x", before, after)
		}
		if err := e.restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	s.run("failover", func(t *testing.T) {
		a.kill()
		leads(t, b)
		eventually(t, func() error {
			_, err := b.sql("insert into t values (3)")
			return err
		})
		if rows := must(b.sql("select count(*) from t"))(t); rows != "3" {
			t.Errorf("%s rows, want 3", rows)
		}
	})
	s.run("rejoin", func(t *testing.T) {
		a.start()
		follows(t, a, "3")
	})
	s.run("switchover", func(t *testing.T) {
		out, err := a.command(t.Context(), debianPython, "/usr/bin/patronictl", "-c", a.configFile, "switchover", "--master", b.name, "--candidate", a.name, "--force").CombinedOutput()
		if err != nil {
			t.Fatalf("patronictl: %v\n%s", err, out)
		}
		leads(t, a)
		follows(t, b, "3")
	})
}
