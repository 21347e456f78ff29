// SPDX-License-Identifier: Apache-2.0

//go:build secure

package main

import (
	"crypto/tls"

	"github.com/seed-541fafe0/zk/transport"
)

func init() {
	listen = func() (*transport.Transport, error) { return transport.TLS(":9000", &tls.Config{}) }
}
