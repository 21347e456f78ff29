// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Stats is a picture of a server's counters, for whatever metrics system the program uses. Latencies are of requests,
// from their arrival to their answer.
type Stats struct {
	Connections    int   // now, those without a session included
	Outstanding    int64 // requests that wait for their answer
	Received, Sent int64 // frames, events included
	MinLatency     time.Duration
	AvgLatency     time.Duration
	MaxLatency     time.Duration
	Uptime         time.Duration

	Rejected     int64 // connections closed at once, for a limit
	Refused      int64 // sessions that could not be attached: expired, or the password was wrong
	RuleBreakers int64 // connections closed because the client did not follow the protocol, took nothing in, or sent nothing
	SlowReaders  int64 // of those, the ones that did not take their events
	AuthFailed   int64 // identities refused
	Large        int64 // answers of more than 1 MiB, which Java's client does not take (DM-92)
	Panics       int64 // faults of this package, each of which cost one connection

	Connects  int64 // requests for a session
	Attaches  int64 // of those, the ones for a session that was there already
	Dropped   int64 // connections with a session that ended before the client had closed it
	Silent    int64 // connections that ended because no session was asked for in time
	TooLong   int64 // connections closed because of a request that is longer than Limits.Frame
	Throttled int64 // requests refused because a queue was full

	BytesReceived, BytesSent, EventBytes int64 // of requests, their answers, and events

	Reads, Updates zk.Summary[time.Duration] // latencies: sync and watches count as reads, auth and close as updates
	Requests       map[string]int64          // answered, by what mntr calls them
	Namespaces     map[string]NamespaceStats // by their names
}

// counters are written from everywhere.
type counters struct {
	outstanding, received, sent                                atomic.Int64
	rejected, refused, broken, slow, authFailed, large, panics atomic.Int64
	connects, attaches, dropped, silent, tooLong, throttled    atomic.Int64
	bytesIn, bytesOut, bytesTold                               atomic.Int64
	reads, updates                                             zk.Recorder[time.Duration]
	requests                                                   [128]atomic.Int64 // by slot
	namespaces                                                 namespaces

	mu        sync.Mutex // guards the fields below
	latency   latency
	responses sizes
}

// slot is an opcode's place among the counters: the low bits tell those of requestNames apart.
func slot(op opcode) int { return int(op) & 127 }

// latency sums up durations.
type latency struct {
	count    int64
	sum      time.Duration
	min, max time.Duration
}

func (l *latency) add(d time.Duration) {
	if l.count == 0 || d < l.min {
		l.min = d
	}
	l.max = max(l.max, d)
	l.sum += d
	l.count++
}

func (l *latency) avg() time.Duration {
	if l.count == 0 {
		return 0
	}
	return l.sum / time.Duration(l.count)
}

// sizes sums up numbers of bytes; -1 where there was none.
type sizes struct{ last, min, max int }

func (s *sizes) add(n int) {
	if s.last = n; s.min < 0 || n < s.min {
		s.min = n
	}
	s.max = max(s.max, n)
}

// asked counts a request for a session, new or known.
func (k *counters) asked(session int64) {
	k.connects.Add(1)
	if session != 0 {
		k.attaches.Add(1)
	}
}

// answered counts an answer, and reports whether it is a large one.
func (k *counters) answered(r *request, code zk.Code, took time.Duration, size int) (large bool) {
	k.sent.Add(1)
	k.bytesIn.Add(int64(4 + r.size))
	k.bytesOut.Add(int64(size))
	if large = size > 1<<20; large {
		k.large.Add(1)
	}
	if code == zk.ErrThrottled {
		k.throttled.Add(1)
	}
	if r.code != zk.ErrUnimplemented {
		k.requests[slot(r.op)].Add(1)
	}
	switch {
	case r.kind == kindWrite, r.op == opAuth, r.op == opCloseSession, r.op == opReconfig:
		k.updates.Add(took)
	case r.kind == kindRead:
		k.reads.Add(took)
	}
	k.namespaces.answered(r, code, size)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.latency.add(took)
	k.responses.add(size)
	return large
}

// reset clears what the words srst and crst clear (OP-22).
func (k *counters) reset() {
	k.received.Store(0)
	k.sent.Store(0)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.latency = latency{}
	k.responses = sizes{-1, -1, -1}
}

// Stats returns the server's counters.
func (s *Server) Stats() Stats {
	s.start()
	k := &s.stats
	s.mu.Lock()
	n := s.connections
	s.mu.Unlock()
	k.mu.Lock()
	l := k.latency
	k.mu.Unlock()
	requests := make(map[string]int64, len(requestNames))
	for op, name := range requestNames {
		requests[name] = k.requests[slot(op)].Load()
	}
	return Stats{
		Connections: n, Outstanding: k.outstanding.Load(), Received: k.received.Load(), Sent: k.sent.Load(),
		MinLatency: l.min, AvgLatency: l.avg(), MaxLatency: l.max, Uptime: time.Since(s.began),
		Rejected: k.rejected.Load(), Refused: k.refused.Load(), RuleBreakers: k.broken.Load(), SlowReaders: k.slow.Load(),
		AuthFailed: k.authFailed.Load(), Large: k.large.Load(), Panics: k.panics.Load(),
		Connects: k.connects.Load(), Attaches: k.attaches.Load(), Dropped: k.dropped.Load(), Silent: k.silent.Load(), TooLong: k.tooLong.Load(), Throttled: k.throttled.Load(),
		BytesReceived: k.bytesIn.Load(), BytesSent: k.bytesOut.Load(), EventBytes: k.bytesTold.Load(),
		Reads: k.reads.Summary(), Updates: k.updates.Summary(), Requests: requests, Namespaces: k.namespaces.stats(),
	}
}

// usage is what the word cons tells of a connection.
type usage struct {
	mu         sync.Mutex // guards the fields below
	recv, send int64
	latency    latency
	heard      time.Time // when a request arrived last
	last       opcode    // of the last answer, as the fields below; 0 before the first
	xid        int64     // -1 before the first
	zxid       zk.Zxid   // -1 before the first
	at         time.Time
	took       time.Duration
}

// reset clears what the word crst clears (OP-22).
func (u *usage) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recv, u.send, u.latency, u.last, u.xid, u.zxid, u.at, u.took = 0, 0, latency{}, 0, -1, -1, time.Time{}, 0
}

// begin is called once, with the time of the connection.
func (u *usage) begin(at time.Time) {
	u.heard = at
	u.reset()
}

func (u *usage) received() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recv++
	u.heard = time.Now()
}

func (u *usage) lastHeard() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.heard
}

func (u *usage) sent() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.send++
}

// connected counts the answer to the request for a session, the last one that was heard.
func (u *usage) connected(z zk.Zxid) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.send++
	u.last, u.xid, u.zxid, u.at = opCreateSession, 0, z, time.Now()
	u.took = u.at.Sub(u.heard)
	u.latency.add(u.took)
}

func (u *usage) answered(r *request, z zk.Zxid, took time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.send++
	u.latency.add(took)
	if r.xid >= 0 { // the last one that the client chose
		u.xid = int64(r.xid)
	}
	u.last, u.zxid, u.at, u.took = r.op, z, time.Now(), took
}

// noise is what clients' faults make of the log: a few lines a second, whatever they do.
type noise struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time
	lines   int
	dropped int64
}

const linesPerSecond = 5

func (n *noise) say(what string, from netip.Addr) {
	n.mu.Lock()
	if now := time.Now(); now.Sub(n.since) > time.Second {
		n.since, n.lines = now, 0
	}
	n.lines++
	if n.lines > linesPerSecond {
		n.dropped++
		n.mu.Unlock()
		return
	}
	dropped := n.dropped
	n.dropped = 0
	n.mu.Unlock()
	attrs := []any{"client", from}
	if dropped > 0 {
		attrs = append(attrs, "more", dropped)
	}
	n.log.Warn(what, attrs...)
}

func brokeRequest(r *request, code zk.Code) string {
	return fmt.Sprintf("request of type %d: %v", r.op, visible(code))
}
