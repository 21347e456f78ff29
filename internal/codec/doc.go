// SPDX-License-Identifier: Apache-2.0

// Package codec appends and reads the primitives our binary formats are made
// of: variable-length integers, fixed big-endian integers, single bytes, and
// strings with their length in front.
//
// An encoding is canonical. A value has one encoding and a decoder accepts no
// other, so equal values are equal bytes and the other way round.
//
// A Reader keeps its first error. A decoder reads all its fields in a row and
// asks for the error once, at the end:
//
//	r := codec.NewReader(b)
//	name, size := r.String(), r.Uint64()
//	if err := r.Done(); err != nil {
//		return err
//	}
package codec
