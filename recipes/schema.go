// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/seed-541fafe0/zk"
)

// Schema says what may be where in the tree: which znodes are ephemeral or numbered, which are watched, which are not to be
// deleted, and what their data looks like. Validate checks a step; On puts the schema before a session.
//
// Layout: none; it works on any znodes. Kept in one, with the codec SchemaJSON and a Value, it is what Curator's
// SchemaSetLoader reads, and the other way round.
//
// Cost: none but the caller's time. An exact path is found at once; patterns are tried one after the other.
//
// It is enforced by those who use it, not by the ensemble: programs without it, and access control lists, know nothing of it.
// Steps are checked before they are sent, each by itself, with the path as the caller gives it: that of a numbered znode is
// without its number, and parents that zk.Parents makes are not looked at. All methods are safe for concurrent use.
type Schema struct {
	noCopy noCopy

	// Rules are not changed after the first call. A rule for an exact path goes before patterns, which go in their order.
	Rules []Rule

	// Closed refuses changes of znodes that no rule is for, and watches of them.
	Closed bool

	once     sync.Once
	exact    map[string]*Rule
	patterns []patternRule
	err      error // of the rules
}

type patternRule struct {
	re   *regexp.Regexp
	rule *Rule
}

// Allowance says, in a Rule, whether a znode or a read may be of some kind.
type Allowance uint8

const (
	// Can leaves it to the caller: both are allowed. It is the default.
	Can Allowance = iota
	// Must refuses what is not of the kind: a create that is not ephemeral or has no number, a read without a watch.
	Must
	// Cannot refuses what is of the kind: an ephemeral or a numbered create, a watch.
	Cannot
)

// String returns "can", "must" or "cannot".
func (a Allowance) String() string {
	if a <= Cannot {
		return [...]string{"can", "must", "cannot"}[a]
	}
	return "unknown"
}

// MarshalText is String; an unknown allowance is an error.
func (a Allowance) MarshalText() ([]byte, error) {
	if a > Cannot {
		return nil, errAllowance
	}
	return []byte(a.String()), nil
}

// UnmarshalText understands what MarshalText returns, in any case.
func (a *Allowance) UnmarshalText(b []byte) error {
	i := slices.Index([]string{"can", "must", "cannot"}, strings.ToLower(string(b)))
	if i < 0 {
		return errAllowance
	}
	*a = Allowance(i)
	return nil
}

var errAllowance = errors.New("neither can, must nor cannot")

// Rule is what a Schema says about some paths. The zero Rule, but for its Pattern, allows everything.
type Rule struct {
	// Pattern is a path in which a name in braces, as in /app/{tenant}/conf, stands for any one name, a star within a name for
	// anything, and /** at the end for everything below. With Regexp it is a regular expression that has to match the whole path.
	Pattern string
	Regexp  bool

	Ephemeral  Allowance // of creates
	Sequential Allowance // of creates
	Watched    Allowance // Must: reads without a watch are refused
	NoDelete   bool

	// Check, if not nil, says what is wrong with data that is to be written; nil stands for null. It is called on the caller's
	// goroutine, by several at once. Its error is wrapped in a *SchemaError.
	Check func(path string, data []byte) error

	// For documents and for SchemaJSON.
	Name      string // unique, where it is not empty
	Validator string // by which Check is found
	Doc       string
	Metadata  map[string]string
}

func (r *Rule) title() string {
	switch {
	case r == nil:
		return ""
	case r.Name != "":
		return r.Name
	}
	return r.Pattern
}

// SchemaError reports what is against a Schema. Nothing was sent.
type SchemaError struct {
	Op   string // what was to be done
	Path string
	Rule string // the rule's name, or its pattern; "" if there is none for Path
	Err  error  // what is wrong; that of Rule.Check, if it was that
}

// Error names the step, the path and the rule.
func (e *SchemaError) Error() string {
	if e.Rule == "" {
		return fmt.Sprintf("recipes: %s %s: %v", e.Op, e.Path, e.Err)
	}
	return fmt.Sprintf("recipes: %s %s: against rule %q: %v", e.Op, e.Path, e.Rule, e.Err)
}

// Unwrap returns what is wrong.
func (e *SchemaError) Unwrap() error { return e.Err }

var (
	errNoRule     = errors.New("no rule is for this path")
	errNoDelete   = errors.New("it is not to be deleted")
	errWatched    = errors.New("it is not to be watched")
	errNotWatched = errors.New("it is to be watched")
)

// compile prepares the rules.
func (x *Schema) compile() error {
	x.once.Do(func() {
		x.exact = map[string]*Rule{}
		names, patterns := map[string]bool{}, map[string]bool{}
		for i := range x.Rules {
			r := &x.Rules[i]
			if names[r.Name] || patterns[r.Pattern] || max(r.Ephemeral, r.Sequential, r.Watched) > Cannot {
				x.err = badArgument("schema", r.Pattern, "a name or a pattern that is there twice, or an unknown allowance")
				return
			}
			names[r.Name], patterns[r.Pattern] = r.Name != "", true
			if !r.Regexp && exact(r.Pattern) {
				if x.err = zk.ValidPath(r.Pattern); x.err != nil {
					return
				}
				x.exact[r.Pattern] = r
				continue
			}
			text, err := r.Pattern, error(nil)
			if !r.Regexp {
				text, err = expression(r.Pattern)
			}
			var re *regexp.Regexp
			if err == nil {
				re, err = whole(text)
			}
			if err != nil {
				x.err = badArgument("schema", r.Pattern, err.Error())
				return
			}
			x.patterns = append(x.patterns, patternRule{re, r})
		}
	})
	return x.err
}

// rule finds the rule for a path: nil if there is none, which is an error if the schema is closed.
func (x *Schema) rule(op, path string) (*Rule, error) {
	if err := x.compile(); err != nil {
		return nil, err
	}
	if r := x.exact[path]; r != nil {
		return r, nil
	}
	for _, p := range x.patterns {
		if p.re.MatchString(path) {
			return p.rule, nil
		}
	}
	if x.Closed {
		return nil, &SchemaError{Op: op, Path: path, Err: errNoRule}
	}
	return nil, nil
}

// Validate says whether a step may be done: nil, a *SchemaError, or zk.ErrBadArguments for a schema that is wrong in itself.
// Steps that change no data and delete nothing always may.
func (x *Schema) Validate(op zk.Op) error { return x.validate(op, op.Path()) }

// validate is Validate of a step at another path than its own.
func (x *Schema) validate(op zk.Op, path string) error {
	switch op.Name() {
	case "create", "set", "delete":
	default:
		return x.compile()
	}
	r, err := x.rule(op.Name(), path)
	if r == nil || err != nil {
		return err
	}
	if err := r.allows(op, path); err != nil {
		return &SchemaError{Op: op.Name(), Path: path, Rule: r.title(), Err: err}
	}
	return nil
}

func (r *Rule) allows(op zk.Op, path string) error {
	switch op.Name() {
	case "delete":
		if r.NoDelete {
			return errNoDelete
		}
		return nil
	case "create":
		for _, is := range []struct {
			what    string
			allowed Allowance
			is      bool
		}{{"ephemeral", r.Ephemeral, op.Mode()&zk.Ephemeral != 0}, {"sequential", r.Sequential, op.Mode()&zk.Sequential != 0}} {
			if is.allowed == Must && !is.is || is.allowed == Cannot && is.is {
				return fmt.Errorf("it %v be %s", is.allowed, is.what)
			}
		}
	}
	if r.Check == nil {
		return nil
	}
	return r.Check(path, op.Data())
}

// ValidateRead is Validate for a read, with a watch or without one.
func (x *Schema) ValidateRead(path string, watch bool) error {
	r, err := x.rule("read", path)
	if !watch && err != nil { // what is read changes nothing
		return x.err
	}
	if r == nil || err != nil {
		return err
	}
	switch {
	case watch && r.Watched == Cannot:
		err = errWatched
	case !watch && r.Watched == Must:
		err = errNotWatched
	default:
		return nil
	}
	return &SchemaError{Op: "read", Path: path, Rule: r.title(), Err: err}
}
