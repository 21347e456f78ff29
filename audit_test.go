// SPDX-License-Identifier: Apache-2.0

package zk_test

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/zktest"
)

// logLines collects what a handler writes.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last time, without times, with session ids as S and zxids as Z.
func (l *logLines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	for _, r := range [][2]string{{`time=\S+ level=INFO msg=audit `, ""}, {`session=0x[0-9a-f]+`, "session=S"}, {`zxid=0x[0-9a-f]+`, "zxid=Z"}, {` user="" ip=""`, ""}} {
		s = regexp.MustCompile(r[0]).ReplaceAllString(s, r[1])
	}
	return s
}

func auditTo(l *logLines) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Each change that is asked for leaves one record with its outcome, on the member that was asked; reads and checks leave
// none, and no record has data or a password (OP-30 to OP-34).
func TestAudit(t *testing.T) {
	var log logLines
	ctx, m, _ := single(t, zk.Config{Audit: auditTo(&log), MaxTxnOps: 10})
	s, err := m.NewSession(ctx, zk.SessionConfig{Auth: []zk.Auth{
		{Scheme: "digest", Cred: []byte("user:secret")}, {Scheme: "ip", Cred: []byte("10.0.0.1")}, {Scheme: "x509", Cred: []byte("CN=a b")},
	}})
	must(t, err)
	log.take()
	const who = `session=S user="user,CN=a b" ip=10.0.0.1 `
	expect := func(what, want string) {
		t.Helper()
		if got := log.take(); got != want {
			t.Errorf("%s left\n%s, want\n%s", what, got, want)
		}
	}
	create(t, ctx, s, "/a", zk.Persistent)
	expect("create", who+"op=create path=/a mode=persistent result=success zxid=Z\n")
	create(t, ctx, s.Sub("/a"), "/s-", zk.Ephemeral|zk.Sequential)
	expect("sequential", who+"op=create path=/a/s-0000000000 mode=ephemeral|sequential result=success zxid=Z\n")
	_, err = s.Do(ctx, zk.OpCreate("/t", []byte("secret"), zk.Persistent).WithTTL(time.Hour))
	must(t, err)
	expect("ttl", who+"op=create path=/t mode=persistent|ttl result=success zxid=Z\n")
	wants(t, s.Delete(ctx, "/none", zk.AnyVersion), zk.ErrNoNode)
	expect("delete", who+"op=delete path=/none result=failure err=\"no node\" zxid=Z\n")
	_, err = s.SetACL(ctx, "/a", []zk.ACL{{Perm: zk.PermAll, Scheme: "digest", ID: zk.DigestID("user:secret")}, {Perm: zk.PermRead, Scheme: "world", ID: "anyone"}}, zk.AnyVersion)
	must(t, err)
	expect("set ACL", who+"op=\"set acl\" path=/a acl=digest:user:x:cdrwa,world:anyone:r result=success zxid=Z\n")
	_, err = s.Txn(ctx, zk.OpCheck("/a", 0), set("/a"), del("/t"))
	must(t, err)
	expect("transaction", who+"op=set path=/a result=success zxid=Z\n"+who+"op=delete path=/t result=success zxid=Z\n")
	_, err = s.Txn(ctx, set("/a"), del("/none"))
	wants(t, err, zk.ErrNoNode)
	expect("refused transaction", who+"op=txn result=failure err=\"no node\" zxid=Z\n")
	<-s.Listener().Go(ctx, nil, set("/a")).Done
	expect("asynchronous", who+"op=set path=/a result=success zxid=Z\n")
	_, err = s.TxnLate(ctx, nil, set("/a"))
	must(t, err)
	expect("late", who+"op=set path=/a result=success zxid=Z\n")
	_, err = s.Do(ctx, zk.OpCheck("/a", zk.AnyVersion))
	must(t, err)
	_, _, err = s.Get(ctx, "/a")
	must(t, err)
	_, err = s.Txn(ctx)
	must(t, err)
	expect("reads and checks", "")
	must(t, s.DeleteTree(ctx, "/a"))
	expect("tree", who+"op=\"delete tree\" path=/a result=success zxid=Z\n")
	must(t, s.Close())
	expect("close", who+"op=\"close session\" result=success zxid=Z\n")
	wants(t, m.KillSession(ctx, 99), zk.ErrUnknownSession)
	expect("kill", "op=\"kill session\" session=S result=failure err=\"unknown session\"\n")
	wants(t, m.Restore(ctx, strings.NewReader("x")), zk.ErrDataInconsistency)
	expect("restore", "op=restore result=failure err=\"damaged data\"\n")
	wants(t, m.RemoveMember(ctx, m.ID()), zk.ErrNoQuorumForConfig)
	expect("remove", "op=\"remove member\" member="+m.ID()+" result=failure err=\"no quorum of the new configuration\"\n")
}

// A write whose outcome nobody knows is called that, and gets its record when it is known (OP-31).
func TestAuditOfUnknownOutcomes(t *testing.T) {
	var log logLines
	bubble(t, 3, zktest.Config{Base: zk.Config{Audit: auditTo(&log)}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		i := (leader(t, ctx, c) + 1) % 3
		s := session(t, ctx, c.Member(i))
		c.Isolate(i)
		log.take()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		told := make(chan error, 1)
		_, err := s.TxnLate(short, func(_ []zk.Result, err error) { told <- err }, node("/a"))
		if !zk.MaybeApplied(err) {
			t.Fatal(err)
		}
		if got := log.take(); got != "session=S op=create path=/a mode=persistent result=unknown err=\"no leader reachable\"\n" {
			t.Errorf("left %q", got)
		}
		c.Heal()
		must(t, <-told)
		if got := log.take(); got != "session=S op=create path=/a mode=persistent result=success zxid=Z\n" {
			t.Errorf("left %q", got)
		}
	})
}

// What a member counts of its writes, and of its snapshots.
func TestStatsOfWrites(t *testing.T) {
	var mu sync.Mutex
	snapshots := map[string]zk.SnapshotInfo{}
	var ops []zk.OpInfo
	hooks := zk.Hooks{
		SnapshotDone: func(i zk.SnapshotInfo) {
			mu.Lock()
			defer mu.Unlock()
			snapshots[i.Zxid.String()] = i
		},
		OpDone: func(i zk.OpInfo) {
			mu.Lock()
			defer mu.Unlock()
			ops = append(ops, i)
		},
	}
	// Virtual time stands still while a member works: a network that delays makes commits take some.
	bubble(t, 3, zktest.Config{Base: zk.Config{Hooks: hooks}}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		l := leader(t, ctx, c)
		f := (l + 1) % 3
		c.Network().Latency(2*time.Millisecond, 3*time.Millisecond)
		s := session(t, ctx, c.Member(f))
		mu.Lock()
		ops = nil
		mu.Unlock()
		before := c.Member(f).Stats()
		for range 20 {
			call := <-s.Listener().Go(ctx, nil, node("/a")).Done
			if call.Error == nil {
				must(t, s.Delete(ctx, "/a", zk.AnyVersion))
			}
		}
		must(t, s.Sync(ctx))
		mu.Lock()
		if len(ops) != 40 || ops[0].Op != "create" || !ops[0].Forwarded || ops[0].Bytes == 0 || ops[0].Took == 0 {
			t.Errorf("%d ops were told of, the first %+v", len(ops), ops[0])
		}
		mu.Unlock()
		st := c.Member(f).Stats()
		if st.Writes-before.Writes != 40 || st.Forwards-before.Forwards < 40 || st.Committed < st.Applied || st.Applies.Count == 0 || st.ApplyP99 < st.ApplyP50 {
			t.Errorf("the follower counts %+v", st)
		}
		st = c.Member(l).Stats()
		if st.Forwards != 0 || st.CommitP50 < time.Millisecond || st.CommitP99 < st.CommitP50 || st.Applies.Count == 0 {
			t.Errorf("the leader counts %+v", st)
		}
		must(t, c.Quiesce(ctx))
		must(t, c.Member(f).Compact(ctx))
		size := len(backup(t, ctx, c.Member(f)))
		mu.Lock()
		defer mu.Unlock()
		info := snapshots[c.Member(f).Applied().String()]
		if info.Bytes != int64(size) || info.Err != nil {
			t.Errorf("the snapshot is told as %+v, a backup has %d bytes", info, size)
		}
	})
}
