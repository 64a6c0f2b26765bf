package bolt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// TestWrites_TooLarge writes what bbolt cannot store: the caller is at fault, and other writes go on.
func TestWrites_TooLarge(t *testing.T) {
	db := openFresh(t, Options{})
	huge := strings.Repeat("x", 40_000)
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowNone}
	keys, ledger, ctx := db.Keys(), db.Ledger(), t.Context()
	for what, err := range map[string]error{
		"account without id": second(keys.CreateAccount(ctx, apikey.Account{})),
		"account":            second(keys.CreateAccount(ctx, apikey.Account{ID: huge})),
		"meta":               second(keys.CreateAccount(ctx, apikey.Account{ID: "a", Meta: map[string]any{"f": func() {}}})),
		"year":               second(keys.CreateAccount(ctx, apikey.Account{ID: "b", CreatedAt: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)})),
		"bucket":             second(quotatest.Ask{Node: "a", Bucket: quota.Bucket{Holder: huge}, Limit: l, Want: 1}.Send(ctx, ledger)),
		"credit":             second(ledger.Credit(ctx, quota.CreditRequest{ID: huge, Limit: l, Units: 1})),
		"credit without id":  second(ledger.Credit(ctx, quota.CreditRequest{Limit: l, Units: 1})),
		"settle":             second(ledger.Settle(ctx, quota.SettleRequest{ID: huge, Limit: l})),
		"settle without id":  second(ledger.Settle(ctx, quota.SettleRequest{Limit: l})),
	} {
		if err == nil || authz.KindOf(err) != authz.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := ledger.Balance(ctx, quota.Bucket{}, l); err != nil || got.Allowance != 10 {
		t.Errorf("a refused credit left something: %+v, %v", got, err)
	}
	if err := db.Check(ctx); err != nil {
		t.Error(err)
	}
}

// TestLedger_ForgetsSettlements checks that old settlements do not pile up.
func TestLedger_ForgetsSettlements(t *testing.T) {
	now := time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC)
	db := openFresh(t, Options{Now: func() time.Time { return now }})
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowNone}
	settle := func(id string) {
		if _, err := db.Ledger().Settle(t.Context(), quota.SettleRequest{ID: id, Limit: l}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		settle(fmt.Sprint(i))
	}
	now = now.Add(quota.SettleMemory + 1)
	settle("3") // is forgotten, and so settled again
	for i := range 3 {
		settle(fmt.Sprint("new ", i))
	}
	if err := db.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.commits.do(t.Context(), func(w *write) error {
		if n := w.tx.Bucket([]byte(bucketSettled)).Stats().KeyN; n != 4 {
			t.Errorf("%d settlements are remembered, want 4", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
