package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Mark is what a store remembers of the clock for a Pruner, so that a process that starts can tell whether the clock is where
// the last one left it. Its zero value says that nothing is known.
type Mark struct {
	// Good is the last instant that the clock was believed about.
	Good time.Time `json:"good"`
	// Seen is where a clock stood that was not believed, and Held for how long it had gone on without a jump. Both are zero
	// while the clock is believed.
	Seen time.Time     `json:"seen,omitzero"`
	Held time.Duration `json:"held,omitempty"`
}

// Marks keeps a Mark, as durably as the records.
type Marks interface {
	Mark(ctx context.Context) (Mark, error)
	SetMark(ctx context.Context, m Mark) error
}

const (
	// MaxJump is by how much the clock may part from the time that really went by. A record is forgotten that much too early
	// at the most, and is kept as long beyond its end.
	MaxJump = ClockMargin
	// maxAway is for how long a process may have been away before the clock has to prove itself anew. A clock that is wrong
	// by less at the very start is not noticed.
	maxAway = 15 * time.Minute
	// maxStop is for how long a server is ordinarily stopped: after more, the operator is told that its clock is not believed.
	maxStop = 30 * 24 * time.Hour
	// markEvery is how often a clock that is believed is written down.
	markEvery = 5 * time.Minute
)

// Pruner forgets expired records, unless the clock may be wrong: what is forgotten because the clock says 2036 is good again
// once the clock is set right, and cannot be brought back.
//
// It compares the clock with the time that went by, which does not jump. When the two part by more than MaxJump, nothing is
// forgotten until the clock has come back, or has gone on without a jump for as long as a record lives: what was there
// before has expired then, whichever of the two clocks was right. Over a restart it is not known how much time went by, so
// the clock has to stand within maxAway of where the store says that it stood. To forget late costs memory and no more.
type Pruner struct {
	set   *Set
	marks Marks
	life  time.Duration // of a record
	now   func() time.Time
	ran   func() time.Duration // since some instant, by a clock that does not jump
	log   *slog.Logger

	mu      sync.Mutex
	begun   bool
	good    timeline // what the time is by the clock that was believed
	doubted timeline // what it is by the one that is not
	held    time.Duration
	paused  bool
	doubt   string // why it is paused, where the operator should know
	written Mark
}

// timeline is a clock that goes on from a time without jumps.
type timeline struct {
	at  time.Time
	ran time.Duration
}

func (t timeline) now(ran time.Duration) time.Time { return t.at.Add(ran - t.ran) }

// NewPruner makes a pruner of records that live for that long at most.
func NewPruner(set *Set, marks Marks, life time.Duration, now func() time.Time, ran func() time.Duration, log *slog.Logger) *Pruner {
	return &Pruner{set: set, marks: marks, life: life, now: now, ran: ran, log: log}
}

// Doubt says why the clock is likely to be wrong, so that nothing is forgotten; "" while there is no reason to think so.
func (p *Pruner) Doubt() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doubt
}

// Prune forgets what has expired if the clock is believed. The server calls it from time to time.
func (p *Pruner) Prune(ctx context.Context) error {
	now, believed, err := p.look(ctx)
	if err != nil || !believed {
		return err
	}
	return p.set.PruneBefore(ctx, now)
}

// look reads the clock, once, and reports whether it is believed.
func (p *Pruner) look(ctx context.Context) (time.Time, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, ran := p.now().Round(0), p.ran() // of the wall clock alone
	if !p.begun {
		if err := p.beginLocked(ctx, now, ran); err != nil {
			return now, false, err
		}
	}
	switch {
	case near(now, p.good.now(ran), MaxJump):
		p.believeLocked()
	case !p.paused || !near(now, p.doubted.now(ran), MaxJump):
		p.pauseLocked(now, ran)
		p.doubtLocked(fmt.Sprintf("the clock went to %s at %s", stamp(now), stamp(p.good.now(ran))))
	case p.held+ran-p.doubted.ran >= p.life:
		p.good = timeline{now, ran}
		p.believeLocked()
	}
	return now, !p.paused, p.writeLocked(ctx, ran)
}

// beginLocked takes over where the process before left off.
func (p *Pruner) beginLocked(ctx context.Context, now time.Time, ran time.Duration) error {
	m, err := p.marks.Mark(ctx)
	if err != nil {
		return err
	}
	p.begun, p.written = true, m
	if m.Good.IsZero() && p.set.Len() == 0 || near(now, m.Good, maxAway) {
		p.good = timeline{now, ran} // there is nothing to lose, or no time in which the clock could have gone wrong
		return nil
	}
	p.good = timeline{m.Good, ran}
	p.pauseLocked(now, ran)
	if near(now, m.Seen, maxAway) {
		p.held = m.Held
	}
	if stopped := now.Sub(m.Good); !m.Good.IsZero() && (stopped < 0 || stopped > maxStop) {
		p.doubtLocked(fmt.Sprintf("the clock says %s at the start, and said %s when it was last looked at", stamp(now), stamp(m.Good)))
	}
	return nil
}

func (p *Pruner) pauseLocked(now time.Time, ran time.Duration) {
	p.paused, p.doubted, p.held = true, timeline{now, ran}, 0
}

func (p *Pruner) doubtLocked(why string) {
	p.doubt = why
	p.log.Warn("expired revocations are kept: the clock may be wrong", "why", why, "until", "it is back, or has gone on for "+p.life.String())
}

func (p *Pruner) believeLocked() {
	if p.doubt != "" {
		p.log.Info("expired revocations are forgotten again: the clock is believed", "was", p.doubt)
	}
	p.paused, p.doubt, p.doubted, p.held = false, "", timeline{}, 0
}

// writeLocked has the store remember the clock.
func (p *Pruner) writeLocked(ctx context.Context, ran time.Duration) error {
	var m Mark
	if !p.good.at.IsZero() {
		m.Good = p.good.now(ran)
	}
	if p.paused {
		m.Seen, m.Held = p.doubted.now(ran), p.held+ran-p.doubted.ran
	}
	same := m.Seen.IsZero() == p.written.Seen.IsZero() && near(m.Seen, p.written.Seen, markEvery-1) && near(m.Good, p.written.Good, markEvery-1)
	if same {
		return nil
	}
	if err := p.marks.SetMark(ctx, m); err != nil {
		return err
	}
	p.written = m
	return nil
}

// near reports whether two times are at most that far from each other. Durations end at 292 years, and so does Sub.
func near(a, b time.Time, d time.Duration) bool { return a.Sub(b).Abs() <= d }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
