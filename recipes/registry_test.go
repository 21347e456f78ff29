// SPDX-License-Identifier: Apache-2.0

package recipes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/recipes"
	"github.com/seed-541fafe0/zk/zktest"
)

type meta struct {
	Zone string `json:"zone"`
}

func TestRegistry(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		m := c.Member(0)
		s := session(t, ctx, m)
		r := recipes.NewRegistry[meta](m, "/services")
		if names, err := r.Services(ctx); err != nil || len(names) != 0 {
			t.Errorf("%q, %v", names, err)
		}
		if list, err := r.Instances(ctx, "web"); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		in := recipes.Instance[meta]{
			Name: "web", ID: "a", Address: "10.0.0.1", Port: 80, TLS: 443, Payload: meta{"east"}, URISpec: "{scheme}://{address}:{port}/x", Enabled: true,
			Registered: time.UnixMilli(1234567890123),
		}
		reg, err := r.Register(ctx, in)
		must(t, err)
		list, err := r.Instances(ctx, "web")
		must(t, err)
		if len(list) != 1 || !list[0].Registered.Equal(in.Registered) {
			t.Fatalf("%+v", list)
		}
		list[0].Registered = in.Registered
		if list[0] != in || reg.Instance() != in {
			t.Errorf("%+v, registered was %+v", list[0], in)
		}
		data, _, err := s.Get(ctx, "/services/web/a")
		must(t, err)
		var fields map[string]any
		must(t, json.Unmarshal(data, &fields))
		want := map[string]any{ // as Curator has them
			"name": "web", "id": "a", "address": "10.0.0.1", "port": 80.0, "sslPort": 443.0, "payload": map[string]any{"zone": "east"},
			"registrationTimeUTC": 1234567890123.0, "serviceType": "DYNAMIC", "enabled": true, "uriSpec": map[string]any{"parts": []any{
				map[string]any{"value": "scheme", "variable": true}, map[string]any{"value": "://", "variable": false}, map[string]any{"value": "address", "variable": true},
				map[string]any{"value": ":", "variable": false}, map[string]any{"value": "port", "variable": true}, map[string]any{"value": "/x", "variable": false},
			}},
		}
		if fmt.Sprint(fields) != fmt.Sprint(want) {
			t.Errorf("stored\n%v, want\n%v", fields, want)
		}
		auto, err := r.Register(ctx, recipes.Instance[meta]{Name: "db", Type: recipes.DynamicSequential})
		must(t, err)
		if got := auto.Instance(); len(got.ID) != 36 || got.Registered.IsZero() {
			t.Errorf("%+v", got)
		}
		if names, err := r.Services(ctx); err != nil || !slices.Equal(names, []string{"db", "web"}) {
			t.Errorf("%q, %v", names, err)
		}
		must(t, reg.Update(ctx, recipes.Instance[meta]{Address: "10.0.0.2"}))
		if list, err = r.Instances(ctx, "web"); err != nil || len(list) != 1 || list[0].Address != "10.0.0.2" || list[0].Enabled || !list[0].Registered.Equal(in.Registered) {
			t.Errorf("%+v, %v", list, err)
		}
		if got := reg.Instance(); got.Address != "10.0.0.2" || got.ID != "a" || !got.Registered.Equal(in.Registered) {
			t.Errorf("%+v", got)
		}
		must(t, reg.Update(ctx, list[0])) // as others see it
		fine, err := r.Register(ctx, recipes.Instance[meta]{Name: "fine", Registered: time.Unix(5, 123456789)})
		must(t, err)
		list, err = r.Instances(ctx, "fine")
		if err != nil || len(list) != 1 || !list[0].Registered.Equal(fine.Instance().Registered) {
			t.Errorf("%+v is registered at %v, %v", list, fine.Instance().Registered, err)
		}
		must(t, fine.Update(ctx, list[0]))
		must(t, fine.Deregister(ctx))
		must(t, reg.Deregister(ctx))
		must(t, reg.Deregister(ctx))
		wants(t, reg.Update(ctx, in), zk.ErrClosed)
		must(t, auto.Deregister(ctx))
		if names, err := r.Services(ctx); err != nil || len(names) != 0 { // REG-S1: a directory is no service
			t.Errorf("%q, %v", names, err)
		}
		residue(t, ctx, c, "/")
	})
}

// What is no instance is told, once, and never keeps the others from being listed.
func TestRegistryForeign(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		r := recipes.NewRegistry[meta](s, "/services")
		good, err := r.Register(ctx, recipes.Instance[meta]{Name: "web", ID: "m", Enabled: true})
		must(t, err)
		bad := map[string]string{ // PEER-62: CURATOR-574
			"empty": "", "null": "null", "text": "hello", "array": "[]", "object": "{}", "no id": `{"name":"web"}`, "other type": `{"name":"web","id":"x","serviceType":"ODD"}`,
			"payload": `{"name":"web","id":"x","serviceType":"STATIC","payload":"text"}`, "port": `{"name":"web","id":"x","serviceType":"STATIC","port":"http"}`,
			"cut off": `{"name":"web","id":"x","servi`, "two": `{"name":"web","id":"x","serviceType":"STATIC"}{}`,
		}
		made := map[string]zk.Zxid{}
		for name, data := range bad {
			z, err := s.Create(ctx, "/services/web/"+name, []byte(data), zk.Persistent)
			must(t, err)
			made[z.Path] = z.Stat.Mzxid
		}
		list, err := r.Instances(ctx, "web")
		if err != nil || len(list) != 1 || list[0].ID != "m" { // REG-L2
			t.Fatalf("%+v, %v", list, err)
		}
		if in, err := r.Provider("web", nil).Pick(ctx); err != nil || in.ID != "m" {
			t.Errorf("%+v, %v", in, err)
		}
		watching, stop := context.WithCancel(ctx)
		w := follow(t, r.Watch(watching, "web"))
		if list := w.next(); len(list) != 1 {
			t.Fatalf("%+v", list)
		}
		if len(w.errs) != len(bad) {
			t.Errorf("%d of %d were told", len(w.errs), len(bad))
		}
		for len(w.errs) > 0 {
			err := <-w.errs
			d, ok := errors.AsType[*recipes.DecodeError](err)
			if !ok || made[d.Path] == 0 || made[d.Path] != d.Zxid {
				t.Errorf("%v", err)
			}
			delete(made, d.Path)
		}
		must(t, good.Update(ctx, recipes.Instance[meta]{Enabled: true, Port: 5}))
		if list := w.next(); len(list) != 1 || list[0].Port != 5 || len(w.errs) != 0 { // told once
			t.Errorf("%+v, and %d errors", list, len(w.errs))
		}
		_, err = s.Set(ctx, "/services/web/text", []byte("again"), zk.AnyVersion)
		must(t, err)
		w.next()
		if len(w.errs) != 1 {
			t.Errorf("%d errors", len(w.errs))
		}
		stop()
		w.end(context.Canceled)
		must(t, good.Deregister(ctx))
		must(t, s.DeleteTree(ctx, "/services"))
		residue(t, ctx, c, "/")
	})
}

// What Curator writes is understood: payloads with their class, fields that are absent or null.
func TestRegistryReadsCurator(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		_, err := s.Create(ctx, "/r/s/i", []byte(`{"name":"s","id":"i","address":null,"port":null,"sslPort":null,"payload":["java.lang.Long",7],
			"registrationTimeUTC":5,"serviceType":"PERMANENT","uriSpec":null,"more":1}`), zk.Persistent|zk.Parents)
		must(t, err)
		want := recipes.Instance[int64]{Name: "s", ID: "i", Payload: 7, Type: recipes.Permanent, Enabled: true, Registered: time.UnixMilli(5)}
		if list, err := recipes.NewRegistry[int64](s, "/r").Instances(ctx, "s"); err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("%+v, %v", list, err)
		}
		_, err = s.Set(ctx, "/r/s/i", []byte(`{"name":"s","id":"i","payload":{"@class":"com.example.Meta","zone":"east"},"serviceType":"STATIC"}`), zk.AnyVersion)
		must(t, err)
		if list, err := recipes.NewRegistry[meta](s, "/r").Instances(ctx, "s"); err != nil || len(list) != 1 || list[0].Payload.Zone != "east" {
			t.Errorf("%+v, %v", list, err)
		}
		none := recipes.NewRegistry[struct{}](s, "/r")
		reg, err := none.Register(ctx, recipes.Instance[struct{}]{Name: "s", ID: "none"})
		must(t, err)
		if data, _, err := s.Get(ctx, "/r/s/none"); err != nil || !strings.Contains(string(data), `"payload":null`) || !strings.Contains(string(data), `"port":null`) {
			t.Errorf("%s, %v", data, err)
		}
		must(t, reg.Deregister(ctx))
		for spec, ok := range map[string]bool{"": true, "a": true, "{a}": true, "x{a}y{b}": true, "{}": true, "{": false, "}": false, "a{": false, "{a": false, "{{a}}": false, "a}b": false} {
			reg, err := none.Register(ctx, recipes.Instance[struct{}]{Name: "t", ID: "u", URISpec: spec})
			if (err == nil) != ok {
				t.Errorf("template %q: %v", spec, err)
			}
			if err == nil {
				if list, err := none.Instances(ctx, "t"); err != nil || len(list) != 1 || list[0].URISpec != spec && spec != "{}" {
					t.Errorf("template %q: %+v, %v", spec, list, err)
				}
				must(t, reg.Deregister(ctx))
			}
		}
		must(t, s.DeleteTree(ctx, "/r"))
	})
}

// An id that is taken is taken over in one step, and one that has failed to register can register again.
func TestRegistryTakesOver(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		in := recipes.Instance[string]{Name: "here", ID: "p", Enabled: true}
		old, err := recipes.NewRegistry[string](sc.s[1], "/app").Register(ctx, in)
		must(t, err)
		must(t, sc.c.Quiesce(ctx))
		watching, stop := context.WithCancel(ctx)
		w := follow(t, recipes.NewRegistry[string](sc.s[2], "/app").Watch(watching, "here"))
		w.next()
		m := sc.c.Member(sc.at[0])
		r := recipes.NewRegistry[string](m, "/app")
		in.Payload = "new"
		for range 20 {
			sc.c.Isolate(sc.at[0])
			some, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			_, err = r.Register(some, in)
			cancel()
			wants(t, err, context.DeadlineExceeded)
			sc.c.Heal()
			reg, err := r.Register(ctx, in) // PEER-62: CURATOR-617
			must(t, err)
			must(t, reg.Deregister(ctx))
		}
		reg, err := r.Register(ctx, in)
		must(t, err)
		sc.only(t, ctx, "new", zk.Znode{})
		must(t, reg.Deregister(ctx))
		eventually(t, "the old one does not come back", func() bool { return old.Err() == nil })
		must(t, old.Deregister(ctx))
		sc.nobody(t, ctx, "deregistered") // REG-S2
		stop()
		for list := range w.got {
			if len(list) > 1 {
				t.Errorf("%+v", list)
			}
		}
		w.end(context.Canceled)
		residue(t, ctx, sc.c, "/app")
	})
}

// Several may have one id where the znodes have numbers.
func TestRegistrySequential(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		r := recipes.NewRegistry[int](s, "/services")
		var regs []*recipes.Registration[int]
		for i := range 3 {
			reg, err := r.Register(ctx, recipes.Instance[int]{Name: "web", ID: "a", Payload: i, Type: recipes.DynamicSequential})
			must(t, err)
			regs = append(regs, reg)
		}
		must(t, regs[1].Deregister(ctx))
		list, err := r.Instances(ctx, "web")
		if err != nil || len(list) != 2 || list[0].Payload != 0 || list[1].Payload != 2 || list[0].ID != "a" || list[1].ID != "a" {
			t.Errorf("%+v, %v", list, err)
		}
		must(t, regs[0].Deregister(ctx))
		must(t, regs[2].Deregister(ctx))
		residue(t, ctx, c, "/")
	})
}

// What an update of unknown outcome was about is what the instance will be, and what Instance says it is.
func TestRegistrationUpdateUnknown(t *testing.T) {
	onStage(t, short, func(t *testing.T, ctx context.Context, sc *scene) {
		r := recipes.NewRegistry[int](sc.c.Member(sc.at[0]), "/app")
		reg, err := r.Register(ctx, recipes.Instance[int]{Name: "web", ID: "a", Payload: 1})
		must(t, err)
		sc.c.Isolate(sc.at[0])
		some, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := reg.Update(some, recipes.Instance[int]{Payload: 2}); !zk.MaybeApplied(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("cut off: %v", err)
		}
		if got := reg.Instance().Payload; got != 2 {
			t.Errorf("the payload is %d", got)
		}
		sc.c.Heal()
		far := recipes.NewRegistry[int](sc.s[1], "/app")
		eventually(t, "not updated", func() bool {
			list, err := far.Instances(ctx, "web")
			must(t, err)
			return len(list) == 1 && list[0].Payload == 2
		})
		must(t, reg.Deregister(ctx))
		residue(t, ctx, sc.c, "/app")
	})
}

// When an instance was registered is told by the ensemble's time, not by that of its host.
func TestRegisteredTime(t *testing.T) {
	slow := func(i int, cfg *zk.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	}
	bubble(t, 3, zktest.Config{Configure: slow}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		reg, err := recipes.NewRegistry[int](session(t, ctx, c.Member(follower(t, ctx, c))), "/app").Register(ctx, recipes.Instance[int]{Name: "web"})
		must(t, err)
		if ago := time.Since(reg.Instance().Registered); ago < 59*time.Minute || ago > 61*time.Minute {
			t.Errorf("registered %v ago", ago)
		}
		must(t, reg.Deregister(ctx))
		residue(t, ctx, c, "/app")
	})
}

// A codec of the user's is used for everything.
type lines struct{}

func (lines) Encode(in recipes.Instance[string]) ([]byte, error) {
	return []byte(in.Name + "\n" + in.ID + "\n" + in.Payload), nil
}

func (lines) Decode(b []byte) (in recipes.Instance[string], err error) {
	f := strings.Split(string(b), "\n")
	if len(f) != 3 {
		return in, errors.New("not three lines")
	}
	return recipes.Instance[string]{Name: f[0], ID: f[1], Payload: f[2], Enabled: true}, nil
}

func TestProvider(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		r := recipes.NewRegistry[string](s, "/services")
		r.Codec = lines{}
		_, err := r.Provider("web", nil).Pick(ctx)
		wants(t, err, recipes.ErrNoInstance)
		regs := map[string]*recipes.Registration[string]{}
		for _, id := range []string{"a", "b", "c"} {
			regs[id], err = r.Register(ctx, recipes.Instance[string]{Name: "web", ID: id})
			must(t, err)
		}
		picks := func(p *recipes.Provider[string], n int) (list string) {
			t.Helper()
			for range n {
				in, err := p.Pick(ctx)
				must(t, err)
				list += in.ID
			}
			return list
		}
		turn := r.Provider("web", nil)
		if got := picks(turn, 6); got != "abcabc" {
			t.Errorf("in turn: %s", got)
		}
		any := r.Provider("web", recipes.Random[string]())
		if got := picks(any, 100); !strings.Contains(got, "a") || !strings.Contains(got, "b") || !strings.Contains(got, "c") {
			t.Errorf("at random: %s", got)
		}
		sticky := r.Provider("web", recipes.Sticky(recipes.RoundRobin[string]()))
		if got := picks(sticky, 4); got != "aaaa" {
			t.Errorf("sticky: %s", got)
		}
		must(t, regs["a"].Deregister(ctx))
		got := picks(sticky, 4)
		if got != "cccc" && got != "bbbb" {
			t.Errorf("sticky, without a: %s", got)
		}
		first, err := r.Register(ctx, recipes.Instance[string]{Name: "web", ID: "0"}) // comes before the others
		must(t, err)
		if now := picks(sticky, 4); now != got {
			t.Errorf("sticky, with another: %s, before %s", now, got)
		}
		must(t, first.Deregister(ctx))
		for _, odd := range []int{7, 2, -1} {
			pick := func([]recipes.Instance[string]) int { return odd }
			for _, pick := range []recipes.Strategy[string]{pick, recipes.Sticky(pick)} {
				_, err = r.Provider("web", pick).Pick(ctx)
				wants(t, err, zk.ErrBadArguments)
			}
		}

		// Outliers: two errors within 30 s.
		in, err := turn.Pick(ctx)
		must(t, err)
		turn.NoteError(in)
		if got := picks(turn, 4); !strings.Contains(got, in.ID) {
			t.Errorf("after one error: %s", got)
		}
		time.Sleep(20 * time.Second)
		turn.NoteError(in)
		if got := picks(turn, 4); strings.Contains(got, in.ID) {
			t.Errorf("after two errors: %s", got)
		}
		if got := picks(any, 50); !strings.Contains(got, in.ID) {
			t.Errorf("of another provider: %s", got)
		}
		time.Sleep(11 * time.Second) // the first one is too long ago
		if got := picks(turn, 4); !strings.Contains(got, in.ID) {
			t.Errorf("later: %s", got)
		}
		turn.NoteError(in)
		for id := range regs {
			for range 2 {
				other := in
				other.ID = id
				turn.NoteError(other)
			}
		}
		_, err = turn.Pick(ctx)
		wants(t, err, recipes.ErrNoInstance)
		time.Sleep(time.Minute)
		picks(turn, 1)
		strict := r.Provider("web", nil)
		strict.Threshold, strict.Window = 1, time.Hour
		strict.NoteError(in)
		time.Sleep(30 * time.Minute)
		if got := picks(strict, 4); strings.Contains(got, in.ID) {
			t.Errorf("after one error: %s", got)
		}
		turn.Close()
		turn.Close()
		turn.NoteError(in)
		_, err = turn.Pick(ctx)
		wants(t, err, zk.ErrClosed)
		must(t, regs["b"].Deregister(ctx))
		must(t, regs["c"].Deregister(ctx))
		residue(t, ctx, c, "/")
	})
}

// blobs is a codec of instances whose payload is large, which knows how often it has decoded, and what is still in use.
type blobs struct {
	decodes int
	blobs   []weak.Pointer[[1 << 10]byte]
}

func (*blobs) Encode(in recipes.Instance[*[1 << 10]byte]) ([]byte, error) { return []byte(in.ID), nil }

func (c *blobs) Decode(b []byte) (recipes.Instance[*[1 << 10]byte], error) {
	c.decodes++
	blob := new([1 << 10]byte)
	c.blobs = append(c.blobs, weak.Make(blob))
	return recipes.Instance[*[1 << 10]byte]{ID: string(b), Payload: blob, Enabled: true}, nil
}

// What a provider has decoded it does not decode again, and it remembers neither instances that have gone nor errors that
// count no more.
func TestProviderRemembers(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		codec := &blobs{}
		r := recipes.NewRegistry[*[1 << 10]byte](s, "/services")
		r.Codec = codec
		var regs []*recipes.Registration[*[1 << 10]byte]
		for _, id := range []string{"a", "b"} {
			reg, err := r.Register(ctx, recipes.Instance[*[1 << 10]byte]{Name: "web", ID: id})
			must(t, err)
			regs = append(regs, reg)
		}
		p := r.Provider("web", nil)
		p.Window = time.Second
		for range 5 {
			_, err := p.Pick(ctx)
			must(t, err)
		}
		if codec.decodes != 2 {
			t.Errorf("%d decoded of 2", codec.decodes)
		}
		must(t, regs[0].Deregister(ctx))
		_, err := p.Pick(ctx)
		must(t, err)
		runtime.GC()
		inUse := 0
		for _, w := range codec.blobs {
			if w.Value() != nil {
				inUse++
			}
		}
		if inUse != 1 {
			t.Errorf("%d instances are remembered, one is there", inUse)
		}
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		for i := range 1000 { // 20 MB of names
			for j := range 20 {
				p.NoteError(recipes.Instance[*[1 << 10]byte]{ID: fmt.Sprintf("%01000d-%d", i, j)})
			}
			time.Sleep(p.Window)
		}
		if grown := heap() - before; grown > 10<<20 {
			t.Errorf("%d bytes of errors are remembered", grown)
		}
		runtime.KeepAlive(p)
		must(t, regs[1].Deregister(ctx))
		residue(t, ctx, c, "/")
	})
}

// Those that are not enabled are listed and not picked; a restarted instance begins without errors.
func TestProviderPicksTheEnabled(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		r := recipes.NewRegistry[meta](s, "/services")
		reg, err := r.Register(ctx, recipes.Instance[meta]{Name: "web", ID: "a"})
		must(t, err)
		p := r.Provider("web", nil)
		_, err = p.Pick(ctx)
		wants(t, err, recipes.ErrNoInstance)
		if list, err := r.Instances(ctx, "web"); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		must(t, reg.Update(ctx, recipes.Instance[meta]{Enabled: true}))
		in, err := p.Pick(ctx)
		must(t, err)
		p.NoteError(in)
		p.NoteError(in)
		_, err = p.Pick(ctx)
		wants(t, err, recipes.ErrNoInstance)
		must(t, reg.Deregister(ctx))
		time.Sleep(time.Second)
		reg, err = r.Register(ctx, recipes.Instance[meta]{Name: "web", ID: "a", Enabled: true})
		must(t, err)
		_, err = p.Pick(ctx)
		must(t, err)
		must(t, reg.Deregister(ctx))
		synctest.Wait()
		residue(t, ctx, c, "/")
	})
}

// Pick from a strategy and a consumer that use the provider themselves (PEER-18), and by many at once.
func TestProviderCalledFromWithin(t *testing.T) {
	bubble(t, 1, zktest.Config{}, func(t *testing.T, ctx context.Context, c *zktest.Cluster) {
		s := session(t, ctx, c.Member(0))
		r := recipes.NewRegistry[meta](s, "/services")
		reg, err := r.Register(ctx, recipes.Instance[meta]{Name: "web", ID: "a", Enabled: true})
		must(t, err)
		var p *recipes.Provider[meta]
		depth := 0
		p = r.Provider("web", func(list []recipes.Instance[meta]) int {
			if depth++; depth < 3 {
				_, err := p.Pick(ctx)
				must(t, err)
			}
			return 0
		})
		_, err = p.Pick(ctx)
		must(t, err)
		for range r.Watch(ctx, "web") {
			must(t, reg.Update(ctx, recipes.Instance[meta]{Enabled: true, Port: 1}))
			must(t, reg.Deregister(ctx))
			break
		}
		residue(t, ctx, c, "/")
	})
}
