// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/peterh/liner"
	"github.com/seed-541fafe0/zk"
	"github.com/spf13/cobra"
)

// runShell reads commands until the input ends: with a line editor on a terminal, and as a script otherwise, which
// ends at the first command that fails.
func (a *app) runShell() error {
	a.shell = true
	a.letInterruptsBe() // they end a command
	ctx := a.life
	if !isTerminal(a.in) {
		return a.script(ctx)
	}
	line := liner.NewLiner()
	defer line.Close()
	a.ask = line.Prompt
	line.SetCtrlCAborts(true)
	line.SetTabCompletionStyle(liner.TabPrints)
	line.SetWordCompleter(func(text string, pos int) (string, []string, string) { return a.completeWord(ctx, text, pos) })
	history := historyFile()
	if f, err := os.Open(history); err == nil {
		line.ReadHistory(f)
		f.Close()
	}
	defer func() {
		if f, err := os.OpenFile(history, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err == nil {
			line.WriteHistory(f)
			f.Close()
		}
	}()
	fmt.Fprintf(a.err, "zkctl on %s; help shows the commands, quit ends it\n", a.servers)
	for {
		text, err := line.Prompt("zk> ")
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(a.err)
			return nil
		case err != nil:
			return err
		}
		words, err := splitWords(text)
		if err == nil && len(words) == 0 {
			continue
		}
		if len(words) > 0 && words[0] != "addauth" { // secrets are not kept
			line.AppendHistory(text)
		}
		if err == nil {
			if words[0] == "quit" || words[0] == "exit" {
				return nil
			}
			err = a.line(ctx, words)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(a.err, "%v\n", err)
		}
	}
}

// script runs the commands of a file.
func (a *app) script(ctx context.Context) error {
	lines := bufio.NewScanner(a.in)
	lines.Buffer(nil, 2<<20) // a znode's data fits
	for n := 1; lines.Scan(); n++ {
		words, err := splitWords(lines.Text())
		if err == nil && len(words) > 0 {
			if words[0] == "quit" || words[0] == "exit" {
				return nil
			}
			err = a.line(ctx, words)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}

// line runs one command of a shell. An interrupt ends it, not the shell.
func (a *app) line(ctx context.Context, words []string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	err := a.execute(ctx, words)
	if ctx.Err() != nil && isTerminal(a.in) {
		return nil
	}
	return err
}

func (a *app) addAuthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "addauth SCHEME CREDENTIAL",
		Short: "Add an identity, such as digest user:password",
		Args:  arguments(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel, c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if err := c.AddAuth(ctx, zk.Auth{Scheme: args[0], Cred: []byte(args[1])}); err != nil {
				return err
			}
			a.auth = append(a.auth, args[0]+":"+args[1]) // for the next session, should this one expire
			return nil
		},
	}
}

// completeWord offers commands for the first word of a line, and paths for the others.
func (a *app) completeWord(ctx context.Context, text string, pos int) (head string, list []string, tail string) {
	start := strings.LastIndexAny(text[:pos], " \t") + 1
	head, word, tail := text[:start], text[start:pos], text[pos:]
	if strings.TrimSpace(head) != "" {
		if strings.HasPrefix(word, "-") {
			return head, nil, tail
		}
		return head, a.pathsLike(ctx, word), tail
	}
	for _, cmd := range a.commands().Commands() {
		if strings.HasPrefix(cmd.Name(), word) && !cmd.Hidden {
			list = append(list, cmd.Name()+" ")
		}
	}
	return head, list, tail
}

func historyFile() string {
	if f := os.Getenv("ZKCTL_HISTORY"); f != "" {
		return f
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return os.DevNull
	}
	return filepath.Join(home, ".zkctl_history")
}

// isTerminal reports whether in is the standard input and that is a terminal.
func isTerminal(in io.Reader) bool {
	if in != os.Stdin {
		return false
	}
	_, err := liner.TerminalMode()
	return err == nil
}

// splitWords splits a line as a POSIX shell does, without expansions: quotes of both kinds, backslashes, and comments
// from a # that begins a word.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case r == '#' && !inWord:
			return words, nil
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, usagef("a quote is not closed: %s", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
