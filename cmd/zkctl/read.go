// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
	"github.com/spf13/cobra"
)

func (a *app) lsCommand() *cobra.Command {
	var deep, withStat bool
	cmd := &cobra.Command{
		Use:   "ls [-R] [--stat] PATH",
		Short: "List the children of a znode, one a line",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if deep {
				paths, err := a.subtree(ctx, c, args[0])
				if err != nil {
					return err
				}
				return a.printNames(paths, nil)
			}
			names, st, err := c.Children(ctx, args[0])
			if err != nil {
				return err
			}
			if !withStat {
				return a.printNames(names, nil)
			}
			if a.legacy { // the answer has none
				if st, _, err = c.Exists(ctx, args[0]); err != nil {
					return err
				}
			}
			return a.printNames(names, &st)
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().BoolVarP(&deep, "recursive", "R", false, "list PATH and everything below it, as whole paths")
	cmd.Flags().BoolVarP(&withStat, "stat", "s", false, "print the znode's Stat too")
	return cmd
}

func (a *app) getCommand() *cobra.Command {
	var withStat bool
	cmd := &cobra.Command{
		Use:   "get [--stat] PATH",
		Short: "Print a znode's data",
		Long:  "Print a znode's data, with a line feed after it if it has none; --output raw prints the bytes alone.",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			data, st, err := c.Get(ctx, args[0])
			if err != nil {
				return err
			}
			return a.printZnode(args[0], data, st, withStat)
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().BoolVarP(&withStat, "stat", "s", false, "print the znode's Stat too")
	return cmd
}

func (a *app) statCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stat PATH",
		Short: "Print a znode's Stat",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			st, ok, err := c.Exists(ctx, args[0])
			if err != nil {
				return err
			}
			if !ok {
				return &zk.Error{Op: "stat", Path: args[0], Code: zk.ErrNoNode}
			}
			return a.printStat(args[0], st)
		},
		ValidArgsFunction: a.complete,
	}
}

func (a *app) watchCommand() *cobra.Command {
	var kind string
	var count int
	cmd := &cobra.Command{
		Use:   "watch [--kind node|subtree|children] [--count N] PATH",
		Short: "Print what happens to a znode and below it, until interrupted",
		Long: "Print one line for each change: what happened, the path, and the transaction's zxid.\n" +
			"A line \"overflow\" says that changes may have been missed, because the connection was lost or the reader was too slow.",
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, ok := map[string]zk.WatchKind{"node": zk.WatchNode, "subtree": zk.WatchSubtree, "children": zk.WatchChildSet}[kind]
			if !ok {
				return usagef("--kind %s: it is node, subtree or children", kind)
			}
			if count < 0 {
				return usagef("--count %d: it must not be negative", count)
			}
			if a.legacy {
				return usagef("--legacy: servers before ZooKeeper 3.6 have no watches that last")
			}
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if err := c.Ping(ctx); err != nil { // --timeout is about this much; the watch is for long
				return err
			}
			w, err := c.Watch(cmd.Context(), args[0], k)
			if err != nil {
				return err
			}
			defer w.Close()
			fmt.Fprintf(a.err, "zkctl: watching %s\n", args[0])
			seen := 0
			for ev, err := range w.All() {
				if err != nil {
					return err
				}
				if ev.Type == zk.EventSession {
					continue // the error follows
				}
				if err := a.printEvent(ev); err != nil {
					return err
				}
				if seen++; seen == count {
					return nil
				}
			}
			return nil
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().StringVar(&kind, "kind", "subtree", "what to hear of: node, subtree or children")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many events; 0 means never")
	return cmd
}

// readBatch is how many lists of children one request asks for.
const readBatch = 128

// subtree lists root and everything below it, parents before their children, directories in byte order. What goes
// meanwhile may or may not be in it.
func (a *app) subtree(ctx context.Context, c *wire.Client, root string) ([]string, error) {
	if _, ok, err := c.Exists(ctx, root); err != nil {
		return nil, err
	} else if !ok {
		return nil, &zk.Error{Op: "list", Path: root, Code: zk.ErrNoNode}
	}
	paths := []string{root}
	for done := 0; done < len(paths); {
		batch := paths[done:min(done+readBatch, len(paths))]
		results, err := a.children(ctx, c, batch)
		if err != nil {
			return nil, err
		}
		done += len(batch)
		for i, r := range results {
			switch r.Code {
			case 0:
				for _, name := range r.Names {
					paths = append(paths, strings.TrimSuffix(batch[i], "/")+"/"+name)
				}
			case zk.ErrNoNode: // it has just gone
			default:
				return nil, &zk.Error{Op: "list", Path: batch[i], Code: r.Code}
			}
		}
	}
	// By segments: the separator comes before everything a name may have in it.
	slices.SortFunc(paths, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	return paths, nil
}

// children lists the children of each path: in one request, where the server can.
func (a *app) children(ctx context.Context, c *wire.Client, paths []string) ([]zk.ReadResult, error) {
	if !a.legacy {
		reads := make([]zk.ReadRequest, len(paths))
		for i, p := range paths {
			reads[i] = zk.ReadRequest{Path: p, Children: true}
		}
		return c.MultiRead(ctx, reads...)
	}
	results := make([]zk.ReadResult, len(paths))
	for i, p := range paths {
		names, _, err := c.Children(ctx, p)
		switch {
		case err == nil:
			results[i].Names = names
		case errors.Is(err, zk.ErrNoNode):
			results[i].Code = zk.ErrNoNode
		default:
			return nil, err
		}
	}
	return results, nil
}

// complete offers the children of the directory that is being typed.
func (a *app) complete(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	defer func() {
		if !a.shell {
			a.close()
		}
	}()
	return a.pathsLike(ctx, typed), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// pathsLike lists the paths that begin as typed does, as far as the next segment.
func (a *app) pathsLike(ctx context.Context, typed string) []string {
	if !strings.HasPrefix(typed, "/") {
		return []string{"/"}
	}
	ctx, cancel, c, err := a.dial(ctx)
	if err != nil {
		return nil
	}
	defer cancel()
	dir := typed[:strings.LastIndexByte(typed, '/')]
	names, _, err := c.Children(ctx, dir+map[bool]string{true: "/"}[dir == ""])
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	var list []string
	for _, name := range names {
		if p := dir + "/" + name; strings.HasPrefix(p, typed) {
			list = append(list, p)
		}
	}
	return list
}
