// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
)

// Config.Audit gets one record for each change that somebody asked for, from the member that was asked, once the outcome
// is known (OP-30 to OP-34). A transaction that was applied gives one for each of its changes, one that was refused
// gives one for the whole. Data and credentials are never in them.

// audit notes one change; session is nil where the member itself was asked.
func (m *Member) audit(s *live, op string, out *outcome, err error, attrs ...slog.Attr) {
	code := Code(0)
	if err != nil {
		code = codeOf(err)
	} else if out != nil {
		code = out.code
	}
	result := "success"
	switch {
	case MaybeApplied(err):
		result = "unknown"
	case code != 0:
		result = "failure"
	}
	all := make([]slog.Attr, 0, 8)
	if s != nil {
		user, ip := s.who()
		all = append(all, slog.String("session", s.id.String()), slog.String("user", user), slog.String("ip", ip))
	}
	all = append(all, slog.String("op", op))
	all = append(all, attrs...)
	all = append(all, slog.String("result", result))
	if code != 0 {
		all = append(all, slog.String("err", code.Error()))
	}
	if out != nil && out.zxid != 0 {
		all = append(all, slog.String("zxid", out.zxid.String()))
	}
	m.cfg.Audit.LogAttrs(context.Background(), slog.LevelInfo, "audit", all...)
}

// auditMember notes a change to the ensemble.
func (m *Member) auditMember(op string, err error, attrs ...slog.Attr) {
	if m.cfg.Audit != nil {
		m.audit(nil, op, nil, err, attrs...)
	}
}

// audited notes what became of a transaction.
func (s *Session) audited(op string, ops []Op, out outcome, err error) {
	switch {
	case s.m.cfg.Audit == nil:
	case len(ops) == 1 && ops[0].changes():
		path := s.full(ops[0].path)
		if len(out.steps) == 1 && out.code == 0 && out.steps[0].path != "" {
			path = out.steps[0].path
		}
		s.m.audit(s.live, ops[0].name(), &out, err, ops[0].audited(path)...)
	case err != nil || out.code != 0:
		s.m.audit(s.live, op, &out, err)
	default:
		for i := range ops {
			if ops[i].changes() {
				s.m.audit(s.live, ops[i].name(), &out, nil, ops[i].audited(out.steps[i].path)...)
			}
		}
	}
}

// changes tells whether a step is not a mere check.
func (o *Op) changes() bool {
	switch o.kind {
	case opCheck, opCheckCreated, opCheckAbsent, opCheckChildren:
		return false
	}
	return true
}

func (o *Op) audited(path string) []slog.Attr {
	attrs := []slog.Attr{slog.String("path", path)}
	switch {
	case o.kind == opCreate && o.hasTTL:
		attrs = append(attrs, slog.String("mode", o.mode.String()+"|ttl"))
	case o.kind == opCreate:
		attrs = append(attrs, slog.String("mode", o.mode.String()))
	case o.kind == opSetACL:
		attrs = append(attrs, slog.String("acl", auditedACL(o.acl)))
	}
	return attrs
}

// auditedACL hides the hashes of digests, as readers without PermAdmin see a list.
func auditedACL(list []ACL) string {
	parts := make([]string, len(list))
	for i, a := range maskDigests(list) {
		perms := a.Perm.String()
		if a.Perm&^PermAll != 0 {
			perms = strconv.Itoa(int(a.Perm))
		}
		parts[i] = a.Scheme + ":" + a.ID + ":" + perms
	}
	return strings.Join(parts, ",")
}

// who names a session's identities: addresses apart, digests by their user alone.
func (l *live) who() (user, ip string) {
	var users, ips []string
	for _, id := range l.identities() {
		switch id.Scheme {
		case schemeIP:
			ips = append(ips, id.ID)
		case schemeDigest:
			name, _, _ := strings.Cut(id.ID, ":")
			users = append(users, name)
		case schemeSuper:
			users = append(users, schemeSuper)
		default:
			users = append(users, id.ID)
		}
	}
	return strings.Join(users, ","), strings.Join(ips, ",")
}
