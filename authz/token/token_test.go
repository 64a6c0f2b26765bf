package token_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// clock is a clock that the test moves.
type clock struct{ t atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.t.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.t.Add(int64(d)) }

func newClock() *clock {
	c := &clock{}
	c.t.Store(time.Now().Truncate(time.Second).UnixNano())
	return c
}

// timing is that of a server whose operator set nothing.
func timing() token.Timing {
	return token.Timing{
		Refresh: 5 * time.Minute, MissInterval: 5 * time.Second, MaxAge: 24 * time.Hour, Skew: 30 * time.Second,
		MaxLifetime: 24 * time.Hour,
	}
}

// bench is a verifier that trusts one issuer.
type bench struct {
	*token.Verifier
	issuer *tokentest.Issuer
	clock  *clock
}

func newBench(t *testing.T, change func(*token.Options)) *bench {
	t.Helper()
	b := &bench{issuer: tokentest.New(), clock: newClock()}
	t.Cleanup(b.issuer.Close)
	b.issuer.Now = b.clock.now
	opt := token.Options{
		Issuers: []token.Issuer{{
			Name: b.issuer.URL, Audiences: []string{"api", "api2"}, Discovery: true, AccountClaim: "org", PlanClaim: "plan",
			LogoutAudiences: []string{"client"}, EventAudiences: []string{"receiver"},
		}},
		Timing: timing(), IsKey: func(s string) bool { return strings.HasPrefix(s, "tk_") }, MayBeKey: noKey,
		Now: b.clock.now, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	for i := range opt.Issuers {
		if err := opt.Issuers[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	b.Verifier = token.New(opt)
	t.Cleanup(b.Close)
	b.Ready(t.Context())
	return b
}

func (b *bench) status(t *testing.T, text string) authz.TokenStatus {
	t.Helper()
	return b.Identify(t.Context(), &authz.Bearer{Text: text}, b.clock.now()).Status
}

func (b *bench) want(t *testing.T, text string, want authz.TokenStatus) {
	t.Helper()
	if got := b.status(t, text); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
}

func TestAGoodToken(t *testing.T) {
	b := newBench(t, nil)
	now := b.clock.now()
	text := b.issuer.Token(map[string]any{
		"aud": []string{"other", "api2"}, "jti": "j", "sub": "alice", "sid": "s", "azp": "app", "scope": "read write",
		"org": "acme", "plan": "pro", "n": 1 << 60,
	})
	for range 2 { // verified, and remembered
		f := b.Identify(t.Context(), &authz.Bearer{Text: text}, now)
		if f.Status != authz.TokenValid || f.Issuer != b.issuer.URL || f.ID != "j" || f.Subject != "alice" || f.Session != "s" ||
			f.Client != "app" || f.SigningKey != "key-1" || f.Account != "acme" || f.Plan != "pro" || strings.Join(f.Scopes, ",") != "read,write" ||
			!f.IssuedAt.Equal(now) || !f.ExpiresAt.Equal(now.Add(time.Hour+timing().Skew)) || f.Digest != credential.TokenDigest(text) {
			t.Errorf("%+v", f)
		}
		if f.Claims["n"] != json.Number("1152921504606846976") {
			t.Errorf("a number lost digits: %v", f.Claims["n"])
		}
	}
}

// TestWhatIsWrongWithAToken has a token for everything that can be wrong with one.
func TestWhatIsWrongWithAToken(t *testing.T) {
	b := newBench(t, nil)
	now := b.clock.now().Unix()
	claims := func(more string) string {
		return fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d%s}`, b.issuer.URL, now, now+60, more)
	}
	raw := func(payload string) string { return b.issuer.SignRaw(map[string]any{"kid": "key-1"}, []byte(payload)) }
	b.want(t, raw(claims("")), authz.TokenValid)

	const malformed, expired, early = authz.TokenMalformed, authz.TokenExpired, authz.TokenNotYetValid
	for name, c := range map[string]struct {
		text string
		want authz.TokenStatus
	}{
		"another issuer":          {b.issuer.Token(map[string]any{"iss": "https://evil.example"}), authz.TokenUntrustedIssuer},
		"an issuer with a slash":  {b.issuer.Token(map[string]any{"iss": b.issuer.URL + "/"}), authz.TokenUntrustedIssuer},
		"no issuer":               {b.issuer.Token(map[string]any{"iss": nil}), authz.TokenUntrustedIssuer},
		"an issuer that is many":  {b.issuer.Token(map[string]any{"iss": []string{b.issuer.URL}}), malformed},
		"another audience":        {b.issuer.Token(map[string]any{"aud": "apis"}), authz.TokenWrongAudience},
		"no audience":             {b.issuer.Token(map[string]any{"aud": nil}), authz.TokenWrongAudience},
		"an empty audience":       {b.issuer.Token(map[string]any{"aud": ""}), authz.TokenWrongAudience},
		"an audience of objects":  {b.issuer.Token(map[string]any{"aud": []any{map[string]any{}}}), malformed},
		"an audience that is 1":   {b.issuer.Token(map[string]any{"aud": 1}), malformed},
		"a thousand audiences":    {b.issuer.Token(map[string]any{"aud": strings.Split(strings.Repeat("a ", 1000)+"api", " ")}), authz.TokenValid},
		"ten thousand audiences":  {b.issuer.Token(map[string]any{"aud": strings.Split(strings.Repeat("a ", 10000)+"api", " ")}), malformed},
		"a megabyte":              {b.issuer.Token(map[string]any{"x": strings.Repeat("x", 1<<20)}), malformed},
		"expired":                 {b.issuer.Token(map[string]any{"iat": now - 7200, "exp": now - 31}), expired},
		"expired within the skew": {b.issuer.Token(map[string]any{"iat": now - 7200, "exp": now - 29}), authz.TokenValid},
		"exp as a text":           {b.issuer.Token(map[string]any{"exp": fmt.Sprint(now + 60)}), malformed},
		"exp that is null":        {raw(fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":null}`, b.issuer.URL, now)), malformed},
		"exp that is huge":        {b.issuer.Token(map[string]any{"exp": 1e300}), malformed},
		"exp below zero":          {b.issuer.Token(map[string]any{"exp": -5}), malformed},
		"no exp":                  {b.issuer.Token(map[string]any{"exp": nil}), malformed},
		"no iat":                  {b.issuer.Token(map[string]any{"iat": nil}), malformed},
		"made in the future":      {b.issuer.Token(map[string]any{"iat": now + 31}), early},
		"not before":              {b.issuer.Token(map[string]any{"nbf": now + 31}), early},
		"not before, soon":        {b.issuer.Token(map[string]any{"nbf": now + 29}), authz.TokenValid},
		"too long a life":         {b.issuer.Token(map[string]any{"iat": now - 90000, "exp": now + 90000}), expired},
		"a claim that comes twice": {
			raw(fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d,"exp":%d}`, b.issuer.URL, now, now-99, now+60)), malformed,
		},
		"a name that is escaped and comes twice": {raw(claims(`,"a":1,"\u0061":2`)), malformed},
		"arrays a thousand deep":                 {raw(claims(`,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000))), malformed},
		"objects a thousand deep":                {raw(claims(`,"x":` + strings.Repeat(`{"x":`, 1000) + "1" + strings.Repeat("}", 1000))), malformed},
		"something behind it":                    {raw(claims("") + "{}"), malformed},
		"a list":                                 {raw("[]"), malformed},
		"nothing":                                {raw(""), malformed},
		"no UTF-8":                               {raw(claims(`,"x":"` + "\xff" + `"`)), malformed},
		"a jti that is too long":                 {b.issuer.Token(map[string]any{"jti": strings.Repeat("j", 1025)}), malformed},
		"a sub that is a number":                 {b.issuer.Token(map[string]any{"sub": 5}), malformed},
		"an ID token's type":                     {b.issuer.Sign("logout+jwt", map[string]any{"iss": b.issuer.URL, "aud": "api", "iat": now, "exp": now + 60}), malformed},
		"a type in capitals":                     {b.issuer.Sign("application/AT+JWT", map[string]any{"iss": b.issuer.URL, "aud": "api", "iat": now, "exp": now + 60}), authz.TokenValid},
		"an unknown kid":                         {b.issuer.SignRaw(map[string]any{"kid": "key-9"}, []byte(claims(""))), authz.TokenBadSignature},
		"no kid":                                 {b.issuer.SignRaw(map[string]any{}, []byte(claims(""))), authz.TokenValid},
	} {
		t.Run(name, func(t *testing.T) { b.want(t, c.text, c.want) })
	}
}

// forge puts a token together without a signature that means anything.
func forge(header, payload, signature string) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + "." + signature
}

// TestForgeries has tokens that nobody signed who should have.
func TestForgeries(t *testing.T) {
	b := newBench(t, nil)
	now := b.clock.now().Unix()
	good := b.issuer.Token(nil)
	parts := strings.Split(good, ".")
	payload := fmt.Sprintf(`{"iss":%q,"aud":"api","iat":%d,"exp":%d}`, b.issuer.URL, now, now+60)
	stranger := tokentest.New()
	defer stranger.Close()
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
		"somebody else's key":    stranger.Token(map[string]any{"iss": b.issuer.URL}),
		"a key of its own": forge(fmt.Sprintf(`{"alg":"ES256","jwk":%s}`, stranger.Keys()), payload,
			strings.Split(stranger.Sign("JWT", map[string]any{"iss": b.issuer.URL}), ".")[2]),
		"a critical extension": b.issuer.SignRaw(map[string]any{"kid": "key-1", "crit": []string{"exp"}, "exp": 1}, []byte(payload)),
		"padding":              good + "=",
		"a line break":         good + "\n",
		"four parts":           good + ".x",
	} {
		switch got := b.status(t, text); got {
		case authz.TokenBadSignature, authz.TokenMalformed:
		default:
			t.Errorf("%s: status %q", name, got)
		}
	}
}

// TestRotation has an issuer that signs with a key before anybody could have fetched it. No token is refused.
func TestRotation(t *testing.T) {
	b := newBench(t, nil)
	old := b.issuer.Token(nil)
	b.want(t, old, authz.TokenValid)
	for range 5 {
		b.clock.advance(time.Minute)
		b.issuer.AddKey()
		before := b.issuer.Fetches.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { b.want(t, b.issuer.Token(nil), authz.TokenValid) })
		}
		wg.Wait()
		if n := b.issuer.Fetches.Load() - before; n != 1 {
			t.Errorf("%d fetches for one new key", n)
		}
		b.want(t, old, authz.TokenValid)
	}
}

// TestUnknownKeysFetchOnceInAWhile has a flood of tokens with kids that nobody has.
func TestUnknownKeysFetchOnceInAWhile(t *testing.T) {
	b := newBench(t, nil)
	before := b.issuer.Fetches.Load()
	for range 100 {
		b.want(t, b.issuer.SignRaw(map[string]any{"kid": rand.Text()}, []byte(fmt.Sprintf(`{"iss":%q}`, b.issuer.URL))), authz.TokenBadSignature)
	}
	if n := b.issuer.Fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches", n)
	}
	b.clock.advance(timing().MissInterval)
	b.want(t, b.issuer.SignRaw(map[string]any{"kid": "x"}, []byte(fmt.Sprintf(`{"iss":%q}`, b.issuer.URL))), authz.TokenBadSignature)
	if n := b.issuer.Fetches.Load() - before; n != 2 {
		t.Errorf("%d fetches after the interval", n)
	}
}

// TestAKeyThatIsLostTakesItsTokensWithIt holds that what was verified with a key is not remembered longer than the key.
func TestAKeyThatIsLostTakesItsTokensWithIt(t *testing.T) {
	b := newBench(t, nil)
	old := b.issuer.Token(nil)
	b.want(t, old, authz.TokenValid)
	b.issuer.AddKey()
	b.issuer.HideKey("key-1")
	b.want(t, b.issuer.Token(nil), authz.TokenValid) // which has the keys fetched
	b.clock.advance(time.Minute)
	b.want(t, old, authz.TokenBadSignature)
}

// TestNoKeysAreTrusted has an issuer that withdraws all of its keys.
func TestNoKeysAreTrusted(t *testing.T) {
	b := newBench(t, nil)
	good := b.issuer.Token(nil)
	b.want(t, good, authz.TokenValid)
	b.issuer.Serve(tokentest.KeysPath, text(`{"keys":[]}`))
	b.want(t, b.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, b.issuer.URL))), authz.TokenBadSignature)
	b.want(t, good, authz.TokenBadSignature)
	b.issuer.Serve(tokentest.KeysPath, nil)
	b.clock.advance(time.Minute)
	b.want(t, good, authz.TokenValid)
}

// TestBadKeySets has an issuer whose keys cannot be had in many ways: it says which, keeps the keys that it had, and is
// unavailable where it had none.
func TestBadKeySets(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		fault  string
	}{
		"HTML":    {text("<html><body>Not here</body></html>"), "HTML"},
		"nothing": {text(""), "is not JSON"},
		"huge":    {text(`{"keys":[],"x":"` + strings.Repeat("x", 2<<20) + `"}`), "more than"},
		"many":    {text(`{"keys":[` + strings.Repeat(`{"kty":"EC"},`, 500) + `{}]}`), "keys"},
		"a list":  {text(`[]`), "not a JSON object"},
		"secrets": {text(`{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}`), "none of the key set's 1 keys"},
		"error":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "answered 500"},
		"weak RSA": {
			text(`{"keys":[{"kty":"RSA","e":"AQAB","n":"` + base64.RawURLEncoding.EncodeToString([]byte("\xc0"+strings.Repeat("\x01", 127))) + `"}]}`),
			"none of the key set's",
		},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/keys", http.StatusFound)
		}, "want https"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			good := b.issuer.Token(nil)
			b.want(t, good, authz.TokenValid)
			b.issuer.Serve(tokentest.KeysPath, c.answer)
			b.want(t, b.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, b.issuer.URL))), authz.TokenBadSignature)
			if got := b.Issuers(); len(got) != 1 || !strings.Contains(got[0].Fault, c.fault) || got[0].Keys != 1 {
				t.Errorf("issuers: %+v, want a fault with %q", got, c.fault)
			}
			b.want(t, b.issuer.Token(nil), authz.TokenValid)

			fresh := newBench(t, func(o *token.Options) {
				o.Issuers[0].Discovery, o.Issuers[0].JWKSURL = false, b.issuer.URL+tokentest.KeysPath
				o.Issuers[0].Name = b.issuer.URL
			})
			fresh.want(t, good, authz.TokenUnavailable)
		})
	}
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

// TestSlowKeysHoldUpNobody has an issuer that does not answer.
func TestSlowKeysHoldUpNobody(t *testing.T) {
	b := newBench(t, nil)
	good := b.issuer.Token(nil)
	release := make(chan struct{})
	defer close(release)
	b.issuer.Serve(tokentest.KeysPath, func(http.ResponseWriter, *http.Request) { <-release })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	unknown := b.issuer.SignRaw(map[string]any{"kid": "new"}, []byte(fmt.Sprintf(`{"iss":%q}`, b.issuer.URL)))
	if f := b.Identify(ctx, &authz.Bearer{Text: unknown}, b.clock.now()); f.Status != authz.TokenBadSignature || ctx.Err() == nil {
		t.Errorf("%q", f.Status)
	}
	b.want(t, good, authz.TokenValid)
}

// TestOldKeysAreNotTrustedForEver has an issuer that cannot be reached for longer than its keys are good.
func TestOldKeysAreNotTrustedForEver(t *testing.T) {
	b := newBench(t, nil)
	b.issuer.Serve(tokentest.DiscoveryPath, text("<html>"))
	b.clock.advance(timing().MaxAge)
	known := b.issuer.Token(nil)
	b.want(t, known, authz.TokenValid)
	b.clock.advance(time.Second)
	b.want(t, b.issuer.Token(nil), authz.TokenUnavailable)
	b.want(t, known, authz.TokenUnavailable)
	b.issuer.Serve(tokentest.DiscoveryPath, nil)
	b.clock.advance(time.Minute)
	b.want(t, b.issuer.Token(nil), authz.TokenValid)
}

func TestDiscoveryOfSomebodyElse(t *testing.T) {
	b := newBench(t, func(o *token.Options) { o.Issuers[0].Name += "/" }) // not what the issuer calls itself
	b.want(t, b.issuer.Token(map[string]any{"iss": b.issuer.URL + "/"}), authz.TokenUnavailable)
	if f := b.Issuers()[0].Fault; !strings.Contains(f, "describes the issuer") {
		t.Errorf("fault %q", f)
	}
}

func TestIssuersAreChecked(t *testing.T) {
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

// TestTheProxyVerifies leaves the verification to the proxy, and believes nothing else that could look like it.
func TestTheProxyVerifies(t *testing.T) {
	b := newBench(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{{Name: "https://mesh.example", Audiences: []string{"api"}, Envoy: "payload"}}
	})
	now := b.clock.now()
	claims := func() map[string]any {
		return map[string]any{"iss": "https://mesh.example", "aud": "api", "sub": "alice", "iat": float64(now.Unix()), "exp": float64(now.Unix() + 60)}
	}
	filters := func(name string, c map[string]any) map[string]any {
		return map[string]any{"envoy.filters.http.jwt_authn": map[string]any{name: c}}
	}
	f, ok := b.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{}, now)
	if !ok || f.Status != authz.TokenValid || f.Subject != "alice" || !f.IssuedAt.Equal(now) {
		t.Errorf("%+v", f)
	}
	expired := claims()
	expired["exp"] = float64(now.Unix() - 31)
	if f, _ := b.FromProxy(t.Context(), filters("payload", expired), &authz.Bearer{}, now); f.Status != authz.TokenExpired {
		t.Errorf("expired: %q", f.Status)
	}
	other := claims()
	other["iss"] = "https://evil.example"
	for name, m := range map[string]map[string]any{
		"another name":    filters("other", claims()),
		"another filter":  {"envoy.filters.http.ext_authz": map[string]any{"payload": claims()}},
		"another issuer":  filters("payload", other),
		"nothing":         nil,
		"something wrong": {"envoy.filters.http.jwt_authn": "x"},
	} {
		if f, ok := b.FromProxy(t.Context(), m, &authz.Bearer{}, now); ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
	raw, _ := json.Marshal(claims())
	if f, _ := b.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256"}`, string(raw), "x")}, now); f.Status != authz.TokenValid || f.Digest == "" {
		t.Errorf("the token that was verified: %+v", f)
	}
	if f, _ := b.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256","typ":"refresh+jwt"}`, string(raw), "x")}, now); f.Status != authz.TokenMalformed {
		t.Errorf("a token that is not for access: %+v", f)
	}
	raw, _ = json.Marshal(other)
	if f, _ := b.FromProxy(t.Context(), filters("payload", claims()), &authz.Bearer{Text: forge(`{"alg":"RS256"}`, string(raw), "x")}, now); f.Status != authz.TokenMalformed {
		t.Errorf("another token beside the one that was verified: %+v", f)
	}
	raw, _ = json.Marshal(claims())
	unvouched := forge(`{"alg":"RS256"}`, string(raw), "x")
	b.want(t, unvouched, authz.TokenUntrustedIssuer)
	// Whoever wants to revoke it must not be told that there is no need to.
	if f := b.Inspect(t.Context(), unvouched); f.Status != authz.TokenUnavailable || f.ExpiresAt.Before(now.Add(timing().MaxLifetime)) {
		t.Errorf("a token that only the proxy can verify: %+v", f)
	}
}

// TestTheProxyVerifiesOne has the proxy vouch for two tokens, one of which might be revoked: neither counts.
func TestTheProxyVerifiesOne(t *testing.T) {
	b := newBench(t, func(o *token.Options) {
		o.Issuers = []token.Issuer{
			{Name: "https://a.example", Audiences: []string{"api"}, Envoy: "a"}, {Name: "https://b.example", Audiences: []string{"api"}, Envoy: "b"},
		}
	})
	now := b.clock.now()
	claims := func(iss string) map[string]any {
		return map[string]any{"iss": iss, "aud": "api", "iat": float64(now.Unix()), "exp": float64(now.Unix() + 60)}
	}
	payloads := map[string]any{"a": claims("https://a.example"), "other": claims("https://elsewhere.example")}
	filters := map[string]any{"envoy.filters.http.jwt_authn": payloads}
	if f, ok := b.FromProxy(t.Context(), filters, &authz.Bearer{}, now); !ok || f.Status != authz.TokenValid || f.Issuer != "https://a.example" {
		t.Errorf("one that is ours: %+v", f)
	}
	payloads["b"] = claims("https://b.example")
	for range 20 {
		if f, ok := b.FromProxy(t.Context(), filters, &authz.Bearer{}, now); !ok || f.Status != authz.TokenMalformed {
			t.Fatalf("two: %+v", f)
		}
	}
}

func TestStatements(t *testing.T) {
	b := newBench(t, nil)
	now := b.clock.now().Unix()
	claims := func(more map[string]any) map[string]any {
		c := map[string]any{"iss": b.issuer.URL, "aud": "client", "iat": now, "exp": now + 60, "jti": "j"}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	s, err := b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(nil)))
	if err != nil || s.Issuer != b.issuer.URL || s.ID != "j" || s.IssuedAt.Unix() != now || s.ExpiresAt.Unix() != now+60 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := b.Event(t.Context(), b.issuer.Sign("secevent+jwt", claims(map[string]any{"aud": "receiver", "exp": nil}))); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		err  error
		want authz.TokenStatus
	}{
		"the api's audience": {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"aud": "api"})))), authz.TokenWrongAudience},
		"another typ":        {second(b.Logout(t.Context(), b.issuer.Sign("secevent+jwt", claims(nil)))), authz.TokenMalformed},
		"no exp":             {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"exp": nil})))), authz.TokenMalformed},
		"expired":            {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"exp": now - 31})))), authz.TokenExpired},
		"no iat":             {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"iat": nil})))), authz.TokenMalformed},
		"in the future":      {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"iat": now + 60})))), authz.TokenNotYetValid},
		"another issuer":     {second(b.Logout(t.Context(), b.issuer.Sign("logout+jwt", claims(map[string]any{"iss": "x"})))), authz.TokenUntrustedIssuer},
		"an event, untyped":  {second(b.Event(t.Context(), b.issuer.Sign("JWT", claims(map[string]any{"aud": "receiver"})))), authz.TokenMalformed},
		"an access token":    {second(b.Event(t.Context(), b.issuer.Token(nil))), authz.TokenMalformed},
	} {
		e, ok := c.err.(*authz.TokenError)
		if !ok || e.Status != c.want {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func second(_ authz.Statement, err error) error { return err }

// FuzzParse throws texts at the parser, signed ones too. Whatever it is, it must not pass for a token that it is not.
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

// noKey knows of no API keys.
func noKey(context.Context, string) (bool, error) { return false, nil }
