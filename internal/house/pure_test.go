// SPDX-License-Identifier: Apache-2.0

package house

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"path/filepath"
	"sync"
	"testing"
)

func reparse(t *testing.T, m *module, f *file) *ast.File {
	t.Helper()
	a, err := parser.ParseFile(m.fset, filepath.Join(m.root, filepath.FromSlash(f.name)), f.src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// checked is the root package with its types.
type checked struct {
	info  *types.Info
	files map[string]*ast.File // product files by name
}

// rootTypes type-checks the root package against what the compiler has left of its imports.
var rootTypes = sync.OnceValue(func() func(*testing.T) *checked {
	var c *checked
	return func(t *testing.T) *checked {
		t.Helper()
		if c != nil {
			return c
		}
		m := source(t)
		got := &checked{files: map[string]*ast.File{}, info: &types.Info{
			Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
		}}
		var files []*ast.File
		for _, f := range m.own(func(f *file) bool { return f.dir == "." && !f.test }) {
			if ok, err := build.Default.MatchFile(m.root, path.Base(f.name)); err != nil || !ok {
				continue
			}
			got.files[f.name] = f.ast
			files = append(files, f.ast)
		}
		config := types.Config{Importer: m.importer(t, ".")}
		if _, err := config.Check(m.path, m.fset, files, got.info); err != nil {
			t.Fatalf("the root package does not type-check: %v", err)
		}
		c = got
		return c
	}
})

// TestPureFiles checks what the imports cannot show: no goroutine, no choice between channels, no map order, no
// floating point, and nothing that one call leaves behind for the next but the state itself.
func TestPureFiles(t *testing.T) {
	m, c := source(t), rootTypes()(t)
	for name := range pureFiles {
		f := c.files[name]
		if f == nil {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: go statement: the state has one writer and no goroutine", m.at(n))
			case *ast.SelectStmt:
				t.Errorf("%s: select: what comes first depends on chance", m.at(n))
			case *ast.SendStmt:
				t.Errorf("%s: send on a channel: the state tells nobody, its caller does", m.at(n))
			case *ast.RangeStmt:
				if rangesMap(c.info.TypeOf(n.X)) {
					t.Errorf("%s: range over a map: its order differs between members", m.at(n))
				}
			case ast.Expr:
				if tv, ok := c.info.Types[n]; ok && tv.Type != nil && isFloat(tv.Type) {
					t.Errorf("%s: floating point differs between architectures", m.at(n))
				}
			}
			return true
		})
	}
}

// rangesMap reports whether ranging over a value of type t goes through a map. Of a type parameter it asks every
// type it may stand for.
func rangesMap(t types.Type) bool {
	if t == nil {
		return false
	}
	if p, ok := types.Unalias(t).(*types.TypeParam); ok {
		if u, ok := p.Constraint().Underlying().(*types.Interface); ok {
			for e := range u.EmbeddedTypes() {
				if rangesMap(e) {
					return true
				}
				if union, ok := e.(*types.Union); ok {
					for term := range union.Terms() {
						if rangesMap(term.Type()) {
							return true
						}
					}
				}
			}
		}
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

func isFloat(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&(types.IsFloat|types.IsComplex) != 0 && b.Info()&types.IsUntyped == 0
}

// TestPureVariables checks that no package-level variable of a pure file is ever changed, by any file.
func TestPureVariables(t *testing.T) {
	m, c := source(t), rootTypes()(t)
	vars := map[types.Object]bool{}
	for name := range pureFiles {
		f := c.files[name]
		if f == nil {
			continue
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for _, id := range v.Names {
					if id.Name == "_" {
						continue
					}
					if len(v.Values) == 0 {
						t.Errorf("%s: %s has no value: it is there to be changed", m.at(id), id.Name)
					}
					vars[c.info.Defs[id]] = true
				}
			}
		}
	}
	for _, f := range c.files {
		changed := func(e ast.Expr) {
			if id := base(e); id != nil && vars[c.info.Uses[id]] {
				t.Errorf("%s: %s is changed: what a pure file depends on must be in the state", m.at(id), id.Name)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					changed(e)
				}
			case *ast.IncDecStmt:
				changed(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					changed(n.Key)
					changed(n.Value)
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					changed(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear" || id.Name == "copy") && len(n.Args) > 0 {
					if _, builtin := c.info.Uses[id].(*types.Builtin); builtin {
						changed(n.Args[0])
					}
				}
			case *ast.SelectorExpr:
				// Calling a pointer's method on a variable takes its address.
				if s := c.info.Selections[n]; s != nil && s.Kind() == types.MethodVal {
					_, pointer := s.Obj().Type().(*types.Signature).Recv().Type().(*types.Pointer)
					_, already := s.Recv().(*types.Pointer)
					if pointer && !already {
						changed(n.X)
					}
				}
			}
			return true
		})
	}
}

// base returns the variable that an expression such as a.b[c] is part of.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
