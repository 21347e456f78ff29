// SPDX-License-Identifier: Apache-2.0

package recipes

import "encoding/json"

// Codec turns values into bytes and back. Implementations must be safe for concurrent use.
type Codec[T any] interface {
	// Encode returns the bytes to store, at most zk.Config.MaxValueSize of them, which are copied. Its error is wrapped, and nothing is
	// written.
	Encode(T) ([]byte, error)

	// Decode gets bytes that it may keep and change, anything that anybody may have stored: it returns an error for what it
	// does not understand, and does not panic. The error is wrapped in a *DecodeError.
	Decode([]byte) (T, error)
}

// JSON is the default codec, for whatever encoding/json can store: fields that it does not know are passed over, so that a
// program may be older than what is stored. It has no state and is safe for concurrent use.
type JSON[T any] struct{}

// Encode is json.Marshal, with its errors.
func (JSON[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

// Decode is json.Unmarshal, with its errors; bytes of length 0 are one.
func (JSON[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}
