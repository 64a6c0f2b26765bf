package check_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// gauges is a meter that shows fixed facts and grants what they have room for.
type gauges struct{ facts []authz.QuotaFact }

func (g gauges) Peek(_ context.Context, _ authz.Holder, _ []authz.Limit, facts []authz.QuotaFact) {
	copy(facts, g.facts)
}

func (g gauges) Reserve(_ context.Context, _ authz.Holder, limits []authz.Limit, c authz.Charge, facts []authz.QuotaFact, _ *authz.Reservation) bool {
	copy(facts, g.facts)
	ok := true
	for i := range facts {
		if facts[i].Remaining < c[limits[i].Name] {
			facts[i].State, ok = authz.QuotaInsufficient, false
		}
	}
	return ok
}

// TestLimits_AreThoseOfTheRequest uses four limits, most of them used up or nearly so, and requests that charge some of them.
func TestLimits_AreThoseOfTheRequest(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	limits := []authz.Limit{
		{Name: "rate", Units: 60, Unit: authz.UnitRequests, Window: authz.WindowMinute},
		{Name: "hourly", Units: 100, Unit: authz.UnitRequests, Window: authz.WindowHour},
		{Name: "daily", Units: 1000, Unit: authz.UnitRequests, Window: authz.WindowDay},
		{Name: "credits", Unit: "credits", Window: authz.WindowNone},
	}
	fact := func(name string, limit, remaining int64, resets, window time.Duration) authz.QuotaFact {
		f := authz.QuotaFact{Name: name, State: authz.QuotaOK, Limit: limit, Remaining: remaining, Window: window}
		if remaining == 0 {
			f.State = authz.QuotaExhausted
		}
		if window > 0 {
			f.ResetsAt = now.Add(resets)
		}
		return f
	}
	facts := []authz.QuotaFact{
		fact("rate", 60, 0, 57*time.Second, time.Minute), fact("hourly", 100, 2, time.Hour, time.Hour),
		fact("daily", 1000, 0, 28317*time.Second, 24*time.Hour), fact("credits", 10, 0, 0, 0),
	}
	deny := func(reason authz.Reason, charge authz.Charge) authz.Verdict {
		return authz.Verdict{Reason: reason, Charge: charge}
	}
	cases := []struct {
		name            string
		verdict         authz.Verdict
		violated, after string
		limit           string
	}{
		{"the policy says what it charges", deny(authz.ReasonRateLimited, authz.Charge{"rate": 1, "hourly": 1}), "rate", "57", `"rate";r=0;t=57`},
		{"two limits denied", deny(authz.ReasonQuotaExceeded, authz.Charge{"rate": 1, "daily": 1}), "rate daily", "28317", `"rate";r=0;t=57, "daily";r=0;t=28317`},
		{"less is left than it costs", deny(authz.ReasonQuotaExceeded, authz.Charge{"hourly": 3}), "hourly", "3600", `"hourly";r=2;t=3600`},
		{"waiting does not fill credits", deny(authz.ReasonQuotaExceeded, authz.Charge{"rate": 1, "credits": 1}), "rate credits", "", `"rate";r=0;t=57, "credits";r=0`},
		{"the policy does not say", deny(authz.ReasonQuotaExceeded, nil), "rate daily", "28317", `"rate";r=0;t=57, "daily";r=0;t=28317`},
		{"it insists on what cannot be taken", authz.Verdict{Allowed: true, Charge: authz.Charge{"rate": 1}}, "rate", "57", `"rate";r=0;t=57`},
		{"another reason", deny(authz.ReasonPermissionDenied, authz.Charge{"rate": 1}), "", "", ""},
		{"allowed", authz.Verdict{Allowed: true, Charge: authz.Charge{"hourly": 1}}, "", "", `"hourly";r=2;t=3600`},
		{"allowed without a charge", authz.Verdict{Allowed: true, Charge: authz.Charge{}}, "", "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, always(c.verdict), check.Options{Now: func() time.Time { return now }})
			checker := check.New(good{}, w.revoked, gauges{facts}, w.book, check.Options{
				Credentials: check.Sources{Headers: []string{"x-api-key"}}, Now: func() time.Time { return now }})
			reset := authz.ReasonInfo{Status: 429, Retry: authz.RetryReset}
			checker.Use(&check.Rules{Policy: always(c.verdict), Plans: map[string][]authz.Limit{"small": limits},
				Reasons: map[authz.Reason]authz.ReasonInfo{authz.ReasonQuotaExceeded: reset, authz.ReasonRateLimited: reset}})
			d := checker.Check(t.Context(), request("x-api-key", "key"))
			headers := slices.Concat(d.Headers, d.ResponseHeaders)
			var body struct {
				Violated []string `json:"violated-policies"`
				ResetAt  string   `json:"reset_at"`
			}
			if !d.Allowed() {
				if err := json.Unmarshal([]byte(d.Body), &body); err != nil {
					t.Fatal(err)
				}
			}
			if got := headers.Get("ratelimit"); got != c.limit || strings.Count(headers.Get("ratelimit-policy"), ";q=") != strings.Count(c.limit, ";r=") {
				t.Errorf("ratelimit %s, want %s; policy %s", got, c.limit, headers.Get("ratelimit-policy"))
			}
			if got := headers.Get("retry-after"); got != c.after {
				t.Errorf("retry-after %q, want %q", got, c.after)
			}
			if got := strings.Join(body.Violated, " "); got != c.violated || (body.ResetAt == "") != (c.after == "") {
				t.Errorf("violated %q until %q, want %q", got, body.ResetAt, c.violated)
			}
		})
	}
}

// good knows one key.
type good struct{}

func (good) Identify(context.Context, string, time.Time) (authz.KeyFact, authz.AccountFact) {
	return authz.KeyFact{Status: authz.KeyActive, ID: "key_1", Account: "acme", Plan: "small", Lineage: "key_1"}, authz.AccountFact{ID: "acme", Plan: "small", Status: authz.AccountActive}
}

func (good) Account(context.Context, string) authz.AccountFact {
	return authz.AccountFact{ID: "acme", Plan: "small", Status: authz.AccountActive}
}
