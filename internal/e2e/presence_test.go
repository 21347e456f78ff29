// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// becomes waits until something is as it is to be.
func becomes(t *testing.T, what, want string, look func() string) {
	t.Helper()
	eventually(t, func() error {
		if got := look(); got != want {
			return fmt.Errorf("%s: %q, want %q", what, got, want)
		}
		return nil
	})
}

// roster shows a group's members.
func roster(t *testing.T, ctx context.Context, g *recipes.Group) func() string {
	return func() string {
		list, err := g.Members(ctx)
		done(t, err)
		var all []string
		for _, m := range list {
			all = append(all, m.ID+"="+string(m.Data))
		}
		return strings.Join(all, ",")
	}
}

// catalogue shows a service's instances, as the program does.
func catalogue[T any](t *testing.T, ctx context.Context, r *recipes.Registry[T], service string) func() string {
	return func() string {
		list, err := r.Instances(ctx, service)
		done(t, err)
		var all []string
		for _, in := range list {
			all = append(all, fmt.Sprintf("%s@%s:%d/%d=%v;%v;%v;%s", in.ID, in.Address, in.Port, in.TLS, in.Payload, in.Type, in.Enabled, in.URISpec))
		}
		slices.Sort(all)
		return strings.Join(all, ",")
	}
}

// Curator's GroupMember, PersistentNode, PersistentTtlNode and service discovery, and ours, on the same paths.
func TestSharedPresenceCurator(t *testing.T) {
	path, version := curatorPath(t)
	ctx, m, p := shared(t, java(t, "PresencePeer", path, "java/PresencePeer.java")...)
	row := tried{t, newRow("groups, persistent znodes, service discovery, beside ours on the same paths")}
	row.row.client, row.row.version = "Curator", version
	s, err := m.Session(ctx)
	done(t, err)
	value := func(t *testing.T, path string) func() string {
		return func() string {
			data, _, err := s.Get(ctx, path)
			if err != nil && !errors.Is(err, zk.ErrNoNode) {
				t.Fatal(err)
			}
			return string(data)
		}
	}

	p.run(row, "group", func(t *testing.T) {
		group := recipes.NewGroup(m, "/group")
		p.does("join", "/group", "curator", "one")
		becomes(t, "members", "curator=one", roster(t, ctx, group))
		us, err := group.Join(ctx, "us", []byte("two"))
		done(t, err)
		becomes(t, "Curator's members", "curator=one,us=two", func() string { return p.does("members", "/group") })
		done(t, us.Set(ctx, []byte("three")))
		p.does("change", "/group", "four")
		becomes(t, "Curator's members", "curator=four,us=three", func() string { return p.does("members", "/group") })
		becomes(t, "members", "curator=four,us=three", roster(t, ctx, group))
		done(t, us.Stop(ctx))
		becomes(t, "Curator's members", "curator=four", func() string { return p.does("members", "/group") })
		p.does("leave", "/group")
		becomes(t, "members", "", roster(t, ctx, group))
	})

	p.run(row, "presence", func(t *testing.T) {
		ours := recipes.NewPresence(m, "/dir/here", []byte("ours"))
		done(t, ours.Start(ctx))
		p.does("publish", "/other/here", "theirs")
		becomes(t, "Curator's", "theirs", value(t, "/other/here"))
		theirs := recipes.NewPresence(m, "/other/here", []byte("ours"))
		started := make(chan error, 1)
		go func() { started <- theirs.Start(ctx) }() // waits
		becomes(t, "Curator's", "theirs", value(t, "/other/here"))
		p.does("unpublish", "/other/here")
		done(t, <-started)
		becomes(t, "ours after Curator's", "ours", value(t, "/other/here"))
		p.does("publish", "/dir/here", "theirs") // Curator waits for it to go, and meanwhile it may write it
		done(t, ours.Stop(ctx))
		eventually(t, func() error {
			if z, ok, err := s.Exists(ctx, "/dir/here"); err != nil || !ok || z.EphemeralOwner == s.ID() {
				return fmt.Errorf("Curator's is not there: %+v, %v", z, err)
			}
			return nil
		})
		becomes(t, "Curator's after ours", "theirs", value(t, "/dir/here"))
		p.does("unpublish", "/dir/here")
		done(t, theirs.Stop(ctx))
	})

	p.run(row, "presence_for_a_time", func(t *testing.T) {
		if made := p.does("keep", "/lasting", 6000, "curator"); made != "true" {
			t.Errorf("Curator has created its node: %s", made)
		}
		ttl := recipes.NewTTLPresence(m, "/lasting", 6*time.Second)
		ttl.Data = []byte("ours")
		done(t, ttl.Start(ctx))
		becomes(t, "kept by both", "ours", value(t, "/lasting"))
		eventually(t, func() error {
			if _, ok, err := s.Exists(ctx, "/lasting/touch"); !ok || err != nil {
				return fmt.Errorf("Curator has not touched it, %v", err)
			}
			return nil
		})
		p.does("unkeep", "/lasting")
		// Its child goes, and with it the znode, which this version of Curator makes a container; then there is one of ours.
		eventually(t, func() error {
			if _, ok, err := s.Exists(ctx, "/lasting/touch"); ok || err != nil {
				return fmt.Errorf("Curator's child is still there, %v", err)
			}
			return nil
		})
		outlived(t, ctx, m, 10*time.Second)
		becomes(t, "kept by us", "ours", value(t, "/lasting"))
		done(t, ttl.Stop(ctx))
		becomes(t, "kept by nobody", "", value(t, "/lasting"))
	})

	const spec = "{scheme}://{address}:{port}/"
	p.run(row, "its_registry", func(t *testing.T) {
		words := recipes.NewRegistry[any](m, "/services")
		p.does("register", "/services", "web", "c1", "10.0.0.1", 80, "DYNAMIC", "text")
		p.does("register", "/services", "web", "c2", "10.0.0.2", 81, "PERMANENT", "null")
		p.does("register", "/services", "web", "c3", "10.0.0.3", 82, "DYNAMIC_SEQUENTIAL", "map")
		becomes(t, "Curator's instances", "c1@10.0.0.1:80/0=text;DYNAMIC;true;"+spec+",c2@10.0.0.2:81/0=<nil>;PERMANENT;true;"+spec+
			",c3@10.0.0.3:82/0=map[@class:java.util.HashMap zone:east];DYNAMIC_SEQUENTIAL;true;"+spec, catalogue(t, ctx, words, "web"))
		p.does("register", "/services", "count", "n", "10.0.0.4", 83, "STATIC", "long")
		becomes(t, "a number of Curator's", "n@10.0.0.4:83/0=7;STATIC;true;"+spec, catalogue(t, ctx, recipes.NewRegistry[int64](m, "/services"), "count"))
		for _, id := range []string{"c1", "c2", "c3", "n"} {
			p.does("unregister", "/services", id)
		}
		names, _, err := s.Children(ctx, "/services/web")
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			t.Fatal(err)
		}
		for _, name := range names { // Curator does not find the numbered one
			done(t, s.Delete(ctx, "/services/web/"+name, zk.AnyVersion))
		}
	})

	p.run(row, "our_registry", func(t *testing.T) {
		type meta struct {
			Zone string `json:"zone"`
		}
		typed := recipes.NewRegistry[meta](m, "/typed")
		reg, err := typed.Register(ctx, recipes.Instance[meta]{Name: "api", ID: "z", Address: "10.1.0.1", Port: 8080, TLS: 8443, Payload: meta{"west"}, URISpec: spec, Enabled: true})
		done(t, err)
		if got, want := p.does("instances", "/typed", "api"), "z@10.1.0.1:8080/8443={zone=west};DYNAMIC;true;https://10.1.0.1:8080/"; got != want {
			t.Errorf("Curator sees %s, want %s", got, want)
		}
		if got := p.does("services", "/typed"); got != "api" {
			t.Errorf("Curator sees services %s", got)
		}
		becomes(t, "Curator picks", "z", func() string { return p.does("pick", "/typed", "api") })
		done(t, reg.Update(ctx, recipes.Instance[meta]{Address: "10.1.0.2", Enabled: false}))
		becomes(t, "Curator picks what is not enabled", "", func() string { return p.does("pick", "/typed", "api") })
		p.does("register", "/typed", "api", "y", "10.1.0.3", 1, "DYNAMIC", "map")
		provider := typed.Provider("api", nil)
		becomes(t, "we pick", "y", func() string {
			in, err := provider.Pick(ctx)
			if err != nil && !errors.Is(err, recipes.ErrNoInstance) {
				t.Fatal(err)
			}
			return in.ID
		})
		done(t, reg.Deregister(ctx))
		if got := p.does("instances", "/typed", "api"); !strings.HasPrefix(got, "y@") || strings.Contains(got, ",") {
			t.Errorf("Curator sees %s", got)
		}
		simple := recipes.NewRegistry[struct{}](m, "/simple")
		none, err := simple.Register(ctx, recipes.Instance[struct{}]{Name: "api", ID: "n", Address: "a", Type: recipes.Permanent, Enabled: true})
		done(t, err)
		if got := p.does("instances", "/simple", "api"); got != "n@a:null/null=null;PERMANENT;true;" {
			t.Errorf("Curator sees %s", got)
		}
		done(t, none.Deregister(ctx))
	})
}

// kazoo's parties and SetPartitioner, and ours, on the same paths.
func TestSharedPresenceKazoo(t *testing.T) {
	needFiles(t, debianPython, "/usr/lib/python3/dist-packages/kazoo")
	ctx, m, p := shared(t, debianPython, "-B", "kazoo/presence_peer.py")
	row := tried{t, newRow("parties and SetPartitioner, beside ours on the same paths")}
	row.row.client, row.row.version = "kazoo", kazooVersion(t)
	for verb, layout := range map[string]recipes.Layout{"party": recipes.Kazoo, "shallow": recipes.Shallow} {
		p.run(row, verb, func(t *testing.T) {
			g := &recipes.Group{Session: m, Path: "/" + verb, Layout: layout}
			p.does(verb, g.Path, "kazoo")
			becomes(t, "members", "kazoo=kazoo", roster(t, ctx, g))
			us, err := g.Join(ctx, "us", nil)
			done(t, err)
			if got := p.does("list", g.Path, "kazoo"); got != "kazoo,us" {
				t.Errorf("kazoo sees %s", got)
			}
			p.does("leave", g.Path, "kazoo")
			becomes(t, "members", "us=us", roster(t, ctx, g))
			done(t, us.Stop(ctx))
		})
	}

	p.run(row, "partitioner", func(t *testing.T) {
		items := []string{"a", "b", "c", "d", "e"}
		part := recipes.NewPartitioner(m, "/work", "us", items)
		part.Assign = recipes.Deal
		owned := func() string { return strings.Join(part.Owned(), ",") }
		some, quit := context.WithCancel(ctx)
		defer quit()
		ran := make(chan error, 1)
		go func() {
			ran <- part.Run(some, func(ctx context.Context, _ string, _ *recipes.Held) error { <-ctx.Done(); return nil })
		}()
		becomes(t, "alone", "a,b,c,d,e", owned)
		p.does("work", "/work", "kazoo", "a", "b", "c", "d", "e")
		becomes(t, "kazoo's share", "a,c,e", func() string { return p.does("owned", "/work", "kazoo") })
		becomes(t, "our share", "b,d", owned)
		p.does("finish", "/work", "kazoo")
		becomes(t, "alone again", "a,b,c,d,e", owned)
		p.does("work", "/work", "kazoo", "a", "b", "c", "d", "e")
		becomes(t, "our share again", "b,d", owned)
		quit()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		becomes(t, "kazoo alone", "a,b,c,d,e", func() string { return p.does("owned", "/work", "kazoo") })
		p.does("finish", "/work", "kazoo")
	})
}
