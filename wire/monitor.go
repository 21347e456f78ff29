// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// configuration answers conf. The word asks for no password, so paths of the host are not told.
func (s *Server) configuration(ctx context.Context) string {
	least, most := s.Member.SessionTimeouts()
	st := s.Member.Stats()
	tick := s.Tick
	if tick <= 0 {
		tick = 2 * time.Second
	}
	text := fmt.Sprintf("clientPort=%d\nsecureClientPort=%d\ndataDir=\ndataDirSize=%d\ndataLogDir=\ndataLogSize=%d\ntickTime=%d\nmaxClientCnxns=%d\nminSessionTimeout=%d\nmaxSessionTimeout=%d\nclientPortListenBacklog=-1\nserverId=%s\n",
		s.portOf(portPlain), s.portOf(portTLS), st.DataBytes, st.LogBytes, tick.Milliseconds(), max(s.limits.PerAddress, 0), least.Milliseconds(), most.Milliseconds(), s.Member.ID())
	config := s.ensemble(ctx)
	if config == "" {
		return text
	}
	_, peer, _ := net.SplitHostPort(s.Member.Addr())
	kind := 0
	if s.Member.Role() == zk.RoleNonVoter {
		kind = 1
	}
	return text + fmt.Sprintf("initLimit=0\nsyncLimit=0\nelectionAlg=3\nelectionPort=%[1]s\nquorumPort=%[1]s\npeerType=%[2]d\nmembership: \n%[3]s", peer, kind, config)
}

// portOf is the number of a port, -1 where there is none.
func (s *Server) portOf(p port) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, kind := range s.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && (kind == p || kind == portBoth) {
			return a.Port
		}
	}
	return -1
}

// dump answers with the ensemble's sessions and ephemerals, and this server's connections. When a session expires the
// leader alone knows, so the time is the latest there can be.
func (s *Server) dump(ctx context.Context) string {
	sessions, err := s.Member.Sessions(ctx)
	if err != nil {
		return notServing + "\n"
	}
	var b strings.Builder
	b.WriteString("SessionTracker dump:\n")
	if s.Member.Role() == zk.RoleLeader {
		sets := map[time.Duration][]string{}
		for _, i := range sessions {
			sets[i.Timeout] = append(sets[i.Timeout], "\t"+i.ID.String()+"\n")
		}
		fmt.Fprintf(&b, "Session Sets (%d)/(%d):\n", len(sets), len(sessions))
		writeSets(&b, sets, func(d time.Duration) time.Time { return time.Now().Add(d) })
	} else {
		fmt.Fprintf(&b, "Global Sessions(%d):\n", len(sessions))
		for _, i := range sessions {
			fmt.Fprintf(&b, "%v\t%dms\n", i.ID, i.Timeout.Milliseconds())
		}
	}
	owners := slices.DeleteFunc(sessions, func(i zk.SessionInfo) bool { return i.Ephemerals == 0 })
	fmt.Fprintf(&b, "ephemeral nodes dump:\nSessions with Ephemerals (%d):\n", len(owners))
	for _, i := range owners {
		fmt.Fprintf(&b, "%v:\n", i.ID)
		paths, _ := s.Member.Ephemerals(ctx, i.ID)
		for _, p := range paths {
			b.WriteString("\t" + p + "\n")
		}
	}
	sets, n := map[time.Duration][]string{}, 0
	for _, c := range s.all() {
		c.mu.Lock()
		session, timeout := c.session, c.timeout
		c.mu.Unlock()
		id := zk.SessionID(0)
		if session != nil {
			id = session.ID()
		}
		at := (c.usage.lastHeard().Sub(s.began) + timeout).Truncate(time.Second) + time.Second
		sets[at] = append(sets[at], fmt.Sprintf("\tip: /%v sessionId: %v\n", c.raw.RemoteAddr(), id))
		n++
	}
	fmt.Fprintf(&b, "Connections dump:\nConnections Sets (%d)/(%d):\n", len(sets), n)
	writeSets(&b, sets, func(d time.Duration) time.Time { return s.began.Add(d) })
	return b.String()
}

func writeSets(b *strings.Builder, sets map[time.Duration][]string, at func(time.Duration) time.Time) {
	for _, d := range slices.Sorted(maps.Keys(sets)) {
		fmt.Fprintf(b, "%d expire at %s:\n", len(sets[d]), at(d).Format(time.UnixDate))
		slices.Sort(sets[d])
		b.WriteString(strings.Join(sets[d], ""))
	}
}

// monitor answers mntr with ZooKeeper's keys, as far as there is something behind them (OP-20).
func (s *Server) monitor(ctx context.Context) string {
	var b strings.Builder
	say := func(key string, value any) { fmt.Fprintf(&b, "zk_%s\t%v\n", key, value) }
	st, m, mode := s.Stats(), s.Member.Stats(), s.mode(ctx)
	s.stats.mu.Lock()
	sizes := s.stats.responses
	s.stats.mu.Unlock()
	say("version", s.version())
	say("server_state", mode)
	say("avg_latency", double(millis(st.AvgLatency)))
	say("min_latency", st.MinLatency.Milliseconds())
	say("max_latency", st.MaxLatency.Milliseconds())
	say("packets_received", st.Received)
	say("packets_sent", st.Sent)
	say("num_alive_connections", st.Connections)
	say("outstanding_requests", st.Outstanding)
	say("znode_count", m.Znodes+1) // DM-16
	say("watch_count", m.Watches)  // WT-39
	say("ephemerals_count", m.Ephemerals)
	say("approximate_data_size", m.DataBytes)
	say("global_sessions", m.Sessions)
	say("local_sessions", m.LocalSessions)
	say("uptime", st.Uptime.Milliseconds())
	say("last_client_response_size", sizes.last)
	say("min_client_response_size", sizes.min)
	say("max_client_response_size", sizes.max)
	say("connection_rejected", st.Rejected)
	say("auth_failed_count", st.AuthFailed)
	say("outstanding_tls_handshake", s.shakes.Load())
	if open, most, ok := descriptors(); ok {
		say("open_file_descriptor_count", open)
		say("max_file_descriptor_count", most)
	}
	s.measured(ctx, mode, &st, &m, say)
	config := s.ensemble(ctx)
	if config == "" {
		say("quorum_size", 1)
		return b.String()
	}
	say("quorum_size", strings.Count(config, ":participant"))
	switch mode {
	case "leader":
		say("peer_state", "leading - broadcast")
		followers, observers := 0, 0
		list, _ := s.Member.Members(ctx)
		for _, i := range list {
			switch {
			case i.ID == s.Member.ID() || i.LastSeen.IsZero():
			case i.Voter:
				followers++
			default:
				observers++
			}
		}
		say("learners", followers+observers)
		say("synced_followers", followers)
		say("synced_non_voting_followers", 0)
		say("synced_observers", observers)
	case "follower":
		say("peer_state", "following - broadcast")
	case "observer":
		say("peer_state", "observing - broadcast")
	}
	return b.String()
}

// descriptors counts the files that the process has open, where the system tells.
func descriptors() (open, most int, ok bool) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, 0, false
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		return 0, 0, false
	}
	_, after, found := strings.Cut(string(limits), "Max open files")
	fields := strings.Fields(after)
	if !found || len(fields) == 0 {
		return 0, 0, false
	}
	most, err = strconv.Atoi(fields[0])
	return len(list), most, err == nil
}
