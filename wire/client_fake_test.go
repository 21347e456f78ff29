// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-541fafe0/zk"
)

// fake is a server that a test plays, frame by frame, in a synctest bubble.
type fake struct {
	t     *testing.T
	conns chan net.Conn
}

func newFake(t *testing.T) *fake { return &fake{t, make(chan net.Conn)} }

func (f *fake) dial(ctx context.Context, addr string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case f.conns <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accept takes the next connection and answers its handshake.
func (f *fake) accept(timeout time.Duration) (*raw, connectRequest) {
	f.t.Helper()
	r := use(f.t, <-f.conns)
	r.nc.SetDeadline(time.Time{})
	var q connectRequest
	must(f.t, q.decode(&decoder{b: r.receive()}))
	res := connectResponse{timeout: int32(timeout.Milliseconds()), session: 7, password: bytes.Repeat([]byte{9}, passwordSize), hasRO: true}
	r.send(res.append(nil))
	return r, q
}

// client dials a fake that accepts, and returns both ends.
func (f *fake) client(cfg ClientConfig, timeout time.Duration) (*Client, *raw) {
	f.t.Helper()
	cfg.Servers, cfg.Dial = []string{"fake:1"}, f.dial
	type dialled struct {
		c   *Client
		err error
	}
	ch := make(chan dialled)
	go func() {
		c, err := Dial(f.t.Context(), cfg)
		ch <- dialled{c, err}
	}()
	r, _ := f.accept(timeout)
	d := <-ch
	must(f.t, d.err)
	return d.c, r
}

// expect reads one frame and compares it.
func (r *raw) expect(hex string) {
	r.t.Helper()
	if got, want := r.receive(), unhex(r.t, hex); !bytes.Equal(got, want) {
		r.t.Fatalf("the client sent\n%x, want\n%x", got, want)
	}
}

// answer sends a good reply with a body.
func (r *raw) answer(xid int32, zxid int64, code zk.Code, body ...byte) {
	r.t.Helper()
	r.send(append(replyHeader{xid, zxid, code}.append(nil), body...))
}

// later runs fn on a goroutine and returns a channel for its error.
func later(fn func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- fn() }()
	return ch
}

// result waits for what later's function returns, in the bubble's time: a call that nobody answers fails the test.
func result(t *testing.T, ch <-chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(100 * time.Hour):
		t.Fatal("no answer")
		return nil
	}
}

const hour = time.Hour // a session timeout that does not come into play

// TestClientBytes compares what is sent, byte for byte, and decodes what a real server has sent (sections 4, 5 and 12
// of docs/spec/wire-protocol.md).
func TestClientBytes(t *testing.T) {
	const stat = "0000000000000002 0000000000000005 000001a209a0b173 000001a209a0b173 00000002 00000001 00000000 0000000000000000 00000001 00000001 0000000000000003"
	const acl = "00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65"
	same := func(t *testing.T, st zk.Stat) {
		t.Helper()
		want := zk.Stat{Czxid: 2, Mzxid: 5, Pzxid: 3, Ctime: time.UnixMilli(0x1a209a0b173), Mtime: time.UnixMilli(0x1a209a0b173), Version: 2, Cversion: 1, DataLength: 1, NumChildren: 1}
		if st != want {
			t.Errorf("stat %+v, want %+v", st, want)
		}
	}
	ctx := context.Background() // that of t belongs to no bubble
	for _, tt := range []struct {
		name     string
		do       func(t *testing.T, c *Client) error
		request  string // after the header's xid
		reply    string // after the header
		refusing zk.Code
	}{
		{"create", func(t *testing.T, c *Client) error {
			z, err := c.Create(ctx, "/g", []byte("v"), zk.Sequential)
			if same(t, z.Stat); z.Path != "/g0000000000" {
				t.Errorf("path %s", z.Path)
			}
			return err
		}, "0000000f 00000002 2f67 00000001 76 " + acl + " 00000002", "0000000c 2f6730303030303030303030 " + stat, 0},
		{"create null", func(t *testing.T, c *Client) error {
			_, err := c.Create(ctx, "/g", nil, zk.Ephemeral)
			return err
		}, "0000000f 00000002 2f67 ffffffff " + acl + " 00000001", "00000002 2f67 " + stat, 0},
		{"create container", func(t *testing.T, c *Client) error {
			_, err := c.Create(ctx, "/g", []byte{}, zk.Container)
			return err
		}, "00000013 00000002 2f67 00000000 " + acl + " 00000004", "00000002 2f67 " + stat, 0},
		{"create ttl", func(t *testing.T, c *Client) error {
			_, err := c.Do(ctx, OpCreate("/g", nil, zk.Persistent).WithTTL(time.Second).WithACL(zk.ACL{Perm: 1, Scheme: "ip", ID: "::"}))
			return err
		}, "00000015 00000002 2f67 ffffffff 00000001 00000001 00000002 6970 00000002 3a3a 00000005 00000000000003e8", "00000002 2f67 " + stat, 0},
		{"delete", func(t *testing.T, c *Client) error { return c.Delete(ctx, "/g", 3) }, "00000002 00000002 2f67 00000003", "", 0},
		{"exists", func(t *testing.T, c *Client) error {
			st, ok, _, err := c.ExistsW(ctx, "/g")
			if same(t, st); !ok {
				t.Error("not there")
			}
			return err
		}, "00000003 00000002 2f67 01", stat, 0},
		{"get", func(t *testing.T, c *Client) error {
			data, st, err := c.Get(ctx, "/g")
			if same(t, st); string(data) != "v" {
				t.Errorf("data %q", data)
			}
			return err
		}, "00000004 00000002 2f67 00", "00000001 76 " + stat, 0},
		{"get none", func(t *testing.T, c *Client) error {
			_, _, err := c.Get(ctx, "/none")
			return err
		}, "00000004 00000005 2f6e6f6e65 00", "", zk.ErrNoNode},
		{"set", func(t *testing.T, c *Client) error {
			st, err := c.Set(ctx, "/g", []byte("z"), -1)
			same(t, st)
			return err
		}, "00000005 00000002 2f67 00000001 7a ffffffff", stat, 0},
		{"get acl", func(t *testing.T, c *Client) error {
			list, st, err := c.GetACL(ctx, "/g")
			if same(t, st); len(list) != 1 || list[0] != zk.OpenACL()[0] {
				t.Errorf("acl %+v", list)
			}
			return err
		}, "00000006 00000002 2f67", acl + stat, 0},
		{"set acl", func(t *testing.T, c *Client) error {
			st, err := c.SetACL(ctx, "/g", zk.OpenACL(), 4)
			same(t, st)
			return err
		}, "00000007 00000002 2f67 " + acl + " 00000004", stat, 0},
		{"children", func(t *testing.T, c *Client) error {
			names, st, _, err := c.ChildrenW(ctx, "/zookeeper")
			if same(t, st); len(names) != 2 || names[0] != "config" || names[1] != "quota" {
				t.Errorf("children %q", names)
			}
			return err
		}, "0000000c 0000000a 2f7a6f6f6b6565706572 01", "00000002 00000005 71756f7461 00000006 636f6e666967 " + stat, 0},
		{"sync", func(t *testing.T, c *Client) error { return c.Sync(ctx) }, "00000009 00000001 2f", "00000001 2f", 0},
		{"descendants", func(t *testing.T, c *Client) error {
			n, err := c.Descendants(ctx, "/g")
			if n != 5 {
				t.Errorf("%d descendants", n)
			}
			return err
		}, "00000068 00000002 2f67", "00000005", 0},
		{"ephemerals", func(t *testing.T, c *Client) error {
			paths, err := c.Ephemerals(ctx, "/g")
			if len(paths) != 1 || paths[0] != "/g" {
				t.Errorf("ephemerals %q", paths)
			}
			return err
		}, "00000067 00000002 2f67", "00000001 00000002 2f67", 0},
		{"who am i", func(t *testing.T, c *Client) error {
			ids, err := c.Identities(ctx)
			if len(ids) != 1 || ids[0] != (zk.Identity{Scheme: "ip", ID: "::"}) {
				t.Errorf("identities %v", ids)
			}
			return err
		}, "0000006b", "00000001 00000002 6970 00000002 3a3a", 0},
		{"sasl", func(t *testing.T, c *Client) error {
			token, err := c.SASL(ctx, []byte("t"))
			if token != nil {
				t.Errorf("token %x", token)
			}
			return err
		}, "00000066 00000001 74", "ffffffff", 0},
		{"config", func(t *testing.T, c *Client) error {
			text, st, err := c.Config(ctx)
			if same(t, st); text != "version=0" {
				t.Errorf("config %q", text)
			}
			return err
		}, "00000004 00000011 2f7a6f6f6b65657065722f636f6e666967 00", "00000009 76657273696f6e3d30 " + stat, 0},
		{"reconfig", func(t *testing.T, c *Client) error {
			text, st, err := c.Reconfig(ctx, []string{"a", "b"}, []string{"c"}, nil, 9)
			if same(t, st); text != "x" {
				t.Errorf("config %q", text)
			}
			return err
		}, "00000010 00000003 612c62 00000001 63 ffffffff 0000000000000009", "00000001 78 " + stat, 0},
		{"check watches", func(t *testing.T, c *Client) error { return c.CheckWatches(ctx, "/g", zk.WatchTypeData) }, "00000011 00000002 2f67 00000002", "", 0},
		{"remove watches", func(t *testing.T, c *Client) error { return c.RemoveWatches(ctx, "/g", zk.WatchTypeAny) }, "00000012 00000002 2f67 00000003", "", zk.ErrNoWatch},
		{"add watch", func(t *testing.T, c *Client) error {
			_, err := c.Watch(ctx, "/g", zk.WatchSubtree)
			return err
		}, "0000006a 00000002 2f67 00000001", "00000000", 0},
		{"txn", func(t *testing.T, c *Client) error {
			results, err := c.Txn(ctx, OpCheck("/g", 1), OpSet("/g", []byte("z"), 1))
			if err == nil {
				same(t, results[1].Stat)
			}
			return err
		}, "0000000e  0000000d 00 ffffffff 00000002 2f67 00000001  00000005 00 ffffffff 00000002 2f67 00000001 7a 00000001  ffffffff 01 ffffffff",
			"0000000d 00 00000000  00000005 00 00000000 " + stat + " ffffffff 01 ffffffff", 0},
		{"failed txn", func(t *testing.T, c *Client) error { // WP-32
			_, err := c.Txn(ctx, OpCheck("/g", 1), OpDelete("/nope", -1), OpCheck("/g", 1))
			if failed, ok := errors.AsType[*zk.TxnError](err); !ok || failed.Index != 1 {
				t.Errorf("error %v", err)
			}
			if errors.Is(err, zk.ErrNoNode) {
				return nil
			}
			return err
		}, "0000000e  0000000d 00 ffffffff 00000002 2f67 00000001  00000002 00 ffffffff 00000005 2f6e6f7065 ffffffff  0000000d 00 ffffffff 00000002 2f67 00000001  ffffffff 01 ffffffff",
			"ffffffff 00 00000000 00000000  ffffffff 00 ffffff9b ffffff9b  ffffffff 00 fffffffe fffffffe  ffffffff 01 ffffffff", 0},
		{"empty txn", func(t *testing.T, c *Client) error {
			_, err := c.Txn(ctx)
			return err
		}, "0000000e ffffffff 01 ffffffff", "ffffffff 01 ffffffff", 0},
		{"multi read", func(t *testing.T, c *Client) error {
			results, err := c.MultiRead(ctx, zk.ReadRequest{Path: "/g"}, zk.ReadRequest{Path: "/g", Children: true}, zk.ReadRequest{Path: "/g"})
			if err == nil && (string(results[0].Data) != "v" || results[1].Names[0] != "k" || results[2].Code != zk.ErrNoAuth) {
				t.Errorf("results %+v", results)
			}
			return err
		}, "00000016  00000004 00 ffffffff 00000002 2f67 00  00000008 00 ffffffff 00000002 2f67 00  00000004 00 ffffffff 00000002 2f67 00  ffffffff 01 ffffffff",
			"00000004 00 00000000 00000001 76 " + stat + " 00000008 00 00000000 00000001 00000001 6b  ffffffff 00 ffffff9a ffffff9a  ffffffff 01 ffffffff", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := newFake(t).client(ClientConfig{}, hour)
				done := later(func() error { return tt.do(t, c) })
				r.expect("00000001" + tt.request)
				r.answer(1, 11, tt.refusing, unhex(t, tt.reply)...)
				if err := result(t, done); tt.refusing == 0 && err != nil || tt.refusing != 0 && !errors.Is(err, tt.refusing) {
					t.Errorf("error %v, want %v", err, tt.refusing)
				}
				if c.LastZxid() != 11 { // WP-21
					t.Errorf("zxid %v", c.LastZxid())
				}
				done = later(c.Close)
				r.expect("00000002 fffffff5")
				r.answer(2, 12, 0)
				must(t, result(t, done))
				r.ended()
			})
		})
	}
}

// TestClientHandshake looks at what a connection begins with, the first time and after a break (WP-10, WP-80).
func TestClientHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c, r := f.client(ClientConfig{Timeout: 4 * time.Second, Auth: []zk.Auth{{Scheme: "digest", Cred: []byte("a:b")}}}, hour)
		const auth = "fffffffc 00000064 00000000 00000006 646967657374 00000003 613a62"
		r.expect(auth)
		done := later(func() error { _, _, _, err := c.GetW(t.Context(), "/d"); return err })
		r.expect("00000001 00000004 00000002 2f64 01")
		r.answer(xidAuth, 0, 0) // out of turn (WP-40)
		r.answer(1, 21, 0, append(appendBuffer(nil, nil), appendStat(nil, zk.Stat{})...)...)
		must(t, result(t, done))
		done = later(func() error { _, _, _, err := c.ExistsW(t.Context(), "/e"); return err })
		r.expect("00000002 00000003 00000002 2f65 01")
		r.answer(2, 22, zk.ErrNoNode)
		must(t, result(t, done))
		done = later(func() error { _, _, _, err := c.ChildrenW(t.Context(), "/c"); return err })
		r.expect("00000003 0000000c 00000002 2f63 01")
		r.answer(3, 23, 0, append(appendStrings(nil, nil), appendStat(nil, zk.Stat{})...)...)
		must(t, result(t, done))
		// An event's zxid does not count: what else its transaction did may still be on its way.
		r.send((&watcherEvent{3, stateConnected, "/other"}).append(replyHeader{xidEvent, 99, 0}.append(nil)))
		r.nc.Close()

		r, q := f.accept(hour)
		if q.lastZxid != 23 || q.session != 7 || !bytes.Equal(q.password, bytes.Repeat([]byte{9}, 16)) || q.timeout != 4000 || q.readOnly || !q.hasRO {
			t.Errorf("connect request %+v", q)
		}
		r.expect(auth)
		r.expect("fffffff8 00000065 0000000000000017 00000001 00000002 2f64 00000001 00000002 2f65 00000001 00000002 2f63")
		r.answer(xidSetWatches, 23, 0)
		done = later(func() error { _, err := c.Watch(t.Context(), "/p", zk.WatchNode); return err })
		r.expect("00000004 0000006a 00000002 2f70 00000000")
		r.answer(4, 24, 0, 0, 0, 0, 0)
		must(t, result(t, done))
		done = later(func() error { _, err := c.Watch(t.Context(), "/r", zk.WatchSubtree); return err })
		r.expect("00000005 0000006a 00000002 2f72 00000001")
		r.answer(5, 25, 0, 0, 0, 0, 0)
		must(t, result(t, done))
		r.nc.Close()

		r, _ = f.accept(hour)
		r.expect(auth)
		r.expect("fffffff8 00000069 0000000000000019 00000001 00000002 2f64 00000001 00000002 2f65 00000001 00000002 2f63 00000001 00000002 2f70 00000001 00000002 2f72")
		go c.Detach()
		r.ended()
	})
}

// TestClientLosesAnswers breaks connections under requests (SS-32, SS-34).
func TestClientLosesAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c, r := f.client(ClientConfig{}, hour)
		write := later(func() error { return c.Delete(t.Context(), "/g", -1) })
		r.expect("00000001 00000002 00000002 2f67 ffffffff")
		read := later(func() error { _, _, err := c.Get(t.Context(), "/g"); return err })
		r.expect("00000002 00000004 00000002 2f67 00")
		r.nc.Close()
		err := result(t, write)
		if want(t, err, zk.ErrUnavailable); !zk.MaybeApplied(err) {
			t.Errorf("the outcome is unknown: %v", err)
		}
		// While there is no connection nothing happens, so nothing is in doubt.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = c.Delete(ctx, "/g", -1)
		if want(t, err, context.DeadlineExceeded); zk.MaybeApplied(err) || !errors.Is(err, zk.ErrTimeout) {
			t.Errorf("it was never sent: %v", err)
		}
		r, _ = f.accept(hour)
		r.expect("00000003 00000004 00000002 2f67 00") // the read again
		r.answer(3, 1, zk.ErrNoNode)
		want(t, result(t, read), zk.ErrNoNode)
		c.Detach()
	})
}

// TestClientGivesUpWaiting ends the context of a request under way: later answers are not mixed up.
func TestClientGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newFake(t).client(ClientConfig{MaxOutstanding: 2}, hour)
		ctx, cancel := context.WithCancelCause(t.Context())
		write := later(func() error { return c.Delete(ctx, "/g", -1) })
		r.expect("00000001 00000002 00000002 2f67 ffffffff")
		why := errors.New("enough")
		cancel(why)
		err := result(t, write)
		if want(t, err, context.Canceled); !zk.MaybeApplied(err) || !errors.Is(err, why) {
			t.Errorf("error %v", err)
		}
		second := later(func() error { return c.Delete(t.Context(), "/h", -1) })
		r.expect("00000002 00000002 00000002 2f68 ffffffff")
		// The window is full, the one that was given up included: the third waits, and may leave.
		ctx, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		err = c.Delete(ctx, "/i", -1)
		if want(t, err, context.DeadlineExceeded); zk.MaybeApplied(err) {
			t.Errorf("it was never sent: %v", err)
		}
		third := later(func() error { return c.Delete(t.Context(), "/j", -1) })
		synctest.Wait()
		r.answer(1, 1, zk.ErrNoAuth)
		r.expect("00000003 00000002 00000002 2f6a ffffffff")
		r.answer(2, 2, zk.ErrNotEmpty)
		want(t, result(t, second), zk.ErrNotEmpty)
		r.answer(3, 3, 0)
		must(t, result(t, third))
		c.Detach()
	})
}

// TestClientPings pings when there is nothing else to say, and leaves a server that does not answer (SS-33, WP-85).
func TestClientPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		began := time.Now()
		c, r := f.client(ClientConfig{}, 3*time.Second)
		for range 3 {
			r.expect("fffffffe 0000000b")
			r.answer(xidPing, 1, 0)
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("three pings of a session of 3 s took %v", d)
		}
		r.expect("fffffffe 0000000b") // not answered
		io.Copy(io.Discard, r.nc)
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("it left after %v", d)
		}
		r, _ = f.accept(3 * time.Second)
		ping := later(func() error { return c.Ping(t.Context()) })
		r.expect("fffffffe 0000000b")
		r.answer(xidPing, 1, 0)
		must(t, result(t, ping))
		c.Detach()
	})
}

// TestClientLeavesLiars sends what no server should: the client goes to another connection and takes no harm.
func TestClientLeavesLiars(t *testing.T) {
	for name, lie := range map[string][]byte{
		"another xid":     unhex(t, "00000010 00000009 0000000000000001 00000000"),
		"no such request": unhex(t, "00000010 fffffffc 0000000000000001 00000000"),
		"short":           unhex(t, "00000003 000000"),
		"negative":        unhex(t, "ffffffff"),
		"huge":            unhex(t, "7fffffff 00"),
		"a bad event":     unhex(t, "00000010 ffffffff 0000000000000001 00000000"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				c, r := f.client(ClientConfig{}, hour)
				read := later(func() error { _, _, err := c.Exists(t.Context(), "/g"); return err })
				r.expect("00000001 00000003 00000002 2f67 00")
				go r.nc.Write(lie)
				r.ended()
				r, _ = f.accept(hour)
				r.expect("00000002 00000003 00000002 2f67 00")
				r.answer(2, 1, zk.ErrNoNode)
				must(t, result(t, read))
				c.Detach()
			})
		})
	}
	t.Run("a bad body", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			c, r := f.client(ClientConfig{}, hour)
			read := later(func() error { _, _, err := c.Get(t.Context(), "/g"); return err })
			r.expect("00000001 00000004 00000002 2f67 00")
			r.answer(1, 1, 0, 0, 0, 0, 9)
			want(t, result(t, read), zk.ErrMarshalling) // asking again would bring the same
			r.ended()
			r, _ = f.accept(hour)
			write := later(func() error { _, err := c.Txn(t.Context(), OpDelete("/g", 0)); return err })
			r.receive()
			r.answer(2, 1, 0, unhex(t, "00000002 00 00000000 00000002 00 00000000 ffffffff 01 ffffffff")...) // two results of one step
			err := result(t, write)
			if want(t, err, zk.ErrMarshalling); !zk.MaybeApplied(err) {
				t.Errorf("error %v", err)
			}
			c.Detach()
		})
	})
}

// TestClientCloses closes in the midst of things: what was sent before is answered, nothing is left behind.
func TestClientCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		c, r := f.client(ClientConfig{}, 30*time.Second)
		write := later(func() error { return c.Delete(t.Context(), "/g", -1) })
		r.expect("00000001 00000002 00000002 2f67 ffffffff")
		closed := later(c.Close)
		r.expect("00000002 fffffff5")
		want(t, c.Delete(t.Context(), "/h", -1), zk.ErrClosed)
		r.answer(1, 1, zk.ErrNotEmpty)
		want(t, result(t, write), zk.ErrNotEmpty)
		r.answer(2, 2, 0)
		must(t, result(t, closed))
		must(t, c.Close())
		want(t, c.Err(), zk.ErrClosed)

		c, r = f.client(ClientConfig{}, 30*time.Second)
		closed = later(c.Close)
		r.expect("00000001 fffffff5")
		r.nc.Close() // before an answer
		want(t, result(t, closed), zk.ErrUnavailable)

		c, r = f.client(ClientConfig{}, 30*time.Second)
		r.nc.Close()
		suspended(t, t.Context(), c)
		want(t, c.Close(), zk.ErrUnavailable) // the session goes on until it expires

		_, err := Dial(t.Context(), ClientConfig{})
		want(t, err, zk.ErrBadArguments)
		_, err = Dial(t.Context(), ClientConfig{Servers: []string{"a:1"}, Chroot: "x"})
		want(t, err, zk.ErrBadArguments)
		_, err = Dial(t.Context(), ClientConfig{Servers: []string{"a:1"}, MaxFrame: -1})
		want(t, err, zk.ErrBadArguments)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		refused := errors.New("refused")
		_, err = Dial(ctx, ClientConfig{Servers: []string{"a:1", "b:2"}, Dial: func(context.Context, string) (net.Conn, error) { return nil, refused }})
		want(t, err, zk.ErrUnavailable)
		want(t, err, refused)
		want(t, err, context.DeadlineExceeded)
	})
}
