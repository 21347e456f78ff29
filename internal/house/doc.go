// SPDX-License-Identifier: Apache-2.0

// Package house checks that the module is built the way docs/design.md says: which file may know of what, which
// files are pure, what an importer links in, what is documented, and which rules of docs/spec are tested. It has
// nothing but tests. They read the sources as they are; packages that do not exist are passed over.
package house
