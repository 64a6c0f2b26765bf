package apikey_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func noon() time.Time { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC) }

func fullKey() apikey.Key {
	return apikey.Key{
		ID: "key_1", Name: "name", Account: "acme", Plan: "pro", Environment: "live", Scopes: []string{"read"},
		NotBefore: noon().Add(-time.Hour), ExpiresAt: noon().Add(time.Hour), Meta: map[string]any{"a": "b"}, Lineage: "key_0",
		CreatedAt: noon().Add(-time.Hour), UpdatedAt: noon().Add(-time.Hour), Version: 3, Digest: apikey.Hasher{}.Text("1"),
	}
}

func TestKey_StatusAt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*apikey.Key)
		at     time.Duration
		want   authz.KeyStatus
	}{
		"good":                     {func(*apikey.Key) {}, 0, authz.KeyActive},
		"last instant":             {func(*apikey.Key) {}, time.Hour - 1, authz.KeyActive},
		"expiry":                   {func(*apikey.Key) {}, time.Hour, authz.KeyExpired},
		"first instant":            {func(*apikey.Key) {}, -time.Hour, authz.KeyActive},
		"too early":                {func(*apikey.Key) {}, -time.Hour - 1, authz.KeyNotYetValid},
		"without bounds":           {func(k *apikey.Key) { k.NotBefore, k.ExpiresAt = time.Time{}, time.Time{} }, 1e6 * time.Hour, authz.KeyActive},
		"disabled":                 {func(k *apikey.Key) { k.Disabled = true }, 0, authz.KeyDisabled},
		"disabled and expired":     {func(k *apikey.Key) { k.Disabled = true }, 2 * time.Hour, authz.KeyDisabled},
		"disabled and early":       {func(k *apikey.Key) { k.Disabled = true }, -2 * time.Hour, authz.KeyDisabled},
		"rotated":                  {func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_2", noon() }, 0, authz.KeyRotated},
		"rotated at once":          {func(k *apikey.Key) { k.Successor = "key_2" }, 0, authz.KeyRotated},
		"in the overlap":           {func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_2", noon() }, -1, authz.KeyActive},
		"disabled in the overlap":  {func(k *apikey.Key) { k.Successor, k.OverlapEnds, k.Disabled = "key_2", noon(), true }, -1, authz.KeyDisabled},
		"expired in the overlap":   {func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_2", noon().Add(9*time.Hour) }, 2 * time.Hour, authz.KeyExpired},
		"overlap without rotation": {func(k *apikey.Key) { k.OverlapEnds = noon() }, 0, authz.KeyActive},
	} {
		k := fullKey()
		c.change(&k)
		if got := k.StatusAt(noon().Add(c.at)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestKey_PlanUse has a use end when the key expires or is replaced, whether it is enabled or not.
func TestKey_PlanUse(t *testing.T) {
	never := time.Time{}
	for name, c := range map[string]struct {
		change func(*apikey.Key)
		ends   time.Time
	}{
		"expires":                    {func(*apikey.Key) {}, noon().Add(time.Hour)},
		"disabled":                   {func(k *apikey.Key) { k.Disabled = true }, noon().Add(time.Hour)},
		"never":                      {func(k *apikey.Key) { k.ExpiresAt = never }, never},
		"overlap without rotation":   {func(k *apikey.Key) { k.OverlapEnds = noon() }, noon().Add(time.Hour)},
		"rotated":                    {func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_2", noon() }, noon()},
		"rotated and never expires":  {func(k *apikey.Key) { k.Successor, k.OverlapEnds, k.ExpiresAt = "key_2", noon(), never }, noon()},
		"expires in the overlap":     {func(k *apikey.Key) { k.Successor, k.OverlapEnds = "key_2", noon().Add(9*time.Hour) }, noon().Add(time.Hour)},
		"rotated without an overlap": {func(k *apikey.Key) { k.Successor, k.ExpiresAt = "key_2", never }, time.Unix(0, 0).UTC()},
	} {
		k := fullKey()
		c.change(&k)
		want := apikey.PlanUse{Plan: "pro", Account: "acme", Key: "key_1", CreatedAt: noon().Add(-time.Hour), Ends: c.ends}
		if got := k.PlanUse(); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestKey_SuccessorMayNoMore(t *testing.T) {
	k := fullKey()
	k.Disabled, k.Successor, k.OverlapEnds = true, "key_9", noon()
	next := apikey.SuccessorOf(&k, "key_2", apikey.Hasher{}.Text("2"), noon())
	want := fullKey()
	want.ID, want.Digest, want.Version, want.Disabled = "key_2", apikey.Hasher{}.Text("2"), 1, true
	want.CreatedAt, want.UpdatedAt = noon(), noon()
	if !reflect.DeepEqual(next, want) {
		t.Errorf("%+v, want %+v", next, want)
	}
}

// TestKey_Apply changes each field: no other field changes, and the old key does not.
func TestKey_Apply(t *testing.T) {
	for name, c := range map[string]struct {
		change apikey.KeyChange
		want   func(*apikey.Key)
	}{
		"nothing":  {apikey.KeyChange{}, func(*apikey.Key) {}},
		"name":     {apikey.KeyChange{Name: new("x")}, func(k *apikey.Key) { k.Name = "x" }},
		"plan":     {apikey.KeyChange{Plan: new("")}, func(k *apikey.Key) { k.Plan = "" }},
		"scopes":   {apikey.KeyChange{Scopes: new([]string{"a"})}, func(k *apikey.Key) { k.Scopes = []string{"a"} }},
		"disabled": {apikey.KeyChange{Disabled: new(true)}, func(k *apikey.Key) { k.Disabled = true }},
		"expiry":   {apikey.KeyChange{ExpiresAt: new(time.Time)}, func(k *apikey.Key) { k.ExpiresAt = time.Time{} }},
		"meta":     {apikey.KeyChange{Meta: map[string]any{"x": "y"}}, func(k *apikey.Key) { k.Meta["x"] = "y" }},
		"version":  {apikey.KeyChange{IfVersion: 3, Name: new("x")}, func(k *apikey.Key) { k.Name = "x" }},
	} {
		k, want := fullKey(), fullKey()
		c.change.At = noon()
		c.want(&want)
		want.UpdatedAt, want.Version = noon(), 4
		got, err := k.Apply(c.change)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
		if !reflect.DeepEqual(k, fullKey()) {
			t.Errorf("%s: the key in hand was changed", name)
		}
	}
	k := fullKey()
	if got, err := k.Apply(apikey.KeyChange{IfVersion: 2}); got != nil || authz.KindOf(err) != authz.KindConflict {
		t.Errorf("another version: %+v, %v", got, err)
	}
}

func TestAccount_Apply(t *testing.T) {
	a := apikey.Account{ID: "acme", Name: "Acme", Plan: "pro", Status: authz.AccountActive, Version: 1}
	got, err := a.Apply(apikey.AccountChange{At: noon(), IfVersion: 1, Status: new(authz.AccountSuspended)})
	want := a
	want.Status, want.UpdatedAt, want.Version = authz.AccountSuspended, noon(), 2
	if err != nil || !reflect.DeepEqual(*got, want) || a.Status != authz.AccountActive {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := a.Apply(apikey.AccountChange{IfVersion: 2}); got != nil || authz.KindOf(err) != authz.KindConflict {
		t.Errorf("another version: %+v, %v", got, err)
	}
}

func TestKey_Rotate(t *testing.T) {
	k := fullKey()
	got, err := k.Rotate("key_2", noon(), noon().Add(time.Hour))
	want := fullKey()
	want.Successor, want.OverlapEnds, want.UpdatedAt, want.Version = "key_2", noon().Add(time.Hour), noon(), 4
	if err != nil || !reflect.DeepEqual(*got, want) || k.Successor != "" {
		t.Fatalf("%+v, %v", got, err)
	}
	if again, err := got.Rotate("key_3", noon(), noon()); again != nil || authz.KindOf(err) != authz.KindConflict {
		t.Errorf("rotated twice: %+v, %v", again, err)
	}
}

func TestImport_SameKey(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*apikey.Key)
		want   bool
	}{
		"nothing":       {func(*apikey.Key) {}, true},
		"id":            {func(k *apikey.Key) { k.ID = "x" }, true},
		"what we write": {func(k *apikey.Key) { k.Version, k.Disabled, k.Lineage, k.CreatedAt = 9, true, "x", noon() }, true},
		"another zone":  {func(k *apikey.Key) { k.ExpiresAt = k.ExpiresAt.In(time.FixedZone("", 3600)) }, true},
		"digest":        {func(k *apikey.Key) { k.Digest[0]++ }, false},
		"name":          {func(k *apikey.Key) { k.Name = "x" }, false},
		"account":       {func(k *apikey.Key) { k.Account = "x" }, false},
		"plan":          {func(k *apikey.Key) { k.Plan = "x" }, false},
		"environment":   {func(k *apikey.Key) { k.Environment = "x" }, false},
		"scopes":        {func(k *apikey.Key) { k.Scopes = nil }, false},
		"not before":    {func(k *apikey.Key) { k.NotBefore = noon() }, false},
		"expiry":        {func(k *apikey.Key) { k.ExpiresAt = time.Time{} }, false},
		"meta":          {func(k *apikey.Key) { k.Meta = map[string]any{"a": "c"} }, false},
		"no meta":       {func(k *apikey.Key) { k.Meta = nil }, false},
	} {
		a, b := fullKey(), fullKey()
		c.change(&b)
		if apikey.SameImport(&a, &b) != c.want || apikey.SameImport(&b, &a) != c.want {
			t.Errorf("%s: want %v", name, c.want)
		}
	}
	a, b := fullKey(), fullKey()
	a.Meta, b.Meta, a.Scopes, b.Scopes = nil, map[string]any{}, nil, []string{}
	if !apikey.SameImport(&a, &b) {
		t.Error("nothing and nothing differ")
	}
}

func TestKey_AsJSON(t *testing.T) {
	for _, k := range []apikey.Key{fullKey(), {ID: "key_1", Account: "acme", Lineage: "key_1", Version: 1}} {
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		var back apikey.Key
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, k) {
			t.Errorf("%s: %+v, %v", text, back, err)
		}
	}
}

func TestNames_AccountsAndScopes(t *testing.T) {
	for id, ok := range map[string]bool{
		"acme": true, "a/b:c@d": true, strings.Repeat("x", 128): true,
		"": false, "a b": false, "a,b": false, `a"b`: false, `a\b`: false, "a\n": false, "é": false, "a\x7f": false, strings.Repeat("x", 129): false,
	} {
		for what, err := range map[string]error{"account": apikey.CheckAccountID(id), "scope": apikey.CheckScopes([]string{"good", id})} {
			if (err == nil) != ok || err != nil && authz.KindOf(err) != authz.KindInvalid {
				t.Errorf("%s %q: %v", what, id, err)
			}
		}
	}
	if err := apikey.CheckScopes(nil); err != nil {
		t.Errorf("no scopes: %v", err)
	}
}

func TestImport_ErrorNamesTheFirstFault(t *testing.T) {
	var err error = &apikey.ImportError{Faults: []apikey.ImportFault{{Index: 3, Text: "the first"}, {Index: 5, Text: "the second"}}}
	var refused *apikey.ImportError
	if authz.KindOf(err) != authz.KindConflict || !errors.As(err, &refused) || !strings.Contains(err.Error(), "the first") {
		t.Errorf("%v of kind %s", err, authz.KindOf(err))
	}
}

func TestImport_MakesAccounts(t *testing.T) {
	k := fullKey()
	want := apikey.Account{ID: "acme", Plan: "pro", Status: authz.AccountActive, CreatedAt: k.CreatedAt, UpdatedAt: k.CreatedAt, Version: 1}
	if got := apikey.AccountFor(&k); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := apikey.Meta(map[string]string{"a": "b"}); !reflect.DeepEqual(got, map[string]any{"a": "b"}) {
		t.Errorf("meta: %+v", got)
	}
}
