package token_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// clock is a clock that the test moves.
type clock struct{ t atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.t.Load()).UTC() }

func (c *clock) advance(d time.Duration) { c.t.Add(int64(d)) }

func (c *clock) set(t time.Time) { c.t.Store(t.UnixNano()) }

// newClock starts years ago, so that tests notice code that uses the machine's clock.
func newClock() *clock {
	c := &clock{}
	c.set(time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC))
	return c
}

// timing is the default timing of a server.
func timing() token.Timing {
	return token.Timing{
		Refresh: 5 * time.Minute, MissInterval: 5 * time.Second, MaxAge: 24 * time.Hour, Skew: 30 * time.Second,
		MaxLifetime: 24 * time.Hour,
	}
}

// fixture is a verifier that trusts one issuer, with a clock for both.
type fixture struct {
	*token.Verifier
	issuer *tokentest.Issuer
	clock  *clock
}

func newFixture(t *testing.T, change func(*token.Options)) *fixture {
	t.Helper()
	return newFixtureOf(t, tokentest.New(), change)
}

// newFixtureOf trusts that issuer, and closes it.
func newFixtureOf(t *testing.T, issuer *tokentest.Issuer, change func(*token.Options)) *fixture {
	t.Helper()
	fx := &fixture{issuer: issuer, clock: newClock()}
	t.Cleanup(fx.issuer.Close)
	fx.issuer.Now = fx.clock.now
	opt := token.Options{
		Issuers: []token.Issuer{{
			Name: fx.issuer.URL, Audiences: []string{"api", "api2"}, Discovery: true, AccountClaim: "org", PlanClaim: "plan",
			LogoutAudiences: []string{"client"}, EventAudiences: []string{"receiver"},
		}},
		Timing: timing(), IsKey: func(s string) bool { return strings.HasPrefix(s, "tk_") }, MayBeKey: noKey,
		Now: fx.clock.now, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	for i := range opt.Issuers {
		if err := opt.Issuers[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	fx.Verifier = token.New(opt)
	t.Cleanup(fx.Close)
	fx.Ready(t.Context())
	return fx
}

func (fx *fixture) status(t *testing.T, text string) authz.TokenStatus {
	t.Helper()
	return fx.Identify(t.Context(), &authz.Bearer{Text: text}, fx.clock.now()).Status
}

func (fx *fixture) want(t *testing.T, text string, want authz.TokenStatus) {
	t.Helper()
	if got := fx.status(t, text); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
}

// newIntrospectionFixture has no issuer of signed tokens; opaque tokens are introspected.
func newIntrospectionFixture(t *testing.T, change func(*token.Introspection)) *fixture {
	t.Helper()
	issuer := tokentest.New()
	return newFixtureOf(t, issuer, func(o *token.Options) {
		in := &token.Introspection{
			URL: issuer.URL + tokentest.IntrospectPath, Issuer: issuer.URL, ClientID: issuer.ClientID, Secret: issuer.Secret,
			AccountClaim: "org", TTL: 10 * time.Second, NegativeTTL: 2 * time.Second, Timeout: 5 * time.Second,
		}
		if change != nil {
			change(in)
		}
		if err := in.Check(); err != nil {
			t.Fatal(err)
		}
		o.Issuers, o.Introspection = nil, in
	})
}

// noKey is a store without API keys.
func noKey(context.Context, string) (bool, error) { return false, nil }

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

// forge puts a token together with any signature.
func forge(header, payload, signature string) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + "." + signature
}

// object is a JSON object.
type object = map[string]any
