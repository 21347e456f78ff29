// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// Each word's answer has the shape of ZooKeeper's (WP-60, WP-65, WP-66, WP-84, WP-86, WP-88, DM-16, WT-39, OP-20).
func TestWords(t *testing.T) {
	m := member(t, zk.Config{})
	s := &Server{Member: m, Words: []string{"*"}}
	addr := serve(t, s)
	c := open(t, addr)
	c.want(0, opCreate, createBody("/e", "1234", 1))
	c.want(0, opExists, pathWatch("/e", true))
	c.want(0, opGetChildren, pathWatch("/e", true))
	c.want(0, opAddWatch, pathVersion("/e", 1))
	c.want(0, opSetData, setBody("/", "", -1))
	id := zk.SessionID(c.session).String()
	gone := func() {
		t.Helper()
		eventually(t, "those that asked before have gone", func() bool { return s.Stats().Connections == 1 })
	}
	const number = `\d+`
	version := regexp.QuoteMeta(DefaultVersion)
	summary := `Latency min/avg/max: \d+/\d+\.\d{1,4}/\d+\nReceived: \d+\nSent: \d+\nConnections: 2\nOutstanding: 0\nZxid: 0x[0-9a-f]+\nMode: standalone\nNode count: 6\n`
	client := ` /127\.0\.0\.1:\d+\[1\]\(queued=0,recved=\d+,sent=\d+`
	for _, tc := range [][2]string{
		{"ruok", `imok`},
		{"isro", `rw`},
		{"srvr", `Zookeeper version: ` + version + `\n` + summary},
		{"stat", `Zookeeper version: ` + version + `\nClients:\n(` + client + `\)\n){2}\n` + summary},
		{"cons", `(` + client + `,sid=` + id + `,lop=SETD,est=\d{13},to=10000,lcxid=0x5,lzxid=0x[0-9a-f]+,lresp=\d+,llat=\d+,minlat=\d+,avglat=\d+,maxlat=\d+\)\n|` + client + `\)\n){2}\n`},
		{"conf", `clientPort=\d+\nsecureClientPort=-1\ndataDir=\ndataDirSize=\d+\ndataLogDir=\ndataLogSize=\d+\ntickTime=2000\nmaxClientCnxns=60\nminSessionTimeout=1000\nmaxSessionTimeout=120000\nclientPortListenBacklog=-1\nserverId=.*\n`},
		{"envi", `Environment:\nzookeeper\.version=3\.\d+\.\d+.*\nhost\.name=.*\n(\S+=.*\n)+`},
		{"dirs", `datadir_size: \d+\nlogdir_size: \d+\n`},
		{"dump", `SessionTracker dump:\nSession Sets \(1\)/\(1\):\n1 expire at .*:\n\t` + id + `\nephemeral nodes dump:\nSessions with Ephemerals \(1\):\n` + id + `:\n\t/e\nConnections dump:\nConnections Sets \(\d\)/\(2\):\n(\d expire at .*:\n(\tip: /127\.0\.0\.1:\d+ sessionId: 0x[0-9a-f]+\n)+)+`},
		{"wchs", `1 connections watching 1 paths\nTotal watches:1\n`},
		{"wchc", id + `\n\t/e\n\n`},
		{"wchp", `/e\n\t` + id + `\n\n`},
		{"mntr", `(zk_[a-z0-9_]+\t.+\n)+`},
		{"hash", ``},
		{"gtmk", `306`},
		{"crst", `Connection stats reset\.\n`},
		{"srst", `Server stats reset\.\n`},
	} {
		w, want := tc[0], regexp.MustCompile(`^`+tc[1]+`$`)
		for _, tail := range []string{"", "\n", "\r\nand more"} { // WP-60
			gone()
			if got := dial(t, addr).word(w + tail); !want.MatchString(got) {
				t.Errorf("%s: %q", w, got)
			}
		}
	}
	if got := dial(t, addr).word("stmk\x00\x00\x00\x00\x00\x00\x01\x00"); got != "256" {
		t.Errorf("stmk: %q", got)
	}
	if got := dial(t, addr).word("gtmk"); got != "256" {
		t.Errorf("gtmk: %q", got)
	}
	gone()
	got := dial(t, addr).word("mntr")
	for key, want := range map[string]string{
		"version": version, "server_state": "standalone", "znode_count": "6", "ephemerals_count": "1", "watch_count": "3", "global_sessions": "1",
		"local_sessions": "0", "num_alive_connections": "2", "outstanding_requests": "0", "approximate_data_size": number, "uptime": number, "quorum_size": "1",
		"avg_latency": `\d+\.\d+`, "min_latency": number, "max_latency": number, "packets_received": number, "packets_sent": number, "auth_failed_count": "0",
		"max_client_response_size": `-?\d+`, "connection_rejected": "0",
	} {
		if !regexp.MustCompile(`(?m)^zk_` + key + `\t` + want + `$`).MatchString(got) {
			t.Errorf("mntr has no %s that is %s:\n%s", key, want, got)
		}
	}
	for range 1200 { // digests are few
		c.want(0, opSetData, setBody("/", "", -1))
	}
	if got := dial(t, addr).word("hash"); !regexp.MustCompile(`^([0-9a-f]+: \d+\n)+$`).MatchString(got) {
		t.Errorf("hash: %q", got)
	}
	if n, err := m.Sessions(t.Context()); err != nil || len(n) != 1 { // WP-86
		t.Errorf("%d sessions, %v", len(n), err)
	}
	// WP-60: after the handshake a word is a length.
	c.write([]byte("ruok"))
	c.ended()
}

// The words crst and srst restart what cons and srvr tell of packets and latencies, each its own, and no counter (OP-22).
func TestResets(t *testing.T) {
	s := &Server{Member: member(t, zk.Config{}), Words: []string{"*"}, Limits: Limits{PerAddress: 2}}
	addr := serve(t, s)
	c := open(t, addr)
	id := zk.SessionID(c.session).String()
	alone := func() {
		t.Helper()
		eventually(t, "the others have gone", func() bool { return s.Stats().Connections == 1 })
	}
	ask := func(w string) string {
		t.Helper()
		alone()
		return dial(t, addr).word(w)
	}
	cons := func(want string) {
		t.Helper()
		text := ask("cons")
		if !regexp.MustCompile(`(?m)\(queued=0,` + strings.Replace(want, ",lop=", ",sid="+id+",lop=", 1) + `\)$`).MatchString(text) {
			t.Errorf("cons has no %s:\n%s", want, text)
		}
	}
	cons(`recved=1,sent=1,lop=SESS,est=\d{13},to=10000,lcxid=0x0,lzxid=0x[1-9a-f][0-9a-f]*,lresp=\d+,llat=\d+,minlat=\d+,avglat=\d+,maxlat=\d+`)

	alone()
	second, third := dial(t, addr), dial(t, addr)
	third.ended()
	must(t, second.nc.Close())
	alone()
	stranger := open(t, addr)
	stranger.want(zk.ErrAuthFailed, opAuth, appendBuffer(appendString(appendInt(nil, 0), "nobody"), nil))
	stranger.ended()
	alone()
	c.want(0, opCreate, createBody("/x", strings.Repeat("x", 5000), 0))
	c.want(0, opGetData, pathWatch("/x", false))
	cons(`recved=3,sent=3,lop=GETD,est=\d{13},to=10000,lcxid=0x2,.*`)

	alone()
	before, was := monitor(t, dial(t, addr)), s.Stats()
	if was.Received < 4 || was.Sent < 4 || was.MaxLatency == 0 || before.number("max_client_response_size") < 5000 {
		t.Errorf("%+v, %v", was, before)
	}
	if got := ask("srst"); got != "Server stats reset.\n" {
		t.Errorf("srst: %q", got)
	}
	if text := ask("srvr"); !strings.Contains(text, "Latency min/avg/max: 0/0.0/0\nReceived: 0\nSent: 0\n") {
		t.Errorf("after srst:\n%s", text)
	}
	alone()
	after := monitor(t, dial(t, addr))
	for key, want := range map[string]float64{"packets_received": 0, "packets_sent": 0, "max_latency": 0, "min_latency": 0, "avg_latency": 0, "last_client_response_size": -1, "min_client_response_size": -1, "max_client_response_size": -1} {
		if got := after.number(key); got != want {
			t.Errorf("after srst %s is %v", key, got)
		}
	}
	for _, key := range strings.Fields(`auth_failed_count connection_rejected connection_request_count connection_drop_count bytes_received_count response_bytes
		op_count_create op_count_get_data op_count_auth op_count_total cnt_readlatency sum_updatelatency cnt_updatelatency proposal_count cnt_fsynctime cnt_x_read_per_namespace`) {
		if got := after.number(key); got < before.number(key) || got <= 0 && key != "sum_updatelatency" {
			t.Errorf("srst took %s from %s to %s", key, before[key], after[key])
		}
	}
	cons(`recved=3,sent=3,lop=GETD,.*`)
	c.want(0, opGetData, pathWatch("/x", false))
	if st := s.Stats(); st.Received != 1 || st.Sent != 1 || st.MinLatency == 0 || st.MinLatency != st.MaxLatency || st.AvgLatency != st.MaxLatency || st.Reads.Count != was.Reads.Count+1 || st.RuleBreakers != was.RuleBreakers || was.RuleBreakers == 0 {
		t.Errorf("after srst and a request: %+v", st)
	}

	if got := ask("crst"); got != "Connection stats reset.\n" {
		t.Errorf("crst: %q", got)
	}
	cons(`recved=0,sent=0,lop=NA,est=\d{13},to=10000,lzxid=0xffffffffffffffff,lresp=0,llat=0,minlat=0,avglat=0,maxlat=0`)
	c.want(0, opSetData, setBody("/x", "", -1))
	cons(`recved=1,sent=1,lop=SETD,est=\d{13},to=10000,lcxid=0x4,lzxid=0x[1-9a-f][0-9a-f]*,lresp=\d+,.*`)
	if st := s.Stats(); st.Received != 2 || st.Sent != 2 {
		t.Errorf("after crst: %+v", st)
	}
}

// Words that are not on the list are not answered (WP-61, WP-64).
func TestWordList(t *testing.T) {
	m := member(t, zk.Config{})
	for _, tc := range []struct {
		s    *Server
		want map[string]bool
	}{
		{&Server{}, map[string]bool{"srvr": true}},
		{&Server{ReadOnly: true}, map[string]bool{"srvr": true, "isro": true}},
		{&Server{Words: []string{"ruok", " mntr"}}, map[string]bool{"ruok": true, "mntr": true}},
		{&Server{Words: []string{}}, map[string]bool{}},
	} {
		s := &Server{Member: m, Words: tc.s.Words, ReadOnly: tc.s.ReadOnly, Limits: Limits{PerAddress: -1}, Version: "3.8.4-test"}
		addr := serve(t, s)
		for w := range words {
			if w == "stmk" {
				continue
			}
			got := dial(t, addr).word(w)
			if refused := got == w+" is not executed because it is not in the whitelist.\n"; refused == tc.want[w] {
				t.Errorf("%v: %s: %q", tc.s.Words, w, got)
			}
			if w == "srvr" && tc.want[w] && !strings.HasPrefix(got, "Zookeeper version: 3.8.4-test\n") {
				t.Errorf("srvr: %q", got)
			}
		}
		if n := s.Stats().RuleBreakers; n != 0 { // asking is no offence
			t.Errorf("%d rule breakers", n)
		}
	}
}

// In an ensemble the words tell who leads, who is a member and where clients are served (WP-87, OP-20, OP-40).
func TestWordsOfAnEnsemble(t *testing.T) {
	bubble(t, 3, zktest.Config{NonVoters: 1}, func(s *Server) { s.Words = []string{"*"} }, func(t *testing.T, e *ensemble) {
		l := e.leader()
		modes := map[string]int{}
		for i := range 3 {
			must(t, e.Member(i).SetClientAddr(e.ctx, fmt.Sprintf("10.0.0.%d:2181", i)))
		}
		for i := range 3 {
			text := e.dial(i).word("srvr")
			mode := regexp.MustCompile(`(?m)^Mode: (.*)$`).FindStringSubmatch(text)[1]
			modes[mode]++
			if (i == l) != (mode == "leader") || (i == l) != strings.Contains(text, "Proposal sizes last/min/max: ") {
				t.Errorf("member %d: %q", i, text)
			}
		}
		if fmt.Sprint(modes) != "map[follower:1 leader:1 observer:1]" {
			t.Error(modes)
		}
		text := e.dial(l).word("mntr")
		for _, want := range []string{"zk_quorum_size\t2\n", "zk_learners\t2\n", "zk_synced_followers\t1\n", "zk_synced_observers\t1\n", "zk_server_state\tleader\n", "zk_peer_state\tleading - broadcast\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("mntr has no %q:\n%s", want, text)
			}
		}
		must(t, e.Member(2).WaitZxid(e.ctx, e.Member(l).Applied()))
		text = e.dial(2).word("conf")
		for i := range 3 {
			if want := fmt.Sprintf(";10.0.0.%d:2181\n", i); !strings.Contains(text, want) {
				t.Errorf("conf has no %q:\n%s", want, text)
			}
		}
		if !strings.Contains(text, "\npeerType=1\nmembership: \nserver.") || strings.HasSuffix(text, "\n") {
			t.Errorf("conf: %q", text)
		}
		c := e.open(2)
		if text := e.dial(2).word("dump"); !strings.HasPrefix(text, "SessionTracker dump:\nGlobal Sessions(1):\n"+zk.SessionID(c.session).String()+"\t10000ms\nephemeral nodes dump:\n") {
			t.Errorf("dump: %q", text)
		}
	})
}

// Numbers look as Java prints them.
func TestDouble(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 1: "1.0", 4.17264: "4.1726", 0.5: "0.5", 120.00001: "120.0"} {
		if got := double(v); got != want {
			t.Errorf("%v is printed %s", v, got)
		}
	}
}
