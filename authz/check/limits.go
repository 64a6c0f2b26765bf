package check

import (
	"strconv"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// What callers are told about limits (draft-ietf-httpapi-ratelimit-headers): only about those that their request charges. A
// limit that is used up and that this request does not ask for is no reason to wait.
const (
	headerPolicy = "ratelimit-policy"
	headerLimit  = "ratelimit"
)

func aboutQuota(r authz.Reason) bool {
	switch r {
	case authz.ReasonQuotaExceeded, authz.ReasonCreditsExhausted, authz.ReasonCreditsInsufficient, authz.ReasonRateLimited:
		return true
	}
	return false
}

// cost is what the request charges a limit, or would have charged it: what the policy says, with a denial too, else what
// could not be taken, else 1 of each limit that counts requests.
func (a *attempt) cost(i int) int64 {
	l := &a.limits[i]
	switch {
	case a.verdict.Allowed:
		return a.charge[l.Name]
	case a.verdict.Charge != nil:
		return a.verdict.Charge[l.Name]
	case a.wanted != nil:
		return a.wanted[l.Name]
	case l.Unit == authz.UnitRequests:
		return 1
	}
	return 0
}

// violates reports whether the limit denied. None does in a denial for any other reason, which shows nobody's quota.
func (a *attempt) violates(i int) bool {
	if a.verdict.Allowed || !aboutQuota(a.verdict.Reason) {
		return false
	}
	q, cost := &a.facts.Quota[i], a.cost(i)
	return cost > 0 && q.State != authz.QuotaUnavailable && (q.State != authz.QuotaOK || q.Remaining < cost)
}

// nearest is the limit of an allowed request of which the smallest share is left, nil if it charges none.
func (a *attempt) nearest() (nearest *authz.QuotaFact) {
	for i := range a.facts.Quota {
		q := &a.facts.Quota[i]
		if a.cost(i) > 0 && q.State != authz.QuotaUnavailable && (nearest == nil || nearer(q, nearest)) {
			nearest = q
		}
	}
	return nearest
}

// nearer reports whether a smaller share of f is left than of g.
func nearer(f, g *authz.QuotaFact) bool {
	return float64(f.Remaining)*float64(g.Limit) < float64(g.Remaining)*float64(f.Limit)
}

// roomAgain is when all limits that denied have room again, zero if that does not come by waiting.
func (a *attempt) roomAgain() (latest time.Time) {
	for i := range a.facts.Quota {
		if !a.violates(i) {
			continue
		}
		at := a.facts.Quota[i].ResetsAt
		if at.IsZero() {
			return time.Time{}
		}
		if at.After(latest) {
			latest = at
		}
	}
	return latest
}

// appendLimit appends a limit to the values of the RateLimit-Policy and RateLimit fields.
func appendLimit(policy, state []byte, q *authz.QuotaFact, now time.Time) (p, s []byte) {
	if len(policy) > 0 {
		policy, state = append(policy, ", "...), append(state, ", "...)
	}
	policy = append(strconv.AppendQuote(policy, q.Name), ";q="...)
	policy = strconv.AppendInt(policy, q.Limit, 10)
	state = append(strconv.AppendQuote(state, q.Name), ";r="...)
	state = strconv.AppendInt(state, q.Remaining, 10)
	if q.Window > 0 {
		policy = strconv.AppendInt(append(policy, ";w="...), int64(q.Window/time.Second), 10)
		state = strconv.AppendInt(append(state, ";t="...), inSeconds(q.ResetsAt.Sub(now)), 10)
	}
	return policy, state
}

// retryAfter says how long to wait, where waiting helps.
func (a *attempt) retryAfter(r authz.Retry) string {
	switch {
	case r == authz.RetrySoon:
		return "1"
	case r != authz.RetryReset:
		return ""
	case a.verdict.Reason == authz.ReasonKeyNotYetValid && !a.facts.Key.NotBefore.IsZero():
		return seconds(a.facts.Key.NotBefore.Sub(a.began))
	}
	at := a.roomAgain()
	if at.IsZero() {
		return ""
	}
	return seconds(at.Sub(a.began))
}
