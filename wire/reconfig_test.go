// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Clients that may change the ensemble's members, under ZooKeeper's checks (DM-54, WP-87, OP-40, OP-42 to OP-44, OP-47).
func TestReconfig(t *testing.T) {
	super := zk.DigestID("super:secret")
	bubble(t, 3, zktest.Config{Base: zk.Config{SuperDigest: super}}, func(s *Server) { s.Reconfig = true }, func(t *testing.T, e *ensemble) {
		l := e.leader()
		c := e.open(l)
		c.want(0, opGetData, pathWatch("/zookeeper/config", true))
		read := func() (string, int64) {
			p := c.want(0, opGetData, pathWatch("/zookeeper/config", false))
			text := string(p.buffer())
			return text, int64(p.stat().Mzxid)
		}
		text, version := read()
		if !strings.HasSuffix(text, fmt.Sprintf("\nversion=%x", version)) || strings.Count(text, ":participant") != 3 {
			t.Fatalf("config %q, version %x", text, version)
		}
		gone := zktest.Name((l + 1) % 3)
		c.want(zk.ErrNoAuth, opReconfig, reconfigBody("", gone, "", -1))
		c.want(0, opAuth, authBodyOf("digest", "super:secret"))
		c.want(zk.ErrBadVersion, opReconfig, reconfigBody("", gone, "", version+1))
		c.want(zk.ErrBadArguments, opReconfig, reconfigBody("nonsense", "", "", -1))
		c.want(zk.ErrBadArguments, opReconfig, reconfigBody("server."+gone+"=127.0.0.1:1:1:observer", "", "", -1))
		p := c.want(0, opReconfig, reconfigBody("", gone, "", version))
		text = string(p.buffer())
		if st := p.stat(); int64(st.Mzxid) <= version || st.Version != -1 || strings.Contains(text, "server."+gone+"=") || strings.Count(text, ":participant") != 2 {
			t.Errorf("config %q, %+v", text, st)
		}
		if ev := c.heard(); ev != "3:/zookeeper/config" {
			t.Errorf("events %q", ev)
		}
		c.want(0, opReconfig, reconfigBody("", "nobody", "", -1)) // OP-44
	})
	// Off, and alone.
	m := member(t, zk.Config{SuperDigest: super})
	for _, tc := range []struct {
		on   bool
		want zk.Code
	}{{false, zk.ErrReconfigDisabled}, {true, zk.ErrUnimplemented}} {
		c := open(t, serve(t, &Server{Member: m, Reconfig: tc.on}))
		c.want(0, opAuth, authBodyOf("digest", "super:secret"))
		c.want(tc.want, opReconfig, reconfigBody("", "1", "", -1))
	}
}

// What joins and leaves is read from text, in the forms that ZooKeeper takes (OP-43).
func TestParseServers(t *testing.T) {
	for text, want := range map[string]string{
		"server.1=a:2888:3888:participant;0.0.0.0:2181": "{1 a:2888 true}",
		"server.1=a:2888:3888:observer;2181":            "{1 a:2888 false}",
		"2=a.example:2888:3888;2181":                    "{2 a.example:2888 true}",
		"m0=127.0.0.1:1:1":                              "{m0 127.0.0.1:1 true}",
		"server.3=[::1]:2888:3888:observer;[::1]:2181":  "{3 [::1]:2888 false}",
		"server.1=a:2888:3888|b:1:2;2181":               "{1 a:2888 true}",
		"server.1=a:2888":                               "", "server.1=": "", "server.=a:1:1": "", "": "", "=": "", "1=:1:1": "", "1=a:x:1": "", "1=a:1:70000": "", "1=a:1:0": "",
		"1=a:1:1:learner": "", "1=a:1:1:observer:x": "", "version=100": "", "1=[::1:1:1": "",
	} {
		p, ok := parseServer(text)
		if got := fmt.Sprint(p); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	have := membersOf("server.1=a:1:1:participant;b:1\nserver.2=c:1:1:participant\nserver.3=d:1:1:observer;e:1\nversion=100")
	if fmt.Sprint(have) != "map[1:true 2:true 3:false]" {
		t.Error(have)
	}
	for _, tc := range []struct {
		q    reconfigRequest
		want string
	}{
		{reconfigRequest{}, "[] [] <nil>"},
		{reconfigRequest{leaving: "1,9"}, "[] [1 9] <nil>"},
		{reconfigRequest{joining: "4=a:1:1;1,5=b:2:2:observer;1", leaving: "1"}, "[{4 a:1 true} {5 b:2 false}] [1] <nil>"},
		{reconfigRequest{joining: "3=a:1:1"}, "[{3 a:1 true}] [] <nil>"},
		{reconfigRequest{joining: "1=a:1:1:observer"}, "[] [] bad arguments"},
		{reconfigRequest{members: "server.1=a:1:1\nserver.4=b:1:1:observer\nversion=5", joining: "ignored", leaving: "1"}, "[{1 a:1 true} {4 b:1 false}] [2 3] <nil>"},
	} {
		join, leave, err := tc.q.changes(have)
		if got := fmt.Sprint(join, leave, err); got != tc.want {
			t.Errorf("%+v: %s", tc.q, got)
		}
	}
}
