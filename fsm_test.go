// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"fmt"
	"testing"
)

// What a large deletion tells watchers is not kept when they have been told.
func TestChangesDoNotStay(t *testing.T) {
	ctx, m, s := alone(t, Config{})
	for i := range 4 {
		var ops []Op
		for j := range 500 {
			ops = append(ops, OpCreate(fmt.Sprintf("/d/%d/%d", i, j), nil, Parents))
		}
		if _, err := s.Txn(ctx, ops...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteTree(ctx, "/d"); err != nil {
		t.Fatal(err)
	}
	m.fsm.reading(func() {
		if n := cap(m.fsm.st.changes); n > changesKept {
			t.Errorf("room for %d changes is left", n)
		}
		for _, c := range m.fsm.st.changes[:cap(m.fsm.st.changes)] {
			if c != (change{}) {
				t.Fatalf("%+v is left", c)
			}
		}
	})
}
