// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// requestNames are what mntr calls the requests in its keys op_count_NAME.
var requestNames = map[opcode]string{
	opPing: "ping", opCreate: "create", opCreate2: "create2", opCreateContainer: "create_container", opCreateTTL: "create_ttl",
	opDelete: "delete", opSetData: "set_data", opSetACL: "set_acl", opMulti: "multi", opExists: "exists", opGetData: "get_data",
	opGetACL: "get_acl", opGetChildren: "get_children", opGetChildren2: "get_children2", opCountChildren: "get_all_children_number",
	opGetEphemerals: "get_ephemerals", opMultiRead: "multi_read", opSync: "sync", opAddWatch: "add_watch", opCheckWatches: "check_watches",
	opRemoveWatches: "remove_watches", opSetWatches: "set_watches", opSetWatches2: "set_watches2", opAuth: "auth", opSASL: "sasl",
	opWhoAmI: "who_am_i", opReconfig: "reconfig", opCloseSession: "close_session",
}

// measured says the part of mntr that is counted and measured over time (OP-20). Keys that are not there, and why, are in
// docs/compatibility.md.
func (s *Server) measured(ctx context.Context, mode string, st *Stats, m *zk.Stats, say func(string, any)) {
	for _, d := range [...]struct {
		key   string
		times zk.Summary[time.Duration]
	}{
		{"quorum_ack_latency", m.Commits},
		{"fsynctime", m.LogWrites},
		{"snapshottime", m.Snapshots},
		{"dbinittime", once(m.Loading)},
		{"election_time", m.Elections},
		{"follower_sync_time", m.CatchUps},
		{"unavailable_time", m.Outages},
		{"leader_unavailable_time", m.LeaderOutages},
	} {
		sayTimes(say, d.key, &d.times)
	}
	sayQuantiles(say, "readlatency", &st.Reads)
	sayQuantiles(say, "updatelatency", &st.Updates)
	sayQuantiles(say, "propagation_latency", &m.Propagation)
	sayNumbers(say, "startup_txns_loaded", once(m.Loaded))
	sayNumbers(say, "node_created_watch_count", m.Created)
	sayNumbers(say, "node_deleted_watch_count", m.Deleted)
	sayNumbers(say, "node_changed_watch_count", m.Changed)
	sayNumbers(say, "node_children_watch_count", m.Children)

	total := int64(0)
	for _, name := range slices.Sorted(maps.Keys(st.Requests)) {
		say("op_count_"+name, st.Requests[name])
		total += st.Requests[name]
	}
	for _, c := range [...]struct {
		key   string
		count int64
	}{
		{"op_count_total", total},
		{"bytes_received_count", st.BytesReceived},
		{"response_bytes", st.BytesSent},
		{"watch_bytes", st.EventBytes},
		{"connection_request_count", st.Connects},
		{"connection_revalidate_count", st.Attaches},
		{"connection_drop_count", st.Dropped},
		{"sessionless_connections_expired", st.Silent},
		{"stale_sessions_expired", m.Expired},
		{"throttled_ops", st.Throttled},
		{"large_requests_rejected", st.TooLong},
		{"ttl_node_created_count", m.TTLCreated},
		{"ttl_node_deleted_count", m.TTLReaped},
		{"looking_count", m.LeaderLosses},
		{"snap_count", m.SnapshotsSent},
		{"proposal_count", m.Proposals.Count},
		{"commit_count", m.Commits.Count},
		{"pending_syncs", m.Waiting},
		{"digest_mismatches_count", m.DigestMismatches},
		{"unrecoverable_error_count", m.Faults},
	} {
		say(c.key, c.count)
	}
	if mode == "leader" {
		last, least, most := proposalSizes(m)
		say("last_proposal_size", last)
		say("min_proposal_size", least)
		say("max_proposal_size", most)
		if !m.LeaderSince.IsZero() {
			say("leader_uptime", time.Since(m.LeaderSince).Milliseconds())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(st.Namespaces)) {
		n := st.Namespaces[name]
		sayNumbers(say, name+"_read_per_namespace", n.Read)
		sayNumbers(say, name+"_write_per_namespace", n.Written)
		say(name+"_quota_exceeded_error_per_namespace", n.QuotaExceeded)
	}
	s.quotas(ctx, say)
}

// once is the summary of what is measured a single time.
func once[T ~int64](v T) zk.Summary[T] { return zk.Summary[T]{Count: 1, Sum: v, Min: v, Max: v} }

// sayTimes says the five keys of a summary, in ms.
func sayTimes(say func(string, any), key string, t *zk.Summary[time.Duration]) {
	sayMean(say, key, millis(t.Sum), t.Count)
	say("min_"+key, t.Min.Milliseconds())
	say("max_"+key, t.Max.Milliseconds())
	say("cnt_"+key, t.Count)
	say("sum_"+key, t.Sum.Milliseconds())
}

// sayQuantiles is sayTimes with four keys more.
func sayQuantiles(say func(string, any), key string, t *zk.Summary[time.Duration]) {
	sayTimes(say, key, t)
	say("p50_"+key, t.P50.Milliseconds())
	say("p95_"+key, t.P95.Milliseconds())
	say("p99_"+key, t.P99.Milliseconds())
	say("p999_"+key, t.P999.Milliseconds())
}

func sayMean(say func(string, any), key string, sum float64, count int64) {
	say("avg_"+key, double(sum/float64(max(count, 1))))
}

// sayNumbers says the five keys of a summary.
func sayNumbers(say func(string, any), key string, n zk.Summary[int64]) {
	sayMean(say, key, float64(n.Sum), n.Count)
	say("min_"+key, n.Min)
	say("max_"+key, n.Max)
	say("cnt_"+key, n.Count)
	say("sum_"+key, n.Sum)
}

// proposalSizes are -1 before the first.
func proposalSizes(m *zk.Stats) (last, least, most int64) {
	if m.Proposals.Count == 0 {
		return -1, -1, -1
	}
	return m.LastProposal, m.Proposals.Min, m.Proposals.Max
}

const quotaRoot = "/zookeeper/quota"

// quotas says limits and usage, summed up by namespace (DM-78). A hard limit goes before a soft one.
func (s *Server) quotas(ctx context.Context, say func(string, any)) {
	sums := map[string]int64{}
	err := s.Member.View(ctx, func(v *zk.View) error {
		for z, err := range v.Walk(quotaRoot) {
			if err != nil {
				return err
			}
			slash := strings.LastIndexByte(z.Path, '/')
			name := topOf(strings.TrimPrefix(z.Path[:slash], quotaRoot))
			if name == "" {
				continue // a quota on the root counts nothing (DM-77)
			}
			fields := quotaFields(z.Data)
			add := func(key string, names ...string) {
				for _, n := range names {
					if v, ok := fields[n]; ok && v > -1 {
						sums[name+key] += v
						return
					}
				}
			}
			switch z.Path[slash+1:] {
			case "zookeeper_limits":
				add("_quota_count_limit_per_namespace", "countHardLimit", "count")
				add("_quota_bytes_limit_per_namespace", "byteHardLimit", "bytes")
			case "zookeeper_stats":
				add("_quota_count_usage_per_namespace", "count")
				add("_quota_bytes_usage_per_namespace", "bytes")
			}
		}
		return nil
	})
	if err != nil {
		return // better none than a part of the sum
	}
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		say(key, sums[key])
	}
}

// quotaFields reads the text of a quota's znode, such as "count=1,bytes=2=;byteHardLimit=3" (DM-71).
func quotaFields(text string) map[string]int64 {
	fields := map[string]int64{}
	for f := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ';' }) {
		name, value, _ := strings.Cut(f, "=")
		if n, err := strconv.ParseInt(strings.TrimRight(value, "="), 10, 64); err == nil {
			fields[name] = n
		}
	}
	return fields
}
