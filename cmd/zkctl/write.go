// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
	"github.com/spf13/cobra"
)

const dataHelp = "DATA is text, @FILE for what is in a file, - for the standard input, 0x... or base64:... for bytes, text:... for text that begins like these."

func (a *app) createCommand() *cobra.Command {
	var sequential, ephemeral, container, parents bool
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create [-s] [-e] [-c] [-t TTL] [-p] PATH [DATA [ACL]]",
		Short: "Create a znode and print its path",
		Long: "Create a znode and print its path.\n" + dataHelp + "\n" +
			"ACL is scheme:id:perms,..., with the letters c, d, r, w and a.\n" +
			"Outside of the shell an ephemeral znode lasts until the command is interrupted.",
		Args: arguments(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.legacy && (container || cmd.Flags().Changed("ttl")) {
				return usagef("--legacy: servers before ZooKeeper 3.5 have no containers and no times to live")
			}
			mode := zk.Persistent
			for m, on := range map[zk.CreateMode]bool{zk.Sequential: sequential, zk.Ephemeral: ephemeral, zk.Container: container} {
				if on {
					mode |= m
				}
			}
			var data []byte
			if len(args) > 1 {
				var err error
				if data, err = a.data(args[1]); err != nil {
					return err
				}
			}
			op := wire.OpCreate(args[0], data, mode)
			if cmd.Flags().Changed("ttl") {
				op = op.WithTTL(ttl)
			}
			if len(args) > 2 {
				acl, err := parseACL(args[2])
				if err != nil {
					return err
				}
				op = op.WithACL(acl...)
			}
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if parents {
				if err := createParents(ctx, c, args[0]); err != nil {
					return err
				}
			}
			r, err := c.Do(ctx, op)
			if err != nil {
				return err
			}
			if err := a.printPath(r.Path, r.Stat); err != nil {
				return err
			}
			if ephemeral && !a.shell {
				select {
				case <-cmd.Context().Done():
				case <-c.Done():
					return c.Err()
				}
			}
			return nil
		},
		ValidArgsFunction: a.complete,
	}
	flags := cmd.Flags()
	flags.BoolVarP(&sequential, "sequential", "s", false, "let the parent append a number to the name")
	flags.BoolVarP(&ephemeral, "ephemeral", "e", false, "let it go with the session")
	flags.BoolVarP(&container, "container", "c", false, "let it go some time after its last child")
	flags.DurationVarP(&ttl, "ttl", "t", 0, "let it go when it was childless and not set for so long")
	flags.BoolVarP(&parents, "parents", "p", false, "create missing parents")
	return cmd
}

// createParents creates the persistent znodes above path that are missing.
func createParents(ctx context.Context, c *wire.Client, path string) error {
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if _, err := c.Create(ctx, path[:i], nil, zk.Persistent); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

func (a *app) setCommand() *cobra.Command {
	version := zk.AnyVersion
	var withStat bool
	cmd := &cobra.Command{
		Use:   "set [-v VERSION] [--stat] PATH DATA",
		Short: "Replace a znode's data",
		Long:  "Replace a znode's data.\n" + dataHelp,
		Args:  arguments(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := a.data(args[1])
			if err != nil {
				return err
			}
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			st, err := c.Set(ctx, args[0], data, version)
			if err != nil || !withStat && a.output != "json" {
				return err
			}
			return a.printStat(args[0], st)
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().Int32VarP(&version, "version", "v", version, "the version it must have; -1 for any")
	cmd.Flags().BoolVarP(&withStat, "stat", "s", false, "print the new Stat")
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	version := zk.AnyVersion
	cmd := &cobra.Command{
		Use:   "delete [-v VERSION] PATH",
		Short: "Delete a znode that has no children",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			return c.Delete(ctx, args[0], version)
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().Int32VarP(&version, "version", "v", version, "the version it must have; -1 for any")
	return cmd
}

// deleteBatch is how many znodes one transaction deletes.
const deleteBatch = 500

func (a *app) deleteAllCommand() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use:   "deleteall [--yes] [--dry-run] PATH",
		Short: "Delete a znode and everything below it",
		Long:  "Delete a znode and everything below it, in transactions of at most 500 znodes. It asks on a terminal, and needs --yes where there is none.",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			paths, err := a.subtree(ctx, c, args[0])
			if err != nil {
				return err
			}
			if dry {
				return a.printNames(paths, nil)
			}
			if !yes {
				if err := a.confirm(fmt.Sprintf("Delete %s and what is below it, %d znodes in all?", args[0], len(paths))); err != nil {
					return err
				}
				cancel() // the answer took its time
				if ctx, cancel, c, err = a.dial(cmd.Context()); err != nil {
					return err
				}
				defer cancel()
			}
			return a.deleteAll(ctx, c, paths)
		},
		ValidArgsFunction: a.complete,
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be deleted, and delete nothing")
	return cmd
}

// deleteAll deletes the paths, children before their parents. Where somebody else changes the tree meanwhile it looks
// again, a few times.
func (a *app) deleteAll(ctx context.Context, c *wire.Client, paths []string) error {
	root := paths[0]
	for try := 0; ; try++ {
		slices.Reverse(paths)
		err := error(nil)
		for batch := range slices.Chunk(paths, deleteBatch) {
			ops := make([]wire.Op, len(batch))
			for i, p := range batch {
				ops[i] = wire.OpDelete(p, zk.AnyVersion)
			}
			if _, err = c.Txn(ctx, ops...); err != nil {
				break
			}
		}
		if err == nil || try == 10 || !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrNotEmpty) {
			return err
		}
		if paths, err = a.subtree(ctx, c, root); errors.Is(err, zk.ErrNoNode) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// confirm asks on a terminal.
func (a *app) confirm(question string) error {
	question += " [y/N] "
	var line string
	var err error
	switch {
	case a.ask != nil:
		line, err = a.ask(question)
	case isTerminal(a.in):
		fmt.Fprint(a.err, question)
		line, err = bufio.NewReader(a.in).ReadString('\n')
	default:
		return usagef("nobody can be asked here: give --yes")
	}
	if err != nil && err != io.EOF {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return usagef("not done")
}

// data is what a DATA argument means.
func (a *app) data(text string) ([]byte, error) {
	switch {
	case text == "-":
		if a.shell {
			return nil, usagef("- is the standard input, from which the commands come")
		}
		return io.ReadAll(a.in)
	case strings.HasPrefix(text, "@"):
		b, err := os.ReadFile(text[1:])
		if err != nil {
			return nil, usageError{err}
		}
		return b, nil
	case strings.HasPrefix(text, "text:"):
		return []byte(text[len("text:"):]), nil
	case strings.HasPrefix(text, "0x"):
		b, err := hex.DecodeString(text[2:])
		if err != nil {
			return nil, usagef("%s: %w", text, err)
		}
		return b, nil
	case strings.HasPrefix(text, "base64:"):
		b, err := base64.StdEncoding.DecodeString(text[len("base64:"):])
		if err != nil {
			return nil, usagef("%s: %w", text, err)
		}
		return b, nil
	}
	return []byte(text), nil
}

// parseACL reads scheme:id:perms,... The id may have colons in it.
func parseACL(text string) ([]zk.ACL, error) {
	var acl []zk.ACL
	for entry := range strings.SplitSeq(text, ",") {
		scheme, rest, _ := strings.Cut(entry, ":")
		colon := strings.LastIndexByte(rest, ':')
		if colon < 0 {
			return nil, usagef("ACL %q: it is scheme:id:perms", entry)
		}
		e := zk.ACL{Scheme: scheme, ID: rest[:colon]}
		for _, letter := range rest[colon+1:] {
			p, ok := map[rune]zk.Perm{'c': zk.PermCreate, 'd': zk.PermDelete, 'r': zk.PermRead, 'w': zk.PermWrite, 'a': zk.PermAdmin}[letter]
			if !ok {
				return nil, usagef("ACL %q: permissions are the letters c, d, r, w and a", entry)
			}
			e.Perm |= p
		}
		acl = append(acl, e)
	}
	return acl, nil
}
