package server

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// TestAdminAPI_KeysAreChangedByMergePatch changes keys and accounts as a program does, without the command line.
func TestAdminAPI_KeysAreChangedByMergePatch(t *testing.T) {
	r := start(t, configFor(t.TempDir()))
	k := r.newKey("acme", "free")
	refused := func(status int, method, path string, in any) {
		t.Helper()
		var no *admin.Refused
		if err := r.admin.Do(t.Context(), method, path, in, nil); !errors.As(err, &no) || no.Status != status {
			t.Errorf("%s %s %v: %v, want %d", method, path, in, err, status)
		}
	}
	for _, c := range []struct {
		patch string
		want  map[string]any
	}{
		{`{"meta": {"a": 1, "b": {"c": true, "d": "x"}}}`, map[string]any{"a": 1.0, "b": map[string]any{"c": true, "d": "x"}}},
		{`{"meta": {"a": null, "b": {"d": "y"}}}`, map[string]any{"b": map[string]any{"c": true, "d": "y"}}},
		{`{"meta": {}}`, map[string]any{"b": map[string]any{"c": true, "d": "y"}}},
		{`{"meta": {"b": 2}, "name": "n"}`, map[string]any{"b": 2.0}},
	} {
		var key admin.Key
		r.do("PATCH", admin.Path("keys", k.ID), json.RawMessage(c.patch), &key)
		var account admin.Account
		r.do("PATCH", admin.Path("accounts", "acme"), json.RawMessage(c.patch), &account)
		if !equalJSON(key.Meta, c.want) || !equalJSON(account.Meta, c.want) {
			t.Errorf("%s: key %v, account %v, want %v", c.patch, key.Meta, account.Meta, c.want)
		}
	}
	for _, path := range []string{admin.Path("keys", k.ID), admin.Path("accounts", "acme")} {
		refused(422, "PATCH", path, json.RawMessage(`{"meta": null}`)) // all of it, or none of it?
		refused(422, "PATCH", path, json.RawMessage(`{"meta": {"subscription_ends": "2030-01-31"}}`))
	}
	refused(422, "POST", admin.Path("keys"), admin.KeyCreate{Account: "acme", ExpiresAt: time.Now().Add(-time.Hour)})
	r.do("POST", admin.Path("keys"), admin.KeyCreate{Account: "acme", ExpiresAt: time.Now().Add(-time.Hour), Force: true}, &admin.Key{})
	refused(404, "GET", "/v1/keys?account=acne", nil)
	refused(422, "GET", "/v1/keys?status=lost", nil)
	var expired []admin.Key
	if r.do("GET", "/v1/keys?status=expired&limit=1", nil, &expired); len(expired) != 1 || expired[0].Status != "expired" {
		t.Errorf("%+v", expired)
	}
	r.do("POST", admin.Path("accounts", "acme", "revoke"), map[string]string{}, nil)
	refused(http.StatusConflict, "PATCH", admin.Path("keys", k.ID), json.RawMessage(`{"disabled": false}`))
	refused(http.StatusConflict, "PATCH", admin.Path("accounts", "acme"), json.RawMessage(`{"status": "active"}`))
}

func equalJSON(a, b map[string]any) bool {
	return maps.EqualFunc(a, b, func(x, y any) bool {
		rx, _ := json.Marshal(x)
		ry, _ := json.Marshal(y)
		return string(rx) == string(ry)
	})
}
