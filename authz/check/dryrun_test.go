package check_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func TestDryRun_LetsDenialsThrough(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{DryRun: true})
	if d := w.Check(t.Context(), request()); !d.Allowed() || w.book.entries[0].DryRunReason != authz.ReasonKeyMissing {
		t.Errorf("a dry run denies, or does not say what it would do: %+v", w.book.entries)
	}
	d := w.Check(t.Context(), request("x-tollkeeper-account", "victim", "x_tollkeeper_plan", "all"))
	if got := strings.Join(d.RemoveRequestHeaders, " "); got != "x-tollkeeper-account x_tollkeeper_plan" {
		t.Errorf("a dry run lets forged headers through: removes %q", got)
	}
	if e := w.Explain(t.Context(), request(), check.Explained{}); e.Decision.Allowed() {
		t.Error("a dry run explains away a denial")
	}
	w.book.entries = nil
	r := request()
	r.Fault = "broken"
	w.wantDeny(t, w.Check(t.Context(), r), authz.ReasonRequestMalformed)
}

// TestDryRun_DeniesWhatCouldNotBeDecided has the policy itself give the reasons of our own faults, and judge callers about whom a
// store gave no answer.
func TestDryRun_DeniesWhatCouldNotBeDecided(t *testing.T) {
	for _, reason := range []authz.Reason{
		authz.ReasonPolicyError, authz.ReasonStoreUnavailable, authz.ReasonStateStale, authz.ReasonDecisionTimeout, authz.ReasonTokenStatusUnknown,
		authz.ReasonRequestMalformed,
	} {
		w := newWorld(t, always(authz.Verdict{Reason: reason}), check.Options{DryRun: true})
		w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), reason)
	}
	w := newWorld(t, always(authz.Verdict{Reason: "no_key"}), check.Options{DryRun: true})
	w.Checker = check.New(lost{}, w.revoked, w.meter, w.book, check.Options{DryRun: true, Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	w.Use(&check.Rules{Policy: always(authz.Verdict{Reason: "no_key"})})
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), "no_key")
	w.book.entries = nil
	if d := w.Check(t.Context(), request()); !d.Allowed() {
		t.Errorf("a request without a key, which needs no store: %s", d.DeniedFor())
	}
	opt := check.Options{DryRun: true, Credentials: check.Sources{Headers: []string{"x-api-key"}}}
	keys, rules := apikey.NewIdentifier(w.keys, apikey.Hasher{}), check.Rules{Policy: always(authz.Verdict{Reason: "later"}), Plans: map[string][]authz.Limit{"small": limits}}
	for name, c := range map[string]*check.Checker{
		"a ledger without an answer": check.New(keys, w.revoked, silent{w.meter}, w.book, opt),
		"old revocations":            check.New(keys, revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now), w.meter, w.book, opt),
	} {
		c.Use(&rules)
		if d := c.Check(t.Context(), request("x-api-key", w.text)); d.DeniedFor() != "later" {
			t.Errorf("%s: denied for %q", name, d.DeniedFor())
		}
	}
}

func TestExplain_TakesNothing(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	for range 5 {
		if e := w.Explain(t.Context(), request("x-api-key", w.text), check.Explained{}); !e.Decision.Allowed() || e.Charge["daily"] != 1 {
			t.Fatalf("%+v", e)
		}
	}
	if w.spent(t) != 0 {
		t.Errorf("explaining spent %d", w.spent(t))
	}
	w.wantRecorded(t, 0)
}

// misled is a policy whose evaluator is wrong until it is traced.
type misled struct{ found bool }

func (m *misled) Decide(_ context.Context, _ *authz.Request, _ *authz.Facts, tr *authz.Trace) (authz.Verdict, error) {
	if tr != nil && !m.found {
		m.found, tr.Differed = true, true
		return authz.Verdict{}, errors.New("the evaluators disagree")
	}
	return authz.Verdict{Allowed: !m.found, Reason: "later"}, nil
}

func (m *misled) Revision() string { return "r1" }

func TestExplain_OfADifference(t *testing.T) {
	w := newWorld(t, &misled{}, check.Options{})
	if e := w.Explain(t.Context(), request(), check.Explained{}); e.Decision.DeniedFor() != "later" || e.Trace.Differed {
		t.Errorf("%+v", e)
	}
	w.wantRecorded(t, 0)
}
