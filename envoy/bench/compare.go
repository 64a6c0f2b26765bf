package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"syscall"
	"time"
)

// session is rivals that are measured in one process of an authorizer, one after the other.
type session struct {
	authorizer
	name    string
	visited bool          // by all callers, before anything is measured
	rest    time.Duration // how long a visited server may take to come to rest
	rivals  []*rival
}

// sample is the result of one measurement of a rival.
type sample struct {
	*measurement
	start   time.Duration // until the server was ready
	cpu     time.Duration // of the server while it was measured
	written int64         // bytes that the server wrote to disk meanwhile, without those of its decision log
	logged  int64         // bytes that its decision log grew by
	memory  int64         // resident bytes of the server at the end
	memo    memo          // zero for other servers than Tollkeeper
}

func (s *sample) cpuPerCheck() float64       { return s.perCheck(float64(s.cpu)) }
func (s *sample) writtenPerCheck() float64   { return s.perCheck(float64(max(0, s.written))) } // the log counts by bytes, the disk by pages
func (s *sample) perCheck(f float64) float64 { return f / float64(max(1, s.calls)) }

// results are the samples of one rival, by round.
type results struct {
	rival  *rival
	rounds []*sample
}

// comparison is all measurements: of the rivals, in the order of the list, and of the visits.
type comparison struct {
	rivals []results
	visits []*visit
}

// compare gives every session a turn in every round.
func compare(ctx context.Context, sessions []*session, rounds int, s span) (*comparison, error) {
	c := &comparison{}
	first := make([]int, len(sessions)) // the place of a session's first rival
	for i, one := range sessions {
		first[i] = len(c.rivals)
		for _, rv := range one.rivals {
			c.rivals = append(c.rivals, results{rival: rv})
		}
	}
	for round := range rounds {
		for i := range sessions {
			at := (round + i) % len(sessions)
			t := &turn{session: sessions[at], round: round, rounds: rounds, span: s}
			if err := t.run(ctx); err != nil {
				return nil, err
			}
			for n, one := range t.samples {
				r := &c.rivals[first[at]+n]
				r.rounds = append(r.rounds, one)
			}
			if t.visit != nil {
				c.visits = append(c.visits, t.visit)
			}
		}
	}
	return c, nil
}

// turn is one run of a session.
type turn struct {
	*session
	round, rounds int
	span          span

	port, pid int
	started   time.Duration
	samples   []*sample // by rival
	visit     *visit    // nil: there was none
}

// run starts the server, loads and measures it, and stops it.
func (t *turn) run(ctx context.Context) (err error) {
	syscall.Sync() // the writes of the last server must not delay this one
	began := time.Now()
	if t.port, t.pid, err = t.start(ctx); err != nil {
		return fmt.Errorf("%s: %w", t.rivals[0].name, err)
	}
	t.started = time.Since(began)
	defer func() { err = errors.Join(err, t.stop()) }()
	// What a server does once after its start, such as looking through a million keys, is no part of the cost of a check.
	if _, err := t.settle(ctx, 0, patience, 200*time.Millisecond); err != nil {
		return err
	}
	if t.visited {
		if err := t.receive(ctx); err != nil {
			return fmt.Errorf("the visit of %s: %w", t.rivals[0].name, err)
		}
	}
	for i, rv := range t.rivals {
		s := t.span
		if t.visited && i > 0 {
			s = s.sweeping(&rv.load, &t.rivals[i-1].load)
		} else if t.visited {
			s = s.sweeping(&rv.load, nil)
		}
		one, err := t.measure(ctx, rv, s)
		if err != nil {
			return fmt.Errorf("%s: %w", rv.name, err)
		}
		progress("round %d of %d: %-22s %8s checks/s %8s", t.round+1, t.rounds, rv.name, count(one.perSecond()), micros(one.cpuPerCheck()))
		t.samples = append(t.samples, one)
	}
	return nil
}

// measure loads the server with the checks of a rival.
func (t *turn) measure(ctx context.Context, rv *rival, s span) (*sample, error) {
	before, err := t.memo(ctx)
	if err != nil {
		return nil, err
	}
	var usages []usage
	m, err := checks(ctx, t.port, &rv.load, uint64(t.round), s, func() error {
		u, err := t.usage()
		usages = append(usages, u)
		return err
	})
	if err != nil {
		return nil, err
	}
	one := &sample{measurement: m, start: t.started}
	used := usages[1].since(usages[0])
	one.cpu, one.written, one.logged = used.cpu, used.written, used.logged
	if one.memory, err = residentBytes(t.pid); err != nil {
		return nil, err
	}
	after, err := t.memo(ctx)
	one.memo = memo{after.hits - before.hits, after.others - before.others}
	return one, err
}

// memo is what the cache of verdicts has counted so far.
func (t *turn) memo(ctx context.Context) (memo, error) {
	ours, ok := t.authorizer.(*tollkeeper)
	if !ok {
		return memo{}, nil
	}
	return ours.memo(ctx)
}

// usage is what a server has used since it was started.
type usage struct {
	cpu             time.Duration
	written, logged int64 // bytes: to disk without the decision log, and to the decision log
}

func (u usage) since(o usage) usage {
	return usage{u.cpu - o.cpu, u.written - o.written, u.logged - o.logged}
}

func (t *turn) usage() (u usage, err error) {
	if u.cpu, err = cpuTime(t.pid); err != nil {
		return u, err
	}
	if u.written, err = writtenBytes(t.pid); err != nil {
		return u, err
	}
	if ours, ok := t.authorizer.(*tollkeeper); ok {
		log, err := os.Stat(ours.decisions)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return u, err
		}
		if err == nil {
			u.logged = log.Size()
		}
	}
	u.written -= u.logged
	return u, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// median is the median over the rounds of one number.
func median[T any](rounds []T, of func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	return medianOf(values)
}

// medianOf is the median of numbers, 0 if there are none. It sorts them.
func medianOf(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// standardError says how far a median may be off, if the values are distributed normally apart from a few.
func standardError(values []float64) float64 {
	m := medianOf(values)
	off := make([]float64, len(values))
	for i, v := range values {
		off[i] = math.Abs(v - m)
	}
	const deviation, ofMedian = 1.483, 1.253 // of the median deviation to the standard one, and of the mean's error to the median's
	return ofMedian * deviation * medianOf(off) / math.Sqrt(float64(max(1, len(values))))
}

// ratio is the median of ratios, 0 if there are none.
func ratio[T any](one, other []T, of func(T) float64) float64 {
	return medianOf(ratios(one, other, of))
}

// ratiosOf are one number divided by another, for each round in which the other is not 0.
func ratiosOf[T any](rounds []T, of, to func(T) float64) []float64 {
	values := make([]float64, 0, len(rounds))
	for _, r := range rounds {
		if base := to(r); base > 0 {
			values = append(values, of(r)/base)
		}
	}
	return values
}

// ratios are a number of one rival divided by that of another in the same round, for each round in which the other's is not 0.
func ratios[T any](one, other []T, of func(T) float64) []float64 {
	values := make([]float64, 0, len(one))
	for i := range min(len(one), len(other)) {
		if base := of(other[i]); base > 0 {
			values = append(values, of(one[i])/base)
		}
	}
	return values
}
