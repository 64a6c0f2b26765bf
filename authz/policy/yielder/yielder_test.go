package yielder

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestYielder_LongEvaluationsSleep counts sleep by the clock, which in a bubble stands still while a goroutine works.
func TestYielder_LongEvaluationsSleep(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(context.Context) *Yielder
		steps int
		naps  time.Duration
	}{
		"short": {ForOPA, freeSteps, 0}, "long": {ForOPA, freeSteps + 10*stepsPerNap, 10},
		"short program": {ForProgram, freeSteps, 0}, "long program": {ForProgram, freeSteps + 10*stepsPerNap, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				y := c.make(t.Context())
				for range c.steps {
					if y.Cancelled() {
						t.Fatal("it ended")
					}
				}
				if slept := time.Since(began); slept != c.naps*nap {
					t.Errorf("slept %v, want %d naps", slept, c.naps)
				}
			})
		})
	}
}

func TestYielder_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for most, y := range map[int]*Yielder{stepsPerLookOfOPA: ForOPA(ctx), stepsPerLookOfProgram: ForProgram(ctx)} {
		n := 1
		for ; !y.Cancelled() && n <= most; n++ {
		}
		if n != most {
			t.Errorf("it ends after %d steps, want %d", n, most)
		}
	}
}

// byContext is what the yielder replaces: it only ends with its context.
type byContext struct {
	ctx   context.Context
	steps uint
}

func (c *byContext) Cancelled() bool {
	c.steps++
	return c.steps%stepsPerLookOfOPA == 0 && c.ctx.Err() != nil
}

var work atomic.Int64

// BenchmarkYielder sends a byte over a socket and back, while every processor runs a long evaluation.
func BenchmarkYielder(b *testing.B) {
	for device, cancel := range map[string]func(context.Context) interface{ Cancelled() bool }{
		"on":  func(ctx context.Context) interface{ Cancelled() bool } { return ForOPA(ctx) },
		"off": func(ctx context.Context) interface{ Cancelled() bool } { return &byContext{ctx: ctx} },
	} {
		b.Run("device="+device, func(b *testing.B) {
			ctx, stop := context.WithCancel(b.Context())
			conn := echo(b)
			var wg sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wg.Go(func() {
					for c := cancel(ctx); !c.Cancelled(); {
						for i := range int64(130) { // about 0.8 µs, as a step of the evaluator takes
							work.Store(i)
						}
					}
				})
			}
			buf := make([]byte, 1)
			for b.Loop() {
				if _, err := conn.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					b.Fatal(err)
				}
			}
			stop()
			wg.Wait()
		})
	}
}

// echo returns a connection whose other end sends back what it receives.
func echo(b *testing.B) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(); l.Close() })
	return conn
}
