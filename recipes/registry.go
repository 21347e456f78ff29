// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// Registry is where services are found: instances register under the name of their service, with an address and whatever
// else T has, and disappear when they stop or crash.
//
// Layout, Curator's service discovery: BASE/SERVICE/ID, its data the instance in Curator's JSON; ephemeral for Dynamic, with a
// number for DynamicSequential, persistent for Static and Permanent. The directories are containers.
//
// Cost: one write to register, to update and to deregister, as of a Presence; Services and Instances are local reads; Watch
// is one local watch, one local read for each change, and a goroutine until it returns.
//
// That an instance is listed says that its session lives, not that it answers: see Provider.NoteError. A znode that is no
// instance never keeps the others from being listed.
type Registry[T any] struct {
	noCopy noCopy

	Session zk.SessionSource // a *zk.Member survives expiry; with a *zk.Session a registration ends with that one
	Base    string
	Codec   Codec[Instance[T]] // default: Curator's JSON
}

// NewRegistry returns the registry below base.
func NewRegistry[T any](s zk.SessionSource, base string) *Registry[T] {
	return &Registry[T]{Session: s, Base: base}
}

// Instance is one that offers a service.
type Instance[T any] struct {
	Name       string // of the service
	ID         string // unique in the service; "" makes Register choose one
	Address    string
	Port       int // 0: none
	TLS        int // the port for TLS; 0: none
	Payload    T   // anything else; struct{} is stored as null
	Type       InstanceType
	URISpec    string    // a template such as "{scheme}://{address}:{port}", "" for none
	Enabled    bool      // a Provider only picks those that are; programs that do not know of it mean true
	Registered time.Time // to the millisecond; zero makes Register set the ensemble's time
}

// InstanceType says how long an instance is registered. They are Curator's types of services.
type InstanceType uint8

const (
	// Dynamic is registered as long as its process lives: an ephemeral znode, which goes at the latest with its session's
	// timeout, and is registered again after an expired session. It is the default.
	Dynamic InstanceType = iota

	// DynamicSequential is as Dynamic, but the znode's name has a number after the id: several may have one ID, none
	// replaces another, and who looks for the path of an id, as Curator's programs do, does not find it.
	DynamicSequential

	// Static stays until Deregister, a restart or the end of its process included: a persistent znode. Whoever registers
	// under the same id replaces it. Nothing here removes one whose process is gone for good; Curator's discovery server
	// does, when it was registered longer ago than that server allows.
	Static

	// Permanent is stored and kept exactly as Static. The name alone differs, and tells Curator's discovery server to leave
	// it where it is, however old it becomes.
	Permanent
)

var instanceTypes = [...]string{"DYNAMIC", "DYNAMIC_SEQUENTIAL", "STATIC", "PERMANENT"}

// String names the type as Curator does.
func (t InstanceType) String() string {
	if int(t) < len(instanceTypes) {
		return instanceTypes[t]
	}
	return "unknown"
}

// mode is how a znode of that type is created.
func (t InstanceType) mode() zk.CreateMode {
	switch t {
	case Dynamic:
		return zk.Ephemeral
	case DynamicSequential:
		return zk.Ephemeral | zk.Sequential
	}
	return zk.Persistent
}

// Registration is an instance that is kept registered until Deregister.
type Registration[T any] struct {
	noCopy noCopy

	registry  *Registry[T]
	path      string
	publisher publisher
	turn      baton // of those who update

	mu sync.Mutex // guards the field below
	in Instance[T]
}

// Register registers an instance and returns once it is; from then on it is kept so, with its last update, whatever becomes
// of sessions and operators. One that is registered under the same id is replaced by one transaction, so that the service is
// never without it. Errors: ctx's, zk.ErrBadArguments for a name or id that no znode can have, the codec's, and
// those of every create; nothing is left registered then.
func (r *Registry[T]) Register(ctx context.Context, in Instance[T]) (*Registration[T], error) {
	s, err := session(ctx, r.Session, "register", r.Base)
	if err != nil {
		return nil, err
	}
	if in.ID == "" {
		in.ID = newUUID()
	}
	if in.Registered.IsZero() {
		in.Registered = s.Now()
	}
	in.Registered = in.Registered.Truncate(time.Millisecond) // as others see it
	k := &Registration[T]{registry: r, path: join(join(r.Base, in.Name), in.ID), in: in}
	if strings.Contains(in.Name+in.ID, "/") || int(in.Type) >= len(instanceTypes) {
		return nil, badArgument("register", k.path, "not a name, an id or a type of an instance")
	}
	if err := zk.ValidPath(k.path); err != nil {
		return nil, err
	}
	data, err := r.codec().Encode(in)
	if err != nil {
		return nil, err
	}
	err = k.publisher.start(ctx, func() *publication {
		return &publication{src: r.Session, op: "registration", path: k.path, mode: in.Type.mode(), data: data, replace: true}
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (r *Registry[T]) codec() Codec[Instance[T]] {
	if r.Codec != nil {
		return r.Codec
	}
	return curatorInstances[T]{}
}

// Instance returns what was registered, or updated, last.
func (k *Registration[T]) Instance() Instance[T] {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.in
}

// Update changes what is registered. Name, ID, Type and Registered stay what they are: they may be left out, and must not be
// others. Errors: zk.ErrBadArguments, the codec's, and those of Presence.Set.
func (k *Registration[T]) Update(ctx context.Context, in Instance[T]) error {
	if err := checkContext(ctx, "update", k.path); err != nil {
		return err
	}
	if err := k.turn.take(ctx); err != nil {
		return err
	}
	defer k.turn.pass()
	was := k.Instance()
	if in.Name == "" {
		in.Name = was.Name
	}
	if in.ID == "" {
		in.ID = was.ID
	}
	if in.Registered.IsZero() {
		in.Registered = was.Registered
	}
	if in.Type == Dynamic {
		in.Type = was.Type
	}
	if in.Name != was.Name || in.ID != was.ID || in.Type != was.Type || !in.Registered.Equal(was.Registered) {
		return badArgument("update", k.path, "an update of another instance")
	}
	data, err := k.registry.codec().Encode(in)
	if err != nil {
		return err
	}
	err = k.publisher.set(ctx, "update", k.path, data)
	if err == nil || zk.MaybeApplied(err) { // then it is still to be written
		k.mu.Lock()
		defer k.mu.Unlock()
		k.in = in
	}
	return err
}

// Err returns nil while the instance is registered, or why it is not, as Presence.Err does.
func (k *Registration[T]) Err() error { return k.publisher.why() }

// Deregister takes the instance off, that znode only, whatever its type is. Once it has returned nil the instance never comes
// back (REG-S2); if its member has stopped, what goes with the session is listed until that has expired. If ctx ends first its error
// is returned; the removal goes on, and Deregister called again waits for it.
func (k *Registration[T]) Deregister(ctx context.Context) error {
	if ctx == nil {
		return badArgument("deregister", k.path, "nil context")
	}
	return k.publisher.finish(ctx, "deregister")
}

// Services returns the names of the services that have an instance, in byte order, all as of one zxid: that of this member,
// which may be behind others. What is registered need not be an instance: Instances and Watch decode, Services does not. It
// costs no message; time and memory grow with the number of services, not with that of the instances. Errors: those of
// every read.
func (r *Registry[T]) Services(ctx context.Context) (names []string, err error) {
	s, err := session(ctx, r.Session, "services", r.Base)
	if err != nil {
		return nil, err
	}
	list, err := entries(ctx, s, r.Base)
	for _, z := range list {
		if z.Stat.NumChildren > 0 {
			names = append(names, base(z.Path))
		}
	}
	return names, err
}

// where returns the directory of a service.
func (r *Registry[T]) where(service string) (string, error) {
	if service == "" || strings.Contains(service, "/") {
		return "", badArgument("instances", r.Base, "not a name of a service")
	}
	return join(r.Base, service), nil
}

// Instances returns those of a service, in the order of their znodes, all as of one zxid: that of this member, which may be
// behind others. Those that are not enabled are among them; what is no instance is left out, and Watch tells of it. It costs no
// message, but decodes every instance each time: a Provider does so once. Errors: those of every read; zk.ErrBadArguments
// for a name that no service can have.
func (r *Registry[T]) Instances(ctx context.Context, service string) (all []Instance[T], err error) {
	s, err := session(ctx, r.Session, "instances", r.Base)
	if err != nil {
		return nil, err
	}
	dir, err := r.where(service)
	if err != nil {
		return nil, err
	}
	list, err := entries(ctx, s, dir)
	for _, z := range list {
		if in, err := r.decode(z); err == nil {
			all = append(all, in)
		}
	}
	return all, err
}

// decode reads an instance; the error is a *DecodeError.
func (r *Registry[T]) decode(z zk.Znode) (in Instance[T], err error) {
	if in, err = r.codec().Decode([]byte(z.Data)); err != nil {
		return in, &DecodeError{Path: z.Path, Zxid: z.Stat.Mzxid, Err: err}
	}
	return in, nil
}

// Watch yields the instances of a service, and again whenever one has come, gone or changed: the newest state only. A znode
// that is no instance is yielded as a *DecodeError, once for each time it was written, and the stream goes on without it. It
// ends with ctx, and with an error of reading; with the session only if the registry was made with a *zk.Session.
func (r *Registry[T]) Watch(ctx context.Context, service string) iter.Seq2[[]Instance[T], error] {
	return func(yield func([]Instance[T], error) bool) {
		dir, err := r.where(service)
		if err != nil {
			yield(nil, err)
			return
		}
		var told []zk.Znode // which are no instances
		for list, err := range directories(ctx, r.Session, "watch service", dir) {
			if err != nil {
				yield(nil, err)
				return
			}
			var all []Instance[T]
			var bad []zk.Znode
			for _, z := range list {
				in, err := r.decode(z)
				if err == nil {
					all = append(all, in)
					continue
				}
				bad = append(bad, z)
				same := func(o zk.Znode) bool { return o.Path == z.Path && o.Stat.Mzxid == z.Stat.Mzxid }
				if !slices.ContainsFunc(told, same) && !yield(nil, err) {
					return
				}
			}
			if told = bad; !yield(all, nil) {
				return
			}
		}
	}
}
