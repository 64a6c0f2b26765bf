package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcHeadroom is how much garbage, in bytes, may gather before it is collected. A server whose data is small would
	// collect ten times a second under load, and spend a quarter of its time on that: Go's default is to let garbage grow
	// to the size of what is in use.
	gcHeadroom = 128 << 20
	// The settings of the collector are kept between these. At the lower one, Go's default, a server with much data has
	// more headroom than that already.
	leastPercent, mostPercent = 100, 1000
	tuneEvery                 = time.Second
)

// tuneGC fits the garbage collector's pace to how much memory is in use, until the context ends. It leaves it to whoever
// has set GOGC.
func tuneGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	now := leastPercent
	defer func() { debug.SetGCPercent(leastPercent) }()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tune := func() {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64()); want < now*9/10 || want > now*11/10 {
			now = want
			debug.SetGCPercent(now)
		}
	}
	tune()
	every(ctx, tuneEvery, tune)
}

// gcPercent is the setting at which that much live memory has gcHeadroom.
func gcPercent(live uint64) int {
	return int(min(mostPercent, max(leastPercent, gcHeadroom*100/max(live, 1))))
}
