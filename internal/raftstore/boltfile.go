// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// CheckBolt checks a file of raft-boltdb before bbolt opens it. What is wrong
// with it is a *CorruptError.
//
// bbolt puts a checksum on nothing but its two meta pages, and believes the
// rest: damage can make it panic, on a goroutine of its own where nobody can
// recover, read outside the file, go round in circles, or silently miss a
// bucket, a vote or the end of the log. Where it finds one meta page damaged it
// goes back by one transaction, which may be a vote. So every page that is in
// use must be as bbolt writes it, byte after byte, and every key must be one
// that is ours. What the keys stand for has checksums of its own.
func CheckBolt(r io.ReaderAt, size int64) error {
	f := boltFile{r: r}
	m, err := f.meta(0, size)
	if err != nil {
		return err
	}
	other, err := f.meta(int64(m.pageSize), size)
	if err != nil {
		return err
	}
	if other.pageSize != m.pageSize {
		return corruptFile("its meta pages differ in the size of a page")
	}
	if other.txid > m.txid {
		m = other
	}
	if m.pages > uint64(size)/uint64(m.pageSize) {
		return corruptFile("it is cut: %d bytes for %d pages of %d", size, m.pages, m.pageSize)
	}
	f.boltMeta, f.used = m, make([]bool, m.pages)
	if err := f.freePages(); err != nil {
		return err
	}
	buckets := 0
	if err := f.tree(m.root, nil, nil, 0, func(e element) error {
		name := string(e.key)
		if e.flags != boltBucket || name != "conf" && name != "logs" {
			return corruptFile("%q is not a bucket of ours", name)
		}
		buckets++
		return f.bucket(e.val, name)
	}); err != nil {
		return err
	}
	if buckets != 2 {
		return corruptFile("a bucket is missing")
	}
	return nil
}

func corruptFile(format string, args ...any) error {
	return &CorruptError{Reason: "file: " + fmt.Sprintf(format, args...)}
}

// The format of bbolt's file, whose integers are in the byte order of the machine.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	boltMetaSize   = 64 // behind a page's header
	boltPageHeader = 16 // id, flags, count, number of pages that follow
	boltElement    = 16
	boltRef        = 16 // a bucket: its root page, or 0 and the page itself behind it; a sequence

	boltBranch, boltLeaf, boltFreelist = 1, 2, 16 // flags of a page
	boltBucket                         = 1        // flag of an element
	boltNoFreelist                     = math.MaxUint64

	boltDepth = 64 // of a tree; far more than 2^64 entries need
)

var native = binary.NativeEndian

type boltMeta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64 // that were ever used
	txid     uint64
}

type boltFile struct {
	boltMeta
	r    io.ReaderAt
	used []bool // pages that something refers to
}

func (f *boltFile) meta(at, size int64) (m boltMeta, err error) {
	var page [boltPageHeader + boltMetaSize]byte
	if at+int64(len(page)) > size {
		return m, corruptFile("it is cut: %d bytes", size)
	}
	if _, err := f.r.ReadAt(page[:], at); err != nil {
		return m, err
	}
	b := page[boltPageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:boltMetaSize-8])
	if native.Uint32(b) != boltMagic || native.Uint32(b[4:]) != boltVersion || sum.Sum64() != native.Uint64(b[56:]) {
		return m, corruptFile("the meta page at byte %d is damaged", at)
	}
	m = boltMeta{native.Uint32(b[8:]), native.Uint64(b[16:]), native.Uint64(b[32:]), native.Uint64(b[40:]), native.Uint64(b[48:])}
	if m.pageSize < 1024 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0 {
		return m, corruptFile("pages of %d bytes", m.pageSize)
	}
	return m, nil
}

// page reads a page that nothing has referred to before.
func (f *boltFile) page(id uint64) (b []byte, err error) {
	if id >= f.pages {
		return nil, corruptFile("page %d of %d", id, f.pages)
	}
	at := int64(id) * int64(f.pageSize)
	var head [boltPageHeader]byte
	if _, err := f.r.ReadAt(head[:], at); err != nil {
		return nil, err
	}
	more := uint64(native.Uint32(head[12:]))
	if native.Uint64(head[:]) != id {
		return nil, corruptFile("page %d calls itself %d", id, native.Uint64(head[:]))
	}
	if err := f.use(id, more+1); err != nil {
		return nil, err
	}
	b = make([]byte, int64(f.pageSize)*int64(more+1))
	_, err = f.r.ReadAt(b, at)
	return b, err
}

// use notes that something refers to n pages.
func (f *boltFile) use(id, n uint64) error {
	if id < 2 || id >= f.pages || n > f.pages-id {
		return corruptFile("page %d and %d more, of %d", id, n-1, f.pages)
	}
	for i := id; i < id+n; i++ {
		if f.used[i] {
			return corruptFile("page %d is used twice", i)
		}
		f.used[i] = true
	}
	return nil
}

// freePages checks the list of free pages. bbolt hands them out again: none
// may be in use.
func (f *boltFile) freePages() error {
	if f.freelist == boltNoFreelist {
		return nil
	}
	b, err := f.page(f.freelist)
	if err != nil {
		return err
	}
	n, ids := uint64(native.Uint16(b[10:])), b[boltPageHeader:]
	if n == math.MaxUint16 { // the number has a place of its own
		n, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(b[8:]) != boltFreelist || n > uint64(len(ids))/8 {
		return corruptFile("page %d is not a list of free pages", f.freelist)
	}
	for i := range n {
		if err := f.use(native.Uint64(ids[8*i:]), 1); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket: a tree of its own, or a page inside of val.
func (f *boltFile) bucket(val []byte, name string) error {
	ours := func(e element) error {
		known := len(e.key) == 8 // an index
		if name == "conf" {
			known = bytes.Equal(e.key, keyIdentity) || bytes.Equal(e.key, keyTerm) || bytes.Equal(e.key, keyVote)
		}
		if e.flags != 0 || !known {
			return corruptFile("%s has a key %q", name, e.key)
		}
		return nil
	}
	if len(val) < boltRef {
		return corruptFile("%s has no root", name)
	}
	if root := native.Uint64(val); root != 0 {
		return f.tree(root, nil, nil, 0, ours)
	}
	b := val[boltRef:]
	if len(b) < boltPageHeader || native.Uint16(b[8:]) != boltLeaf {
		return corruptFile("%s has no page", name)
	}
	return elements(b, nil, nil, ours)
}

// tree checks the pages from one on downwards. Their keys are at least from and,
// unless it is nil, less than below.
func (f *boltFile) tree(id uint64, from, below []byte, depth int, visit func(element) error) error {
	if depth > boltDepth {
		return corruptFile("page %d is too deep", id)
	}
	b, err := f.page(id)
	if err != nil {
		return err
	}
	switch native.Uint16(b[8:]) {
	case boltLeaf:
		return elements(b, from, below, visit)
	case boltBranch:
	default:
		return corruptFile("page %d is neither branch nor leaf", id)
	}
	var children []element
	if err := elements(b, from, below, func(e element) error { children = append(children, e); return nil }); err != nil {
		return err
	}
	if len(children) == 0 {
		return corruptFile("page %d is an empty branch", id)
	}
	for i, c := range children {
		end := below
		if i+1 < len(children) {
			end = children[i+1].key
		}
		if err := f.tree(c.child, c.key, end, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// element is a key with what belongs to it: in a leaf flags and a value, in a
// branch the page of it and all keys up to the next.
type element struct {
	flags    uint32
	child    uint64
	key, val []byte
}

// elements checks a page and calls visit for each element. Behind the header
// bbolt writes a table, and then keys and values without a gap.
func elements(b, from, below []byte, visit func(element) error) error {
	id, branch, n := native.Uint64(b), native.Uint16(b[8:]) == boltBranch, int(native.Uint16(b[10:]))
	next := uint64(boltPageHeader + n*boltElement)
	if next > uint64(len(b)) {
		return corruptFile("page %d has %d elements", id, n)
	}
	for i := range n {
		at := boltPageHeader + i*boltElement
		h := b[at:]
		var e element
		var pos, keySize, valSize uint32
		if branch {
			pos, keySize, e.child = native.Uint32(h), native.Uint32(h[4:]), native.Uint64(h[8:])
		} else {
			e.flags, pos, keySize, valSize = native.Uint32(h), native.Uint32(h[4:]), native.Uint32(h[8:]), native.Uint32(h[12:])
		}
		val := next + uint64(keySize)
		end := val + uint64(valSize)
		if uint64(at)+uint64(pos) != next || keySize == 0 || end > uint64(len(b)) {
			return corruptFile("element %d of page %d is elsewhere", i, id)
		}
		e.key, e.val = b[next:val:val], b[val:end:end]
		order := bytes.Compare(e.key, from)
		if order < 0 || order == 0 && i > 0 || below != nil && bytes.Compare(e.key, below) >= 0 {
			return corruptFile("element %d of page %d is out of order", i, id)
		}
		from, next = e.key, end
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}
