// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// sealVersion is the format of what stands behind a stored value or entry: the
// version itself, and a CRC-32C of everything that raft relies on.
const (
	sealVersion = 1
	sealSize    = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entrySum is the checksum of a log entry. Lengths are part of it, so that no
// byte can move from one field to the next.
func entrySum(l *raft.Log, ext []byte) uint32 {
	var h [34]byte
	h[0], h[1] = sealVersion, byte(l.Type)
	binary.BigEndian.PutUint64(h[2:], l.Index)
	binary.BigEndian.PutUint64(h[10:], l.Term)
	binary.BigEndian.PutUint64(h[18:], uint64(len(l.Data)))
	binary.BigEndian.PutUint64(h[26:], uint64(len(ext)))
	sum := crc32.Update(0, castagnoli, h[:])
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, ext)
}

// sealEntry returns the entry to store for l. The seal goes behind the
// extensions, which are short: they are copied, while the data, which may be
// long, is shared. AppendedAt is left out: nothing may depend on it, and
// nothing is stored that the checksum does not cover.
func sealEntry(l *raft.Log) raft.Log {
	ext := make([]byte, len(l.Extensions), len(l.Extensions)+sealSize)
	copy(ext, l.Extensions)
	ext = append(ext, sealVersion)
	ext = binary.BigEndian.AppendUint32(ext, entrySum(l, l.Extensions))
	return raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data, Extensions: ext}
}

// bareEntry is l as it will be read back from disk.
func bareEntry(l *raft.Log) raft.Log {
	return raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: orNil(l.Data), Extensions: orNil(l.Extensions)}
}

// openEntry checks the entry that was stored at index and returns it without
// its seal.
func openEntry(index uint64, l *raft.Log) (raft.Log, error) {
	n := len(l.Extensions) - sealSize
	switch {
	case n < 0:
		return raft.Log{}, &CorruptError{index, "no checksum"}
	case l.Extensions[n] != sealVersion:
		return raft.Log{}, &CorruptError{index, "unknown format"}
	case l.Index != index:
		return raft.Log{}, &CorruptError{index, "another entry in its place"}
	}
	ext := l.Extensions[:n:n]
	if entrySum(l, ext) != binary.BigEndian.Uint32(l.Extensions[n+1:]) {
		return raft.Log{}, &CorruptError{index, "checksum mismatch"}
	}
	out := raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: orNil(l.Data), Extensions: orNil(ext)}
	return out, nil
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// valueSum is the checksum of a value under its key.
func valueSum(key, val []byte) uint32 {
	var h [9]byte
	h[0] = sealVersion
	binary.BigEndian.PutUint64(h[1:], uint64(len(key)))
	sum := crc32.Update(0, castagnoli, h[:])
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, val)
}

func sealValue(key, val []byte) []byte {
	b := make([]byte, len(val), len(val)+sealSize)
	copy(b, val)
	b = append(b, sealVersion)
	return binary.BigEndian.AppendUint32(b, valueSum(key, val))
}

func openValue(key, b []byte) ([]byte, error) {
	n := len(b) - sealSize
	if n < 0 || b[n] != sealVersion || valueSum(key, b[:n]) != binary.BigEndian.Uint32(b[n+1:]) {
		return nil, &CorruptError{Reason: "checksum mismatch in the value of " + string(key)}
	}
	return b[:n:n], nil
}
