// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

// stubborn is a connection that takes everything and says one thing.
type stubborn struct{ bytes.Reader }

func (s *stubborn) Write(b []byte) (int, error)      { return len(b), nil }
func (s *stubborn) Close() error                     { return nil }
func (s *stubborn) LocalAddr() net.Addr              { return nil }
func (s *stubborn) RemoteAddr() net.Addr             { return nil }
func (s *stubborn) SetDeadline(time.Time) error      { return nil }
func (s *stubborn) SetReadDeadline(time.Time) error  { return nil }
func (s *stubborn) SetWriteDeadline(time.Time) error { return nil }

// FuzzClientReplies gives a client that waits for an answer of every kind whatever bytes a server may send: it must
// neither panic nor take more memory than the bytes are worth, and every caller must get an answer.
func FuzzClientReplies(f *testing.F) {
	c, err := newClient(ClientConfig{Servers: []string{"none:1"}})
	if err != nil {
		f.Fatal(err)
	}
	ctx := context.Background()
	stat := appendStat(nil, zk.Stat{})
	// Each kind of request with a good answer's body.
	kinds := []struct {
		do   func(c *Client) error
		body []byte
	}{
		{func(c *Client) error { _, err := c.Create(ctx, "/a", nil, 0); return err }, append(appendString(nil, "/a"), stat...)},
		{func(c *Client) error { _, _, _, err := c.GetW(ctx, "/a"); return err }, append(appendBuffer(nil, []byte("x")), stat...)},
		{func(c *Client) error { _, _, _, err := c.ExistsW(ctx, "/a"); return err }, stat},
		{func(c *Client) error { _, _, _, err := c.ChildrenW(ctx, "/a"); return err }, append(appendStrings(nil, []string{"b", "c"}), stat...)},
		{func(c *Client) error { _, _, err := c.GetACL(ctx, "/a"); return err }, append(appendACL(nil, zk.OpenACL()), stat...)},
		{func(c *Client) error { _, err := c.Ephemerals(ctx, "/a"); return err }, appendStrings(nil, []string{"/a"})},
		{func(c *Client) error { _, err := c.Identities(ctx); return err }, appendString(appendString(appendInt(nil, 1), "ip"), "::")},
		{func(c *Client) error { _, _, err := c.Config(ctx); return err }, append(appendString(nil, "version=0"), stat...)},
		{func(c *Client) error { _, err := c.Watch(ctx, "/a", zk.WatchSubtree); return err }, appendInt(nil, 0)},
		{func(c *Client) error { _, err := c.Descendants(ctx, "/a"); return err }, appendInt(nil, 3)},
		{func(c *Client) error { return c.Sync(ctx) }, appendString(nil, "/")},
		{func(c *Client) error { _, err := c.SASL(ctx, nil); return err }, appendBuffer(nil, nil)},
		{func(c *Client) error { _, err := c.Txn(ctx, OpCreate("/a", nil, 0), OpDelete("/a", -1)); return err },
			multiEnd.append(multiHeader{op: opDelete}.append(append(appendString(multiHeader{op: opCreate2}.append(nil), "/a"), stat...)))},
		{func(c *Client) error { _, err := c.Txn(ctx, OpDelete("/a", -1)); return err },
			multiEnd.append(appendInt(multiHeader{op: opError, code: -101}.append(nil), -101))},
		{func(c *Client) error {
			_, err := c.MultiRead(ctx, zk.ReadRequest{Path: "/a"}, zk.ReadRequest{Path: "/a", Children: true})
			return err
		}, multiEnd.append(appendStrings(multiHeader{op: opGetChildren}.append(append(appendBuffer(multiHeader{op: opGetData}.append(nil), nil), stat...)), []string{"b"}))},
	}
	for i, k := range kinds {
		frame := append(replyHeader{1, 5, 0}.append(nil), k.body...)
		f.Add(byte(i), append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	}
	event := (&watcherEvent{4, stateConnected, "/a"}).append(replyHeader{xidEvent, 5, 0}.append(nil))
	f.Add(byte(0), append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...))
	f.Add(byte(0), []byte{0x7f, 0xff, 0xff, 0xff, 1, 2, 3})

	f.Fuzz(func(t *testing.T, kind byte, sent []byte) {
		k := kinds[int(kind)%len(kinds)]
		fresh, err := newClient(c.cfg)
		must(t, err)
		cn := &clientConn{nc: &stubborn{*bytes.NewReader(sent)}, timeout: time.Hour, wake: make(chan struct{}, 1)}
		fresh.state, fresh.conn = zk.StateActive, cn
		answered := make(chan error, 1)
		go func() { answered <- k.do(fresh) }()
		for {
			fresh.mu.Lock()
			waits := len(cn.replies) > 0
			fresh.mu.Unlock()
			if waits {
				break
			}
			runtime.Gosched()
		}
		fresh.serve(cn)
		fresh.finish(zk.StateClosed, zk.ErrClosed)
		<-answered
		if fresh.window.calls != fresh.cfg.MaxOutstanding || fresh.window.bytes != fresh.cfg.MaxOutstandingBytes {
			t.Errorf("the window is left with %d requests and %d bytes", fresh.window.calls, fresh.window.bytes)
		}
	})
}

func frameOf(text string) []byte {
	b, _ := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	return b
}

// FuzzConnectResponse decodes the first frame of a server.
func FuzzConnectResponse(f *testing.F) {
	f.Add(frameOf("00000000 00000fa0 010000219d440000 00000010 7ef36fab33122b1c8c5db55934e5f65e 00"))
	f.Add(frameOf("00000000 00000000 0000000000000000 00000010 00000000000000000000000000000000 00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r connectResponse
		if r.decode(&decoder{b: b}) != nil {
			return
		}
		var again connectResponse
		must(t, again.decode(&decoder{b: r.append(nil)}))
		if again.session != r.session || again.timeout != r.timeout || !bytes.Equal(again.password, r.password) || again.readOnly != r.readOnly {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}
