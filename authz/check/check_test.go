package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

func TestCheck_ZeroValuesDeny(t *testing.T) {
	var d authz.Decision
	if d.Allowed() || d.HTTPStatus() != 403 || d.DeniedFor() != authz.ReasonPolicyError {
		t.Errorf("the zero decision: %+v", d)
	}
	w := newWorld(t, rule(goodKey), check.Options{})
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, w.book, check.Options{})
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), authz.ReasonPolicyError)
}

func TestCheck_Allow(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	d := w.Check(t.Context(), request("x-api-key", w.text, "x-tollkeeper-account", "forged", "x-tollkeeper-admin", "yes"))
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
	if w.spent(t) != 1 {
		t.Errorf("spent %d, want 1", w.spent(t))
	}
	w.wantRecorded(t, 1)
}

func TestCheck_QuotaRunsOut(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	for range 3 {
		if d := w.Check(t.Context(), request("x-api-key", w.text)); !d.Allowed() {
			t.Fatalf("denied: %s", d.DeniedFor())
		}
	}
	w.book.entries = nil
	d := w.Check(t.Context(), request("x-api-key", w.text))
	w.wantDeny(t, d, authz.ReasonQuotaExceeded)
	if d.Status != 402 || !strings.HasPrefix(d.Headers.Get("ratelimit"), `"daily";r=0;t=`) {
		t.Errorf("status %d, headers %v", d.Status, d.Headers)
	}
	var problem map[string]any
	if err := json.Unmarshal([]byte(d.Body), &problem); err != nil || problem["code"] != "quota_exceeded" || problem["status"] != 402.0 {
		t.Errorf("body %s: %v", d.Body, err)
	}
	if w.spent(t) != 3 {
		t.Errorf("spent %d, want 3", w.spent(t))
	}
}

// TestCheck_APolicyThatIgnoresQuotaCannotGrantMore uses a policy that always allows.
func TestCheck_APolicyThatIgnoresQuotaCannotGrantMore(t *testing.T) {
	w := newWorld(t, always(authz.Verdict{Allowed: true}), check.Options{})
	for range 3 {
		w.Check(t.Context(), request("x-api-key", w.text))
	}
	w.book.entries = nil
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), authz.ReasonQuotaExceeded)
}

func TestCheck_WhatBreaksIsADenial(t *testing.T) {
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
			w := newWorld(t, c.policy, check.Options{Timeout: 20 * time.Millisecond})
			d := w.Check(t.Context(), request("x-api-key", w.text))
			w.wantDeny(t, d, c.want)
			if all := d.Body + d.Headers.Get(check.HeaderReason); strings.Contains(all, "hunter2") {
				t.Errorf("the cause reaches the caller: %s", all)
			}
			if w.spent(t) != 0 {
				t.Errorf("spent %d for a denial", w.spent(t))
			}
		})
	}
}

func TestCheck_ACallerWhoGoesAwayPaysNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := newWorld(t, always(authz.Verdict{Allowed: true}), check.Options{})
	slowMeter := cancelling{w.meter, cancel}
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, slowMeter, w.book, check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}}})
	w.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{"small": limits}})
	w.wantDeny(t, w.Check(ctx, request("x-api-key", w.text)), authz.ReasonDecisionTimeout)
	if w.spent(t) != 0 {
		t.Errorf("spent %d", w.spent(t))
	}
}

// cancelling is a meter that makes the caller go away while it reserves.
type cancelling struct {
	*dispenser.Dispenser
	cancel context.CancelFunc
}

func (c cancelling) Reserve(ctx context.Context, h authz.Holder, l []authz.Limit, ch authz.Charge, f []authz.QuotaFact, r *authz.Reservation) bool {
	ok := c.Dispenser.Reserve(ctx, h, l, ch, f, r)
	c.cancel()
	return ok
}

func TestCheck_RevocationBeatsEverything(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	if _, err := w.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: "key_1", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), authz.ReasonKeyRevoked)

	w = newWorld(t, rule(goodKey), check.Options{})
	if _, err := w.revoked.Revoke(t.Context(), revocation.Record{Kind: revocation.KindAccount, Value: "acme", Before: time.Now(), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), authz.ReasonKeyRevoked)
}

func TestRecorder_APanicKeepsTheAnswer(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, panicking{}, check.Options{})
	w.Use(&check.Rules{Policy: rule(goodKey)})
	if d := w.Check(t.Context(), request()); d.Allowed() || d.DeniedFor() != authz.ReasonKeyMissing {
		t.Errorf("%+v", d)
	}
}

type panicking struct{}

func (panicking) Record(*check.Entry) { panic("disk") }

// TestPlan_AMissingOneIsNotUnlimited uses a policy that does not look at plans.
func TestPlan_AMissingOneIsNotUnlimited(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{"other": limits}})
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), authz.ReasonPolicyError)
	w.Use(&check.Rules{Policy: always(authz.Verdict{Allowed: true}), Plans: map[string][]authz.Limit{}})
	if d := w.Check(t.Context(), request("x-api-key", w.text)); !d.Allowed() {
		t.Errorf("without any plans: %s", d.DeniedFor())
	}
}
