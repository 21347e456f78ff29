// SPDX-License-Identifier: Apache-2.0

// Size is a service on net/http and log/slog. With the tag ensemble it is a member too, and calls every recipe; with port
// it serves ZooKeeper's clients as well, and with secure it uses TLS between members. Nobody runs it: TestSize weighs it.
package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
)

// parts are what the tags add.
var parts []func(context.Context, *slog.Logger) error

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	for _, part := range parts {
		if err := part(context.Background(), log); err != nil {
			log.Error("it does not start", "err", err)
		}
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { log.Info("request", "path", r.URL.Path) })
	log.Error("stopped", "err", http.ListenAndServe(":8080", nil))
}
