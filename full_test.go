// SPDX-License-Identifier: Apache-2.0

package zk

import (
	"flag"
	"testing"
)

var full = flag.Bool("zk.full", false, "run large tests at their full size; give -timeout too")

// Size is how large a large test is: with -short, by default, and with -zk.full.
func Size(short, usual, most int) int {
	switch {
	case *full:
		return most
	case testing.Short():
		return short
	}
	return usual
}
