// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Op is one step of a Client's transaction. Build it with the functions below, which are those of zk.Op as far as
// the protocol goes; the zero Op is invalid. An Op is a plain value and may be used again.
type Op struct {
	op      opcode
	path    string
	data    []byte
	mode    zk.CreateMode
	ttl     time.Duration
	hasTTL  bool
	acl     []zk.ACL
	version int32
}

// OpCreate creates a znode (DM-40). Data is copied; nil is stored as null. The default ACL is zk.OpenACL. zk.Parents
// is not part of the protocol.
func OpCreate(path string, data []byte, mode zk.CreateMode) Op {
	return Op{op: opCreate2, path: path, data: bytes.Clone(data), mode: mode, acl: zk.OpenACL()}
}

// OpSet replaces a znode's data if its version is the one given, or zk.AnyVersion (DM-42).
func OpSet(path string, data []byte, version int32) Op {
	return Op{op: opSetData, path: path, data: bytes.Clone(data), version: version}
}

// OpDelete removes a childless znode if its version is the one given, or zk.AnyVersion (DM-41).
func OpDelete(path string, version int32) Op { return Op{op: opDelete, path: path, version: version} }

// OpCheck fails the transaction unless the znode exists with that version, or zk.AnyVersion (DM-44).
func OpCheck(path string, version int32) Op { return Op{op: opCheck, path: path, version: version} }

// WithACL gives a create its access control list.
func (o Op) WithACL(acl ...zk.ACL) Op {
	o.acl = slices.Clone(acl)
	return o
}

// WithTTL gives a create a time to live, in whole milliseconds from 1 to 2^40-1 (DM-19). It goes with
// zk.Persistent and zk.Sequential only.
func (o Op) WithTTL(d time.Duration) Op {
	o.ttl, o.hasTTL = d, true
	return o
}

// Path returns the path the step is about.
func (o Op) Path() string { return o.path }

func (o *Op) name() string {
	switch o.op {
	case opCreate2:
		return "create"
	case opSetData:
		return "set"
	case opDelete:
		return "delete"
	case opCheck:
		return "check"
	}
	return "op"
}

// create returns the opcode and the flags of a create.
func (o *Op) create() (opcode, int32, error) {
	if o.hasTTL {
		switch o.mode {
		case zk.Persistent:
			return opCreateTTL, flagPersistentTTL, nil
		case zk.Sequential:
			return opCreateTTL, flagPersistentSequentTTL, nil
		}
		return 0, 0, errors.New("a time to live goes with persistent znodes only")
	}
	switch o.mode {
	case zk.Persistent:
		return opCreate2, flagPersistent, nil
	case zk.Ephemeral:
		return opCreate2, flagEphemeral, nil
	case zk.Sequential:
		return opCreate2, flagSequential, nil
	case zk.Ephemeral | zk.Sequential:
		return opCreate2, flagEphemeralSequential, nil
	case zk.Container:
		return opCreateContainer, flagContainer, nil
	}
	return 0, 0, errors.New("the protocol has no mode " + o.mode.String())
}

// prepare checks a step and returns its opcode, its body and roughly its size.
func (c *Client) prepare(o *Op) (opcode, func([]byte) []byte, int, error) {
	path := o.path
	if o.op == opCreate2 && o.mode&zk.Sequential != 0 {
		path += "0" // the name may end in a slash (DM-9)
	}
	if err := zk.ValidPath(path); err != nil {
		return 0, nil, 0, err
	}
	full, size := c.full(o.path), 32+len(c.chroot)+len(o.path)+len(o.data)
	switch o.op {
	case opCreate2:
		op, flags, err := o.create()
		if err != nil {
			return 0, nil, 0, err
		}
		if op == opCreate2 && c.cfg.Legacy {
			op = opCreate
		}
		for _, a := range o.acl {
			size += 12 + len(a.Scheme) + len(a.ID)
		}
		r := createRequest{path: full, data: o.data, acl: o.acl, flags: flags, ttl: o.ttl.Milliseconds()}
		return op, func(b []byte) []byte { return r.append(b, op) }, size, nil
	case opSetData:
		return o.op, func(b []byte) []byte { return appendInt(appendBuffer(appendString(b, full), o.data), o.version) }, size, nil
	case opDelete, opCheck:
		return o.op, func(b []byte) []byte { return appendInt(appendString(b, full), o.version) }, size, nil
	}
	return 0, nil, 0, errors.New("an Op that no function has made")
}

// result reads the outcome of a step that went well.
func (c *Client) result(d *decoder, op opcode) (r zk.Result) {
	switch op {
	case opCreate:
		r.Path = c.local(d.string())
	case opCreate2, opCreateContainer, opCreateTTL:
		r.Path = c.local(d.string())
		r.Stat = d.stat()
	case opSetData:
		r.Stat = d.stat()
	}
	return r
}

// Do performs a single step.
func (c *Client) Do(ctx context.Context, op Op) (zk.Result, error) {
	if op.op == opCheck { // the protocol has no such request but in a transaction
		results, err := c.Txn(ctx, op)
		if err != nil {
			return zk.Result{}, err
		}
		return results[0], nil
	}
	code, body, size, err := c.prepare(&op)
	if err != nil {
		return zk.Result{}, &zk.Error{Op: op.name(), Path: op.path, Code: zk.ErrBadArguments, Err: err}
	}
	var r zk.Result
	err = c.do(ctx, clientRequest{op: code, name: op.name(), path: op.path, size: size, body: body, decode: func(d *decoder) { r = c.result(d, code) }})
	if err != nil {
		return zk.Result{}, err
	}
	if r.Path == "" {
		r.Path = op.path
	}
	return r, nil
}

// Create creates a znode with the ACL zk.OpenACL and returns it; the path includes the sequence number, if one was
// asked for. Data is copied, nil is stored as null. With ClientConfig.Legacy the Stat is zero. Use OpCreate and Do for
// another ACL, or for a TTL. Errors: ErrNodeExists, ErrNoNode (parent), ErrNoChildrenForEphemerals, ErrNoAuth, ErrQuotaExceeded, ErrTooLarge,
// ErrBadArguments, and those of every write: ErrUnavailable with MaybeApplied, ErrSessionExpired, ErrClosed.
func (c *Client) Create(ctx context.Context, path string, data []byte, mode zk.CreateMode) (zk.Znode, error) {
	r, err := c.Do(ctx, OpCreate(path, data, mode))
	if err != nil {
		return zk.Znode{}, err
	}
	return zk.Znode{Path: r.Path, Data: string(data), Stat: r.Stat}, nil
}

// Set replaces a znode's data if its version is the one given, or zk.AnyVersion. Errors: ErrNoNode, ErrBadVersion,
// ErrNoAuth, ErrQuotaExceeded, ErrTooLarge, and those of every write.
func (c *Client) Set(ctx context.Context, path string, data []byte, version int32) (zk.Stat, error) {
	r, err := c.Do(ctx, OpSet(path, data, version))
	return r.Stat, err
}

// Delete removes a childless znode if its version is the one given, or zk.AnyVersion. Errors: ErrNoNode, ErrNotEmpty,
// ErrBadVersion, ErrNoAuth, and those of every write.
func (c *Client) Delete(ctx context.Context, path string, version int32) error {
	_, err := c.Do(ctx, OpDelete(path, version))
	return err
}

// clientStep is one result of a multi.
type clientStep struct {
	zk.Result
	code zk.Code
}

// steps reads the results of a multi (section 5 of docs/spec/wire-protocol.md).
func (c *Client) steps(d *decoder, want int) (steps []clientStep) {
	for {
		var h multiHeader
		h.decode(d)
		if d.err != nil || h.done != (len(steps) == want) {
			d.fail()
			return nil
		}
		if h.done {
			return steps
		}
		var s clientStep
		if h.op == opError {
			s.code = zk.Code(d.int())
		} else {
			s.Result = c.result(d, h.op)
		}
		steps = append(steps, s)
	}
}

// Txn performs all steps or none, under one zxid (DM-55 to DM-65). When a step fails the error unwraps to
// *zk.TxnError. No steps are a transaction too.
func (c *Client) Txn(ctx context.Context, ops ...Op) ([]zk.Result, error) {
	q := clientRequest{op: opMulti, name: "txn"}
	bodies := make([]func([]byte) []byte, len(ops))
	codes := make([]opcode, len(ops))
	for i := range ops {
		code, body, size, err := c.prepare(&ops[i])
		if err != nil {
			return nil, &zk.Error{Op: "txn", Path: ops[i].path, Code: zk.ErrBadArguments, Err: err}
		}
		if !c.knows(code) {
			return nil, &zk.Error{Op: "txn", Path: ops[i].path, Code: zk.ErrUnimplemented, Err: errLegacy}
		}
		bodies[i], codes[i] = body, code
		q.size += size
	}
	q.body = func(b []byte) []byte {
		for i, body := range bodies {
			b = body(multiHeader{op: codes[i], code: -1}.append(b))
		}
		return multiEnd.append(b)
	}
	var steps []clientStep
	q.decode = func(d *decoder) { steps = c.steps(d, len(ops)) }
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	results := make([]zk.Result, len(ops))
	for i := range steps {
		if steps[i].code != 0 {
			return nil, txnError(ops, steps)
		}
		if results[i] = steps[i].Result; results[i].Path == "" {
			results[i].Path = ops[i].path
		}
	}
	return results, nil
}

// txnError tells which step failed: the first whose code is not 0 (DM-58).
func txnError(ops []Op, steps []clientStep) error {
	e := &zk.Error{Op: "txn"}
	t := &zk.TxnError{Steps: make([]error, len(ops))}
	for i := range steps {
		code := steps[i].code
		if code == 0 || code == zk.ErrInconsistent || e.Code != 0 {
			t.Steps[i] = zk.ErrRolledBack
			continue
		}
		e.Path, e.Code, t.Index = ops[i].path, code, i
		t.Steps[i] = &zk.Error{Op: ops[i].name(), Path: ops[i].path, Code: code}
	}
	if e.Code == 0 { // no server says so, but what failed did not happen
		e.Code, t.Steps[0] = zk.ErrInconsistent, zk.ErrInconsistent
	}
	e.Err = t
	return e
}

// MultiRead answers all requests from one state, each for itself (DM-66).
func (c *Client) MultiRead(ctx context.Context, reads ...zk.ReadRequest) ([]zk.ReadResult, error) {
	q := clientRequest{op: opMultiRead, name: "multi read", read: true}
	reads = slices.Clone(reads)
	for _, r := range reads {
		if err := zk.ValidPath(r.Path); err != nil {
			return nil, &zk.Error{Op: q.name, Path: r.Path, Code: zk.ErrBadArguments, Err: err}
		}
		q.size += 16 + len(c.chroot) + len(r.Path)
	}
	q.body = func(b []byte) []byte {
		for _, r := range reads {
			op := opGetData
			if r.Children {
				op = opGetChildren
			}
			b = multiHeader{op: op, code: -1}.append(b)
			b = appendBool(appendString(b, c.full(r.Path)), false)
		}
		return multiEnd.append(b)
	}
	var results []zk.ReadResult
	q.decode = func(d *decoder) { results = readResults(d, len(reads)) }
	if err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return results, nil
}

// readResults reads the results of a multiRead.
func readResults(d *decoder, want int) (results []zk.ReadResult) {
	for {
		var h multiHeader
		h.decode(d)
		if d.err != nil || h.done != (len(results) == want) {
			d.fail()
			return nil
		}
		if h.done {
			return results
		}
		var r zk.ReadResult
		switch h.op {
		case opError:
			r.Code = zk.Code(d.int())
		case opGetData:
			r.Data, r.Stat = bytes.Clone(d.buffer()), d.stat()
		case opGetChildren:
			r.Names = d.strings()
			slices.Sort(r.Names)
		default:
			d.fail()
		}
		results = append(results, r)
	}
}
