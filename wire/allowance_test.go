// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"slices"

	"github.com/seed-541fafe0/zk"
)

// has says whether the step, or a step of the multi, is such a one.
func (s step) has(such func(step) bool) bool { return such(s) || slices.ContainsFunc(s.multi, such) }

// allowances are the differences from ZooKeeper 3.8.0 that are meant, each with the rule that allows it. The same
// table, in words, is in docs/compatibility.md.
var allowances = []struct {
	id, rule string
	match    func(*difference) bool
}{
	{"watch-types", "WT-27", func(d *difference) bool {
		return d.what == "code" && (d.step.op == opCheckWatches || d.step.op == opRemoveWatches) && (d.step.number == 4 || d.step.number == 5) && d.real.header.code == zk.ErrMarshalling
	}},
	{"container-flags", "DM-22", func(d *difference) bool {
		return (d.what == "code" || d.what == "answer") && d.step.has(func(s step) bool {
			return d.step.op != opMulti && s.op == opCreateContainer && s.flags >= 1 && s.flags <= 3 || (s.op == opCreate || s.op == opCreate2) && s.flags == 4
		})
	}},
	{"exists-needs-read", "DM-45", func(d *difference) bool {
		return d.what == "code" && d.step.op == opExists && d.real.header.code == 0 && d.our.header.code == zk.ErrNoAuth
	}},
	{"check-watches-of-others", "WT-27", func(d *difference) bool {
		return d.what == "code" && d.step.op == opCheckWatches && d.real.header.code == 0 && d.our.header.code == zk.ErrNoWatch
	}},
	{"check-watches-path", "WT-27", func(d *difference) bool {
		return d.what == "code" && d.step.op == opCheckWatches && d.real.header.code == zk.ErrMarshalling && zk.ValidPath(full("", d.step.path)) != nil
	}},
	{"multi-ttl-flags", "WP-33", func(d *difference) bool {
		return d.what == "code" && slices.ContainsFunc(d.step.multi, func(s step) bool { return s.op != opCreateTTL && (s.flags == 5 || s.flags == 6) }) && d.our.header.code == zk.ErrMarshalling
	}},
}
