package decisionlog

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
)

// TestABatchLosesNothing has many goroutines add lines to two batches that are emptied all the time, and are too small for
// all of it. Every line comes out whole and once, unless its goroutine was told that there is no room.
func TestABatchLosesNothing(t *testing.T) {
	const adders, lines = 8, 5000
	one, other := newBatch(1000), newBatch(1000)
	other.seal()
	var l Log
	l.pending.Store(one)
	var added [adders]int
	var wg sync.WaitGroup
	for a := range adders {
		wg.Go(func() {
			for i := range lines {
				text := fmt.Appendf(nil, "%d %d %s\n", a, i, bytes.Repeat([]byte{'x'}, i%40))
				became := shut
				for became == shut {
					became = l.pending.Load().add(text)
				}
				if became == full {
					continue
				}
				added[a]++
			}
		})
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		wg.Wait()
	}()
	var out bytes.Buffer
	empty := func() {
		other.reopen()
		other = l.pending.Swap(other)
		out.Write(other.seal())
	}
	for running := true; running; empty() {
		select {
		case <-stopped:
			running = false
		default:
		}
	}
	empty() // what an adder put into the batch that had just been opened again
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
