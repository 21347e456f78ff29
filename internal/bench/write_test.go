// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
)

const valueSize = 128

// parallel runs do from many callers until b.N calls have been made, and returns the rate.
func parallel(b *testing.B, callers int, do func(caller, i int) error) float64 {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for c := range callers {
		all.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := do(c, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	rate := float64(b.N) / time.Since(began).Seconds()
	b.ReportMetric(rate, "writes/s")
	return rate
}

// BenchmarkWrites sets znodes through sessions on all three members.
func BenchmarkWrites(b *testing.B) {
	members := open(b, b.TempDir(), 3)
	defer closeAll(members)
	ctx := context.Background()
	var sessions []*zk.Session
	for _, m := range members {
		sessions = append(sessions, session(b, m))
	}
	for k := range 1024 {
		if _, err := sessions[0].Create(ctx, fmt.Sprintf("/bench/%d", k), nil, zk.Parents); err != nil {
			b.Fatal(err)
		}
	}
	value := make([]byte, valueSize)
	for _, callers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			before := frames(members)
			parallel(b, callers, func(c, i int) error {
				_, err := sessions[c%3].Set(ctx, fmt.Sprintf("/bench/%d", i%1024), value, zk.AnyVersion)
				return err
			})
			after := frames(members)
			b.ReportMetric(float64(after[1]-before[1])/float64(after[0]-before[0]), "writes/entry")
		})
	}
}

func frames(members []*zk.Member) (n [2]int64) {
	for _, m := range members {
		st := m.Stats()
		n[0] += st.Frames
		n[1] += st.FramedWrites
	}
	return n
}

// BenchmarkRaft applies entries of the same size through raft alone, on its leader, with an empty state machine.
func BenchmarkRaft(b *testing.B) {
	nodes, stop := rawRaft(b, b.TempDir(), 3)
	defer stop()
	l := rawLeader(b, nodes)
	value := make([]byte, valueSize)
	for _, callers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			parallel(b, callers, func(int, int) error { return l.Apply(value, 10*time.Second).Error() })
		})
	}
}

// BenchmarkFdatasync appends 4 KiB and syncs: what the disk allows at most, one after the other.
func BenchmarkFdatasync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	b.ResetTimer()
	began := time.Now()
	for range b.N {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "syncs/s")
}

// BenchmarkReads reads locally, on one member, from all processors.
func BenchmarkReads(b *testing.B) {
	members := open(b, b.TempDir(), 3)
	defer closeAll(members)
	ctx := context.Background()
	s := session(b, members[0])
	for k := range 1024 {
		if _, err := s.Create(ctx, fmt.Sprintf("/bench/%d", k), make([]byte, valueSize), zk.Parents); err != nil {
			b.Fatal(err)
		}
	}
	paths := make([]string, 1024)
	for k := range paths {
		paths[k] = fmt.Sprintf("/bench/%d", k)
	}
	b.Run("local", func(b *testing.B) {
		began := time.Now()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, _, err := s.GetString(ctx, paths[i%1024]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "reads/s")
	})
	b.Run("linearizable", func(b *testing.B) {
		b.SetParallelism(32)
		began := time.Now()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, _, err := s.GetString(ctx, paths[i%1024], zk.Linearizable); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "reads/s")
	})
}

// BenchmarkSingleWrite is one write at a time, through the leader's own member and through a follower, in turn.
func BenchmarkSingleWrite(b *testing.B) {
	members := open(b, b.TempDir(), 3)
	defer closeAll(members)
	ctx := context.Background()
	l := leader(b, members)
	at := []*zk.Session{session(b, members[l]), session(b, members[(l+1)%3])}
	if _, err := at[0].Create(ctx, "/one", nil, zk.Persistent); err != nil {
		b.Fatal(err)
	}
	took := [2][]time.Duration{}
	value := make([]byte, valueSize)
	for range b.N {
		for i, s := range at {
			began := time.Now()
			if _, err := s.Set(ctx, "/one", value, zk.AnyVersion); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	spread(b, "leader", took[0])
	spread(b, "follower", took[1])
	b.ReportMetric(float64(took[1][len(took[1])/2])/float64(took[0][len(took[0])/2]), "follower/leader")
}

// BenchmarkFirstWrite is from opening new directories to the first durable write, ten times, beside raft's own start.
func BenchmarkFirstWrite(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			var ours, theirs []time.Duration
			for range 10 {
				began := time.Now()
				members := open(b, b.TempDir(), n)
				if _, err := session(b, members[0]).Create(context.Background(), "/first", nil, zk.Persistent); err != nil {
					b.Fatal(err)
				}
				ours = append(ours, time.Since(began))
				closeAll(members)

				began = time.Now()
				nodes, stop := rawRaft(b, b.TempDir(), n)
				if err := rawLeader(b, nodes).Apply([]byte("first"), 10*time.Second).Error(); err != nil {
					b.Fatal(err)
				}
				theirs = append(theirs, time.Since(began))
				stop()
			}
			spread(b, "zk", ours)
			spread(b, "raft", theirs)
		})
	}
}
