package check

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLazyDeadline_EndsAsAContextDoes: it ends at its deadline and with its parent, whether or not a caller waits for its end.
func TestLazyDeadline_EndsAsAContextDoes(t *testing.T) {
	for _, waits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithCancel(t.Context())
			defer cancel()
			var d lazyDeadline
			d.until(parent, time.Now().Add(time.Second))
			defer d.stop()
			if waits {
				ran := false
				context.AfterFunc(&d, func() { ran = true })
				defer func() {
					if synctest.Wait(); !ran {
						t.Error("AfterFunc did not run at the end")
					}
				}()
			}
			if at, ok := d.Deadline(); !ok || time.Until(at) != time.Second || d.Err() != nil {
				t.Errorf("%v %v", at, d.Err())
			}
			time.Sleep(time.Second)
			if waits {
				<-d.Done()
			}
			if !errors.Is(d.Err(), context.DeadlineExceeded) {
				t.Errorf("at the end: %v", d.Err())
			}
		})
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			var d lazyDeadline
			d.until(parent, time.Now().Add(time.Second))
			defer d.stop()
			if waits {
				d.Done()
			}
			if at, _ := d.Deadline(); time.Until(at) != time.Millisecond {
				t.Errorf("the parent's deadline is earlier, but this one ends in %v", time.Until(at))
			}
			cancel()
			if !errors.Is(d.Err(), context.Canceled) {
				t.Errorf("the parent was cancelled: %v", d.Err())
			}
			if waits {
				<-d.Done()
			}
		})
	}
}

// TestLazyDeadline_ChildrenEndWithTheCheck: the contexts of the steps take a part of the time that is left, and end when the
// check does.
func TestLazyDeadline_ChildrenEndWithTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &evaluation{Checker: &Checker{opt: Options{Timeout: 10 * time.Second}}}
		ctx, waits := e.bound(t.Context())
		first, second := waits.keys.waitContext(ctx), waits.reserve[1].waitContext(ctx)
		if at, _ := first.Deadline(); time.Until(at) != 8*time.Second {
			t.Errorf("a wait at the beginning may take %v", time.Until(at))
		}
		time.Sleep(5 * time.Second)
		if at, _ := second.Deadline(); time.Until(at) != 4*time.Second {
			t.Errorf("a wait in the middle may take %v", time.Until(at))
		}
		first.Done()
		waits.whole.stop()
		if synctest.Wait(); first.Err() == nil || second.Err() == nil {
			t.Error("a wait goes on after the check")
		}
		<-second.Done()
	})
}

// BenchmarkDeadlines makes the contexts of one check that finds everything in memory: as lazyDeadlines (on), and with
// context.WithDeadline (off). "waits" is a check that waits once, as for a caller who comes for the first time.
func BenchmarkDeadlines(b *testing.B) {
	const waits = 4 // key, token, peek, reserve
	b.Run("lazy=on", func(b *testing.B) {
		b.ReportAllocs()
		e := &evaluation{Checker: &Checker{opt: Options{Timeout: time.Second}}}
		for b.Loop() {
			ctx, d := e.bound(b.Context())
			for _, wait := range [waits]*lazyDeadline{&d.keys, &d.token, &d.peek, &d.reserve[0]} {
				wait.waitContext(ctx)
			}
			d.whole.stop()
		}
	})
	b.Run("waits", func(b *testing.B) {
		b.ReportAllocs()
		parent, cancel := context.WithCancel(b.Context()) // as the context of a call
		defer cancel()
		e := &evaluation{Checker: &Checker{opt: Options{Timeout: time.Second}}}
		for b.Loop() {
			ctx, d := e.bound(parent)
			d.peek.waitContext(ctx).Done()
			d.whole.stop()
		}
	})
	b.Run("lazy=off", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, stop := context.WithDeadline(b.Context(), time.Now().Add(time.Second))
			for range waits {
				_, stop := context.WithDeadline(ctx, time.Now().Add(800*time.Millisecond))
				stop()
			}
			stop()
		}
	})
}
