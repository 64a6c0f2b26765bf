package token_test

import (
	"context"
	"errors"
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

func asking(t *testing.T, change func(*token.Introspection)) *bench {
	t.Helper()
	issuer := tokentest.New()
	t.Cleanup(issuer.Close)
	b := newBench(t, func(o *token.Options) {
		in := &token.Introspection{
			URL: issuer.URL + tokentest.IntrospectPath, Issuer: issuer.URL, ClientID: issuer.ClientID, Secret: issuer.Secret,
			AccountClaim: "org", TTL: 10 * time.Second, NegativeTTL: 2 * time.Second, Timeout: 5 * time.Second,
		}
		if change != nil {
			change(in)
		}
		if err := in.Check(); err != nil {
			t.Fatal(err)
		}
		o.Issuers, o.Introspection = nil, in
	})
	b.issuer = issuer
	return b
}

func TestOpaqueTokens(t *testing.T) {
	b := asking(t, nil)
	now := b.clock.now()
	b.issuer.Opaque("abc", map[string]any{"sub": "alice", "scope": "read", "org": "acme", "client_id": "app", "exp": now.Unix() - 15, "iat": now.Unix() - 60, "jti": "j"})
	for range 3 {
		f := b.Identify(t.Context(), &authz.Bearer{Text: "abc"}, now)
		if f.Status != authz.TokenValid || f.Subject != "alice" || f.Account != "acme" || f.Client != "app" || f.ID != "j" ||
			f.Issuer != b.issuer.URL || f.Digest != credential.TokenDigest("abc") || len(f.Scopes) != 1 {
			t.Errorf("%+v", f)
		}
	}
	if n := b.issuer.Asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	b.clock.advance(11 * time.Second)
	b.want(t, "abc", authz.TokenValid)
	if n := b.issuer.Asked.Load(); n != 2 {
		t.Errorf("asked %d times after the time for which an answer is good", n)
	}
	b.clock.advance(4 * time.Second) // exp, at which an answer of 4 seconds ago does not help
	b.want(t, "abc", authz.TokenExpired)

	b.want(t, "stranger", authz.TokenInactive)
	b.want(t, "stranger", authz.TokenInactive)
	if n := b.issuer.Asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	b.issuer.Opaque("stranger", map[string]any{"sub": "bob", "iat": now.Unix()})
	b.clock.advance(2 * time.Second)
	b.want(t, "stranger", authz.TokenValid)
	for _, bad := range []string{"", "a b", "a,b", "ä", "=", strings.Repeat("a", 5000), "a\nb"} {
		b.want(t, bad, authz.TokenMalformed)
	}
}

func TestWhichTextsAreTokens(t *testing.T) {
	with, without := asking(t, nil), newBench(t, nil)
	jwt := without.issuer.Token(nil)
	for text, want := range map[string][2]bool{
		"tk_live_abc": {false, false}, "abc": {true, false}, jwt: {true, true},
	} {
		if with.IsToken(text) != want[0] || without.IsToken(text) != want[1] {
			t.Errorf("%.20s: %v %v", text, with.IsToken(text), without.IsToken(text))
		}
	}
	b := asking(t, nil)
	b.issuer.Opaque(jwt, map[string]any{"sub": "x", "iat": b.clock.now().Unix()})
	b.want(t, jwt, authz.TokenValid) // no issuer is trusted to sign it, but its server vouches for it
}

// TestIntrospection_ServerWhoseClockIsAhead has tokens that were issued, by their server's clock, a moment from now.
func TestIntrospection_ServerWhoseClockIsAhead(t *testing.T) {
	b := asking(t, nil)
	for ahead, want := range map[time.Duration]authz.TokenStatus{
		time.Second: authz.TokenValid, 30 * time.Second: authz.TokenValid, 31 * time.Second: authz.TokenNotYetValid,
	} {
		b.issuer.Opaque(ahead.String(), map[string]any{"iat": b.clock.now().Add(ahead).Unix()})
		b.want(t, ahead.String(), want)
	}
}

func TestManyAskOnce(t *testing.T) {
	b := asking(t, nil)
	release := make(chan struct{})
	b.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, _ *http.Request) {
		b.issuer.Asked.Add(1)
		<-release
		_, _ = fmt.Fprintf(w, `{"active":true,"iat":%d}`, b.clock.now().Unix())
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { b.want(t, "abc", authz.TokenValid) })
	}
	for b.issuer.Asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if n := b.issuer.Asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestIntrospection_ServerDown has a server that is out of order: its tokens are unavailable, and after some failures it is
// left alone for a while.
func TestIntrospection_ServerDown(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"503":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"no connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"active":`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := asking(t, nil)
			var asked atomic.Int64
			b.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) })
			for i := range 20 {
				b.want(t, fmt.Sprint("token", i), authz.TokenUnavailable)
			}
			if n := asked.Load(); n != 5 {
				t.Errorf("asked %d times, want to be left alone after 5 failures", n)
			}
		})
	}
}

// TestIntrospection_StrangersOutage has made-up tokens that the server answers in every odd way. A good token that comes
// afterwards is asked about all the same.
func TestIntrospection_StrangersOutage(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"400":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) },
		"401":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"404":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"429":          func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "30"); w.WriteHeader(429) },
		"a redirect":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) },
		"HTML":         text("<html>"),
		"no word":      text(`{"sub":"alice"}`),
		"a text":       text(`{"active":"true"}`),
		"active twice": text(`{"active":false,"active":true}`),
		"huge":         text(`{"active":true,"x":"` + strings.Repeat("x", 2<<20) + `"}`),
	} {
		t.Run(name, func(t *testing.T) {
			b := asking(t, nil)
			var asked atomic.Int64
			b.issuer.Opaque("good", map[string]any{"iat": b.clock.now().Unix()})
			b.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) })
			for i := range 20 {
				bearer := authz.Bearer{Text: fmt.Sprint("token", i), Peer: "192.0.2.1"}
				for range 2 { // repeated, it is not asked about again
					if f := b.Identify(t.Context(), &bearer, b.clock.now()); f.Status != authz.TokenUnavailable {
						t.Errorf("status %q", f.Status)
					}
				}
			}
			if n := asked.Load(); n > 20 || n < 20 && name != "429" { // where only that peer is left waiting
				t.Errorf("asked %d times", n)
			}
			b.issuer.Serve(tokentest.IntrospectPath, nil)
			if f := b.Identify(t.Context(), &authz.Bearer{Text: "good", Peer: "192.0.2.2"}, b.clock.now()); f.Status != authz.TokenValid {
				t.Errorf("a good token of somebody else: %q", f.Status)
			}
		})
	}
	b := asking(t, func(in *token.Introspection) { in.Secret = "wrong" })
	b.want(t, "abc", authz.TokenUnavailable)
}

// TestIntrospection_KnownTokensHaveRoom fills every place for calls with made-up tokens that the server is slow to answer.
func TestIntrospection_KnownTokensHaveRoom(t *testing.T) {
	b := asking(t, nil)
	b.issuer.Opaque("good", map[string]any{"iat": b.clock.now().Unix()})
	b.want(t, "good", authz.TokenValid)
	b.clock.advance(11 * time.Second) // it has to be asked about again
	release := make(chan struct{})
	var waiting atomic.Int64
	b.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("token") != "good" {
			waiting.Add(1)
			<-release
		}
		_, _ = fmt.Fprintf(w, `{"active":true,"iat":%d}`, b.clock.now().Unix())
	})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { b.status(t, fmt.Sprint("made-up", i)) })
	}
	for waiting.Load() < 64 {
		time.Sleep(time.Millisecond)
	}
	b.want(t, "good", authz.TokenValid)
	close(release)
	wg.Wait()
}

// TestIntrospection_RefusalsPerPeer has one peer make up tokens. Its own known token, and those of others, are good.
func TestIntrospection_RefusalsPerPeer(t *testing.T) {
	b := asking(t, func(in *token.Introspection) { in.MaxRefusals = 10 })
	iat := b.clock.now().Unix()
	b.issuer.Opaque("known", map[string]any{"iat": iat})
	b.issuer.Opaque("other", map[string]any{"iat": iat})
	from := func(peer, text string) authz.TokenStatus {
		return b.Identify(t.Context(), &authz.Bearer{Text: text, Peer: peer}, b.clock.now()).Status
	}
	if s := from("2001:db8::1", "known"); s != authz.TokenValid {
		t.Fatal(s)
	}
	before := b.issuer.Asked.Load()
	for i := range 100 {
		want := authz.TokenInactive
		if i >= 10 {
			want = authz.TokenUnavailable
		}
		if s := from(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprint("made-up", i)); s != want { // the addresses of one customer
			t.Errorf("%d: %q", i, s)
		}
	}
	if n := b.issuer.Asked.Load() - before; n != 10 {
		t.Errorf("asked %d times", n)
	}
	b.clock.advance(11 * time.Second)
	for peer, text := range map[string]string{"2001:db8::1": "known", "2001:db8:0:1::1": "other"} {
		if s := from(peer, text); s != authz.TokenValid {
			t.Errorf("%s of %s: %q", text, peer, s)
		}
	}
	b.clock.advance(time.Minute)
	if s := from("2001:db8::1", "made-up-later"); s != authz.TokenInactive {
		t.Errorf("a minute later: %q", s)
	}
}

// TestIntrospection_NoKeyLeaves has texts that are, or may be, API keys.
func TestIntrospection_NoKeyLeaves(t *testing.T) {
	b := asking(t, nil)
	jwt := b.issuer.Token(map[string]any{"iss": "https://elsewhere.example"})
	keys := map[string]error{"imported-key": nil, jwt: nil, "maybe": errors.New("the store hangs")}
	v := token.New(token.Options{
		Introspection: &token.Introspection{
			URL: b.issuer.URL + tokentest.IntrospectPath, Issuer: b.issuer.URL, ClientID: b.issuer.ClientID, Secret: b.issuer.Secret,
			TTL: time.Second, NegativeTTL: time.Second, Timeout: time.Second,
		},
		Timing: timing(), IsKey: func(string) bool { return false }, Now: b.clock.now, Log: slog.New(slog.DiscardHandler),
		MayBeKey: func(_ context.Context, text string) (bool, error) {
			err, there := keys[text]
			return there && err == nil, err
		},
	})
	defer v.Close()
	for text, err := range keys {
		want := authz.TokenMalformed
		if err != nil {
			want = authz.TokenUnavailable
		}
		for range 2 {
			if f := v.Inspect(t.Context(), text); f.Status != want {
				t.Errorf("%.20s: %q", text, f.Status)
			}
		}
	}
	if n := b.issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys left", n)
	}
	if f := v.Inspect(t.Context(), "no-key"); f.Status != authz.TokenInactive {
		t.Errorf("%q", f.Status)
	}
}

// TestIntrospection_TokensForOtherUses has answers that say what kind of token it is about.
func TestIntrospection_TokensForOtherUses(t *testing.T) {
	b := asking(t, nil)
	for i, c := range []struct {
		name string
		kind any
		want authz.TokenStatus
	}{
		{"token_type", "Bearer", authz.TokenValid}, {"token_type", "access_token", authz.TokenValid}, {"token_type", nil, authz.TokenValid},
		{"token_type", "urn:ietf:params:oauth:token-type:access_token", authz.TokenValid},
		{"token_use", "access", authz.TokenValid}, {"typ", "Bearer", authz.TokenValid}, {"typ", "at+jwt", authz.TokenValid}, {"typ", "customer", authz.TokenValid},
		{"token_type", "refresh_token", authz.TokenMalformed}, {"token_type", "Refresh", authz.TokenMalformed}, {"token_type", "ID_TOKEN", authz.TokenMalformed},
		{"token_type", "N_A", authz.TokenMalformed}, {"token_type", 1, authz.TokenMalformed},
		{"token_type", "urn:ietf:params:oauth:token-type:id_token", authz.TokenMalformed}, {"token_type", "something new", authz.TokenMalformed},
		{"token_use", "refresh_token", authz.TokenMalformed}, {"token_use", "id", authz.TokenMalformed}, {"token_usage", "refresh-token", authz.TokenMalformed},
		{"typ", "Refresh", authz.TokenMalformed}, {"typ", "Offline", authz.TokenMalformed}, {"typ", "ID", authz.TokenMalformed},
		{"typ", "Serialized-ID", authz.TokenMalformed}, {"typ", "logout+jwt", authz.TokenMalformed}, {"purpose", "refresh_token", authz.TokenMalformed},
		{"events", map[string]any{"x": map[string]any{}}, authz.TokenMalformed}, {"token_type", "DPoP", authz.TokenUnbound},
	} {
		name := fmt.Sprint("token-", i)
		b.issuer.Opaque(name, map[string]any{"iat": b.clock.now().Unix(), c.name: c.kind})
		if got := b.status(t, name); got != c.want {
			t.Errorf("%s %v: %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

// TestIntrospection_SignedTokensForOtherUses has signed tokens of which only the header says what they are for.
func TestIntrospection_SignedTokensForOtherUses(t *testing.T) {
	b := asking(t, nil)
	for typ, want := range map[string]authz.TokenStatus{
		"at+jwt": authz.TokenValid, "JWT": authz.TokenValid, "application/customer+jwt": authz.TokenValid,
		"refresh+jwt": authz.TokenMalformed, "application/logout+jwt": authz.TokenMalformed, "secevent+JWT": authz.TokenMalformed,
	} {
		text := b.issuer.Sign(typ, map[string]any{"iss": "https://other.example"})
		b.issuer.Opaque(text, map[string]any{"iat": b.clock.now().Unix()})
		if got := b.status(t, text); got != want {
			t.Errorf("%s: %q, want %q", typ, got, want)
		}
	}
}

func TestAnswersAboutOthers(t *testing.T) {
	b := asking(t, func(in *token.Introspection) { in.Audiences = []string{"api"} })
	iat := b.clock.now().Unix()
	b.issuer.Opaque("good", map[string]any{"aud": []string{"api"}, "iss": b.issuer.URL, "iat": iat})
	b.issuer.Opaque("aud", map[string]any{"aud": "other", "iat": iat})
	b.issuer.Opaque("none", map[string]any{"iat": iat})
	b.issuer.Opaque("iss", map[string]any{"aud": "api", "iss": "https://evil.example", "iat": iat})
	b.issuer.Opaque("exp", map[string]any{"aud": "api", "exp": "soon", "iat": iat})
	b.issuer.Opaque("iat", map[string]any{"aud": "api", "exp": iat + 60})
	b.issuer.Opaque("neither", map[string]any{"aud": "api"})
	b.issuer.Opaque("long", map[string]any{"aud": "api", "exp": iat + 100_000})
	b.want(t, "iat", authz.TokenValid)                             // when it was issued need not be said, if it ends soon enough
	if f := b.Inspect(t.Context(), "iat"); !f.ExpiresAt.IsZero() { // its server may move its end
		t.Errorf("what revokes it would be forgotten at %s", f.ExpiresAt)
	}
	b.want(t, "neither", authz.TokenMalformed)
	b.want(t, "long", authz.TokenMalformed)
	b.want(t, "good", authz.TokenValid)
	b.want(t, "aud", authz.TokenWrongAudience)
	b.want(t, "none", authz.TokenWrongAudience)
	b.want(t, "iss", authz.TokenUntrustedIssuer)
	b.want(t, "exp", authz.TokenMalformed)
}

func TestStatusLists(t *testing.T) {
	b := newBench(t, nil)
	at := func(index any) map[string]any {
		return map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": index, "uri": b.issuer.URL + tokentest.StatusPath}}}
	}
	b.issuer.SetStatus(9, 0)
	b.issuer.SetStatus(5, 1)
	b.issuer.SetStatus(6, 2)
	b.want(t, b.issuer.Token(at(9)), authz.TokenValid)
	b.want(t, b.issuer.Token(at(5)), authz.TokenRevoked)
	b.want(t, b.issuer.Token(at(6)), authz.TokenRevoked)
	b.want(t, b.issuer.Token(at(10)), authz.TokenRevoked) // not in the list
	b.want(t, b.issuer.Token(at(-1)), authz.TokenMalformed)
	b.want(t, b.issuer.Token(at("1")), authz.TokenMalformed)
	elsewhere := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 1, "uri": "https://elsewhere.example/1"}}}
	b.want(t, b.issuer.Token(elsewhere), authz.TokenUnavailable)
	b.want(t, b.issuer.Token(map[string]any{"status": "married"}), authz.TokenValid) // an application's own claim
	b.want(t, b.issuer.Token(map[string]any{"status": map[string]any{"status_list": []any{}}}), authz.TokenMalformed)

	// A token that was good is not any more when its list says so, though it was verified before.
	good := b.issuer.Token(at(9))
	b.want(t, good, authz.TokenValid)
	b.issuer.SetStatus(9, 1)
	b.clock.advance(61 * time.Second)
	b.want(t, good, authz.TokenRevoked)
	// A list that cannot be had any more says nothing.
	b.issuer.Serve(tokentest.StatusPath, text("<html>"))
	b.clock.advance(61 * time.Second)
	b.want(t, good, authz.TokenUnavailable)
}

// TestStatusListsMakeRoom has an issuer that opens one list after the other, none of which can be had.
func TestStatusListsMakeRoom(t *testing.T) {
	b := newBench(t, nil)
	ref := func(n int) map[string]any {
		uri := fmt.Sprintf("%s%s?n=%d", b.issuer.URL, tokentest.StatusPath, n)
		return map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": uri}}}
	}
	for n := range 1000 {
		b.want(t, b.issuer.Token(ref(n)), authz.TokenUnavailable) // the list there is about another address
	}
	good := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": b.issuer.URL + tokentest.StatusPath}}}
	b.issuer.SetStatus(0, 0)
	b.want(t, b.issuer.Token(good), authz.TokenValid)
}

// TestStatusListsAreTheIssuersOwn has an issuer's tokens name the list of another one at the same host.
func TestStatusListsAreTheIssuersOwn(t *testing.T) {
	stranger := tokentest.New()
	defer stranger.Close()
	b := newBench(t, func(o *token.Options) {
		o.Issuers = append(o.Issuers, token.Issuer{Name: stranger.URL, Audiences: []string{"api"}, Discovery: true, StatusLists: []string{o.Issuers[0].Name}})
	})
	stranger.Now = b.clock.now
	b.issuer.SetStatus(0, 0)
	ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": b.issuer.URL + tokentest.StatusPath}}}
	b.want(t, stranger.Token(ref), authz.TokenUnavailable)
	b.want(t, b.issuer.Token(ref), authz.TokenValid)
}

func TestBadStatusLists(t *testing.T) {
	bomb := tokentest.Pack(make([]byte, 100<<20))
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
			b := newBench(t, nil)
			b.issuer.Serve(tokentest.StatusPath, text(b.issuer.StatusList(claims)))
			ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": b.issuer.URL + tokentest.StatusPath}}}
			b.want(t, b.issuer.Token(ref), authz.TokenUnavailable)
		})
	}
	b := newBench(t, nil)
	stranger := tokentest.New()
	defer stranger.Close()
	b.issuer.Serve(tokentest.StatusPath, text(stranger.StatusList(map[string]any{"sub": b.issuer.URL + tokentest.StatusPath, "iss": b.issuer.URL})))
	ref := map[string]any{"status": map[string]any{"status_list": map[string]any{"idx": 0, "uri": b.issuer.URL + tokentest.StatusPath}}}
	b.want(t, b.issuer.Token(ref), authz.TokenUnavailable)
}

// TestIntrospectionExample has the server answer as in the example of RFC 7662 section 2.2.
func TestIntrospectionExample(t *testing.T) {
	b := asking(t, func(in *token.Introspection) {
		in.Issuer, in.Audiences = "https://server.example.com/", []string{"https://protected.example.net/resource"}
	})
	b.clock.t.Store(time.Unix(1419350239, 0).UnixNano())
	b.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") != "2YotnFZFEjr1zCsicMWpAA" || r.PostFormValue("token_type_hint") != "access_token" {
			t.Errorf("asked with %v", r.PostForm)
		}
		_, _ = w.Write([]byte(`{"active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe", "scope": "read write dolphin",
			"sub": "Z5O3upPC88QrAjx00dis", "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
			"exp": 1419356238, "iat": 1419350238, "extension_field": "twenty-seven"}`))
	})
	f := b.Identify(t.Context(), &authz.Bearer{Text: "2YotnFZFEjr1zCsicMWpAA"}, b.clock.now())
	if f.Status != authz.TokenValid || f.Client != "l238j323ds-23ij4" || f.Subject != "Z5O3upPC88QrAjx00dis" || len(f.Scopes) != 3 ||
		f.Issuer != "https://server.example.com/" || f.Claims["extension_field"] != "twenty-seven" || f.IssuedAt.Unix() != 1419350238 {
		t.Errorf("%+v", f)
	}
}
