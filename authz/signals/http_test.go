package signals_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

// requests returns one good request for each endpoint.
func requests(t testing.TB, w *world) map[string]func() *http.Request {
	w.verifier.facts["some-token-text"] = authz.TokenFact{Status: authz.TokenValid, Issuer: idp, ID: "id-1"}
	made := func(path, contentType, body string) func() *http.Request {
		return func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			r.Header.Set("Content-Type", contentType)
			r.Header.Set("Authorization", basicClient)
			return r
		}
	}
	return map[string]func() *http.Request{
		signals.RevokePath: made(signals.RevokePath, form, "token=some-token-text"),
		signals.LogoutPath: made(signals.LogoutPath, form, "logout_token="+sign(logoutExample)),
		signals.EventsPath: made(signals.EventsPath, secevent, sign(set(t, risc+"account-disabled", object{}, nil))),
	}
}

// TestEndpoints_StoreFails makes the store fail before the first record, and between the first and the second.
func TestEndpoints_StoreFails(t *testing.T) {
	w := newWorld(t)
	for path, request := range requests(t, w) {
		for after := range 2 {
			w.revoker.err, w.revoker.after = authz.Errorf(authz.KindUnavailable, "no"), after
			want(t, w.serve(t, request()), 503, "temporarily_unavailable")
		}
		// The sender is not asked to repeat what can never be kept.
		w.revoker.err, w.revoker.after = authz.Errorf(authz.KindInvalid, "no"), 0
		want(t, w.serve(t, request()), 400, "invalid_request")
		w.revoker.err = nil
		if rec := w.serve(t, request()); rec.Code >= 300 {
			t.Errorf("%s: after the store came back: %d %s", path, rec.Code, rec.Body)
		}
	}
	if got := len(w.lines(slog.LevelError)); got != 6 {
		t.Errorf("%d lines about the store", got)
	}
}

func TestEndpoints_Panic(t *testing.T) {
	for name, panics := range map[string]func(){
		"a text":         func() { panic("some-token-text") },
		"an error":       func() { panic(errors.New(sign(logoutExample))) },
		"of the runtime": func() { _ = strings.Split("", ".")[5] },
	} {
		w := newWorld(t)
		all := requests(t, w)
		w.verifier.panics = panics
		for path, request := range all {
			want(t, w.serve(t, request()), 500, "server_error")
			if len(w.revoker.kept) != 0 {
				t.Errorf("%s: %s: recorded %+v", name, path, w.revoker.kept)
			}
		}
		w.sent = append(w.sent, "some-token-text", sign(logoutExample))
		if strings.Count(w.log.String(), "Inspect") == 0 {
			t.Errorf("%s: the log does not say where: %s", name, w.log.String())
		}
	}
}

func TestEndpoints_OnlyPOST(t *testing.T) {
	w := newWorld(t)
	for path := range requests(t, w) {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, "REVOKE"} {
			rec := w.serve(t, httptest.NewRequest(method, path, nil))
			if rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != http.MethodPost {
				t.Errorf("%s %s: %d", method, path, rec.Code)
			}
		}
		for _, other := range []string{path + "/", "/x" + path, "/", strings.ToUpper(path)} {
			want(t, w.serve(t, httptest.NewRequest(http.MethodPost, other, nil)), 404, "invalid_request")
		}
	}
}

func TestEndpoints_BodySizeAndType(t *testing.T) {
	w := newWorld(t)
	for path, request := range requests(t, w) {
		r := request()
		good := r.Header.Get("Content-Type")
		r.Header.Set("Content-Type", strings.ToUpper(good)+"; charset=utf-8")
		if rec := w.serve(t, r); rec.Code >= 300 {
			t.Errorf("%s: parameters of the type matter: %d %s", path, rec.Code, rec.Body)
		}
		n := len(w.revoker.kept)
		for _, bad := range []string{"", "text/plain", "application/json", "application/jwt", good + "x", good + "; charset", ";", "multipart/form-data; boundary=x"} {
			r := request()
			r.Header.Set("Content-Type", bad)
			want(t, w.serve(t, r), 400, "invalid_request")
		}
		r = request()
		r.Header.Add("Content-Type", good)
		want(t, w.serve(t, r), 400, "invalid_request")
		r = request()
		r.Header.Del("Content-Type")
		want(t, w.serve(t, r), 400, "invalid_request")
		r = request()
		r.Body = io.NopCloser(io.MultiReader(r.Body, strings.NewReader(strings.Repeat("&", 64<<10))))
		want(t, w.serve(t, r), 400, "invalid_request")
		r = request()
		r.Body = io.NopCloser(io.MultiReader(r.Body, broken{}))
		want(t, w.serve(t, r), 400, "invalid_request")
		if len(w.revoker.kept) != n {
			t.Errorf("%s: recorded %+v", path, w.revoker.kept[n:])
		}
	}
	want(t, w.post(t, signals.EventsPath, secevent, " \n"), 400, "invalid_request")
	want(t, w.post(t, signals.EventsPath, secevent, sign(set(t, risc+"account-enabled", object{}, object{"jti": "nl"}))+"\r\n"), 202, "")
}

// broken is a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestHandler_WithoutClock leaves the clock to the handler, as the server does.
func TestHandler_WithoutClock(t *testing.T) {
	w := newWorld(t, func(o *signals.Options) { o.Now = nil })
	for path, request := range requests(t, w) {
		if rec := w.serve(t, request()); rec.Code >= 300 {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
}

// TestThrottle_RefusalsInTheLog sends many anonymous requests, and then a mistake of a known client.
func TestThrottle_RefusalsInTheLog(t *testing.T) {
	counted := make(map[string]int)
	w := newWorld(t, func(o *signals.Options) { o.Refused = func(endpoint string) { counted[endpoint]++ } })
	for range 500 {
		want(t, w.post(t, signals.RevokePath, form, "token=x&client_id=x&client_secret=y"), 401, "invalid_client")
		want(t, w.logout(t, `{}`), 400, "invalid_request")
		want(t, w.post(t, signals.EventsPath, "text/plain", "x"), 400, "invalid_request")
	}
	if n := len(w.lines(slog.LevelInfo)); n < 10 || n > 30 {
		t.Errorf("%d lines", n)
	}
	if counted[signals.RevokePath] != 500 || counted[signals.LogoutPath] != 500 || counted[signals.EventsPath] != 500 {
		t.Errorf("counted %v", counted)
	}
	w.log.Reset()
	want(t, w.post(t, signals.RevokePath, form, "", "Authorization", basicClient), 400, "invalid_request")
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["by"] != "s6BhdRkqt3" {
		t.Errorf("of an authenticated client, the log says %v", lines)
	}
	w.log.Reset()
	w.now = w.now.Add(time.Minute)
	want(t, w.post(t, signals.EventsPath, "text/plain", "x"), 400, "invalid_request")
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["not_logged_before"].(float64) < 1400 {
		t.Errorf("a minute later the log says %v", lines)
	}
}
