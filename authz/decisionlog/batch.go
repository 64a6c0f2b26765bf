package decisionlog

import (
	"runtime"
	"sync/atomic"
)

// batch gathers lines of many goroutines without a lock. Each asks for room by adding to a number, and copies its line
// into what it got; whoever empties the batch seals it first, and waits for those who are still copying.
//
//	add:   asked += n      within the buffer: copy, then written += n
//	                       behind its end: refused += n
//	                       sealed: try the other batch
//	empty: asked = sealed  wait until written + refused is what had been asked for
//
// A batch stays sealed until it is about to take the other one's place. Lines are in the order in which they asked, but for
// an add that was held up just then, whose line may come one lot late.
type batch struct {
	asked, written, refused atomic.Int64
	buf                     []byte
}

// sealed is more than anybody asks for.
const sealed = 1 << 62

func newBatch(size int) *batch { return &batch{buf: make([]byte, size)} }

// outcome is what became of a line.
type outcome int

const (
	added outcome = iota
	full          // no room is left
	shut          // the batch is being emptied: there is another one
)

func (b *batch) add(line []byte) outcome {
	n := int64(len(line))
	end := b.asked.Add(n)
	switch {
	case end >= sealed:
		return shut
	case end > int64(len(b.buf)):
		b.refused.Add(n)
		return full
	}
	copy(b.buf[end-n:], line)
	b.written.Add(n)
	return added
}

// seal ends the adding and returns what was added, which may be used until reopen.
func (b *batch) seal() []byte {
	asked := b.asked.Swap(sealed)
	for b.written.Load()+b.refused.Load() != asked {
		runtime.Gosched() // a copy takes less than a microsecond
	}
	return b.buf[:b.written.Load()]
}

// reopen makes a sealed batch empty, and ready for more.
func (b *batch) reopen() {
	b.written.Store(0)
	b.refused.Store(0)
	b.asked.Store(0)
}
