// SPDX-License-Identifier: Apache-2.0

package house

import (
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"
)

// required are the modules that go.mod may require directly, and who needs them.
var required = map[string]string{
	"github.com/hashicorp/raft":           "consensus",
	"github.com/hashicorp/raft-boltdb/v2": "the log on disk",
	"github.com/hashicorp/go-hclog":       "the interface of raft's logger",
	"github.com/google/btree":             "ordered children",
	"go.etcd.io/bbolt":                    "raft-boltdb alone would select a release of 2020",
	"github.com/klauspost/compress":       "snapshots, from the day they are compressed",
	"pgregory.net/rapid":                  "tests",
	"github.com/anishathalye/porcupine":   "tests",
	"go.uber.org/goleak":                  "tests",
}

// linkedMax is how many modules a program that imports zk and recipes may link in.
const linkedMax = 18

func TestDirectRequirements(t *testing.T) {
	m := source(t)
	m.read(t, "go.mod") // so that a change of it makes a cached result void
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	if err := json.Unmarshal([]byte(m.run(t, nil, "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && required[r.Path] == "" {
			t.Errorf("go.mod requires %s: every importer gets it; add it to required with a reason, or do without", r.Path)
		}
	}
	if len(mod.Replace) > 0 {
		t.Error("go.mod has a replace: importers do not see it")
	}
}

// TestLinkedModules compares what is linked in, on any system, with the list.
func TestLinkedModules(t *testing.T) {
	m := source(t)
	m.read(t, "go.mod")
	const list = "internal/house/allowed-modules.txt"
	allowed := map[string]bool{}
	for line := range strings.Lines(m.read(t, list)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			t.Errorf("%s: %s has no reason", list, name)
		}
		allowed[name] = true
	}
	args := []string{"list", "-e", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}"}
	for _, dir := range m.packages(".", "recipes") {
		args = append(args, "./"+dir)
	}
	linked := map[string]bool{}
	for _, system := range [...]string{"linux", "darwin", "windows"} {
		for name := range strings.FieldsSeq(m.run(t, []string{"GOOS=" + system, "GOARCH=amd64", "CGO_ENABLED=0"}, args...)) {
			if name != m.path {
				linked[name] = true
			}
		}
	}
	for name := range linked {
		if !allowed[name] {
			t.Errorf("%s is linked in and not in %s", name, list)
		}
	}
	for name := range allowed {
		if !linked[name] {
			t.Errorf("%s is in %s and not linked in", name, list)
		}
	}
	if len(linked) > linkedMax {
		t.Errorf("%d modules are linked in, of at most %d", len(linked), linkedMax)
	}
	t.Logf("%d modules are linked into a program that imports zk and recipes, of at most %d", len(linked), linkedMax)
}

// TestNoUnwantedPackages names what must not come in by any way, in any of our own files.
func TestNoUnwantedPackages(t *testing.T) {
	m := source(t)
	for _, f := range m.own(func(f *file) bool { return true }) {
		for _, p := range f.imports() {
			first, _, _ := strings.Cut(p, "/")
			if _, ours := m.local(p); ours || !strings.Contains(first, ".") {
				continue
			}
			if !slices.ContainsFunc([]string{p, path.Dir(p), path.Dir(path.Dir(p))}, func(p string) bool { return required[p] != "" }) {
				t.Errorf("%s imports %s, which go.mod must not require directly", f.name, p)
			}
		}
	}
}
