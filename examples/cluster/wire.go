// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"sync"

	"github.com/seed-541fafe0/zk"
)

// An order is what the first process tells a member: one JSON object per line of its standard input. At the end of
// the input the member shuts down, so that members never outlive the first process.
type order struct {
	Do string // one of the constants below

	// Of doOpen.
	ID      string    `json:",omitempty"`
	Data    string    `json:",omitempty"` // the member's directory
	Source  string    `json:",omitempty"` // the directory to count
	Workers int       `json:",omitempty"`
	Peers   []zk.Peer `json:",omitempty"`
}

const (
	doOpen  = "open"
	doProbe = "probe" // make small writes until doRest, and tell of each that was acknowledged
	doRest  = "rest"
	doDump  = "dump" // tell all results
)

// A notice is what a member tells: one JSON object per line of its standard output.
type notice struct {
	What string // one of the constants below

	Addr     string              `json:",omitempty"` // of isListening
	Role     string              `json:",omitempty"` // of isRole
	Term     uint64              `json:",omitempty"`
	Progress *progress           `json:",omitempty"` // of isProgress
	Began    int64               `json:",omitempty"` // of isWrite, in Unix nanoseconds
	Acked    int64               `json:",omitempty"`
	Result   *result             `json:",omitempty"` // of isResult
	Doubled  int                 `json:",omitempty"` // of isEnd
	Report   map[string]sharedBy `json:",omitempty"`
	Text     string              `json:",omitempty"` // of isError
}

const (
	isListening = "listening" // the transport has an address
	isRole      = "role"      // the member's role has changed
	isFilling   = "filling"   // this process has been elected to fill the queue
	isProgress  = "progress"
	isWrite     = "write"  // a write was acknowledged
	isDone      = "done"   // everything has been counted and reported
	isResult    = "result" // one of many
	isEnd       = "end"    // of the results
	isError     = "error"  // the process gives up
	isGone      = "gone"   // the process has ended; made by the first process itself
)

// progress is how far the work is, as one member knows it.
type progress struct {
	Queued, Total, Results int // of all processes
	Mine                   int // recorded by this process since it was started
}

// A teller writes notices. It is safe for concurrent use.
type teller struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newTeller(w io.Writer) *teller { return &teller{enc: json.NewEncoder(w)} }

// tell ignores errors: without a reader the process is about to be ended by the end of its input.
func (t *teller) tell(n notice) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.enc.Encode(n)
}
