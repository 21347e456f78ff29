// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK          = 0
	exitInternal    = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNoNode      = 4
	exitNodeExists  = 5
	exitBadVersion  = 6
	exitNotEmpty    = 7
	exitAuth        = 8
	exitExpired     = 9
	exitNoQuorum    = 10
	exitInterrupted = 130
)

// app is one run of the program. A shell runs many commands, one after the other, on one client.
type app struct {
	in       io.Reader
	out, err io.Writer

	servers  string
	timeout  time.Duration
	auth     []string
	output   string
	readOnly bool
	legacy   bool
	tls      tlsFiles

	life            context.Context // of the program: an interrupt does not end it
	letInterruptsBe func()          // makes interrupts somebody else's matter
	client          *wire.Client    // opened by the first command that needs it
	shell           bool
	ask             func(prompt string) (string, error) // of a shell's line editor
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run executes the command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	defer a.close()
	a.life = ctx
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	a.letInterruptsBe = stop
	return a.report(a.execute(ctx, args))
}

func (a *app) execute(ctx context.Context, args []string) error {
	root := a.commands()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return root.ExecuteContext(ctx)
}

func (a *app) close() {
	if a.client != nil {
		a.client.Close() // what fails here has been told by the command before
		a.client = nil
	}
}

// report tells of an error and returns its exit code.
func (a *app) report(err error) int {
	code := exitCode(err)
	if err != nil && code != exitInterrupted {
		fmt.Fprintf(a.err, "zkctl: %v\n", err)
	}
	return code
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	code, _ := errors.AsType[zk.Code](err)
	switch code {
	case zk.ErrNoNode:
		return exitNoNode
	case zk.ErrNodeExists:
		return exitNodeExists
	case zk.ErrBadVersion:
		return exitBadVersion
	case zk.ErrNotEmpty:
		return exitNotEmpty
	case zk.ErrNoAuth, zk.ErrAuthFailed, zk.ErrAuthRequired:
		return exitAuth
	case zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrClosed:
		return exitExpired
	case zk.ErrNotReadOnly:
		return exitNoQuorum
	case zk.ErrUnavailable, zk.ErrTimeout:
		return exitUnreachable
	case zk.ErrBadArguments, zk.ErrInvalidACL, zk.ErrTooLarge:
		return exitUsage
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitUnreachable
	}
	return exitInternal
}

// commands is the tree of commands, which one-shot use, scripts and the shell have in common.
func (a *app) commands() *cobra.Command {
	root := &cobra.Command{
		Use:           "zkctl",
		Short:         "Look into a ZooKeeper ensemble, or serve one",
		Long:          "zkctl speaks ZooKeeper's client protocol, with ensembles of package zk and with Apache ZooKeeper.\nWithout a command it is a shell; its commands are read from the standard input if that is no terminal.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q; see zkctl help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.shell {
				return nil
			}
			return a.runShell()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = a.shell
	if !a.shell {
		flags := root.PersistentFlags()
		flags.StringVar(&a.servers, "server", envOr("ZK_SERVERS", "127.0.0.1:2181"), "servers, `host:port[,host:port...][/chroot]`; default $ZK_SERVERS or")
		flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long a command may take, and the session's timeout")
		flags.StringArrayVar(&a.auth, "auth", nil, "an identity, as `digest:user:password`; may be repeated")
		flags.StringVarP(&a.output, "output", "o", "text", "how to print: `text`, json or raw")
		flags.StringVar(&a.tls.ca, "ca", "", "connect over TLS and trust the authorities in this PEM `file`")
		flags.StringVar(&a.tls.cert, "cert", "", "a client certificate, PEM `file`; needs --key")
		flags.BoolVar(&a.readOnly, "read-only", false, "be content with a server that has lost its quorum")
		flags.BoolVar(&a.legacy, "legacy", false, "ask for nothing that ZooKeeper 3.4 lacks; for servers before 3.6")
		flags.StringVar(&a.tls.key, "key", "", "its key, PEM `file`")
		root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.check() }
	}
	for _, cmd := range [...]*cobra.Command{
		a.lsCommand(), a.getCommand(), a.statCommand(), a.watchCommand(),
		a.createCommand(), a.setCommand(), a.deleteCommand(), a.deleteAllCommand(),
	} {
		root.AddCommand(cmd)
	}
	if a.shell {
		root.AddCommand(a.addAuthCommand())
	} else {
		root.AddCommand(serveCommand(a))
	}
	return root
}

// check looks at the flags that all commands have.
func (a *app) check() error {
	switch a.output {
	case "text", "json", "raw":
	default:
		return usagef("--output %s: it is text, json or raw", a.output)
	}
	if a.timeout <= 0 {
		return usagef("--timeout %v: it must be positive", a.timeout)
	}
	if (a.tls.cert == "") != (a.tls.key == "") {
		return usagef("--cert and --key go together")
	}
	return nil
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// arguments makes a command take from so many arguments to so many.
func arguments(from, to int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < from || len(args) > to {
			return usagef("usage: zkctl %s", cmd.Use)
		}
		return nil
	}
}

// dial returns the client, connected, and a context for one command.
func (a *app) dial(ctx context.Context) (context.Context, context.CancelFunc, *wire.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	if a.client != nil && a.client.Err() == nil {
		return ctx, cancel, a.client, nil
	}
	cfg, err := a.clientConfig()
	if err == nil {
		a.client, err = wire.Dial(ctx, cfg)
	}
	if err != nil {
		cancel()
		a.client = nil
		return nil, nil, nil, err
	}
	return ctx, cancel, a.client, nil
}

func (a *app) clientConfig() (cfg wire.ClientConfig, err error) {
	servers, chroot, _ := strings.Cut(a.servers, "/")
	if chroot != "" {
		cfg.Chroot = "/" + chroot
	}
	for s := range strings.SplitSeq(servers, ",") {
		if err := hostPort(s); err != nil {
			return cfg, usagef("--server: %w", err)
		}
		cfg.Servers = append(cfg.Servers, s)
	}
	for _, text := range a.auth {
		scheme, cred, ok := strings.Cut(text, ":")
		if !ok || scheme == "" {
			return cfg, usagef("--auth: it is scheme:credential, such as digest:user:password")
		}
		cfg.Auth = append(cfg.Auth, zk.Auth{Scheme: scheme, Cred: []byte(cred)})
	}
	cfg.Timeout = a.timeout
	cfg.ReadOnly = a.readOnly
	cfg.Legacy = a.legacy
	cfg.TLS, err = a.tls.client()
	return cfg, err
}

// tlsFiles name PEM files.
type tlsFiles struct{ ca, cert, key string }

// client returns nil where no file is named.
func (f tlsFiles) client() (*tls.Config, error) {
	if f == (tlsFiles{}) {
		return nil, nil
	}
	cfg := &tls.Config{}
	var err error
	if f.ca != "" {
		if cfg.RootCAs, err = authorities(f.ca); err != nil {
			return nil, err
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, usageError{err}
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError{err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("%s has no certificate", file)
	}
	return pool, nil
}
