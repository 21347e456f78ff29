// SPDX-License-Identifier: Apache-2.0

package zktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/seed-541fafe0/zk"
)

// disk is a member's storage in memory: what a call has written when it returns is there after a crash. A crashed
// incarnation cannot write to it any more, and a paused one's calls do not return.
type disk struct {
	log   *raft.InmemStore // log, votes and identity
	snaps *snapshots

	mu     sync.Mutex
	life   int           // of the incarnation that may write
	paused chan struct{} // not nil while paused; closed by resume
}

func newDisk() *disk {
	return &disk{log: raft.NewInmemStore(), snaps: &snapshots{}}
}

// open gives the disk to the next incarnation.
func (d *disk) open() zk.Storage {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	h := &head{disk: d, life: d.life}
	return zk.Storage{Log: h, Stable: h, Snapshots: &headSnapshots{h}}
}

func (d *disk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.resumeLocked()
}

func (d *disk) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.paused == nil {
		d.paused = make(chan struct{})
	}
}

func (d *disk) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resumeLocked()
}

func (d *disk) resumeLocked() {
	if d.paused != nil {
		close(d.paused)
		d.paused = nil
	}
}

var errCrashed = errors.New("zktest: the member has crashed")

// head is the disk as one incarnation sees it.
type head struct {
	disk *disk
	life int
}

func (h *head) ready() error {
	for {
		h.disk.mu.Lock()
		alive, paused := h.disk.life == h.life, h.disk.paused
		h.disk.mu.Unlock()
		if !alive {
			return errCrashed
		}
		if paused == nil {
			return nil
		}
		<-paused
	}
}

func (h *head) do(fn func() error) error {
	if err := h.ready(); err != nil {
		return err
	}
	return fn()
}

func (h *head) FirstIndex() (i uint64, err error) {
	err = h.do(func() error { i, err = h.disk.log.FirstIndex(); return err })
	return i, err
}

func (h *head) LastIndex() (i uint64, err error) {
	err = h.do(func() error { i, err = h.disk.log.LastIndex(); return err })
	return i, err
}

func (h *head) GetLog(i uint64, l *raft.Log) error {
	return h.do(func() error { return h.disk.log.GetLog(i, l) })
}

func (h *head) StoreLog(l *raft.Log) error { return h.StoreLogs([]*raft.Log{l}) }

func (h *head) StoreLogs(l []*raft.Log) error {
	return h.do(func() error { return h.disk.log.StoreLogs(l) })
}

func (h *head) DeleteRange(min, max uint64) error {
	return h.do(func() error { return h.disk.log.DeleteRange(min, max) })
}

func (h *head) Set(k, v []byte) error {
	return h.do(func() error { return h.disk.log.Set(bytes.Clone(k), bytes.Clone(v)) })
}

func (h *head) Get(k []byte) (v []byte, err error) {
	err = h.do(func() error { v, err = h.disk.log.Get(k); return err })
	return v, err
}

func (h *head) SetUint64(k []byte, v uint64) error {
	return h.do(func() error { return h.disk.log.SetUint64(bytes.Clone(k), v) })
}

func (h *head) GetUint64(k []byte) (v uint64, err error) {
	err = h.do(func() error { v, err = h.disk.log.GetUint64(k); return err })
	return v, err
}

// snapshots keeps the two newest complete snapshots.
type snapshots struct {
	mu   sync.Mutex
	list []snapshot // newest first
	n    int
}

type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

type headSnapshots struct{ head *head }

func (s *headSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if err := s.head.ready(); err != nil {
		return nil, err
	}
	all := s.head.disk.snaps
	all.mu.Lock()
	defer all.mu.Unlock()
	all.n++
	return &sink{head: s.head, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d-%d", term, index, all.n), Index: index, Term: term, Configuration: c, ConfigurationIndex: cIndex,
	}}, nil
}

func (s *headSnapshots) List() (metas []*raft.SnapshotMeta, err error) {
	all := s.head.disk.snaps
	all.mu.Lock()
	defer all.mu.Unlock()
	for i := range all.list {
		m := all.list[i].meta
		metas = append(metas, &m)
	}
	return metas, nil
}

func (s *headSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := s.head.ready(); err != nil {
		return nil, nil, err
	}
	all := s.head.disk.snaps
	all.mu.Lock()
	defer all.mu.Unlock()
	for i := range all.list {
		if m := all.list[i].meta; m.ID == id {
			return &m, io.NopCloser(bytes.NewReader(all.list[i].data)), nil
		}
	}
	return nil, nil, fmt.Errorf("zktest: no snapshot %q", id)
}

// sink collects one snapshot; it counts once it is closed.
type sink struct {
	head *head
	meta raft.SnapshotMeta
	data []byte
	done bool
}

func (s *sink) Write(p []byte) (int, error) {
	if err := s.head.ready(); err != nil {
		return 0, err
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *sink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	if err := s.head.ready(); err != nil {
		return err
	}
	s.meta.Size = int64(len(s.data))
	all := s.head.disk.snaps
	all.mu.Lock()
	defer all.mu.Unlock()
	all.list = append([]snapshot{{s.meta, s.data}}, all.list[:min(1, len(all.list))]...)
	return nil
}

func (s *sink) ID() string { return s.meta.ID }

func (s *sink) Cancel() error {
	s.done = true
	return nil
}
