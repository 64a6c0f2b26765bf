package signals_test

import (
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

func request(path, contentType, authorization, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

// FuzzRevoke sends anything to the revocation endpoint. Only an authenticated client gets 200, and only the known token that
// it sent is recorded.
func FuzzRevoke(f *testing.F) {
	f.Add(form, basicClient, "token=known&token_type_hint=access_token")
	f.Add(form, "", "token=known&client_id=s6BhdRkqt3&client_secret=gX1fBat3bV")
	f.Add(form, basicClient, "token=other")
	f.Add(form+"; charset=utf-8", "Basic Og==", "token=%6Bnown&token=known")
	f.Fuzz(func(t *testing.T, contentType, authorization, body string) {
		w := newWorld(t)
		w.verifier.facts["known"] = authz.TokenFact{Status: authz.TokenValid, Issuer: idp, ID: "id-1"}
		rec := w.serve(t, request(signals.RevokePath, contentType, authorization, body))
		values, _ := url.ParseQuery(body)
		for _, r := range w.revoker.kept {
			if rec.Code != 200 || values.Get("token") != "known" || r.Value != "id-1" && r.Value != credential.TokenDigest("known") {
				t.Fatalf("%d, recorded %+v", rec.Code, r)
			}
		}
		switch {
		case rec.Code == 200:
			proven := values.Get("client_secret") == "gX1fBat3bV"
			if id, secret, ok := basicAuth(authorization); ok { // ours are the same in both readings
				proven = id == "s6BhdRkqt3" && secret == "gX1fBat3bV"
			}
			if media, _, _ := mime.ParseMediaType(contentType); !proven || media != form || len(values["token"]) != 1 {
				t.Fatalf("acknowledged to %q %q", authorization, body)
			}
			if values.Get("token") == "known" && len(w.revoker.kept) != 2 {
				t.Fatalf("acknowledged, and recorded %+v", w.revoker.kept)
			}
		case rec.Code != 400 && rec.Code != 401:
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}

func basicAuth(header string) (id, secret string, ok bool) {
	r := http.Request{Header: http.Header{"Authorization": {header}}}
	id, secret, ok = r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	return id, secret, ok && header != ""
}

// FuzzLogout sends any claims, signed or not. Only signed tokens are acknowledged, and an acknowledged logout revokes exactly
// the session or the user that it names.
func FuzzLogout(f *testing.F) {
	f.Add(logoutExample, true)
	f.Add(logoutExample, false)
	f.Add(`{"iss":"a","sub":"b","iat":1,"jti":"c","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`, true)
	f.Add(`{"iss":"a","sub":"b","iat":1,"jti":"c","nonce":null,"events":{"http://schemas.openid.net/event/backchannel-logout":[]}}`, true)
	f.Fuzz(func(t *testing.T, claims string, signed bool) {
		w := newWorld(t)
		token := sign(claims)
		if !signed {
			token += "x"
		}
		rec := w.serve(t, request(signals.LogoutPath, form, "", url.Values{"logout_token": {token}}.Encode()))
		if rec.Code != 200 {
			if rec.Code != 400 || len(w.revoker.kept) != 0 {
				t.Fatalf("%d %s, recorded %+v", rec.Code, rec.Body, w.revoker.kept)
			}
			return
		}
		st, err := readStatement(token)
		if err != nil || !signed || st.ID == "" || st.Claims["nonce"] != nil || len(w.revoker.kept) == 0 {
			t.Fatalf("acknowledged %s, and recorded %+v", claims, w.revoker.kept)
		}
		for _, r := range w.revoker.kept {
			claim := map[revocation.Kind]string{revocation.KindSession: "sid", revocation.KindSubject: "sub", revocation.KindSessionless: "sub"}[r.Kind]
			if r.Issuer != st.Issuer || st.Claims[claim] != r.Value || r.Value == "" || r.Kind == revocation.KindSubject && st.Claims["sid"] != nil {
				t.Fatalf("%s recorded %+v", claims, r)
			}
		}
	})
}

// FuzzEvents pushes any claims, signed or not. Only signed tokens are acknowledged. Every record belongs to the issuer, names
// a subject that the claims name, and is not in the future.
func FuzzEvents(f *testing.F) {
	for _, event := range []string{
		caep + "session-revoked", caep + "credential-change", caep + "token-claims-change", risc + "account-disabled", risc + "account-enabled",
	} {
		f.Add(set(f, event, object{"event_timestamp": 1615304991, "change_type": "update"}, nil), true)
		f.Add(set(f, event, object{"subject": object{"subject_type": "iss-sub", "iss": idp, "sub": "alice"}}, object{"sub_id": nil}), true)
		f.Add(set(f, event, object{}, object{"sub_id": object{"format": "complex", "session": opaque("s"), "user": issSub("u")}}), true)
		f.Add(set(f, event, object{}, object{"sub_id": object{"format": "jwt_id", "iss": idp, "jti": "j"}}), false)
	}
	f.Fuzz(func(t *testing.T, claims string, signed bool) {
		w := newWorld(t)
		token := sign(claims)
		if !signed {
			token += "x"
		}
		rec := w.serve(t, request(signals.EventsPath, secevent, "", token))
		if rec.Code != 202 {
			if rec.Code != 400 || len(w.revoker.kept) != 0 {
				t.Fatalf("%d %s, recorded %+v", rec.Code, rec.Body, w.revoker.kept)
			}
			return
		}
		st, err := readStatement(token)
		if err != nil || !signed || st.ID == "" {
			t.Fatalf("acknowledged %s", claims)
		}
		latest := noon()
		if st.IssuedAt.After(latest) {
			latest = st.IssuedAt
		}
		for _, r := range w.revoker.kept {
			if r.Issuer != st.Issuer || r.Before.After(latest) || r.At.After(noon()) || !names(st.Claims, r.Value) {
				t.Fatalf("%s recorded %+v", claims, r)
			}
			if r.Lifted && r.Kind != revocation.KindSuspension {
				t.Fatalf("%s lifted %+v", claims, r)
			}
		}
	})
}

// names reports whether a text occurs anywhere in the claims.
func names(v any, text string) bool {
	switch v := v.(type) {
	case string:
		return v == text
	case []any:
		for _, e := range v {
			if names(e, text) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if names(e, text) {
				return true
			}
		}
	}
	return false
}
