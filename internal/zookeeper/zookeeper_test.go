// SPDX-License-Identifier: Apache-2.0

package zookeeper

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestStart(t *testing.T) {
	if err := Installed(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.Word("ruok")
	if err != nil || !strings.HasPrefix(answer, "imok") {
		t.Errorf("ruok: %q, %v", answer, err)
	}
	s.Stop()
	if _, err := s.Word("ruok"); err == nil {
		t.Error("answers after Stop")
	}
	if _, err := os.Stat(s.temp); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}
