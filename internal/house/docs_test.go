// SPDX-License-Identifier: Apache-2.0

package house

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	docLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docFence = regexp.MustCompile("(?ms)^```.*?^```$")
	heading  = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	testName = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z]\\w*)`")
)

// docs are the Markdown files of the repository.
func docs(m *module) []string {
	var list []string
	for _, name := range m.texts {
		if path.Ext(name) == ".md" {
			list = append(list, name)
		}
	}
	return list
}

// anchors are what links into a Markdown file can name, as GitHub makes them of its headings.
func anchors(text string) map[string]bool {
	list := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(docFence.ReplaceAllString(text, ""), -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(h[1])) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				b.WriteRune(r)
			}
		}
		list[b.String()] = true
	}
	return list
}

// A link within the repository leads somewhere.
func TestDocsLinks(t *testing.T) {
	m := source(t)
	for _, name := range docs(m) {
		text := m.read(t, name)
		for _, l := range docLink.FindAllStringSubmatch(docFence.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(l[1], "#")
			if strings.Contains(target, ":") {
				continue // elsewhere
			}
			file := name
			if target != "" {
				file = path.Join(path.Dir(name), target)
				if _, err := os.Stat(filepath.Join(m.root, filepath.FromSlash(file))); err != nil {
					t.Errorf("%s: %s is not there", name, l[1])
					continue
				}
			}
			if anchor != "" && !anchors(m.read(t, file))[anchor] {
				t.Errorf("%s: %s has no heading for #%s", name, file, anchor)
			}
		}
	}
}

// Tests that the documents name exist.
func TestDocsTests(t *testing.T) {
	m := source(t)
	known := map[string]bool{}
	for _, f := range m.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				known[fn.Name.Name] = true
			}
		}
	}
	for _, name := range docs(m) {
		for _, ref := range testName.FindAllStringSubmatch(m.read(t, name), -1) {
			if !known[ref[1]] {
				t.Errorf("%s: there is no %s", name, ref[1])
			}
		}
	}
}

// Every row of the table of recipes names a test.
func TestDocsRecipes(t *testing.T) {
	const name, head = "docs/recipes.md", "| recipe | elsewhere | here | tests |\n"
	_, table, ok := strings.Cut(source(t).read(t, name), head)
	if !ok {
		t.Fatalf("%s has no table of recipes", name)
	}
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "|") {
			break
		}
		if strings.HasPrefix(line, "|--") {
			continue
		}
		rows++
		if len(cells) != 4 {
			t.Errorf("%d cells in: %s", len(cells), line)
		} else if !testName.MatchString(cells[3]) {
			t.Errorf("no test shows %s", strings.TrimPrefix(cells[0], "| "))
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}
