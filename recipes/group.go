// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Shallow, for groups alone, has the names of kazoo's ShallowParty, which the Partitioner uses as well.
const Shallow Layout = 65

// Group is who is there: each member shows itself, with some data, and all see all.
//
// Layout: PATH/ID, ephemeral, its data the member's, as Curator's GroupMember has it. With Kazoo it is PATH/HEX__party__, its
// data the id, as kazoo's Party has it; with Shallow it is PATH/HEX-ID, as its ShallowParty has it. The names of all three
// are understood, whatever is written here; children that are not ephemeral are no members. PATH is a container.
//
// Cost: one write to join, to change the data and to leave, as of a Presence; Members is local reads; Watch and Settled are
// one local watch, one local read for each change, and a goroutine until they return.
//
// A member that has crashed is there until its session's timeout, and one that comes back may be seen to go and come. What
// is read is what this member of the ensemble knows, which may be behind others.
type Group struct {
	noCopy noCopy

	Session zk.SessionSource
	Path    string
	Layout  Layout // Curator, Kazoo or Shallow
}

// NewGroup returns the group at path.
func NewGroup(s zk.SessionSource, path string) *Group { return &Group{Session: s, Path: path} }

// Member is one of a group, as of one moment. It is a plain value.
type Member struct {
	ID    string   // that it has joined with; in the layouts of kazoo several may have one
	Data  []byte   // that it has joined with, or set since
	Token zk.Token // of its znode: a member that has gone and come back has another
}

const (
	partyMark = "__party__" // kazoo's
	hexDigits = 32
)

func (g *Group) layout() Layout { return cmp.Or(g.Layout, Curator) }

// name makes the name and the data of a member's znode.
func (g *Group) name(id string, data []byte) (string, []byte, error) {
	name := id
	switch g.layout() {
	case Curator:
	case Kazoo:
		if len(data) > 0 {
			return "", nil, badArgument("join", g.Path, "in kazoo's layout the data is the id")
		}
		name, data = strings.ReplaceAll(newUUID(), "-", "")+partyMark, []byte(id)
	case Shallow:
		if name = strings.ReplaceAll(newUUID(), "-", "") + "-" + id; data == nil {
			data = []byte(id)
		}
	default:
		return "", nil, badArgument("join", g.Path, "a group has no layout "+g.layout().String())
	}
	if got, ok := g.id(name, string(data)); !ok || got != id || id == "" || strings.Contains(name, "/") {
		return "", nil, badArgument("join", g.Path, "not an id of a member in layout "+g.layout().String())
	}
	return name, data, zk.ValidPath(join(g.Path, name))
}

// id reads the id of a member from its znode.
func (g *Group) id(name, data string) (id string, ok bool) {
	if len(name) > hexDigits && isHex(name[:hexDigits], hexDigits) {
		short, rest := name[:hexDigits], name[hexDigits:]
		if rest == partyMark {
			return cmp.Or(data, short), true
		}
		if rest, ok := strings.CutPrefix(rest, "-"); ok {
			return cmp.Or(rest, short), true
		}
	}
	return name, g.layout() == Curator
}

// members are those of a directory, by id.
func (g *Group) members(list []zk.Znode) (all []Member) {
	for _, z := range list {
		if id, ok := g.id(base(z.Path), z.Data); ok && z.Stat.EphemeralOwner != 0 {
			all = append(all, Member{ID: id, Data: []byte(z.Data), Token: zk.Token(z.Stat.Czxid)})
		}
	}
	slices.SortStableFunc(all, func(a, b Member) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.Token, b.Token))
	})
	return all
}

// Join makes this process a member, and returns once it is one; it is until the Presence is stopped. Where PATH/ID belongs
// to another session Join waits for it to go, in the layouts of kazoo it does not: ids are to be unique. Errors: those of
// Presence.Start; zk.ErrBadArguments for an id that cannot be one.
func (g *Group) Join(ctx context.Context, id string, data []byte) (*Presence, error) {
	if _, err := session(ctx, g.Session, "join", g.Path); err != nil {
		return nil, err
	}
	name, data, err := g.name(id, data)
	if err != nil {
		return nil, err
	}
	p := NewPresence(g.Session, join(g.Path, name), data)
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Members returns who is there, sorted by id, all as of one zxid (GRP-S1): that of this member of the ensemble, which may be
// behind others. Members whose znode the session may not read are left out, and nobody is there where there is no
// directory. It costs no message; time and memory grow with the group: to follow a large one use Watch. Errors: those of
// every read.
func (g *Group) Members(ctx context.Context) ([]Member, error) {
	s, err := session(ctx, g.Session, "members", g.Path)
	if err != nil {
		return nil, err
	}
	list, err := entries(ctx, s, g.Path)
	return g.members(list), err
}

// Watch yields who is there, and again whenever that, or the data of one, has changed: the newest state only. It ends with
// ctx, and with an error of reading; with the session only if the group was made with a *zk.Session.
func (g *Group) Watch(ctx context.Context) iter.Seq2[[]Member, error] {
	return func(yield func([]Member, error) bool) {
		for list, err := range directories(ctx, g.Session, "watch group", g.Path) {
			if !yield(g.members(list), err) {
				return
			}
		}
	}
}

// Settled waits until nobody has come or gone for the time quiet, by the local clock, and returns who is there then; a time of
// 0 or less is over at once. Changed data does not count. While members keep coming and going it goes on waiting: ctx bounds
// it. It is kazoo's PatientChildrenWatch. It costs no message, but one local watch and a goroutine while it waits. Errors:
// ctx's, and those of every read.
func (g *Group) Settled(ctx context.Context, quiet time.Duration) ([]Member, error) {
	if _, err := session(ctx, g.Session, "settled", g.Path); err != nil {
		return nil, err
	}
	d, err := openDirectory(ctx, g.Session, g.Path)
	if err != nil {
		return nil, err
	}
	defer d.close()
	still := time.NewTimer(quiet)
	defer still.Stop()
	for now := g.members(d.entries()); ; {
		select {
		case <-d.changed():
			if err := d.advance(); err != nil {
				return nil, err
			}
			next := g.members(d.entries())
			if !slices.EqualFunc(now, next, func(a, b Member) bool { return a.Token == b.Token }) {
				still.Reset(quiet)
			}
			now = next
		case <-still.C:
			return now, nil
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
}
