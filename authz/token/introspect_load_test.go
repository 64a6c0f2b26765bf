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
	"github.com/tollkeeper-authz/tollkeeper/authz/token"
	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// TestIntrospection_ServerDown: the tokens of a server that is down are unavailable, and after some failures it is not asked
// for a while.
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
			fx := newIntrospectionFixture(t, nil)
			var asked atomic.Int64
			fx.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) })
			for i := range 20 {
				fx.want(t, fmt.Sprint("token", i), authz.TokenUnavailable)
			}
			if n := asked.Load(); n != 5 {
				t.Errorf("asked %d times, want to be left alone after 5 failures", n)
			}
		})
	}
}

// TestIntrospection_OddAnswersAboutMadeUpTokens uses a server that gives odd answers about invented tokens. It is still asked about a
// good token that comes afterwards.
func TestIntrospection_OddAnswersAboutMadeUpTokens(t *testing.T) {
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
			fx := newIntrospectionFixture(t, nil)
			var asked atomic.Int64
			fx.issuer.Opaque("good", map[string]any{"iat": fx.clock.now().Unix()})
			fx.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) })
			for i := range 20 {
				bearer := authz.Bearer{Text: fmt.Sprint("token", i), Peer: "192.0.2.1"}
				for range 2 { // the second time, the server is not asked
					if f := fx.Identify(t.Context(), &bearer, fx.clock.now()); f.Status != authz.TokenUnavailable {
						t.Errorf("status %q", f.Status)
					}
				}
			}
			if n := asked.Load(); n > 20 || n < 20 && name != "429" { // after a 429, calls for that peer stop
				t.Errorf("asked %d times", n)
			}
			fx.issuer.Serve(tokentest.IntrospectPath, nil)
			if f := fx.Identify(t.Context(), &authz.Bearer{Text: "good", Peer: "192.0.2.2"}, fx.clock.now()); f.Status != authz.TokenValid {
				t.Errorf("a good token of another peer: %q", f.Status)
			}
		})
	}
	fx := newIntrospectionFixture(t, func(in *token.Introspection) { in.Secret = "wrong" })
	fx.want(t, "abc", authz.TokenUnavailable)
}

// TestIntrospection_KnownTokensHaveTheirOwnSlots fills the slots for unknown tokens with calls that hang.
func TestIntrospection_KnownTokensHaveTheirOwnSlots(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	fx.issuer.Opaque("good", map[string]any{"iat": fx.clock.now().Unix()})
	fx.want(t, "good", authz.TokenValid)
	fx.clock.advance(11 * time.Second) // the answer has expired
	release := make(chan struct{})
	var waiting atomic.Int64
	fx.issuer.Serve(tokentest.IntrospectPath, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("token") != "good" {
			waiting.Add(1)
			<-release
		}
		_, _ = fmt.Fprintf(w, `{"active":true,"iat":%d}`, fx.clock.now().Unix())
	})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { fx.status(t, fmt.Sprint("made-up", i)) })
	}
	for waiting.Load() < 64 {
		time.Sleep(time.Millisecond)
	}
	fx.want(t, "good", authz.TokenValid)
	close(release)
	wg.Wait()
}

// TestIntrospection_RefusalsPerPeer: one peer invents tokens. Its own known token, and tokens of other peers, stay valid.
func TestIntrospection_RefusalsPerPeer(t *testing.T) {
	fx := newIntrospectionFixture(t, func(in *token.Introspection) { in.MaxRefusals = 10 })
	iat := fx.clock.now().Unix()
	fx.issuer.Opaque("known", map[string]any{"iat": iat})
	fx.issuer.Opaque("other", map[string]any{"iat": iat})
	from := func(peer, text string) authz.TokenStatus {
		return fx.Identify(t.Context(), &authz.Bearer{Text: text, Peer: peer}, fx.clock.now()).Status
	}
	if s := from("2001:db8::1", "known"); s != authz.TokenValid {
		t.Fatal(s)
	}
	before := fx.issuer.Asked.Load()
	for i := range 100 {
		want := authz.TokenInactive
		if i >= 10 {
			want = authz.TokenUnavailable
		}
		if s := from(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprint("made-up", i)); s != want { // the addresses of one customer
			t.Errorf("%d: %q", i, s)
		}
	}
	if n := fx.issuer.Asked.Load() - before; n != 10 {
		t.Errorf("asked %d times", n)
	}
	fx.clock.advance(11 * time.Second)
	for peer, text := range map[string]string{"2001:db8::1": "known", "2001:db8:0:1::1": "other"} {
		if s := from(peer, text); s != authz.TokenValid {
			t.Errorf("%s of %s: %q", text, peer, s)
		}
	}
	fx.clock.advance(time.Minute)
	if s := from("2001:db8::1", "made-up-later"); s != authz.TokenInactive {
		t.Errorf("a minute later: %q", s)
	}
}

// TestIntrospection_NeverSendsAPIKeys uses texts that are API keys, or may be one.
func TestIntrospection_NeverSendsAPIKeys(t *testing.T) {
	fx := newIntrospectionFixture(t, nil)
	jwt := fx.issuer.Token(map[string]any{"iss": "https://elsewhere.example"})
	keys := map[string]error{"imported-key": nil, jwt: nil, "maybe": errors.New("the store hangs")}
	v := token.New(token.Options{
		Introspection: &token.Introspection{
			URL: fx.issuer.URL + tokentest.IntrospectPath, Issuer: fx.issuer.URL, ClientID: fx.issuer.ClientID, Secret: fx.issuer.Secret,
			TTL: time.Second, NegativeTTL: time.Second, Timeout: time.Second,
		},
		Timing: timing(), IsKey: func(string) bool { return false }, Now: fx.clock.now, Log: slog.New(slog.DiscardHandler),
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
	if n := fx.issuer.Asked.Load(); n != 0 {
		t.Errorf("%d keys left", n)
	}
	if f := v.Inspect(t.Context(), "no-key"); f.Status != authz.TokenInactive {
		t.Errorf("%q", f.Status)
	}
}
