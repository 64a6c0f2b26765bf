// Package linebuffer collects lines of many goroutines without a lock. With a lock, checks would wait if the goroutine that
// holds it was interrupted. The tests compare it with a buffer with a mutex, and authz/decisions/006 says what it gains.
package linebuffer

import (
	"runtime"
	"sync/atomic"
)

// Buffer collects lines until Take removes them. Add may be called concurrently, Take by one goroutine at a time.
type Buffer struct {
	active atomic.Pointer[batch] // takes lines
	spare  *batch                // sealed: Take swaps it with the active one
}

// New makes a buffer for that many bytes. It uses twice the memory.
func New(size int) *Buffer {
	b := &Buffer{spare: &batch{buf: make([]byte, size)}}
	b.spare.seal()
	b.active.Store(&batch{buf: make([]byte, size)})
	return b
}

// Add adds a line, whole. It returns false if there is no room for it. Until the next Take it then refuses all other lines too.
func (b *Buffer) Add(line []byte) bool {
	for {
		if out := b.active.Load().add(line); out != isSealed {
			return out == added
		}
	}
}

// Take removes all lines and returns them, in the order in which they were added. The bytes may be used until the next Take.
// A line that is added at the same moment may come with the next Take, behind later ones.
func (b *Buffer) Take() []byte {
	b.spare.reopen()
	b.spare = b.active.Swap(b.spare)
	return b.spare.seal()
}

// batch is one half of a Buffer. To add a line, a goroutine reserves room by adding its length to reserved, and then copies the
// line into that room. To empty the batch, Take seals it first, and waits until all lines are copied.
//
//	add:   reserved += n   room within the buffer: copy the line, then copied += n
//	                       room behind its end:    refused += n
//	                       batch is sealed:        try the other batch
//	seal:  reserved = sealed, then wait until copied + refused is what was reserved
//
// A batch stays sealed until it becomes the active one again.
type batch struct {
	reserved, copied, refused atomic.Int64
	buf                       []byte
}

// sealed is more than all lines together can reserve.
const sealed = 1 << 62

// outcome is the result of adding a line.
type outcome int

const (
	added outcome = iota
	isFull
	isSealed
)

func (b *batch) add(line []byte) outcome {
	n := int64(len(line))
	end := b.reserved.Add(n)
	switch {
	case end >= sealed:
		return isSealed
	case end > int64(len(b.buf)):
		b.refused.Add(n)
		return isFull
	}
	copy(b.buf[end-n:], line)
	b.copied.Add(n)
	return added
}

// seal makes the batch refuse further lines, and returns its lines. They may be used until reopen.
func (b *batch) seal() []byte {
	reserved := b.reserved.Swap(sealed)
	for b.copied.Load()+b.refused.Load() != reserved {
		runtime.Gosched() // a copy takes less than a microsecond
	}
	return b.buf[:b.copied.Load()]
}

// reopen empties a sealed batch.
func (b *batch) reopen() {
	b.copied.Store(0)
	b.refused.Store(0)
	b.reserved.Store(0)
}
