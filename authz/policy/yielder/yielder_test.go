package yielder

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestYielder_LongEvaluationsSleep counts sleep by the clock, which in a bubble stands still while a goroutine works.
func TestYielder_LongEvaluationsSleep(t *testing.T) {
	for name, c := range map[string]struct {
		steps int
		naps  time.Duration
	}{"short": {freeSteps, 0}, "long": {freeSteps + 10*stepsPerLook, 10}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				y := New(t.Context())
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
	y := New(ctx)
	cancel()
	for range stepsPerLook {
		if y.Cancelled() {
			return
		}
	}
	t.Error("it goes on")
}
