package check

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Rules can be replaced while requests are served. One check uses the same rules from beginning to end.
type Rules struct {
	Policy  Policy
	Routes  Routes // nil: no route is known, so the shipped policies deny
	Plans   map[string][]authz.Limit
	Reasons map[authz.Reason]authz.ReasonInfo
}

// Options are the settings of a Checker.
type Options struct {
	// Timeout limits the duration of a check. If the caller's deadline is earlier, it applies. 0 is DefaultTimeout.
	Timeout     time.Duration
	Credentials Sources
	// Tokens verifies bearer tokens. If it is nil, they are left to the upstream.
	Tokens  Tokens
	Answers Answers
	// DryRun allows what the policy denies. Requests that are malformed or cannot be decided stay denied, even if it is the
	// policy that denies them.
	DryRun bool
	// HintKey is the secret under which unknown keys are hashed for the log. If it is empty, each process has its own.
	HintKey []byte
	// Now is the clock, nil for time.Now.
	Now func() time.Time
}

// DefaultTimeout is Envoy's default timeout for ext_authz (200 ms), rounded up.
const DefaultTimeout = 250 * time.Millisecond

// Checker decides requests. Its methods may be called concurrently.
type Checker struct {
	keys        Keys
	revocations Revocations
	meter       Meter
	recorder    Recorder
	dedup       *chargeDedup
	opt         Options
	rules       atomic.Pointer[Rules]
}

// New makes a checker. It denies every request until Use gives it rules.
func New(k Keys, r Revocations, m Meter, rec Recorder, opt Options) *Checker {
	if opt.Timeout <= 0 {
		opt.Timeout = DefaultTimeout
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if len(opt.HintKey) == 0 {
		opt.HintKey = []byte(rand.Text())
	}
	return &Checker{keys: k, revocations: r, meter: m, recorder: rec, dedup: newChargeDedup(), opt: opt}
}

// Use makes later checks follow these rules. They must not be changed afterwards.
func (c *Checker) Use(r *Rules) { c.rules.Store(r) }

// Rules returns the current rules, nil before the first Use.
func (c *Checker) Rules() *Rules { return c.rules.Load() }

// Check decides one request. It returns no error: every failure is a denial with a reason.
func (c *Checker) Check(ctx context.Context, r *authz.Request) authz.Decision {
	e := newEvaluation()
	d := c.evaluate(ctx, e, r)
	e.release()
	return d
}

// evaluate decides a request and records the decision.
func (c *Checker) evaluate(ctx context.Context, e *evaluation, r *authz.Request) authz.Decision {
	e.Checker, e.request, e.began, e.id, e.rules = c, r, c.opt.Now(), newID(), c.rules.Load()
	e.decision = e.run(ctx)
	e.record()
	return e.decision
}
