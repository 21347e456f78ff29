// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What is stored has this form for ever; sealVersion changes with it.
func TestSealFormat(t *testing.T) {
	l := sealEntry(&raft.Log{Index: 7, Term: 3, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Now()})
	if got := hex.EncodeToString(l.Extensions); got != "65787401a8aba9c9" {
		t.Errorf("the extensions are %s", got)
	}
	if got := hex.EncodeToString(sealValue([]byte("key"), []byte("value"))); got != "76616c756501f88e4851" {
		t.Errorf("the value is %s", got)
	}
	if !l.AppendedAt.IsZero() {
		t.Error("what no checksum covers is stored")
	}
}

// Nothing that comes back from the store below is believed: neither a panic nor an entry that was not sealed.
func FuzzEntry(f *testing.F) {
	for _, l := range []*raft.Log{entry(1, 2, "data"), {Index: 1}, {Index: 9, Term: 1 << 60, Type: raft.LogBarrier, Extensions: make([]byte, 40)}} {
		s := sealEntry(l)
		f.Add(s.Index, s.Term, byte(s.Type), s.Data, s.Extensions)
	}
	f.Add(uint64(0), uint64(0), byte(0), []byte(nil), []byte(nil))
	f.Add(uint64(5), uint64(1), byte(0), []byte("x"), []byte{sealVersion, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, index, term uint64, kind byte, data, ext []byte) {
		stored := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: ext}
		l, err := openEntry(index, &stored)
		if err != nil {
			if !is[*CorruptError](err) || !reflect.DeepEqual(l, raft.Log{}) {
				t.Errorf("%+v, %v", l, err)
			}
			return
		}
		if again := sealEntry(&l); !bytes.Equal(again.Extensions, ext) || !bytes.Equal(again.Data, data) {
			t.Errorf("%+v is read as %+v, which is %+v", stored, l, again)
		}
		if _, err := openEntry(index+1, &stored); err == nil {
			t.Error("it is taken for the next one")
		}
	})
}

func FuzzValue(f *testing.F) {
	f.Add([]byte("key"), sealValue([]byte("key"), []byte("value")))
	f.Add([]byte("key"), sealValue([]byte("ke"), []byte("yvalue")))
	f.Add([]byte(""), sealValue(nil, nil))
	f.Add([]byte(""), []byte{})
	f.Fuzz(func(t *testing.T, key, b []byte) {
		val, err := openValue(key, b)
		if err != nil {
			if !is[*CorruptError](err) || val != nil {
				t.Errorf("%x, %v", val, err)
			}
			return
		}
		if !bytes.Equal(sealValue(key, val), b) {
			t.Errorf("%x is read as %x", b, val)
		}
	})
}
