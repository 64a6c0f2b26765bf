package crashtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// limit is a limit of one of the plans.
type limit struct {
	name       string
	perAccount bool
	units      int64         // 0: prepaid
	rate       time.Duration // the window of a rate; 0: a quota
}

// plans are used up within a few rounds, each in another way. Those of paced and rated have tests of their own.
func plans() map[string][]limit {
	rate, hourly := limit{name: "rate", units: 1000, rate: time.Second}, limit{name: "hourly", units: 120}
	return map[string][]limit{
		"daily":   {{name: "daily", units: 100}},
		"prepaid": {{name: "credits", perAccount: true}},
		"monthly": {{name: "monthly", perAccount: true, units: 250}},
		"all": {
			rate, hourly, {name: "daily", units: 150}, {name: "monthly", perAccount: true, units: 400}, {name: "credits", perAccount: true},
		},
		"rated": {{name: "burst", units: 40, rate: time.Second}, {name: "minutely", perAccount: true, units: 500, rate: time.Minute}},
		"paced": {
			{name: "hourly", units: 2000}, {name: "daily", units: 8000}, {name: "monthly", perAccount: true, units: 20_000}, {name: "credits", perAccount: true},
		},
	}
}

const plansYAML = `tollkeeper:
  plans:
    daily: {limits: {daily: {units: 100, window: day}}}
    prepaid: {limits: {credits: {units: 0, window: none, per: account}}}
    monthly: {limits: {monthly: {units: 250, window: month, per: account}}}
    all:
      limits:
        rate: {units: 1000, window: second}
        hourly: {units: 120, window: hour}
        daily: {units: 150, window: day}
        monthly: {units: 400, window: month, per: account}
        credits: {units: 0, window: none, per: account}
    rated:
      limits:
        burst: {units: 40, window: second}
        minutely: {units: 500, window: minute, per: account}
    paced:
      limits:
        hourly: {units: 2000, window: hour}
        daily: {units: 8000, window: day}
        monthly: {units: 20000, window: month, per: account}
        credits: {units: 0, window: none, per: account}
`

type key struct {
	id, text string
	account  *account
	verified bool
	revoking bool // a client has asked for the revocation: it may be revoked
	revoked  bool // the revocation was acknowledged
}

type account struct {
	id, plan string
	credits  []*credit
	current  bool // is under load
}

type credit struct {
	id    string
	units int64
	acked bool
}

// bucket names one count: a limit and its holder.
type bucket struct{ limit, holder string }

// window is one period of a rate in one run of the server: a server that was killed may have forgotten what it allowed.
type window struct {
	bucket
	run   string
	start int64
}

// call is a check as the client saw it.
type call struct {
	k          *key
	run        string // of the server
	sent, done time.Time
	wasRevoked bool // the key was known to be revoked when the check was sent
	ending     bool // the server had been told to stop: it may then deny because of the store
}

// world is what the clients know: what was acknowledged, and what they were allowed. Its methods may be called
// concurrently.
type world struct {
	began time.Time

	mu       sync.Mutex
	accounts []*account
	keys     []*key
	allows   map[bucket]int64
	rates    map[window]int64 // allowed within the window without a doubt
	denied   map[string]int
	acked    map[string]int // writes by kind
	faults   []string
}

func newWorld() *world {
	return &world{
		began: time.Now(), allows: make(map[bucket]int64), rates: make(map[window]int64), denied: make(map[string]int), acked: make(map[string]int),
	}
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *world) madeAccount(id, plan string) *account {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &account{id: id, plan: plan, current: true}
	w.accounts = append(w.accounts, a)
	w.acked["accounts"]++
	return a
}

func (w *world) madeKey(a *account, made admin.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys = append(w.keys, &key{id: made.ID, text: made.Key, account: a})
	w.acked["keys"]++
}

// bucketsOf are the buckets that a request with that key is charged to, in the order of the plan's limits.
func bucketsOf(k *key) []bucket {
	var out []bucket
	for _, l := range plans()[k.account.plan] {
		holder := k.id
		if l.perAccount {
			holder = k.account.id
		}
		out = append(out, bucket{l.name, holder})
	}
	return out
}

// answered records the answer to a check: the reason of a denial, or "".
func (w *world) answered(c call, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := c.k
	if reason == "" {
		for i, b := range bucketsOf(k) {
			w.allows[b]++
			if l := plans()[k.account.plan][i]; l.rate > 0 {
				w.allowedOfRate(&c, l, b)
			}
		}
	} else {
		w.denied[reason]++
	}
	switch {
	case c.wasRevoked && reason != "key_revoked":
		w.faults = append(w.faults, fmt.Sprintf("key %s is revoked, and got %q", k.id, reason))
	case slices.Contains([]string{"", "quota_exceeded", "credits_exhausted", "rate_limited"}, reason):
	case reason == "key_revoked" && k.revoking:
	case reason == "store_unavailable" && c.ending:
	default:
		w.faults = append(w.faults, fmt.Sprintf("key %s got %q", k.id, reason))
	}
}

// allowedOfRate counts a unit of a rate if it is sure in which window the server took it.
func (w *world) allowedOfRate(c *call, l limit, b bucket) {
	start := c.sent.Truncate(l.rate)
	if !c.done.Truncate(l.rate).Equal(start) {
		return
	}
	at := window{b, c.run, start.UnixNano()}
	if w.rates[at]++; w.rates[at] == l.units+1 {
		w.faults = append(w.faults, fmt.Sprintf("more than %d were allowed of %+v in the %v from %v", l.units, b, l.rate, start))
	}
}

// pick returns one of the keys under load, and whether it is known to be revoked.
func (w *world) pick(rng *rand.Rand) (k *key, revoked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, i := 0, rng.IntN(len(w.keys))
	for ; n < len(w.keys); n++ { // the current ones are the last ones
		if k = w.keys[len(w.keys)-1-(i+n)%len(w.keys)]; k.account.current {
			break
		}
	}
	return k, k.revoked
}

// pickAccount returns one of the accounts under load whose plan has that limit; "" is any.
func (w *world) pickAccount(rng *rand.Rand, wanted string) *account {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fit []*account
	for _, a := range w.accounts {
		has := slices.ContainsFunc(plans()[a.plan], func(l limit) bool { return l.name == wanted })
		if a.current && (has || wanted == "") {
			fit = append(fit, a)
		}
	}
	return fit[rng.IntN(len(fit))]
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// limitOf is the most that may ever have been allowed of a quota: the limit for each period that the test ran in, or all credits.
func (w *world) limitOf(a *account, l limit) int64 {
	now, began := time.Now().UTC(), w.began.UTC()
	switch l.name {
	case "credits":
		var sum int64
		for _, c := range a.credits {
			sum += c.units
		}
		return sum
	case "hourly":
		return l.units * (1 + int64(now.Truncate(time.Hour).Sub(began.Truncate(time.Hour))/time.Hour))
	case "daily":
		return l.units * (1 + int64(now.Truncate(24*time.Hour).Sub(began.Truncate(24*time.Hour))/(24*time.Hour)))
	default:
		if now.Month() != began.Month() {
			return 2 * l.units
		}
		return l.units
	}
}

// overspent returns the quotas that were allowed more than their limit.
func (w *world) overspent() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.keys {
		for i, b := range bucketsOf(k) {
			l := plans()[k.account.plan][i]
			if l.rate > 0 {
				continue
			}
			said := fmt.Sprintf("%d were allowed of %+v, which has %d", w.allows[b], b, w.limitOf(k.account, l))
			if w.allows[b] > w.limitOf(k.account, l) && !slices.Contains(out, said) { // keys of an account share buckets
				out = append(out, said)
			}
		}
	}
	return out
}
