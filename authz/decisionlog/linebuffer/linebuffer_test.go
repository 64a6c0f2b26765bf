package linebuffer

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// lineBuffer is what a Buffer and its oracle have in common.
type lineBuffer interface {
	Add(line []byte) bool
	Take() []byte
}

// lockedBuffer is the oracle: a Buffer with a mutex.
type lockedBuffer struct {
	mu           sync.Mutex
	lines, spare []byte
	full         bool
}

func newLocked(size int) *lockedBuffer {
	return &lockedBuffer{lines: make([]byte, 0, size), spare: make([]byte, 0, size)}
}

func (b *lockedBuffer) Add(line []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = b.full || len(b.lines)+len(line) > cap(b.lines)
	if !b.full {
		b.lines = append(b.lines, line...)
	}
	return !b.full
}

func (b *lockedBuffer) Take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines, b.spare, b.full = b.spare[:0], b.lines, false
	return b.spare
}

func TestBuffer_DoesWhatTheOracleDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 100
		b, oracle := New(size), newLocked(size)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			if rapid.IntRange(0, 4).Draw(t, "verb") == 0 {
				if got, want := b.Take(), oracle.Take(); !bytes.Equal(got, want) {
					t.Fatalf("took %q, want %q", got, want)
				}
				continue
			}
			line := bytes.Repeat([]byte{'x'}, rapid.IntRange(1, 60).Draw(t, "length"))
			if got, want := b.Add(line), oracle.Add(line); got != want {
				t.Fatalf("added: %v, want %v", got, want)
			}
		}
	})
}

// TestBuffer_LosesNothing: many goroutines add lines to a buffer that is emptied all the time and is too small for all
// lines. Every line that was added comes out whole and once.
func TestBuffer_LosesNothing(t *testing.T) {
	const adders, lines = 8, 5000
	b := New(1000)
	var added [adders]int
	var wg sync.WaitGroup
	for a := range adders {
		wg.Go(func() {
			for i := range lines {
				if b.Add(fmt.Appendf(nil, "%d %d %s\n", a, i, bytes.Repeat([]byte{'x'}, i%40))) {
					added[a]++
				}
			}
		})
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		wg.Wait()
	}()
	var out bytes.Buffer
	for running := true; running; out.Write(b.Take()) {
		select {
		case <-stopped:
			running = false
		default:
		}
	}
	out.Write(b.Take()) // a line may come one Take late
	var came [adders]int
	for line := range bytes.Lines(out.Bytes()) {
		var a, i int
		if _, err := fmt.Sscanf(string(line), "%d %d", &a, &i); err != nil || bytes.Count(line, []byte{'x'}) != i%40 {
			t.Fatalf("line %q: %v", line, err)
		}
		came[a]++
	}
	if came != added {
		t.Errorf("%v lines came out, of %v", came, added)
	}
}

// TestBatch_SealWaitsForLinesThatAreBeingCopied has a line with room in the batch that is not copied yet.
func TestBatch_SealWaitsForLinesThatAreBeingCopied(t *testing.T) {
	b := &batch{buf: make([]byte, 100)}
	b.add([]byte("first\n"))
	line := []byte("second\n")
	b.reserved.Add(int64(len(line)))
	sealing := make(chan []byte)
	go func() { sealing <- b.seal() }()
	select {
	case text := <-sealing:
		t.Fatalf("sealed with %q before the second line was copied", text)
	case <-time.After(10 * time.Millisecond):
	}
	copy(b.buf[len("first\n"):], line)
	b.copied.Add(int64(len(line)))
	if text := <-sealing; string(text) != "first\nsecond\n" {
		t.Errorf("sealed with %q", text)
	}
}

// BenchmarkAdd adds lines to a Buffer (on) and to the oracle (off). "cost" is what a line costs. "wait" has many goroutines
// compete for the processors while the buffer is emptied as by the log; its p99.99 is how long a line waits when another
// one is interrupted.
func BenchmarkAdd(b *testing.B) {
	const size = 4 << 20
	for _, device := range []struct {
		name   string
		buffer lineBuffer
	}{{"lockfree=on", New(size)}, {"lockfree=off", newLocked(size)}} {
		b.Run("cost/"+device.name, func(b *testing.B) {
			line := bytes.Repeat([]byte{'x'}, 300)
			for i := 0; b.Loop(); i++ {
				if i%1000 == 0 {
					device.buffer.Take()
				}
				device.buffer.Add(line)
			}
		})
		b.Run("wait/"+device.name, func(b *testing.B) {
			defer emptied(device.buffer)()
			waits := waitsOf(b, device.buffer)
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2]), "p50-ns")
			b.ReportMetric(float64(waits[len(waits)-1-len(waits)/10_000]), "p99.99-ns")
		})
	}
}

// emptied empties a buffer every few milliseconds until the function that it returns is called.
func emptied(buffer lineBuffer) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stopping:
				return
			case <-time.After(5 * time.Millisecond):
				buffer.Take()
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

// waitsOf adds lines from many goroutines, with 10 µs of other work between them as in checks, and returns how long each Add took.
func waitsOf(b *testing.B, buffer lineBuffer) (all []time.Duration) {
	line := bytes.Repeat([]byte{'x'}, 300)
	var mu sync.Mutex
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var took []time.Duration
		for pb.Next() {
			began := time.Now()
			for time.Since(began) < 10*time.Microsecond {
			}
			began = time.Now()
			buffer.Add(line)
			took = append(took, time.Since(began))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, took...)
	})
	return all
}
