package check

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Routes finds the route that applies to a request.
type Routes interface {
	// Match reads the method, the host and the path of a request and fills both facts. If the path is not ok, no route applies.
	// It appends the values of the route's parameters to room, which may be memory of the caller. It does not keep its arguments.
	Match(r *authz.Request, path *authz.PathFact, route *authz.RouteFact, room []authz.Param)
}

// Keys finds the owner of an API key.
type Keys interface {
	// Identify returns what is known about the text of a key at that instant. It does not fail: what it cannot find out is
	// a status. It does not look at revocations.
	Identify(ctx context.Context, text string, now time.Time) (authz.KeyFact, authz.AccountFact)
	// Account returns what is known about an account.
	Account(ctx context.Context, id string) authz.AccountFact
}

// Tokens verifies bearer tokens. Like Keys, it does not fail and does not look at revocations.
type Tokens interface {
	// IsToken reports whether a bearer text that is not a known key can be a token.
	IsToken(text string) bool
	// Identify returns what is known about a token. It and FromProxy must not keep the pointer.
	Identify(ctx context.Context, b *authz.Bearer, now time.Time) authz.TokenFact
	// FromProxy returns what is known about a token that the proxy has verified. It is given the metadata of the proxy's
	// filters, and the token's text if the request has it. It returns false if the proxy has verified no token.
	FromProxy(ctx context.Context, filters map[string]any, b *authz.Bearer, now time.Time) (authz.TokenFact, bool)
}

// Revocations says which keys, accounts and tokens are revoked.
type Revocations interface {
	Key(id string) bool
	Account(id string, issued time.Time) bool
	Token(t *authz.TokenFact) bool
	// Stale reports whether the list may lack recent revocations.
	Stale() bool
}

// Meter counts what callers use. It fills facts that the caller allocates, one for each limit and in the same order.
type Meter interface {
	// Peek reports the state of the limits and takes nothing.
	Peek(ctx context.Context, h authz.Holder, limits []authz.Limit, facts []authz.QuotaFact)
	// Reserve takes the charge from all limits or from none, and reports whether it did. If it did not, the facts tell which
	// limits had too few units or are unavailable. The charge has only names that are in limits.
	Reserve(ctx context.Context, h authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, r *authz.Reservation) bool
}

// Policy decides. An error means that there is no verdict.
type Policy interface {
	Decide(ctx context.Context, r *authz.Request, f *authz.Facts, tr *authz.Trace) (authz.Verdict, error)
	Revision() string
}

// Profiler is a Policy that can say what its evaluation takes.
type Profiler interface {
	// Profile evaluates the policy for a request, as Decide does without cached verdicts, and measures it. It evaluates it several times,
	// but only once if that may be seen from outside. Nobody is told about the decisions. If ctx ends, it returns what it has until then.
	Profile(ctx context.Context, r *authz.Request, f *authz.Facts) *authz.Profile
}

// Recorder keeps what was decided. Record is called exactly once for each check and must not block. The entry and what it
// points to must not be kept: another check uses their memory after Record has returned.
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
	Plan     string       // of the caller, "" if no caller is known
	Charge   authz.Charge // what was taken, nil for nothing
	// Reservation names what was taken, "" if nothing was. Checks of one stream share a reservation: its charge was taken once.
	Reservation string
	Revision    string // of the policy
	// Cause tells the operator why there is no verdict. It never reaches the caller.
	Cause string
	// KeyHint names a malformed or unknown key without revealing it: a prefix that many keys share, and a hash under
	// Options.HintKey. It is "" for all other keys.
	KeyHint string
	// DryRunReason is the reason of a denial that a dry run let through.
	DryRunReason authz.Reason
	// PolicyErrors tell which functions of the policy failed, as file:line: text.
	PolicyErrors []string
}
