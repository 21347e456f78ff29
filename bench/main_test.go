// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines that zk has left behind. etcd's embedded servers leave some of their own.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil && strings.Contains(err.Error(), "seed-541fafe0/zk") {
		fmt.Println(err)
		code = max(code, 1)
	}
	os.Exit(code)
}
