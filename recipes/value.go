// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/seed-541fafe0/zk"
)

// Value is one value that all members share, can change atomically, and can follow: a configuration, a switch, a small
// document.
//
// Layout: the znode PATH itself; its data is what the codec makes of the value. Curator's SharedValue and
// DistributedAtomicValue and kazoo's DataWatch work on the same znode with the same bytes. PATH-lock is a line that
// Update uses after several conflicts, empty otherwise.
//
// Cost: Get is a local read; Set, SetIf and Update are one write each where nobody interferes; Watch is one local watch,
// of data and children, which zk.Stats counts as two (WT-39), and one local read for each change. A conflict costs Update
// one more write.
//
// What is read is what this member knows, which may be behind others: call zk.Session.Sync first where that matters.
// SetIf and Update cannot be misled by it.
type Value[T any] struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Codec   Codec[T] // default: []byte and string as they are, everything else as JSON
	Default T        // the value while the znode does not exist; it is never written
}

// NewValue returns the value at path.
func NewValue[T any](s zk.SessionSource, path string) *Value[T] {
	return &Value[T]{Session: s, Path: path}
}

// plain is the default codec of bytes and strings.
type plain[T any] struct{}

func (plain[T]) Encode(v T) ([]byte, error) {
	switch v := any(v).(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return nil, errors.New("neither bytes nor a string")
}

func (plain[T]) Decode(b []byte) (v T, err error) {
	switch p := any(&v).(type) {
	case *[]byte:
		*p = b
	case *string:
		*p = string(b)
	default:
		err = errors.New("neither bytes nor a string")
	}
	return v, err
}

func (v *Value[T]) codec() Codec[T] {
	if v.Codec != nil {
		return v.Codec
	}
	switch any(*new(T)).(type) {
	case []byte, string:
		return plain[T]{}
	}
	return JSON[T]{}
}

func (v *Value[T]) encode(x T) ([]byte, error) {
	data, err := v.codec().Encode(x)
	if err != nil {
		return nil, fmt.Errorf("recipes: encoding the value of %s: %w", v.Path, err)
	}
	return data, nil
}

func (v *Value[T]) decode(z zk.Znode) (x T, err error) {
	if z.Stat.Czxid == 0 {
		return v.Default, nil
	}
	if x, err = v.codec().Decode([]byte(z.Data)); err != nil {
		return *new(T), &DecodeError{z.Path, z.Stat.Mzxid, err}
	}
	return x, nil
}

// Get returns the value and the Stat of its znode, as this member knows it; Default and a zero Stat where there is none.
// Errors: *DecodeError, with the Stat, so that SetIf can repair what is there; and those of every read.
func (v *Value[T]) Get(ctx context.Context) (x T, st zk.Stat, err error) {
	s, err := session(ctx, v.Session, "get value", v.Path)
	if err != nil {
		return x, st, err
	}
	z, err := peek(ctx, s, v.Path)
	if err != nil {
		return x, st, err
	}
	x, err = v.decode(z)
	return x, z.Stat, err
}

// Set writes the value, whatever is there, and creates the znode where there is none. Errors: the codec's, and those of
// every write; zk.MaybeApplied tells whether the value may have been written.
func (v *Value[T]) Set(ctx context.Context, x T) error {
	s, err := session(ctx, v.Session, "set value", v.Path)
	if err != nil {
		return err
	}
	data, err := v.encode(x)
	if err != nil {
		return err
	}
	return put(ctx, s, v.Path, data)
}

// SetIf is Set if the znode is still what Get returned at with: the same incarnation in the same version, or none for
// a zero Stat. Otherwise the error is zk.ErrBadVersion. A Stat that is older than a restore of a backup says nothing:
// get the value again.
func (v *Value[T]) SetIf(ctx context.Context, x T, at zk.Stat) error {
	s, err := session(ctx, v.Session, "set value", v.Path)
	if err != nil {
		return err
	}
	data, err := v.encode(x)
	if err != nil {
		return err
	}
	if _, err = replace(ctx, s, zk.Znode{Path: v.Path, Stat: at}, data); conflicting(err) {
		return &zk.Error{Op: "set value", Path: v.Path, Code: zk.ErrBadVersion, Err: err}
	}
	return err
}

// Update replaces the value by what fn makes of it, in one step that nothing comes between, and returns the new one
// (VAL-S2). fn runs on the caller's goroutine, several times where others interfere or where it refuses, and should do
// nothing else. An error of fn is returned as it is, and nothing is changed; it is made of what was current after the
// call began. Other errors: the codec's, *DecodeError for what is stored, and those of every write.
func (v *Value[T]) Update(ctx context.Context, fn func(T) (T, error)) (x T, err error) {
	s, err := session(ctx, v.Session, "update value", v.Path)
	if err != nil {
		return x, err
	}
	if fn == nil {
		return x, badArgument("update value", v.Path, "nil function")
	}
	_, err = change(ctx, s, v.Path, func(z zk.Znode) ([]byte, bool, error) {
		old, err := v.decode(z)
		if err != nil {
			return nil, false, err
		}
		if x, err = fn(old); err != nil {
			return nil, false, err
		}
		data, err := v.encode(x)
		return data, err == nil, err
	})
	if err != nil {
		return *new(T), err
	}
	return x, nil
}

// Watch yields the value as it is, and again whenever it has changed: the newest only, so that a slow consumer skips
// values and never falls behind. It is Default while the znode does not exist. What cannot be decoded is yielded as a
// *DecodeError, and the stream goes on. It ends with ctx, and with an error of reading; with the session only if the
// value was made with a *zk.Session: a *zk.Member opens another one.
func (v *Value[T]) Watch(ctx context.Context) iter.Seq2[T, error] {
	return states(ctx, v.Session, "watch value", v.Path, v.decode)
}

// states yields what decode makes of a znode each time it has changed, as Value.Watch says.
func states[T any](ctx context.Context, src zk.SessionSource, op, path string, decode func(zk.Znode) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped, first := false, true
		var last zk.Znode
		err := eachSession(ctx, src, op, path, func(s *zk.Session) error {
			for z, err := range s.WatchValue(ctx, path) {
				if err != nil {
					return err
				}
				if !first && z.Stat.Mzxid == last.Stat.Mzxid && z.Data == last.Data {
					continue // another session has found the same
				}
				first, last = false, z
				if stopped = !yield(decode(z)); stopped {
					return nil
				}
			}
			return nil
		})
		if !stopped {
			yield(*new(T), err)
		}
	}
}
