// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

func openBolt(path string, page int) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path, NoSync: true, BoltOptions: &bbolt.Options{NoFreelistSync: true, PageSize: page}, // fsync is not what is tested
	})
}

// listFree does what any tool does that opens the file for writing: it stores the list of free pages.
func listFree(path string) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return db.Close()
}

// boltFileOf makes a file of raft-boltdb.
func boltFileOf(tb testing.TB, page int, fill func(s *Store), then ...func(path string) error) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "raft.db")
	b, err := openBolt(path, page)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Open(Config{Log: b, Stable: b, Release: b.Close})
	if err != nil {
		tb.Fatal(err)
	}
	fill(s)
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	for _, f := range then {
		if err := f(path); err != nil {
			tb.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Clone(file[:min(len(file), 64*page)])
}

// life fills a store, with values from a few bytes to several pages.
func life(s *Store) {
	s.Boot("a")
	s.SetUint64(keyTerm, 1)
	for i := uint64(1); i < 25; i++ {
		s.StoreLog(&raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, int(i*i*2)), Extensions: []byte("stamp")})
	}
	s.SetUint64(keyTerm, 2)
	vote(s, 2, "b")
	s.DeleteRange(1, 7)
	s.StoreLog(entry(25, 2, "last"))
}

// foundIn is what a store opened on a file says, or why it cannot be opened.
func foundIn(t *testing.T, file []byte, page int) (c contents, err error) {
	t.Helper()
	if err := CheckBolt(bytes.NewReader(file), int64(len(file))); err != nil {
		return c, err
	}
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openBolt(path, page)
	if err != nil {
		return c, err
	}
	defer b.Close()
	s, err := Open(Config{Log: b, Stable: b, CacheBytes: -1})
	if err != nil {
		return c, err
	}
	if _, err := s.Boot(""); err != nil {
		return c, err
	}
	return contentsOf(t, s), nil
}

// A bit that flips anywhere in the log's file is found, or it was in a place that nothing uses (P19, P22). Nothing that
// was voted or acknowledged goes missing, and bbolt does not get to see what would make it panic.
func TestEveryBitOfTheFile(t *testing.T) {
	everyBit(t, boltFileOf(t, 1024, life))
	everyBit(t, boltFileOf(t, 1024, life, listFree))
}

func everyBit(t *testing.T, file []byte) {
	t.Helper()
	const page = 1024
	want, err := foundIn(t, file, page)
	if err != nil || len(want.Logs) != 18 || want.VoteTerm != 2 {
		t.Fatalf("%v, %v", want, err)
	}
	step := 11
	if testing.Short() {
		step = 59
	}
	unused, found := 0, 0
	for bit := 0; bit < 8*len(file); bit += step {
		file[bit/8] ^= 1 << (bit % 8)
		err := CheckBolt(bytes.NewReader(file), int64(len(file)))
		file[bit/8] ^= 1 << (bit % 8)
		if err != nil {
			if found++; !is[*CorruptError](err) {
				t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
			}
			continue
		}
		if bit/step%12 != 0 {
			continue // opening takes its time
		}
		damaged := bytes.Clone(file)
		damaged[bit/8] ^= 1 << (bit % 8)
		c, err := foundIn(t, damaged, page)
		switch {
		case is[*CorruptError](err):
			found++
		case err != nil:
			t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
		case !reflect.DeepEqual(c, want):
			t.Fatalf("bit %d of byte %d: found %v, want %v", bit%8, bit/8, c, want)
		default:
			unused++
		}
	}
	t.Logf("%d bits found, %d not used, of %d bytes", found, unused, len(file))
	if found < 1000/step {
		t.Error("hardly any")
	}
}

// Several faults at once, aimed at the structure, do not get past the check to where bbolt panics or never returns.
func TestSeveralFaults(t *testing.T) {
	const page = 1024
	good := boltFileOf(t, page, life)
	used := len(bytes.TrimRight(good, "\x00"))
	rapid.Check(t, func(rt *rapid.T) {
		file := bytes.Clone(good)
		for range rapid.IntRange(1, 4).Draw(rt, "faults") {
			at := 4 * rapid.IntRange(2*page/4, used/4-1).Draw(rt, "word")
			if rapid.Bool().Draw(rt, "in a header") {
				at = at/page*page + 4*rapid.IntRange(0, 15).Draw(rt, "of a page")
			}
			switch b := file[at : at+4]; rapid.IntRange(0, 2).Draw(rt, "kind") {
			case 0:
				native.PutUint32(b, uint32(rapid.IntRange(0, 70).Draw(rt, "value")))
			case 1:
				b[rapid.IntRange(0, 3).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			case 2: // what a write to the wrong place does
				from := rapid.IntRange(2, used/page-1).Draw(rt, "page")
				copy(file[at/page*page:], file[from*page:][:page])
				native.PutUint64(file[at/page*page:], uint64(at/page))
			}
		}
		foundIn(t, file, page)
	})
}

// A file that was cut, or never was one, is found, and a healthy one of any age and page size is not.
func TestCheckBolt(t *testing.T) {
	for _, page := range []int{1024, 4096, 16384} {
		file := boltFileOf(t, page, life)
		if err := CheckBolt(bytes.NewReader(file), int64(len(file))); err != nil {
			t.Fatal(err)
		}
		used := file
		for bytes.HasSuffix(used, make([]byte, page)) {
			used = used[:len(used)-page]
		}
		for n := 0; n < len(used)-page; n += page / 8 {
			if err := CheckBolt(bytes.NewReader(file[:n]), int64(n)); !is[*CorruptError](err) {
				t.Errorf("%d of %d bytes: %v", n, len(used), err)
			}
			if err := CheckBolt(broken{bytes.NewReader(file), int64(n)}, int64(len(file))); err != nil && !errors.Is(err, errDisk) {
				t.Errorf("byte %d cannot be read: %v", n, err)
			}
		}
	}
	for name, file := range map[string][]byte{"empty": nil, "zero": make([]byte, 1<<16), "text": bytes.Repeat([]byte("text"), 1<<14)} {
		if err := CheckBolt(bytes.NewReader(file), int64(len(file))); !is[*CorruptError](err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// broken cannot be read at one byte.
type broken struct {
	*bytes.Reader
	at int64
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, errDisk
	}
	return b.Reader.ReadAt(p, off)
}

// Whatever bbolt makes of the operations of a long life, the check finds nothing wrong with it.
func TestCheckBoltIsNotTooStrict(t *testing.T) {
	dir := t.TempDir()
	files := 0
	rapid.Check(t, func(t *rapid.T) {
		files++
		path := filepath.Join(dir, fmt.Sprint(files))
		defer os.Remove(path)
		page := rapid.SampledFrom([]int{1024, 4096}).Draw(t, "page")
		b, err := openBolt(path, page)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { b.Close() }()
		check := func(t *rapid.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckBolt(f, info.Size()); err != nil {
				t.Fatal(err)
			}
		}
		first, last := uint64(1), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var logs []*raft.Log
				size := rapid.SampledFrom([]int{0, 10, 300, 5000}).Draw(t, "size")
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					last++
					logs = append(logs, &raft.Log{Index: last, Data: make([]byte, size)})
				}
				if err := b.StoreLogs(logs); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				to := rapid.Uint64Range(first-1, last).Draw(t, "to")
				if err := b.DeleteRange(first, to); err != nil {
					t.Fatal(err)
				}
				first = to + 1
			},
			"truncate": func(t *rapid.T) {
				from := rapid.Uint64Range(first, last+1).Draw(t, "from")
				if err := b.DeleteRange(from, last); err != nil {
					t.Fatal(err)
				}
				last = from - 1
			},
			"set": func(t *rapid.T) {
				key := rapid.SampledFrom([][]byte{keyTerm, keyVote, keyIdentity}).Draw(t, "key")
				if err := b.Set(key, make([]byte, rapid.IntRange(0, 400).Draw(t, "size"))); err != nil {
					t.Fatal(err)
				}
			},
			"open again": func(t *rapid.T) {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "with a tool") { // which stores the list of free pages
					if err := listFree(path); err != nil {
						t.Fatal(err)
					}
					check(t)
				}
				if b, err = openBolt(path, page); err != nil {
					t.Fatal(err)
				}
			},
			"": check,
		})
	})
}

// FuzzBolt looks for a file that passes the check and makes bbolt fail in any other way than by an error.
func FuzzBolt(f *testing.F) {
	file := boltFileOf(f, 1024, life)
	f.Add(file)
	f.Add(boltFileOf(f, 1024, life, listFree))
	f.Add(boltFileOf(f, 1024, func(s *Store) {}))
	f.Add(boltFileOf(f, 1024, func(s *Store) { s.Boot("a") }))
	for _, n := range []int{0, 16, 1024, 5000, len(file) - 1} {
		f.Add(file[:n])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) < 1<<20 {
			foundIn(t, file, 1024)
		}
	})
}
