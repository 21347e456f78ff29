// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/seed-541fafe0/zk"
)

// NamespaceStats is what was asked for below one child of the root. A transaction counts where its first step is, and a
// read if it is of one znode. At most 256 namespaces have counters; a server does not count those that it meets later.
type NamespaceStats struct {
	Read          zk.Summary[int64] // bytes of answers to reads
	Written       zk.Summary[int64] // bytes of writes that were applied
	QuotaExceeded int64             // writes refused by a quota
}

// maxNamespaces bounds what clients can make the counters take.
const maxNamespaces = 256

// namespaces has the counters of each child of the root that was asked for.
type namespaces struct {
	mu  sync.Mutex // guards the map, and not what is in it
	all map[string]*namespace
}

type namespace struct {
	read, written zk.Recorder[int64]
	exceeded      atomic.Int64
}

// topOf is the first part of a path, "" of the root.
func topOf(path string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return top
}

// answered counts a request and its answer of so many bytes.
func (s *namespaces) answered(r *request, code zk.Code, size int) {
	switch {
	case r.kind == kindWrite && len(r.ops) > 0 && r.call != nil:
		switch {
		case r.call.Error == nil:
			if n := s.of(r.ops[0].Path()); n != nil {
				n.written.Add(int64(r.size))
			}
		case codeOf(r.call.Error) == zk.ErrQuotaExceeded:
			refused := max(slices.Index(r.call.Codes, zk.ErrQuotaExceeded), 0)
			if n := s.of(r.ops[refused].Path()); n != nil {
				n.exceeded.Add(1)
			}
		}
	case code == 0:
		switch r.op {
		case opGetData, opExists, opGetChildren, opGetChildren2, opGetACL, opCountChildren:
			if n := s.of(r.path); n != nil {
				n.read.Add(int64(size))
			}
		}
	}
}

// of returns the counters of the namespace that a path is in: nil for the root, and for one too many.
func (s *namespaces) of(path string) *namespace {
	top := topOf(path)
	if top == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.all[top]
	if n != nil || len(s.all) == maxNamespaces {
		return n
	}
	if s.all == nil {
		s.all = map[string]*namespace{}
	}
	n = &namespace{}
	s.all[strings.Clone(top)] = n // not with the rest of the path
	return n
}

func (s *namespaces) stats() map[string]NamespaceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make(map[string]NamespaceStats, len(s.all))
	for name, n := range s.all {
		list[name] = NamespaceStats{n.read.Summary(), n.written.Summary(), n.exceeded.Load()}
	}
	return list
}
