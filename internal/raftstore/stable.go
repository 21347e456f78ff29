// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The keys of raft, and ours.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm") // these two
	keyVoteCand = []byte("LastVoteCand") // are stored as one,
	keyVote     = []byte("Vote")         // the term and then the candidate
)

// caller is how a read reaches the underlying store: guarded as Store.guarded, or without ado as Store.direct.
type caller func(op string, f func() error) error

func (s *Store) guarded(op string, f func() error) error { return s.call(op, s.stall, f) }

// direct is for the time before raft, when the errors are returned and no call is too long.
func (s *Store) direct(_ string, f func() error) error { return <-spawn(f) }

// Get returns the value of a key, or an error that reads "not found". Where another error is fatal it does not return.
func (s *Store) Get(key []byte) (val []byte, err error) {
	if bytes.Equal(key, keyVoteCand) {
		_, val, err = s.vote(s.guarded)
	} else {
		val, err = s.get(key, s.guarded)
	}
	return val, s.readOrEnd(key, err)
}

// GetUint64 returns the number of a key, or an error that reads "not found". Where another error is fatal it does not
// return.
func (s *Store) GetUint64(key []byte) (v uint64, err error) {
	if bytes.Equal(key, keyVoteTerm) {
		v, _, err = s.vote(s.guarded)
	} else {
		v, err = s.getUint64(key, s.guarded)
	}
	if err == nil && bytes.Equal(key, keyTerm) && s.unfounded() {
		v, err = 0, errNotFound
	}
	return v, s.readOrEnd(key, err)
}

// unfounded reports that the term, if one is stored, is none for raft.
func (s *Store) unfounded() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.term == 0
}

// readOrEnd is orEnd for a read of key.
func (s *Store) readOrEnd(key []byte, err error) error {
	if err == nil || err == errNotFound || err == ErrClosed {
		return err
	}
	return s.orEnd(fmt.Errorf("reading %s: %w", key, err))
}

// Set stores a value. The candidate of a vote is stored with the term that came before it, in one record: no crash
// leaves the one without the other.
func (s *Store) Set(key, val []byte) error {
	if !bytes.Equal(key, keyVoteCand) {
		return s.orEnd(s.set(key, val, func() {}))
	}
	s.mu.RLock()
	term, voting := s.voteTerm, s.voting
	s.mu.RUnlock()
	if !voting {
		return s.orEnd(fmt.Errorf("a vote for %q without a term", val))
	}
	vote := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(val)), term)
	return s.orEnd(s.set(keyVote, append(vote, val...), func() { s.voting, s.voted = false, true }))
}

// SetUint64 stores a number. The term of a vote waits in memory for its candidate.
func (s *Store) SetUint64(key []byte, v uint64) error {
	after := func() {}
	switch {
	case bytes.Equal(key, keyVoteTerm):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.voteTerm, s.voting = v, true
		return nil
	case bytes.Equal(key, keyTerm):
		s.mu.RLock()
		have := s.term
		s.mu.RUnlock()
		if v == have {
			return nil // raft stores at its start what it has read
		}
		if v < have {
			return s.orEnd(fmt.Errorf("the current term goes back from %d to %d", have, v))
		}
		after = func() { s.term = v }
	}
	return s.orEnd(s.set(key, binary.BigEndian.AppendUint64(nil, v), after))
}

// set writes a value and then runs after, which may change what mu guards.
func (s *Store) set(key, val []byte, after func()) error {
	key, sealed := bytes.Clone(key), sealValue(key, val)
	return s.write("storing "+string(key), func() error {
		if err := s.stable.Set(key, sealed); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		after()
		return nil
	})
}

// get reads and checks a value. What no StableStore distinguishes in the same way is errNotFound here.
func (s *Store) get(key []byte, via caller) ([]byte, error) {
	key = bytes.Clone(key)
	var b []byte
	err := via("reading "+string(key), func() (err error) {
		b, err = s.stable.Get(key)
		return err
	})
	switch {
	case err != nil && err.Error() == errNotFound.Error(), err == nil && len(b) == 0:
		return nil, errNotFound
	case err != nil:
		return nil, err
	}
	return openValue(key, b)
}

func (s *Store) getUint64(key []byte, via caller) (uint64, error) {
	b, err := s.get(key, via)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, &CorruptError{Reason: fmt.Sprintf("%s has %d bytes", key, len(b))}
	}
	return binary.BigEndian.Uint64(b), nil
}

// vote reads the last vote.
func (s *Store) vote(via caller) (term uint64, candidate []byte, err error) {
	b, err := s.get(keyVote, via)
	if err != nil {
		return 0, nil, err
	}
	if len(b) < 8 {
		return 0, nil, &CorruptError{Reason: fmt.Sprintf("%s has %d bytes", keyVote, len(b))}
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}
