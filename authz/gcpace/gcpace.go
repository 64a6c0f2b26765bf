// Package gcpace slows the garbage collector down while little memory is in use.
//
// Go's default collects when the heap has doubled. A server with a few megabytes of data and thousands of checks a second
// would collect ten times a second, and spend up to a quarter of its time on it. Run lets Headroom bytes of garbage gather
// instead. Package decisions, page 012, has the figures.
package gcpace

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Headroom is how much garbage, in bytes, gathers before it is collected, if the heap is neither tiny nor large.
const Headroom = 128 << 20

const (
	// wideHeadroom is Headroom for a larger heap: a collection takes as long as there is memory in use, so with more in use it
	// has to be rarer. Up to that much it is twice the memory in use.
	wideHeadroom = 384 << 20
	// The percentage stays between these. The lower one is Go's default: with more live memory than wideHeadroom, it leaves
	// more room already.
	minPercent, maxPercent = 100, 1000

	interval = time.Second
)

// Run adjusts the percentage of the collector (see debug.SetGCPercent) to the live memory every second, until ctx ends, and
// then restores Go's default. It does nothing if the variable GOGC is set: an operator has chosen the percentage.
func Run(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(minPercent)
	t := time.NewTicker(interval)
	defer t.Stop()
	for now := minPercent; ; {
		// Each change stops all goroutines for a moment, so small ones are not worth it.
		if want := percent(liveBytes()); want < now*9/10 || want > now*11/10 {
			now = want
			debug.SetGCPercent(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// liveBytes returns how much memory the last collection found in use.
func liveBytes() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}

// percent returns the percentage at which a heap with that much live memory has its headroom.
func percent(live uint64) int {
	live = max(live, 1)
	wide := min(2*minPercent, wideHeadroom*100/live)
	return int(min(maxPercent, max(minPercent, wide, Headroom*100/live)))
}
