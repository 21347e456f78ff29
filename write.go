// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stat is what is known of a znode besides its data (section 5 of docs/spec/data-model.md).
type Stat struct {
	Czxid, Mzxid, Pzxid         Zxid // of its creation, its last Set, the last change of its children
	Ctime, Mtime                time.Time
	Version, Cversion, Aversion int32
	EphemeralOwner              SessionID
	DataLength, NumChildren     int
}

func (s *stat) public() Stat {
	return Stat{
		Czxid: s.czxid, Mzxid: s.mzxid, Pzxid: s.pzxid, Ctime: time.UnixMilli(s.ctime), Mtime: time.UnixMilli(s.mtime),
		Version: s.version, Cversion: s.cversion, Aversion: s.aversion, EphemeralOwner: s.owner,
		DataLength: s.dataLength, NumChildren: s.numChildren,
	}
}

// Result is the outcome of one step of a transaction.
type Result struct {
	Path string // final path, sequence included
	Stat Stat   // after the step; zero for deletes and checks
}

// WithTTL gives a create a time to live: the znode is deleted once it is childless and has not been Set for d,
// between one millisecond and 34 years (DM-19, DM-82). It goes with Persistent and Sequential only.
func (o Op) WithTTL(d time.Duration) Op { return o.withTTL(d.Milliseconds()) }

func badContext(op string) error {
	return &Error{Op: op, Code: ErrBadArguments, Err: errors.New("nil context")}
}

// ctxError reports that ctx ended before anything could have happened.
func ctxError(op, path string, ctx context.Context) error {
	return &Error{Op: op, Path: path, Code: ErrUnavailable, Err: ctxCause(ctx)}
}

// ctxCause joins the context's error and its cause, so that both can be asked for.
func ctxCause(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// codeOf finds the Code in err; ErrSystem where there is none.
func codeOf(err error) Code {
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	return ErrSystem
}

// begin is the first check of every call.
func (s *Session) begin(ctx context.Context, op, path string) error {
	if ctx == nil {
		return badContext(op)
	}
	if ctx.Err() != nil {
		return ctxError(op, path, ctx)
	}
	if err := s.Err(); err != nil {
		e := &Error{Op: op, Path: path, Code: codeOf(err)}
		if e.Code == ErrClosed {
			e.Err = s.m.Err() // why the member stopped, if it did
		}
		return e
	}
	if s.closing.Load() {
		return &Error{Op: op, Path: path, Code: ErrClosed}
	}
	return nil
}

func (s *Session) checkPath(op, path, full string) error {
	why := badPath(full)
	if path == "" || path[0] != '/' { // what Sub puts in front must not make it right
		why = badPath(path)
	}
	if why != "" {
		return &Error{Op: op, Path: path, Code: ErrBadArguments, Err: pathProblem(why)}
	}
	return nil
}

// Create creates a znode and returns it; the path includes the sequence number, if one was asked for. Data is
// copied, nil is stored as null. The ACL is OpenACL: use OpCreate and Do for another one, or for a TTL. Errors:
// ErrNodeExists, ErrNoNode (parent), ErrNoChildrenForEphemerals, ErrNoAuth, ErrQuotaExceeded, ErrTooLarge,
// ErrThrottled, ErrBadArguments, and those of every write.
func (s *Session) Create(ctx context.Context, path string, data []byte, mode CreateMode) (Znode, error) {
	o := OpCreate(path, data, mode)
	r, err := s.Do(ctx, o)
	if err != nil {
		return Znode{}, err
	}
	return Znode{Path: r.Path, Data: o.data, Stat: r.Stat}, nil
}

// Set replaces a znode's data if its version is the one given, or AnyVersion. Errors: ErrNoNode, ErrBadVersion,
// ErrNoAuth, ErrQuotaExceeded, ErrTooLarge, and those of every write.
func (s *Session) Set(ctx context.Context, path string, data []byte, version int32) (Stat, error) {
	r, err := s.Do(ctx, OpSet(path, data, version))
	return r.Stat, err
}

// Delete removes a childless znode if its version is the one given, or AnyVersion. Errors: ErrNoNode,
// ErrNotEmpty, ErrBadVersion, ErrNoAuth, and those of every write.
func (s *Session) Delete(ctx context.Context, path string, version int32) error {
	_, err := s.Do(ctx, OpDelete(path, version))
	return err
}

// DeleteTree removes a znode and everything below it in one transaction: nobody sees a part. It refuses, with
// ErrTooLarge, more than 100,000 znodes, because readers wait meanwhile.
func (s *Session) DeleteTree(ctx context.Context, path string) error {
	_, err := s.Do(ctx, Op{kind: opDeleteTree, path: path})
	return err
}

// SetACL replaces a znode's access control list if its aversion is the one given, or AnyVersion (DM-43).
func (s *Session) SetACL(ctx context.Context, path string, acl []ACL, version int32) (Stat, error) {
	r, err := s.Do(ctx, OpSetACL(path, acl, version))
	return r.Stat, err
}

// Do performs a single step.
func (s *Session) Do(ctx context.Context, op Op) (Result, error) {
	results, err := s.transact(ctx, op.name(), op)
	if err != nil {
		return Result{}, err
	}
	return results[0], nil
}

// Txn performs all steps or none, under one zxid (DM-55 to DM-65): each is checked against what the earlier ones
// would leave, and no reader sees a part. When a step fails the error unwraps to *TxnError. No steps are a
// transaction too. At most Config.MaxTxnOps steps.
func (s *Session) Txn(ctx context.Context, ops ...Op) ([]Result, error) {
	return s.transact(ctx, "txn", ops...)
}

// TxnLate is Txn for callers that have to clean up after themselves. If ctx ends when nobody knows yet whether the
// transaction is applied, TxnLate returns as Txn does, with MaybeApplied, and the member goes on driving it; late is
// then called once, on a goroutine of its own, when the outcome is known, with what Txn would have returned. In all
// other cases late is not called (E10). The member's Close waits for late, up to its bound: late must not
// close the member. What late writes once the member is stopping is refused with ErrClosed.
func (s *Session) TxnLate(ctx context.Context, late func([]Result, error), ops ...Op) ([]Result, error) {
	raw, err := s.encodeChecked(ctx, "txn", "", ops)
	if err != nil {
		return nil, err
	}
	out, err := s.m.writes.submitLate(ctx, "txn", "", raw, func(out outcome, err error) {
		if err == nil {
			s.audited("txn", ops, out, nil)
		} else {
			late(nil, &Error{Op: "txn", Code: codeOf(err), MaybeApplied: true, Err: unlessCode(err)})
			return
		}
		late(s.results("txn", ops, out))
	})
	s.audited("txn", ops, out, err)
	if err != nil {
		return nil, err
	}
	return s.results("txn", ops, out)
}

func (s *Session) transact(ctx context.Context, op string, ops ...Op) ([]Result, error) {
	path := ""
	if len(ops) == 1 {
		path = ops[0].path
	}
	raw, err := s.encodeChecked(ctx, op, path, ops)
	if err != nil {
		return nil, err
	}
	out, err := s.m.writes.submit(ctx, op, path, raw)
	s.audited(op, ops, out, err)
	if err != nil {
		return nil, err
	}
	return s.results(op, ops, out)
}

// encodeChecked is encode with paths.
func (s *Session) encodeChecked(ctx context.Context, op, path string, ops []Op) ([]byte, error) {
	defer s.hold()()
	return s.encode(ctx, op, path, ops, true)
}

// encode checks a transaction and puts it into bytes. What it refuses never reaches the log. With paths, it also
// refuses bad paths and too many steps; without, the state is left to do so, in its own order. What a local session
// sends is decided here: see hold.
func (s *Session) encode(ctx context.Context, op, path string, ops []Op, paths bool) ([]byte, error) {
	if err := s.begin(ctx, op, path); err != nil {
		return nil, err
	}
	if s.readOnly {
		return nil, &Error{Op: op, Path: path, Code: ErrNotReadOnly}
	}
	cfg := &s.m.cfg
	if paths && len(ops) > cfg.MaxTxnOps {
		return nil, &Error{Op: op, Code: ErrTooLarge, Err: fmt.Errorf("%d steps, at most %d are allowed", len(ops), cfg.MaxTxnOps)}
	}
	size := 64
	if s.prefix != "" {
		ops = append([]Op{}, ops...)
	}
	for i := range ops {
		o := &ops[i]
		path := o.path
		if s.prefix != "" {
			o.path = s.full(path)
		}
		test := o.path
		if o.kind == opCreate && o.mode&Sequential != 0 {
			test += "0" // DM-10
		}
		if o.kind == 0 || o.kind == opDeleteTree && len(ops) > 1 {
			return nil, &Error{Op: op, Path: path, Code: ErrBadArguments, Err: errors.New("not a valid step")}
		}
		if paths {
			if err := s.checkPath(op, path, test); err != nil {
				return nil, err
			}
		}
		if len(o.data) > cfg.MaxValueSize {
			return nil, &Error{Op: op, Path: path, Code: ErrTooLarge, Err: fmt.Errorf("value of %d bytes, at most %d are allowed", len(o.data), cfg.MaxValueSize)}
		}
		size += len(o.path) + len(o.data) + 32
	}
	q := request{kind: reqTxn, session: s.id, mark: s.mark, ops: ops}
	if s.standing.Load() == standsLocal {
		q = request{kind: reqLocal, ids: s.identities(), ops: ops}
	}
	raw := appendRequest(make([]byte, 0, size), &q)
	if limit := max(maxRequestBytes, cfg.MaxValueSize+maxRequestExtra); len(raw) > limit {
		return nil, &Error{Op: op, Path: path, Code: ErrTooLarge, Err: fmt.Errorf("transaction of %d bytes, at most %d are allowed", len(raw), limit)}
	}
	return raw, nil
}

const (
	maxRequestBytes = 1 << 20
	maxRequestExtra = 64 << 10 // for paths and lists around one large value
)

// results turns an outcome into what the caller sees.
func (s *Session) results(op string, ops []Op, out outcome) ([]Result, error) {
	s.wrote(out.zxid)
	if out.code != 0 {
		e := &Error{Op: op, Code: out.code}
		if len(ops) == 1 {
			e.Path = ops[0].path
		}
		if op == "txn" && len(ops) > 0 && len(out.steps) == len(ops) {
			t := &TxnError{Steps: make([]error, len(ops))}
			for i := range ops {
				switch c := out.steps[i].code; c {
				case 0, ErrInconsistent:
					t.Steps[i] = ErrRolledBack
				default:
					t.Index = i
					t.Steps[i] = &Error{Op: ops[i].name(), Path: ops[i].path, Code: c}
					e.Path = ops[i].path
				}
			}
			e.Err = t
		}
		return nil, e
	}
	results := make([]Result, len(out.steps))
	for i := range out.steps {
		r := &out.steps[i]
		results[i].Path = s.local(r.path)
		if r.stat.czxid != 0 || r.stat.pzxid != 0 || ops[i].kind == opSet || ops[i].kind == opSetACL {
			results[i].Stat = r.stat.public()
		}
	}
	return results, nil
}

func (l *live) wrote(z Zxid) {
	for {
		have := l.written.Load()
		if int64(z) <= have || l.written.CompareAndSwap(have, int64(z)) {
			return
		}
	}
}
