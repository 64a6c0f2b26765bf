package apikey_test

import (
	"context"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// silent is a store that cannot answer.
type silent struct {
	apikey.Store
	keys bool // it can answer for keys, and not for accounts
}

func (s silent) Find(ctx context.Context, d apikey.Digest) (*apikey.Key, error) {
	if s.keys {
		return s.Store.Find(ctx, d)
	}
	return nil, authz.Errorf(authz.KindUnavailable, "no")
}

func (silent) Account(context.Context, string) (*apikey.Account, error) {
	return nil, authz.Errorf(authz.KindUnavailable, "no")
}

func TestIdentifier_Statuses(t *testing.T) {
	store, hasher := memory.NewKeys(), apikey.NewHasher([]byte("pepper"))
	text, err := apikey.NewText("live")
	if err != nil {
		t.Fatal(err)
	}
	k := fullKey()
	k.Digest, k.Plan = hasher.Text(text), ""
	rotated := fullKey()
	rotated.ID, rotated.Digest, rotated.Successor, rotated.OverlapEnds = "key_r", hasher.Text("rotated"), "key_1", noon().Add(time.Minute)
	if _, err := store.CreateAccount(t.Context(), apikey.Account{ID: "acme", Plan: "free", Status: authz.AccountOverdue}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Import(t.Context(), []apikey.Key{k, rotated}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		store   apikey.Store
		text    string
		want    authz.KeyStatus
		account authz.AccountStatus
	}{
		"good":              {store, text, authz.KeyActive, authz.AccountOverdue},
		"in the overlap":    {store, "rotated", authz.KeyActive, authz.AccountOverdue},
		"foreign":           {store, "foreign", authz.KeyUnknown, authz.AccountUnknown},
		"malformed":         {store, text + "x", authz.KeyMalformed, authz.AccountUnknown},
		"malformed, silent": {silent{}, "", authz.KeyMalformed, authz.AccountUnknown},
		"silent":            {silent{}, text, authz.KeyUnavailable, authz.AccountUnknown},
		"silent on account": {silent{store, true}, text, authz.KeyUnavailable, authz.AccountUnknown},
	} {
		key, account := apikey.NewIdentifier(c.store, hasher).Identify(t.Context(), c.text, noon())
		if key.Status != c.want || account.Status != c.account || key.Found() != (c.want == authz.KeyActive) {
			t.Errorf("%s: %+v, %+v", name, key, account)
		}
	}
	key, account := apikey.NewIdentifier(store, hasher).Identify(t.Context(), text, noon())
	if key.Plan != "free" || account.ID != "acme" || key.Lineage != "key_0" || !key.ExpiresAt.Equal(k.ExpiresAt) {
		t.Errorf("%+v, %+v", key, account)
	}
	if key, _ = apikey.NewIdentifier(store, hasher).Identify(t.Context(), "rotated", noon()); !key.ExpiresAt.Equal(rotated.OverlapEnds) {
		t.Errorf("a key in its overlap expires at %v", key.ExpiresAt)
	}
}
