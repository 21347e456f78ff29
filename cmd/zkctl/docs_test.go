// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs runs what docs/zkctl.md shows, and compares what it says is printed (DOC-2).
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/zkctl.md")
	must(t, err)
	_, addr := serve(t)
	t.Setenv("ZK_SERVERS", addr)
	t.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	blocks := regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllSubmatch(text, -1)
	if len(blocks) < 2 {
		t.Fatal("the page shows too little")
	}
	for _, b := range blocks {
		for step := range strings.SplitSeq(strings.TrimPrefix(string(b[1]), "$ "), "\n$ ") {
			command, want, _ := strings.Cut(strings.TrimSuffix(step, "\n"), "\n")
			out, err := exec.Command("sh", "-c", command).CombinedOutput()
			if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != want {
				t.Errorf("$ %s\n%s\n%v, want\n%s", command, got, err, want)
			}
		}
	}
	// Every flag of serve is on the page, and every command.
	help := zkctl(t, "", "serve", "--help").out
	for _, flag := range regexp.MustCompile(`(?m)^ +(--[a-z-]+)`).FindAllStringSubmatch(help[:strings.Index(help, "Global Flags")], -1) {
		if !strings.Contains(string(text), "`"+flag[1]) && !strings.Contains(string(text), " "+flag[1]+" ") {
			t.Errorf("docs/zkctl.md does not mention %s", flag[1])
		}
	}
}
