// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"errors"
	"regexp"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// A pattern is a path in which a name in braces, as in /app/{tenant}/conf, stands for any one name, a star within a name for
// anything, and /** at the end for everything below.

// slotName reports whether a name of a pattern stands for any one name.
func slotName(name string) bool {
	return len(name) > 2 && name[0] == '{' && name[len(name)-1] == '}'
}

// exact reports whether a pattern is the path of one znode.
func exact(pattern string) bool {
	for name := range strings.SplitSeq(pattern, "/") {
		if slotName(name) || strings.Contains(name, "*") {
			return false
		}
	}
	return true
}

// expression turns a pattern into a regular expression for whole paths, which means the same in Go and in Java.
func expression(pattern string) (string, error) {
	if err := zk.ValidPath(pattern); err != nil {
		return "", err
	}
	var b strings.Builder
	names := strings.Split(pattern, "/")[1:]
	for i, name := range names {
		b.WriteByte('/')
		switch {
		case name == "**" && i == len(names)-1:
			b.WriteString(".+")
		case strings.Contains(name, "**"):
			return "", errors.New("** is not the last name")
		case slotName(name):
			b.WriteString("[^/]+")
		default:
			b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(name), `\*`, "[^/]*"))
		}
	}
	return b.String(), nil
}

// whole compiles a regular expression that has to match all of a path.
func whole(expression string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expression); err != nil { // by itself, so that no parenthesis of it closes ours
		return nil, err
	}
	return regexp.Compile("^(?:" + expression + ")$")
}
