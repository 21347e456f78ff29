// SPDX-License-Identifier: Apache-2.0

package house

import (
	"cmp"
	"fmt"
	"go/scanner"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	specDir     = "docs/spec/"
	uncitedFile = specDir + "uncited.md"
	designFile  = "docs/design.md"
)

var (
	// ruleRow is where docs/spec defines a rule: the first cell of a row of a table.
	ruleRow = regexp.MustCompile(`(?m)^\| ([A-Z0-9]+-[A-Z]?\d+|[A-Z]\d{1,2}|REENT-S\d) \|`)

	// decisionRow is where docs/design.md defines a decision.
	decisionRow = regexp.MustCompile(`(?m)^\| (D\d+) \|`)

	// citation is one rule, or a run of them: DM-12, DM-12 to DM-14, P9–P12.
	citation = regexp.MustCompile(`\b((?:DM|WT|SS|CG|WP|TR|OP|PEER)-|HELD-[SL]|REENT-S|LOCK-[SL]|RW-[SL]|MULTI-[SL]|SEM-[SL]|REV-[SL]|TL-S|ELEC-[SL]|LATCH-S|CNT-[SL]|VAL-[SL]|STM-[SL]|CACHE-[SL]|PRES-[SL]|GRP-[SL]|PART-[SL]|REG-[SL]|2PC-[SL]|SCHEMA-S|MODEL-S|MIG-[SL]|BAR-[SL]|DB-[SL]|Q-[SL]|[PE])(\d+)\b(?:(?: to |[-–…])(?:\b((?:DM|WT|SS|CG|WP|TR|OP|PEER)-|HELD-[SL]|LOCK-[SL]|RW-[SL]|MULTI-[SL]|SEM-[SL]|REV-[SL]|TL-S|ELEC-[SL]|LATCH-S|CNT-[SL]|VAL-[SL]|STM-[SL]|CACHE-[SL]|PRES-[SL]|GRP-[SL]|PART-[SL]|REG-[SL]|2PC-[SL]|SCHEMA-S|MODEL-S|MIG-[SL]|BAR-[SL]|DB-[SL]|Q-[SL]|[PE]))?(\d+)\b)?`)

	decision = regexp.MustCompile(`\bD(\d{1,2})\b`)
)

// cites lists the rules that a text names.
func cites(text string) []string {
	var list []string
	for _, c := range citation.FindAllStringSubmatch(text, -1) {
		family, from := c[1], c[2]
		if len(family) == 1 && len(from) > 2 { // the curve P256, the character U+E000
			continue
		}
		list = append(list, family+from)
		first, _ := strconv.Atoi(from)
		last, _ := strconv.Atoi(c[4])
		if c[4] == "" || c[3] != "" && c[3] != family || last-first > 200 {
			continue
		}
		for n := first + 1; n <= last; n++ {
			list = append(list, fmt.Sprintf("%s%0*d", family, len(from), n))
		}
	}
	return list
}

// words returns the comments and strings of a Go file: P4 as a variable cites nothing.
func words(f *file) string {
	var b strings.Builder
	var s scanner.Scanner
	fset := token.NewFileSet()
	s.Init(fset.AddFile(f.name, fset.Base(), len(f.src)), f.src, nil, scanner.ScanComments)
	for {
		_, tok, lit := s.Scan()
		if tok == token.EOF {
			return b.String()
		}
		if tok == token.COMMENT || tok == token.STRING {
			b.WriteString(lit)
			b.WriteByte('\n')
		}
	}
}

// rules returns the rules that docs/spec defines, and the file of each.
func rules(t *testing.T, m *module) map[string]string {
	t.Helper()
	defined := map[string]string{}
	for _, name := range m.texts {
		if path.Dir(name)+"/" != specDir || path.Ext(name) != ".md" || name == uncitedFile {
			continue
		}
		for _, row := range ruleRow.FindAllStringSubmatch(m.read(t, name), -1) {
			if before := defined[row[1]]; before != "" {
				t.Errorf("%s is defined in %s and again in %s", row[1], before, name)
			}
			defined[row[1]] = name
		}
	}
	if len(defined) == 0 {
		t.Fatalf("%s defines no rules", specDir)
	}
	return defined
}

func family(rule string) string { return strings.TrimRight(rule, "0123456789") }

func byRule(a, b string) int {
	if c := cmp.Compare(family(a), family(b)); c != 0 {
		return c
	}
	x, _ := strconv.Atoi(a[len(family(a)):])
	y, _ := strconv.Atoi(b[len(family(b)):])
	return x - y
}

// TestCited counts the rules of docs/spec that tests and golden scripts cite. A rule that none cites must have its
// reason in uncited.md. The numbers:
//
//	go test ./internal/house -run Cited -v
func TestCited(t *testing.T) {
	m := source(t)
	defined := rules(t, m)
	cited := map[string][]string{} // rule: files
	note := func(name, text string) {
		for _, r := range cites(text) {
			if defined[r] != "" && !slices.Contains(cited[r], name) {
				cited[r] = append(cited[r], name)
			}
		}
	}
	for _, f := range m.files {
		if f.test && f.dir != "internal/house" {
			note(f.name, words(f))
		}
	}
	for _, name := range m.texts {
		if path.Ext(name) == ".txt" && slices.Contains(strings.Split(path.Dir(name), "/"), "testdata") {
			note(name, m.read(t, name))
		}
	}

	reasons := map[string]string{}
	for line := range strings.Lines(m.read(t, uncitedFile)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 {
			continue
		}
		reason := strings.TrimSpace(cells[2])
		for _, r := range cites(cells[1]) {
			switch {
			case defined[r] == "":
				t.Errorf("%s: %s is not defined in %s", uncitedFile, r, specDir)
			case reason == "":
				t.Errorf("%s: %s has no reason", uncitedFile, r)
			case reasons[r] != "":
				t.Errorf("%s: %s is there twice", uncitedFile, r)
			case cited[r] != nil:
				t.Errorf("%s: %s is cited, by %s: take it off", uncitedFile, r, cited[r][0])
			}
			reasons[r] = cmp.Or(reason, "-")
		}
	}

	total, have := map[string]int{}, map[string]int{}
	var open []string
	for _, r := range slices.SortedFunc(maps.Keys(defined), byRule) {
		fam := family(r)
		total[fam]++
		switch {
		case cited[r] != nil:
			have[fam]++
		case reasons[r] == "":
			open = append(open, r)
		default:
			t.Logf("uncited: %s: %s", r, reasons[r])
		}
	}
	sum, all := 0, 0
	for _, fam := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%-8s %3d of %3d rules are cited by a test", strings.TrimSuffix(fam, "-"), have[fam], total[fam])
		sum, all = sum+have[fam], all+total[fam]
	}
	t.Logf("%-8s %3d of %3d", "all", sum, all)
	if len(open) > 0 {
		t.Errorf("%d rules are cited by no test and have no reason in %s:\n%s", len(open), uncitedFile, strings.Join(open, " "))
	}
}

// TestCitationsExist checks that what comments and tests cite can be looked up: rules in docs/spec, decisions in
// docs/design.md.
func TestCitationsExist(t *testing.T) {
	m := source(t)
	defined := rules(t, m)
	decided := map[string]bool{}
	for _, row := range decisionRow.FindAllStringSubmatch(m.read(t, designFile), -1) {
		if decided[row[1]] {
			t.Errorf("%s: %s is there twice", designFile, row[1])
		}
		decided[row[1]] = true
	}
	check := func(name, text string) {
		for _, r := range cites(text) {
			if defined[r] == "" {
				t.Errorf("%s cites %s, which %s does not define", name, r, specDir)
			}
		}
		for _, d := range decision.FindAllString(text, -1) {
			if !decided[d] {
				t.Errorf("%s cites %s, which %s does not define", name, d, designFile)
			}
		}
	}
	for _, f := range m.files {
		if f.dir == "internal/house" {
			continue
		}
		var comments strings.Builder
		for _, g := range f.ast.Comments {
			comments.WriteString(g.Text() + "\n")
		}
		check(f.name, comments.String())
	}
	for _, name := range m.texts {
		if strings.HasPrefix(name, "docs/") && path.Ext(name) == ".md" {
			check(name, m.read(t, name))
		}
	}
}

// TestCitesItself keeps the reading of citations honest.
func TestCitesItself(t *testing.T) {
	for text, want := range map[string]string{
		"DM-12":                     "DM-12",
		"(DM-12 to DM-14)":          "DM-12 DM-13 DM-14",
		"WT-20…22, P9–P11":          "WT-20 WT-21 WT-22 P9 P10 P11",
		"PEER-01 and HELD-S3, P256": "PEER-01 HELD-S3",
		"LOCK-S1 to LOCK-S3":        "LOCK-S1 LOCK-S2 LOCK-S3",
		"XP4 UP-4":                  "",
		"PEER-08 to PEER-11":        "PEER-08 PEER-09 PEER-10 PEER-11",
		"OP-30 to OP-32":            "OP-30 OP-31 OP-32",
	} {
		if got := strings.Join(cites(text), " "); got != want {
			t.Errorf("cites(%q) = %q, want %q", text, got, want)
		}
	}
}
