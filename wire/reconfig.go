// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// reconfigTime bounds one reconfig: a new voter has to catch up first.
const reconfigTime = 30 * time.Second

// answerReconfig changes the ensemble's members, in ZooKeeper's order of checks but for the permission, which is asked
// for before anything is changed (OP-42). Members are added and removed one by one: where one fails, the changes before
// it stay.
func answerReconfig(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	q := r.body.(*reconfigRequest)
	if !c.srv.Reconfig {
		return b, 0, zk.ErrReconfigDisabled
	}
	ctx, cancel := context.WithTimeout(c.ctx, reconfigTime)
	defer cancel()
	data, st, z, err := c.listener.Read(ctx, configPath, false)
	switch {
	case err != nil:
		return b, z, err
	case c.readOnly:
		return b, z, zk.ErrNotReadOnly
	case len(data) == 0:
		return b, z, zk.ErrUnimplemented // a single member
	case q.version != -1 && q.version != int64(st.Mzxid):
		return b, z, zk.ErrBadVersion
	}
	join, leave, err := q.changes(membersOf(string(data)))
	if err == nil {
		err = c.listener.Allowed(ctx, configPath, zk.PermWrite)
	}
	m := c.srv.Member
	for _, id := range leave {
		if err == nil {
			err = m.RemoveMember(ctx, id)
		}
	}
	for _, p := range join {
		if err == nil {
			err = m.AddMember(ctx, p)
		}
	}
	if err == nil {
		err = c.session.Sync(ctx) // the change may have been made elsewhere
	}
	if err != nil {
		return b, 0, err
	}
	data, st, z, err = c.listener.Read(ctx, configPath, false)
	return appendStat(appendBuffer(b, data), st), z, err
}

// changes is whom to add and whom to remove: what is asked for, or, given a full list, what leads to it (OP-43).
func (q *reconfigRequest) changes(voters map[string]bool) (join []zk.Peer, leave []string, err error) {
	separated := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '\n' })
	}
	wanted := separated(q.joining)
	if q.members != "" {
		wanted = separated(q.members)
	} else {
		leave = separated(q.leaving)
	}
	named := map[string]bool{}
	for _, text := range wanted {
		if strings.HasPrefix(text, "version=") {
			continue
		}
		p, ok := parseServer(text)
		if !ok || voters[p.ID] && !p.Voter { // a voter does not become an observer
			return nil, nil, zk.ErrBadArguments
		}
		named[p.ID] = true
		join = append(join, p)
	}
	if q.members != "" {
		for id := range voters {
			if !named[id] {
				leave = append(leave, id)
			}
		}
		slices.Sort(leave)
	}
	return join, leave, nil
}

// membersOf reads who is in a config text, and who of them votes.
func membersOf(config string) map[string]bool {
	voters := map[string]bool{}
	for line := range strings.Lines(config) {
		id, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "server."), "=")
		if ok && id != "version" {
			server, _, _ := strings.Cut(rest, ";")
			voters[id] = !strings.HasSuffix(server, ":observer")
		}
	}
	return voters
}

// parseServer reads "server.ID=HOST:PORT:PORT:ROLE;CLIENT", of which "server.", the role and what follows the
// semicolon may be missing. Members announce by themselves where they serve clients.
func parseServer(text string) (p zk.Peer, ok bool) {
	id, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "server."), "=")
	if !ok || id == "" {
		return p, false
	}
	rest, _, _ = strings.Cut(rest, ";")
	rest, _, _ = strings.Cut(rest, "|")
	host := ""
	if end := strings.IndexByte(rest, ']'); strings.HasPrefix(rest, "[") && end > 0 {
		host, rest = rest[1:end], strings.TrimPrefix(rest[end+1:], ":")
	} else if host, rest, ok = strings.Cut(rest, ":"); !ok {
		return p, false
	}
	fields := strings.Split(rest, ":")
	for _, f := range fields[:min(2, len(fields))] {
		if n, err := strconv.ParseUint(f, 10, 16); err != nil || n == 0 {
			return p, false
		}
	}
	p = zk.Peer{ID: id, Addr: net.JoinHostPort(host, fields[0]), Voter: true}
	switch {
	case host == "" || len(fields) < 2 || len(fields) > 3:
		return p, false
	case len(fields) == 3 && fields[2] == "observer":
		p.Voter = false
	case len(fields) == 3 && fields[2] != "participant":
		return p, false
	}
	return p, true
}
