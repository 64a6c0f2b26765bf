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

// noRecorder records nothing.
type noRecorder struct{}

func (noRecorder) Record(*check.Entry) {}

// shipped is a checker over memory stores with the shipped policies and a verdict cache of that size, and a request with a
// good key for a route with a parameter.
func shipped(t testing.TB, memo int) (*check.Checker, *authz.Request) {
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
	c := check.New(apikey.NewIdentifier(keys, apikey.Hasher{}), revoked, dispenser.New(memory.NewLedger(time.Now), "n", time.Now), noRecorder{},
		check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Bearer: true}})
	plans, faults := quota.ParsePlans(map[string]any{"free": map[string]any{"limits": map[string]any{
		"rate":  map[string]any{"units": 1 << 50, "window": "month"},
		"daily": map[string]any{"units": 1 << 50, "window": "month", "per": "account"},
	}}})
	if faults != nil {
		t.Fatal(faults)
	}
	c.Use(&check.Rules{Policy: p, Routes: &table{}, Plans: plans})
	r := request(":method", "GET", ":path", "/ok/7", ":authority", "api", "accept", "*/*", "user-agent", "curl/8", "x-request-id", "0b9f",
		"x-forwarded-for", "10.0.0.1", "x-forwarded-proto", "http", "x-api-key", text)
	r.HTTP.Path, r.HTTP.Segments = "/ok/7", []string{"ok", "7"}
	r.Source = &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "10.0.0.1", Port: 4000}}}
	return c, r
}

// allocations is how many a check of a good key may make when its verdict is cached. Among them are the lists of the answer, the
// texts of two headers, the deadlines, and what is remembered of the stream.
const allocations = 11

// TestCheck_AllocationBudget counts allocations. Every check is on a stream of its own.
func TestCheck_AllocationBudget(t *testing.T) {
	c, r := shipped(t, 100)
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

// TestCheck_ACachedVerdictIsDeniedToACallerWhoWentAway: the caller leaves before a verdict that comes from the cache.
func TestCheck_ACachedVerdictIsDeniedToACallerWhoWentAway(t *testing.T) {
	c, r := shipped(t, 100)
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
	r.HTTP.ID = "1" // a stream that was charged before only looks
	if after := left(); after != before || after == "" {
		t.Errorf("%q was left before, %q after", before, after)
	}
}

// BenchmarkCheck is the whole request path without the wire: a good key under the shipped policies, every time on a stream of its
// own.
func BenchmarkCheck(b *testing.B) {
	for _, memo := range []int{20_000, 0} {
		b.Run(fmt.Sprintf("memo=%d", memo), func(b *testing.B) {
			c, r := shipped(b, memo)
			benchmarkCheck(b, r, c.Check)
		})
	}
}

// BenchmarkPool is BenchmarkCheck with (on) and without (off) the pool of evaluations.
func BenchmarkPool(b *testing.B) {
	b.Run("pool=on", func(b *testing.B) {
		c, r := shipped(b, 20_000)
		benchmarkCheck(b, r, c.Check)
	})
	b.Run("pool=off", func(b *testing.B) {
		c, r := shipped(b, 20_000)
		benchmarkCheck(b, r, c.CheckUnpooled)
	})
}

func benchmarkCheck(b *testing.B, r *authz.Request, check func(context.Context, *authz.Request) authz.Decision) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		r.HTTP.ID, r.Time = "1234567890123456789", time.Unix(1700000000, int64(i))
		if d := check(b.Context(), r); !d.Allowed() {
			b.Fatal(d.DeniedFor())
		}
	}
}
