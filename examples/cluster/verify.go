// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// verify counts everything again, in this process and without zk, prints the table, and returns an error if anything
// differs.
func (d *director) verify(ctx context.Context, took time.Duration) error {
	began := time.Now()
	truth := make([]Counts, len(d.files))
	var total Counts
	for i, file := range d.files {
		if i%100 == 0 {
			d.screen.show(fmt.Sprintf("counting again in one process: %d of %d files", i, len(d.files)))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		c, err := count(d.dir, file)
		if err != nil {
			return err
		}
		truth[i] = c
		total.add(c)
	}
	recount := time.Since(began)

	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var sum Counts
	redelivered, doubled := 0, d.doubled
	by := map[string]Counts{}
	seen := make([]bool, len(d.files))
	for _, r := range d.results {
		r.Files = 1
		sum.add(r.Counts)
		line := by[r.By]
		line.add(r.Counts)
		by[r.By] = line
		if r.Again {
			redelivered++
		}
		switch {
		case r.N < 0 || r.N >= len(d.files) || r.File != d.files[r.N]:
			fault("result %d is of %s, which is not that file of the directory", r.N, r.File)
		case seen[r.N]:
			doubled++
		default:
			seen[r.N] = true
			if r.Counts != truth[r.N] {
				fault("%s: the result is %s, counted again it is %s", r.File, r.Counts, truth[r.N])
			}
		}
	}
	lost := 0
	for i, ok := range seen {
		if !ok {
			lost++
			fault("%s: no result", d.files[i])
		}
	}
	if doubled > 0 {
		fault("%d results were recorded twice", doubled)
	}
	if sum != total {
		fault("the results sum up to %s, counted again they are %s", sum, total)
	}
	for id, c := range by {
		if d.report[id].Counts != c {
			fault("the shared report has %s for %s, its results are %s", d.report[id].Counts, id, c)
		}
	}

	updates := 0
	for _, line := range d.report {
		updates += line.Updates
	}

	d.screen.clear()
	var b strings.Builder
	row := func(name string, value any) { fmt.Fprintf(&b, "  %-46s%10v\n", name, value) }
	row("files", len(d.files))
	row("results", len(d.results))
	for _, c := range d.children {
		note := ""
		if c == d.victim {
			note = ", which was killed and started again"
		}
		row("  by "+c.id+note, by[c.id].Files)
	}
	row("lines", sum.Lines)
	row("words", sum.Words)
	row("identifiers", sum.Idents)
	if d.kill {
		row("from the kill to the next acknowledged write", d.gap.Round(time.Millisecond))
	}
	row("redeliveries", redelivered)
	row("results doubled", doubled)
	row("results lost", lost)
	row("updates of the shared report", updates)
	row("from start to end", took.Round(10*time.Millisecond))
	row("to count again in one process", recount.Round(10*time.Millisecond))
	fmt.Fprintf(d.screen.out, "\n%s\n", b.String())
	if len(faults) == 0 {
		fmt.Fprintln(d.screen.out, "Counted again, everything is the same.")
		return nil
	}
	const most = 10
	more := ""
	if n := len(faults) - most; n > 0 {
		more = fmt.Sprintf("\n  and %d more", n)
		faults = faults[:most]
	}
	return fmt.Errorf("the results are wrong:\n  %s%s", strings.Join(faults, "\n  "), more)
}

// String names the figures.
func (c Counts) String() string {
	return fmt.Sprintf("%d files, %d lines, %d words, %d identifiers", c.Files, c.Lines, c.Words, c.Idents)
}
