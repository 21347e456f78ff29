// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// DefaultVersion is the version that a Server tells.
const DefaultVersion = "3.9.3-zk, built on 01/01/2026 00:00 GMT"

// telnetInterrupt is what telnet sends for an interrupt; it closes the connection (WP-61).
const telnetInterrupt = "\xff\xf4\xff\xfd"

// words are the four-letter words (section 8 of docs/spec/wire-protocol.md). True: they need a server that serves.
var words = map[string]bool{
	"conf": true, "cons": true, "crst": true, "dirs": true, "dump": true, "hash": true, "mntr": true, "srst": true,
	"srvr": true, "stat": true, "wchc": true, "wchp": true, "wchs": true,
	"envi": false, "gtmk": false, "isro": false, "ruok": false, "stmk": false,
}

func isWord(b []byte) bool {
	_, ok := words[string(b)]
	return ok || string(b) == telnetInterrupt
}

// permitted is the set of words that are answered (WP-61).
func permitted(list []string, readOnly bool) map[string]bool {
	set := map[string]bool{}
	if list == nil {
		set["srvr"], set["isro"] = true, readOnly
	}
	for _, w := range list {
		if w = strings.TrimSpace(w); w == "*" {
			for w := range words {
				set[w] = true
			}
		}
		set[w] = true
	}
	return set
}

const notServing = "This ZooKeeper instance is not currently serving requests"

// word answers a four-letter word and ends the connection. What follows the word is ignored, but for the mask of stmk
// (WP-60).
func (c *conn) word(w string) {
	if w == telnetInterrupt {
		return
	}
	c.raw.SetWriteDeadline(c.until)
	if _, err := c.nc.Write([]byte(c.srv.answerWord(c, w))); err == nil {
		c.linger()
	}
}

// wordTime bounds what a word may ask other members.
const wordTime = time.Second

func (s *Server) answerWord(c *conn, w string) string {
	if !s.words[w] {
		return w + " is not executed because it is not in the whitelist.\n"
	}
	what := s.state.now()
	if words[w] && what == servingNothing { // WP-63
		if w == "hash" {
			return notServing
		}
		return notServing + "\n"
	}
	ctx, cancel := context.WithTimeout(s.life, wordTime)
	defer cancel()
	switch w {
	case "ruok":
		return "imok"
	case "isro":
		return [...]string{"null", "ro", "rw"}[what]
	case "gtmk":
		return strconv.FormatInt(s.traceMask.Load(), 10)
	case "stmk":
		b, err := c.in.peek(12)
		if err != nil {
			return ""
		}
		s.traceMask.Store(int64(binary.BigEndian.Uint64(b[4:])))
		return strconv.FormatInt(s.traceMask.Load(), 10)
	case "envi":
		return s.environment()
	case "srvr":
		return s.head() + s.summary(ctx)
	case "stat":
		return s.head() + "Clients:\n" + s.clients(false) + "\n" + s.summary(ctx)
	case "cons":
		return s.clients(true) + "\n"
	case "crst":
		for _, c := range s.all() {
			c.usage.reset()
		}
		return "Connection stats reset.\n"
	case "srst":
		s.stats.reset()
		return "Server stats reset.\n"
	case "conf":
		return s.configuration(ctx)
	case "dirs":
		st := s.Member.Stats()
		return fmt.Sprintf("datadir_size: %d\nlogdir_size: %d\n", st.DataBytes, st.LogBytes)
	case "dump":
		return s.dump(ctx)
	case "mntr":
		return s.monitor(ctx)
	case "hash":
		var b strings.Builder
		for _, d := range s.Member.Digests() {
			fmt.Fprintf(&b, "%x: %d\n", uint64(d.Zxid), d.Sum)
		}
		return b.String()
	}
	return s.watches(ctx, w)
}

func (s *Server) version() string {
	if s.Version == "" {
		return DefaultVersion
	}
	return s.Version
}

func (s *Server) head() string {
	text := "Zookeeper version: " + s.version() + "\n"
	if s.state.now() == servingReadOnly {
		text += "READ-ONLY mode; serving only read-only clients\n"
	}
	return text
}

// mode is the member's part, in ZooKeeper's words.
func (s *Server) mode(ctx context.Context) string {
	if s.state.now() == servingReadOnly {
		return "read-only"
	}
	switch s.Member.Role() {
	case zk.RoleNonVoter:
		return "observer"
	case zk.RoleLeader:
		if s.ensemble(ctx) == "" {
			return "standalone"
		}
		return "leader"
	}
	return "follower"
}

// ensemble is the text of the config znode, empty while there has only been one member.
func (s *Server) ensemble(ctx context.Context) (text string) {
	s.Member.View(ctx, func(v *zk.View) error {
		z, err := v.Get("/zookeeper/config")
		text = z.Data
		return err
	})
	return text
}

func (s *Server) summary(ctx context.Context) string {
	st, m := s.Stats(), s.Member.Stats()
	mode := s.mode(ctx)
	text := fmt.Sprintf("Latency min/avg/max: %d/%s/%d\nReceived: %d\nSent: %d\nConnections: %d\nOutstanding: %d\nZxid: %v\nMode: %s\nNode count: %d\n",
		st.MinLatency.Milliseconds(), double(millis(st.AvgLatency)), st.MaxLatency.Milliseconds(), st.Received, st.Sent,
		st.Connections, st.Outstanding, m.Applied, mode, m.Znodes+1) // DM-16
	if mode == "leader" {
		last, least, most := proposalSizes(&m)
		text += fmt.Sprintf("Proposal sizes last/min/max: %d/%d/%d\n", last, least, most)
	}
	return text
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// double prints a number as Java does, with four digits at most.
func double(v float64) string {
	t := strings.TrimRight(strconv.FormatFloat(v, 'f', 4, 64), "0")
	if strings.HasSuffix(t, ".") {
		t += "0"
	}
	return t
}

// clients lists the connections, one a line (WP-65).
func (s *Server) clients(detailed bool) string {
	lines := []string{}
	for _, c := range s.all() {
		lines = append(lines, c.line(detailed))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (c *conn) line(detailed bool) string {
	c.mu.Lock()
	queued, session, timeout, interest := c.queue.len(), c.session, c.timeout, 1
	if c.waiting {
		interest = 0
	}
	c.mu.Unlock()
	u := &c.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	b := fmt.Sprintf(" /%v[%d](queued=%d,recved=%d,sent=%d", c.raw.RemoteAddr(), interest, queued, u.recv, u.send)
	if detailed && session != nil {
		name := "NA"
		if o := operations[u.last]; o != nil {
			name = o.name
		} else if u.last == opCreateSession {
			name = "SESS"
		}
		b += fmt.Sprintf(",sid=%v,lop=%s,est=%d,to=%d", session.ID(), name, c.began.UnixMilli(), timeout.Milliseconds())
		if u.xid >= 0 {
			b += fmt.Sprintf(",lcxid=0x%x", u.xid)
		}
		answered := int64(0)
		if !u.at.IsZero() {
			answered = u.at.Sub(c.srv.began).Milliseconds()
		}
		b += fmt.Sprintf(",lzxid=%v,lresp=%d,llat=%d,minlat=%d,avglat=%d,maxlat=%d", u.zxid, answered, u.took.Milliseconds(),
			u.latency.min.Milliseconds(), u.latency.avg().Milliseconds(), u.latency.max.Milliseconds())
	}
	return b + ")\n"
}

func (s *Server) environment() string {
	host, _ := os.Hostname()
	return "Environment:\nzookeeper.version=" + s.version() + "\nhost.name=" + host + "\ngo.version=" + runtime.Version() +
		"\nos.name=" + runtime.GOOS + "\nos.arch=" + runtime.GOARCH + "\n"
}

// watches answers wchs, wchc and wchp, of watches on znodes alone, not on their children (WT-39).
func (s *Server) watches(ctx context.Context, w string) string {
	list, err := s.Member.Watches(ctx)
	if err != nil {
		return notServing + "\n"
	}
	list = slices.DeleteFunc(list, func(i zk.WatchInfo) bool { return i.Type == zk.WatchTypeChildren })
	by := func(key, value func(zk.WatchInfo) string) (keys []string, values map[string][]string) {
		values = map[string][]string{}
		for _, i := range list {
			k, v := key(i), value(i)
			if values[k] == nil {
				keys = append(keys, k)
			}
			if !slices.Contains(values[k], v) {
				values[k] = append(values[k], v)
			}
		}
		return keys, values
	}
	session := func(i zk.WatchInfo) string { return i.Session.String() }
	path := func(i zk.WatchInfo) string { return i.Path }
	var keys []string
	var values map[string][]string
	switch w {
	case "wchs":
		sessions, _ := by(session, path)
		paths, at := by(path, session)
		total := 0
		for _, list := range at {
			total += len(list)
		}
		return fmt.Sprintf("%d connections watching %d paths\nTotal watches:%d\n", len(sessions), len(paths), total)
	case "wchc":
		keys, values = by(session, path)
	default:
		keys, values = by(path, session)
	}
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k + "\n")
		for _, v := range values[k] {
			b.WriteString("\t" + v + "\n")
		}
	}
	return b.String() + "\n"
}
