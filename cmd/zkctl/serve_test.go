// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBadFlags refuses what cannot work, before anything is opened.
func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	here := filepath.Join(dir, "never")
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	must(t, os.WriteFile(cert, []byte("nonsense"), 0o600))
	must(t, os.WriteFile(key, []byte("nonsense"), 0o600))
	three := "--member a=127.0.0.1:7001 --member b=127.0.0.1:7002 --member c=127.0.0.1:7003 "
	for args, says := range map[string]string{
		"--nonsense":                "unknown flag",
		"extra":                     "usage: zkctl serve",
		"--client-addr nonsense":    "--client-addr",
		"--client-addr x:99999":     "no port between",
		"--peer-addr nonsense":      "--peer-addr",
		"--tick 0s":                 "--tick",
		"--tick nonsense":           "tick",
		"--min-session-timeout -1s": "--min-session-timeout",
		"--min-session-timeout 9s --max-session-timeout 3s": "longer than",
		"--container-check-interval 0s":                     "--container-check-interval",
		"--max-connections-per-address -1":                  "--max-connections-per-address",
		"--words stat,toolong":                              "four letters",
		"--super-digest nonsense":                           "user:base64hash",
		"--upgrade-local-sessions":                          "needs --local-sessions",
		"--log-level loud":                                  "--log-level",
		"--dev-cluster 0":                                   "from 1 to 7",
		"--dev-cluster 99":                                  "from 1 to 7",
		"--dev-cluster 3 --id a":                            "leave --id away",
		"--member a":                                        "id=host:port",
		"--member a=nonsense":                               "host:port",
		"--member a=127.0.0.1:0 --id a":                     "have to know the port",
		"--member a=127.0.0.1:7001 --member a=127.0.0.1:7002 --id a": "twice",
		"--member a=127.0.0.1:7001 --member b=127.0.0.1:7001 --id a": "twice",
		three + "--dir " + here:                    "needs --id",
		three + "--id d --dir " + here:             "not among",
		three + "--id a":                           "needs --dir",
		"--tls-cert " + cert:                       "go together",
		"--tls-ca " + cert:                         "needs --tls-cert",
		"--plain-too":                              "for a port with TLS",
		"--tls-cert " + cert + " --tls-key " + key: "failed to find",
		"--tls-cert " + filepath.Join(dir, "none") + " --tls-key " + key: "no such file",
		"--id a\x01b": "ID",
	} {
		t.Run(args, func(t *testing.T) {
			r := zkctl(t, "", append([]string{"serve", "--client-addr", "127.0.0.1:0"}, strings.Fields(args)...)...)
			if r.want(t, exitUsage, ""); !strings.Contains(r.err, says) {
				t.Errorf("it says %q, without %q", r.err, says)
			}
		})
	}
	if _, err := os.Stat(here); err == nil {
		t.Error("a refused command has made a directory")
	}
}

// TestServeEnds stops on SIGTERM, cleanly, and finds its state again.
func TestServeEnds(t *testing.T) {
	dir := t.TempDir()
	p, addr := serve(t, "--id", "a", "--dir", dir)
	t.Setenv("ZK_SERVERS", addr)
	zkctl(t, "", "create", "/kept", "x").want(t, 0, "/kept\n")
	w := start(t, "watch", "--timeout", "4s", "/")
	w.says("watching") // a client that is connected does not hold it up
	if code := p.end(sigterm); code != 0 || p.errors() != "" {
		t.Errorf("code %d, the log says\n%s", code, p.errors())
	}
	if l, open := <-p.lines; open {
		t.Errorf("it printed %q", l)
	}
	w.end(os.Interrupt)
	second := start(t, "serve", "--id", "a", "--dir", dir, "--client-addr", addr)
	if l := second.line(); l != "serving id=a client="+addr {
		t.Errorf("printed %q", l)
	}
	zkctl(t, "", "get", "/kept").want(t, 0, "x\n")
	// A directory and an address that are in use.
	if r := zkctl(t, "", "serve", "--id", "a", "--dir", dir, "--client-addr", "127.0.0.1:0"); r.code != exitInternal || !strings.Contains(r.err, "in use") {
		t.Errorf("code %d: %s", r.code, r.err)
	}
	if r := zkctl(t, "", "serve", "--client-addr", addr); r.code != exitInternal || !strings.Contains(r.err, "in use") {
		t.Errorf("code %d: %s", r.code, r.err)
	}
	if code := second.end(os.Interrupt); code != 0 {
		t.Errorf("code %d after an interrupt", code)
	}
}

// TestServeFlags looks at what flags do to a server.
func TestServeFlags(t *testing.T) {
	_, addr := serve(t, "--tick", "500ms", "--words", "conf,ruok", "--max-connections-per-address", "3", "--enforce-quota", "--container-check-interval", "100ms",
		"--super-digest", "super:"+digestOf("super:secret"))
	t.Setenv("ZK_SERVERS", addr)
	conf := word(addr, "conf")
	for _, line := range [...]string{"tickTime=500\n", "minSessionTimeout=1000\n", "maxSessionTimeout=10000\n"} {
		if !strings.Contains(conf, line) {
			t.Errorf("conf has no %q:\n%s", line, conf)
		}
	}
	if got := word(addr, "ruok"); got != "imok" {
		t.Errorf("ruok: %q", got)
	}
	if got := word(addr, "srvr"); !strings.Contains(got, "whitelist") {
		t.Errorf("srvr: %q", got)
	}
	zkctl(t, "create -c /box\ncreate /box/x\ndelete /box/x\n").want(t, 0, "/box\n/box/x\n")
	eventually(t, "the container goes", func() bool { return zkctl(t, "", "stat", "/box").code == exitNoNode })
	zkctl(t, "create /q\ncreate -p /zookeeper/quota/q/zookeeper_limits 'count=-1,bytes=-1=;countHardLimit=1'\ncreate /zookeeper/quota/q/zookeeper_stats\n").want(t, 0, "/q\n/zookeeper/quota/q/zookeeper_limits\n/zookeeper/quota/q/zookeeper_stats\n")
	if r := zkctl(t, "", "create", "/q/x"); r.code == 0 {
		t.Error("a quota is not enforced")
	}
	var conns []net.Conn
	for range 3 {
		nc, err := net.Dial("tcp", addr)
		must(t, err)
		conns = append(conns, nc)
	}
	nc, err := net.Dial("tcp", addr)
	must(t, err)
	nc.SetDeadline(time.Now().Add(patience))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("a fourth connection: %d, %v", n, err)
	}
	for _, c := range append(conns, nc) {
		c.Close()
	}
}

// TestLocalSessions asks for ephemerals where new sessions are local (SS-22, SS-23).
func TestLocalSessions(t *testing.T) {
	script := "create /a\ncreate -e /a/e\nls /a\n"
	_, addr := serve(t, "--local-sessions")
	t.Setenv("ZK_SERVERS", addr)
	r := zkctl(t, script)
	if r.code == 0 || r.out != "/a\n" || !strings.Contains(r.err, "ephemeral on a local session") {
		t.Errorf("without an upgrade: %+v", r)
	}
	_, addr = serve(t, "--local-sessions", "--upgrade-local-sessions", "--words", "mntr")
	t.Setenv("ZK_SERVERS", addr)
	zkctl(t, script).want(t, 0, "/a\n/a/e\ne\n")
	if text := word(addr, "mntr"); !strings.Contains(text, "zk_global_sessions\t0\n") || !strings.Contains(text, "zk_local_sessions\t0\n") {
		t.Errorf("mntr:\n%s", text)
	}
}

// TestDevCluster plays with three members in one process.
func TestDevCluster(t *testing.T) {
	dir := t.TempDir()
	p, addrs := serve(t, "--dev-cluster", "3", "--dir", dir)
	list := strings.Split(addrs, ",")
	if len(list) != 3 {
		t.Fatalf("addresses %q", addrs)
	}
	zkctl(t, "", "create", "--server", list[0], "/a", "x").want(t, 0, "/a\n")
	for _, addr := range list {
		// Local reads may be behind.
		eventually(t, "it is everywhere", func() bool { return zkctl(t, "", "get", "--server", addr, "/a").code == 0 })
	}
	eventually(t, "one leader and two followers", func() bool {
		modes := map[string]int{}
		for _, addr := range list {
			modes[mode(addr)]++
		}
		return modes["leader"] == 1 && modes["follower"] == 2
	})
	config := zkctl(t, "", "get", "--server", list[2], "/zookeeper/config").out
	for _, addr := range list { // WP-87
		if !strings.Contains(config, ";"+addr+"\n") {
			t.Errorf("%s is not in\n%s", addr, config)
		}
	}
	if code := p.end(sigterm); code != 0 {
		t.Errorf("code %d", code)
	}
	_, addrs = serve(t, "--dev-cluster", "3", "--dir", dir) // on other ports
	zkctl(t, "", "get", "--server", addrs, "/a").want(t, 0, "x\n")
}

// mode is what a server says it is.
func mode(addr string) string {
	_, rest, _ := strings.Cut(word(addr, "srvr"), "Mode: ")
	mode, _, _ := strings.Cut(rest, "\n")
	return mode
}

// TestThreeProcesses kills the leader of an ensemble of three processes under a client that watches.
func TestThreeProcesses(t *testing.T) {
	ids := []string{"a", "b", "c"}
	var flags []string
	for i, addr := range freeAddrs(t, 3) {
		flags = append(flags, "--member", ids[i]+"="+addr)
	}
	clients := freeAddrs(t, 3)
	members := map[string]*process{}
	for i, id := range ids {
		members[id] = start(t, append([]string{"serve", "--id", id, "--dir", filepath.Join(t.TempDir(), id), "--client-addr", clients[i], "--log-level", "error"}, flags...)...)
	}
	for _, id := range ids {
		if l := members[id].line(); field(t, l, "id") != id || field(t, l, "peer") == "" {
			t.Errorf("printed %q", l)
		}
	}
	t.Setenv("ZK_SERVERS", strings.Join(clients, ","))
	holder := start(t, "create", "-e", "/mine")
	holder.line()
	w := start(t, "watch", "/")
	w.says("watching")
	leader := ""
	eventually(t, "a leader", func() bool {
		for i, addr := range clients {
			if mode(addr) == "leader" {
				leader = ids[i]
			}
		}
		return leader != ""
	})
	must(t, members[leader].cmd.Process.Kill())
	r := zkctl(t, "", "create", "/after")
	for r.code == exitUnreachable { // its outcome is unknown
		r = zkctl(t, "", "create", "/after")
	}
	if r.code != 0 && r.code != exitNodeExists {
		t.Fatalf("code %d: %s", r.code, r.err)
	}
	zkctl(t, "", "ls", "/").want(t, 0, "after\nmine\nzookeeper\n") // the session has moved, or never was there
	zkctl(t, "", "create", "/end").want(t, 0, "/end\n")
	for l := w.line(); !strings.HasPrefix(l, "created /end"); l = w.line() {
	}
	for _, id := range ids {
		if id != leader {
			if code := members[id].end(sigterm); code != 0 {
				t.Errorf("%s ended with %d", id, code)
			}
		}
	}
}

// freeAddrs returns loopback addresses that nobody listens on at the moment.
func freeAddrs(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.file, _ = a.issue("ca")
	return a
}

// issue writes a certificate for a name, and its key, and returns the files. The first is the authority's own.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	must(a.t, err)
	if a.cert == nil {
		a.cert, err = x509.ParseCertificate(der)
		must(a.t, err)
		a.key = k
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	must(a.t, err)
	write := func(suffix, kind string, b []byte) string {
		file := filepath.Join(a.dir, name+suffix)
		must(a.t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600))
		return file
	}
	return write(".crt", "CERTIFICATE", der), write(".key", "PRIVATE KEY", keyDER)
}

// TestTLS serves over TLS: with the server's certificate alone, with clients' certificates, and with plain connections
// on the same port (WP-50, WP-51).
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue("a")
	userCert, userKey := ca.issue("user")

	_, addr := serve(t, "--tls-cert", cert, "--tls-key", key)
	zkctl(t, "", "create", "--server", addr, "--ca", ca.file, "/a").want(t, 0, "/a\n")
	zkctl(t, "", "ls", "--server", addr, "--timeout", "500ms", "/").want(t, exitUnreachable, "")
	zkctl(t, "", "ls", "--server", addr, "--timeout", "500ms", "--ca", userCert, "/").want(t, exitUnreachable, "")

	_, addr = serve(t, "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca.file)
	zkctl(t, "", "ls", "--server", addr, "--timeout", "500ms", "--ca", ca.file, "/").want(t, exitUnreachable, "")
	zkctl(t, "", "create", "--server", addr, "--ca", ca.file, "--cert", userCert, "--key", userKey, "/user", "x", "x509:CN=user:r").want(t, 0, "/user\n")
	zkctl(t, "", "get", "--server", addr, "--ca", ca.file, "--cert", userCert, "--key", userKey, "/user").want(t, 0, "x\n")
	zkctl(t, "", "get", "--server", addr, "--ca", ca.file, "--cert", cert, "--key", key, "/user").want(t, exitAuth, "")

	_, addr = serve(t, "--tls-cert", cert, "--tls-key", key, "--plain-too")
	zkctl(t, "", "create", "--server", addr, "--ca", ca.file, "/a").want(t, 0, "/a\n")
	zkctl(t, "", "ls", "--server", addr, "/").want(t, 0, "a\nzookeeper\n")

	// Members authenticate each other.
	ids := []string{"a", "b"}
	var flags []string
	for i, addr := range freeAddrs(t, 2) {
		flags = append(flags, "--member", ids[i]+"="+addr)
	}
	var both []*process
	for _, id := range ids {
		cert, key := ca.issue(id)
		both = append(both, start(t, append([]string{"serve", "--id", id, "--dir", filepath.Join(t.TempDir(), id), "--client-addr", "127.0.0.1:0",
			"--tls-cert", cert, "--tls-key", key, "--tls-ca", ca.file, "--log-level", "error"}, flags...)...))
	}
	for _, p := range both {
		addr := field(t, p.line(), "client")
		zkctl(t, "", "ls", "--server", addr, "--ca", ca.file, "--cert", userCert, "--key", userKey, "/").want(t, 0, "zookeeper\n")
	}
}
