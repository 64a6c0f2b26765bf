package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
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

// rule is a policy in Go.
type rule func(ctx context.Context, r *authz.Request, f *authz.Facts) (authz.Verdict, error)

func (p rule) Decide(ctx context.Context, r *authz.Request, f *authz.Facts, _ *authz.Trace) (authz.Verdict, error) {
	return p(ctx, r, f)
}
func (p rule) Revision() string { return "r1" }

func always(v authz.Verdict) rule {
	return func(context.Context, *authz.Request, *authz.Facts) (authz.Verdict, error) { return v, nil }
}

// goodKey allows who has a good key and room in every quota.
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
	facts.Quota = slices.Clone(facts.Quota)
	b.entries = append(b.entries, kept)
}

// bench is a checker over memory stores, with an account acme and its key.
type bench struct {
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

func newBench(t *testing.T, p check.Policy, opt check.Options) *bench {
	t.Helper()
	b := &bench{book: &book{}, keys: memory.NewKeys(), ledger: memory.NewLedger(time.Now)}
	now := time.Now()
	if _, err := b.keys.CreateAccount(t.Context(), apikey.Account{ID: "acme", Plan: "small", Status: authz.AccountActive, CreatedAt: now, UpdatedAt: now, Version: 1}); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.text, err = apikey.NewText("live"); err != nil {
		t.Fatal(err)
	}
	b.key, err = b.keys.CreateKey(t.Context(), apikey.Key{
		ID: "key_1", Lineage: "key_1", Account: "acme", Environment: "live", CreatedAt: now, UpdatedAt: now, Version: 1,
		Digest: apikey.Hasher{}.Text(b.text),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.revoked = revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now)
	if err := b.revoked.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.meter = dispenser.New(b.ledger, "test", time.Now)
	if opt.Credentials.Headers == nil {
		opt.Credentials = check.Sources{Headers: []string{"x-api-key"}, Bearer: true, Query: []string{"api_key"}, Cookies: []string{"key"}}
	}
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, b.meter, b.book, opt)
	b.Use(&check.Rules{Policy: p, Plans: map[string][]authz.Limit{"small": limits}})
	return b
}

func request(headers ...string) *authz.Request {
	r := &authz.Request{HTTP: &authz.HTTP{Method: "GET", Path: "/v1/x", Host: "api", Segments: []string{"v1", "x"}}}
	for i := 0; i < len(headers); i += 2 {
		r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: headers[i], Value: headers[i+1]})
	}
	return r
}

// spent is what the ledger says the key has spent.
func (b *bench) spent(t *testing.T) int64 {
	t.Helper()
	bucket := quota.BucketOf(&limits[0], authz.Holder{Key: "key_1", Account: "acme"})
	if err := b.meter.Report(t.Context(), bucket, &limits[0]); err != nil {
		t.Fatal(err)
	}
	got, err := b.ledger.Balance(t.Context(), bucket, limits[0])
	if err != nil {
		t.Fatal(err)
	}
	return got.Spent
}

// wantDeny checks a denial, and that it was recorded exactly once.
func (b *bench) wantDeny(t *testing.T, d authz.Decision, reason authz.Reason) {
	t.Helper()
	if d.Allowed() || d.DeniedFor() != reason {
		t.Errorf("allowed %v for %q, want a denial for %q (%s)", d.Allowed(), d.DeniedFor(), reason, b.lastCause())
	}
	if got := d.Headers.Get(check.HeaderReason); got != string(reason) {
		t.Errorf("%s is %q, want %q", check.HeaderReason, got, reason)
	}
	b.wantRecorded(t, 1)
}

func (b *bench) lastCause() string {
	b.book.mu.Lock()
	defer b.book.mu.Unlock()
	if len(b.book.entries) == 0 {
		return "nothing recorded"
	}
	return b.book.entries[len(b.book.entries)-1].Cause
}

func (b *bench) wantRecorded(t *testing.T, n int) {
	t.Helper()
	b.book.mu.Lock()
	defer b.book.mu.Unlock()
	if len(b.book.entries) != n {
		t.Errorf("%d entries recorded, want %d", len(b.book.entries), n)
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var d authz.Decision
	if d.Allowed() || d.HTTPStatus() != 403 || d.DeniedFor() != authz.ReasonPolicyError {
		t.Errorf("the zero decision: %+v", d)
	}
	b := newBench(t, rule(goodKey), check.Options{})
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, b.meter, b.book, check.Options{})
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), authz.ReasonPolicyError)
}

func TestAllow(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	d := b.Check(t.Context(), request("x-api-key", b.text, "x-tollkeeper-account", "forged", "x-tollkeeper-admin", "yes"))
	if !d.Allowed() {
		t.Fatalf("denied: %s", d.DeniedFor())
	}
	want := authz.Headers{{Name: "x-tollkeeper-key-id", Value: "key_1"}, {Name: "x-tollkeeper-account", Value: "acme"}, {Name: "x-tollkeeper-plan", Value: "small"}}
	if !reflect.DeepEqual(d.Headers, want) {
		t.Errorf("headers %v, want %v", d.Headers, want)
	}
	if got := strings.Join(d.RemoveRequestHeaders, " "); got != "x-api-key x-tollkeeper-admin" {
		t.Errorf("removes %q", got)
	}
	if got := d.ResponseHeaders.Get("ratelimit"); !strings.HasPrefix(got, `"daily";r=2;t=`) {
		t.Errorf("ratelimit %q", got)
	}
	if b.spent(t) != 1 {
		t.Errorf("spent %d, want 1", b.spent(t))
	}
	b.wantRecorded(t, 1)
}

func TestQuotaRunsOut(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	for range 3 {
		if d := b.Check(t.Context(), request("x-api-key", b.text)); !d.Allowed() {
			t.Fatalf("denied: %s", d.DeniedFor())
		}
	}
	b.book.entries = nil
	d := b.Check(t.Context(), request("x-api-key", b.text))
	b.wantDeny(t, d, authz.ReasonQuotaExceeded)
	if d.Status != 402 || !strings.HasPrefix(d.Headers.Get("ratelimit"), `"daily";r=0;t=`) {
		t.Errorf("status %d, headers %v", d.Status, d.Headers)
	}
	var problem map[string]any
	if err := json.Unmarshal([]byte(d.Body), &problem); err != nil || problem["code"] != "quota_exceeded" || problem["status"] != 402.0 {
		t.Errorf("body %s: %v", d.Body, err)
	}
	if b.spent(t) != 3 {
		t.Errorf("spent %d, want 3", b.spent(t))
	}
}

// TestAPolicyThatIgnoresQuotaCannotGrantMore has a policy that allows whatever it is told.
func TestAPolicyThatIgnoresQuotaCannotGrantMore(t *testing.T) {
	b := newBench(t, always(authz.Verdict{Allowed: true}), check.Options{})
	for range 3 {
		b.Check(t.Context(), request("x-api-key", b.text))
	}
	b.book.entries = nil
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), authz.ReasonQuotaExceeded)
}

func TestWhatBreaksIsADenial(t *testing.T) {
	secret := "postgres://root:hunter2@db/"
	cases := []struct {
		name   string
		policy rule
		want   authz.Reason
	}{
		{"error", func(context.Context, *authz.Request, *authz.Facts) (authz.Verdict, error) {
			return authz.Verdict{Allowed: true}, errors.New(secret)
		}, authz.ReasonPolicyError},
		{"panic", func(context.Context, *authz.Request, *authz.Facts) (authz.Verdict, error) { panic(secret) }, authz.ReasonPolicyError},
		{"deadline", func(ctx context.Context, _ *authz.Request, _ *authz.Facts) (authz.Verdict, error) {
			<-ctx.Done()
			return authz.Verdict{Allowed: true}, ctx.Err()
		}, authz.ReasonDecisionTimeout},
		{"late allow", func(ctx context.Context, _ *authz.Request, _ *authz.Facts) (authz.Verdict, error) {
			<-ctx.Done()
			return authz.Verdict{Allowed: true, Charge: authz.Charge{}}, nil
		}, authz.ReasonDecisionTimeout},
		{"unknown charge", always(authz.Verdict{Allowed: true, Charge: authz.Charge{"nope": 1}}), authz.ReasonPolicyError},
		{"charge beyond every count", always(authz.Verdict{Allowed: true, Charge: authz.Charge{"daily": 1<<53 + 1}}), authz.ReasonPolicyError},
		{"negative charge", always(authz.Verdict{Allowed: true, Charge: authz.Charge{"daily": -1}}), authz.ReasonPolicyError},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.policy, check.Options{Timeout: 20 * time.Millisecond})
			d := b.Check(t.Context(), request("x-api-key", b.text))
			b.wantDeny(t, d, c.want)
			if all := d.Body + d.Headers.Get(check.HeaderReason); strings.Contains(all, "hunter2") {
				t.Errorf("the cause reaches the caller: %s", all)
			}
			if b.spent(t) != 0 {
				t.Errorf("spent %d for a denial", b.spent(t))
			}
		})
	}
}

func TestCallerWhoGoesAwayPaysNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := newBench(t, always(authz.Verdict{Allowed: true}), check.Options{})
	slowMeter := cancelling{b.meter, cancel}
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, slowMeter, b.book, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	b.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{"small": limits}})
	b.wantDeny(t, b.Check(ctx, request("x-api-key", b.text)), authz.ReasonDecisionTimeout)
	if b.spent(t) != 0 {
		t.Errorf("spent %d", b.spent(t))
	}
}

// cancelling is a meter during whose reservation the caller goes away.
type cancelling struct {
	*dispenser.Dispenser
	cancel context.CancelFunc
}

func (c cancelling) Reserve(ctx context.Context, h authz.Holder, l []authz.Limit, ch authz.Charge, f []authz.QuotaFact, r *authz.Reservation) bool {
	ok := c.Dispenser.Reserve(ctx, h, l, ch, f, r)
	c.cancel()
	return ok
}

func TestRevocationBeatsEverything(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	if _, err := b.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: "key_1", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), authz.ReasonKeyRevoked)

	b = newBench(t, rule(goodKey), check.Options{})
	if _, err := b.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindAccount, Value: "acme", Before: time.Now(), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), authz.ReasonKeyRevoked)
}

func TestCredentials(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	other, _ := apikey.NewText("live")
	jwt := "eyJhbGciOiJub25lIn0.e30."
	cases := []struct {
		name    string
		headers []string
		params  map[string][]string
		want    authz.KeyStatus
	}{
		{"header", []string{"x-api-key", b.text}, nil, authz.KeyActive},
		{"header with spaces", []string{"x-api-key", " " + b.text + "\t"}, nil, authz.KeyActive},
		{"bearer", []string{"authorization", "bEaReR  " + b.text}, nil, authz.KeyActive},
		{"query", nil, map[string][]string{"api_key": {b.text}}, authz.KeyActive},
		{"cookie", []string{"cookie", "a=b; key=" + b.text}, nil, authz.KeyActive},
		{"same key in two places", []string{"x-api-key", b.text, "authorization", "Bearer " + b.text}, nil, authz.KeyActive},
		{"key beside a token", []string{"x-api-key", b.text, "authorization", "Bearer " + jwt}, nil, authz.KeyActive},
		{"key beside basic", []string{"x-api-key", b.text, "authorization", "Basic YTpi"}, nil, authz.KeyActive},
		{"nothing", nil, nil, authz.KeyMissing},
		{"empty", []string{"x-api-key", ""}, nil, authz.KeyMissing},
		{"only a token", []string{"authorization", "Bearer " + jwt}, nil, authz.KeyMissing},
		{"two headers that differ", []string{"x-api-key", b.text, "authorization", "Bearer " + other}, nil, authz.KeyAmbiguous},
		{"header twice", []string{"x-api-key", b.text, "x-api-key", b.text}, nil, authz.KeyAmbiguous},
		{"header joined", []string{"x-api-key", b.text + "," + b.text}, nil, authz.KeyAmbiguous},
		{"authorization joined", []string{"authorization", "Bearer " + b.text + ",Bearer " + other}, nil, authz.KeyAmbiguous},
		{"authorization joined with another scheme", []string{"authorization", "Basic YTpi,Bearer " + b.text}, nil, authz.KeyAmbiguous},
		{"authorization twice", []string{"authorization", "Bearer " + b.text, "authorization", "Basic YTpi"}, nil, authz.KeyAmbiguous},
		{"parameter twice", nil, map[string][]string{"api_key": {b.text, other}}, authz.KeyAmbiguous},
		{"cookie twice", []string{"cookie", "key=" + b.text, "cookie", "key=" + other}, nil, authz.KeyAmbiguous},
		{"space inside", []string{"x-api-key", b.text[:9] + " " + b.text[9:]}, nil, authz.KeyMalformed},
		{"one character wrong", []string{"x-api-key", b.text[:12] + "_" + b.text[13:]}, nil, authz.KeyMalformed},
		{"too long", []string{"x-api-key", strings.Repeat("k", 5000)}, nil, authz.KeyMalformed},
		{"of another", []string{"x-api-key", other}, nil, authz.KeyUnknown},
		{"of another form", []string{"x-api-key", "sk_1234"}, nil, authz.KeyUnknown},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got authz.KeyStatus
			b.Use(&check.Rules{Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
				got = f.Key.Status
				return authz.Verdict{}, nil
			})})
			r := request(c.headers...)
			r.HTTP.Params = c.params
			b.Check(t.Context(), r)
			if got != c.want {
				t.Errorf("key is %q, want %q", got, c.want)
			}
		})
	}
}

func TestCredentialsDoNotReachTheUpstream(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	r := request("authorization", "Bearer "+b.text, "cookie", "a=1; key="+b.text+"; b=2")
	r.HTTP.Params = map[string][]string{"api_key": {b.text}}
	d := b.Check(t.Context(), r)
	if !d.Allowed() || strings.Join(d.RemoveRequestHeaders, " ") != "authorization" || strings.Join(d.RemoveQueryParameters, " ") != "api_key" || d.Headers.Get("cookie") != "a=1; b=2" {
		t.Errorf("%+v", d)
	}
	b = newBench(t, rule(goodKey), check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Cookies: []string{"key", "old_key"}}})
	if d := b.Check(t.Context(), request("cookie", "key="+b.text+"; old_key="+b.text+"; c=1")); !d.Allowed() || d.Headers.Get("cookie") != "c=1" {
		t.Errorf("in two cookies: %+v", d)
	}
}

func TestHeadersAreMadeSafe(t *testing.T) {
	b := newBench(t, always(authz.Verdict{Headers: authz.Headers{{Name: "x-note", Value: "a\r\nset-cookie: x=1\x00"}}}), check.Options{})
	d := b.Check(t.Context(), request())
	if got := d.Headers.Get("x-note"); strings.ContainsAny(got, "\r\n\x00") {
		t.Errorf("header value %q", got)
	}
	b.wantDeny(t, d, authz.ReasonPolicyDenied)
}

// TestDenial_WithoutContentHasNoBody has a policy give a body to statuses that cannot have one.
func TestDenial_WithoutContentHasNoBody(t *testing.T) {
	body := "HTTP/1.1 200 OK"
	for status, want := range map[int]string{204: "", 304: "", 200: body, 404: body} {
		b := newBench(t, always(authz.Verdict{Status: status, Body: &body}), check.Options{})
		if d := b.Check(t.Context(), request()); d.Allowed() || d.Status != status || d.Body != want {
			t.Errorf("%d: %+v", status, d)
		}
	}
}

func TestGRPCCallers(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	d := b.Check(t.Context(), request("content-type", "application/grpc"))
	b.wantDeny(t, d, authz.ReasonKeyMissing)
	if d.Headers.Get("grpc-status") != "7" || d.Headers.Has("content-type") {
		t.Errorf("headers %v", d.Headers)
	}
	for range 4 {
		d = b.Check(t.Context(), request("content-type", "application/grpc+proto", "x-api-key", b.text))
	}
	if d.Headers.Get("grpc-status") != "8" {
		t.Errorf("quota: headers %v", d.Headers)
	}
}

func TestDryRun(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{DryRun: true})
	if d := b.Check(t.Context(), request()); !d.Allowed() || b.book.entries[0].DryRunReason != authz.ReasonKeyMissing {
		t.Errorf("a dry run denies, or does not say what it would do: %+v", b.book.entries)
	}
	d := b.Check(t.Context(), request("x-tollkeeper-account", "victim", "x_tollkeeper_plan", "all"))
	if got := strings.Join(d.RemoveRequestHeaders, " "); got != "x-tollkeeper-account x_tollkeeper_plan" {
		t.Errorf("a dry run lets forged headers through: removes %q", got)
	}
	if e := b.Explain(t.Context(), request(), nil); e.Decision.Allowed() {
		t.Error("a dry run explains away a denial")
	}
	b.book.entries = nil
	r := request()
	r.Fault = "broken"
	b.wantDeny(t, b.Check(t.Context(), r), authz.ReasonRequestMalformed)
}

// TestDryRun_DeniesWhatCouldNotBeDecided has the policy itself give the reasons of faults that are ours, and judge a caller
// of whom a store could not say anything.
func TestDryRun_DeniesWhatCouldNotBeDecided(t *testing.T) {
	for _, reason := range []authz.Reason{
		authz.ReasonPolicyError, authz.ReasonStoreUnavailable, authz.ReasonStateStale, authz.ReasonDecisionTimeout, authz.ReasonTokenStatusUnknown,
		authz.ReasonRequestMalformed,
	} {
		b := newBench(t, always(authz.Verdict{Reason: reason}), check.Options{DryRun: true})
		b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), reason)
	}
	b := newBench(t, always(authz.Verdict{Reason: "no_key"}), check.Options{DryRun: true})
	b.Checker = check.New(lost{}, b.revoked, b.meter, b.book, check.Options{DryRun: true, Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	b.Use(&check.Rules{Policy: always(authz.Verdict{Reason: "no_key"})})
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), "no_key")
	b.book.entries = nil
	if d := b.Check(t.Context(), request()); !d.Allowed() {
		t.Errorf("without a key the store has nothing to say: %s", d.DeniedFor())
	}
	opt := check.Options{DryRun: true, Credentials: check.Sources{Headers: []string{"x-api-key"}}}
	keys, rules := apikey.NewIdentifier(b.keys, apikey.Hasher{}), check.Rules{Policy: always(authz.Verdict{Reason: "later"}), Plans: map[string][]authz.Limit{"small": limits}}
	for name, c := range map[string]*check.Checker{
		"a ledger that is away":    check.New(keys, b.revoked, silent{b.meter}, b.book, opt),
		"revocations that are old": check.New(keys, revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now), b.meter, b.book, opt),
	} {
		c.Use(&rules)
		if d := c.Check(t.Context(), request("x-api-key", b.text)); d.DeniedFor() != "later" {
			t.Errorf("%s: denied for %q", name, d.DeniedFor())
		}
	}
}

// TestKey_ThatCannotBeLookedUpStaysHere has the store away on a route that asks for no key.
func TestKey_ThatCannotBeLookedUpStaysHere(t *testing.T) {
	open := always(authz.Verdict{Allowed: true})
	b := newBench(t, open, check.Options{})
	b.Checker = check.New(lost{}, b.revoked, b.meter, b.book, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Query: []string{"api_key"}}})
	b.Use(&check.Rules{Policy: open})
	r := request("x-api-key", b.text)
	r.HTTP.Path, r.HTTP.Params = "/v1/x?api_key="+b.text, map[string][]string{"api_key": {b.text}}
	d := b.Check(t.Context(), r)
	if !d.Allowed() || !slices.Contains(d.RemoveRequestHeaders, "x-api-key") || !slices.Equal(d.RemoveQueryParameters, []string{"api_key"}) {
		t.Errorf("%q: removes headers %q and parameters %q", d.DeniedFor(), d.RemoveRequestHeaders, d.RemoveQueryParameters)
	}
}

// silent is a meter whose ledger cannot say anything.
type silent struct{ check.Meter }

func (silent) Peek(_ context.Context, _ authz.Holder, _ []authz.Limit, facts []authz.QuotaFact) {
	for i := range facts {
		facts[i].State = authz.QuotaUnavailable
	}
}

// lost is a key store that cannot say anything.
type lost struct{}

func (lost) Identify(context.Context, string, time.Time) (authz.KeyFact, authz.AccountFact) {
	return authz.KeyFact{Status: authz.KeyUnavailable}, authz.AccountFact{Status: authz.AccountUnavailable}
}

func (lost) Account(context.Context, string) authz.AccountFact {
	return authz.AccountFact{Status: authz.AccountUnavailable}
}

func TestExplainTakesNothing(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	for range 5 {
		if e := b.Explain(t.Context(), request("x-api-key", b.text), nil); !e.Decision.Allowed() || e.Charge["daily"] != 1 {
			t.Fatalf("%+v", e)
		}
	}
	if b.spent(t) != 0 {
		t.Errorf("explaining spent %d", b.spent(t))
	}
	b.wantRecorded(t, 0)
}

func TestARecorderThatPanicsKeepsTheAnswer(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, b.meter, panicking{}, check.Options{})
	b.Use(&check.Rules{Policy: rule(goodKey)})
	if d := b.Check(t.Context(), request()); d.Allowed() || d.DeniedFor() != authz.ReasonKeyMissing {
		t.Errorf("%+v", d)
	}
}

type panicking struct{}

func (panicking) Record(*check.Entry) { panic("disk") }

// TestAPlanThatIsGoneIsNotUnlimited has a policy that knows nothing of plans.
func TestAPlanThatIsGoneIsNotUnlimited(t *testing.T) {
	b := newBench(t, nil, check.Options{})
	b.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{"other": limits}})
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), authz.ReasonPolicyError)
	b.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{}})
	if d := b.Check(t.Context(), request("x-api-key", b.text)); !d.Allowed() {
		t.Errorf("where there are no plans at all: %s", d.DeniedFor())
	}
}

// TestALedgerThatHangsIsAFact has a ledger that never answers: the policy is told, in time.
func TestALedgerThatHangsIsAFact(t *testing.T) {
	b := newBench(t, nil, check.Options{})
	hanging := hung{b.ledger}
	b.meter = dispenser.New(hanging, "n", time.Now)
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, b.meter, b.book, check.Options{
		Timeout: 200 * time.Millisecond, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	b.Use(&check.Rules{Plans: map[string][]authz.Limit{"small": limits}, Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		return authz.Verdict{Reason: authz.Reason("quota_" + string(f.Quota[0].State))}, nil
	})})
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), "quota_unavailable")
}

type hung struct{ quota.Ledger }

func (hung) Lease(ctx context.Context, _ quota.LeaseRequest) (quota.Lease, error) {
	<-ctx.Done()
	return quota.Lease{}, ctx.Err()
}

// TestAKeyStoreThatHangsIsAFact has a store of keys that never answers: the policy is told, in time.
func TestAKeyStoreThatHangsIsAFact(t *testing.T) {
	b := newBench(t, nil, check.Options{})
	b.Checker = check.New(apikey.NewIdentifier(hungKeys{b.keys}, apikey.Hasher{}), b.revoked, b.meter, b.book, check.Options{
		Timeout: 200 * time.Millisecond, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	b.Use(&check.Rules{Plans: map[string][]authz.Limit{"small": limits}, Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		return authz.Verdict{Reason: authz.Reason("key_" + string(f.Key.Status))}, nil
	})})
	b.wantDeny(t, b.Check(t.Context(), request("x-api-key", b.text)), "key_unavailable")
}

type hungKeys struct{ apikey.Store }

func (hungKeys) Find(ctx context.Context, _ apikey.Digest) (*apikey.Key, error) {
	<-ctx.Done()
	return nil, authz.Errorf(authz.KindUnavailable, "hung: %w", ctx.Err())
}

// TestAShortDeadlineLeavesTheLedgerItsShare has a caller in a hurry, and a ledger that needs a moment.
func TestAShortDeadlineLeavesTheLedgerItsShare(t *testing.T) {
	b := newBench(t, rule(goodKey), check.Options{})
	b.meter = dispenser.New(pausing{b.ledger}, "n", time.Now)
	b.Checker = check.New(apikey.NewIdentifier(b.keys, apikey.Hasher{}), b.revoked, b.meter, b.book, check.Options{
		Timeout: time.Minute, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	b.Use(&check.Rules{Policy: rule(goodKey), Plans: map[string][]authz.Limit{"small": limits}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // less than a fifth of the minute
	defer cancel()
	if d := b.Check(ctx, request("x-api-key", b.text)); !d.Allowed() {
		t.Errorf("denied: %s (%s)", d.DeniedFor(), b.lastCause())
	}
}

type pausing struct{ quota.Ledger }

func (p pausing) Lease(ctx context.Context, r quota.LeaseRequest) (quota.Lease, error) {
	time.Sleep(5 * time.Millisecond)
	return p.Ledger.Lease(ctx, r)
}
