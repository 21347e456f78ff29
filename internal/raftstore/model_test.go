// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// naive is a log as a slice.
type naive []raft.Log

func (n naive) first() uint64 {
	if len(n) == 0 {
		return 0
	}
	return n[0].Index
}

func (n naive) last() uint64 {
	if len(n) == 0 {
		return 0
	}
	return n[len(n)-1].Index
}

func (n naive) bytes() (sum int64) {
	for _, l := range n {
		sum += int64(len(l.Data) + len(l.Extensions))
	}
	return sum
}

func (n naive) get(index uint64) (raft.Log, error) {
	for _, l := range n {
		if l.Index == index {
			return l, nil
		}
	}
	return raft.Log{}, raft.ErrLogNotFound
}

func (n naive) lastCommand(index uint64) (found uint64) {
	for _, l := range n {
		if l.Index <= index && l.Type == raft.LogCommand {
			found = l.Index
		}
	}
	return found
}

// without returns the log without a range, at its beginning or its end.
func (n naive) without(from, to uint64) (left naive) {
	for _, l := range n {
		if l.Index < from || l.Index > to {
			left = append(left, l)
		}
	}
	return left
}

// The store, with caches of all sizes and over restarts, answers as a slice does.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk()
		var s *Store
		restart := func() {
			limit := rapid.SampledFrom([]int{-1, 1, 3 * entryOverhead, 20 * entryOverhead, 0}).Draw(t, "cache")
			var err error
			if s, err = Open(Config{Log: d, Stable: d, CacheBytes: limit, Fail: func(err error) { t.Fatal(err) }}); err != nil {
				t.Fatal(err)
			}
		}
		restart()
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		var log naive
		term, end, appended := uint64(1), uint64(0), int64(0) // end is the highest index ever
		must(s.SetUint64(keyTerm, term))
		index := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.Uint64Range(max(log.first(), 2)-2, log.last()+2).Draw(t, "index")
		})
		store := func(from uint64) {
			var logs []*raft.Log
			for range rapid.IntRange(1, 8).Draw(t, "entries") {
				l := raft.Log{
					Index: from, Term: term,
					Type:       rapid.SampledFrom([]raft.LogType{raft.LogCommand, raft.LogCommand, raft.LogNoop, raft.LogConfiguration, raft.LogBarrier}).Draw(t, "type"),
					Data:       orNil(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data")),
					Extensions: orNil(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "ext")),
				}
				log = append(log, l)
				logs = append(logs, &l)
				from++
			}
			end = max(end, from-1)
			appended += log[len(log)-len(logs):].bytes()
			must(s.StoreLogs(logs))
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(*rapid.T) {
				if len(log) > 0 {
					store(log.last() + 1)
				} else {
					store(end + 1)
				}
			},
			"gap": func(t *rapid.T) { // a snapshot was installed, and its successors arrive
				from := end + rapid.Uint64Range(2, 9).Draw(t, "gap")
				log = nil
				store(from)
			},
			"conflict": func(t *rapid.T) {
				if from := index.Draw(t, "from"); from > log.first() && from <= log.last() {
					must(s.DeleteRange(from, log.last()))
					log = log.without(from, log.last())
					term++
					must(s.SetUint64(keyTerm, term))
				}
			},
			"compact": func(t *rapid.T) {
				if to := index.Draw(t, "to"); len(log) > 0 && to >= log.first() && to <= log.last() {
					must(s.DeleteRange(log.first(), to))
					log = log.without(log.first(), to)
				}
			},
			"clear": func(*rapid.T) {
				must(s.DeleteRange(log.first(), log.last()))
				log = nil
			},
			"term":    func(*rapid.T) { term++; must(s.SetUint64(keyTerm, term)) },
			"restart": func(*rapid.T) { must(s.Close()); restart(); appended = 0 },
			"read": func(t *rapid.T) {
				var got raft.Log
				i := index.Draw(t, "index")
				err := s.GetLog(i, &got)
				if want, wantErr := log.get(i); !reflect.DeepEqual(got, want) || err != wantErr {
					t.Fatalf("entry %d is %+v, %v; want %+v, %v", i, got, err, want, wantErr)
				}
			},
			"command": func(t *rapid.T) {
				i := index.Draw(t, "index")
				if got, want := s.LastCommand(i), log.lastCommand(i); got != want {
					t.Fatalf("the last command up to %d is %d, want %d", i, got, want)
				}
			},
			"": func(t *rapid.T) {
				first, _ := s.FirstIndex()
				last, _ := s.LastIndex()
				if first != log.first() || last != log.last() || s.LogBytes() != log.bytes() || s.AppendedBytes() != appended {
					t.Fatalf("the log is %d to %d, %d bytes, %d appended; want %d to %d, %d, %d",
						first, last, s.LogBytes(), s.AppendedBytes(), log.first(), log.last(), log.bytes(), appended)
				}
				size := 0
				for i := range s.cache.len() {
					size += entrySize(&s.cache.logs[s.cache.head+i])
				}
				if size != s.cache.size || s.cache.limit > 0 && size > s.cache.limit {
					t.Fatalf("the cache counts %d bytes, has %d, of at most %d", s.cache.size, size, s.cache.limit)
				}
			},
		})
	})
}

// The cache has the newest entries that fit, and no other.
func TestCache(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cache{limit: rapid.IntRange(0, 12*entryOverhead).Draw(t, "limit")}
		var all naive // as much of it as fits is in the cache
		trim := func() {
			size := 0
			for i := len(all) - 1; i >= 0; i-- {
				if size += entrySize(&all[i]); size > c.limit {
					all = all[i+1:]
					return
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				l := raft.Log{Index: all.last() + 1, Data: make([]byte, rapid.IntRange(0, 3*entryOverhead).Draw(t, "size"))}
				if len(all) == 0 {
					l.Index = rapid.Uint64Range(1, 1000).Draw(t, "index")
				}
				c.push(l)
				all = append(all, l)
				trim()
			},
			"dropTo": func(t *rapid.T) {
				i := rapid.Uint64Range(0, all.last()+1).Draw(t, "to")
				c.dropTo(i)
				all = all.without(0, i)
			},
			"dropFrom": func(t *rapid.T) {
				i := rapid.Uint64Range(0, all.last()+1).Draw(t, "from")
				c.dropFrom(i)
				all = all.without(i, 1<<62)
			},
			"clear": func(*rapid.T) { c.clear(); all = nil },
			"": func(t *rapid.T) {
				for i := range all.last() + 3 {
					got, ok := c.get(i)
					want, err := all.get(i)
					if ok != (err == nil) || !reflect.DeepEqual(got, want) {
						t.Fatalf("entry %d: %v, %v; want %v, %v", i, got.Index, ok, want.Index, err)
					}
				}
				if c.len() != len(all) || len(c.logs) > 2*len(all)+130 {
					t.Fatalf("%d entries of %d, in a slice of %d", c.len(), len(all), len(c.logs))
				}
			},
		})
	})
}
