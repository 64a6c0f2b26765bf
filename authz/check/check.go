// Package check is a request's way from question to answer. Read Checker.run from top to bottom: it is the whole path,
// in production and when an operator asks for an explanation.
//
// Nothing here fails: what goes wrong on the way is a denial with a reason, built in one place (attempt.broken).
package check

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Keys finds out whose a key is.
type Keys interface {
	// Identify returns what is known about a key text at that instant. It does not fail: what it cannot find out is
	// a status. It knows nothing of revocation.
	Identify(ctx context.Context, text string, now time.Time) (authz.KeyFact, authz.AccountFact)
	// Account returns what is known about an account.
	Account(ctx context.Context, id string) authz.AccountFact
}

// Tokens finds out what a bearer token is worth. As Keys, it does not fail, and knows nothing of revocation.
type Tokens interface {
	// IsToken reports whether a bearer text is a token's and not a key's.
	IsToken(text string) bool
	Identify(ctx context.Context, text string, now time.Time) authz.TokenFact
	// FromProxy returns what is known about a token that the proxy has verified, by the metadata of its filters and the
	// token's text if the request has it, and false if there is none.
	FromProxy(ctx context.Context, filters map[string]any, text string, now time.Time) (authz.TokenFact, bool)
}

// Revocations says who is cut off.
type Revocations interface {
	Key(id string) bool
	Account(id string, issued time.Time) bool
	Token(t *authz.TokenFact) bool
	Stale() bool
}

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
	// Would is the reason of a denial that a dry run let through.
	Would authz.Reason
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
	// DryRun lets through what the policy denies. Requests that cannot be understood or decided stay denied.
	DryRun bool
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
	return &Checker{keys: k, revocations: r, meter: m, recorder: rec, replays: newReplays(opt.Now), opt: opt}
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

// release gives the attempt back, unless somebody waited for one of its ends and may still look at it. So does a panic,
// which does not get here.
func (a *attempt) release() {
	for _, b := range [...]*budget{&a.whole, &a.waits[0], &a.waits[1], &a.waits[2]} {
		if b.waited != nil {
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
	credential  credential
	facts       authz.Facts
	plan        string // of who pays, "" if nobody is known who could
	holder      authz.Holder
	limits      []authz.Limit
	verdict     authz.Verdict
	charge      authz.Charge
	reservation taken // nil: nothing is
	own         authz.Reservation
	share       share
	quotas      [4]authz.QuotaFact // memory for facts.Quota
	entry       Entry
	whole       budget    // of the check
	waits       [3]budget // for what is not in memory
	cause       string
	would       authz.Reason
	trace       *authz.Trace // not nil when somebody wants to know why
	id          string
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

// policyShare is the part of the time left that a check keeps for the policy when it waits for the ledger: a policy that is
// told in time that the ledger cannot say chooses the reason, where one that is not told is late.
const policyShare = 1.0 / 5

// bound gives the check its deadline.
func (a *attempt) bound(ctx context.Context) context.Context {
	timeout := a.opt.Timeout
	if at, ok := ctx.Deadline(); ok {
		if left := time.Until(at); left > 2*replyMargin {
			timeout = min(timeout, left-replyMargin)
		}
	}
	a.whole.start(ctx, time.Now().Add(timeout))
	return &a.whole
}

// stop ends all waiting.
func (a *attempt) stop() {
	for i := range a.waits {
		a.waits[i].stop()
	}
	a.whole.stop()
}

// identify finds the credentials and what is known about them. It judges nothing.
func (a *attempt) identify(ctx context.Context) {
	a.facts.Token.Status = authz.TokenMissing
	a.facts.Account.Status = authz.AccountUnknown
	a.facts.Revocation.Stale = a.revocations.Stale()
	a.opt.Credentials.find(&a.credential, a.request, a.opt.Tokens)
	switch key := &a.facts.Key; {
	case a.credential.ambiguous:
		key.Status = authz.KeyAmbiguous
	case a.credential.text == "":
		key.Status = authz.KeyMissing
	default:
		a.facts.Key, a.facts.Account = a.keys.Identify(ctx, a.credential.text, a.began)
		if key.Found() && (a.revocations.Key(key.ID) || a.revocations.Account(key.Account, key.CreatedAt)) {
			key.Status = authz.KeyRevoked
		}
	}
	if a.opt.Tokens != nil && !a.credential.ambiguous {
		a.identifyToken(ctx)
	}
}

// identifyToken does the same for the bearer token. Whether it was revoked is asked every time, however long ago its
// signature was verified.
func (a *attempt) identifyToken(ctx context.Context) {
	ctx = a.patient(ctx, 0)
	token := &a.facts.Token
	vouched := false
	if m := a.request.Metadata; m != nil {
		*token, vouched = a.opt.Tokens.FromProxy(ctx, m.Filter, a.credential.token, a.began)
	}
	switch {
	case vouched:
	case a.credential.token != "":
		*token = a.opt.Tokens.Identify(ctx, a.credential.token, a.began)
	default:
		token.Status = authz.TokenMissing
	}
	if token.Status == authz.TokenValid && a.revocations.Token(token) {
		token.Status = authz.TokenRevoked
	}
	if a.facts.Key.Status == authz.KeyMissing && token.Status == authz.TokenValid && token.Account != "" {
		a.facts.Account = a.accountOf(ctx, token)
	}
}

// accountOf is who pays for a caller that has only a token: the account that its issuer names. An issuer that names the
// plan as well may have customers of whom nothing else is known here.
func (a *attempt) accountOf(ctx context.Context, token *authz.TokenFact) authz.AccountFact {
	account := a.keys.Account(ctx, token.Account)
	if token.Plan == "" {
		return account
	}
	if account.Status == authz.AccountUnknown {
		account.ID, account.Status = token.Account, authz.AccountActive
	}
	account.Plan = token.Plan
	return account
}

// peek looks at the limits of the plan. Only a good credential has any: a stranger learns nothing of anybody's quota.
func (a *attempt) peek(ctx context.Context) {
	switch key, token, account := &a.facts.Key, &a.facts.Token, &a.facts.Account; {
	case key.Status == authz.KeyActive:
		a.plan, a.holder = key.Plan, authz.Holder{Key: key.Lineage, Account: key.Account}
	case key.Status == authz.KeyMissing && token.Status == authz.TokenValid && account.ID != "":
		a.plan, a.holder = account.Plan, authz.Holder{Key: bearerOf(token), Account: account.ID}
	default:
		return
	}
	a.limits = a.rules.Plans[a.plan]
	if len(a.limits) > 0 {
		a.facts.Quota = a.quotaFacts()
		a.meter.Peek(a.patient(ctx, 1), a.holder, a.limits, a.facts.Quota)
	}
}

// bearerOf is whose use of a limit per key is counted together where there is no key: that of one subject. No key's
// lineage, and no other issuer's subject, is called like that.
func bearerOf(t *authz.TokenFact) string {
	return "token:" + strconv.Itoa(len(t.Issuer)) + ":" + t.Issuer + t.Subject
}

// quotaFacts is memory for the facts about the limits.
func (a *attempt) quotaFacts() []authz.QuotaFact {
	if n := len(a.limits); n <= len(a.quotas) {
		return a.quotas[:n]
	}
	return make([]authz.QuotaFact, len(a.limits))
}

// patient bounds a wait for what is not in memory: the ledger, or the server of a token. Each step of the check has its own.
func (a *attempt) patient(ctx context.Context, step int) context.Context {
	at, _ := ctx.Deadline() // bound has set one
	now := time.Now()
	left := at.Sub(now)
	b := &a.waits[step]
	b.start(ctx, now.Add(left-time.Duration(policyShare*float64(left))))
	return b
}

func (a *attempt) decide(ctx context.Context) error {
	v, err := a.rules.Policy.Decide(ctx, a.request, &a.facts, a.trace)
	if err != nil {
		return err
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
	a.waits[2].stop() // of the first time, if this is the second
	a.waits[2] = budget{}
	ctx = a.patient(ctx, 2)
	if s, ok := a.replays.streamOf(a.request); ok {
		return a.replays.enter(s).reserve(ctx, a, charge)
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
		if a.holder != (authz.Holder{}) && len(a.rules.Plans) > 0 && a.rules.Plans[a.plan] == nil {
			return nil, fmt.Errorf("account %q is on plan %q, which is not defined: it would have no limits", a.holder.Account, a.plan)
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
	if a.opt.DryRun {
		a.would = a.verdict.Reason
		a.verdict = authz.Verdict{Allowed: true, Metadata: a.verdict.Metadata}
		return authz.Allow(a.allowance())
	}
	return authz.Deny(a.denial())
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
		Plan: a.plan, Charge: a.charge, Cause: a.cause, Would: a.would,
	}
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
