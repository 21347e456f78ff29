// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Presence keeps a znode in the tree as long as this process lives and wants it there: it is published again after the
// session has expired and after somebody has deleted it, with the data of the last Set.
//
// Layout: the znode PATH itself, or PATH followed by a number; Curator's PersistentNode on the same path takes turns with it.
//
// Cost: one write to publish, to Set and to Stop, one local read and one local watch; a goroutine from Start to Stop.
//
// It says that somebody is there, and not that nobody else is: a session that is suspended stays published, and one that
// crashed does so until its timeout. What others have to be kept from needs a Lock. If PATH belongs to another session,
// even to one of this process before a restart, Start waits for it to go, because it will; Replace does not wait.
type Presence struct {
	noCopy noCopy

	Session zk.SessionSource // a *zk.Member survives expiry; with a *zk.Session it all ends with that one
	Path    string           // in Sequential modes what the number is appended to
	Data    []byte           // of the first znode; nil is stored as null

	// Mode is Ephemeral, the default, or Ephemeral|Sequential. Without Ephemeral, as in Persistent|Parents, the znode
	// stays when this process goes without a Stop. Missing parents are created in any case, as containers.
	Mode zk.CreateMode

	// Replace puts the znode in the place of one that is there already, whosever it is, by one transaction. It does so
	// with what came before its own znode; who replaces it later is waited for, so that two do not go on for ever.
	Replace bool

	publisher publisher
}

// NewPresence returns an ephemeral presence at path. It does nothing before Start.
func NewPresence(s zk.SessionSource, path string, data []byte) *Presence {
	return &Presence{Session: s, Path: path, Data: data, Mode: zk.Ephemeral}
}

// Start publishes and returns once the znode is there; from then on it is kept there until Stop. Errors: ctx's, and those
// of every create; after an error nothing is left behind, or it is being removed in the background. To start what is started
// only waits; it can be started again after Stop, with Data.
func (p *Presence) Start(ctx context.Context) error {
	if _, err := session(ctx, p.Session, "start presence", p.Path); err != nil {
		return err
	}
	return p.publisher.start(ctx, func() *publication {
		mode := p.Mode
		if mode == 0 {
			mode = zk.Ephemeral
		}
		return &publication{src: p.Session, op: "presence", path: p.Path, mode: mode, data: p.Data, replace: p.Replace}
	})
}

// Set changes the data. It returns once the znode has it, for which it waits while the znode is not there. Errors: those
// of every write, and then the data is what it was; ctx's, with zk.MaybeApplied: then it is still to be written. After a
// *zk.Session is over the error is that of the session, after Stop it is zk.ErrClosed.
func (p *Presence) Set(ctx context.Context, data []byte) error {
	return p.publisher.set(ctx, "set presence", p.Path, data)
}

// ActualPath returns the path of the znode, "" before the first one. In Sequential modes each one has another.
func (p *Presence) ActualPath() string { return p.publisher.actual() }

// Published returns a channel that has the newest state as soon as it has changed: true when the znode is there, false
// when it is not, as far as this member knows. It is the same one for all calls from Start to Stop, for one receiver, and
// closed at the end. Before Start it is nil.
func (p *Presence) Published() <-chan bool {
	if now := p.publisher.now(); now != nil {
		return now.states
	}
	return nil
}

// Err returns nil while the znode is there, be it another's that is waited for, or why it is not: what has refused it last,
// which is tried again; once it has ended, zk.ErrClosed or the session's error.
func (p *Presence) Err() error { return p.publisher.why() }

// Stop deletes the znode, that incarnation only, and never a parent. Once it has returned nothing is published any more
// (PRES-S3). If ctx ends first its error is returned; the removal goes on, and Stop called again waits for it. Stopping what
// is not started is fine.
func (p *Presence) Stop(ctx context.Context) error {
	if ctx == nil {
		return badArgument("stop presence", p.Path, "nil context")
	}
	return p.publisher.finish(ctx, "stop presence")
}

// TTLPresence keeps a znode in the tree that is not bound to a session: it outlives this process by its time to live, and
// whoever starts again within that time finds it there. Several processes may keep one znode together.
//
// Layout: the znode PATH itself, persistent, with a time to live; Curator's PersistentTtlNode on the same path takes part. As
// long as its child PATH/touch is there the znode stays.
//
// Cost: one write each third of TTL, of all who keep the znode together, one to publish and one to Set; two local reads for
// each of them and one local watch; a goroutine from Start to Stop.
//
// Time is the ensemble's, and what is overdue goes when the leader next looks (zk.Config.ReapInterval): TTL bounds from
// below how long the znode stays. A znode that is there already is kept as it is, with its own time to live, or without one if
// it has none: Curator 5.4, for one, makes a container with a child that has the time to live.
type TTLPresence struct {
	noCopy noCopy

	Session zk.SessionSource // a *zk.Member, normally
	Path    string
	Data    []byte        // written at the start, and whenever the time to live is renewed
	TTL     time.Duration // at least 100 ms

	publisher publisher
}

// NewTTLPresence returns a presence at path that lasts for ttl after its last keeper has gone. It does nothing before Start.
func NewTTLPresence(s zk.SessionSource, path string, ttl time.Duration) *TTLPresence {
	return &TTLPresence{Session: s, Path: path, TTL: ttl}
}

const shortestTTL = 100 * time.Millisecond

// Start publishes as Presence.Start does, and then keeps the znode alive until Stop.
func (p *TTLPresence) Start(ctx context.Context) error {
	if _, err := session(ctx, p.Session, "start presence", p.Path); err != nil {
		return err
	}
	if p.TTL < shortestTTL {
		return badArgument("start presence", p.Path, "a time to live of less than 100 ms")
	}
	return p.publisher.start(ctx, func() *publication {
		return &publication{src: p.Session, op: "presence", path: p.Path, mode: zk.Persistent, ttl: p.TTL, data: p.Data}
	})
}

// Set changes the data, as Presence.Set does. If several keep the znode, what was written last counts, and each of them
// writes when it renews the time to live.
func (p *TTLPresence) Set(ctx context.Context, data []byte) error {
	return p.publisher.set(ctx, "set presence", p.Path, data)
}

// Err returns nil while the znode is there, or why it is not, as Presence.Err does.
func (p *TTLPresence) Err() error { return p.publisher.why() }

// Stop lets go of the znode: it stays until its time to live is over. What remains of a write that is under way is waited
// for, as by Presence.Stop.
func (p *TTLPresence) Stop(ctx context.Context) error {
	if ctx == nil {
		return badArgument("stop presence", p.Path, "nil context")
	}
	return p.publisher.finish(ctx, "stop presence")
}
