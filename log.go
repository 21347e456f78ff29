// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quietLogger is the logger of a member: the user's, or slog.Default for warnings and errors alone.
func quietLogger(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.New(warnings{})
}

// warnings hands warnings and errors to whatever is the default logger at that time.
type warnings struct {
	with func(slog.Handler) slog.Handler
}

func (w warnings) handler() slog.Handler {
	h := slog.Default().Handler()
	if w.with != nil {
		h = w.with(h)
	}
	return h
}

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.handler().Enabled(ctx, l)
}

func (w warnings) Handle(ctx context.Context, r slog.Record) error { return w.handler().Handle(ctx, r) }

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler {
	return warnings{func(h slog.Handler) slog.Handler { return warnings{w.with}.wrap(h).WithAttrs(a) }}
}

func (w warnings) WithGroup(name string) slog.Handler {
	return warnings{func(h slog.Handler) slog.Handler { return warnings{w.with}.wrap(h).WithGroup(name) }}
}

func (w warnings) wrap(h slog.Handler) slog.Handler {
	if w.with != nil {
		return w.with(h)
	}
	return h
}

// tellEvery is how often a member warns of the same kind of trouble (LOG-4).
const tellEvery = 10 * time.Second

// seldom says when to warn of what may happen often.
type seldom struct {
	mu    sync.Mutex
	last  time.Time
	quiet int
}

// tell is true at most once every tellEvery, and says how often it was false since.
func (s *seldom) tell() (quiet int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && time.Since(s.last) < tellEvery {
		s.quiet++
		return 0, false
	}
	quiet, s.last, s.quiet = s.quiet, time.Now(), 0
	return quiet, true
}

// raftLog lets raft write to slog. What raft calls a warning or an error happens in every election and at every
// restart of a peer, so it is a debug record here; the engine reports what matters in its own words.
type raftLog struct {
	log  *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLog)(nil)

func newRaftLog(l *slog.Logger) *raftLog {
	return &raftLog{log: l.With("component", "raft"), name: "raft"}
}

func (r *raftLog) write(level slog.Level, msg string, args []any) {
	r.log.Log(context.Background(), level, msg, args...)
}

// Log implements hclog.Logger.
func (r *raftLog) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Trace:
		r.Trace(msg, args...)
	case hclog.NoLevel, hclog.Debug:
		r.Debug(msg, args...)
	case hclog.Info:
		r.Info(msg, args...)
	case hclog.Warn:
		r.Warn(msg, args...)
	case hclog.Error:
		r.Error(msg, args...)
	}
}

// Trace implements hclog.Logger.
func (r *raftLog) Trace(msg string, args ...any) { r.write(slog.LevelDebug-4, msg, args) }

// Debug implements hclog.Logger.
func (r *raftLog) Debug(msg string, args ...any) { r.write(slog.LevelDebug-4, msg, args) }

// Info implements hclog.Logger.
func (r *raftLog) Info(msg string, args ...any) { r.write(slog.LevelDebug, msg, args) }

// Warn implements hclog.Logger.
func (r *raftLog) Warn(msg string, args ...any) { r.write(slog.LevelDebug, msg, args) }

// Error implements hclog.Logger.
func (r *raftLog) Error(msg string, args ...any) { r.write(slog.LevelDebug, msg, args) }

func (r *raftLog) enabled(l slog.Level) bool { return r.log.Enabled(context.Background(), l) }

// IsTrace implements hclog.Logger.
func (r *raftLog) IsTrace() bool { return r.enabled(slog.LevelDebug - 4) }

// IsDebug implements hclog.Logger.
func (r *raftLog) IsDebug() bool { return r.enabled(slog.LevelDebug - 4) }

// IsInfo implements hclog.Logger.
func (r *raftLog) IsInfo() bool { return r.enabled(slog.LevelDebug) }

// IsWarn implements hclog.Logger.
func (r *raftLog) IsWarn() bool { return r.enabled(slog.LevelDebug) }

// IsError implements hclog.Logger.
func (r *raftLog) IsError() bool { return r.enabled(slog.LevelDebug) }

// ImpliedArgs implements hclog.Logger.
func (r *raftLog) ImpliedArgs() []any { return r.args }

// With implements hclog.Logger.
func (r *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{r.log.With(args...), r.name, append(r.args[:len(r.args):len(r.args)], args...)}
}

// Name implements hclog.Logger.
func (r *raftLog) Name() string { return r.name }

// Named implements hclog.Logger.
func (r *raftLog) Named(name string) hclog.Logger {
	return &raftLog{r.log, r.name + "." + name, r.args}
}

// ResetNamed implements hclog.Logger.
func (r *raftLog) ResetNamed(name string) hclog.Logger { return &raftLog{r.log, name, r.args} }

// SetLevel implements hclog.Logger: the slog handler decides.
func (r *raftLog) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (r *raftLog) GetLevel() hclog.Level {
	if r.IsDebug() {
		return hclog.Debug
	}
	return hclog.Info
}

// StandardLogger implements hclog.Logger.
func (r *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(r.StandardWriter(nil), "", 0)
}

// StandardWriter implements hclog.Logger.
func (r *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return rawLog{r} }

type rawLog struct{ log *raftLog }

func (w rawLog) Write(p []byte) (int, error) {
	w.log.Debug(string(p))
	return len(p), nil
}
