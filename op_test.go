// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// What a step is can be asked for; its text has everything in it and never changes, because checksums are made of it.
func TestOpText(t *testing.T) {
	acl := []zk.ACL{{Perm: zk.PermRead | zk.PermWrite, Scheme: "digest", ID: "a:b c"}}
	for _, o := range []struct {
		op   zk.Op
		name string
		mode zk.CreateMode
		data string // "null" where it is nil
		text string
	}{
		{zk.Op{}, "op", 0, "null", `op ""`},
		{zk.OpCreate("/a", nil, zk.Persistent), "create", 0, "null", `create "/a" null persistent`},
		{zk.OpCreate("/a b", []byte{}, zk.Ephemeral|zk.Sequential), "create", zk.Ephemeral | zk.Sequential, "", `create "/a b" "" ephemeral|sequential`},
		{zk.OpCreate("/é", []byte("x\"\xff\n"), zk.Parents).WithTTL(time.Second).WithACL(acl...), "create", zk.Parents, "x\"\xff\n", `create "/\u00e9" "x\"\xff\n" parents ttl 1000 acl 3:"digest:a:b c"`},
		{zk.OpSet("/a", []byte("null"), 3), "set", 0, "null", `set "/a" "null" version 3`},
		{zk.OpSet("/a", nil, zk.AnyVersion), "set", 0, "null", `set "/a" null version -1`},
		{zk.OpDelete("/a", 0), "delete", 0, "null", `delete "/a" version 0`},
		{zk.OpCheck("/a", 1), "check", 0, "null", `check "/a" version 1`},
		{zk.OpCheckCreated("/a", 7), "check created", 0, "null", `check created "/a" 7`},
		{zk.OpCheckAbsent("/a"), "check absent", 0, "null", `check absent "/a"`},
		{zk.OpCheckChildren("/a", zk.LessEq, 5), "check children", 0, "null", `check children "/a" <= 5`},
		{zk.OpSetACL("/a", nil, 2), "set acl", 0, "null", `set acl "/a" version 2 acl`},
	} {
		data := "null"
		if b := o.op.Data(); b != nil {
			data = string(b)
			clear(b) // a copy
		}
		text, err := o.op.AppendText([]byte("> "))
		if o.op.Name() != o.name || o.op.Mode() != o.mode || data != o.data || string(text) != "> "+o.text || err != nil {
			t.Errorf("%s, %s, %s, %v, %v", o.op.Name(), o.op.Mode(), data, string(text), err)
		}
	}
}
