// SPDX-License-Identifier: Apache-2.0

package raftstore

import (
	"crypto/rand"
	"strings"

	"github.com/seed-541fafe0/zk/internal/codec"
)

// keyIdentity is kept beside the term and the vote: whoever loses those loses its identity with them, and the others
// see a stranger instead of a member without memory (D27).
var keyIdentity = []byte("Identity")

// Identity says whose store this is.
type Identity struct {
	ID          string // of the member
	Storage     string // random, made with the store
	Incarnation uint64 // how many times the store was booted, this time included
}

// Boot reads the identity, or makes one in an empty store, and counts one more start. It is called once, before raft
// begins. An empty id means the one that is stored, or a generated one; another one than is stored is an
// *IdentityError.
func (s *Store) Boot(id string) (Identity, error) {
	who, err := s.identity()
	switch {
	case err == errNotFound && (s.last > 0 || s.term > 0):
		return Identity{}, &CorruptError{Reason: "there is a log or a term, and nothing says whose"}
	case err == errNotFound:
		who = Identity{ID: id, Storage: randomName()}
		if id == "" {
			who.ID = randomName()
		}
	case err != nil:
		return Identity{}, err
	case id != "" && id != who.ID:
		return Identity{}, &IdentityError{Have: who.ID, Want: id}
	}
	who.Incarnation++
	sealed := sealValue(keyIdentity, appendIdentity(nil, who))
	return who, s.direct("", func() error { return s.stable.Set(keyIdentity, sealed) })
}

func (s *Store) identity() (Identity, error) {
	b, err := s.get(keyIdentity, s.direct)
	if err != nil {
		return Identity{}, err
	}
	return readIdentity(b)
}

func appendIdentity(b []byte, who Identity) []byte {
	b = codec.AppendString(b, who.ID)
	b = codec.AppendString(b, who.Storage)
	return codec.AppendUvarint(b, who.Incarnation)
}

func readIdentity(b []byte) (Identity, error) {
	r := codec.NewReader(b)
	who := Identity{ID: r.String(), Storage: r.String(), Incarnation: r.Uvarint()}
	if err := r.Done(); err != nil {
		return Identity{}, &CorruptError{Reason: "identity: " + err.Error()}
	}
	if who.ID == "" || who.Storage == "" || who.Incarnation == 0 {
		return Identity{}, &CorruptError{Reason: "identity: it is incomplete"}
	}
	return who, nil
}

func randomName() string { return strings.ToLower(rand.Text()) }
