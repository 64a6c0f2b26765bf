package main

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// span is the time for which something is measured, after a warm-up.
type span struct{ warmUp, measured time.Duration }

// measurement is the result of a drive.
type measurement struct {
	calls   int // that succeeded
	took    time.Duration
	latency histogram

	denied int    // during the warm-up too
	denial denial // the first one

	// stall is the longest time for which the client, which needs little, got no processor: the machine was busy with other things.
	stall time.Duration
}

func (t *measurement) perSecond() float64 { return float64(t.calls) / t.took.Seconds() }

// patience is how long to wait for the last answers.
const patience = 10 * time.Second

// call sends one request and returns when it is answered. A denial is an error of type denial. now is the current time.
type call func(ctx context.Context, now time.Time) error

// denial is an answer other than the expected one. It is a fault, but a few do not end the run.
type denial string

func (d denial) Error() string { return string(d) }

// tooMany is the share of denials above which a measurement fails: the data are wrong then, or the machine is too busy.
const tooMany = .1

// phase is the progress of a drive.
type phase struct{ atomic.Int32 }

const (
	warming int32 = iota
	measuring
	over
)

// drive makes every call again and again, each in a loop of its own, which makes its next call when the last one is
// answered. Calls during the warm-up do not count. drive runs at when it begins and ends to measure. It counts denials; any
// other error ends it.
func drive(ctx context.Context, s span, calls []call, at func() error) (*measurement, error) {
	var p phase
	var took time.Duration
	parts := make([]measurement, len(calls))
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range calls {
		g.Go(func() error {
			// A context for each loop, so that they do not share its lock, and with a deadline, as Envoy's checks have.
			ctx, cancel := context.WithTimeout(ctx, s.warmUp+s.measured+patience)
			defer cancel()
			return p.loop(ctx, c, &parts[i])
		})
	}
	var stall time.Duration
	g.Go(func() error {
		stall = p.watch()
		return nil
	})
	g.Go(func() (err error) {
		took, err = p.pass(ctx, s, at)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	m, err := sum(parts, took)
	if err != nil {
		return nil, fmt.Errorf("%w; the machine stood still for up to %v", err, stall.Round(time.Millisecond))
	}
	m.stall = stall
	return m, nil
}

// sum is the measurement of all loops over the same time. It fails if too many answers were denials.
func sum(parts []measurement, took time.Duration) (*measurement, error) {
	t := &measurement{took: took}
	for i := range parts {
		t.add(&parts[i])
	}
	if float64(t.denied) > tooMany*float64(t.calls) {
		return nil, fmt.Errorf("%d denials, %d allowed: %w", t.denied, t.calls, t.denial)
	}
	return t, nil
}

// add adds the measurement of another loop over the same time.
func (t *measurement) add(o *measurement) {
	t.latency.merge(&o.latency)
	t.calls = t.latency.total
	t.denied += o.denied
	t.denial = cmp.Or(t.denial, o.denial)
}

// loop makes calls until the phase is over, and records the latency of those that count.
func (p *phase) loop(ctx context.Context, c call, t *measurement) error {
	now := time.Now()
	for p.Load() != over {
		err := c(ctx, now)
		end := time.Now()
		if err := t.count(err, end.Sub(now), p.Load() == measuring); err != nil {
			return err
		}
		now = end
	}
	return nil
}

// count counts an answer: its latency if it matters, a denial, or any other error, which it returns.
func (t *measurement) count(err error, took time.Duration, matters bool) error {
	d, ok := err.(denial)
	switch {
	case ok:
		t.denied++
		t.denial = cmp.Or(t.denial, d)
	case err != nil:
		return err
	case matters:
		t.latency.add(took)
	}
	return nil
}

// watch returns by how much a timer was late at most until the phase is over.
func (p *phase) watch() (latest time.Duration) {
	const tick = 10 * time.Millisecond
	for p.Load() != over {
		began := time.Now()
		time.Sleep(tick)
		latest = max(latest, time.Since(began)-tick)
	}
	return latest
}

// pass goes through the phases, and returns the measured time.
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
