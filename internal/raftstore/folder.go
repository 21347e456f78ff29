// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// folder holds files.
type folder interface {
	list() ([]string, error)
	create(name string) (writer, error)
	open(name string) (r reader, size int64, err error)
	rename(from, to string) error
	remove(name string) error // fine if it is not there
	sync() error              // makes what was created and renamed durable
}

type writer interface {
	io.WriteCloser
	Sync() error
}

type reader interface {
	io.ReaderAt
	io.Closer
}

// directory is a folder on disk.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) list() (names []string, err error) {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d directory) create(name string) (writer, error) {
	return os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (d directory) open(name string) (reader, int64, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

func (d directory) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d directory) remove(name string) error {
	if err := os.Remove(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d directory) sync() error { return SyncDir(string(d)) }

// memory is a folder that ends with the process.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (m *memory) list() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.files)), nil
}

func (m *memory) create(name string) (writer, error) {
	return &memoryWriter{memory: m, name: name}, nil
}

func (m *memory) open(name string) (reader, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.files[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return memoryReader{bytes.NewReader(b)}, int64(len(b)), nil
}

func (m *memory) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *memory) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

func (m *memory) sync() error { return nil }

// memoryWriter is a file that appears when it is closed.
type memoryWriter struct {
	bytes.Buffer
	memory *memory
	name   string
}

func (w *memoryWriter) Sync() error { return nil }

func (w *memoryWriter) Close() error {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	w.memory.files[w.name] = w.Bytes()
	return nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }
