package check

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudgetIsAContext holds that a budget ends as a context with that deadline does, whether or not anybody waits.
func TestBudgetIsAContext(t *testing.T) {
	for _, waits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithCancel(t.Context())
			defer cancel()
			var b budget
			b.start(parent, time.Now().Add(time.Second))
			defer b.stop()
			if waits {
				ran := false
				context.AfterFunc(&b, func() { ran = true })
				defer func() {
					if synctest.Wait(); !ran {
						t.Error("what was to run at the end did not")
					}
				}()
			}
			if at, ok := b.Deadline(); !ok || time.Until(at) != time.Second || b.Err() != nil {
				t.Errorf("%v %v", at, b.Err())
			}
			time.Sleep(time.Second)
			if waits {
				<-b.Done()
			}
			if !errors.Is(b.Err(), context.DeadlineExceeded) {
				t.Errorf("at the end: %v", b.Err())
			}
		})
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			var b budget
			b.start(parent, time.Now().Add(time.Second))
			defer b.stop()
			if waits {
				b.Done()
			}
			if at, _ := b.Deadline(); time.Until(at) != time.Millisecond {
				t.Errorf("the parent's deadline is earlier, and the budget ends in %v", time.Until(at))
			}
			cancel()
			if !errors.Is(b.Err(), context.Canceled) {
				t.Errorf("the parent was cancelled: %v", b.Err())
			}
			if waits {
				<-b.Done()
			}
		})
	}
}

// TestPatience_LastsForAnyNumberOfWaits waits more often than there is memory for.
func TestPatience_LastsForAnyNumberOfWaits(t *testing.T) {
	a := &attempt{Checker: &Checker{opt: Options{Timeout: time.Minute}}}
	ctx := a.bound(t.Context())
	seen := make(map[context.Context]bool)
	for range 4 * len(a.waits) {
		wait := a.patient(ctx)
		if seen[wait] || wait.Err() != nil {
			t.Fatal("a wait is another one's, or over")
		}
		seen[wait] = true
		wait.Done()
	}
	a.stop()
	for wait := range seen {
		if <-wait.Done(); wait.Err() == nil {
			t.Error("a wait goes on after the check")
		}
	}
}
