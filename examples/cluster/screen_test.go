// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Elsewhere than on a terminal there are plain lines, and not too many.
func TestPlainScreen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := newScreen(&out)
		for range 100 { // 10 s
			s.show("status")
			time.Sleep(100 * time.Millisecond)
		}
		s.say("event")
		if n := strings.Count(out.String(), "s  status\n"); n != 5 || !strings.HasSuffix(out.String(), "10.0s  event\n") || strings.ContainsAny(out.String(), "\r\x1b") {
			t.Errorf("%d status lines:\n%q", n, out.String())
		}
	})
}

// On a terminal the last line is rewritten at each change, and never so long that it wraps; other lines stay.
func TestLiveScreen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := newScreen(&out)
		s.live = true
		for range 3 {
			s.show("status " + strings.Repeat("x", 100))
		}
		s.say("event")
		s.show("status")
		s.clear()
		const clear = "\r\x1b[K"
		seen := ""
		for line := range strings.SplitSeq(strings.ReplaceAll(out.String(), clear, "\n"+clear), "\n") {
			if line = strings.TrimPrefix(line, clear); len(line) > columns {
				t.Errorf("%d columns: %q", len(line), line)
			}
			seen += line + "\n"
		}
		if n := strings.Count(out.String(), clear); n != 4 || !regexp.MustCompile(`(?s)^(  0.0s  status x+\n){3}  0.0s  event\n  0.0s  status\n`).MatchString(seen) {
			t.Errorf("%d times rewritten: %q", n, out.String())
		}
	})
}

// What is no terminal is not taken for one.
func TestScreenOfAFile(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if newScreen(f).live {
		t.Error("a file is taken for a terminal")
	}
}
