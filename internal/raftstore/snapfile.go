// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk/internal/codec"
)

// A snapshot's file is written from its beginning to its end, so what is known
// only then comes last:
//
//	data    what the state machine wrote
//	meta    its index, term and configuration
//	tail    length of meta, CRC-32C of meta, CRC-32C of all before, "zksnap" and the format's version
//
// Meta has a checksum of its own because it is read without the data.
const (
	tailMagic = "zksnap\x00\x01"
	tailSize  = 4 + 4 + 4 + len(tailMagic)
	metaMax   = 16 << 20 // far above any configuration
)

// appendMeta appends meta. Its ID is the file's name, and Peers is raft's past.
func appendMeta(b []byte, m *raft.SnapshotMeta) []byte {
	b = codec.AppendVarint(b, int64(m.Version))
	b = codec.AppendUvarint(b, m.Index)
	b = codec.AppendUvarint(b, m.Term)
	b = codec.AppendUvarint(b, m.ConfigurationIndex)
	b = codec.AppendBytes(b, raft.EncodeConfiguration(m.Configuration))
	return codec.AppendVarint(b, m.Size)
}

func readMeta(b []byte) (m raft.SnapshotMeta, err error) {
	r := codec.NewReader(b)
	m.Version, m.Index, m.Term, m.ConfigurationIndex = raft.SnapshotVersion(r.Varint()), r.Uvarint(), r.Uvarint(), r.Uvarint()
	configuration := r.Bytes()
	m.Size = r.Varint()
	if err := r.Done(); err != nil {
		return m, err
	}
	// raft's decoder panics.
	return m, Protect(func() error { m.Configuration = raft.DecodeConfiguration(configuration); return nil })
}

// appendTail appends the tail of a file whose data has the checksum sum.
func appendTail(b []byte, sum uint32, meta []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(meta)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(meta, castagnoli))
	sum = crc32.Update(crc32.Update(sum, castagnoli, meta), castagnoli, b[len(b)-8:])
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, tailMagic...)
}

// readTail reads and checks everything but the data. It returns the checksum
// of the file up to covered.
func readTail(r io.ReaderAt, size int64) (m raft.SnapshotMeta, covered int64, sum uint32, err error) {
	var tail [tailSize]byte
	at := size - int64(tailSize)
	if at < 0 {
		return m, 0, 0, errors.New("it is too short")
	}
	if _, err := r.ReadAt(tail[:], at); err != nil {
		return m, 0, 0, err
	}
	if string(tail[12:]) != tailMagic {
		return m, 0, 0, errors.New("it does not end like a snapshot")
	}
	n := int64(binary.BigEndian.Uint32(tail[:]))
	if n > min(at, metaMax) {
		return m, 0, 0, errors.New("its description is too long")
	}
	meta := make([]byte, n)
	if _, err := r.ReadAt(meta, at-n); err != nil {
		return m, 0, 0, err
	}
	if crc32.Checksum(meta, castagnoli) != binary.BigEndian.Uint32(tail[4:]) {
		return m, 0, 0, errors.New("checksum mismatch in its description")
	}
	if m, err = readMeta(meta); err != nil {
		return m, 0, 0, fmt.Errorf("its description: %w", err)
	}
	if m.Size != at-n {
		return m, 0, 0, fmt.Errorf("it has %d bytes of data instead of %d", at-n, m.Size)
	}
	return m, at + 8, binary.BigEndian.Uint32(tail[8:]), nil
}

// readWhole is readTail, and checks the data too.
func readWhole(r io.ReaderAt, size int64) (raft.SnapshotMeta, error) {
	m, covered, want, err := readTail(r, size)
	if err != nil {
		return m, err
	}
	sum := crc32.New(castagnoli)
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, covered)); err != nil {
		return m, err
	}
	if sum.Sum32() != want {
		return m, errors.New("checksum mismatch")
	}
	return m, nil
}
