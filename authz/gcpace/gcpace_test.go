package gcpace

import (
	"context"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercent_KeepsTheHeadroom(t *testing.T) {
	for live, want := range map[uint64]int{0: 1000, 4 << 20: 1000, 32 << 20: 400, 64 << 20: 200, 128 << 20: 200, 192 << 20: 200, 256 << 20: 150, 384 << 20: 100, 4 << 30: 100} {
		if got := percent(live); got != want {
			t.Errorf("with %d MB in use: %d %%, want %d %%", live>>20, got, want)
		}
	}
}

// current reads the percentage of the collector.
func current() int {
	now := debug.SetGCPercent(minPercent)
	debug.SetGCPercent(now)
	return now
}

func TestRun_SetsAndRestoresThePercentage(t *testing.T) {
	t.Setenv("GOGC", "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); current() == minPercent; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the percentage stays Go's default")
		}
	}
	cancel()
	<-done
	if now := current(); now != minPercent {
		t.Errorf("afterwards the percentage is %d", now)
	}
}

func TestRun_LeavesGOGCAlone(t *testing.T) {
	t.Setenv("GOGC", "70")
	Run(t.Context()) // returns at once
	if now := current(); now != minPercent {
		t.Errorf("the percentage is %d", now)
	}
}
