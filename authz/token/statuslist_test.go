package token_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

func TestStatusLists_ByStatus(t *testing.T) {
	fx := newFixture(t, nil)
	at := func(index any) map[string]any {
		return map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": index, "uri": fx.issuer.URL + tokentest.StatusPath}}}
	}
	fx.issuer.SetStatus(9, 0)
	fx.issuer.SetStatus(5, 1)
	fx.issuer.SetStatus(6, 2)
	fx.want(t, fx.issuer.Token(at(9)), authz.TokenValid)
	fx.want(t, fx.issuer.Token(at(5)), authz.TokenRevoked)
	fx.want(t, fx.issuer.Token(at(6)), authz.TokenRevoked)
	fx.want(t, fx.issuer.Token(at(10)), authz.TokenRevoked) // not in the list
	fx.want(t, fx.issuer.Token(at(-1)), authz.TokenMalformed)
	fx.want(t, fx.issuer.Token(at("1")), authz.TokenMalformed)
	elsewhere := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 1, "uri": "https://elsewhere.example/1"}}}
	fx.want(t, fx.issuer.Token(elsewhere), authz.TokenUnavailable)
	fx.want(t, fx.issuer.Token(map[string]any{"status": "married"}), authz.TokenValid) // an application's own claim
	fx.want(t, fx.issuer.Token(map[string]any{"status": map[string]any{"status_list": []any{}}}), authz.TokenMalformed)

	// A list revokes a token that was verified before.
	good := fx.issuer.Token(at(9))
	fx.want(t, good, authz.TokenValid)
	fx.issuer.SetStatus(9, 1)
	fx.clock.advance(61 * time.Second)
	fx.want(t, good, authz.TokenRevoked)
	// When the list has expired and cannot be fetched, the status is unknown.
	fx.issuer.Serve(tokentest.StatusPath, text("<html>"))
	fx.clock.advance(61 * time.Second)
	fx.want(t, good, authz.TokenUnavailable)
}

// TestStatusLists_FailedFetchIsNotRepeatedAtOnce sends many tokens whose list cannot be fetched.
func TestStatusLists_FailedFetchIsNotRepeatedAtOnce(t *testing.T) {
	fx := newFixture(t, nil)
	var fetches atomic.Int64
	fx.issuer.Serve(tokentest.StatusPath, func(w http.ResponseWriter, _ *http.Request) { fetches.Add(1); w.WriteHeader(503) })
	ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": fx.issuer.URL + tokentest.StatusPath}}}
	for i := range 20 {
		if i == 10 {
			fx.clock.advance(timing().MissInterval)
		}
		fx.want(t, fx.issuer.Token(ref), authz.TokenUnavailable)
	}
	if n := fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want one in each interval", n)
	}
}

// TestStatusLists_OfAnotherIssuer uses tokens that name the list of another issuer.
func TestStatusLists_OfAnotherIssuer(t *testing.T) {
	other := tokentest.New()
	defer other.Close()
	fx := newFixture(t, func(o *token.Options) {
		o.Issuers = append(o.Issuers, token.Issuer{Name: other.URL, Audiences: []string{"api"}, Discovery: true, StatusLists: []string{o.Issuers[0].Name}})
	})
	other.Now = fx.clock.now
	fx.issuer.SetStatus(0, 0)
	ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": fx.issuer.URL + tokentest.StatusPath}}}
	fx.want(t, other.Token(ref), authz.TokenUnavailable)
	fx.want(t, fx.issuer.Token(ref), authz.TokenValid)
}

func TestStatusLists_BadLists(t *testing.T) {
	bomb := tokentest.Pack(make([]byte, 17<<20))
	for name, claims := range map[string]map[string]any{
		"a bomb":          {"status_list": map[string]any{"bits": 1, "lst": bomb}},
		"another address": {"sub": "https://elsewhere.example/1"},
		"another issuer":  {"iss": "https://elsewhere.example"},
		"expired":         {"exp": 1},
		"no iat":          {"iat": nil},
		"3 bits":          {"status_list": map[string]any{"bits": 3, "lst": tokentest.Pack([]byte{0})}},
		"no row":          {"status_list": map[string]any{"bits": 1}},
		"no zlib":         {"status_list": map[string]any{"bits": 1, "lst": "AAAA"}},
		"no list":         {"status_list": nil},
		"ttl below zero":  {"ttl": -1},
	} {
		t.Run(name, func(t *testing.T) {
			fx := newFixture(t, nil)
			fx.issuer.Serve(tokentest.StatusPath, text(fx.issuer.StatusList(claims)))
			ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": fx.issuer.URL + tokentest.StatusPath}}}
			fx.want(t, fx.issuer.Token(ref), authz.TokenUnavailable)
		})
	}
	fx := newFixture(t, nil)
	other := tokentest.New()
	defer other.Close()
	other.Now = fx.clock.now
	fx.issuer.Serve(tokentest.StatusPath, text(other.StatusList(map[string]any{"sub": fx.issuer.URL + tokentest.StatusPath, "iss": fx.issuer.URL})))
	ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": fx.issuer.URL + tokentest.StatusPath}}}
	fx.want(t, fx.issuer.Token(ref), authz.TokenUnavailable)
}
