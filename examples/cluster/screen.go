// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// screen prints what happens: on a terminal with a last line that is rewritten all the time, elsewhere with a line
// now and then.
type screen struct {
	out   io.Writer
	live  bool
	began time.Time
	shown time.Time
	dirty bool // the cursor is at the end of a line that will be rewritten
}

const (
	seldom  = 2 * time.Second // between status lines where there is no terminal
	columns = 79
)

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		s.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// say prints a line that stays.
func (s *screen) say(format string, args ...any) {
	s.clear()
	fmt.Fprintf(s.out, "%5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// show prints how things are.
func (s *screen) show(status string) {
	switch {
	case s.live:
		s.clear()
		line := fmt.Sprintf("%5.1fs  %s", time.Since(s.began).Seconds(), status)
		fmt.Fprint(s.out, line[:min(len(line), columns)]) // a line that wraps cannot be rewritten
		s.dirty = true
	case time.Since(s.shown) >= seldom:
		s.shown = time.Now()
		s.say("%s", status)
	}
}

func (s *screen) clear() {
	if s.dirty {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.dirty = false
	}
}

// status is the line that is rewritten.
func (d *director) status() string {
	var b strings.Builder
	now := &d.progress
	if now.Total == 0 {
		return "waiting for the first result"
	}
	fmt.Fprintf(&b, "%3d%%  %d/%d, %d queued", now.Results*100/now.Total, now.Results, now.Total, now.Queued)
	for _, c := range d.children {
		mark := ""
		switch {
		case !c.running:
			mark = " down"
		case c.id == d.leader:
			mark = " leads"
		}
		fmt.Fprintf(&b, "  %s %d%s", c.id, c.before+c.mine, mark)
	}
	return b.String()
}
