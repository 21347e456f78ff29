// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk/internal/zookeeper"
	"github.com/seed-541fafe0/zk/zktest"
)

// localScript is what a client with a local session can see of the server that it came to and of another one: an answer a line.
// Everything happens below root.
func localScript(t *testing.T, root, here, elsewhere string) (lines []string) {
	t.Helper()
	c := dial(t, here)
	if !c.connect(connectRequest{timeout: 10_000, password: make([]byte, passwordSize), hasRO: true}) {
		t.Fatal("no session")
	}
	say := func(what string, op opcode, body []byte) {
		p := c.call(op, body)
		text := fmt.Sprintf("%s %d", what, int32(p.code))
		if op == opMulti && p.code == 0 {
			text += ": " + codes(t, &p)
		}
		if op == opGetEphemerals && p.code == 0 {
			paths := p.strings()
			slices.Sort(paths) // DM-49
			text += ": " + strings.Join(paths, " ")
		}
		lines = append(lines, strings.ReplaceAll(text, root+"/", ""))
	}
	attach := func(what string, addr string) {
		d := dial(t, addr)
		lines = append(lines, fmt.Sprint(what, " ", d.connect(connectRequest{timeout: 10_000, session: c.session, password: c.password, hasRO: true}), " ", d.session == c.session, " ", d.timeout))
		if d.session != 0 {
			c = d
		}
	}
	say("create", opCreate, createBody(root, "", 0))
	say("set", opSetData, setBody(root, "", 0))
	say("container", opCreateContainer, createBody(root+"/c", "", 4))
	say("ttl", opCreateTTL, createTTL(root+"/t", 5, 100_000))
	say("multi", opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody(root+"/m", "", 0)).step(opSetData, setBody(root+"/m", "", 0))))
	say("ephemerals", opGetEphemerals, path("/"))
	attach("another server", elsewhere)
	attach("the same server", here)
	say("watch", opExists, pathWatch(root+"/e", true))
	say("a bad multi", opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody(root+"/x", "", 0)).step(opCreate, createBody(root+"/none/e", "", 1)).step(opDelete, pathVersion(root+"/m", -1))))
	say("ephemeral", opCreate, createBody(root+"/e", "", 1))
	say("sequential", opCreate2, createBody(root+"/s-", "", 3))
	say("a bad path", opCreate, createBody(root[1:], "", 1))
	say("no parent", opCreate, createBody(root+"-none/e", "", 1))
	say("multi", opMulti, multiEnd.append(multiRequest{}.step(opCreate, createBody(root+"/x", "", 0)).step(opCreate, createBody(root+"/x/e", "", 1)).step(opDelete, pathVersion(root+"/m", -1))))
	say("ephemerals", opGetEphemerals, path("/"))
	say("exists", opExists, pathWatch(root+"/x", false))
	lines = append(lines, strings.ReplaceAll(fmt.Sprint("events ", c.events), root+"/", ""))
	attach("another server", elsewhere)
	say("ephemerals", opGetEphemerals, path("/"))
	return lines
}

// A client with a local session sees the same of Apache ZooKeeper and of zk, with upgrades and without, whether its
// server leads or follows (SS-22, SS-23, DM-67). Where ZooKeeper's own servers do not agree, zk does as the leader.
func TestLocalSessionsAsZooKeeper(t *testing.T) {
	if err := zookeeper.Installed(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	for _, upgrade := range []bool{false, true} {
		t.Run(fmt.Sprint("upgrade ", upgrade), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			servers, err := zookeeper.StartEnsemble(ctx, 3, zookeeper.Options{Config: []string{"localSessionsEnabled=true", fmt.Sprint("localSessionsUpgradingEnabled=", upgrade)}})
			must(t, err)
			leader, follower := "", ""
			for _, s := range servers {
				defer s.Stop()
				answer, err := s.Word("srvr")
				must(t, err)
				if strings.Contains(answer, "Mode: leader") {
					leader = s.Addr
				} else {
					follower = s.Addr
				}
			}
			c, err := zktest.Open(ctx, 3, zktest.Config{})
			must(t, err)
			t.Cleanup(func() { c.Close() })
			l, err := c.Leader(ctx)
			must(t, err)
			port := func(i int) string {
				s := &Server{Member: c.Member(i % 3)}
				localSessions(upgrade)(s)
				return serve(t, s)
			}
			ourLeader, ourFollower := port(l), port(l+1)
			for _, v := range []struct{ root, here, elsewhere, ourHere, ourElsewhere string }{
				{"/led", leader, follower, ourLeader, ourFollower}, {"/followed", follower, leader, ourFollower, ourLeader},
			} {
				want, got := localScript(t, v.root, v.here, v.elsewhere), localScript(t, v.root, v.ourHere, v.ourElsewhere)
				if len(got) != len(want) {
					t.Fatalf("%d answers, of ZooKeeper %d", len(got), len(want))
				}
				for i := range want {
					if !upgrade && v.here == follower { // a multi is refused by the leader alone, which does not know the session
						want[i] = strings.ReplaceAll(want[i], "-112", "-120")
					}
					if got[i] != want[i] {
						t.Errorf("%s: %q, of ZooKeeper %q", v.root, got[i], want[i])
					}
				}
			}
		})
	}
}
