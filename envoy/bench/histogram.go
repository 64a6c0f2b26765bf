package main

import (
	"math"
	"math/bits"
	"time"
)

// fineness is the number of steps from a duration to its double: each is less than 1 %.
const fineness = 128

// histogram counts durations. It is exact to 1 %, from nanoseconds to hours. The zero value is empty.
type histogram struct {
	counts [58 * fineness]uint32
	total  int
}

func (h *histogram) add(d time.Duration) {
	h.counts[step(d)]++
	h.total++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// quantile is the duration that a share q of all durations do not exceed, 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.total)))
	seen := 0
	for i, n := range h.counts {
		if seen += int(n); seen >= rank && n > 0 {
			return middle(i)
		}
	}
	return 0
}

// step is the number of the step of a duration. Below 2*fineness ns each nanosecond is a step.
func step(d time.Duration) int {
	v := uint64(max(0, d))
	shift := max(0, bits.Len64(v)-bits.Len(2*fineness-1))
	return shift*fineness + int(v>>shift)
}

// middle is the duration in the middle of a step.
func middle(i int) time.Duration {
	shift := max(0, i/fineness-1)
	low := uint64(i-shift*fineness) << shift
	return time.Duration(low + 1<<shift/2)
}
