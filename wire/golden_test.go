// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/seed-541fafe0/zk"
)

// The frames of a session with a stand-alone ZooKeeper 3.8.0, in section 12 of docs/spec/wire-protocol.md. T is a byte
// of a time. Where 3.8.0 differs from 3.10 the newer one counts: the event carries its zxid (WT-18).
var golden = []struct{ what, send, answer string }{
	{"create /g", "00000001 00000001 00000002 2f67 00000001 76 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000",
		"00000001 0000000000000002 00000000 00000002 2f67"},
	{"exists /g with a watch", "00000002 00000003 00000002 2f67 01",
		"00000002 0000000000000002 00000000 0000000000000002 0000000000000002 TTTTTTTTTTTTTTTT TTTTTTTTTTTTTTTT 00000000 00000000 00000000 0000000000000000 00000001 00000000 0000000000000002"},
	{"getData /none", "00000003 00000004 00000005 2f6e6f6e65 00", "00000003 0000000000000002 ffffff9b"},
	{"getChildren /zookeeper", "00000004 00000008 0000000a 2f7a6f6f6b6565706572 00",
		"00000004 0000000000000002 00000000 00000002 00000006 636f6e666967 00000005 71756f7461"},
	{"ping", "fffffffe 0000000b", "fffffffe 0000000000000002 00000000"},
	{"sync /g", "00000005 00000009 00000002 2f67", "00000005 0000000000000002 00000000 00000002 2f67"},
	{"set /g, which is watched", "00000006 00000005 00000002 2f67 00000001 77 ffffffff",
		"ffffffff 0000000000000003 00000000 00000003 00000003 00000002 2f67"},
	{"its answer", "", "00000006 0000000000000003 00000000 0000000000000002 0000000000000003 TTTTTTTTTTTTTTTT TTTTTTTTTTTTTTTT 00000001 00000000 00000000 0000000000000000 00000001 00000000 0000000000000002"},
	{"a multi that fails", "00000007 0000000e  00000001 00 ffffffff 00000004 2f672f61 00000000 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000  00000002 00 ffffffff 00000005 2f6e6f7065 ffffffff  ffffffff 01 ffffffff",
		"00000007 0000000000000004 00000000  ffffffff 00 00000000 00000000  ffffffff 00 ffffff9b ffffff9b  ffffffff 01 ffffffff"},
	{"a multi", "00000008 0000000e  0000000d 00 ffffffff 00000002 2f67 00000001  00000005 00 ffffffff 00000002 2f67 00000001 7a 00000001  ffffffff 01 ffffffff",
		"00000008 0000000000000005 00000000  0000000d 00 00000000  00000005 00 00000000 0000000000000002 0000000000000005 TTTTTTTTTTTTTTTT TTTTTTTTTTTTTTTT 00000002 00000000 00000000 0000000000000000 00000001 00000000 0000000000000002  ffffffff 01 ffffffff"},
	{"close", "00000009 fffffff5", "00000009 0000000000000006 00000000"},
}

// A session whose every frame is what ZooKeeper's was, byte for byte, but for times (WP-1, WP-10, WP-20 to WP-22,
// WP-24 to WP-27, WP-30 to WP-32).
func TestGoldenFrames(t *testing.T) {
	m := member(t, zk.Config{MinTimeout: 4e9, MaxTimeout: 4e9, SessionTimeout: 4e9})
	c := dial(t, serve(t, &Server{Member: m}))
	c.send(unhex(t, "00000000 0000000000000000 00000fa0 0000000000000000 00000010 00000000000000000000000000000000 00"))
	first := c.receive()
	// ConnectResponse: version, timeout, id, password of 16 bytes, readOnly.
	if got := hex.EncodeToString(first); len(first) != 37 || !strings.HasPrefix(got, "0000000000000fa001") || got[32:40] != "00000010" || got[72:] != "00" {
		t.Fatalf("response %s", got)
	}
	for _, g := range golden {
		if g.send != "" {
			c.send(unhex(t, g.send))
		}
		want := strings.Join(strings.Fields(g.answer), "")
		got := hex.EncodeToString(c.receive())
		if len(got) != len(want) {
			t.Fatalf("%s:\n got %s\nwant %s", g.what, got, want)
		}
		for i := range want {
			if want[i] != 'T' && want[i] != got[i] {
				t.Fatalf("%s: byte %d:\n got %s\nwant %s", g.what, i/2, got, want)
			}
		}
	}
	c.ended()
}

// Golden frames that are not part of one session: a refused one, an empty multi.
func TestGoldenRefusal(t *testing.T) {
	m := member(t, zk.Config{})
	addr := serve(t, &Server{Member: m})
	c := dial(t, addr)
	c.send((&connectRequest{timeout: 4000, session: 77, password: make([]byte, 16), hasRO: true}).append(nil))
	const refused = "0000000000000000000000000000000000000010" + "00000000000000000000000000000000" + "00"
	if got := hex.EncodeToString(c.receive()); got != refused { // WP-14
		t.Errorf("refusal %s, want %s", got, refused)
	}
	c.ended()
	c = open(t, addr)
	if p := c.want(0, opMulti, multiEnd.append(nil)); hex.EncodeToString(p.b) != "ffffffff01ffffffff" { // DM-60
		t.Errorf("empty multi %x", p.b)
	}
}
