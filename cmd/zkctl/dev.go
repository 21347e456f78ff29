// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/transport"
)

// devSeats opens a whole ensemble in this process. Its members are m1, m2, ..., each with its directory below --dir,
// and its client port above that of --client-addr.
func (f *serveFlags) devSeats(ctx context.Context, log *slog.Logger) (list []*seat, err error) {
	host, text, _ := net.SplitHostPort(f.clientAddr)
	port, _ := strconv.Atoi(text)
	var links []*transport.Transport
	defer func() {
		for _, t := range links[len(list):] { // those of seats that were not opened
			t.Close()
		}
	}()
	var peers []zk.Peer
	for i := range f.dev {
		t, err := transport.TCP("127.0.0.1:0")
		if err != nil {
			return list, err
		}
		links = append(links, t)
		peers = append(peers, zk.Peer{ID: fmt.Sprintf("m%d", i+1), Addr: t.Addr(), Voter: true})
	}
	for i, p := range peers {
		cfg := zk.Config{ID: p.ID, Peers: peers, Transport: links[i], Logger: log}
		if f.dir != "" {
			cfg.Dir = filepath.Join(f.dir, p.ID)
		}
		addr := f.clientAddr
		if port != 0 {
			addr = net.JoinHostPort(host, strconv.Itoa(port+i))
		}
		s, err := f.open(ctx, cfg, addr)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}
