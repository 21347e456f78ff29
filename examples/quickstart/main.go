// SPDX-License-Identifier: Apache-2.0

// Command quickstart is the smallest program with zk in it: one durable member, one session. Run it twice, and it
// knows how often it has run:
//
//	go run ./examples/quickstart
//
// Its data is kept in the directory data below the current one, or in the one that is given as its argument.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/seed-541fafe0/zk"
)

func main() {
	dir := "data"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := run(context.Background(), os.Stdout, dir); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, dir string) error {
	// README begin
	m, err := zk.Open(ctx, zk.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	// README end

	// The parent is created along with the first child, and numbers its children without gaps or repetition.
	z, err := s.Create(ctx, "/runs/run-", []byte("hello"), zk.Sequential|zk.Parents)
	if err != nil {
		return err
	}
	_, runs, err := s.Get(ctx, "/runs")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "created %s at zxid %v under session %v: run %d of ensemble %s, kept in %s\n",
		z.Path, z.Stat.Czxid, s.ID(), runs.NumChildren, m.ClusterID(), dir)
	return nil
}
