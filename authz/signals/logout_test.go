package signals_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

// logoutExample is the example of Back-Channel Logout 1.0 section 2.4.
const logoutExample = `{
   "iss": "https://server.example.com",
   "sub": "248289761001",
   "aud": "s6BhdRkqt3",
   "iat": 1471566154,
   "exp": 1471569754,
   "jti": "bWJq",
   "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
   "events": {
     "http://schemas.openid.net/event/backchannel-logout": {}
     }
  }`

const server = "https://server.example.com"

func iat() time.Time { return time.Unix(1471566154, 0).UTC() }

func TestLogout_ExampleOfTheSpecification(t *testing.T) {
	w := newWorld(t)
	w.now = iat().Add(time.Second)
	want(t, w.logout(t, logoutExample), 200, "")
	session := revocation.Record{
		Kind: revocation.KindSession, Issuer: server, Value: "08a5019c-17e1-4977-8f42-65a12843ea02", At: w.now,
		ExpiresAt: w.now.Add(maxLifetime + margin),
	}
	sessionless := session
	sessionless.Kind, sessionless.Value, sessionless.Before = revocation.KindSessionless, "248289761001", iat()
	w.wantRecords(t, session, sessionless)
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["by"] != server {
		t.Errorf("the log says %v", lines)
	}
}

// TestLogout_SessionAndUser: the session ends, and so do the user's tokens that name no session, which may belong to it.
func TestLogout_SessionAndUser(t *testing.T) {
	w := newWorld(t)
	want(t, w.logout(t, with(t, logoutExample, object{"sid": "s1", "sub": "alice"})), 200, "")
	for name, c := range map[string]struct {
		session, subject string
		issued           time.Time
		revoked          bool
	}{
		"in the session":               {"s1", "alice", iat(), true},
		"in the session, issued later": {"s1", "alice", iat().Add(time.Minute), true},
		"in another session":           {"s2", "alice", iat(), false},
		"without a session":            {"", "alice", iat(), true},
		"without, issued later":        {"", "alice", iat().Add(time.Second), false},
		"without, of another user":     {"", "bob", iat(), false},
	} {
		if got := w.revoker.Token(&authz.TokenFact{Issuer: server, Session: c.session, Subject: c.subject, IssuedAt: c.issued}); got != c.revoked {
			t.Errorf("a token %s: revoked %v", name, got)
		}
	}
}

// TestEndpoints_NullIsAbsent uses senders that write null for a member that they do not have.
func TestEndpoints_NullIsAbsent(t *testing.T) {
	null := func(claims string, names ...string) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(claims), &m); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			m[name] = nil
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	w := newWorld(t)
	want(t, w.logout(t, null(logoutExample, "sid", "nonce")), 200, "")
	want(t, w.logout(t, null(with(t, logoutExample, object{"jti": "another"}), "sub")), 200, "")
	want(t, w.logout(t, null(with(t, logoutExample, object{"jti": "third"}), "sub", "sid")), 400, "invalid_request")
	set := `{"iss":"` + idp + `","iat":1715774400,"jti":"j","aud":"r","sub":null,"exp":null,
		"sub_id":{"format":"iss_sub","iss":"` + idp + `","sub":"alice","email":null},
		"events":{"https://schemas.openid.net/secevent/risc/event-type/sessions-revoked":{"event_timestamp":null,"subject":null}}}`
	want(t, w.push(t, set), 202, "")
	want(t, w.push(t, strings.NewReplacer(`"j"`, `"k"`, `"sub_id":{`, `"sub_id":null,"x":{`, `"subject":null`, `"subject":{"format":null,"subject_type":"iss-sub","iss":"`+idp+`","sub":"bob"}`).Replace(set)), 202, "")
	if len(w.revoker.kept) != 4 {
		t.Errorf("recorded %+v", w.revoker.kept)
	}
}

// TestLogout_User: what the user had when the logout token was made ends, and nothing later, however late the token arrives.
func TestLogout_User(t *testing.T) {
	w := newWorld(t)
	w.now = iat().Add(time.Hour)
	want(t, w.logout(t, with(t, logoutExample, object{"sid": nil})), 200, "")
	w.wantRecords(t, revocation.Record{
		Kind: revocation.KindSubject, Issuer: server, Value: "248289761001", Before: iat(), At: w.now,
		ExpiresAt: w.now.Add(maxLifetime + margin),
	})
	token := authz.TokenFact{Issuer: server, Subject: "248289761001", IssuedAt: iat()}
	if !w.revoker.Token(&token) {
		t.Error("a token from before is good")
	}
	if token.IssuedAt = iat().Add(time.Second); w.revoker.Token(&token) {
		t.Error("a token from after is cut off")
	}
}

// TestLogout_IssuerClockAhead: the issuer's clock decides, because the iat of its access tokens comes from the same clock.
func TestLogout_IssuerClockAhead(t *testing.T) {
	w := newWorld(t)
	w.now = iat().Add(-20 * time.Second)
	want(t, w.logout(t, with(t, logoutExample, object{"sid": nil})), 200, "")
	w.wantRecords(t, revocation.Record{
		Kind: revocation.KindSubject, Issuer: server, Value: "248289761001", Before: iat(), At: w.now,
		ExpiresAt: iat().Add(maxLifetime + margin),
	})
}

func TestLogout_Replayed(t *testing.T) {
	w := newWorld(t)
	want(t, w.logout(t, logoutExample), 200, "")
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
	want(t, w.logout(t, with(t, logoutExample, object{"jti": "another"})), 200, "")
	want(t, w.logout(t, with(t, logoutExample, object{"iss": "https://another.example"})), 200, "")
	w.now = w.now.Add(maxLifetime - time.Second)
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
	// While the store is out of reach the issuer is told to try again, and that is no replay.
	w.revoker.err = authz.Errorf(authz.KindUnavailable, "no")
	next := with(t, logoutExample, object{"jti": "next"})
	want(t, w.logout(t, next), 503, "temporarily_unavailable")
	w.revoker.err = nil
	want(t, w.logout(t, next), 200, "")
	want(t, w.logout(t, next), 400, "invalid_request")
}

// TestLogout_ReplayedConcurrently: one of many copies is acknowledged.
func TestLogout_ReplayedConcurrently(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	codes := make(map[int]int)
	var wg sync.WaitGroup
	w.sent = append(w.sent, sign(logoutExample))
	for range 16 {
		wg.Go(func() {
			rec := w.post(t, signals.LogoutPath, form, "logout_token="+sign(logoutExample))
			mu.Lock()
			defer mu.Unlock()
			codes[rec.Code]++
		})
	}
	wg.Wait()
	if codes[200] != 1 || codes[400] != 15 {
		t.Errorf("answers: %v", codes)
	}
}

// TestLogout_ReplayedWhileTheFirstIsKept: a copy arrives and is acknowledged while the first is being made durable.
func TestLogout_ReplayedWhileTheFirstIsKept(t *testing.T) {
	w := newWorld(t)
	w.revoker.during = func() { want(t, w.logout(t, logoutExample), 200, "") }
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
}

func TestLogout_BadTokens(t *testing.T) {
	const logout = "http://schemas.openid.net/event/backchannel-logout"
	for name, change := range map[string]object{
		"no events":           {"events": nil},
		"events is a list":    {"events": []string{logout}},
		"another event":       {"events": object{"http://schemas.openid.net/event/other": object{}}},
		"the event is a text": {"events": object{logout: "yes"}},
		"the event is null":   {"events": object{logout: nil}},
		"a nonce":             {"nonce": "n-0S6_WzA2Mj"},
		"an empty nonce":      {"nonce": ""},
		"no jti":              {"jti": nil},
		"an empty jti":        {"jti": ""},
		"jti is a number":     {"jti": 1},
		"no iat":              {"iat": nil},
		"no sub and no sid":   {"sub": nil, "sid": nil},
		"an empty sub":        {"sub": "", "sid": nil},
		"an empty sid":        {"sid": ""},
		"sid is a number":     {"sid": 17},
		"sub is a number":     {"sub": 17},
		"sub is a list":       {"sub": []string{"a"}, "sid": nil},
		"sub without end":     {"sub": strings.Repeat("x", 1025), "sid": nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want(t, w.logout(t, with(t, logoutExample, change)), 400, "invalid_request")
			w.wantRecords(t)
			if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["reason"] == "" || lines[0]["by"] != server {
				t.Errorf("the log says %v", lines)
			}
		})
	}
	for name, body := range map[string]string{
		"no token": "", "an empty one": "logout_token=", "two": "logout_token=a&logout_token=b", "not signed": "logout_token=a.b.c",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want(t, w.post(t, signals.LogoutPath, form, body), 400, "invalid_request")
			w.wantRecords(t)
		})
	}
}

func TestLogout_VerifierErrors(t *testing.T) {
	for status, c := range map[authz.TokenStatus]struct {
		status int
		code   string
	}{
		authz.TokenMalformed:       {400, "invalid_request"},
		authz.TokenBadSignature:    {400, "invalid_request"},
		authz.TokenUntrustedIssuer: {400, "invalid_request"},
		authz.TokenWrongAudience:   {400, "invalid_request"},
		authz.TokenExpired:         {400, "invalid_request"},
		authz.TokenNotYetValid:     {400, "invalid_request"},
		authz.TokenStatus(""):      {400, "invalid_request"},
		authz.TokenUnavailable:     {503, "temporarily_unavailable"},
	} {
		w := newWorld(t)
		w.verifier.err = &authz.TokenError{Status: status, Text: "the reason"}
		rec := w.logout(t, logoutExample)
		want(t, rec, c.status, c.code)
		if strings.Contains(rec.Body.String(), "the reason") || !strings.Contains(w.log.String(), "the reason") {
			t.Errorf("%s: the verifier's words are for the log: %s", status, rec.Body)
		}
		w.wantRecords(t)
	}
}
