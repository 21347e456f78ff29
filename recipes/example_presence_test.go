// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
)

// A znode that says that this process is there comes back after somebody has deleted it, with what was set last.
func ExamplePresence() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{}) // volatile, an ensemble of one
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	p := recipes.NewPresence(m, "/app/workers/host-a", []byte("starting"))
	if err := p.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := p.Set(ctx, []byte("ready")); err != nil {
		log.Fatal(err)
	}
	<-p.Published() // it is there

	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Delete(ctx, "/app/workers/host-a", zk.AnyVersion); err != nil { // an operator
		log.Fatal(err)
	}
	for there := range p.Published() {
		if there {
			break
		}
	}
	data, _, err := s.Get(ctx, "/app/workers/host-a")
	fmt.Printf("%s %v\n", data, err)

	err = p.Stop(ctx)
	_, there, _ := s.Exists(ctx, "/app/workers/host-a")
	fmt.Println("stopped:", err, there)

	// Output:
	// ready <nil>
	// stopped: <nil> false
}

// What has to outlive a restart of its owner, but not its end, has a time to live.
func ExampleTTLPresence() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	p := recipes.NewTTLPresence(m, "/app/leased/10.0.0.7", 10*time.Minute)
	p.Data = []byte("host-a")
	if err := p.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := p.Stop(ctx); err != nil { // the process ends, and begins anew within the time
		log.Fatal(err)
	}
	s, err := m.Session(ctx)
	if err != nil {
		log.Fatal(err)
	}
	data, _, err := s.Get(ctx, "/app/leased/10.0.0.7")
	fmt.Printf("%s %v\n", data, err)

	// Output:
	// host-a <nil>
}

// Who is there, and what they say of themselves.
func ExampleGroup() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	g := recipes.NewGroup(m, "/app/chat")
	ann, err := g.Join(ctx, "ann", []byte("here"))
	if err != nil {
		log.Fatal(err)
	}
	bob, err := g.Join(ctx, "bob", []byte("away"))
	if err != nil {
		log.Fatal(err)
	}
	for members, err := range g.Watch(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		for _, member := range members {
			fmt.Printf("%s is %s\n", member.ID, member.Data)
		}
		break // or go on: each change is yielded
	}
	if err := errors.Join(ann.Stop(ctx), bob.Stop(ctx)); err != nil {
		log.Fatal(err)
	}
	members, err := g.Members(ctx)
	fmt.Println(len(members), err)

	// Output:
	// ann is here
	// bob is away
	// 0 <nil>
}

// Items are shared among those who take part: here one member has them all.
func ExamplePartitioner() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	p := recipes.NewPartitioner(m, "/app/mailboxes", "host-a", []string{"inbox", "sent"})
	p.Quiet = 10 * time.Millisecond
	working := make(chan string)
	go func() {
		for range 2 {
			<-working
		}
		fmt.Println(p.Owned())
		cancel()
	}()
	err = p.Run(ctx, func(ctx context.Context, item string, h *recipes.Held) error {
		working <- item
		<-ctx.Done() // until the item is another's, or the end
		return nil
	})
	fmt.Println(err, p.Owned())

	// Output:
	// [inbox sent]
	// context canceled []
}

// A service is registered where it runs and found by its name.
func ExampleRegistry() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	type meta struct{ Zone string }
	r := recipes.NewRegistry[meta](m, "/services")
	reg, err := r.Register(ctx, recipes.Instance[meta]{
		Name: "billing", ID: "host-a", Address: "10.0.0.7", Port: 8080, Payload: meta{"east"}, Enabled: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	instances, err := r.Instances(ctx, "billing")
	if err != nil {
		log.Fatal(err)
	}
	for _, in := range instances {
		fmt.Printf("%s at %s:%d in %s\n", in.ID, in.Address, in.Port, in.Payload.Zone)
	}
	if err := reg.Deregister(ctx); err != nil {
		log.Fatal(err)
	}
	services, err := r.Services(ctx)
	fmt.Println(len(services), err)

	// Output:
	// host-a at 10.0.0.7:8080 in east
	// 0 <nil>
}

// A provider picks an instance for each call, and passes over one that keeps failing.
func ExampleProvider() {
	ctx := context.Background()
	m, err := zk.Open(ctx, zk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	r := recipes.NewRegistry[struct{}](m, "/services")
	for _, id := range []string{"a", "b"} {
		reg, err := r.Register(ctx, recipes.Instance[struct{}]{Name: "billing", ID: id, Enabled: true})
		if err != nil {
			log.Fatal(err)
		}
		defer reg.Deregister(ctx)
	}
	p := r.Provider("billing", recipes.RoundRobin[struct{}]())
	defer p.Close()
	for range 6 {
		in, err := p.Pick(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if in.ID == "a" { // the call fails
			p.NoteError(in)
		}
		fmt.Print(in.ID, " ")
	}
	fmt.Println()

	// Output:
	// a b a b b b
}
