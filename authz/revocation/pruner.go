package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Mark is what a store remembers about the clock for a Pruner, so that a process that starts can tell whether the clock is where
// the last process left it. The zero Mark says that nothing is known.
type Mark struct {
	// Good is the last instant of the clock that was trusted.
	Good time.Time `json:"good"`
	// Seen is the last instant of a clock that was not trusted, and Held how long it had gone on without a jump. Both are zero
	// while the clock is trusted.
	Seen time.Time     `json:"seen,omitzero"`
	Held time.Duration `json:"held,omitempty"`
}

// Marks stores a Mark, as durably as the records.
type Marks interface {
	Mark(ctx context.Context) (Mark, error)
	SetMark(ctx context.Context, m Mark) error
}

// storeClock is a store that several nodes share, with a clock of its own. Records are forgotten when they have expired by both
// clocks: a node with a wrong one would have them forgotten for all.
type storeClock interface {
	Now(ctx context.Context) (time.Time, error)
}

const (
	// MaxJump is how far the clock may differ from the time that really went by. A record is forgotten that much too early at the
	// most, and records are kept that much longer to make up for it.
	MaxJump = ClockMargin
	// maxAway is how long a process may have been down before the clock has to prove itself again. At the start, an error of the
	// clock that is smaller is not noticed.
	maxAway = 15 * time.Minute
	// maxStop is how long a server is usually stopped at the most: after more, the operator is told that its clock is not trusted.
	maxStop = 30 * 24 * time.Hour
	// markEvery is how often a trusted clock is stored.
	markEvery = 5 * time.Minute
)

// Pruner forgets expired records, unless the clock may be wrong. If a record is forgotten because the clock says 2036, its
// token is good again once the clock is set right, and the record cannot be brought back.
//
// It compares the clock with the time that went by, which does not jump. When the two differ by more than MaxJump, nothing is
// forgotten until the clock comes back, or has gone on without a jump for as long as a record lives: by then every earlier record
// has expired, whichever of the two was right. How much time went by during a restart is not known, so the clock has to stand
// within maxAway of the stored Mark. Forgetting late costs only memory.
type Pruner struct {
	set   *Set
	marks Marks
	life  time.Duration // of a record, at the most
	now   func() time.Time
	ran   func() time.Duration // since some instant, by a clock that does not jump
	log   *slog.Logger

	mu      sync.Mutex
	begun   bool
	good    timeline // the time by the clock that was trusted
	doubted timeline // the time by the clock that is not
	held    time.Duration
	paused  bool
	doubt   string // why it is paused, if the operator should know
	written Mark
}

// timeline is a clock that starts at a time and does not jump.
type timeline struct {
	at  time.Time
	ran time.Duration
}

func (t timeline) now(ran time.Duration) time.Time { return t.at.Add(ran - t.ran) }

// NewPruner makes a pruner of records that live for that long at the most. ran is the time since some instant, by a clock that does
// not jump.
func NewPruner(set *Set, marks Marks, life time.Duration, now func() time.Time, ran func() time.Duration, log *slog.Logger) *Pruner {
	return &Pruner{set: set, marks: marks, life: life, now: now, ran: ran, log: log}
}

// Doubt says why the clock is likely to be wrong, so that nothing is forgotten; "" if it is trusted.
func (p *Pruner) Doubt() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doubt
}

// Prune forgets the expired records if the clock is trusted. The server calls it at intervals.
func (p *Pruner) Prune(ctx context.Context) error {
	now, trusted, err := p.look(ctx)
	if err != nil || !trusted {
		return err
	}
	if c, ok := p.marks.(storeClock); ok {
		at, err := c.Now(ctx)
		if err != nil {
			return err
		}
		if at.Before(now) {
			now = at
		}
	}
	return p.set.PruneBefore(ctx, now)
}

// look reads the clock, once, and reports whether it is trusted.
func (p *Pruner) look(ctx context.Context) (time.Time, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, ran := p.now().Round(0), p.ran() // Round removes the monotonic time
	if !p.begun {
		if err := p.beginLocked(ctx, now, ran); err != nil {
			return now, false, err
		}
	}
	switch {
	case near(now, p.good.now(ran), MaxJump):
		p.trustLocked()
	case !p.paused || !near(now, p.doubted.now(ran), MaxJump):
		p.pauseLocked(now, ran)
		p.doubtLocked(fmt.Sprintf("the clock went to %s at %s", stamp(now), stamp(p.good.now(ran))))
	case p.held+ran-p.doubted.ran >= p.life:
		p.good = timeline{now, ran}
		p.trustLocked()
	}
	return now, !p.paused, p.writeLocked(ctx, ran)
}

// beginLocked reads the Mark that the last process left.
func (p *Pruner) beginLocked(ctx context.Context, now time.Time, ran time.Duration) error {
	m, err := p.marks.Mark(ctx)
	if err != nil {
		return err
	}
	p.begun, p.written = true, m
	if m.Good.IsZero() && p.set.Len() == 0 || near(now, m.Good, maxAway) {
		p.good = timeline{now, ran} // no record can be lost, or the clock had no time to go wrong
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

func (p *Pruner) trustLocked() {
	if p.doubt != "" {
		p.log.Info("expired revocations are forgotten again: the clock is trusted", "was", p.doubt)
	}
	p.paused, p.doubt, p.doubted, p.held = false, "", timeline{}, 0
}

// writeLocked stores the Mark.
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

// near reports whether two times are at most that far apart. Sub ends at 292 years, as durations do.
func near(a, b time.Time, d time.Duration) bool { return a.Sub(b).Abs() <= d }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
