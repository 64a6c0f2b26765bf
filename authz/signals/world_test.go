package signals_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

const (
	idp         = "https://idp.example.com/"
	maxLifetime = 24 * time.Hour
	margin      = 5 * time.Minute
)

func noon() time.Time { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC) }

// verifier is a fake. It knows the access tokens in facts, and accepts a statement that carries one of the signatures.
type verifier struct {
	facts  map[string]authz.TokenFact
	err    error // of every statement
	panics func()
}

// signatures are those that the verifier accepts: the one of sign, and the one in the example of RFC 8935.
var signatures = []string{"c2lnbmVk", "Y4rXxMD406P2edv00cr9Wf3_XwNtLjB9n-jTqN1_lLc"}

func (v *verifier) Inspect(_ context.Context, text string) authz.TokenFact {
	if v.panics != nil {
		v.panics()
	}
	if fact, ok := v.facts[text]; ok {
		return fact
	}
	return authz.TokenFact{Status: authz.TokenMalformed}
}

func (v *verifier) Logout(_ context.Context, text string) (authz.Statement, error) {
	return v.statement(text)
}

func (v *verifier) Event(_ context.Context, text string) (authz.Statement, error) {
	return v.statement(text)
}

func (v *verifier) statement(text string) (authz.Statement, error) {
	if v.panics != nil {
		v.panics()
	}
	if v.err != nil {
		return authz.Statement{}, v.err
	}
	return readStatement(text)
}

func readStatement(text string) (authz.Statement, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return authz.Statement{}, &authz.TokenError{Status: authz.TokenMalformed, Text: "not three parts"}
	}
	if parts[2] != signatures[0] && parts[2] != signatures[1] {
		return authz.Statement{}, &authz.TokenError{Status: authz.TokenBadSignature, Text: "forged"}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	st := authz.Statement{}
	if err != nil || dec.Decode(&st.Claims) != nil {
		return authz.Statement{}, &authz.TokenError{Status: authz.TokenMalformed, Text: "not JSON"}
	}
	if st.Issuer, _ = st.Claims["iss"].(string); st.Issuer == "" {
		return authz.Statement{}, &authz.TokenError{Status: authz.TokenUntrustedIssuer, Text: "no issuer"}
	}
	st.ID, _ = st.Claims["jti"].(string)
	for name, to := range map[string]*time.Time{"iat": &st.IssuedAt, "exp": &st.ExpiresAt} {
		if n, ok := st.Claims[name].(json.Number); ok {
			if secs, err := n.Int64(); err == nil && secs > 0 && secs < 1e11 {
				*to = time.Unix(secs, 0).UTC()
			}
		}
	}
	return st, nil
}

// sign makes a signed statement of claims in JSON.
func sign(claims string) string {
	return "eyJ0eXAiOiJKV1QifQ." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + signatures[0]
}

// revoker is a revocation.Set that fails when told to, and remembers what it made durable.
type revoker struct {
	*revocation.Set
	during func() // called once, while a record is made durable
	mu     sync.Mutex
	err    error
	after  int // how many records are kept before err
	kept   []revocation.Record
}

func (r *revoker) Revoke(ctx context.Context, record revocation.Record) (revocation.Record, error) {
	if during := r.during; during != nil {
		r.during = nil
		during()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		if r.after == 0 {
			return revocation.Record{}, r.err
		}
		r.after--
	}
	stored, err := r.Set.Revoke(ctx, record)
	if err == nil {
		r.kept = append(r.kept, record)
	}
	return stored, err
}

// world is the endpoints between a fake verifier and a memory store.
type world struct {
	verifier *verifier
	revoker  *revoker
	store    *memory.Revocations
	now      time.Time
	handler  http.Handler
	log      bytes.Buffer
	sent     []string // texts that must not be in the log
}

func newWorld(t testing.TB, change ...func(*signals.Options)) *world {
	w := &world{verifier: &verifier{facts: make(map[string]authz.TokenFact)}, store: memory.NewRevocations(), now: noon()}
	now := func() time.Time { return w.now }
	w.revoker = &revoker{Set: revocation.NewSet(w.store, time.Minute, now)}
	opt := signals.Options{Clients: map[string]string{"s6BhdRkqt3": "gX1fBat3bV", "empty": ""}, MaxLifetime: maxLifetime, Now: now}
	for _, f := range change {
		f(&opt)
	}
	log := slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.handler = signals.Handler(w.verifier, w.revoker, opt, log)
	t.Cleanup(func() { w.checkSecrets(t) })
	return w
}

// checkSecrets looks for tokens and secrets in the log. The log would escape quotes, but tokens have none.
func (w *world) checkSecrets(t testing.TB) {
	for _, text := range append(w.sent, "gX1fBat3bV") {
		if len(text) > 8 && strings.Contains(w.log.String(), text) {
			t.Errorf("%q is in the log: %s", text, w.log.String())
		}
	}
}

// post sends a request with headers in pairs, and checks what every answer must have.
func (w *world) post(t testing.TB, path, contentType, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return w.serve(t, r)
}

func (w *world) serve(t testing.TB, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	h := rec.Header()
	if h.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", h.Get("Cache-Control"))
	}
	switch {
	case rec.Code < 300:
		if rec.Body.Len() != 0 {
			t.Errorf("%d with the body %q", rec.Code, rec.Body)
		}
	default:
		var answer map[string]string
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || len(answer) != 2 || h.Get("Content-Type") != "application/json" {
			t.Errorf("%d with the body %q: %v", rec.Code, rec.Body, err)
		}
	}
	if (rec.Code == http.StatusServiceUnavailable) != (h.Get("Retry-After") != "") {
		t.Errorf("%d with Retry-After %q", rec.Code, h.Get("Retry-After"))
	}
	if (rec.Code == http.StatusUnauthorized) != (h.Get("WWW-Authenticate") != "") {
		t.Errorf("%d with WWW-Authenticate %q", rec.Code, h.Get("WWW-Authenticate"))
	}
	return rec
}

const basicClient = "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW" // s6BhdRkqt3:gX1fBat3bV

func (w *world) revoke(t testing.TB, token string) *httptest.ResponseRecorder {
	t.Helper()
	w.sent = append(w.sent, token)
	return w.post(t, signals.RevokePath, form, url.Values{"token": {token}}.Encode(), "Authorization", basicClient)
}

func (w *world) logout(t testing.TB, claims string) *httptest.ResponseRecorder {
	t.Helper()
	w.sent = append(w.sent, sign(claims))
	return w.post(t, signals.LogoutPath, form, url.Values{"logout_token": {sign(claims)}}.Encode())
}

func (w *world) push(t testing.TB, claims string) *httptest.ResponseRecorder {
	t.Helper()
	w.sent = append(w.sent, sign(claims))
	return w.post(t, signals.EventsPath, secevent, sign(claims))
}

const (
	form     = "application/x-www-form-urlencoded"
	secevent = "application/secevent+jwt"
)

// want checks the status of an answer, and the code of its error in either dialect.
func want(t testing.TB, rec *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	var answer map[string]string
	_ = json.Unmarshal(rec.Body.Bytes(), &answer)
	if rec.Code != status || answer["error"]+answer["err"] != code {
		t.Errorf("got %d %s, want %d %s", rec.Code, rec.Body, status, code)
	}
}

// wantRecords checks everything that was recorded, in order.
func (w *world) wantRecords(t testing.TB, want ...revocation.Record) {
	t.Helper()
	w.revoker.mu.Lock()
	defer w.revoker.mu.Unlock()
	if len(w.revoker.kept) != len(want) {
		t.Fatalf("recorded %+v, want %+v", w.revoker.kept, want)
	}
	for i, got := range w.revoker.kept {
		if got.Cause == "" {
			t.Errorf("a record without a cause: %+v", got)
		}
		got.Cause = ""
		if want[i].At.IsZero() {
			got.At = time.Time{}
		}
		if got != want[i] {
			t.Errorf("record %d is\n%+v, want\n%+v", i, got, want[i])
		}
	}
}

// lines returns the log's lines of a level, without their time.
func (w *world) lines(level slog.Level) []map[string]any {
	var out []map[string]any
	dec := json.NewDecoder(bytes.NewReader(w.log.Bytes()))
	for {
		var line map[string]any
		if err := dec.Decode(&line); err == io.EOF {
			return out
		} else if err != nil {
			return append(out, map[string]any{"broken": err.Error()})
		}
		if line["level"] == level.String() {
			delete(line, "time")
			out = append(out, line)
		}
	}
}

// with returns claims with some of them set, or removed where the value is nil.
func with(t testing.TB, claims string, changes map[string]any) string {
	t.Helper()
	var m map[string]any
	dec := json.NewDecoder(strings.NewReader(claims))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		t.Fatalf("%v: %s", err, claims)
	}
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

type object = map[string]any
