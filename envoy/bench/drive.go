package main

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// span is how long something is measured, after how long a warm-up.
type span struct{ warmUp, measured time.Duration }

// taking is what came out of driving something for a while.
type taking struct {
	calls   int // that were allowed
	took    time.Duration
	latency histogram

	denied int    // also while it warmed up
	denial denial // the first one
}

func (t *taking) perSecond() float64 { return float64(t.calls) / t.took.Seconds() }

// patience is how long the last answers may take.
const patience = 10 * time.Second

// call asks for one thing and returns when it is answered: with a denial if it is denied. now is the time at which it
// begins.
type call func(ctx context.Context, now time.Time) error

// denial is an answer other than yes. It is a fault, as there is nothing to deny, but no reason to throw away the rest.
type denial string

func (d denial) Error() string { return string(d) }

// tooMany is the share of denials at which there is nothing left to compare.
const tooMany = .01

// phase is how far a drive has come.
type phase struct{ atomic.Int32 }

const (
	warming int32 = iota
	measuring
	over
)

// drive calls every function again and again, each in a loop of its own: a loop makes its next call when the last one has
// been answered. What is called while it warms up does not count. at is called at the beginning and at the end of what
// counts. Denials are counted, a few of them; any other error ends everything.
func drive(ctx context.Context, s span, calls []call, at func() error) (*taking, error) {
	var p phase
	t := &taking{}
	parts := make([]taking, len(calls))
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range calls {
		g.Go(func() error {
			// A context of its own, so that the loops do not meet at a lock, and with a deadline, as Envoy's calls have one.
			ctx, cancel := context.WithTimeout(ctx, s.warmUp+s.measured+patience)
			defer cancel()
			return p.loop(ctx, c, &parts[i])
		})
	}
	g.Go(func() (err error) {
		t.took, err = p.pass(ctx, s, at)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range parts {
		t.add(&parts[i])
	}
	if float64(t.denied) > tooMany*float64(t.calls) {
		return nil, fmt.Errorf("%d denials, %d allowed: %w", t.denied, t.calls, t.denial)
	}
	return t, nil
}

// add adds what another loop took in the same time.
func (t *taking) add(o *taking) {
	t.latency.merge(&o.latency)
	t.calls = t.latency.total
	t.denied += o.denied
	t.denial = cmp.Or(t.denial, o.denial)
}

// loop makes calls until it is over, and notes how long those took that count.
func (p *phase) loop(ctx context.Context, c call, t *taking) error {
	now := time.Now()
	for p.Load() != over {
		err := c(ctx, now)
		end := time.Now()
		if d, ok := err.(denial); ok {
			t.denied++
			t.denial = cmp.Or(t.denial, d)
		} else if err != nil {
			return err
		} else if p.Load() == measuring {
			t.latency.add(end.Sub(now))
		}
		now = end
	}
	return nil
}

// pass goes through the phases, and returns how long was measured.
func (p *phase) pass(ctx context.Context, s span, at func() error) (time.Duration, error) {
	defer p.Store(over)
	if err := sleep(ctx, s.warmUp); err != nil {
		return 0, err
	}
	if err := at(); err != nil {
		return 0, err
	}
	began := time.Now()
	p.Store(measuring)
	if err := sleep(ctx, s.measured); err != nil {
		return 0, err
	}
	p.Store(over)
	took := time.Since(began)
	return took, at()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
