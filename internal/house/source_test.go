// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// file is one Go file of the repository.
type file struct {
	name   string // slash-separated, from the module's root
	dir    string // "." for the root package
	test   bool   // *_test.go
	nested bool   // in a module of its own
	src    []byte
	ast    *ast.File
}

// imports lists what the file imports.
func (f *file) imports() []string {
	var list []string
	for _, s := range f.ast.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		list = append(list, p)
	}
	return list
}

// importsOf reports the import of pkg itself or of a package below it.
func (f *file) importsOf(pkg string) bool {
	return slices.ContainsFunc(f.imports(), func(p string) bool { return under(p, pkg) })
}

// isMain reports whether the file belongs to a command.
func (f *file) isMain() bool { return f.ast.Name.Name == "main" }

// under reports whether p is dir or below it.
func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// module is the repository as it lies on disk.
type module struct {
	root  string // directory
	path  string // import path
	fset  *token.FileSet
	files []*file
	texts []string // names of all other files
}

var load = sync.OnceValues(func() (*module, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	m := &module{root: root, fset: token.NewFileSet()}
	for line := range strings.Lines(string(mod)) {
		if p, ok := strings.CutPrefix(line, "module "); ok {
			m.path = strings.TrimSpace(p)
		}
	}
	var nested []string
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && name != "." {
				nested = append(nested, name)
			}
			return nil
		}
		if path.Ext(name) != ".go" || slices.Contains(strings.Split(name, "/"), "testdata") {
			m.texts = append(m.texts, name)
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f := &file{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), src: src}
		f.nested = slices.ContainsFunc(nested, func(dir string) bool { return under(f.dir, dir) })
		if f.ast, err = parser.ParseFile(m.fset, p, src, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		m.files = append(m.files, f)
		return nil
	})
	return m, err
})

func source(t *testing.T) *module {
	t.Helper()
	m, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// own lists the files of the root module that keep accepts.
func (m *module) own(keep func(*file) bool) []*file {
	var list []*file
	for _, f := range m.files {
		if !f.nested && keep(f) {
			list = append(list, f)
		}
	}
	return list
}

func product(f *file) bool { return !f.test }

// local maps an import path to a directory of the module.
func (m *module) local(imported string) (dir string, ok bool) {
	if imported == m.path {
		return ".", true
	}
	return strings.CutPrefix(imported, m.path+"/")
}

// read returns a text file of the repository.
func (m *module) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// at says where a node is, for a message.
func (m *module) at(n ast.Node) string {
	p := m.fset.Position(n.Pos())
	name, err := filepath.Rel(m.root, p.Filename)
	if err != nil {
		name = p.Filename
	}
	return filepath.ToSlash(name) + ":" + strconv.Itoa(p.Line)
}

// run returns what the go command prints. What it complains of is only shown when it fails.
func (m *module) run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = m.root
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Env = append(cmd.Env, env...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, complaints.String())
	}
	return string(out)
}

// importer imports what the compiler has left of packages, named as patterns of the go command, and of all they import.
func (m *module) importer(t *testing.T, patterns ...string) types.Importer {
	t.Helper()
	exports := map[string]string{}
	args := append([]string{"list", "-e", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}}\t{{.Export}}{{end}}"}, patterns...)
	for line := range strings.Lines(m.run(t, nil, args...)) {
		if p, export, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			exports[p] = export
		}
	}
	return importer.ForCompiler(m.fset, "gc", func(p string) (io.ReadCloser, error) {
		name, ok := exports[p]
		if !ok {
			return nil, os.ErrNotExist
		}
		return os.Open(name)
	})
}

// packages lists the directories of the root module that hold packages, of those named if any are.
func (m *module) packages(dirs ...string) []string {
	var list []string
	for _, f := range m.own(product) {
		if !slices.Contains(list, f.dir) && (len(dirs) == 0 || slices.Contains(dirs, f.dir)) {
			list = append(list, f.dir)
		}
	}
	return list
}
