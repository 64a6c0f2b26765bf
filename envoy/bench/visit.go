package main

import (
	"context"
	"errors"
	"time"
)

// visit is what it costs a server that each of many callers comes once and stays away: their first checks, and what the server does
// later, such as putting away what it holds for them. What it holds goes back to the ledger minutes after that, and is not measured.
type visit struct {
	callers      int   // who came
	*measurement       // of the first checks
	first        usage // from the first to the last of them
	later        usage // after that, and until the server has come to rest

	// Before the visit: the disk of the server, and first checks of a few other callers, one at a time.
	sync       histogram
	alone      *measurement
	aloneUsage usage
	// Bytes of live memory: before the visit, just after it, and at rest.
	before, during, after int64
}

const (
	// sweep is three of Tollkeeper's sweeps: enough for each lease that is idle to be put away.
	sweep = 15 * time.Second
	// idle is the share of a processor that a server at rest uses at most.
	idle = .05
	// longestVisit is the time after which no more visitors come.
	longestVisit = 40 * time.Second
)

// sweeping is the span in which a server that all callers have visited gets the checks of a load. With cold callers it
// is as long as sweep, because what they leave behind costs as well, and must be theirs: so the warm-up is as long, unless the same
// callers came before.
func (s span) sweeping(l, before *load) span {
	if !l.cold || s.measured < time.Second { // under a second, it is only tried whether it works
		return s
	}
	if before == nil || !before.cold || before.skew != l.skew {
		s.warmUp = sweep
	}
	s.measured = sweep
	return s
}

// receive sends one check for each caller, and measures what it costs.
func (t *turn) receive(ctx context.Context) error {
	ours, ok := t.authorizer.(*tollkeeper)
	if !ok {
		return errors.New("only Tollkeeper has visitors")
	}
	l := loadOf(t.rivals[0].load.people, t.rivals[0].load.people.callers()).to(onePath)
	v := new(visit)
	conns, err := dial(t.port)
	if err != nil {
		return err
	}
	defer conns.close()
	if v.before, err = live(ctx, conns, &l, ours); err != nil {
		return err
	}
	if err := t.receiveAlone(ctx, conns, &l, ours, v); err != nil {
		return err
	}
	begin, err := t.usage()
	if err != nil {
		return err
	}
	if v.measurement, err = conns.each(ctx, &l, uint64(t.round), longestVisit); err != nil {
		return err
	}
	v.callers = max(1, v.calls+v.denied)
	t.visit = v
	end, err := t.usage()
	if err != nil {
		return err
	}
	v.first = end.since(begin)
	progress("round %d of %d: a visit of %s callers, %s a second, %s each",
		t.round+1, t.rounds, grouped(int64(v.callers)), count(v.perSecond()), micros(float64(v.first.cpu)/float64(v.callers)))
	if v.during, err = live(ctx, conns, &l, ours); err != nil || t.rest == 0 {
		return err
	}
	if begin, err = t.usage(); err != nil {
		return err
	}
	rested, err := t.settle(ctx, 2*sweep, t.rest, time.Second)
	if err != nil {
		return err
	}
	if !rested {
		progress("%s is still busy %v after the visit", t.rivals[0].name, t.rest)
	}
	if end, err = t.usage(); err != nil {
		return err
	}
	v.later = end.since(begin)
	v.after, err = live(ctx, conns, &l, ours)
	return err
}

// loners is how many callers come one at a time.
const loners = 1000

// receiveAlone measures how long a caller waits who comes while nobody else does, and how long the disk needs. With many at a time,
// callers also wait for each other.
func (t *turn) receiveAlone(ctx context.Context, conns connections, l *load, ours *tollkeeper, v *visit) (err error) {
	if v.sync, err = syncTimes(ours.DataDir()); err != nil {
		return err
	}
	begin, err := t.usage()
	if err != nil {
		return err
	}
	if v.alone, err = conns.alone(ctx, l, uint64(t.round), loners); err != nil {
		return err
	}
	end, err := t.usage()
	v.aloneUsage = end.since(begin)
	return err
}

// settle waits until the server has come to rest, at least and at most for some time, and reports whether it has.
func (t *turn) settle(ctx context.Context, least, most, look time.Duration) (rested bool, err error) {
	for began := time.Now(); ; {
		before, err := cpuTime(t.pid)
		if err != nil {
			return false, err
		}
		if err := sleep(ctx, look); err != nil {
			return false, err
		}
		after, err := cpuTime(t.pid)
		if err != nil {
			return false, err
		}
		waited := time.Since(began)
		if waited > least && (after-before).Seconds() < idle*look.Seconds() {
			return true, nil
		}
		if waited > most {
			return false, nil
		}
	}
}

// live is the live memory of a server, as its next collection of garbage finds it. A few busy callers make the garbage.
func live(ctx context.Context, conns connections, l *load, ours *tollkeeper) (int64, error) {
	few := *l
	few.callers = min(l.callers, smallSet)
	first, err := ours.heap(ctx)
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(patience); ; {
		if _, err := conns.each(ctx, &few, 0, patience); err != nil {
			return 0, err
		}
		h, err := ours.heap(ctx)
		if err != nil {
			return 0, err
		}
		if h.collections > first.collections || time.Now().After(end) {
			return h.live(), nil
		}
	}
}
