package signals_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

// TestRevoke_ExampleOfRFC7009 sends the request of RFC 7009 section 2.1, byte for byte except for its path.
func TestRevoke_ExampleOfRFC7009(t *testing.T) {
	w := newWorld(t)
	const token = "45ghiukldjahdnhzdauz"
	w.verifier.facts[token] = authz.TokenFact{Status: authz.TokenValid, Issuer: idp}
	rec := w.post(t, signals.RevokePath, form, "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token",
		"Host", "server.example.com", "Authorization", "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW")
	want(t, rec, http.StatusOK, "")
	w.wantRecords(t, revocation.Record{
		Kind: revocation.KindToken, Value: credential.TokenDigest(token), At: noon(), // no expiry is known
	})
	if !w.revoker.Token(&authz.TokenFact{Digest: credential.TokenDigest(token)}) {
		t.Error("the token is not revoked")
	}
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["by"] != "s6BhdRkqt3" {
		t.Errorf("the log says %v", lines)
	}
}

// TestRevoke_RecordsByStatus uses a token of every status.
func TestRevoke_RecordsByStatus(t *testing.T) {
	const text = "some.token.text"
	exp := noon().Add(time.Hour)
	digest := revocation.Record{Kind: revocation.KindToken, Value: credential.TokenDigest(text), At: noon(), ExpiresAt: exp.Add(margin)}
	jti := revocation.Record{Kind: revocation.KindJTI, Issuer: idp, Value: "id-1", At: noon(), ExpiresAt: exp.Add(margin)}
	forGood := digest
	forGood.ExpiresAt = time.Time{}
	for name, c := range map[string]struct {
		fact authz.TokenFact
		want []revocation.Record
	}{
		"valid":            {authz.TokenFact{Status: authz.TokenValid, Issuer: idp, ID: "id-1", ExpiresAt: exp}, []revocation.Record{jti, digest}},
		"valid, no jti":    {authz.TokenFact{Status: authz.TokenValid, Issuer: idp, ExpiresAt: exp}, []revocation.Record{digest}},
		"jti without end":  {authz.TokenFact{Status: authz.TokenValid, Issuer: idp, ID: strings.Repeat("x", 2000), ExpiresAt: exp}, []revocation.Record{digest}},
		"valid, no issuer": {authz.TokenFact{Status: authz.TokenValid, ID: "id-1"}, []revocation.Record{forGood}},
		"not valid yet":    {authz.TokenFact{Status: authz.TokenNotYetValid, Issuer: idp, ExpiresAt: exp}, []revocation.Record{digest}},
		"another audience": {authz.TokenFact{Status: authz.TokenWrongAudience, Issuer: idp, ID: "id-1", ExpiresAt: exp}, []revocation.Record{jti, digest}},
		"unavailable":      {authz.TokenFact{Status: authz.TokenUnavailable}, []revocation.Record{forGood}},
		"expired":          {authz.TokenFact{Status: authz.TokenExpired, Issuer: idp, ID: "id-1", ExpiresAt: noon().Add(-time.Hour)}, nil},
		"unknown":          {authz.TokenFact{Status: authz.TokenMalformed}, nil},
		"forged":           {authz.TokenFact{Status: authz.TokenBadSignature}, nil},
		"another issuer":   {authz.TokenFact{Status: authz.TokenUntrustedIssuer}, nil},
		"inactive":         {authz.TokenFact{Status: authz.TokenRevoked}, nil},
		"nothing is known": {authz.TokenFact{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.verifier.facts[text] = c.fact
			want(t, w.revoke(t, text), http.StatusOK, "")
			w.wantRecords(t, c.want...)
		})
	}
}

// TestRevoke_WithoutMaxLifetime: where the lifetime of tokens is not configured, records are kept forever.
func TestRevoke_WithoutMaxLifetime(t *testing.T) {
	w := newWorld(t, func(o *signals.Options) { o.MaxLifetime = 0 })
	w.verifier.facts["opaque"] = authz.TokenFact{Status: authz.TokenValid, Issuer: idp}
	want(t, w.revoke(t, "opaque"), http.StatusOK, "")
	w.wantRecords(t, revocation.Record{Kind: revocation.KindToken, Value: credential.TokenDigest("opaque"), At: noon()})
}

func TestRevoke_ClientAuthentication(t *testing.T) {
	const good, wrong = "&client_id=s6BhdRkqt3&client_secret=gX1fBat3bV", "&client_id=s6BhdRkqt3&client_secret=gX1fBat3bW"
	basic := func(id, secret string) string {
		r, _ := http.NewRequest(http.MethodPost, "/", nil)
		r.SetBasicAuth(id, secret)
		return r.Header.Get("Authorization")
	}
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
		code    string
	}{
		"in the form":              {good, nil, 200, ""},
		"by Basic":                 {"", []string{basicClient}, 200, ""},
		"by Basic and id":          {"&client_id=s6BhdRkqt3", []string{basicClient}, 200, ""},
		"by Basic, encoded":        {"", []string{basic("a%3Ab", "%25+%C3%A9")}, 200, ""},
		"by Basic, as it is":       {"", []string{basic("c+d", "100% +%zz")}, 200, ""},
		"as it is, and an id":      {"&client_id=c%2Bd", []string{basic("c+d", "100% +%zz")}, 200, ""},
		"both readings, mixed":     {"", []string{basic("a%3Ab", "% é")}, 401, "invalid_client"},
		"as it is, and decoded":    {"", []string{basic("e%2Bf", "g%2Bh")}, 200, ""}, // its id and its secret look encoded
		"as it is, of another id":  {"&client_id=c+d", []string{basic("c+d", "100% +%zz")}, 400, "invalid_request"},
		"no client":                {"", nil, 401, "invalid_client"},
		"no secret":                {"&client_id=s6BhdRkqt3", nil, 401, "invalid_client"},
		"no id":                    {"&client_secret=gX1fBat3bV", nil, 401, "invalid_client"},
		"wrong secret":             {wrong, nil, 401, "invalid_client"},
		"wrong secret by Basic":    {"", []string{basic("s6BhdRkqt3", "nonsense")}, 401, "invalid_client"},
		"unknown client":           {"&client_id=x&client_secret=gX1fBat3bV", nil, 401, "invalid_client"},
		"a client without secret":  {"&client_id=empty&client_secret=", nil, 401, "invalid_client"},
		"the same by Basic":        {"", []string{basic("empty", "")}, 401, "invalid_client"},
		"another scheme":           {"", []string{"Bearer czZCaGRSa3F0MzpnWDFmQmF0M2JW"}, 401, "invalid_client"},
		"not base64":               {"", []string{"Basic !"}, 401, "invalid_client"},
		"not form-urlencoded":      {"", []string{basic("s6BhdRkqt3", "%zz")}, 401, "invalid_client"},
		"id not form-urlencoded":   {"", []string{basic("%zz", "gX1fBat3bV")}, 401, "invalid_client"},
		"empty header":             {good[:len("&client_id=s6BhdRkqt3")], []string{""}, 401, "invalid_client"},
		"twice by Basic":           {"", []string{basicClient, basicClient}, 401, "invalid_client"},
		"in both ways":             {good, []string{basicClient}, 400, "invalid_request"},
		"by Basic and another id":  {"&client_id=x", []string{basicClient}, 400, "invalid_request"},
		"two secrets":              {good + "&client_secret=gX1fBat3bV", nil, 400, "invalid_request"},
		"the secret in the header": {"", []string{"gX1fBat3bV"}, 401, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *signals.Options) {
				o.Clients["a:b"], o.Clients["c+d"], o.Clients["e%2Bf"] = "% é", "100% +%zz", "g%2Bh"
			})
			w.verifier.facts["tok"] = authz.TokenFact{Status: authz.TokenValid}
			var headers []string
			for _, h := range c.headers {
				headers = append(headers, "Authorization", h)
			}
			want(t, w.post(t, signals.RevokePath, form, "token=tok"+c.body, headers...), c.status, c.code)
			if recorded := len(w.revoker.kept) > 0; recorded != (c.status == 200) {
				t.Errorf("recorded: %v", w.revoker.kept)
			}
		})
	}
	t.Run("no clients are configured", func(t *testing.T) {
		w := newWorld(t, func(o *signals.Options) { o.Clients = nil })
		want(t, w.revoke(t, "tok"), 401, "invalid_client")
		want(t, w.post(t, signals.RevokePath, form, "token=tok&client_id=&client_secret="), 401, "invalid_client")
	})
}

func TestRevoke_BadForms(t *testing.T) {
	for name, body := range map[string]string{
		"empty":                "",
		"no token":             "token_type_hint=access_token",
		"a token of no length": "token=",
		"two tokens":           "token=a&token=a",
		"two hints":            "token=a&token_type_hint=x&token_type_hint=y",
		"not urlencoded":       "token=%zz",
		"a semicolon":          "token=a;b=c",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.verifier.facts["a"] = authz.TokenFact{Status: authz.TokenValid}
			want(t, w.post(t, signals.RevokePath, form, body, "Authorization", basicClient), 400, "invalid_request")
			w.wantRecords(t)
		})
	}
	t.Run("in the URL", func(t *testing.T) {
		w := newWorld(t)
		want(t, w.post(t, signals.RevokePath+"?"+url.Values{"token": {"a"}}.Encode(), form, "", "Authorization", basicClient), 400, "invalid_request")
	})
	t.Run("any hint and any further parameter will do", func(t *testing.T) {
		w := newWorld(t)
		want(t, w.post(t, signals.RevokePath, form, "token=a&token_type_hint=id_token&x=y", "Authorization", basicClient), 200, "")
	})
}
