package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// fakeRuns notes what each transaction was about, and lets none end before it is told.
type fakeRuns struct {
	l    *lanes
	gate chan error // ends one transaction
	busy string     // a holder whose record is locked elsewhere

	mu   sync.Mutex
	runs []string
}

func newFakeRuns(t *testing.T) *fakeRuns {
	f := &fakeRuns{gate: make(chan error)}
	f.l = newLanes(5, func(ctx context.Context, asks []*ask, wait bool) error { // two batches, and two holders with transactions of their own
		kind, names := "batch", []string{}
		if wait {
			kind = "alone"
		}
		for _, a := range asks {
			names = append(names, a.holder.Holder)
			a.again = !wait && a.holder.Holder == f.busy
		}
		f.mu.Lock()
		f.runs = append(f.runs, fmt.Sprint(kind, names))
		f.mu.Unlock()
		select {
		case err := <-f.gate:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	t.Cleanup(f.l.close)
	return f
}

// begin starts a call about those holders.
func (f *fakeRuns) begin(ctx context.Context, holders ...string) <-chan error {
	done := make(chan error, 1)
	var asks []*ask
	for _, h := range holders {
		asks = append(asks, &ask{holder: quota.HolderID{Holder: h}})
	}
	go func() { done <- f.l.do(ctx, asks) }()
	synctest.Wait()
	return done
}

// end ends a transaction, and returns all that were begun so far.
func (f *fakeRuns) end(err error) []string {
	f.gate <- err
	synctest.Wait()
	return f.begun()
}

func (f *fakeRuns) begun() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.runs)
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("transactions\n%q, want\n%q", got, want)
	}
}

func TestLanes_WhatWaitsSharesATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuns(t)
		first, second := f.begin(t.Context(), "a"), f.begin(t.Context(), "b", "c")
		rest := []<-chan error{f.begin(t.Context(), "d"), f.begin(t.Context(), "e", "d")}
		same(t, f.begun(), "batch[a]", "batch[b c]")
		same(t, f.end(nil), "batch[a]", "batch[b c]", "batch[d e d]")
		f.end(nil)
		f.end(nil)
		for i, done := range append(rest, first, second) {
			if err := <-done; err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
}

func TestLanes_BatchesHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuns(t)
		done := f.begin(t.Context(), slices.Repeat([]string{"a"}, maxBatch+1)...)
		f.end(nil)
		if got := f.begun(); len(got) != 2 || got[1] != "batch[a]" {
			t.Errorf("%d transactions, the last %s", len(got), got[len(got)-1])
		}
		f.end(errors.New("broken"))
		if err := <-done; err == nil { // of one batch, but it is the call's
			t.Error("no error")
		}
	})
}

// A holder whose record is locked elsewhere has one transaction at a time that waits, and batches go on without it.
func TestLanes_HotHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuns(t)
		f.busy = "hot"
		done := []<-chan error{f.begin(t.Context(), "hot")}
		same(t, f.end(nil), "batch[hot]", "alone[hot]")
		done = append(done, f.begin(t.Context(), "hot"), f.begin(t.Context(), "hot", "cold"))
		same(t, f.begun(), "batch[hot]", "alone[hot]", "batch[cold]")
		f.end(nil)
		f.end(nil)
		same(t, f.begun(), "batch[hot]", "alone[hot]", "batch[cold]", "alone[hot hot]")
		f.end(nil)
		for i, done := range done {
			if err := <-done; err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if len(f.l.hot) != 0 {
			t.Error("the holder has a lane for good")
		}
	})
}

// Nobody waits for a call that was given up, so it is not carried out if it was not begun.
func TestLanes_CallsThatWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuns(t)
		f.busy = "hot"
		hot := f.begin(t.Context(), "hot")
		f.end(nil)
		last := []<-chan error{f.begin(t.Context(), "a"), f.begin(t.Context(), "b"), hot}
		same(t, f.begun(), "batch[hot]", "alone[hot]", "batch[a]", "batch[b]")
		ctx, giveUp := context.WithCancel(t.Context())
		calls := []<-chan error{f.begin(ctx, "c"), f.begin(ctx, "hot", "d")}
		giveUp()
		for _, done := range calls {
			if err := <-done; err == nil || authz.KindOf(err) != authz.KindUnavailable {
				t.Errorf("given up: %v", err)
			}
		}
		for range 3 {
			f.end(nil)
		}
		for _, done := range last {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		same(t, f.begun(), "batch[hot]", "alone[hot]", "batch[a]", "batch[b]")
	})
}

func TestLanes_Closed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeRuns(t)
		under, waiting := f.begin(t.Context(), "a"), f.begin(t.Context(), "b")
		f.l.close()
		for _, done := range []<-chan error{under, waiting, f.begin(t.Context(), "c")} {
			if err := <-done; err == nil {
				t.Error("no error after the close")
			}
		}
	})
}
