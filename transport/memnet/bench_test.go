// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"fmt"
	"io"
	"testing"
)

func BenchmarkPingPong(b *testing.B) {
	x, y := pair(b, New(1))
	done := background(func() error { _, err := io.Copy(y, y); return err })
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		send(b, x, string(p))
		if _, err := io.ReadFull(x, p); err != nil {
			b.Fatal(err)
		}
	}
	x.Close()
	<-done
}

func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := pair(b, New(1))
			done := background(func() error { _, err := io.Copy(io.Discard, y); return err })
			p := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := x.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			x.Close()
			<-done
		})
	}
}
