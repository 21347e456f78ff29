// SPDX-License-Identifier: Apache-2.0

package recipes

import "encoding/json"

// Codec turns values into bytes and back. Implementations must be safe for concurrent use. Decode gets bytes that it
// may keep, and returns an error for what it does not understand.
type Codec[T any] interface {
	Encode(T) ([]byte, error)
	Decode([]byte) (T, error)
}

// JSON is the default codec.
type JSON[T any] struct{}

// Encode is json.Marshal.
func (JSON[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

// Decode is json.Unmarshal.
func (JSON[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}
