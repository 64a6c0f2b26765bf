package check_test

import (
	"context"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// silent is a meter whose ledger gives no answer.
type silent struct{ check.Meter }

func (silent) Peek(_ context.Context, _ authz.Holder, _ []authz.Limit, facts []authz.QuotaFact) {
	for i := range facts {
		facts[i].State = authz.QuotaUnavailable
	}
}

// lost is a key store that gives no answer.
type lost struct{}

func (lost) Identify(context.Context, string, time.Time) (authz.KeyFact, authz.AccountFact) {
	return authz.KeyFact{Status: authz.KeyUnavailable}, authz.AccountFact{Status: authz.AccountUnavailable}
}

func (lost) Account(context.Context, string) authz.AccountFact {
	return authz.AccountFact{Status: authz.AccountUnavailable}
}

// TestLedger_OneThatHangsIsAFact uses a ledger that never answers. The policy is told so in time.
func TestLedger_OneThatHangsIsAFact(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	hanging := hung{w.ledger}
	w.meter = dispenser.New(hanging, "n", time.Now)
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, w.book, check.Options{
		Timeout: 2 * time.Second, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	w.Use(&check.Rules{Plans: map[string][]authz.Limit{"small": limits}, Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		return authz.Verdict{Reason: authz.Reason("quota_" + string(f.Quota[0].State))}, nil
	})})
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), "quota_unavailable")
}

type hung struct{ quota.Ledger }

func (hung) Lease(ctx context.Context, _ []quota.LeaseRequest) ([]quota.Answer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestKeyStore_OneThatHangsIsAFact uses a key store that never answers. The policy is told so in time.
func TestKeyStore_OneThatHangsIsAFact(t *testing.T) {
	w := newWorld(t, nil, check.Options{})
	w.Checker = check.New(apikey.NewIdentifier(hungKeys{w.keys}, apikey.Hasher{}), w.revoked, w.meter, w.book, check.Options{
		Timeout: 2 * time.Second, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	w.Use(&check.Rules{Plans: map[string][]authz.Limit{"small": limits}, Policy: rule(func(_ context.Context, _ *authz.Request, f *authz.Facts) (authz.Verdict, error) {
		return authz.Verdict{Reason: authz.Reason("key_" + string(f.Key.Status))}, nil
	})})
	w.wantDeny(t, w.Check(t.Context(), request("x-api-key", w.text)), "key_unavailable")
}

type hungKeys struct{ apikey.Store }

func (hungKeys) Find(ctx context.Context, _ apikey.Digest) (*apikey.Key, error) {
	<-ctx.Done()
	return nil, authz.Errorf(authz.KindUnavailable, "hung: %w", ctx.Err())
}

// TestDeadline_AShortOneLeavesTheLedgerItsShare uses a caller with a short deadline and a ledger that needs some time.
func TestDeadline_AShortOneLeavesTheLedgerItsShare(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	w.meter = dispenser.New(pausing{w.ledger}, "n", time.Now)
	w.Checker = check.New(apikey.NewIdentifier(w.keys, apikey.Hasher{}), w.revoked, w.meter, w.book, check.Options{
		Timeout: time.Minute, Credentials: check.Sources{Headers: []string{"x-api-key"}},
	})
	w.Use(&check.Rules{Policy: rule(goodKey), Plans: map[string][]authz.Limit{"small": limits}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // less than a fifth of the minute
	defer cancel()
	if d := w.Check(ctx, request("x-api-key", w.text)); !d.Allowed() {
		t.Errorf("denied: %s (%s)", d.DeniedFor(), w.lastCause())
	}
}

type pausing struct{ quota.Ledger }

func (p pausing) Lease(ctx context.Context, rs []quota.LeaseRequest) ([]quota.Answer, error) {
	time.Sleep(5 * time.Millisecond)
	return p.Ledger.Lease(ctx, rs)
}
