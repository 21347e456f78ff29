// SPDX-License-Identifier: Apache-2.0

//go:build port

package main

import (
	"context"
	"log/slog"
	"net"

	"github.com/seed-541fafe0/zk/wire"
)

func init() {
	parts = append(parts, func(_ context.Context, log *slog.Logger) error {
		l, err := net.Listen("tcp", ":2181")
		if err != nil {
			return err
		}
		return (&wire.Server{Member: member, Words: []string{"*"}, Logger: log}).Serve(l)
	})
}
