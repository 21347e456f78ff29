// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits on what a path may be. They bound what one request can cost on every member.
const (
	maxPathBytes = 16 << 10
	maxPathDepth = 512
)

// ValidPath reports whether path names a znode: absolute, without a trailing slash, empty, "." or ".."
// segments, and without the characters ZooKeeper refuses (DM-1 to DM-5). The error is ErrBadArguments.
func ValidPath(path string) error {
	if why := badPath(path); why != "" {
		return &Error{Op: "path", Path: path, Code: ErrBadArguments, Err: pathProblem(why)}
	}
	return nil
}

type pathProblem string

func (p pathProblem) Error() string { return string(p) }

// badPath says what is wrong with path, or nothing.
func badPath(path string) string {
	switch {
	case path == "":
		return "path is empty"
	case path[0] != '/':
		return "path does not start with /"
	case path == "/":
		return ""
	case path[len(path)-1] == '/':
		return "path ends with /"
	case len(path) > maxPathBytes:
		return "path is longer than " + strconv.Itoa(maxPathBytes) + " bytes"
	}
	depth, start := 0, 1
	for i := 1; i <= len(path); {
		if i == len(path) || path[i] == '/' {
			switch path[start:i] {
			case "":
				return "path has an empty segment"
			case ".", "..":
				return "path has a relative segment"
			}
			if depth++; depth > maxPathDepth {
				return "path is deeper than " + strconv.Itoa(maxPathDepth)
			}
			i++
			start = i
			continue
		}
		r, n := rune(path[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(path[i:])
		}
		// DM-4: ZooKeeper tests UTF-16 units, so everything that needs surrogates is refused too.
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
			return "path has an invalid character"
		}
		i += n
	}
	return ""
}

// lightPath is the early check of create and delete (DM-6).
func lightPath(path string) bool {
	return strings.IndexByte(path, '/') >= 0 && strings.IndexByte(path, 0) < 0 && len(path) <= maxPathBytes
}

// parentPath returns everything before the last slash; the root's children have parent "/".
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func joinPath(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// within reports whether path is root or below it.
func within(root, path string) bool {
	return root == "/" || strings.HasPrefix(path, root) && (len(path) == len(root) || path[len(root)] == '/')
}

// sequenceName appends the counter as ten digits, and more once it has outgrown them.
func sequenceName(prefix string, n int64) string {
	d := strconv.FormatInt(n, 10)
	if len(d) < 10 {
		d = "0000000000"[len(d):] + d
	}
	return prefix + d
}

// Sequence returns the counter at the end of a sequential znode's name. It is false where the name does not
// end in at least ten digits.
func Sequence(path string) (seq int64, ok bool) {
	i := len(path)
	for i > 0 && path[i-1] >= '0' && path[i-1] <= '9' {
		i--
	}
	if len(path)-i < 10 {
		return 0, false
	}
	// A digit of the prefix may stand before the counter; only names past ten digits are longer, and those do
	// not start with a zero.
	digits := path[i:]
	if len(digits) > 10 && digits[0] == '0' {
		digits = digits[len(digits)-10:]
	}
	seq, err := strconv.ParseInt(digits, 10, 64)
	return seq, err == nil
}
