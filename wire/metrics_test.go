// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// monitored is what mntr says, without zk_.
type monitored map[string]string

func monitor(t *testing.T, c *raw) monitored {
	t.Helper()
	m := monitored{}
	for line := range strings.Lines(c.word("mntr")) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || !strings.HasPrefix(key, "zk_") || m[strings.TrimPrefix(key, "zk_")] != "" {
			t.Errorf("mntr says %q", line)
		}
		m[strings.TrimPrefix(key, "zk_")] = value
	}
	return m
}

// number is a key's value, -1000 where it is not there.
func (m monitored) number(key string) float64 {
	v, err := strconv.ParseFloat(m[key], 64)
	if err != nil {
		return -1000
	}
	return v
}

// summaryKeys are the keys of a summary.
func summaryKeys(key string, detailed bool) (keys []string) {
	for _, part := range strings.Fields("avg min max cnt sum") {
		keys = append(keys, part+"_"+key)
	}
	if detailed {
		for _, part := range strings.Fields("p50 p95 p99 p999") {
			keys = append(keys, part+"_"+key)
		}
	}
	return keys
}

// everyKey are the keys that mntr has in whatever role (OP-20, OP-24).
func everyKey() []string {
	keys := strings.Fields(`version server_state avg_latency min_latency max_latency packets_received packets_sent num_alive_connections
		outstanding_requests znode_count ephemerals_count watch_count approximate_data_size open_file_descriptor_count max_file_descriptor_count
		uptime global_sessions local_sessions quorum_size pending_syncs last_client_response_size min_client_response_size max_client_response_size
		auth_failed_count outstanding_tls_handshake looking_count snap_count commit_count proposal_count connection_request_count
		connection_revalidate_count connection_drop_count connection_rejected stale_sessions_expired sessionless_connections_expired
		bytes_received_count response_bytes watch_bytes throttled_ops large_requests_rejected digest_mismatches_count unrecoverable_error_count
		ttl_node_created_count ttl_node_deleted_count op_count_total op_count_create op_count_delete op_count_get_data op_count_set_data
		op_count_get_children op_count_exists op_count_multi op_count_sync op_count_ping`)
	for _, key := range strings.Fields("readlatency updatelatency propagation_latency") {
		keys = append(keys, summaryKeys(key, true)...)
	}
	for _, key := range strings.Fields(`fsynctime snapshottime dbinittime startup_txns_loaded election_time follower_sync_time unavailable_time
		leader_unavailable_time quorum_ack_latency node_created_watch_count node_deleted_watch_count node_changed_watch_count node_children_watch_count`) {
		keys = append(keys, summaryKeys(key, false)...)
	}
	return keys
}

// leaderKeys are those that the leader of an ensemble has as well.
var leaderKeys = strings.Fields("peer_state leader_uptime learners synced_followers synced_non_voting_followers synced_observers last_proposal_size min_proposal_size max_proposal_size")

// What a client does moves the keys that count it, and by how much (OP-20, DM-78).
func TestMonitorMoves(t *testing.T) {
	if _, _, ok := descriptors(); !ok {
		t.Skip("SKIPPED: this system does not tell how many files are open")
	}
	m := member(t, zk.Config{EnforceQuota: true})
	s := &Server{Member: m, Words: []string{"mntr"}, Limits: Limits{Handshake: 300 * time.Millisecond, Frame: 5000}}
	addr := serve(t, s)
	c := open(t, addr)
	quiet := func() monitored {
		t.Helper()
		eventually(t, "those that asked before have gone, and what was answered is counted", func() bool {
			st := m.Stats()
			n := st.Proposals.Count
			return s.Stats().Connections == 1 && st.Commits.Count == n && st.Applies.Count == n && st.Propagation.Count == n
		})
		return monitor(t, dial(t, addr))
	}
	first := quiet()
	for _, key := range everyKey() {
		if _, ok := first[key]; !ok {
			t.Errorf("mntr has no %s", key)
		}
	}
	for _, key := range leaderKeys {
		if v, ok := first[key]; ok {
			t.Errorf("mntr of one member alone has %s %s", key, v)
		}
	}
	c.want(0, opCreate, createBody("/zookeeper/quota/app", "", 0))
	c.want(0, opCreate, createBody("/zookeeper/quota/app/zookeeper_limits", "count=2,bytes=100=;byteHardLimit=200;countHardLimit=-1", 0))
	c.want(0, opCreate, createBody("/zookeeper/quota/app/zookeeper_stats", "", 0))
	for _, tt := range []struct {
		what  string
		do    func()
		moved string // KEY=BY; BY + is any that is more than 0
	}{
		{"a write", func() { c.want(0, opCreate, createBody("/app", "data", 0)) },
			"cnt_updatelatency=1 op_count_create=1 op_count_total=1 bytes_received_count=59 response_bytes=28 cnt_fsynctime=+ proposal_count=1 commit_count=1 cnt_quorum_ack_latency=1 cnt_propagation_latency=1 cnt_readlatency=0 packets_received=1 cnt_app_write_per_namespace=1 sum_app_write_per_namespace=55 app_quota_count_usage_per_namespace=1 app_quota_bytes_usage_per_namespace=4"},
		{"a read", func() { c.want(0, opGetData, pathWatch("/app", true)) },
			"cnt_readlatency=1 op_count_get_data=1 cnt_updatelatency=0 proposal_count=0 watch_count=1 cnt_app_read_per_namespace=1 sum_app_read_per_namespace=96"},
		{"a change that is watched", func() { c.want(0, opSetData, setBody("/app", "more", -1)) },
			"cnt_updatelatency=1 op_count_set_data=1 watch_count=-1 watch_bytes=36 cnt_node_changed_watch_count=1 sum_node_changed_watch_count=1 cnt_node_created_watch_count=0"},
		{"a persistent watch, and a creation and a deletion below it", func() {
			c.want(0, opAddWatch, pathVersion("/app", 1))
			c.want(0, opGetChildren, pathWatch("/app", true))
			c.want(0, opCreate2, createBody("/app/x", "", 0))
			c.want(0, opDelete, pathVersion("/app/x", -1))
		}, "op_count_add_watch=1 op_count_get_children=1 op_count_create2=1 op_count_delete=1 cnt_node_created_watch_count=1 cnt_node_deleted_watch_count=1 cnt_node_children_watch_count=1 cnt_app_write_per_namespace=2"},
		{"what the quota refuses", func() {
			c.want(zk.ErrQuotaExceeded, opCreate, createBody("/app/y", strings.Repeat("y", 300), 0))
		}, "app_quota_exceeded_error_per_namespace=1 cnt_app_write_per_namespace=0 op_count_create=1 app_quota_bytes_usage_per_namespace=0"},
		{"ping, sync and exists of nothing", func() {
			c.want(0, opPing, nil)
			c.want(0, opSync, appendString(nil, "/"))
			c.want(zk.ErrNoNode, opExists, pathWatch("/app/none", false))
		}, "op_count_ping=1 op_count_sync=1 op_count_exists=1 cnt_readlatency=2 cnt_app_read_per_namespace=0"},
		{"a TTL znode", func() {
			c.want(0, opCreateTTL, appendLong(createBody("/ttl", "", flagPersistentTTL), 100_000))
		}, "ttl_node_created_count=1 ttl_node_deleted_count=0 op_count_create_ttl=1 cnt_ttl_write_per_namespace=+"},
		{"a session that comes back, and is closed", func() {
			a := open(t, addr)
			a.nc.Close()
			eventually(t, "it has gone", func() bool { return s.Stats().Connections == 1 })
			b := dial(t, addr)
			if !b.connect(connectRequest{timeout: 10_000, session: a.session, password: a.password, hasRO: true}) {
				t.Fatal("not attached")
			}
			b.want(0, opCloseSession, nil)
		}, "connection_request_count=2 connection_revalidate_count=1 connection_drop_count=1 op_count_close_session=1 global_sessions=0 sessionless_connections_expired=0"},
		{"a client that says nothing", func() {
			dial(t, addr).ended()
		}, "sessionless_connections_expired=1 connection_request_count=0"},
		{"a request that is too long", func() {
			a := open(t, addr)
			a.write(appendInt(nil, 6000))
			a.ended()
		}, "large_requests_rejected=1 connection_drop_count=1"},
		{"a snapshot", func() { must(t, m.Compact(t.Context())) }, "cnt_snapshottime=1"},
	} {
		before := quiet()
		tt.do()
		after := quiet()
		for f := range strings.FieldsSeq(tt.moved) {
			key, by, _ := strings.Cut(f, "=")
			was := before.number(key)
			if _, ok := before[key]; !ok {
				was = 0 // a namespace that nobody has met
			}
			moved := after.number(key) - was
			if want, err := strconv.ParseFloat(by, 64); err == nil && moved != want || err != nil && moved <= 0 {
				t.Errorf("%s: %s went from %s to %s, not by %s", tt.what, key, before[key], after[key], by)
			}
		}
	}
	end := quiet()
	for key, want := range map[string]float64{
		"app_quota_count_limit_per_namespace": 2, "app_quota_bytes_limit_per_namespace": 200, "cnt_dbinittime": 1, "cnt_startup_txns_loaded": 1, "looking_count": 1,
		"cnt_election_time": 1, "digest_mismatches_count": 0, "unrecoverable_error_count": 0, "throttled_ops": 0, "pending_syncs": 0,
	} {
		if got := end.number(key); got != want {
			t.Errorf("%s is %s, not %v", key, end[key], want)
		}
	}
	if end.number("max_readlatency") < end.number("p50_readlatency") || end.number("sum_readlatency") < end.number("max_readlatency") {
		t.Errorf("read latencies do not fit: %v", end)
	}
}

// The leader of an ensemble has keys of its own, and so has the word srvr; an election counts on all that are there for it
// (OP-20, OP-24).
func TestMonitorOfAnEnsemble(t *testing.T) {
	bubble(t, 3, zktest.Config{}, func(s *Server) { s.Words = []string{"*"} }, func(t *testing.T, e *ensemble) {
		l := e.leader()
		other := (l + 1) % 3
		c := e.open(other)
		c.want(0, opCreate, createBody("/large", strings.Repeat("d", 9000), 0))
		c.want(0, opCreate, createBody("/small", "", 0))
		must(t, e.Quiesce(e.ctx))
		m := monitor(t, e.dial(l))
		for _, key := range append(everyKey(), leaderKeys...) {
			if _, ok := m[key]; !ok {
				t.Errorf("mntr has no %s", key)
			}
		}
		sizes := fmt.Sprintf("Proposal sizes last/min/max: %s/%s/%s\n", m["last_proposal_size"], m["min_proposal_size"], m["max_proposal_size"])
		if text := e.dial(l).word("srvr"); !strings.HasSuffix(text, sizes) || m.number("max_proposal_size") < 9000 || m.number("last_proposal_size") > 1000 || m.number("min_proposal_size") < 1 {
			t.Errorf("%s%s", text, sizes)
		}
		f := monitor(t, e.dial(other))
		for _, key := range leaderKeys[1:] {
			if v, ok := f[key]; ok {
				t.Errorf("a follower has %s %s", key, v)
			}
		}
		if f["peer_state"] != "following - broadcast" || f.number("cnt_updatelatency") != 2 || f.number("proposal_count") != 0 || m.number("proposal_count") < 2 || m.number("cnt_leader_unavailable_time") != 1 || f.number("cnt_follower_sync_time") != 1 {
			t.Errorf("the follower says %v,\nthe leader %v", f, m)
		}

		// A session that falls silent is counted by the leader that lets it expire.
		e.open(other).nc.Close()
		time.Sleep(time.Minute)
		if got := monitor(t, e.dial(l)).number("stale_sessions_expired") - m.number("stale_sessions_expired"); got < 1 {
			t.Errorf("%v sessions expired", got)
		}

		must(t, e.Crash(l))
		must(t, e.Member(other).Ready(e.ctx))
		must(t, e.servers[other].Ready(e.ctx))
		after := monitor(t, e.dial(other))
		if after.number("looking_count") <= f.number("looking_count") || after.number("cnt_election_time") <= f.number("cnt_election_time") {
			t.Errorf("after an election: looking_count %s, was %s; election_time %s, was %s", after["looking_count"], f["looking_count"], after["cnt_election_time"], f["cnt_election_time"])
		}
	})
}

// Every request that is answered has a counter of its own (OP-20).
func TestRequestNames(t *testing.T) {
	names, slots := map[string]opcode{}, map[int]opcode{}
	for op := range operations {
		name := requestNames[op]
		if other, taken := names[name]; name == "" || taken {
			t.Errorf("opcode %d is called %q, as is %d", op, name, other)
		}
		if other, taken := slots[slot(op)]; taken {
			t.Errorf("opcodes %d and %d have one slot", op, other)
		}
		names[name], slots[slot(op)] = op, op
	}
	if len(requestNames) != len(operations) {
		t.Errorf("%d names for %d requests", len(requestNames), len(operations))
	}
}

// What docs/compatibility.md says is not in mntr is not there.
func TestMonitorLeavesOut(t *testing.T) {
	text, err := os.ReadFile("../docs/compatibility.md")
	must(t, err)
	_, section, ok := strings.Cut(string(text), "\n## Keys of mntr\n")
	if !ok {
		t.Fatal("docs/compatibility.md has no section on mntr")
	}
	section, _, _ = strings.Cut(section, "\nWhat some of the others count")
	addr := serve(t, &Server{Member: member(t, zk.Config{}), Words: []string{"mntr"}})
	m, listed := monitor(t, dial(t, addr)), 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(section, -1) {
		for _, key := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row[1], -1) {
			listed++
			for _, k := range append(summaryKeys(key[1], false), key[1]) {
				if _, ok := m[k]; ok || slices.Contains(everyKey(), k) || slices.Contains(leaderKeys, k) {
					t.Errorf("mntr has %s", k)
				}
			}
		}
	}
	if listed < 10 {
		t.Errorf("%d keys are listed", listed)
	}
}

// Clients can make only so many namespaces cost memory (DM-78).
func TestNamespacesAreBounded(t *testing.T) {
	s := &Server{Member: member(t, zk.Config{})}
	addr := serve(t, s)
	ctx, c := newTestClient(t, ClientConfig{Servers: []string{addr}})
	for i := range maxNamespaces + 10 {
		_, err := c.Create(ctx, fmt.Sprint("/n", i), nil, zk.Persistent)
		must(t, err)
	}
	places := s.Stats().Namespaces
	if n := places["n0"]; len(places) != maxNamespaces || n.Written.Count != 1 || n.Written.Sum == 0 {
		t.Errorf("%d namespaces, the first %+v", len(places), n)
	}
	_, _, err := c.Get(context.WithoutCancel(ctx), "/")
	must(t, err)
	if _, ok := s.Stats().Namespaces[""]; ok {
		t.Error("the root is no namespace")
	}
}
