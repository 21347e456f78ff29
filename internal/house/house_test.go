// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"go/ast"
	"go/build"
	"go/doc"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// The tables below are the whole of what may be changed when a file is added or takes on a new task. Each line
// says why; a line that nothing needs any more fails too.

// pureFiles hold the replicated state's transition: the same input gives the same output on every member, for
// ever.
var pureFiles = map[string]string{
	"path.go":     "paths",
	"acl.go":      "permission decisions",
	"op.go":       "operations, results and their bytes",
	"command.go":  "log entries and their bytes",
	"tree.go":     "znodes",
	"version.go":  "old contents for open views",
	"draft.go":    "checks of a transaction's steps",
	"quota.go":    "quotas",
	"state.go":    "the transition",
	"snapshot.go": "the state's bytes",
	"restore.go":  "a backup that takes the place of the state",
}

// raftFiles are all that mention hashicorp/raft, or hclog for its logger. A name that ends in / is a directory.
var raftFiles = map[string]string{
	"fsm.go":              "is raft's state machine",
	"propose.go":          "hands frames to raft",
	"zk.go":               "wires raft to the rest",
	"storage.go":          "opens the log on disk",
	"log.go":              "gives raft a logger",
	"boot.go":             "configures and bootstraps raft",
	"lead.go":             "follows raft's leadership",
	"confirm.go":          "asks raft for its term and commit index",
	"crash.go":            "asks raft whom it follows",
	"membership.go":       "changes raft's configuration",
	"internal/raftnet/":   "is raft's transport",
	"internal/raftstore/": "is raft's store",
	"zktest/disk.go":      "is a store in memory that forgets what was not synced",
}

// diskFiles are all that mention raft-boltdb or bbolt, so that replacing them changes one place.
var diskFiles = map[string]string{
	"storage.go": "opens them",
}

// btreeFiles are all that mention google/btree.
var btreeFiles = map[string]string{
	"tree.go":     "children in order",
	"state.go":    "sessions in order",
	"snapshot.go": "a picture's clone of the sessions",
}

const (
	raftPath  = "github.com/hashicorp/raft"
	boltPath  = "github.com/hashicorp/raft-boltdb"
	bboltPath = "go.etcd.io/bbolt"
	hclogPath = "github.com/hashicorp/go-hclog"
	btreePath = "github.com/google/btree"
)

// maxRootLines bounds the files of the root package: beyond it a file is two concepts.
const maxRootLines = 600

// mentionOnly checks that nothing but the table's files imports any of pkgs, and that each file of the table does.
// Files that do not exist are passed over.
func mentionOnly(t *testing.T, table map[string]string, why string, pkgs ...string) {
	t.Helper()
	m := source(t)
	used, there := map[string]bool{}, map[string]bool{}
	for _, f := range m.own(product) {
		key := f.name
		if _, ok := table[key]; !ok {
			key = f.dir + "/"
		}
		there[key] = true
		for _, p := range pkgs {
			if !f.importsOf(p) {
				continue
			}
			if _, ok := table[key]; !ok {
				t.Errorf("%s imports %s: %s", f.name, p, why)
			}
			used[key] = true
		}
	}
	for name := range table {
		if there[name] && !used[name] {
			t.Errorf("%s is allowed to import %s and does not: take it off the table", name, strings.Join(pkgs, " or "))
		}
	}
}

func TestRaftIsMentionedWhereItBelongs(t *testing.T) {
	mentionOnly(t, raftFiles, "what raft is must not spread; add the file to raftFiles with a reason, or go through those that are there", raftPath, hclogPath)
}

func TestDiskIsMentionedInOnePlace(t *testing.T) {
	mentionOnly(t, diskFiles, "another log store must stay a change of one file", boltPath, boltPath+"/v2", bboltPath)
}

func TestBtreeIsMentionedWhereItBelongs(t *testing.T) {
	mentionOnly(t, btreeFiles, "nothing ordered may come out of a map, and only the state is ordered", btreePath)
}

// TestImports checks who may know of whom.
func TestImports(t *testing.T) {
	m := source(t)
	root := func(f *file) bool { return f.dir == "." }
	in := func(dirs ...string) func(*file) bool {
		return func(f *file) bool {
			return slices.ContainsFunc(dirs, func(d string) bool { return under(f.dir, d) })
		}
	}
	local := func(dirs ...string) func(string) bool {
		return func(imported string) bool {
			dir, ok := m.local(imported)
			return ok && slices.ContainsFunc(dirs, func(d string) bool { return under(dir, d) })
		}
	}
	for _, rule := range []struct {
		why     string
		of      func(*file) bool
		imports func(string) bool
	}{
		{"the root has no idea that they exist", root, local("wire", "admin", "recipes", "zktest", "cmd", "examples")},
		{"the root knows nothing of HTTP", root, func(p string) bool { return under(p, "net/http") }},
		{"what the root rests on does not know it", in("internal/codec", "internal/raftnet", "internal/raftstore"), func(p string) bool {
			dir, ok := m.local(p)
			return ok && !under(dir, "internal")
		}},
		{"a transport imports nothing of ours", in("transport"), func(p string) bool { _, ours := m.local(p); return ours }},
		{"it sees the public API alone", in("recipes", "wire", "admin", "examples", "zktest"), local("internal")},
		{"listener and console do not know each other", in("wire"), local("admin")},
		{"listener and console do not know each other", in("admin"), local("wire")},
		{"recipes know nothing but the root", in("recipes"), func(p string) bool {
			dir, ours := m.local(p)
			return ours && dir != "." && !under(dir, "recipes")
		}},
		{"it belongs to tests: import it from _test.go", product, func(p string) bool {
			return under(p, "github.com/anishathalye/porcupine") || under(p, "pgregory.net/rapid") || under(p, "go.uber.org/goleak")
		}},
	} {
		for _, f := range m.own(product) {
			if !rule.of(f) {
				continue
			}
			for _, p := range f.imports() {
				if rule.imports(p) {
					t.Errorf("%s imports %s: %s", f.name, p, rule.why)
				}
			}
		}
	}
	for _, f := range m.own(product) {
		for _, p := range f.imports() {
			if dir, ok := m.local(p); ok && under(dir, "internal/sim") && !under(f.dir, "internal/sim") {
				t.Errorf("%s imports %s: the simulator belongs to tests", f.name, p)
			}
			if under(p, "testing") && !under(f.dir, "internal/sim") {
				t.Errorf("%s imports %s: the product does not know that it is tested", f.name, p)
			}
		}
	}
}

// TestPureImports checks that the pure files cannot reach a clock, chance, the machine, or another goroutine.
func TestPureImports(t *testing.T) {
	m := source(t)
	for _, f := range m.own(product) {
		if f.dir != "." || pureFiles[f.name] == "" {
			continue
		}
		for _, p := range f.imports() {
			for _, banned := range [...]string{"time", "math/rand", "crypto/rand", "os", "net", "sync", "context", "log", "runtime", "reflect", "maps", "path/filepath", "syscall", "testing", raftPath} {
				if under(p, banned) && p != "net/netip" {
					t.Errorf("%s imports %s: a pure file depends on its input alone, on every member and for ever", f.name, p)
				}
			}
			if dir, ok := m.local(p); ok && dir != "internal/codec" {
				t.Errorf("%s imports %s: of ours a pure file may import internal/codec alone", f.name, p)
			}
		}
	}
}

func TestLicenceLine(t *testing.T) {
	const line = "// SPDX-License-Identifier: Apache-2.0\n\n"
	for _, f := range source(t).files {
		if !bytes.HasPrefix(f.src, []byte(line)) {
			t.Errorf("%s does not begin with %q and an empty line", f.name, strings.TrimSpace(line))
		}
	}
}

func TestFileLength(t *testing.T) {
	for _, f := range source(t).own(product) {
		if n := bytes.Count(f.src, []byte("\n")); f.dir == "." && n > maxRootLines {
			t.Errorf("%s has %d lines, of at most %d: it is more than one concept", f.name, n, maxRootLines)
		}
	}
}

// TestPackageComments checks that each package is introduced, in doc.go; a command may do that in main.go.
func TestPackageComments(t *testing.T) {
	m := source(t)
	for _, dir := range m.packages() {
		found := []string{}
		main := false
		for _, f := range m.own(func(f *file) bool { return f.dir == dir && !f.test }) {
			main = main || f.isMain()
			if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
				found = append(found, path.Base(f.name))
			}
		}
		switch {
		case len(found) == 0:
			t.Errorf("package %s has no package comment", dir)
		case len(found) > 1:
			t.Errorf("package %s has package comments in %s: one is enough", dir, strings.Join(found, " and "))
		case found[0] != "doc.go" && !(main && found[0] == "main.go"):
			t.Errorf("package %s has its package comment in %s: readers look for it in doc.go", dir, found[0])
		}
	}
}

// TestDocComments checks that every exported symbol of a public package says what it is.
func TestDocComments(t *testing.T) {
	m := source(t)
	for _, dir := range m.packages() {
		if slices.ContainsFunc(strings.Split(dir, "/"), func(s string) bool { return s == "internal" || s == "examples" || s == "cmd" }) {
			continue
		}
		// doc.NewFromFiles takes the syntax trees apart: give it its own, with all functions of the package.
		var files []*ast.File
		for _, f := range m.own(func(f *file) bool { return f.dir == dir && !f.test && !f.isMain() }) {
			if ok, err := build.Default.MatchFile(m.root+"/"+f.dir, path.Base(f.name)); err == nil && ok {
				files = append(files, reparse(t, m, f))
			}
		}
		if len(files) == 0 {
			continue
		}
		p, err := doc.NewFromFiles(m.fset, files, m.path+"/"+dir, doc.PreserveAST)
		if err != nil {
			t.Fatal(err)
		}
		missing := func(n ast.Node, what string) {
			t.Errorf("%s: %s has no doc comment", m.at(n), what)
		}
		funcs := func(list []*doc.Func, of string) {
			for _, f := range list {
				if f.Doc == "" {
					missing(f.Decl, of+f.Name)
				}
			}
		}
		values := func(list []*doc.Value) {
			for _, v := range list {
				undocumented(v.Decl, func(id *ast.Ident) { missing(id, id.Name) })
			}
		}
		values(p.Consts)
		values(p.Vars)
		funcs(p.Funcs, "")
		for _, ty := range p.Types {
			if ty.Doc == "" && !specDoc(ty.Decl) {
				missing(ty.Decl, ty.Name)
			}
			values(ty.Consts)
			values(ty.Vars)
			funcs(ty.Funcs, "")
			funcs(ty.Methods, ty.Name+".")
		}
	}
}

// undocumented calls fn for the exported names of a group that neither the group nor their own line explains.
func undocumented(d *ast.GenDecl, fn func(*ast.Ident)) {
	if d.Doc != nil {
		return
	}
	for _, s := range d.Specs {
		v, ok := s.(*ast.ValueSpec)
		if !ok || v.Doc != nil || v.Comment != nil {
			continue
		}
		for _, id := range v.Names {
			if id.IsExported() {
				fn(id)
			}
		}
	}
}

func specDoc(d *ast.GenDecl) bool {
	for _, s := range d.Specs {
		if ts, ok := s.(*ast.TypeSpec); ok && ts.Doc == nil && ts.Comment == nil {
			return false
		}
	}
	return d.Tok == token.TYPE && len(d.Specs) > 0
}
