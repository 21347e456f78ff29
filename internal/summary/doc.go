// SPDX-License-Identifier: Apache-2.0

// Package summary sums up quantities that are measured often: how long something took, how large it was, how many there
// were.
package summary
