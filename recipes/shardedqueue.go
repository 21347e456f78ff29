// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/seed-541fafe0/zk"
)

// ShardedQueue spreads items over several queues, its shards. It is for programs that share PATH with Curator's
// QueueSharder. A Queue does not get slower with its backlog (Q-L3), so that nothing else asks for shards.
//
// Items of one shard are received in the order in which they were put; those of different shards in any order. As with
// Queue, a message is received by one consumer and gone with Message.Ack, and a consumer that dies loses its claims
// (Q-S1, Q-S2, Q-L1). Message.Nack with a delay is refused with zk.ErrBadArguments.
//
// Layout: PATH/queue-UUID for each shard, persistent, with entries as a Queue of layout Curator has them. Their claims are
// in PATH-locks/queue-UUID, because QueueSharder takes every child of PATH for a shard; its QueueAllocator has to give
// them as lockPath. Other children of PATH are passed over.
//
// Put looks at two shards and takes the one with fewer entries. If that has Threshold entries, the one with the fewest
// of all is taken, and if that has as many, a shard is added, until there are MaxShards. Whoever puts adds it, in a
// transaction with a guard that nobody has added one meanwhile, so that no leader is needed; if a QueueSharder shares
// PATH its leader adds shards too, and may go beyond MaxShards. Shards stay when they are empty.
//
// Cost: one write to put, one more where a shard is added; two to receive and acknowledge, and two more for the first
// claim in a shard, which is refused and makes the directory for it. Receiving looks at the shards one after another, on
// this member. Share one ShardedQueue among the consumers of a process: while they are idle, one
// of them has two watches for all, and an item put wakes one goroutine on each member.
type ShardedQueue[T any] struct {
	noCopy noCopy

	Session   zk.SessionSource
	Path      string
	Codec     Codec[T] // default JSON
	Threshold int      // entries in a shard before another is added; default 10,000
	MaxShards int      // default 10

	idle idle // the consumers that wait

	mu     sync.Mutex           // guards the field below
	shards map[string]*Queue[T] // by name
}

const (
	defaultThreshold = 10_000
	defaultShards    = 10
)

// NewShardedQueue returns a sharded queue at path.
func NewShardedQueue[T any](s zk.SessionSource, path string) *ShardedQueue[T] {
	return &ShardedQueue[T]{Session: s, Path: path}
}

func (q *ShardedQueue[T]) locks() string { return q.Path + "-locks" }

// Put puts an item at the end of a shard. Errors: the codec's, ctx's, and those of every write; zk.MaybeApplied tells
// whether the item may be in the queue.
func (q *ShardedQueue[T]) Put(ctx context.Context, item T) error {
	s, err := session(ctx, q.Session, "put", q.Path)
	if err != nil {
		return err
	}
	for {
		shard, err := q.choose(ctx, s)
		if err == nil {
			err = shard.put(ctx, place{prio: noPriority}, item)
		}
		if !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, zk.ErrGuard) {
			return err
		} // somebody removed the shard, or added one: what is seen now is as new
	}
}

// choose returns the shard to put an item into. The error is zk.ErrGuard if somebody else has changed the shards.
func (q *ShardedQueue[T]) choose(ctx context.Context, s *zk.Session) (*Queue[T], error) {
	shards, children, err := q.list(ctx, s)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(shards), func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
	threshold := q.Threshold
	if threshold <= 0 {
		threshold = defaultThreshold
	}
	var best *Queue[T]
	fewest := 0
	for i, shard := range shards {
		if i >= 2 && fewest < threshold {
			break
		}
		st, ok, err := s.Exists(ctx, shard.Path)
		if err != nil {
			return nil, explain(ctx, err)
		}
		if ok && (best == nil || st.NumChildren < fewest) {
			best, fewest = shard, st.NumChildren
		}
	}
	most := q.MaxShards
	if most <= 0 {
		most = defaultShards
	}
	if best != nil && (fewest < threshold || len(shards) >= most) {
		return best, nil
	}
	name := curatorPrefix + newUUID()
	_, err = s.Txn(ctx, zk.OpCheckChildren(q.Path, zk.Equal, children), zk.OpCreate(join(q.Path, name), nil, zk.Persistent|zk.Parents))
	if err != nil {
		return nil, err
	}
	return q.named(name), nil
}

// list returns the shards as this member has them, and how many children the directory has.
func (q *ShardedQueue[T]) list(ctx context.Context, s *zk.Session) (shards []*Queue[T], children int, err error) {
	names, _, err := s.Children(ctx, q.Path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, 0, explain(ctx, err)
	}
	for _, name := range names {
		if id, ok := strings.CutPrefix(name, curatorPrefix); ok && isUUID(id) {
			shards = append(shards, q.named(name))
		}
	}
	return shards, len(names), nil
}

// named returns the shard with a name, the same one each time: it knows what its consumers are about to claim.
func (q *ShardedQueue[T]) named(name string) *Queue[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.shards[name]
	if one == nil {
		one = &Queue[T]{
			Session: q.Session, Path: join(q.Path, name), Codec: q.Codec, Layout: Curator, shard: &shard{locks: join(q.locks(), name)},
		}
		if q.shards == nil {
			q.shards = map[string]*Queue[T]{}
		}
		q.shards[name] = one
	}
	return one
}

// Receive waits for an item in any of the shards and claims it. Errors: ctx's; the session's if it ends; *DecodeError
// for an entry that cannot be decoded, which is reported once and passed over from then on; and those of every write. No
// claim is left where there is an error.
func (q *ShardedQueue[T]) Receive(ctx context.Context) (*Message[T], error) {
	s, err := session(ctx, q.Session, "receive", q.Path)
	if err != nil {
		return nil, err
	}
	for {
		var shard *Queue[T]
		var e entry
		err := q.idle.until(ctx, s, zk.WatchSubtree, [2]string{q.Path, q.locks()}, func() (found bool, next time.Time, err error) {
			shard, e, err = q.pick(ctx, s)
			return shard != nil, next, err
		})
		if err != nil {
			return nil, err
		}
		m, err := shard.claim(ctx, s, e)
		shard.unmark(e, err)
		if err != nil {
			q.idle.given.ring()
		}
		if m != nil || err != nil {
			return m, err
		}
	}
}

// pick finds and marks an entry that is free in one of the shards, beginning with any. The shard is nil if there is none.
func (q *ShardedQueue[T]) pick(ctx context.Context, s *zk.Session) (*Queue[T], entry, error) {
	shards, _, err := q.list(ctx, s)
	if err != nil || len(shards) == 0 {
		return nil, entry{}, err
	}
	first := rand.IntN(len(shards))
	for i := range shards {
		shard := shards[(first+i)%len(shards)]
		if e, _, err := shard.pick(ctx, s, true); err != nil || e.name != "" {
			return shard, e, err
		}
	}
	return nil, entry{}, nil
}
