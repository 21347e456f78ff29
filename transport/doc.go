// SPDX-License-Identifier: Apache-2.0

// Package transport carries streams between the members of an ensemble: over TCP, over TLS with both ends
// authenticated, or over a listener that the program has already.
//
// TCP, TLS and Wrap all make a *Transport, which satisfies zk.Transport:
//
//	tr, err := transport.TLS("0.0.0.0:7000", &tls.Config{
//		Certificates: []tls.Certificate{mine}, // with this member's id as a DNS name
//		RootCAs:      ensemble,                // who signs the members' certificates
//	})
//	m, err := zk.Open(ctx, zk.Config{ID: "a", Transport: tr, Advertise: "a.example:7000", ...})
//
// A listener binds to loopback unless told otherwise: ":7000" is 127.0.0.1:7000. Name an address to be reached from
// other hosts, or listen everywhere with "0.0.0.0:7000"; then tell the members another address than Addr's, for that
// one is no place to dial.
//
// # Identity
//
// Members are known by id, and their addresses change; so TLS verifies that the other end's certificate is signed by
// the ensemble's authority and valid for its role, but not the host name. Which member it names is checked by the
// layer above, which finds the certificate in the stream's ConnectionState. Plain TCP authenticates nobody: use it
// on loopback, or where everyone is trusted.
//
// # Bounds
//
// At most 4096 accepted streams are open at a time, at most 128 of them in their handshake, for at most 5 seconds
// each. What comes beyond is closed at once, so that a flood costs the flooder its streams and not the program its
// file descriptors. Streams that this end has dialled are not bounded here.
package transport
