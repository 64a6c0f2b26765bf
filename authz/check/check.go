// Package check is a request's way from question to answer. Read Checker.run from top to bottom: it is the whole path,
// in production and when an operator asks for an explanation.
//
// Nothing here fails: what goes wrong on the way is a denial with a reason, built in one place (attempt.broken).
package check

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Meter counts what callers use. It fills facts that the caller provides, one for each limit and in their order.
type Meter interface {
	// Peek reports the state of the limits without taking anything.
	Peek(ctx context.Context, h authz.Holder, limits []authz.Limit, facts []authz.QuotaFact)
	// Reserve takes the charge from the limits, from all or from none, and reports whether it did. If not, one of them
	// had too little or could not say, and the facts tell which. The charge names only limits that are given.
	Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, r *authz.Reservation) bool
}

// Policy decides. An error means that there is no verdict.
type Policy interface {
	Decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (authz.Verdict, error)
	Revision() string
}

// Recorder keeps what was decided. Record is called exactly once for each check and must not block. The entry, and what it
// points to, is used for another check when it returns.
type Recorder interface {
	Record(e *Entry)
}

// Entry is the record of one check.
type Entry struct {
	At       time.Time
	Took     time.Duration
	Request  *authz.Request
	Facts    *authz.Facts
	Decision *authz.Decision
	Plan     string       // by which the caller pays, "" for nobody who is known
	Charge   authz.Charge // what was taken, nil if nothing was
	Revision string       // of the policy
	// Cause says what broke, for the operator; it never reaches the caller.
	Cause string
	// KeyHint names a key that is malformed or unknown without revealing it, "" for all others: a prefix that many share,
	// and a hash under Options.HintKey.
	KeyHint string
	// DryRunReason is the reason of a denial that a dry run let through.
	DryRunReason authz.Reason
	// PolicyErrors tell which functions of the policy failed, as file:line: text.
	PolicyErrors []string
}

// Rules are what can be replaced while requests are served. One check sees one set of rules from beginning to end.
type Rules struct {
	Policy  Policy
	Plans   map[string][]authz.Limit
	Reasons map[authz.Reason]authz.ReasonInfo
}

// Options are the settings of a Checker.
type Options struct {
	// Timeout bounds a check; an earlier deadline of the caller's wins. 0 is DefaultTimeout.
	Timeout     time.Duration
	Credentials Sources
	// Tokens says what bearer tokens are worth, nil where they are left to the upstream.
	Tokens  Tokens
	Answers Answers
	// DryRun lets through what the policy denies. Requests that cannot be understood or decided stay denied, whoever says so.
	DryRun bool
	// HintKey is the secret under which unknown keys are hashed for the log. Empty: one that ends with the process.
	HintKey []byte
	// Now is the clock, nil for time.Now.
	Now func() time.Time
}

// DefaultTimeout is Envoy's own habit for ext_authz, rounded up.
const DefaultTimeout = 250 * time.Millisecond

// replyMargin is what is left of the caller's deadline for the answer to travel.
const replyMargin = 10 * time.Millisecond

// Checker decides requests. Its methods may be called concurrently.
type Checker struct {
	keys        Keys
	revocations Revocations
	meter       Meter
	recorder    Recorder
	replays     *replays
	opt         Options
	rules       atomic.Pointer[Rules]
}

// New makes a checker. It denies everything until Use gives it rules.
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
	return &Checker{keys: k, revocations: r, meter: m, recorder: rec, replays: newReplays(), opt: opt}
}

// Use makes later checks follow these rules. They must not be changed afterwards.
func (c *Checker) Use(r *Rules) { c.rules.Store(r) }

// Rules returns the rules in force, nil before the first Use.
func (c *Checker) Rules() *Rules { return c.rules.Load() }

// Check decides one request.
func (c *Checker) Check(ctx context.Context, r *authz.Request) authz.Decision {
	a := attempts.Get().(*attempt)
	a.Checker, a.request, a.began = c, r, c.opt.Now()
	d := c.run(ctx, a)
	a.release()
	return d
}

// attempts are used again: nothing that is handed out points into one, and what may still be waited for keeps it from the
// pool.
var attempts = sync.Pool{New: func() any { return new(attempt) }}

// release gives the attempt back, unless somebody waited for one of its ends and may still look at it.
func (a *attempt) release() {
	if a.whole.waited != nil || a.more != nil {
		return
	}
	for i := range a.waits {
		if a.waits[i].waited != nil {
			return
		}
	}
	*a = attempt{}
	attempts.Put(a)
}

// attempt is one request on its way.
type attempt struct {
	*Checker
	request     *authz.Request
	began       time.Time
	rules       *Rules
	credentials credentials
	facts       authz.Facts
	plan        string // of who pays, "" if nobody is known who could
	holder      authz.Holder
	limits      []authz.Limit
	verdict     authz.Verdict
	charge      authz.Charge
	wanted      authz.Charge // what could not be taken
	reservation taken        // nil: nothing is
	own         authz.Reservation
	share       share
	quotas      [4]authz.QuotaFact // memory for facts.Quota
	entry       Entry
	whole       budget    // of the check
	waits       [5]budget // memory for the waits for what is not in memory, as many as a check usually has
	waiting     int       // how many of them were begun
	more        []*budget // those for which that was not enough
	cause       string
	would       authz.Reason
	// policyErrors are those of the last time that the policy was asked.
	policyErrors []string
	id           string
}

// taken is what a check holds: a reservation of its own, or a share in that of its stream.
type taken interface {
	ID() string
	// Cancel gives the units back.
	Cancel()
	// Keep says that the check is answered with the reservation.
	Keep()
}

// alone is a reservation of which nobody else has a share.
type alone struct{ *authz.Reservation }

func (alone) Keep() {}

func (c *Checker) run(ctx context.Context, a *attempt) (d authz.Decision) {
	a.id = newID()
	defer func() { c.record(a, &d) }()
	defer func() {
		if p := recover(); p != nil {
			d = a.broken(authz.ReasonPolicyError, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()

	ctx = a.bound(ctx)
	defer a.stop()
	if a.rules = c.rules.Load(); a.rules == nil {
		return a.broken(authz.ReasonPolicyError, "no policy is loaded")
	}
	if a.request.Fault != "" {
		return a.broken(authz.ReasonRequestMalformed, a.request.Fault)
	}
	a.identify(ctx)
	if cause := a.unmovable(); cause != "" {
		return a.broken(authz.ReasonRequestMalformed, cause)
	}
	a.peek(ctx)
	if err := a.decide(ctx); err != nil {
		return a.failed(ctx, err)
	}
	if err := a.reserve(ctx); err != nil {
		return a.failed(ctx, err)
	}
	if err := ctx.Err(); err != nil { // nobody waits for this answer any more, so nobody pays for it
		return a.failed(ctx, err)
	}
	return a.seal()
}

// policyShare is the part of the time left that a check keeps for the policy when it waits for a store: a policy that is
// told in time that the store cannot say chooses the reason, where one that is not told is late.
const policyShare = 1.0 / 5

// bound gives the check its deadline.
func (a *attempt) bound(ctx context.Context) context.Context {
	timeout, now := a.opt.Timeout, time.Now()
	if at, ok := ctx.Deadline(); ok {
		if left := at.Sub(now); left > 2*replyMargin {
			timeout = min(timeout, left-replyMargin)
		}
	}
	a.whole.start(ctx, now.Add(timeout))
	return &a.whole
}

// stop ends all waiting.
func (a *attempt) stop() {
	for i := range a.waits {
		a.waits[i].stop()
	}
	for _, b := range a.more {
		b.stop()
	}
	a.whole.stop()
}

// quotaFacts is memory for the facts about the limits.
func (a *attempt) quotaFacts() []authz.QuotaFact {
	if n := len(a.limits); n <= len(a.quotas) {
		return a.quotas[:n]
	}
	return make([]authz.QuotaFact, len(a.limits))
}

// patient bounds a wait for what is not in memory: the key, the ledger, or the server of a token. Each step of the check has its
// own: nothing may be written over one that somebody may still look at.
func (a *attempt) patient(ctx context.Context) context.Context {
	var b *budget
	if a.waiting < len(a.waits) {
		b = &a.waits[a.waiting]
		a.waiting++
	} else {
		b = new(budget)
		a.more = append(a.more, b)
	}
	b.share(ctx) // bound has set a deadline
	return b
}

func (a *attempt) decide(ctx context.Context) error {
	v, err := a.rules.Policy.Decide(ctx, a.request, &a.facts, nil)
	a.policyErrors = v.Errors
	if err != nil {
		return err
	}
	if len(v.SetQueryParameters)+len(v.RemoveQueryParameters) > 0 && a.request.HTTP != nil && !a.canRewrite(v.SetQueryParameters, v.RemoveQueryParameters) {
		return errors.New("the policy changes a query with bytes that have to be escaped")
	}
	if size := sizeOf(v.Headers, v.SetQueryParameters); len(v.SetQueryParameters) > 0 && size > maxAdded {
		return fmt.Errorf("the policy adds %d bytes to a request: Envoy would refuse more than %d", size, maxAdded)
	}
	a.verdict = v
	return nil
}

// reserve takes what the policy wants charged. If somebody else was faster, the policy is asked once more with what is
// now known, so that it chooses status and reason; it may also charge something else instead, once.
func (a *attempt) reserve(ctx context.Context) error {
	for range 2 {
		if !a.verdict.Allowed {
			return nil
		}
		charge, err := a.price()
		if err != nil || len(charge) == 0 {
			return err
		}
		if a.reservation = a.take(ctx, charge); a.reservation != nil {
			a.charge = charge
			return nil
		}
		a.wanted = charge
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.decide(ctx); err != nil {
			return err
		}
	}
	if a.verdict.Allowed {
		a.verdict = authz.Verdict{Reason: a.shortage()}
	}
	return nil
}

// take takes the charge, once for a stream however often the proxy asks about it. It returns nil if there was too little.
func (a *attempt) take(ctx context.Context, charge authz.Charge) taken {
	ctx = a.patient(ctx)
	if s, ok := a.replays.streamOf(a.request); ok {
		return a.replays.enter(s, a.began).reserve(ctx, a, charge)
	}
	return a.takeAlone(ctx, charge)
}

func (a *attempt) takeAlone(ctx context.Context, charge authz.Charge) taken {
	if !a.meter.Reserve(ctx, a.holder, a.limits, charge, a.facts.Quota, &a.own) {
		return nil
	}
	return alone{&a.own}
}

// maxCharge is the most that one request can cost. No count goes further.
const maxCharge = 1 << 53

// price is the charge of the verdict with its default filled in: units above 0, of limits that the plan has.
func (a *attempt) price() (authz.Charge, error) {
	if a.verdict.Charge == nil {
		out := make(authz.Charge, len(a.limits))
		if a.planMissing() {
			return nil, errors.New(a.missingPlan())
		}
		for i := range a.limits {
			if a.limits[i].Unit == authz.UnitRequests {
				out[a.limits[i].Name] = 1
			}
		}
		return out, nil
	}
	free := 0
	for name, units := range a.verdict.Charge {
		switch {
		case units < 0 || units > maxCharge:
			return nil, fmt.Errorf("policy charges %d units of %q: want 0 to %d", units, name, int64(maxCharge))
		case !a.limited(name):
			return nil, fmt.Errorf("policy charges %q, which plan %q does not limit", name, a.plan)
		case units == 0:
			free++
		}
	}
	if free == 0 {
		return a.verdict.Charge, nil // which nobody changes
	}
	out := make(authz.Charge, len(a.verdict.Charge)-free)
	for name, units := range a.verdict.Charge {
		if units > 0 {
			out[name] = units
		}
	}
	return out, nil
}

// planMissing reports whether the caller is known, and is on a plan that the policy's data does not have.
func (a *attempt) planMissing() bool {
	return a.holder != (authz.Holder{}) && len(a.rules.Plans) > 0 && a.rules.Plans[a.plan] == nil
}

// missingPlan says so for the operator.
func (a *attempt) missingPlan() string {
	return fmt.Sprintf("account %q is on plan %q, which is not defined: it would have no limits", a.holder.Account, a.plan)
}

func (a *attempt) limited(name string) bool {
	for i := range a.limits {
		if a.limits[i].Name == name {
			return true
		}
	}
	return false
}

// shortage is the reason to give when a policy insists on a charge that cannot be taken.
func (a *attempt) shortage() authz.Reason {
	reason := authz.ReasonStoreUnavailable
	for i := range a.facts.Quota {
		if a.wanted[a.limits[i].Name] == 0 {
			continue
		}
		switch prepaid := a.limits[i].Window == authz.WindowNone; a.facts.Quota[i].State {
		case authz.QuotaUnavailable:
			return authz.ReasonStoreUnavailable
		case authz.QuotaExhausted:
			reason = pick(prepaid, authz.ReasonCreditsExhausted, authz.ReasonQuotaExceeded)
		case authz.QuotaInsufficient:
			reason = pick(prepaid, authz.ReasonCreditsInsufficient, authz.ReasonQuotaExceeded)
		}
	}
	return reason
}

// seal turns the verdict into the answer.
func (a *attempt) seal() authz.Decision {
	if a.verdict.Allowed {
		answer := a.allowance()
		if a.reservation != nil {
			a.reservation.Keep()
		}
		return authz.Allow(answer)
	}
	a.unchargeStream()
	if a.verdict.Reason == "" {
		a.verdict.Reason = authz.ReasonPolicyDenied
	}
	if a.verdict.Reason == authz.ReasonPolicyError && a.planMissing() {
		a.cause = a.missingPlan()
	}
	if a.opt.DryRun && !a.undecided() {
		a.would = a.verdict.Reason
		a.verdict = authz.Verdict{Allowed: true, Metadata: a.verdict.Metadata}
		return authz.Allow(a.allowance())
	}
	return authz.Deny(a.denial())
}

// undecided reports whether the denial, whoever gave its reason, comes from something that could not be found out.
func (a *attempt) undecided() bool {
	f := &a.facts
	for i := range f.Quota {
		if f.Quota[i].State == authz.QuotaUnavailable {
			return true
		}
	}
	return a.verdict.Reason.Undecided() || a.verdict.Reason == authz.ReasonRequestMalformed || f.Revocation.Stale ||
		f.Key.Status == authz.KeyUnavailable || f.Account.Status == authz.AccountUnavailable || f.Token.Status == authz.TokenUnavailable
}

// failed is the decision when the policy, or what it needs, gave an error.
func (a *attempt) failed(ctx context.Context, err error) authz.Decision {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return a.broken(authz.ReasonDecisionTimeout, err.Error())
	}
	return a.broken(authz.ReasonPolicyError, err.Error())
}

// broken is the decision when there is no verdict: a denial that says which kind of fault it was and nothing of its
// cause. Whatever was taken is given back.
func (a *attempt) broken(reason authz.Reason, cause string) authz.Decision {
	if a.reservation != nil {
		a.reservation.Cancel()
		a.reservation, a.charge = nil, nil
	}
	a.unchargeStream()
	a.cause = cause
	a.verdict = authz.Verdict{Reason: reason}
	return authz.Deny(a.denial())
}

// unchargeStream gives back what an earlier check of the same stream took: a denied request costs nothing.
func (a *attempt) unchargeStream() {
	if s, ok := a.replays.streamOf(a.request); ok {
		if c := a.replays.known(s); c != nil {
			c.undo(a.began)
		}
	}
}

// record writes the one entry of the check. A recorder that panics must not take the answer with it.
func (c *Checker) record(a *attempt, d *authz.Decision) {
	defer func() { _ = recover() }()
	a.entry = Entry{
		At: a.began, Took: c.opt.Now().Sub(a.began), Request: a.request, Facts: &a.facts, Decision: d,
		Plan: a.plan, Charge: a.charge, Cause: a.cause, DryRunReason: a.would, KeyHint: a.hint(),
	}
	a.entry.PolicyErrors = a.policyErrors
	if a.rules != nil {
		a.entry.Revision = a.rules.Policy.Revision()
	}
	c.recorder.Record(&a.entry)
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
