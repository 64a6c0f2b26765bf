package token_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

func TestVerifier_GoodToken(t *testing.T) {
	fx := newFixture(t, nil)
	now := fx.clock.now()
	text := fx.issuer.Token(map[string]any{
		"aud": []string{"other", "api2"}, "jti": "j", "sub": "alice", "sid": "s", "azp": "app", "scope": "read write",
		"org": "acme", "plan": "pro", "n": 1 << 60,
	})
	for range 2 { // verified, and remembered
		f := fx.Identify(t.Context(), &authz.Bearer{Text: text}, now)
		if f.Status != authz.TokenValid || f.Issuer != fx.issuer.URL || f.ID != "j" || f.Subject != "alice" || f.Session != "s" ||
			f.Client != "app" || f.SigningKey != "key-1" || f.Account != "acme" || f.Plan != "pro" || strings.Join(f.Scopes, ",") != "read,write" ||
			!f.IssuedAt.Equal(now) || !f.ExpiresAt.Equal(now.Add(time.Hour+timing().Skew)) || f.Digest != credential.TokenDigest(text) {
			t.Errorf("%+v", f)
		}
		if f.Claims["n"] != json.Number("1152921504606846976") {
			t.Errorf("a number lost digits: %v", f.Claims["n"])
		}
	}
}

// TestVerifier_BadTokens uses a token for every fault, and good ones that are nearly bad.
func TestVerifier_BadTokens(t *testing.T) {
	fx := newFixture(t, nil)
	now := fx.clock.now().Unix()
	claims := func(more string) string {
		return fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d%s}`, fx.issuer.URL, now, now+60, more)
	}
	raw := func(payload string) string { return fx.issuer.SignRaw(map[string]any{"kid": "key-1"}, []byte(payload)) }
	fx.want(t, raw(claims("")), authz.TokenValid)

	const malformed, expired, early = authz.TokenMalformed, authz.TokenExpired, authz.TokenNotYetValid
	for name, c := range map[string]struct {
		text string
		want authz.TokenStatus
	}{
		"another issuer":          {fx.issuer.Token(map[string]any{"iss": "https://evil.example"}), authz.TokenUntrustedIssuer},
		"an issuer with a slash":  {fx.issuer.Token(map[string]any{"iss": fx.issuer.URL + "/"}), authz.TokenUntrustedIssuer},
		"no issuer":               {fx.issuer.Token(map[string]any{"iss": nil}), authz.TokenUntrustedIssuer},
		"an issuer that is many":  {fx.issuer.Token(map[string]any{"iss": []string{fx.issuer.URL}}), malformed},
		"another audience":        {fx.issuer.Token(map[string]any{"aud": "apis"}), authz.TokenWrongAudience},
		"no audience":             {fx.issuer.Token(map[string]any{"aud": nil}), authz.TokenWrongAudience},
		"an empty audience":       {fx.issuer.Token(map[string]any{"aud": ""}), authz.TokenWrongAudience},
		"an audience of objects":  {fx.issuer.Token(map[string]any{"aud": []any{map[string]any{}}}), malformed},
		"an audience that is 1":   {fx.issuer.Token(map[string]any{"aud": 1}), malformed},
		"a thousand audiences":    {fx.issuer.Token(map[string]any{"aud": strings.Split(strings.Repeat("a ", 1000)+"api", " ")}), authz.TokenValid},
		"ten thousand audiences":  {fx.issuer.Token(map[string]any{"aud": strings.Split(strings.Repeat("a ", 10000)+"api", " ")}), malformed},
		"a megabyte":              {fx.issuer.Token(map[string]any{"x": strings.Repeat("x", 1<<20)}), malformed},
		"expired":                 {fx.issuer.Token(map[string]any{"iat": now - 7200, "exp": now - 31}), expired},
		"expired within the skew": {fx.issuer.Token(map[string]any{"iat": now - 7200, "exp": now - 29}), authz.TokenValid},
		"exp as a text":           {fx.issuer.Token(map[string]any{"exp": fmt.Sprint(now + 60)}), malformed},
		"exp that is null":        {raw(fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":null}`, fx.issuer.URL, now)), malformed},
		"exp that is huge":        {fx.issuer.Token(map[string]any{"exp": 1e300}), malformed},
		"exp below zero":          {fx.issuer.Token(map[string]any{"exp": -5}), malformed},
		"no exp":                  {fx.issuer.Token(map[string]any{"exp": nil}), malformed},
		"no iat":                  {fx.issuer.Token(map[string]any{"iat": nil}), malformed},
		"made in the future":      {fx.issuer.Token(map[string]any{"iat": now + 31}), early},
		"not before":              {fx.issuer.Token(map[string]any{"nbf": now + 31}), early},
		"not before, soon":        {fx.issuer.Token(map[string]any{"nbf": now + 29}), authz.TokenValid},
		"too long a life":         {fx.issuer.Token(map[string]any{"iat": now - 90000, "exp": now + 90000}), expired},
		"a claim that comes twice": {
			raw(fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d,"exp":%d}`, fx.issuer.URL, now, now-99, now+60)), malformed,
		},
		"a name that is escaped and comes twice": {raw(claims(`,"a":1,"\u0061":2`)), malformed},
		"arrays a thousand deep":                 {raw(claims(`,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000))), malformed},
		"objects a thousand deep":                {raw(claims(`,"x":` + strings.Repeat(`{"x":`, 1000) + "1" + strings.Repeat("}", 1000))), malformed},
		"something behind it":                    {raw(claims("") + "{}"), malformed},
		"a list":                                 {raw("[]"), malformed},
		"nothing":                                {raw(""), malformed},
		"no UTF-8":                               {raw(claims(`,"x":"` + "\xff" + `"`)), malformed},
		"a jti that is too long":                 {fx.issuer.Token(map[string]any{"jti": strings.Repeat("j", 1025)}), malformed},
		"a sub that is a number":                 {fx.issuer.Token(map[string]any{"sub": 5}), malformed},
		"an ID token's type":                     {fx.issuer.Sign("logout+jwt", map[string]any{"iss": fx.issuer.URL, "aud": "api", "iat": now, "exp": now + 60}), malformed},
		"a type in capitals":                     {fx.issuer.Sign("application/AT+JWT", map[string]any{"iss": fx.issuer.URL, "aud": "api", "iat": now, "exp": now + 60}), authz.TokenValid},
		"an unknown kid":                         {fx.issuer.SignRaw(map[string]any{"kid": "key-9"}, []byte(claims(""))), authz.TokenBadSignature},
		"no kid":                                 {fx.issuer.SignRaw(map[string]any{}, []byte(claims(""))), authz.TokenValid},
	} {
		t.Run(name, func(t *testing.T) { fx.want(t, c.text, c.want) })
	}
}

// TestVerifier_Forgeries uses tokens that the issuer did not sign.
func TestVerifier_Forgeries(t *testing.T) {
	fx := newFixture(t, nil)
	now := fx.clock.now().Unix()
	good := fx.issuer.Token(nil)
	parts := strings.Split(good, ".")
	payload := fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d}`, fx.issuer.URL, now, now+60)
	other := tokentest.New()
	defer other.Close()
	other.Now = fx.clock.now
	for name, text := range map[string]string{
		"none":                   forge(`{"alg":"none"}`, payload, ""),
		"none with a signature":  forge(`{"alg":"none","kid":"key-1"}`, payload, parts[2]),
		"None":                   forge(`{"alg":"None"}`, payload, ""),
		"HMAC with a public key": forge(`{"alg":"HS256","kid":"key-1"}`, payload, parts[2]),
		"an algorithm off list":  forge(`{"alg":"ES384","kid":"key-1"}`, payload, parts[2]),
		"no algorithm":           forge(`{"kid":"key-1"}`, payload, parts[2]),
		"another payload":        parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + parts[2],
		"no signature":           parts[0] + "." + parts[1] + ".",
		"half a signature":       parts[0] + "." + parts[1] + "." + parts[2][:20],
		"another issuer's key":   other.Token(map[string]any{"iss": fx.issuer.URL}),
		"a key of its own": forge(fmt.Sprintf(`{"alg":"ES256","jwk":%s}`, other.Keys()), payload,
			strings.Split(other.Sign("JWT", map[string]any{"iss": fx.issuer.URL}), ".")[2]),
		"a critical extension": fx.issuer.SignRaw(map[string]any{"kid": "key-1", "crit": []string{"exp"}, "exp": 1}, []byte(payload)),
		"padding":              good + "=",
		"a line break":         good + "\n",
		"four parts":           good + ".x",
	} {
		switch got := fx.status(t, text); got {
		case authz.TokenBadSignature, authz.TokenMalformed:
		default:
			t.Errorf("%s: status %q", name, got)
		}
	}
}

func TestIssuer_Check(t *testing.T) {
	good := token.Issuer{Name: "https://i.example", Audiences: []string{"api"}, Discovery: true}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*token.Issuer){
		"no name":        func(i *token.Issuer) { i.Name = "" },
		"no audience":    func(i *token.Issuer) { i.Audiences = nil },
		"empty audience": func(i *token.Issuer) { i.Audiences = []string{"api", ""} },
		"no keys":        func(i *token.Issuer) { i.Discovery = false },
		"keys twice":     func(i *token.Issuer) { i.JWKSFile = "keys.json" },
		"none":           func(i *token.Issuer) { i.Algorithms = []string{"none"} },
		"HS256":          func(i *token.Issuer) { i.Algorithms = []string{"HS256"} },
		"plain HTTP":     func(i *token.Issuer) { i.Name = "http://i.example" },
		"a file":         func(i *token.Issuer) { i.Discovery, i.JWKSURL = false, "file:///etc/passwd" },
	} {
		i := good
		if change(&i); i.Check() == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}

func TestVerifier_Statements(t *testing.T) {
	fx := newFixture(t, nil)
	now := fx.clock.now().Unix()
	claims := func(more map[string]any) map[string]any {
		c := map[string]any{"iss": fx.issuer.URL, "aud": "client", "iat": now, "exp": now + 60, "jti": "j"}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	s, err := fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(nil)))
	if err != nil || s.Issuer != fx.issuer.URL || s.ID != "j" || s.IssuedAt.Unix() != now || s.ExpiresAt.Unix() != now+60 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := fx.Event(t.Context(), fx.issuer.Sign("secevent+jwt", claims(map[string]any{"aud": "receiver", "exp": nil}))); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		err  error
		want authz.TokenStatus
	}{
		"the api's audience": {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"aud": "api"})))), authz.TokenWrongAudience},
		"another typ":        {second(fx.Logout(t.Context(), fx.issuer.Sign("secevent+jwt", claims(nil)))), authz.TokenMalformed},
		"no exp":             {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"exp": nil})))), authz.TokenMalformed},
		"expired":            {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"exp": now - 31})))), authz.TokenExpired},
		"no iat":             {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"iat": nil})))), authz.TokenMalformed},
		"in the future":      {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"iat": now + 60})))), authz.TokenNotYetValid},
		"another issuer":     {second(fx.Logout(t.Context(), fx.issuer.Sign("logout+jwt", claims(map[string]any{"iss": "x"})))), authz.TokenUntrustedIssuer},
		"an event, untyped":  {second(fx.Event(t.Context(), fx.issuer.Sign("JWT", claims(map[string]any{"aud": "receiver"})))), authz.TokenMalformed},
		"an access token":    {second(fx.Event(t.Context(), fx.issuer.Token(nil))), authz.TokenMalformed},
	} {
		e, ok := c.err.(*authz.TokenError)
		if !ok || e.Status != c.want {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func second(_ authz.Statement, err error) error { return err }

// FuzzParse feeds texts to the parser, and signs payloads. None may pass for a token that it is not.
func FuzzParse(f *testing.F) {
	issuer := tokentest.New()
	f.Cleanup(issuer.Close)
	v := token.New(token.Options{
		Issuers: []token.Issuer{{Name: issuer.URL, Audiences: []string{"api"}, JWKSURL: issuer.URL + tokentest.KeysPath}},
		Timing:  timing(), IsKey: func(string) bool { return false }, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	f.Cleanup(v.Close)
	v.Ready(f.Context())
	f.Add(issuer.Token(nil), []byte(`{}`))
	f.Add(forge(`{"alg":"none"}`, `{}`, ""), []byte(`{"iss":"`+issuer.URL+`","aud":"api","iat":1,"exp":1e10}`))
	f.Add("eyJ..", []byte(`{"aud":["api",{}],"exp":"1"}`))
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		if s := v.Identify(t.Context(), &authz.Bearer{Text: text}, time.Now()).Status; s == authz.TokenValid && len(text) < 100 {
			t.Fatalf("%q passes", text)
		}
		signed := issuer.SignRaw(map[string]any{"kid": "key-1"}, payload)
		fact := v.Identify(t.Context(), &authz.Bearer{Text: signed}, time.Now())
		var claims struct{ Iss string }
		if fact.Status == authz.TokenValid && (json.Unmarshal(payload, &claims) != nil || claims.Iss != issuer.URL) {
			t.Fatalf("%s passes: %+v", payload, fact)
		}
	})
}
