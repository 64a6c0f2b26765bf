package check_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// rule is a policy written in Go.
type rule func(ctx context.Context, r *authz.Request, f *authz.Facts) (authz.Verdict, error)

func (p rule) Decide(ctx context.Context, r *authz.Request, f *authz.Facts, _ *authz.Trace) (authz.Verdict, error) {
	return p(ctx, r, f)
}
func (p rule) Revision() string { return "r1" }

func always(v authz.Verdict) rule {
	return func(context.Context, *authz.Request, *authz.Facts) (authz.Verdict, error) { return v, nil }
}

// goodKey allows callers with a good key and room in every quota.
func goodKey(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
	if f.Key.Status != authz.KeyActive {
		return authz.Verdict{Reason: authz.Reason("key_" + string(f.Key.Status))}, nil
	}
	for _, q := range f.Quota {
		if q.State != authz.QuotaOK {
			return authz.Verdict{Reason: authz.ReasonQuotaExceeded, Status: 402}, nil
		}
	}
	return authz.Verdict{Allowed: true}, nil
}

// book keeps every entry.
type book struct {
	mu      sync.Mutex
	entries []check.Entry
}

func (b *book) Record(e *check.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept, facts, decision := *e, *e.Facts, *e.Decision
	kept.Facts, kept.Decision = &facts, &decision
	facts.Quota, facts.Route.Params = slices.Clone(facts.Quota), slices.Clone(facts.Route.Params)
	b.entries = append(b.entries, kept)
}

// world is a checker over memory stores, with the account acme and its key.
type world struct {
	*check.Checker
	book    *book
	keys    *memory.Keys
	revoked *revocation.Set
	ledger  quota.Ledger
	meter   *dispenser.Dispenser
	text    string
	key     *apikey.Key
}

var limits = []authz.Limit{{Name: "daily", Units: 3, Unit: authz.UnitRequests, Window: authz.WindowDay, Per: authz.PerKey}}

func newWorld(t *testing.T, p check.Policy, opt check.Options) *world {
	t.Helper()
	w := &world{book: &book{}, keys: memory.NewKeys(), ledger: memory.NewLedger(time.Now)}
	now := time.Now()
	if _, err := w.keys.CreateAccount(t.Context(), apikey.Account{ID: "acme", Plan: "small", Status: authz.AccountActive, CreatedAt: now, UpdatedAt: now, Version: 1}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.text, err = apikey.NewText("live"); err != nil {
		t.Fatal(err)
	}
	w.key, err = w.keys.CreateKey(t.Context(), apikey.Key{
		ID: "key_1", Lineage: "key_1", Account: "acme", Environment: "live", CreatedAt: now, UpdatedAt: now, Version: 1,
		Digest: apikey.Hasher{}.Text(w.text),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.revoked = revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now)
	if err := w.revoked.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.meter = dispenser.New(w.ledger, "test", time.Now)
	if opt.Credentials.Headers == nil {
		opt.Credentials = check.Sources{Headers: []string{"x-api-key"}, Bearer: true, Query: []string{"api_key"}, Cookies: []string{"key"}}
	}
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, w.book, opt)
	w.Use(&check.Rules{Policy: p, Plans: map[string][]authz.Limit{"small": limits}})
	return w
}

func request(headers ...string) *authz.Request {
	r := &authz.Request{HTTP: &authz.HTTP{Method: "GET", Path: "/v1/x", Host: "api", Segments: []string{"v1", "x"}}}
	for i := 0; i < len(headers); i += 2 {
		r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: headers[i], Value: headers[i+1]})
	}
	return r
}

// spent is what the ledger says the key has spent.
func (w *world) spent(t *testing.T) int64 {
	t.Helper()
	bucket := quota.BucketOf(&limits[0], authz.Holder{Key: "key_1", Account: "acme"})
	if err := w.meter.Report(t.Context(), bucket, &limits[0]); err != nil {
		t.Fatal(err)
	}
	got, err := w.ledger.Balance(t.Context(), bucket, limits[0])
	if err != nil {
		t.Fatal(err)
	}
	return got.Spent
}

// wantDeny checks a denial, and that it was recorded exactly once.
func (w *world) wantDeny(t *testing.T, d authz.Decision, reason authz.Reason) {
	t.Helper()
	if d.Allowed() || d.DeniedFor() != reason {
		t.Errorf("allowed %v for %q, want a denial for %q (%s)", d.Allowed(), d.DeniedFor(), reason, w.lastCause())
	}
	if got := d.Headers.Get(check.HeaderReason); got != string(reason) {
		t.Errorf("%s is %q, want %q", check.HeaderReason, got, reason)
	}
	w.wantRecorded(t, 1)
}

func (w *world) lastCause() string {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	if len(w.book.entries) == 0 {
		return "nothing recorded"
	}
	return w.book.entries[len(w.book.entries)-1].Cause
}

func (w *world) wantRecorded(t *testing.T, n int) {
	t.Helper()
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	if len(w.book.entries) != n {
		t.Errorf("%d entries recorded, want %d", len(w.book.entries), n)
	}
}
