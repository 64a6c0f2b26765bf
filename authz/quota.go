package authz

import (
	"strconv"
	"strings"
	"time"
)

// Window is the kind of period over which a limit counts.
type Window string

// The windows. Calendar windows follow the limit's time zone.
const (
	WindowSecond Window = "second"
	WindowMinute Window = "minute"
	WindowHour   Window = "hour"
	WindowDay    Window = "day"
	WindowMonth  Window = "month"
	WindowNone   Window = "none" // prepaid: credits that are used once
)

// Per says which callers share the count of a limit.
type Per string

// The scopes of a limit.
const (
	PerKey     Per = "key"     // a key and its rotations
	PerAccount Per = "account" // all keys of an account
)

// UnitRequests is the unit of limits that count requests. Unless the policy sets a charge, each request costs one unit of them.
const UnitRequests = "requests"

// Limit is one limit of a plan.
type Limit struct {
	Name   string
	Units  int64 // granted for each period; for WindowNone, granted once to every holder, in addition to credits
	Unit   string
	Window Window
	Per    Per
	// Zone decides when calendar periods begin; nil is UTC.
	Zone *time.Location
	// Anchor is the day of the month on which a monthly period begins, 1 to 31; 0 is 1. In a month that is too
	// short the period begins on its last day.
	Anchor int
	// RefundOnCrash gives back prepaid credits that a crashed node held and had not reported as spent.
	RefundOnCrash bool
	// Count names the count of the limit. Limits of two plans share a count if Count is equal, even if their units differ.
	// quota.ParsePlans sets it; if it is "", it is computed when it is needed.
	Count string
}

// Holder is the key and the account that are charged.
type Holder struct {
	Key     string // the key's lineage
	Account string
}

// BearerHolder names the holder of a limit per key for callers without a key. Tokens of one account and one issuer share a holder
// if they name the same subject, or no subject and the same client. Tokens that name neither share one too. No key's lineage
// has such a name.
func BearerHolder(account, issuer, subject, client string) string {
	who := "sub:" + subject
	if subject == "" {
		who = "client:" + client
	}
	return "token:" + strconv.Itoa(len(account)) + ":" + account + strconv.Itoa(len(issuer)) + ":" + issuer + who
}

// BearerAccount is the account of a holder that BearerHolder named. It returns false for any other.
func BearerAccount(holder string) (account string, ok bool) {
	rest, ok := strings.CutPrefix(holder, "token:")
	size, rest, found := strings.Cut(rest, ":")
	n, err := strconv.Atoi(size)
	if !ok || !found || err != nil || n < 0 || n > len(rest) {
		return "", false
	}
	return rest[:n], true
}

// Charge is what a request costs: units by the name of the limit. A nil Charge is one unit of each limit that counts
// requests. An empty one costs nothing.
type Charge map[string]int64

// MaxCharge is the most that one request can cost: larger numbers are not exact in JSON.
const MaxCharge = int64(1) << 53
