// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// programBound is how long a suite may run.
const programBound = 4 * time.Minute

// suite runs a program that is one line of the table.
func suite(t *testing.T, e *ensemble, what, name string, args ...string) {
	t.Helper()
	program(t, e, newRow(what), name, args...)
}

// program runs a program as doc.go says, and counts in row; each of its cases becomes a subtest.
func program(t *testing.T, e *ensemble, row *row, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), programBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var complaints safeBuffer
	cmd.Stderr = &complaints
	cmd.WaitDelay = 5 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		first, reason, _ := strings.Cut(rest, " ")
		switch word {
		case "client":
			row.client, row.version = first, reason
		case "ok":
			row.passed++
			t.Run(first, func(*testing.T) {})
		case "FAIL":
			row.failed++
			t.Run(first, func(t *testing.T) { t.Error(reason) })
		case "skip":
			row.skipped++
			t.Run(first, func(t *testing.T) { t.Skip("SKIPPED: ", reason) })
		case "ask":
			answer := e.answer(ctx, rest)
			t.Logf("%6.2f s: %s: %s", time.Since(began).Seconds(), rest, answer)
			fmt.Fprintln(stdin, answer)
		default:
			t.Log(lines.Text())
		}
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		row.failed++
		t.Errorf("%s: %v", name, err)
	}
	if row.passed+row.failed == 0 {
		t.Error("no case was run")
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("its standard error:\n%s", complaints.String())
	}
}

// answer does what a program asks for.
func (e *ensemble) answer(ctx context.Context, request string) string {
	var text string
	var err error
	switch request {
	case "leader":
		var s *server
		if s, err = e.leader(ctx); err == nil {
			text = s.addr
		}
	case "kill leader":
		text, err = e.killLeader(ctx)
	case "restart":
		text, err = "done", e.restart(ctx)
	default:
		err = fmt.Errorf("unknown request %q", request)
	}
	if err != nil {
		return "error " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return text
}

// row is one line of the table.
type row struct {
	client, version, what   string
	passed, failed, skipped int
}

var table struct {
	mu   sync.Mutex
	rows []*row
}

func newRow(what string) *row {
	r := &row{client: "?", version: "?", what: what}
	table.mu.Lock()
	defer table.mu.Unlock()
	table.rows = append(table.rows, r)
	return r
}

// printTable prints what docs/compatibility.md shows.
func printTable(w io.Writer) {
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.rows) == 0 {
		return
	}
	fmt.Fprintln(w, "| client | version | what was run | passed | failed | skipped |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	var sum row
	for _, r := range table.rows {
		fmt.Fprintf(w, "| %s | %s | %s | %d | %d | %d |\n", r.client, r.version, r.what, r.passed, r.failed, r.skipped)
		sum.passed, sum.failed, sum.skipped = sum.passed+r.passed, sum.failed+r.failed, sum.skipped+r.skipped
	}
	fmt.Fprintf(w, "\nagainst %s: %d passed, %d failed, %d skipped\n", *against, sum.passed, sum.failed, sum.skipped)
}

// compareTable says which row of a whole run the document does not show, and, in CI, which of its rows nothing has
// shown. It may show other versions, since those are what a machine has.
func compareTable(document string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	shown := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 6 && cells[3] != "passed" {
			shown[strings.Join(slices.Delete(cells, 1, 2), " | ")] = true
		}
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	for _, r := range table.rows {
		line := fmt.Sprintf("| %s | %s | %d | %d | %d |", r.client, r.what, r.passed, r.failed, r.skipped)
		if r.skipped == 0 && !shown[line] {
			return fmt.Errorf("%s does not show %s", document, line)
		}
		delete(shown, line)
	}
	for line := range shown {
		if os.Getenv("CI") != "" {
			return fmt.Errorf("%s shows %s, which did not come about", document, line)
		}
	}
	return nil
}

// safeBuffer keeps the end of what a program says while others may read it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const keptOutput = 64 << 10

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Write(p)
	if over := b.b.Len() - keptOutput; over > 0 {
		b.b.Next(over)
	}
	return len(p), nil
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
