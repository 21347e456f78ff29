// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"strings"
	"testing"
)

// The identity is made once, another one is refused, and each start counts (D27).
func TestIdentity(t *testing.T) {
	d := newDisk()
	s, _ := opened(t, d)
	first, err := s.Boot("a")
	if err != nil || first.ID != "a" || first.Storage == "" || first.Incarnation != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	for i, id := range []string{"a", "", "a"} {
		s, _ := opened(t, d)
		who, err := s.Boot(id)
		if want := (Identity{"a", first.Storage, uint64(i) + 2}); who != want || err != nil {
			t.Errorf("%+v, %v; want %+v", who, err, want)
		}
	}
	s, _ = opened(t, d)
	_, err = s.Boot("b")
	if !is[*IdentityError](err) || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), `"b"`) {
		t.Error(err)
	}
	s, _ = opened(t, d)
	if who, err := s.Boot("a"); who.Incarnation != 5 || err != nil { // the refused start did not count
		t.Errorf("%+v, %v", who, err)
	}
}

// A generated id is kept, and no two are the same.
func TestGeneratedIdentity(t *testing.T) {
	seen := map[string]bool{}
	for range 10 {
		d := newDisk()
		s, _ := opened(t, d)
		who, err := s.Boot("")
		if err != nil || who.ID == "" || seen[who.ID] || seen[who.Storage] || who.ID == who.Storage {
			t.Fatalf("%+v, %v", who, err)
		}
		seen[who.ID], seen[who.Storage] = true, true
		s, _ = opened(t, d)
		if again, err := s.Boot(""); again.ID != who.ID || again.Storage != who.Storage || err != nil {
			t.Errorf("%+v, %v; was %+v", again, err, who)
		}
	}
}

// However a start ends, the next one has a higher incarnation than any that was announced, and the same storage.
func TestIdentityOverCrashes(t *testing.T) {
	for _, f := range []fault{failsBefore, failsAfter, failsHalf, panics} {
		d := newDisk()
		var storage string
		var announced uint64
		for start := range 10 {
			d.failAt(-1, fine)
			s, _ := opened(t, d)
			d.failAt(start%3, f) // 0 reads, 1 writes, 2 does not happen
			who, err := s.Boot("a")
			if err != nil {
				if start%3 == 2 {
					t.Fatal(err)
				}
				continue
			}
			if who.Incarnation <= announced || storage != "" && who.Storage != storage {
				t.Errorf("%v: start %d is %+v, after %d of %s", f, start, who, announced, storage)
			}
			announced, storage = who.Incarnation, who.Storage
		}
		if announced < 3 {
			t.Errorf("%v: %d starts", f, announced)
		}
	}
}

// A log without an owner is not taken over: whoever lost the one may have lost part of the other.
func TestLogWithoutIdentity(t *testing.T) {
	d := filled(t)
	d.InmemStore.Set(keyIdentity, nil)
	s, _ := opened(t, d)
	if _, err := s.Boot("a"); !is[*CorruptError](err) {
		t.Error(err)
	}
}

func FuzzIdentity(f *testing.F) {
	for _, who := range []Identity{{"a", "b", 1}, {"", "", 0}, {strings.Repeat("x", 200), "s", 1 << 63}} {
		f.Add(appendIdentity(nil, who))
	}
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		who, err := readIdentity(b)
		if err != nil {
			if !is[*CorruptError](err) || who != (Identity{}) {
				t.Errorf("%+v, %v", who, err)
			}
			return
		}
		if again := appendIdentity(nil, who); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %+v, which is %x", b, who, again)
		}
	})
}
