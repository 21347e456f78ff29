// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expectations of the golden scripts")

// TestGolden runs the scripts of testdata/golden. What a command prints stands below it, indented by a
// tab. Run with -update to rewrite what commands print, and read the difference.
//
//	as NAME                                       the session the next commands are of
//	open NAME [limit=N] [SCHEME:ID ...]           a session and its watches
//	local NAME [SCHEME:ID ...], upgrade NAME      a session that the state does not know, and what lets it know
//	close NAME, expire NAME [term=N], kill NAME, attach NAME [password=P] [mark=old], auth NAME SCHEME:ID ...
//	create PATH [data=D|null] [MODE ...] [ttl=N] [acl=LIST]
//	set PATH D [v=N], delete PATH [v=N], setacl PATH LIST [v=N], check PATH [v=N], deltree PATH
//	created PATH ZXID, absent PATH, children PATH OP N
//	txn, one step on each line, end
//	reap PATH [token=N] [term=N], member ID STORAGE ADDR, config ID[:observer] ...
//	time +MS, quota on|off, ttl on|off, restore
//	stat PATH, get PATH, ls PATH, getacl PATH, zxid, bytes
//	watch NAME KIND PATH, unwatch NAME KIND PATH, checkwatch NAME KIND PATH
//
// LIST is PERMS:SCHEME:ID[,...], "open" or "creator"; a PATH or D with special characters is a Go string.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			g := newScript(t)
			lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
			for i := 0; i < len(lines); {
				line := lines[i]
				if line == "" || line[0] == '#' {
					out = append(out, line)
					i++
					continue
				}
				start := i
				for i++; line == "txn" && lines[i-1] != "end"; i++ {
				}
				commands := lines[start:i]
				var want []string
				for ; i < len(lines) && strings.HasPrefix(lines[i], "\t"); i++ {
					want = append(want, lines[i])
				}
				got := g.run(commands)
				if !*update && !slices.Equal(got, want) {
					t.Errorf("line %d: %s\n got:\n%s\nwant:\n%s", start+1, strings.Join(commands, "; "), strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				out = append(append(out, commands...), got...)
				check(t, g.w.state)
			}
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(out, "\n")+"\n"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type script struct {
	t        *testing.T
	w        *world
	sessions map[string]SessionID
	locals   map[string][]Identity // of sessions that the state does not know
	ears     map[string]*ear
	current  string
	out      []string
}

func newScript(t *testing.T) *script {
	return &script{t: t, w: newWorld(), sessions: map[string]SessionID{}, locals: map[string][]Identity{}, ears: map[string]*ear{}}
}

func (g *script) print(format string, args ...any) {
	g.out = append(g.out, "\t"+fmt.Sprintf(format, args...))
}

// run executes one command, or one transaction from "txn" to "end".
func (g *script) run(lines []string) []string {
	g.out = nil
	if lines[0] != "txn" {
		g.command(g.fields(lines[0]))
		return g.out
	}
	var ops []Op
	for _, line := range lines[1 : len(lines)-1] {
		ops = append(ops, g.op(g.fields(line)))
	}
	g.txn(g.request(ops...))
	return g.out
}

// request is a transaction of the current session.
func (g *script) request(ops ...Op) request {
	if ids, local := g.locals[g.current]; local {
		return request{kind: reqLocal, ids: ids, ops: ops}
	}
	q := request{kind: reqTxn, session: g.sessions[g.current], ops: ops}
	if sess := g.w.session(q.session); sess != nil {
		q.mark = sess.mark
	}
	return q
}

// fields splits a line at spaces; quoted parts are unquoted.
func (g *script) fields(line string) (f []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		word := ""
		for line != "" && line[0] != ' ' {
			if line[0] != '"' {
				word += line[:1]
				line = line[1:]
				continue
			}
			q, err := strconv.QuotedPrefix(line)
			if err != nil {
				g.t.Fatalf("%s: %v", line, err)
			}
			u, _ := strconv.Unquote(q)
			word += u
			line = line[len(q):]
		}
		f = append(f, word)
	}
	return f
}

func (g *script) number(s string) int64 {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// option returns the value of key=value among f.
func option(f []string, key, otherwise string) string {
	for _, s := range f {
		if v, ok := strings.CutPrefix(s, key+"="); ok {
			return v
		}
	}
	return otherwise
}

func (g *script) acl(s string) []ACL {
	switch s {
	case "open":
		return OpenACL()
	case "creator":
		return CreatorACL()
	case "none":
		return []ACL{}
	}
	var list []ACL
	for part := range strings.SplitSeq(s, ",") {
		perms, rest, _ := strings.Cut(part, ":")
		scheme, id, _ := strings.Cut(rest, ":")
		var p Perm
		if n, err := strconv.ParseUint(perms, 10, 32); err == nil {
			p = Perm(n)
		} else {
			for _, l := range perms {
				p |= map[rune]Perm{'r': PermRead, 'w': PermWrite, 'c': PermCreate, 'd': PermDelete, 'a': PermAdmin}[l]
			}
		}
		list = append(list, ACL{p, scheme, id})
	}
	return list
}

func (g *script) op(f []string) Op {
	version := int32(g.number(option(f, "v", "-1")))
	path := f[1]
	switch f[0] {
	case "create":
		o := OpCreate(path, []byte(option(f, "data", "")), Persistent)
		for _, s := range f[2:] {
			switch s {
			case "null":
				o = OpCreate(path, nil, o.mode)
			case "ephemeral":
				o.mode |= Ephemeral
			case "sequential":
				o.mode |= Sequential
			case "container":
				o.mode |= Container
			case "parents":
				o.mode |= Parents
			}
			if v, ok := strings.CutPrefix(s, "mode="); ok {
				o.mode = CreateMode(g.number(v))
			}
			if v, ok := strings.CutPrefix(s, "ttl="); ok {
				o = o.withTTL(g.number(v))
			}
			if v, ok := strings.CutPrefix(s, "acl="); ok {
				o.acl = g.acl(v)
			}
		}
		return o
	case "set":
		if f[2] == "null" {
			return OpSet(path, nil, version)
		}
		return OpSet(path, []byte(f[2]), version)
	case "delete":
		return OpDelete(path, version)
	case "check":
		return OpCheck(path, version)
	case "setacl":
		return Op{kind: opSetACL, path: path, acl: g.acl(f[2]), version: version}
	case "deltree":
		return Op{kind: opDeleteTree, path: path}
	case "created":
		return OpCheckCreated(path, Token(g.number(f[2])))
	case "absent":
		return OpCheckAbsent(path)
	case "children":
		for c := Less; c <= Greater; c++ {
			if c.String() == f[2] {
				return OpCheckChildren(path, c, int(g.number(f[3])))
			}
		}
	}
	g.t.Fatalf("unknown step %q", f)
	return Op{}
}

func (g *script) txn(q request) {
	out, _ := g.w.do(q)
	if len(q.ops) == 1 && out.code == 0 {
		g.print("%v ok%s", out.zxid, created(q.ops[0], out.steps[0]))
	} else {
		g.print("%v %s", out.zxid, codeName(out.code))
		if len(q.ops) > 1 {
			for i, s := range out.steps {
				line := fmt.Sprintf("  %s %s", q.ops[i].name(), codeName(s.code)) + created(q.ops[i], s)
				if s.code == 0 && out.code == 0 && (q.ops[i].kind == opSet || q.ops[i].kind == opSetACL) {
					line += fmt.Sprintf(" version=%d aversion=%d", s.stat.version, s.stat.aversion)
				}
				g.print("%s", line)
			}
		}
	}
	g.events()
}

func created(o Op, r result) string {
	if o.kind == opCreate && r.code == 0 && r.path != "" {
		return " " + printPath(r.path)
	}
	return ""
}

func printPath(p string) string {
	if strconv.Quote(p) != `"`+p+`"` || strings.Contains(p, " ") {
		return strconv.Quote(p)
	}
	return p
}

func codeName(c Code) string {
	if c == 0 {
		return "ok"
	}
	return fmt.Sprintf("%d %s", int(c), c.Error())
}

// events prints what the watchers have heard since, session by session.
func (g *script) events() {
	for _, name := range slices.Sorted(maps.Keys(g.ears)) {
		e := g.ears[name]
		for _, ev := range e.events {
			if ev.Type == EventSession {
				g.print("  %s hears session %v", name, ev.State)
			} else {
				g.print("  %s hears %v %s %v", name, ev.Type, ev.Path, ev.Zxid)
			}
		}
		e.events = nil
	}
}

// ear is a session's receiver and the events it has been given: one receiver for all watches, as on a connection.
type ear struct {
	r      *receiver
	events []Event
}

func (g *script) receiver(name string) *receiver {
	e := g.ears[name]
	if e == nil || e.r.ended {
		e = &ear{}
		e.r = &receiver{session: g.w.lives[g.sessions[name]], sink: func(ev Event) { e.events = append(e.events, ev) }}
		g.ears[name] = e
	}
	return e.r
}

func (g *script) identities(f []string) (ids []Identity) {
	for _, s := range f {
		scheme, id, ok := strings.Cut(s, ":")
		if !ok {
			continue
		}
		if scheme == schemeDigest {
			id = DigestID(id)
		}
		ids = append(ids, Identity{scheme, id})
	}
	return ids
}

func watchKeys(kind, path string) []watchKey {
	switch kind {
	case "data", "exists":
		return []watchKey{{path, false, watchOnce}}
	case "child":
		return []watchKey{{path, true, watchOnce}}
	case "persistent":
		return []watchKey{{path, false, watchPersistent}, {path, true, watchPersistent}}
	case "recursive":
		return []watchKey{{path, false, watchRecursive}}
	case "childset":
		return []watchKey{{path, true, watchChildSet}}
	}
	var all []watchKey
	for _, k := range []string{"data", "child", "persistent", "recursive", "childset"} {
		all = append(all, watchKeys(k, path)...)
	}
	return all
}

func (g *script) command(f []string) {
	w := g.w
	mark := func(name string) Zxid {
		if sess := w.session(g.sessions[name]); sess != nil {
			return sess.mark
		}
		return 0
	}
	plain := func(q request) outcome {
		out, _ := w.do(q)
		g.print("%v %s", out.zxid, codeName(out.code))
		g.events()
		return out
	}
	switch f[0] {
	case "as":
		g.current = f[1]
	case "open":
		ids := g.identities(f[2:])
		out, _ := w.do(request{kind: reqOpen, timeout: g.number(option(f, "timeout", "10000")), password: "pw", ids: ids, limit: g.number(option(f, "limit", "0"))})
		l := &live{id: out.id}
		l.ids.Store(&ids)
		w.lives[out.id] = l
		g.sessions[f[1]], g.current = out.id, f[1]
		g.print("%v %s", out.zxid, codeName(out.code))
	case "local":
		ids := g.identities(f[2:])
		l := &live{id: localID | SessionID(len(g.sessions))}
		l.ids.Store(&ids)
		w.lives[l.id] = l
		g.sessions[f[1]], g.locals[f[1]], g.current = l.id, ids, f[1]
	case "upgrade":
		if out := plain(request{kind: reqOpen, session: g.sessions[f[1]], timeout: 10_000, password: "pw", ids: g.locals[f[1]]}); out.code == 0 {
			delete(g.locals, f[1])
		}
	case "close":
		plain(request{kind: reqClose, session: g.sessions[f[1]], mark: mark(f[1])})
	case "expire":
		plain(request{kind: reqExpire, session: g.sessions[f[1]], mark: mark(f[1]), term: uint64(g.number(option(f, "term", "1")))})
	case "kill":
		plain(request{kind: reqKill, session: g.sessions[f[1]]})
	case "attach":
		plain(request{kind: reqAttach, session: g.sessions[f[1]], timeout: 5000, password: option(f, "password", "pw"), ids: g.identities(f[2:])})
	case "auth":
		if out := plain(request{kind: reqAuth, session: g.sessions[f[1]], mark: mark(f[1]), ids: g.identities(f[2:])}); out.code == 0 {
			ids := w.session(g.sessions[f[1]]).ids
			w.lives[g.sessions[f[1]]].ids.Store(&ids)
		}
	case "reap":
		token := int64(0)
		if n := w.nodes[f[1]]; n != nil {
			token = int64(n.czxid)
		}
		plain(request{kind: reqReap, path: f[1], token: Token(g.number(option(f, "token", strconv.FormatInt(token, 10)))), term: uint64(g.number(option(f, "term", "1")))})
	case "member":
		plain(request{kind: reqMember, member: memberRecord{id: f[1], storage: f[2], addr: f[3]}})
	case "clients":
		plain(request{kind: reqClients, addr: strings.Join(f[1:], " ")})
	case "config":
		var servers []server
		for _, s := range f[1:] {
			id, role, _ := strings.Cut(s, ":")
			servers = append(servers, server{id, role != "observer"})
		}
		w.configure(servers)
		w.settle()
		g.events()
	case "time":
		w.stamp.now += g.number(strings.TrimPrefix(f[1], "+"))
	case "quota":
		w.stamp.quota = f[1] == "on"
	case "ttl":
		w.stamp.noTTL = f[1] == "off"
	case "restore":
		old := w.state
		w.state = restored(g.t, old)
		w.watches.difference(old, w.state)
		g.events()
	case "stat":
		n := w.nodes[f[1]]
		if n == nil {
			g.print("none")
			return
		}
		g.print("%s", g.stat(n.stat()))
	case "get":
		n := w.nodes[f[1]]
		if n == nil {
			g.print("none")
			return
		}
		for i, line := range strings.Split(printData(n.data, n.null), `\n`) {
			g.print("%s", strings.Repeat("  ", min(i, 1))+line)
		}
	case "ls":
		var names []string
		if n := w.nodes[f[1]]; n != nil {
			childrenAfter(&n.content, f[1], "", func(c *znode) bool {
				names = append(names, printPath(baseName(c.path)))
				return true
			})
		}
		g.print("[%s]", strings.Join(names, " "))
	case "getacl":
		n := w.nodes[f[1]]
		ids := g.locals[g.current]
		if sess := w.session(g.sessions[g.current]); sess != nil {
			ids = sess.ids
		}
		list := aclEntries(n.acl)
		switch {
		case !allowed(n.acl, PermRead|PermAdmin, ids):
			g.print("%s", codeName(ErrNoAuth))
			return
		case !allowed(n.acl, PermAdmin, ids):
			list = maskDigests(list)
		}
		for _, a := range list {
			if a.Perm&^PermAll != 0 {
				g.print("%d %s:%s", a.Perm, a.Scheme, a.ID)
			} else {
				g.print("%v %s:%s", a.Perm, a.Scheme, a.ID)
			}
		}
	case "zxid":
		g.print("%v", w.zxid)
	case "bytes":
		g.print("%d znodes, %d bytes", len(w.nodes), w.bytes)
	case "watch":
		if id := g.sessions[f[1]]; w.session(id) == nil && g.locals[f[1]] == nil {
			g.print("no session")
			return
		}
		r := g.receiver(f[1])
		for _, k := range watchKeys(f[2], f[3]) {
			w.watches.register(r, k.path, k.child, k.mode)
		}
	case "unwatch", "checkwatch":
		r := g.receiver(f[1])
		found := false
		for _, k := range watchKeys(f[2], f[3]) {
			found = w.watches.remove(r, k, f[0] == "checkwatch") || found
		}
		if found {
			g.print("ok")
		} else {
			g.print("%s", codeName(ErrNoWatch))
		}
	case "watches":
		count, _ := w.watches.counts()
		g.print("%d", count)
	default:
		g.txn(g.request(g.op(f)))
	}
}

// stat prints the owner by name: scripts know no session ids.
func (g *script) stat(s stat) string {
	owner := "-"
	for name, id := range g.sessions {
		if id == s.owner {
			owner = name
		}
	}
	return fmt.Sprintf("czxid=%d mzxid=%d pzxid=%d ctime=%d mtime=%d version=%d cversion=%d aversion=%d owner=%s length=%d children=%d",
		s.czxid, s.mzxid, s.pzxid, s.ctime, s.mtime, s.version, s.cversion, s.aversion, owner, s.dataLength, s.numChildren)
}
