// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"

	"github.com/seed-541fafe0/zk"
)

// An ensemble of one, in memory. With a Dir it is durable, with Peers and an Addr one of several.
func Example() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}

	z, err := s.Create(ctx, "/jobs/job-", []byte("count"), zk.Sequential|zk.Parents)
	if err != nil {
		log.Fatal(err)
	}
	data, stat, err := s.Get(ctx, z.Path)
	fmt.Println(z.Path, string(data), stat.Version, err)

	_, _, err = s.Get(ctx, "/nothing")
	fmt.Println(errors.Is(err, zk.ErrNoNode), errors.Is(err, fs.ErrNotExist))
	// Output:
	// /jobs/job-0000000000 count 0 <nil>
	// true true
}

// All steps of a transaction are done, or none is. The error says which step failed.
func ExampleSession_Txn() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()

	_, err := s.Txn(ctx,
		zk.OpCreate("/a", []byte("1"), zk.Persistent),
		zk.OpCheck("/a", 7), // its version is 0
	)
	failed, _ := errors.AsType[*zk.TxnError](err)
	fmt.Println(failed.Index, errors.Is(err, zk.ErrBadVersion), zk.MaybeApplied(err))
	_, exists, err := s.Exists(ctx, "/a")
	fmt.Println(exists, err)
	// Output:
	// 1 true false
	// false <nil>
}

// A one-shot watch is a channel with one event.
func ExampleSession_GetW() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()
	if _, err := s.Create(ctx, "/config", []byte("old"), zk.Persistent); err != nil {
		log.Fatal(err)
	}

	data, _, changed, err := s.GetW(ctx, "/config")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(data))
	if _, err := s.Set(ctx, "/config", []byte("new"), zk.AnyVersion); err != nil {
		log.Fatal(err)
	}
	event := <-changed // here before Set has returned
	fmt.Println(event.Type == zk.EventChanged, event.Path)
	_, more := <-changed
	fmt.Println(more)
	// Output:
	// old
	// true /config
	// false
}

// Whoever only needs the newest value subscribes to it.
func ExampleSession_WatchValue() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()

	for z, err := range s.WatchValue(ctx, "/limit") {
		if err != nil {
			log.Fatal(err)
		}
		if z.Stat.Czxid == 0 {
			fmt.Println("absent")
			if _, err := s.Create(ctx, "/limit", []byte("100"), zk.Persistent); err != nil {
				log.Fatal(err)
			}
			continue
		}
		fmt.Println(z.Data)
		break
	}
	// Output:
	// absent
	// 100
}

// A View shows the whole tree as of one zxid, whatever is written meanwhile.
func ExampleSession_View() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()
	if _, err := s.Txn(ctx, zk.OpCreate("/a", []byte("1"), zk.Persistent), zk.OpCreate("/b", []byte("1"), zk.Persistent)); err != nil {
		log.Fatal(err)
	}

	err := s.View(ctx, func(v *zk.View) error {
		if _, err := s.Txn(ctx, zk.OpSet("/a", []byte("2"), 0), zk.OpSet("/b", []byte("2"), 0)); err != nil {
			return err
		}
		for _, path := range []string{"/a", "/b"} {
			z, err := v.Get(path)
			if err != nil {
				return err
			}
			fmt.Println(z.Path, z.Data)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// /a 1
	// /b 1
	// <nil>
}

// Whoever only needs the names that are there subscribes to them.
func ExampleSession_WatchChildren() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()

	for names, err := range s.WatchChildren(ctx, "/hosts") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(names)
		if len(names) > 0 {
			break
		}
		if _, err := s.Create(ctx, "/hosts/a", nil, zk.Ephemeral|zk.Parents); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// []
	// [a]
}

// A directory of any size is read a few names at a time, from wherever one likes.
func ExampleSession_ChildrenSeq() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()
	for _, name := range []string{"cat", "ann", "bob"} {
		if _, err := s.Create(ctx, "/users/"+name, nil, zk.Persistent|zk.Parents); err != nil {
			log.Fatal(err)
		}
	}

	for name, err := range s.ChildrenSeq(ctx, "/users", "ann") { // those after ann
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name)
	}
	// Output:
	// bob
	// cat
}

// A subtree is read as it was at one moment, parents first.
func ExampleSession_Walk() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()
	for _, path := range []string{"/app/b", "/app/a/x"} {
		if _, err := s.Create(ctx, path, []byte(path[1:]), zk.Persistent|zk.Parents); err != nil {
			log.Fatal(err)
		}
	}

	for z, err := range s.Walk(ctx, "/app") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %q\n", z.Path, z.Data)
	}
	// Output:
	// /app ""
	// /app/a ""
	// /app/a/x "app/a/x"
	// /app/b "app/b"
}

// Sub gives a part of a program, or a tenant, a tree of its own, on the same session.
func ExampleSession_Sub() {
	ctx := context.Background()
	m, s := alone(ctx)
	defer m.Close()

	billing := s.Sub("/billing")
	z, err := billing.Create(ctx, "/limit", []byte("100"), zk.Persistent|zk.Parents)
	fmt.Println(z.Path, err, billing.ID() == s.ID())
	data, _, err := s.GetString(ctx, "/billing/limit")
	fmt.Println(data, err)
	// Output:
	// /limit <nil> true
	// 100 <nil>
}

func alone(ctx context.Context) (*zk.Member, *zk.Session) {
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	return m, s
}
