package check_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// forgetful records nothing.
type forgetful struct{}

func (forgetful) Record(*check.Entry) {}

// quick is a checker over memory stores with the shipped policies, and a request with a good key.
func quick(t testing.TB, memo int) (*check.Checker, *authz.Request) {
	t.Helper()
	keys, now := memory.NewKeys(), time.Now()
	if _, err := keys.CreateAccount(t.Context(), apikey.Account{ID: "acme", Plan: "free", Status: authz.AccountActive, CreatedAt: now, Version: 1}); err != nil {
		t.Fatal(err)
	}
	text, err := apikey.NewText("live")
	if err != nil {
		t.Fatal(err)
	}
	k := apikey.Key{ID: "key_1", Lineage: "key_1", Account: "acme", Environment: "live", CreatedAt: now, Version: 1, Digest: apikey.Hasher{}.Text(text)}
	if _, err := keys.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	revoked := revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now)
	if err := revoked.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(t.Context(), bundle.FS(policies.Files), policy.Options{CachedVerdicts: memo})
	if err != nil {
		t.Fatal(err)
	}
	c := check.New(apikey.NewIdentifier(keys, apikey.Hasher{}), revoked, dispenser.New(memory.NewLedger(time.Now), "n", time.Now), forgetful{},
		check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Bearer: true}})
	plans, err := quota.ParsePlans(map[string]any{"free": map[string]any{"limits": map[string]any{
		"rate":  map[string]any{"units": 1 << 50, "window": "month"},
		"daily": map[string]any{"units": 1 << 50, "window": "month", "per": "account"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c.Use(&check.Rules{Policy: p, Plans: plans})
	r := request(":method", "GET", ":path", "/v1/x", ":authority", "api", "accept", "*/*", "user-agent", "curl/8", "x-request-id", "0b9f",
		"x-forwarded-for", "10.0.0.1", "x-forwarded-proto", "http", "x-api-key", text)
	r.Source = &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "10.0.0.1", Port: 4000}}}
	return c, r
}

// allocations is how many a check of a good key may make when its verdict is remembered. Among them are the answer's lists,
// the texts of two headers, and what is kept of the stream.
const allocations = 16

// TestAllocationBudget holds the budget. Every check is on a stream of its own.
func TestAllocationBudget(t *testing.T) {
	c, r := quick(t, 100)
	i := 0
	n := testing.AllocsPerRun(2000, func() {
		i++
		r.HTTP.ID, r.Time = "1234567890123456789", time.Unix(1700000000, int64(i))
		if d := c.Check(t.Context(), r); !d.Allowed() {
			t.Fatal(d.DeniedFor())
		}
	})
	if n > allocations+raceAllocations {
		t.Errorf("%v allocations a check, want at most %d", n, allocations)
	}
}

// TestARememberedVerdictIsForThoseWhoWait has a caller leave before a verdict that need not be worked out.
func TestARememberedVerdictIsForThoseWhoWait(t *testing.T) {
	c, r := quick(t, 100)
	left := func() string {
		d := c.Check(t.Context(), r)
		return d.ResponseHeaders.Get("ratelimit")
	}
	r.HTTP.ID, r.Time = "1", time.Unix(1700000000, 0)
	before := left()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.HTTP.ID = "2"
	if d := c.Check(ctx, r); d.Allowed() || d.DeniedFor() != authz.ReasonDecisionTimeout {
		t.Errorf("allowed: %t, %s", d.Allowed(), d.DeniedFor())
	}
	r.HTTP.ID = "1" // the stream that was charged before: it looks, and pays nothing
	if after := left(); after != before || after == "" {
		t.Errorf("%q was left, and %q is", before, after)
	}
}

// BenchmarkCheck is the whole request path but for the wire: a good key on the shipped policies, every time on a stream of
// its own.
func BenchmarkCheck(b *testing.B) {
	for _, memo := range []int{20_000, 0} {
		b.Run(fmt.Sprintf("memo=%d", memo), func(b *testing.B) {
			c, r := quick(b, memo)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				r.HTTP.ID, r.Time = "1234567890123456789", time.Unix(1700000000, int64(i))
				if d := c.Check(b.Context(), r); !d.Allowed() {
					b.Fatal(d.DeniedFor())
				}
			}
		})
	}
}
