package check

import (
	"strconv"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// These headers tell callers about limits (draft-ietf-httpapi-ratelimit-headers), but only about limits that their request
// charges: a limit that is used up but not charged is no reason to wait.
const (
	headerPolicy = "ratelimit-policy"
	headerLimit  = "ratelimit"
)

// nearestLimit is the charged limit with the smallest share of its units left, nil if an allowed request charges none.
// Limits and facts are in the same order.
func nearestLimit(limits []authz.Limit, quota []authz.QuotaFact, charge authz.Charge) (nearest *authz.QuotaFact) {
	for i := range quota {
		q := &quota[i]
		if charge[limits[i].Name] > 0 && q.State != authz.QuotaUnavailable && (nearest == nil || lessLeft(q, nearest)) {
			nearest = q
		}
	}
	return nearest
}

// lessLeft reports whether f has a smaller share of its units left than g.
func lessLeft(f, g *authz.QuotaFact) bool {
	return float64(f.Remaining)*float64(g.Limit) < float64(g.Remaining)*float64(f.Limit)
}

// violatedLimits are the limits that a denied request violates. There are none if the reason is not a quota, so that other
// denials reveal nothing about a quota.
func violatedLimits(limits []authz.Limit, quota []authz.QuotaFact, v *authz.Verdict, wanted authz.Charge) (out []*authz.QuotaFact) {
	switch v.Reason {
	case authz.ReasonQuotaExceeded, authz.ReasonCreditsExhausted, authz.ReasonCreditsInsufficient, authz.ReasonRateLimited:
	default:
		return nil
	}
	for i := range quota {
		q, cost := &quota[i], deniedCost(&limits[i], v, wanted)
		if cost > 0 && q.State != authz.QuotaUnavailable && (q.State != authz.QuotaOK || q.Remaining < cost) {
			out = append(out, q)
		}
	}
	return out
}

// deniedCost is what a denied request would have charged a limit: the policy's charge, else the charge that could not be
// reserved, else 1 if the limit counts requests.
func deniedCost(l *authz.Limit, v *authz.Verdict, wanted authz.Charge) int64 {
	switch {
	case v.Charge != nil:
		return v.Charge[l.Name]
	case wanted != nil:
		return wanted[l.Name]
	case l.Unit == authz.UnitRequests:
		return 1
	}
	return 0
}

// roomAgainAt is when all violated limits have units again, zero if waiting does not help.
func roomAgainAt(violated []*authz.QuotaFact) (latest time.Time) {
	for _, q := range violated {
		if q.ResetsAt.IsZero() {
			return time.Time{}
		}
		if q.ResetsAt.After(latest) {
			latest = q.ResetsAt
		}
	}
	return latest
}

// rateLimitFields are the values of the RateLimit-Policy and RateLimit fields, "" without any limits.
func rateLimitFields(now time.Time, limits ...*authz.QuotaFact) (policy, state string) {
	var room [2][160]byte
	p, s := room[0][:0], room[1][:0]
	for i, q := range limits {
		if i > 0 {
			p, s = append(p, ", "...), append(s, ", "...)
		}
		p = append(strconv.AppendQuote(p, q.Name), ";q="...)
		p = strconv.AppendInt(p, q.Limit, 10)
		s = append(strconv.AppendQuote(s, q.Name), ";r="...)
		s = strconv.AppendInt(s, q.Remaining, 10)
		if q.Window > 0 {
			p = strconv.AppendInt(append(p, ";w="...), int64(q.Window/time.Second), 10)
			s = strconv.AppendInt(append(s, ";t="...), seconds(q.ResetsAt.Sub(now)), 10)
		}
	}
	return string(p), string(s)
}

// retryAfter is the retry-after field, "" if waiting does not help.
func retryAfter(retry authz.Retry, reason authz.Reason, notBefore, roomAt, now time.Time) string {
	switch {
	case retry == authz.RetrySoon:
		return "1"
	case retry != authz.RetryReset:
		return ""
	case reason == authz.ReasonKeyNotYetValid && !notBefore.IsZero():
		return strconv.FormatInt(seconds(notBefore.Sub(now)), 10)
	case roomAt.IsZero():
		return ""
	}
	return strconv.FormatInt(seconds(roomAt.Sub(now)), 10)
}
