// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestBindings runs the programs of docs/client-bindings.md as a reader finds them, with another address.
func TestBindings(t *testing.T) {
	text, err := os.ReadFile("../../docs/client-bindings.md")
	if err != nil {
		t.Fatal(err)
	}
	e := open(t)
	row := tried{t, newRow("the programs of [client-bindings.md](client-bindings.md): Java, C, Python, Perl, Node, two in Go")}
	row.row.client, row.row.version = "all bindings", "as above"
	dir := t.TempDir()
	programs := map[string][]string{}
	for _, block := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllSubmatch(text, -1) {
		lang := string(block[1])
		programs[lang] = append(programs[lang], strings.ReplaceAll(string(block[2]), "127.0.0.1:2181", e.members[0].addr))
	}
	// file writes the nth program of a language.
	file := func(t *testing.T, lang string, n int, name string) string {
		t.Helper()
		if len(programs[lang]) <= n {
			t.Fatalf("the page has %d programs in %s", len(programs[lang]), lang)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(programs[lang][n]), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	run := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	for _, tt := range []struct {
		znode string
		run   func(t *testing.T) string
	}{
		{"java", func(t *testing.T) string {
			path := javaClasses(t)
			return run(t, "java", "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", path, file(t, "java", 0, "Hello.java"))
		}},
		{"c", func(t *testing.T) string {
			needFiles(t, "gcc", "/usr/include/zookeeper/zookeeper.h")
			program := filepath.Join(dir, "hello")
			run(t, "gcc", "-Wall", "-Werror", "-o", program, file(t, "c", 0, "hello.c"), "-DTHREADED", "-lzookeeper_mt")
			return run(t, program)
		}},
		{"python", func(t *testing.T) string {
			needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
			return run(t, debianPython, "-B", file(t, "python", 0, "hello.py"))
		}},
		{"perl", func(t *testing.T) string {
			return run(t, "perl", "-Mblib="+perlModule(t), "-w", "-Mstrict", file(t, "perl", 0, "hello.pl"))
		}},
		{"node", func(t *testing.T) string {
			modules := nodeModules(t)
			needFiles(t, "node", filepath.Join(modules, "node-zookeeper-client"))
			t.Setenv("NODE_PATH", modules)
			return run(t, "node", file(t, "js", 0, "hello.js"))
		}},
		{"go", func(t *testing.T) string {
			return run(t, "go", "run", goProgram(t, file(t, "go", 0, "client.go"), "context", "fmt", "log", "github.com/seed-541fafe0/zk", "github.com/seed-541fafe0/zk/wire"))
		}},
		{"gozk", func(t *testing.T) string {
			return run(t, "go", "run", goProgram(t, file(t, "go", 1, "gozk.go"), "context", "fmt", "log", "time", "github.com/go-zookeeper/zk"))
		}},
	} {
		row.run(tt.znode, func(t *testing.T) {
			out := tt.run(t)
			if !strings.Contains(out, "/"+tt.znode+"-00000") {
				t.Errorf("it printed\n%s", out)
			}
		})
	}
}

// goProgram makes a program of a file that holds the body of a function.
func goProgram(t *testing.T, file string, imports ...string) string {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`package main

import (
	"%s"
)

func hello(ctx context.Context) error {
%s}

func main() {
	if err := hello(context.Background()); err != nil {
		log.Fatal(err)
	}
}
`, strings.Join(imports, "\"\n\t\""), body)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
