// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRunTwice(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []string{"/runs/run-0000000000 ", "/runs/run-0000000001 "} {
		var out bytes.Buffer
		if err := run(t.Context(), &out, dir); err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("run %d printed %q, want %q in it", i, out.String(), want)
		}
	}
}

// TestFiveStatements counts what a user has to write for a durable member and a session.
func TestFiveStatements(t *testing.T) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "main.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var begin, end token.Pos
	for _, group := range file.Comments {
		for _, c := range group.List {
			switch c.Text {
			case "// README begin":
				begin = c.Pos()
			case "// README end":
				end = c.Pos()
			}
		}
	}
	if begin == 0 || end < begin {
		t.Fatal("main.go has no README region")
	}
	statements := 0
	ast.Inspect(file, func(n ast.Node) bool {
		block, ok := n.(*ast.BlockStmt)
		if !ok || block.Pos() > begin {
			return true
		}
		for _, s := range block.List {
			if s.Pos() > begin && s.End() < end {
				statements++
			}
		}
		return true
	})
	if statements < 1 || statements > 5 {
		t.Errorf("the README region has %d statements, want at most 5", statements)
	}
}

// TestReadme takes the first Go block of the README. It must begin with the region of main.go, but for indentation
// and the name of the directory, and all of it must compile.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no README.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```go\n")
	if !found {
		t.Fatal("README.md has no Go block")
	}
	block, _, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(string(source), "// README begin\n")
	region, _, _ := strings.Cut(rest, "// README end\n")
	have, want := normal(block), normal(region)
	if len(have) < len(want) || !slices.Equal(have[:len(want)], want) {
		t.Errorf("the first Go block of README.md is\n%s\nand does not begin with\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}

	// The block is compiled as a function that is added to this package for this one build.
	dir := t.TempDir()
	code := "package main\n\nimport (\n\"context\"\n\"github.com/seed-541fafe0/zk\"\n)\n\n" +
		"func readme(ctx context.Context) error {\n" + block + "\nreturn err\n}\n\nvar _ = readme\n"
	added, err := filepath.Abs("readme_block.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{added: filepath.Join(dir, "block.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"block.go": []byte(code), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "quickstart"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("the first Go block of README.md does not compile: %v\n%s", err, out)
	}
}

// normal returns the lines that say something, without indentation and without trailing comments.
func normal(code string) (lines []string) {
	for line := range strings.Lines(code) {
		line, _, _ = strings.Cut(line, " //")
		line = strings.TrimSpace(strings.ReplaceAll(line, `Dir: "data"`, "Dir: dir"))
		if line != "" && !strings.HasPrefix(line, "//") {
			lines = append(lines, line)
		}
	}
	return lines
}
