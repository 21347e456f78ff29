// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// complaints logs failures without repeating itself.
type complaints struct {
	log   *slog.Logger
	mu    sync.Mutex
	about map[party]*complaint
}

// party is who a complaint is about: a member we call, or one that calls us.
type party struct {
	id     string
	caller bool
}

type complaint struct {
	what string    // empty if all is well
	at   time.Time // of the last line logged
}

const (
	complaintEvery = 10 * time.Second
	complaintsMax  = 256 // about so many; strangers may make up names
)

// failed logs that something is wrong with someone: at the level given when it
// is something new, else for debugging, and in any case at most once in 10 s.
func (c *complaints) failed(level slog.Level, who party, what string, err error) {
	c.mu.Lock()
	was := c.about[who]
	if was == nil {
		if len(c.about) >= complaintsMax {
			clear(c.about)
		}
		was = new(complaint)
		c.about[who] = was
	}
	quiet := !was.at.IsZero() && time.Since(was.at) < complaintEvery
	if was.what == what {
		level = slog.LevelDebug
	}
	if !quiet {
		was.what, was.at = what, time.Now()
	}
	c.mu.Unlock()
	if !quiet {
		c.log.Log(context.Background(), level, what, "peer", who.id, "error", err)
	}
}

// fine notes that all is well with someone.
func (c *complaints) fine(who party) {
	c.mu.Lock()
	was := c.about[who]
	news := was != nil && was.what != ""
	if news {
		was.what = ""
	}
	c.mu.Unlock()
	if news {
		c.log.Info("peer is back", "peer", who.id)
	}
}
