// SPDX-License-Identifier: Apache-2.0

package house

import (
	"flag"
	"fmt"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the listings below api/ anew")

// TestAPI compares what each public package exports with its listing, api/NAME.txt: nobody changes the API without
// saying so, and a review shows how.
func TestAPI(t *testing.T) {
	m := source(t)
	var patterns []string
	listed := map[string]bool{}
	for _, dir := range m.packages() {
		if public(m, dir) {
			patterns = append(patterns, "./"+dir)
		}
	}
	from := m.importer(t, patterns...)
	for _, dir := range patterns {
		pkg, err := from.Import(path.Join(m.path, dir))
		if err != nil {
			t.Fatal(err)
		}
		name := "api/" + pkg.Name() + ".txt"
		if listed[name] {
			t.Errorf("two packages are called %s: give one of them another listing", pkg.Name())
		}
		listed[name] = true
		file, now := filepath.Join(m.root, filepath.FromSlash(name)), exported(pkg)
		if *update {
			if err := os.WriteFile(file, []byte(now), 0o666); err != nil {
				t.Error(err)
			}
			continue
		}
		was, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		if string(was) != now {
			t.Errorf("package %s is not what %s says:\n%s%sif that is wanted: go test ./internal/house -run API -update, and say it in CHANGELOG.md",
				pkg.Path(), name, missing("-", string(was), now), missing("+", now, string(was)))
		}
	}
	for _, name := range m.texts {
		if under(name, "api") && !listed[name] {
			t.Errorf("%s is the listing of no public package: remove it", name)
		}
	}
}

// public reports whether programs elsewhere can import the package in dir.
func public(m *module, dir string) bool {
	files := m.own(func(f *file) bool { return f.dir == dir && !f.test })
	return !slices.Contains(strings.Split(dir, "/"), "internal") && !slices.ContainsFunc(files, (*file).isMain)
}

// exported lists what a package exports, sorted: a line for each constant with its value, variable, function and type,
// and below a type one for each field and each method, promoted ones too.
func exported(pkg *types.Package) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s // import %q\n", pkg.Name(), pkg.Path())
	in := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	for _, name := range pkg.Scope().Names() {
		o := pkg.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Const:
			fmt.Fprintf(&b, "const %s %s = %s\n", name, types.TypeString(o.Type(), in), o.Val().ExactString())
		case *types.TypeName:
			writeType(&b, o, in)
		case *types.Func:
			fmt.Fprintf(&b, "func %s%s\n", name, signature(o.Signature(), in))
		default:
			fmt.Fprintln(&b, types.ObjectString(o, in))
		}
	}
	return b.String()
}

func writeType(b *strings.Builder, o *types.TypeName, in types.Qualifier) {
	if o.IsAlias() {
		fmt.Fprintln(b, types.ObjectString(o, in))
		return
	}
	fmt.Fprintf(b, "type %s ", types.TypeString(o.Type(), in))
	switch u := o.Type().Underlying().(type) {
	case *types.Struct:
		fmt.Fprintln(b, "struct")
		writeFields(b, u, in)
	case *types.Interface:
		kind := "interface"
		for f := range u.Methods() {
			if !f.Exported() {
				kind = "interface that this package alone implements"
			}
		}
		fmt.Fprintln(b, kind)
		for e := range u.EmbeddedTypes() {
			if _, isInterface := e.Underlying().(*types.Interface); !isInterface || u.NumMethods() == 0 {
				fmt.Fprintf(b, "\t%s\n", types.TypeString(e, in))
			}
		}
	default:
		fmt.Fprintln(b, types.TypeString(u, in))
	}
	value := types.NewMethodSet(o.Type())
	all := value
	if !types.IsInterface(o.Type()) {
		all = types.NewMethodSet(types.NewPointer(o.Type()))
	}
	for s := range all.Methods() {
		f := s.Obj().(*types.Func)
		if !f.Exported() {
			continue
		}
		receiver := ""
		if value.Lookup(f.Pkg(), f.Name()) == nil {
			receiver = "*"
		}
		fmt.Fprintf(b, "\tfunc (%s%s) %s%s\n", receiver, o.Name(), f.Name(), signature(s.Type().(*types.Signature), in))
	}
}

// signature is what follows a function's name. Results that the compiler has named for its own ends have no name.
func signature(f *types.Signature, in types.Qualifier) string {
	var results []*types.Var
	for v := range f.Results().Variables() {
		if strings.HasPrefix(v.Name(), "#") {
			v = types.NewParam(v.Pos(), v.Pkg(), "", v.Type())
		}
		results = append(results, v)
	}
	text := types.TypeString(types.NewSignatureType(nil, nil, nil, f.Params(), types.NewTuple(results...), f.Variadic()), in)
	list := ""
	for p := range f.TypeParams().TypeParams() {
		list += ", " + p.String() + " " + types.TypeString(p.Constraint(), in)
	}
	if list != "" {
		list = "[" + list[2:] + "]"
	}
	return list + strings.TrimPrefix(text, "func")
}

// writeFields lists the exported fields, and those that a hidden embedded struct lends.
func writeFields(b *strings.Builder, s *types.Struct, in types.Qualifier) {
	for f := range s.Fields() {
		switch inner, isStruct := f.Type().Underlying().(*types.Struct); {
		case f.Exported() && f.Embedded():
			fmt.Fprintf(b, "\t%s\n", types.TypeString(f.Type(), in))
		case f.Exported():
			fmt.Fprintf(b, "\t%s %s\n", f.Name(), types.TypeString(f.Type(), in))
		case f.Embedded() && isStruct:
			writeFields(b, inner, in)
		}
	}
}

// missing lists the lines of a that b does not have, each after the mark.
func missing(mark, a, b string) (list string) {
	have := slices.Collect(strings.Lines(b))
	for line := range strings.Lines(a) {
		if !slices.Contains(have, line) {
			list += mark + line
		}
	}
	return list
}
