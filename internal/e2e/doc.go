// SPDX-License-Identifier: Apache-2.0

// Package e2e runs ZooKeeper's own clients, the recipes built on them and a whole program against the ZooKeeper port
// of an ensemble of three members, each a process of its own, and across the kill of the one that leads. It has tests
// only, for Linux with Debian's packages:
//
//	./install                       # as root: what the suites need
//	go test                         # against zk; prints the table of docs/compatibility.md
//	go test -args -server apache    # against Debian's ZooKeeper, to see that the suites themselves are right
//
// Each suite is a program in its client's language, in a directory of its own. It gets the ensemble's connect string
// as its argument, and talks to the test in lines. On its standard output:
//
//	client NAME VERSION   what is being tried
//	ok CASE               a case passed
//	FAIL CASE REASON      a case failed
//	skip CASE REASON      a case was not run
//	ask REQUEST           the test does it and answers with one line on the program's standard input
//
// The requests are "leader" (answered with the address of the leader's port), "kill leader", and "restart" (of all that
// were killed). Every other line is shown in the test's log. A program ends with status 0 when it has run all its
// cases, whatever their outcome.
//
// The tests named TestShared have a member in their own process, and a program of the other library that does on the
// same paths what it is told, line by line.
package e2e
