// SPDX-License-Identifier: Apache-2.0

package house

import (
	"go/doc"
	"strings"
	"testing"
)

// TestLeaksAreLookedFor checks that every package with tests fails when they leave a goroutine behind. Modules of
// their own choose what they require.
func TestLeaksAreLookedFor(t *testing.T) {
	looked := map[string]bool{}
	for _, f := range source(t).files {
		if f.test && !f.nested {
			looked[f.dir] = looked[f.dir] || strings.Contains(string(f.src), "goleak.VerifyTestMain(")
		}
	}
	for dir, ok := range looked {
		if !ok {
			t.Errorf("%s has tests, and no TestMain that calls goleak.VerifyTestMain", dir)
		}
	}
}

// TestExamples checks that every package for importers shows its use, in examples that are run.
func TestExamples(t *testing.T) {
	shown := map[string]bool{}
	for _, f := range source(t).files {
		if f.nested || f.isMain() || under(f.dir, "internal") {
			continue
		}
		shown[f.dir] = shown[f.dir] || f.test && strings.Contains(string(f.src), "// Output:") && len(doc.Examples(f.ast)) > 0
	}
	for dir, ok := range shown {
		if !ok {
			t.Errorf("%s has no example with an output", dir)
		}
	}
}
