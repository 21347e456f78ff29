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
	what  string    // empty if all is well
	at    time.Time // of the last line logged
	since time.Time // unreachable; zero if not
}

const (
	// patience is how long a member may be unreachable before anybody is told:
	// one that restarts is back by then, and so is an ensemble that stops as a
	// whole.
	patience = 5 * time.Second

	complaintEvery = 10 * time.Second
	complaintsMax  = 256 // about so many; strangers may make up names
)

// failed logs that something is wrong with someone: at the level given when it
// is something new, else for debugging, and in any case at most once in 10 s.
func (c *complaints) failed(level slog.Level, who party, what string, err error) {
	c.mu.Lock()
	was := c.entryLocked(who)
	quiet := !was.at.IsZero() && time.Since(was.at) < complaintEvery
	if was.what == what {
		level = slog.LevelDebug
	}
	if !quiet {
		was.what, was.at = what, time.Now()
	}
	c.mu.Unlock()
	if !quiet {
		c.log.Log(context.Background(), level, what, "peer", who.id, "err", err)
	}
}

// unreachable is failed for a member that is known and cannot be reached.
func (c *complaints) unreachable(who party, err error) {
	c.mu.Lock()
	was := c.entryLocked(who)
	if was.since.IsZero() {
		was.since = time.Now()
	}
	early := time.Since(was.since) < patience
	c.mu.Unlock()
	if !early {
		c.failed(slog.LevelWarn, who, "cannot reach peer", err)
	}
}

func (c *complaints) entryLocked(who party) *complaint {
	was := c.about[who]
	if was == nil {
		if len(c.about) >= complaintsMax {
			clear(c.about)
		}
		was = new(complaint)
		c.about[who] = was
	}
	return was
}

// fine notes that all is well with someone.
func (c *complaints) fine(who party) {
	c.mu.Lock()
	was := c.about[who]
	news := was != nil && was.what != ""
	if news {
		was.what = ""
	}
	if was != nil {
		was.since = time.Time{}
	}
	c.mu.Unlock()
	if news {
		c.log.Info("peer is back", "peer", who.id)
	}
}
