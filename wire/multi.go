// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/seed-541fafe0/zk"

// decodeMulti reads the steps of a multi up to its end. A step that may not be there makes the whole undecodable
// (DM-55, WP-33). The opcodes of the steps are kept for the answer.
func decodeMulti(d *decoder, r *request) {
	var kinds []opcode
	for {
		var h multiHeader
		h.decode(d)
		if d.err != nil || h.done {
			break
		}
		switch h.op {
		case opCreate, opCreate2, opCreateContainer, opCreateTTL:
			var q createRequest
			q.decode(d, h.op)
			if h.op = stepOpcode(h.op, q.flags); h.op == opError {
				d.fail()
			}
			r.ops = append(r.ops, createOp(&q, h.op))
		case opDelete:
			path, version := d.string(), d.int()
			r.ops = append(r.ops, zk.OpDelete(path, version))
		case opSetData:
			path, data, version := d.string(), d.buffer(), d.int()
			r.ops = append(r.ops, zk.OpSet(path, data, version))
		case opCheck:
			path, version := d.string(), d.int()
			r.ops = append(r.ops, zk.OpCheck(path, version))
		default:
			d.fail()
		}
		kinds = append(kinds, h.op)
	}
	r.body = kinds
}

// stepOpcode is what a create comes to among the steps of a multi: there ZooKeeper goes by the flags, and only
// createTTL brings the time to live that two of them need (WP-31).
func stepOpcode(op opcode, flags int32) opcode {
	switch {
	case flags == flagContainer:
		return opCreateContainer
	case flags != flagPersistentTTL && flags != flagPersistentSequentTTL:
		return opCreate
	case op == opCreateTTL:
		return opCreateTTL
	}
	return opError
}

// appendMulti appends the results of a multi: of one that failed an error for each step (DM-58, WP-31, WP-32).
func appendMulti(b []byte, r *request, call *zk.Call) []byte {
	if call.Error != nil {
		for _, code := range call.Codes {
			b = appendStepError(b, visible(code))
		}
		return multiEnd.append(b)
	}
	for i, op := range r.body.([]opcode) {
		res := &call.Results[i]
		switch op {
		case opCreate:
			b = appendString(multiHeader{op: op}.append(b), res.Path)
		case opCreateContainer, opCreateTTL:
			b = appendString(multiHeader{op: opCreate2}.append(b), res.Path)
			b = appendStat(b, res.Stat)
		case opSetData:
			b = appendStat(multiHeader{op: op}.append(b), res.Stat)
		default:
			b = multiHeader{op: op}.append(b)
		}
	}
	return multiEnd.append(b)
}

// appendStepError appends the result of a step that failed, or was rolled back with one that did: the code twice.
func appendStepError(b []byte, code zk.Code) []byte {
	return appendInt(multiHeader{op: opError, code: code}.append(b), int32(code))
}

// decodeMultiRead reads the parts of a multiRead; their watch flags are ignored (DM-55).
func decodeMultiRead(d *decoder, r *request) {
	var reads []zk.ReadRequest
	for {
		var h multiHeader
		h.decode(d)
		if d.err != nil || h.done {
			break
		}
		if h.op != opGetData && h.op != opGetChildren {
			d.fail()
			break
		}
		reads = append(reads, zk.ReadRequest{Path: d.string(), Children: h.op == opGetChildren})
		d.bool()
	}
	r.body = reads
}

func answerMultiRead(c *conn, r *request, b []byte) ([]byte, zk.Zxid, error) {
	reads := r.body.([]zk.ReadRequest)
	results, z, err := c.listener.MultiRead(c.ctx, reads...)
	if err != nil {
		return b, z, err
	}
	for i := range results {
		switch res := &results[i]; {
		case res.Code != 0:
			b = appendStepError(b, res.Code)
		case reads[i].Children:
			b = appendStrings(multiHeader{op: opGetChildren}.append(b), res.Names)
		default:
			b = appendBuffer(multiHeader{op: opGetData}.append(b), res.Data)
			b = appendStat(b, res.Stat)
		}
	}
	return multiEnd.append(b), z, nil
}
