// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"iter"

	"github.com/seed-541fafe0/zk"
)

// entries returns the children of a directory with their data, in byte order, as of one zxid; none where there is no
// directory. Those that the session may not read are left out.
func entries(ctx context.Context, s *zk.Session, dir string) (list []zk.Znode, err error) {
	for attempt := 0; ; attempt++ {
		list = nil
		err := s.View(ctx, func(v *zk.View) error {
			for name, err := range v.Children(dir) {
				if errors.Is(err, zk.ErrNoNode) {
					return nil
				}
				if err != nil {
					return err
				}
				z, err := v.Get(join(dir, name))
				switch {
				case err == nil:
					list = append(list, z)
				case !errors.Is(err, zk.ErrNoAuth):
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, zk.ErrViewExpired) {
			return list, explain(ctx, err)
		}
		if err := contention.Wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// directory follows the children of a directory and their data, from one consistent state to the next. It is a Cache of
// them, and so are its costs.
type directory struct {
	cache *Cache
	now   *image
}

func openDirectory(ctx context.Context, src zk.SessionSource, path string) (*directory, error) {
	d := &directory{cache: &Cache{Session: src, Root: path, Depth: 2}}
	if err := d.cache.Start(ctx); err != nil {
		d.cache.Close()
		return nil, err
	}
	d.now = d.cache.now.Load()
	return d, nil
}

func (d *directory) close() { d.cache.Close() }

// changed is closed when there is another state.
func (d *directory) changed() <-chan struct{} { return d.now.replaced }

// advance goes on to the newest state. The error says that it is the last one.
func (d *directory) advance() error {
	d.now = d.cache.now.Load()
	return d.now.err
}

// entries is what the function of that name returns, as of this state.
func (d *directory) entries() (list []zk.Znode) {
	d.now.tree.ascend(func(z zk.Znode) bool {
		if z.Path != d.cache.Root {
			list = append(list, z)
		}
		return true
	})
	return list
}

// directories yields what a directory has, and again whenever a child or its data has changed: the newest state only. It
// ends with ctx, and with an error of reading; with the session only if src has no other one.
func directories(ctx context.Context, src zk.SessionSource, op, path string) iter.Seq2[[]zk.Znode, error] {
	return func(yield func([]zk.Znode, error) bool) {
		if _, err := session(ctx, src, op, path); err != nil {
			yield(nil, err)
			return
		}
		d, err := openDirectory(ctx, src, path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer d.close()
		for told := (*image)(nil); ; {
			if told == nil || differs(told.tree, d.now.tree, path) {
				if !yield(d.entries(), nil) {
					return
				}
			}
			told = d.now
			select {
			case <-d.changed():
				err = d.advance()
			case <-ctx.Done():
				err = ended(ctx)
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// differs tells whether the children, or their data, are not the same.
func differs(a, b *ordered, dir string) bool {
	for _, c := range changes(a, b) {
		if c.Path != dir {
			return true
		}
	}
	return false
}
