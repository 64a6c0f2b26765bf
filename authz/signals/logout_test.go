package signals_test

import (
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

func TestLogoutExample(t *testing.T) {
	w := newWorld(t)
	w.now = iat().Add(time.Second)
	want(t, w.logout(t, logoutExample), 200, "")
	w.wantRecords(t, revocation.Record{
		Kind: revocation.KindSession, Issuer: server, Value: "08a5019c-17e1-4977-8f42-65a12843ea02", At: w.now,
		ExpiresAt: w.now.Add(maxLifetime + margin),
	})
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["by"] != server {
		t.Errorf("the log says %v", lines)
	}
}

// TestLogoutOfAUser ends what the user had when the token was made, and nothing that came later, however late it arrives.
func TestLogoutOfAUser(t *testing.T) {
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

// TestLogoutByAClockAhead holds that the issuer's clock decides: its tokens say by it when they were issued.
func TestLogoutByAClockAhead(t *testing.T) {
	w := newWorld(t)
	w.now = iat().Add(-20 * time.Second)
	want(t, w.logout(t, with(t, logoutExample, object{"sid": nil})), 200, "")
	w.wantRecords(t, revocation.Record{
		Kind: revocation.KindSubject, Issuer: server, Value: "248289761001", Before: iat(), At: w.now,
		ExpiresAt: iat().Add(maxLifetime + margin),
	})
}

func TestLogoutIsNotReplayed(t *testing.T) {
	w := newWorld(t)
	want(t, w.logout(t, logoutExample), 200, "")
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
	want(t, w.logout(t, with(t, logoutExample, object{"jti": "another"})), 200, "")
	want(t, w.logout(t, with(t, logoutExample, object{"iss": "https://another.example"})), 200, "")
	w.now = w.now.Add(maxLifetime - time.Second)
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
	// The store was out of reach: the issuer is told to come back, and is heard when it does.
	w.revoker.err = authz.Errorf(authz.KindUnavailable, "no")
	next := with(t, logoutExample, object{"jti": "next"})
	want(t, w.logout(t, next), 503, "temporarily_unavailable")
	w.revoker.err = nil
	want(t, w.logout(t, next), 200, "")
	want(t, w.logout(t, next), 400, "invalid_request")
}

// TestLogoutReplayedAtOnce holds that of many copies one is acknowledged.
func TestLogoutReplayedAtOnce(t *testing.T) {
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

// TestLogoutReplayedMeanwhile has a second copy arrive, and be acknowledged, while the first is made durable.
func TestLogoutReplayedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.revoker.during = func() { want(t, w.logout(t, logoutExample), 200, "") }
	want(t, w.logout(t, logoutExample), 400, "invalid_request")
}

func TestLogoutRefusesOtherTokens(t *testing.T) {
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
		"nobody":              {"sub": nil, "sid": nil},
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

func TestLogoutRefusesWhatTheVerifierRefuses(t *testing.T) {
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
