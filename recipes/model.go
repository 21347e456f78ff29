// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/seed-541fafe0/zk"
)

// Model is a family of typed znodes: all those whose paths fit a template such as /app/{tenant}/conf have values of one type.
// It is a plain value; copies are as good.
//
// Layout: the znodes themselves, persistent, with what the codec makes of a value. Curator's ModeledFramework with a
// JacksonModelSerializer reads and writes the same bytes, if its ModelSpec does not compress them.
//
// Cost: Get and All are local reads; Put is one write. What more can be done with one of them, such as Update and Watch, costs
// what it costs with a Value.
//
// What is read is what this member knows, which may be behind others: see Value.
type Model[T any] struct {
	Session  zk.SessionSource
	Codec    Codec[T] // default: []byte and string as they are, everything else as JSON
	Template string   // a name in braces stands for any one name; "" is for all paths
}

// NewModel returns the model of all znodes whose path fits a template.
func NewModel[T any](s zk.SessionSource, template string) Model[T] {
	return Model[T]{Session: s, Template: template}
}

var errSlots = errors.New("a template has whole names in braces, and no stars")

// names are those of the template.
func (m Model[T]) names() ([]string, error) {
	err := zk.ValidPath(m.Template)
	names := strings.Split(m.Template, "/")[1:]
	for _, name := range names {
		if !slotName(name) && strings.ContainsAny(name, "{}*") && err == nil {
			err = badArgument("model", m.Template, errSlots.Error())
		}
	}
	return names, err
}

// Path fills in the names in braces, from left to right. Errors: zk.ErrBadArguments for names that are none, and for too many or
// too few.
func (m Model[T]) Path(names ...string) (string, error) {
	list, err := m.names()
	if err != nil {
		return "", err
	}
	for i, name := range list {
		if !slotName(name) {
			continue
		}
		if len(names) == 0 || names[0] == "" || strings.Contains(names[0], "/") {
			return "", badArgument("model", m.Template, "not a name for each one in braces")
		}
		list[i], names = names[0], names[1:]
	}
	if len(names) > 0 {
		return "", badArgument("model", m.Template, "more names than there are in braces")
	}
	path := "/" + strings.Join(list, "/")
	return path, zk.ValidPath(path)
}

// fits says what is wrong with a path.
func (m Model[T]) fits(path string) error {
	if m.Template == "" {
		return zk.ValidPath(path)
	}
	want, err := m.names()
	if err != nil {
		return err
	}
	if err := zk.ValidPath(path); err != nil {
		return err
	}
	is := strings.Split(path, "/")[1:]
	ok := len(is) == len(want)
	for i := range want {
		ok = ok && (slotName(want[i]) || want[i] == is[i])
	}
	if !ok {
		return badArgument("model", path, "it does not fit "+m.Template)
	}
	return nil
}

// Value returns the one at path, for everything that can be done with a Value. Error: zk.ErrBadArguments for a path that does
// not fit.
func (m Model[T]) Value(path string) (*Value[T], error) {
	if err := m.fits(path); err != nil {
		return nil, err
	}
	return &Value[T]{Session: m.Session, Path: path, Codec: m.Codec}, nil
}

// Get returns the value at path and the Stat of its znode. Errors: zk.ErrNoNode where there is none; *DecodeError, with the Stat;
// zk.ErrBadArguments for a path that does not fit; and those of every read.
func (m Model[T]) Get(ctx context.Context, path string) (x T, st zk.Stat, err error) {
	v, err := m.Value(path)
	if err == nil {
		x, st, err = v.Get(ctx)
	}
	if err == nil && st.Czxid == 0 {
		err = &zk.Error{Op: "get model", Path: path, Code: zk.ErrNoNode}
	}
	return x, st, err
}

// Put writes the value at path, whatever is there, and creates the znode where there is none, with its parents. Errors:
// zk.ErrBadArguments for a path that does not fit; the codec's; and those of every write.
func (m Model[T]) Put(ctx context.Context, path string, x T) error {
	v, err := m.Value(path)
	if err != nil {
		return err
	}
	return v.Set(ctx, x)
}

// Check says whether data decodes, and whether the path fits. It is made for Rule.Check, and reads nothing.
func (m Model[T]) Check(path string, data []byte) error {
	if err := m.fits(path); err != nil {
		return err
	}
	if _, err := (&Value[T]{Codec: m.Codec}).codec().Decode(data); err != nil {
		return fmt.Errorf("it cannot be decoded: %w", err)
	}
	return nil
}

// Item is one znode of a Model, as of one zxid. It is a plain value.
type Item[T any] struct {
	Path  string
	Value T // zero where it could not be decoded
	Stat  zk.Stat
}

// All yields every znode that fits the template, in byte order of its names, as they were at one zxid. One that cannot be decoded
// is yielded with a *DecodeError, and the others are not kept back by it. Those that the session may not read are left out. It ends
// with any other error of reading. A model without a template has no end: that is zk.ErrBadArguments.
func (m Model[T]) All(ctx context.Context, opt ...zk.ReadOption) iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		list, err := m.znodes(ctx, opt...)
		if err != nil {
			yield(Item[T]{}, err)
			return
		}
		v := &Value[T]{Codec: m.Codec}
		for _, z := range list { // outside of the View: the caller may take its time
			x, err := v.decode(z)
			if !yield(Item[T]{z.Path, x, z.Stat}, err) {
				return
			}
		}
	}
}

func (m Model[T]) znodes(ctx context.Context, opt ...zk.ReadOption) (list []zk.Znode, err error) {
	names, err := m.names()
	if err != nil {
		return nil, err
	}
	s, err := session(ctx, m.Session, "model", m.Template)
	if err != nil {
		return nil, err
	}
	err = s.View(ctx, func(v *zk.View) (err error) {
		list, err = find(v, "/", names, nil)
		return err
	}, opt...)
	return list, explain(ctx, err)
}

// find appends what fits the names below path.
func find(v *zk.View, path string, names []string, list []zk.Znode) ([]zk.Znode, error) {
	if !slotName(names[0]) {
		return visit(v, join(path, names[0]), names[1:], list)
	}
	for name, err := range v.Children(path) {
		if err == nil {
			list, err = visit(v, join(path, name), names[1:], list)
		}
		if errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNoAuth) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

// visit appends the znode at path, or what fits below it.
func visit(v *zk.View, path string, names []string, list []zk.Znode) ([]zk.Znode, error) {
	if len(names) > 0 {
		return find(v, path, names, list)
	}
	z, err := v.Get(path)
	switch {
	case errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrNoAuth):
		return list, nil
	case err != nil || z.Stat.Czxid == 0:
		return list, err
	}
	return append(list, z), nil
}
