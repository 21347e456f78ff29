// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"iter"

	"github.com/seed-541fafe0/zk"
)

// SchemaSession is a session behind a Schema: its own methods are those of zk.Session, and return a *SchemaError, having
// sent nothing, for what the schema does not allow. All methods are safe for concurrent use.
//
// Those that it has from Session alone, such as View, Walk and Listener, are not checked, and neither are recipes, which take
// Session itself.
type SchemaSession struct {
	*zk.Session

	schema *Schema
	prefix string // of Sub
}

// On puts the schema before a session. Paths of the rules are those of s.
func (x *Schema) On(s *zk.Session) *SchemaSession { return &SchemaSession{Session: s, schema: x} }

// Sub is zk.Session.Sub: paths are then below prefix, those of the rules are as before.
func (s *SchemaSession) Sub(prefix string) *SchemaSession {
	return &SchemaSession{Session: s.Session.Sub(prefix), schema: s.schema, prefix: s.at(prefix)}
}

// at is a path as the rules have it.
func (s *SchemaSession) at(path string) string {
	switch {
	case s.prefix == "" || s.prefix == "/":
		return path
	case path == "/":
		return s.prefix
	}
	return s.prefix + path
}

func (s *SchemaSession) allows(ops ...zk.Op) error {
	for _, op := range ops {
		if err := s.schema.validate(op, s.at(op.Path())); err != nil {
			return err
		}
	}
	return nil
}

// Create is zk.Session.Create.
func (s *SchemaSession) Create(ctx context.Context, path string, data []byte, mode zk.CreateMode) (zk.Znode, error) {
	if err := s.allows(zk.OpCreate(path, data, mode)); err != nil {
		return zk.Znode{}, err
	}
	return s.Session.Create(ctx, path, data, mode)
}

// Set is zk.Session.Set.
func (s *SchemaSession) Set(ctx context.Context, path string, data []byte, version int32) (zk.Stat, error) {
	if err := s.allows(zk.OpSet(path, data, version)); err != nil {
		return zk.Stat{}, err
	}
	return s.Session.Set(ctx, path, data, version)
}

// Delete is zk.Session.Delete.
func (s *SchemaSession) Delete(ctx context.Context, path string, version int32) error {
	if err := s.allows(zk.OpDelete(path, version)); err != nil {
		return err
	}
	return s.Session.Delete(ctx, path, version)
}

// DeleteTree is zk.Session.DeleteTree. What is there, as far as this member knows, has to be allowed to go; what others create
// meanwhile is not asked about.
func (s *SchemaSession) DeleteTree(ctx context.Context, path string) error {
	if err := checkContext(ctx, "delete tree", path); err != nil {
		return err
	}
	for z, err := range s.Session.Walk(ctx, path) {
		if err != nil {
			return err
		}
		if err := s.allows(zk.OpDelete(z.Path, zk.AnyVersion)); err != nil {
			return err
		}
	}
	return s.Session.DeleteTree(ctx, path)
}

// Do is zk.Session.Do.
func (s *SchemaSession) Do(ctx context.Context, op zk.Op) (zk.Result, error) {
	if err := s.allows(op); err != nil {
		return zk.Result{}, err
	}
	return s.Session.Do(ctx, op)
}

// Txn is zk.Session.Txn.
func (s *SchemaSession) Txn(ctx context.Context, ops ...zk.Op) ([]zk.Result, error) {
	if err := s.allows(ops...); err != nil {
		return nil, err
	}
	return s.Session.Txn(ctx, ops...)
}

// TxnLate is zk.Session.TxnLate.
func (s *SchemaSession) TxnLate(ctx context.Context, late func([]zk.Result, error), ops ...zk.Op) ([]zk.Result, error) {
	if err := s.allows(ops...); err != nil {
		return nil, err
	}
	return s.Session.TxnLate(ctx, late, ops...)
}

func (s *SchemaSession) reads(path string, watch bool) error {
	return s.schema.ValidateRead(s.at(path), watch)
}

// Get is zk.Session.Get.
func (s *SchemaSession) Get(ctx context.Context, path string, opt ...zk.ReadOption) ([]byte, zk.Stat, error) {
	if err := s.reads(path, false); err != nil {
		return nil, zk.Stat{}, err
	}
	return s.Session.Get(ctx, path, opt...)
}

// GetString is zk.Session.GetString.
func (s *SchemaSession) GetString(ctx context.Context, path string, opt ...zk.ReadOption) (string, zk.Stat, error) {
	if err := s.reads(path, false); err != nil {
		return "", zk.Stat{}, err
	}
	return s.Session.GetString(ctx, path, opt...)
}

// Exists is zk.Session.Exists.
func (s *SchemaSession) Exists(ctx context.Context, path string, opt ...zk.ReadOption) (zk.Stat, bool, error) {
	if err := s.reads(path, false); err != nil {
		return zk.Stat{}, false, err
	}
	return s.Session.Exists(ctx, path, opt...)
}

// Children is zk.Session.Children.
func (s *SchemaSession) Children(ctx context.Context, path string, opt ...zk.ReadOption) ([]string, zk.Stat, error) {
	if err := s.reads(path, false); err != nil {
		return nil, zk.Stat{}, err
	}
	return s.Session.Children(ctx, path, opt...)
}

// GetW is zk.Session.GetW.
func (s *SchemaSession) GetW(ctx context.Context, path string) ([]byte, zk.Stat, <-chan zk.Event, error) {
	if err := s.reads(path, true); err != nil {
		return nil, zk.Stat{}, nil, err
	}
	return s.Session.GetW(ctx, path)
}

// ExistsW is zk.Session.ExistsW.
func (s *SchemaSession) ExistsW(ctx context.Context, path string) (zk.Stat, bool, <-chan zk.Event, error) {
	if err := s.reads(path, true); err != nil {
		return zk.Stat{}, false, nil, err
	}
	return s.Session.ExistsW(ctx, path)
}

// ChildrenW is zk.Session.ChildrenW.
func (s *SchemaSession) ChildrenW(ctx context.Context, path string) ([]string, zk.Stat, <-chan zk.Event, error) {
	if err := s.reads(path, true); err != nil {
		return nil, zk.Stat{}, nil, err
	}
	return s.Session.ChildrenW(ctx, path)
}

// Watch is zk.Session.Watch. Of a subtree only the root is asked about.
func (s *SchemaSession) Watch(ctx context.Context, path string, kind zk.WatchKind) (*zk.Watch, error) {
	if err := s.reads(path, true); err != nil {
		return nil, err
	}
	return s.Session.Watch(ctx, path, kind)
}

// WatchValue is zk.Session.WatchValue.
func (s *SchemaSession) WatchValue(ctx context.Context, path string) iter.Seq2[zk.Znode, error] {
	if err := s.reads(path, true); err != nil {
		return func(yield func(zk.Znode, error) bool) { yield(zk.Znode{}, err) }
	}
	return s.Session.WatchValue(ctx, path)
}

// WatchChildren is zk.Session.WatchChildren.
func (s *SchemaSession) WatchChildren(ctx context.Context, path string) iter.Seq2[[]string, error] {
	if err := s.reads(path, true); err != nil {
		return func(yield func([]string, error) bool) { yield(nil, err) }
	}
	return s.Session.WatchChildren(ctx, path)
}
