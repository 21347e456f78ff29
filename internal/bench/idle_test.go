// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-541fafe0/zk"
	"github.com/seed-541fafe0/zk/wire"
)

const idleConnections = 5000

// BenchmarkIdleConnections opens 5,000 connections that do nothing, and then one that asks for megabytes and reads
// none of them, and measures what they cost: memory per connection, and the median latency of others, as a ratio
// to that before. It is one measurement: -benchtime 1x.
func BenchmarkIdleConnections(b *testing.B) {
	p := startPorts(b, 1)[0]
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	var active []*wire.Client
	for range 8 {
		c, err := wire.Dial(ctx, wire.ClientConfig{Servers: []string{p.addr}, Timeout: time.Minute})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		active = append(active, c)
	}
	for i := range active {
		if _, err := active[i].Create(ctx, fmt.Sprint("/active-", i), make([]byte, valueSize), zk.Persistent); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := active[0].Create(ctx, "/large", make([]byte, 512<<10), zk.Persistent); err != nil {
		b.Fatal(err)
	}
	median := func() (read, write float64) {
		var mu sync.Mutex
		var reads, writes []time.Duration
		var all sync.WaitGroup
		for i, c := range active {
			all.Go(func() {
				path := fmt.Sprint("/active-", i)
				for range 500 {
					at := time.Now()
					_, _, err := c.Get(ctx, path)
					got := time.Since(at)
					at = time.Now()
					if err == nil {
						_, err = c.Set(ctx, path, make([]byte, valueSize), zk.AnyVersion)
					}
					if err != nil {
						b.Error(err)
						return
					}
					mu.Lock()
					reads, writes = append(reads, got), append(writes, time.Since(at))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if b.Failed() {
			b.FailNow()
		}
		slices.Sort(reads)
		slices.Sort(writes)
		return float64(reads[len(reads)/2]), float64(writes[len(writes)/2])
	}
	median() // warm
	for range b.N {
		read, write := median()
		before := p.memory(b)
		var idle []net.Conn
		for range idleConnections {
			c, err := handshake(p.addr)
			if err != nil {
				b.Fatal(err)
			}
			idle = append(idle, c)
		}
		b.ReportMetric((p.memory(b)-before)/idleConnections, "B/conn")
		withRead, withWrite := median()
		b.ReportMetric(withRead/read, "read-with-idle-ratio")
		b.ReportMetric(withWrite/write, "write-with-idle-ratio")

		slow, err := handshake(p.addr)
		if err != nil {
			b.Fatal(err)
		}
		stop := make(chan struct{})
		var asking sync.WaitGroup
		asking.Go(func() { // until the port reads no more of it, or closes it
			body := append(binary.BigEndian.AppendUint32(nil, 6), "/large\x00"...)
			frame := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
			frame = binary.BigEndian.AppendUint32(frame, 1)
			frame = append(binary.BigEndian.AppendUint32(frame, 4), body...)
			for {
				select {
				case <-stop:
					return
				default:
				}
				slow.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := slow.Write(frame); err != nil {
					return
				}
			}
		})
		slowRead, slowWrite := median()
		b.ReportMetric(slowRead/read, "read-with-slow-reader-ratio")
		b.ReportMetric(slowWrite/write, "write-with-slow-reader-ratio")
		b.ReportMetric((p.memory(b)-before)/(1<<20), "MiB-with-slow-reader")
		close(stop)
		asking.Wait()
		for _, c := range append(idle, slow) {
			c.Close()
		}
	}
}

// handshake opens a session, and leaves the connection to itself.
func handshake(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	request := binary.BigEndian.AppendUint32(nil, 45)
	request = append(request, make([]byte, 12)...)            // version, last zxid seen
	request = binary.BigEndian.AppendUint32(request, 120_000) // timeout, ms
	request = append(request, make([]byte, 8)...)             // no session yet
	request = binary.BigEndian.AppendUint32(request, 16)      // password
	request = append(append(request, make([]byte, 16)...), 0) // not read-only
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c, make([]byte, 4+37)); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}
