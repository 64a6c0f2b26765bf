package nodes

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// limit is a limit of one of the plans.
type limit struct {
	name       string
	perAccount bool
	units      int64  // 0: prepaid
	window     string // second, hour, month or none
}

// begins is when the period began that ran at that time, in Unix nanoseconds; 0 for prepaid credits, which have none.
func (l *limit) begins(t time.Time) int64 {
	switch t = t.UTC(); l.window {
	case "second":
		return t.Truncate(time.Second).UnixNano()
	case "hour":
		return t.Truncate(time.Hour).UnixNano()
	case "month":
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC).UnixNano()
	}
	return 0
}

// plans are such that those who ask often use them up.
var plans = map[string][]limit{
	"hourly":  {{"hourly", false, 20, "hour"}},
	"monthly": {{"monthly", true, 40, "month"}},
	"prepaid": {{"credits", true, 0, "none"}},
	"rated":   {{"burst", false, 8, "second"}},
	"all":     {{"pace", false, 30, "second"}, {"hours", false, 30, "hour"}, {"months", true, 50, "month"}, {"credits", true, 0, "none"}},
	"calm":    {{"plenty", false, 100_000, "hour"}}, // to see whether a node serves
}

const plansYAML = `tollkeeper:
  plans:
    hourly: {limits: {hourly: {units: 20, window: hour}}}
    monthly: {limits: {monthly: {units: 40, window: month, per: account}}}
    prepaid: {limits: {credits: {units: 0, window: none, per: account}}}
    rated: {limits: {burst: {units: 8, window: second}}}
    all:
      limits:
        pace: {units: 30, window: second}
        hours: {units: 30, window: hour}
        months: {units: 50, window: month, per: account}
        credits: {units: 0, window: none, per: account}
    calm: {limits: {plenty: {units: 100000, window: hour}}}
`

// under lists the plans of the accounts under load.
var under = []string{"hourly", "monthly", "prepaid", "rated", "all"}

type account struct {
	id, plan string
	keys     []*key
	credits  []*credit
}

type key struct {
	id, text string
	account  *account
	made     time.Time     // acknowledged
	unknown  time.Duration // after made, when the last request was sent that found the key unknown
	revoking bool          // a client has asked for the revocation: it may be revoked
	revoked  time.Time     // acknowledged; zero: it was not
	late     time.Duration // after revoked, when the last request was sent that was allowed
}

type credit struct {
	id    string
	units int64
	acked bool
}

// bucket names one count: a limit and its holder.
type bucket struct{ limit, holder string }

// count is what a client knows of a bucket.
type count struct {
	limit   limit
	account *account
	times   []time.Time     // when requests were sent that were allowed
	sure    map[int64]int64 // how many in the period that began then, without a doubt
}

// world is what the clients know: what was acknowledged, and what they were allowed. Its methods may be called concurrently.
type world struct {
	began time.Time
	bound time.Duration // after which every node goes by a change, or serves no caller

	mu       sync.Mutex
	calm     bool // nothing is broken any more
	accounts []*account
	keys     []*key
	counts   map[bucket]*count
	answers  map[string]int // by status and reason
	allowed  int64
	acked    map[string]int // writes by kind
	faults   []string
}

func newWorld(bound time.Duration) *world {
	return &world{began: time.Now(), bound: bound, counts: make(map[bucket]*count), answers: make(map[string]int), acked: make(map[string]int)}
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) faultLocked(format string, args ...any) {
	if len(w.faults) < 30 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) fault(format string, args ...any) {
	w.locked(func() { w.faultLocked(format, args...) })
}

// made notes an account and its keys.
func (w *world) made(a *account, keys []admin.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for i := range keys {
		k := &key{id: keys[i].ID, text: keys[i].Key, account: a, made: now}
		a.keys, w.keys = append(a.keys, k), append(w.keys, k)
		for _, l := range plans[a.plan] {
			if b := bucketOf(k, &l); w.counts[b] == nil {
				w.counts[b] = &count{limit: l, account: a, sure: make(map[int64]int64)}
			}
		}
	}
	w.accounts = append(w.accounts, a)
	w.acked["accounts"]++
	w.acked["keys"] += len(keys)
}

func bucketOf(k *key, l *limit) bucket {
	if l.perAccount {
		return bucket{l.name, k.account.id}
	}
	return bucket{l.name, k.id}
}

// pick returns one of the latest keys, the last ones most often, and the number of those made so far.
func (w *world) pick(rng *rand.Rand, zipf *rand.Zipf) *key {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.keys) - 1 - int(zipf.Uint64())
	if n < 0 {
		n = rng.IntN(len(w.keys))
	}
	return w.keys[n]
}

// pickAccount returns one of the latest accounts that fits.
func (w *world) pickAccount(rng *rand.Rand, fits func(*account) bool) *account {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fit []*account
	for _, a := range w.accounts[max(0, len(w.accounts)-current):] {
		if fits(a) {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[rng.IntN(len(fit))]
}

// answered records the answer to a request.
func (w *world) answered(k *key, sent time.Time, status int, reason string) {
	done := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	name := fmt.Sprint(status)
	if reason != "" {
		name += " " + reason
	}
	w.answers[name]++
	if status == http.StatusOK {
		w.allow(k, sent, done)
		return
	}
	switch reason {
	case "quota_exceeded", "credits_exhausted", "rate_limited":
	case "key_revoked":
		if !k.revoking {
			w.faultLocked("key %s is not revoked, and got %s", k.id, name)
		}
	case "key_unknown":
		k.unknown = max(k.unknown, sent.Sub(k.made))
		if late := sent.Sub(k.made); late > w.boundLocked() {
			w.faultLocked("key %s, made %v before, is not known", k.id, sent.Sub(k.made))
		}
	default:
		if !undecided(status, reason) {
			w.faultLocked("key %s got %s", k.id, name)
		}
	}
}

// polled is after how long every node has read a change that it was not told of. It asks at least every five seconds.
const polled = 6 * time.Second

// boundLocked is how long a node may go without a change.
func (w *world) boundLocked() time.Duration {
	if w.calm {
		return polled
	}
	return w.bound
}

// undecided reports whether a denial says that a server or an answer was missing.
func undecided(status int, reason string) bool {
	switch reason {
	case "store_unavailable", "state_stale", "decision_timeout":
		return true
	}
	return reason == "" && status == http.StatusServiceUnavailable // Envoy got no answer
}

// allow counts an allowed request.
func (w *world) allow(k *key, sent, done time.Time) {
	w.allowed++
	if late := sent.Sub(k.revoked); !k.revoked.IsZero() && late > 0 {
		if k.late = max(k.late, late); late > w.boundLocked() {
			w.faultLocked("key %s was allowed %v after its revocation", k.id, late)
		}
	}
	for _, l := range plans[k.account.plan] {
		b := bucketOf(k, &l)
		c := w.counts[b]
		c.times = append(c.times, sent)
		began := l.begins(sent)
		if l.begins(done) != began {
			continue
		}
		if c.sure[began]++; c.sure[began] == c.most()+1 {
			w.faultLocked("more than %d were allowed of %+v", c.most(), b)
		}
	}
}

// most is what may be allowed of a bucket in a period at the most. A credit that was not acknowledged may count.
func (c *count) most() int64 {
	if c.limit.units > 0 {
		return c.limit.units
	}
	var sum int64
	for _, cr := range c.account.credits {
		sum += cr.units
	}
	return sum
}

// used is how many requests were allowed from one time to another.
func (c *count) used(from, to time.Time) (n int64) {
	for _, t := range c.times {
		if !t.Before(from) && !t.After(to) {
			n++
		}
	}
	return n
}

// onePeriod reports whether the whole test was in one period of the limit.
func (w *world) onePeriod(l *limit) bool { return l.begins(w.began) == l.begins(time.Now()) }

// overspent notes the buckets that were allowed more than their limit in all periods of the test together: requests that were under
// way when a period ended are in no other count.
func (w *world) overspent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b, c := range w.counts {
		periods := int64(len(c.sure))
		if w.onePeriod(&c.limit) {
			periods = 1
		}
		if n := int64(len(c.times)); c.limit.window != "second" && n > c.most()*periods {
			w.faultLocked("%d were allowed of %+v, which has %d", n, b, c.most())
		}
	}
}

// delays are how long changes were not known everywhere, in order: for each key, when the last request was sent that showed that.
func (w *world) delays() (revoked, made []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.keys {
		if made = append(made, k.unknown); !k.revoked.IsZero() {
			revoked = append(revoked, k.late)
		}
	}
	slices.Sort(revoked)
	slices.Sort(made)
	return revoked, made
}
