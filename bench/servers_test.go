// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/internal/zookeeper"
	"github.com/seed-541fafe0/zk/transport"
)

const members = 3

// openZK opens three members with data on disk in this process.
func openZK(tb testing.TB) (all []*zk.Member) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	var peers []zk.Peer
	var trs []zk.Transport
	for i := range members {
		tr, err := transport.TCP("127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		trs = append(trs, tr)
		peers = append(peers, zk.Peer{ID: fmt.Sprint("m", i), Addr: tr.Addr(), Voter: true})
	}
	dir := tb.TempDir()
	for i := range members {
		m, err := zk.Open(ctx, zk.Config{ID: peers[i].ID, Dir: filepath.Join(dir, peers[i].ID), Transport: trs[i], Peers: peers})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { m.Close() })
		all = append(all, m)
	}
	for _, m := range all {
		if err := m.Ready(ctx); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// openEtcd starts three etcd servers in this process, and returns a client for each.
func openEtcd(tb testing.TB) (clients []*clientv3.Client) {
	tb.Helper()
	dir := tb.TempDir()
	var cfgs []*embed.Config
	var initial []string
	for i := range members {
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = fmt.Sprint("e", i), filepath.Join(dir, fmt.Sprint(i))
		cfg.LogLevel, cfg.LogOutputs = "error", []string{"/dev/null"}
		peer, client := freeURL(tb), freeURL(tb)
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		initial = append(initial, cfg.Name+"="+peer.String())
		cfgs = append(cfgs, cfg)
	}
	var servers []*embed.Etcd
	for _, cfg := range cfgs {
		cfg.InitialCluster = strings.Join(initial, ",")
		e, err := embed.StartEtcd(cfg)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(e.Close)
		servers = append(servers, e)
	}
	for i, e := range servers {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(time.Minute):
			tb.Fatal("etcd is not ready after a minute")
		}
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{cfgs[i].ListenClientUrls[0].String()}})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	return clients
}

func freeURL(tb testing.TB) url.URL {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}

// openZooKeeper starts n real ZooKeepers.
func openZooKeeper(tb testing.TB, n int) []*zookeeper.Server {
	tb.Helper()
	if err := zookeeper.Installed(); err != nil {
		tb.Skip("SKIPPED: ", err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	servers, err := zookeeper.StartEnsemble(ctx, n, zookeeper.Options{Sync: true})
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range servers {
		tb.Cleanup(s.Stop)
	}
	return servers
}

func hosts(servers []*zookeeper.Server) string {
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	return strings.Join(addrs, ",")
}

// curator compiles the program that drives Curator's recipes, and returns the command that runs it.
func curator(tb testing.TB) []string {
	tb.Helper()
	var path []string
	for _, jar := range []string{"curator-client", "curator-framework", "curator-recipes", "guava", "zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple"} {
		file := filepath.Join("/usr/share/java", jar+".jar")
		if _, err := os.Stat(file); err != nil {
			tb.Skip("SKIPPED: ", err)
		}
		path = append(path, file)
	}
	if _, err := exec.LookPath("javac"); err != nil {
		tb.Skip("SKIPPED: ", err)
	}
	dir, classes := tb.TempDir(), strings.Join(path, ":")
	if out, err := exec.Command("javac", "-proc:none", "-d", dir, "-cp", classes, "java/Recipes.java").CombinedOutput(); err != nil {
		tb.Fatalf("javac: %v\n%s", err, out)
	}
	return []string{"java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", dir + ":" + classes, "Recipes"}
}

// run runs a program of another client and returns what it printed.
func run(tb testing.TB, command []string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), command[0], append(command[1:], args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return strings.TrimSpace(string(out))
}
