// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-541fafe0/zk"
)

var openACL = zk.OpenACL()

func createACL(p string, acl []zk.ACL, flags int32) []byte {
	q := createRequest{path: p, acl: acl, flags: flags}
	if acl != nil {
		return q.append(nil, opCreate)
	}
	b := appendInt(appendInt(path(p), -1), -1) // null data, null list
	return appendInt(b, flags)
}

func createTTL(p string, flags int32, ttl int64) []byte {
	q := createRequest{path: p, acl: openACL, flags: flags, ttl: ttl}
	return q.append(nil, opCreateTTL)
}

func setACLBody(p string, acl []zk.ACL, version int32) []byte {
	return appendInt(appendACL(path(p), acl), version)
}

func authBodyOf(scheme, cred string) []byte {
	return appendBuffer(appendString(appendInt(nil, 7), scheme), []byte(cred)) // the type means nothing (WP-41)
}

func watchesBody(since int64, lists ...[]string) []byte {
	b := appendLong(nil, since)
	for _, l := range lists {
		b = appendStrings(b, l)
	}
	return b
}

func reconfigBody(joining, leaving, members string, version int64) []byte {
	return appendLong(appendString(appendString(appendString(nil, joining), leaving), members), version)
}

// Every opcode: what it answers, and in which cases with an error (section 4, WP-24, WP-25, DM-40 to DM-53).
func TestOpcodes(t *testing.T) {
	m := member(t, zk.Config{SuperDigest: zk.DigestID("super:secret")})
	addr := serve(t, &Server{Member: m})
	c := open(t, addr)
	same := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	done := func(p *reply) {
		t.Helper()
		if p.err != nil || len(p.b) > 0 {
			t.Errorf("answer to %d: %v, %d bytes are left", p.xid, p.err, len(p.b))
		}
	}
	tested := map[opcode]func(){
		opCreate: func() {
			p := c.want(0, opCreate, createBody("/n", "one", 0))
			same("path", p.string(), "/n")
			done(&p) // WP-25: no Stat
			p = c.want(0, opCreate, createBody("/n/s-", "", 2))
			same("path", p.string(), "/n/s-0000000000")
			p = c.want(0, opCreate, createBody("/n/", "", 3)) // DM-9
			same("path", p.string(), "/n/0000000001")
			c.want(0, opCreate, createBody("/n/e", "", 1))
			c.want(zk.ErrNoChildrenForEphemerals, opCreate, createBody("/n/e/x", "", 0))
			c.want(zk.ErrNodeExists, opCreate, createBody("/n", "", 0))
			c.want(zk.ErrNodeExists, opCreate, createBody("/", "", 0))
			c.want(zk.ErrNoNode, opCreate, createBody("/none/x", "", 0))
			c.want(zk.ErrBadArguments, opCreate, createBody("nothing", "", 0))
			c.want(zk.ErrBadArguments, opCreate, createBody("/n/..", "", 0))
			c.want(zk.ErrBadArguments, opCreate, createBody("/n/", "", 0))
			c.want(zk.ErrNoNode, opCreate, createBody("/none/", "", 0))
			c.want(zk.ErrBadArguments, opCreate, createBody("/\U0001F600", "", 0)) // DM-4
			c.want(zk.ErrBadArguments, opCreate, createBody("/\xff", "", 0))       // DM-5
			for _, flags := range []int32{4, 5, 6, 7, 9, -1} {                     // DM-17, DM-21, DM-22
				c.want(zk.ErrBadArguments, opCreate, createBody("/flags", "", flags))
			}
			c.want(zk.ErrInvalidACL, opCreate, createACL("/acl", nil, 0)) // DM-103
			c.want(zk.ErrInvalidACL, opCreate, createACL("/none/acl", []zk.ACL{}, 0))
			c.want(zk.ErrInvalidACL, opCreate, createACL("/acl", []zk.ACL{{Perm: 31, Scheme: "nobody", ID: "x"}}, 0))
			c.want(0, opCreate, createACL("/perm", []zk.ACL{{Perm: 99, Scheme: "world", ID: "anyone"}}, 0)) // DM-105
		},
		opCreate2: func() {
			p := c.want(0, opCreate2, createBody("/n/two", "12345", 0))
			same("path", p.string(), "/n/two")
			st := p.stat()
			same("stat", fmt.Sprint(st.Czxid, st.Mzxid, st.DataLength, st.EphemeralOwner), fmt.Sprint(zk.Zxid(p.zxid), zk.Zxid(p.zxid), 5, zk.SessionID(0)))
			done(&p)
			p = c.want(0, opCreate2, createBody("/n/mine", "", 1))
			p.string()
			same("owner", p.stat().EphemeralOwner, zk.SessionID(c.session))
		},
		opCreateContainer: func() {
			for i, flags := range []int32{0, 4} { // DM-21: the opcode decides
				p := c.want(0, opCreateContainer, createBody(fmt.Sprint("/n/c", i), "", flags))
				p.string()
				same("owner", p.stat().EphemeralOwner, zk.SessionID(0)) // DM-18
				done(&p)
			}
			for _, flags := range []int32{1, 2, 3, 8} { // DM-22
				c.want(zk.ErrBadArguments, opCreateContainer, createBody("/n/cx", "", flags))
			}
		},
		opCreateTTL: func() {
			p := c.want(0, opCreateTTL, createTTL("/n/ttl", 5, 1000))
			same("path", p.string(), "/n/ttl")
			same("owner", p.stat().EphemeralOwner, zk.SessionID(0))
			done(&p)
			p = c.want(0, opCreateTTL, createTTL("/n/ttl-", 6, 1<<40-1)) // DM-19
			if s := p.string(); !strings.HasPrefix(s, "/n/ttl-00000") {
				t.Error(s)
			}
			for _, ttl := range []int64{0, -1, -1 << 62, 1 << 40, 1 << 62} {
				c.want(zk.ErrBadArguments, opCreateTTL, createTTL("/n/ttlx", 5, ttl))
			}
			c.want(zk.ErrBadArguments, opCreateTTL, createTTL("/n/ttlx", 0, 10)) // DM-21
			c.want(0, opCreateTTL, createTTL("/n/plain", 0, -1))
		},
		opExists: func() {
			p := c.want(0, opExists, pathWatch("/n", false))
			same("data length", p.stat().DataLength, 3)
			done(&p)
			c.want(zk.ErrNoNode, opExists, pathWatch("/none", true)) // WP-24
			c.want(0, opCreate, createBody("/none", "", 0))
			same("events", c.heard(), "1:/none")
			c.want(0, opDelete, pathVersion("/none", -1))
			c.want(zk.ErrBadArguments, opExists, pathWatch("/a\x00", false)) // DM-45
			c.want(0, opExists, pathWatch("", false))                        // DM-8
			c.want(zk.ErrNoNode, opExists, pathWatch("no slash", false))
		},
		opGetData: func() {
			p := c.want(0, opGetData, pathWatch("/n", false))
			same("data", string(p.buffer()), "one")
			same("data length", p.stat().DataLength, 3)
			done(&p)
			q := createRequest{path: "/n/null", acl: openACL} // DM-24
			c.want(0, opCreate, q.append(nil, opCreate))
			p = c.want(0, opGetData, pathWatch("/n/null", false))
			same("null data", p.buffer() == nil, true)
			p = c.want(0, opGetData, pathWatch("/n/e", false))
			same("empty data is null", p.buffer() == nil, false)
			c.want(zk.ErrNoNode, opGetData, pathWatch("/n/", false))
			c.want(0, opGetData, pathWatch("", false))
		},
		opSetData: func() {
			p := c.want(0, opSetData, setBody("/n", "four", 0))
			st := p.stat()
			same("stat", fmt.Sprint(st.Version, st.DataLength, st.Mzxid), fmt.Sprint(1, 4, zk.Zxid(p.zxid)))
			done(&p)
			c.want(zk.ErrBadVersion, opSetData, setBody("/n", "", 0))
			c.want(zk.ErrNoNode, opSetData, setBody("/none", "", -1))
			c.want(zk.ErrBadArguments, opSetData, setBody("/n/", "", -1))
			c.want(0, opSetData, setBody("/", "root", -1))
		},
		opDelete: func() {
			c.want(zk.ErrNotEmpty, opDelete, pathVersion("/n", -1))
			c.want(zk.ErrBadVersion, opDelete, pathVersion("/n", 77)) // DM-41: before the children
			c.want(zk.ErrNoNode, opDelete, pathVersion("/n/", -1))    // DM-41: the light check alone
			c.want(zk.ErrBadArguments, opDelete, pathVersion("nothing", -1))
			for _, p := range []string{"/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"} { // DM-7
				c.want(zk.ErrBadArguments, opDelete, pathVersion(p, -1))
			}
			p := c.want(0, opDelete, pathVersion("/n/two", 0))
			done(&p)
		},
		opSetACL: func() {
			c.want(0, opCreate, createBody("/acl", "", 0))
			p := c.want(0, opSetACL, setACLBody("/acl", []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("u:p")}, {Perm: zk.PermRead, Scheme: "world", ID: "anyone"}}, 0))
			same("aversion", p.stat().Aversion, 1)
			done(&p)
			c.want(zk.ErrNoAuth, opSetACL, setACLBody("/acl", openACL, -1))
			c.want(zk.ErrInvalidACL, opSetACL, setACLBody("/acl", nil, -1))
			c.want(zk.ErrNoNode, opSetACL, setACLBody("/none", openACL, -1))
		},
		opGetACL: func() {
			p := c.want(0, opGetACL, path("/acl"))
			same("masked", fmt.Sprint(p.acl()), fmt.Sprint([]zk.ACL{{Perm: 31, Scheme: "digest", ID: "u:x"}, {Perm: 1, Scheme: "world", ID: "anyone"}})) // DM-50
			same("aversion", p.stat().Aversion, 1)
			done(&p)
			c.want(zk.ErrNoNode, opGetACL, path("/none"))
		},
		opAuth: func() {
			p := c.want(0, opAuth, authBodyOf("digest", "u:p"))
			same("zxid", p.zxid, 0) // WP-40
			done(&p)
			p = c.want(0, opGetACL, path("/acl"))
			same("unmasked", p.acl()[0].ID, zk.DigestID("u:p"))
			c.want(0, opSetACL, setACLBody("/acl", openACL, 1))
			c.want(0, opAuth, authBodyOf("ip", "1.2.3.4")) // DM-111: nothing happens
			c.want(0, opAuth, authBodyOf("digest", "no colon"))
			for _, scheme := range []string{"world", "sasl", "x509", "super", "auth", "", "nothing"} {
				c := open(t, addr)
				c.want(zk.ErrAuthFailed, opAuth, authBodyOf(scheme, "super"))
				c.ended()
			}
		},
		opWhoAmI: func() {
			p := c.want(0, opWhoAmI, nil) // DM-52
			ids := map[string]string{}
			for range p.count(8) {
				ids[p.string()] += p.string() + " "
			}
			same("who", ids, map[string]string{"digest": "u no colon ", "ip": "127.0.0.1 "})
			done(&p)
		},
		opGetChildren: func() {
			p := c.want(0, opGetChildren, pathWatch("/zookeeper", false))
			same("children", p.strings(), []string{"config", "quota"})
			done(&p)
			p = c.want(0, opGetChildren, pathWatch("/n/ttl", false))
			same("no children", p.count(4), 0)
			c.want(zk.ErrNoNode, opGetChildren, pathWatch("/none", false))
		},
		opGetChildren2: func() {
			p := c.want(0, opGetChildren2, pathWatch("/zookeeper", false))
			same("children", p.strings(), []string{"config", "quota"})
			st := p.stat()
			same("stat", fmt.Sprint(st.NumChildren, st.Cversion), "2 -2") // DM-14
			done(&p)
		},
		opCountChildren: func() {
			p := c.want(0, opCountChildren, path("/zookeeper"))
			same("descendants", p.int(), 2)
			done(&p)
			c.want(zk.ErrNoNode, opCountChildren, path("/none"))
		},
		opGetEphemerals: func() {
			for prefix, want := range map[string]int{"/n/m": 1, "/": 3, "": 3, "  ": 3, "/x": 0} { // DM-49
				p := c.want(0, opGetEphemerals, path(prefix))
				same("ephemerals of "+prefix, len(p.strings()), want)
				done(&p)
			}
			p := c.want(0, opGetEphemerals, appendInt(nil, -1))
			same("ephemerals of null", len(p.strings()), 3)
		},
		opSync: func() {
			p := c.want(0, opSync, path("any text")) // DM-51
			same("path", p.string(), "any text")
			done(&p)
		},
		opPing: func() {
			c.send(requestHeader{99, opPing}.append(nil))
			p := c.reply()
			same("xid", p.xid, xidPing) // WP-22
			same("zxid", p.zxid, int64(m.Applied()))
			done(&p)
		},
		opMulti: func() {
			b := multiHeader{opCreate, false, -1}.append(nil)
			b = append(b, createBody("/m", "", 0)...)
			b = append(multiHeader{opCreate2, false, -1}.append(b), createBody("/m/1", "", 2)...)
			b = append(multiHeader{opCreateContainer, false, -1}.append(b), createBody("/m/c", "", 4)...)
			b = append(multiHeader{opCreateTTL, false, -1}.append(b), createTTL("/m/t", 5, 5000)...)
			b = append(multiHeader{opCheck, false, -1}.append(b), pathVersion("/m", 0)...)
			b = append(multiHeader{opSetData, false, -1}.append(b), setBody("/m", "x", 0)...)
			b = append(multiHeader{opDelete, false, -1}.append(b), pathVersion("/m/c", -1)...)
			p := c.want(0, opMulti, multiEnd.append(b))
			var got []string
			for {
				var h multiHeader
				h.decode(&p.decoder)
				if h.done {
					break
				}
				text := fmt.Sprint(h.op)
				switch h.op {
				case opCreate:
					text += p.string()
				case opCreate2: // WP-31: those that have a Stat
					text += p.string()
					p.stat()
				case opSetData:
					text += fmt.Sprint(" version ", p.stat().Version)
				}
				got = append(got, text)
			}
			same("results", got, []string{"1/m", "1/m/10000000000", "15/m/c", "15/m/t", "13", "5 version 1", "2"})
			done(&p)
		},
		opMultiRead: func() {
			b := append(multiHeader{opGetData, false, -1}.append(nil), pathWatch("/n", true)...)
			b = append(multiHeader{opGetData, false, -1}.append(b), pathWatch("/none", true)...)
			b = append(multiHeader{opGetChildren, false, -1}.append(b), pathWatch("/zookeeper", true)...)
			p := c.want(0, opMultiRead, multiEnd.append(b)) // DM-66
			var h multiHeader
			h.decode(&p.decoder)
			same("data", fmt.Sprint(h.op, string(p.buffer()), p.stat().Version), "4four1")
			h.decode(&p.decoder)
			same("error", fmt.Sprint(int(h.op), int(h.code), p.int()), "-1 -101 -101") // WP-32
			h.decode(&p.decoder)
			same("names", fmt.Sprint(h.op, p.strings()), "8 [config quota]")
			h.decode(&p.decoder)
			same("end", h, multiEnd)
			done(&p)
			c.want(0, opSetData, setBody("/n", "one", -1))
			same("events", c.heard(), "") // the watch flags are ignored
		},
		opAddWatch: func() {
			p := c.want(0, opAddWatch, pathVersion("/w", 0)) // WT-5
			same("body", p.int(), 0)
			done(&p)
			c.want(0, opAddWatch, pathVersion("no path", 1))
			c.want(zk.ErrMarshalling, opAddWatch, pathVersion("/w", 2))
			c.want(0, opCreate, createBody("/w", "", 0))
			same("events", c.heard(), "1:/w")
		},
		opCheckWatches: func() {
			c.want(0, opCheckWatches, pathVersion("/w", 4))
			c.want(0, opCheckWatches, pathVersion("/w", 3))
			c.want(zk.ErrNoWatch, opCheckWatches, pathVersion("/w", 5))
			for _, n := range []int32{0, 6, -1, 259} { // WT-27
				c.want(zk.ErrMarshalling, opCheckWatches, pathVersion("/w", n))
			}
		},
		opRemoveWatches: func() {
			c.want(zk.ErrNoWatch, opRemoveWatches, pathVersion("/w", 1))
			p := c.want(0, opRemoveWatches, pathVersion("/w", 4))
			done(&p)
			c.want(zk.ErrNoWatch, opRemoveWatches, pathVersion("/w", 3))
			c.want(zk.ErrMarshalling, opRemoveWatches, pathVersion("/w", 9))
			c.want(0, opDelete, pathVersion("/w", -1))
			same("events", c.heard(), "")
		},
		opSetWatches: func() {
			p := c.want(0, opSetWatches, watchesBody(0, []string{"/n"}, []string{"/m"}, []string{"/none"}))
			done(&p)
			same("events", c.heard(), "3:/n 1:/m 2:/none") // WT-32
		},
		opSetWatches2: func() {
			c.want(0, opSetWatches2, watchesBody(1<<40, []string{"/n"}, nil, nil, []string{"/m"}, []string{"/n"}))
			c.want(0, opSetData, setBody("/n", "", -1))
			c.want(0, opSetData, setBody("/m", "", -1))
			same("events", c.heard(), "3:/n 3:/m")
			c.want(0, opRemoveWatches, pathVersion("/n", 5))
			c.want(0, opRemoveWatches, pathVersion("/m", 4))
		},
		opSASL: func() {
			p := c.want(0, opSASL, appendBuffer(nil, []byte("token"))) // WP-47
			same("null token", p.buffer() == nil, true)
			same("zxid", p.zxid, 0)
			done(&p)
		},
		opReconfig: func() {
			c.want(zk.ErrReconfigDisabled, opReconfig, reconfigBody("", "1", "", -1))
		},
		opCloseSession: func() {
			p := c.want(0, opCloseSession, nil) // WP-27
			done(&p)
			c.ended()
			o := open(t, addr)
			o.want(zk.ErrNoNode, opExists, pathWatch("/n/mine", false)) // SS-12
		},
	}
	order := []opcode{opCreate, opCreate2, opCreateContainer, opCreateTTL, opExists, opGetData, opSetData, opDelete, opSetACL, opGetACL, opAuth, opWhoAmI,
		opGetChildren, opGetChildren2, opCountChildren, opGetEphemerals, opSync, opPing, opMulti, opMultiRead, opAddWatch, opCheckWatches, opRemoveWatches,
		opSetWatches, opSetWatches2, opSASL, opReconfig, opCloseSession}
	for op := range operations {
		if tested[op] == nil {
			t.Errorf("opcode %d is not tested", op)
		}
	}
	if len(order) != len(tested) {
		t.Fatalf("%d of %d opcodes are in order", len(order), len(tested))
	}
	for _, op := range order {
		tested[op]()
	}
}
