package signals_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/signals"
)

// TestPush_ExampleOfRFC8935 sends the body of RFC 8935 figure 1 without its line breaks: RISC account-disabled, with the
// subject inside the event, as drafts had it.
func TestPush_ExampleOfRFC8935(t *testing.T) {
	const body = "eyJ0eXAiOiJzZWNldmVudCtqd3QiLCJhbGciOiJIUzI1NiJ9Cg" +
		".eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbS8iLCJqdGkiOiI3NTZFNjk" +
		"3MTc1NjUyMDY5NjQ2NTZFNzQ2OTY2Njk2NTcyIiwiaWF0IjoxNTA4MTg0ODQ1LC" +
		"JhdWQiOiI2MzZDNjk2NTZFNzQ1RjY5NjQiLCJldmVudHMiOnsiaHR0cHM6Ly9zY" +
		"2hlbWFzLm9wZW5pZC5uZXQvc2VjZXZlbnQvcmlzYy9ldmVudC10eXBlL2FjY291" +
		"bnQtZGlzYWJsZWQiOnsic3ViamVjdCI6eyJzdWJqZWN0X3R5cGUiOiJpc3Mtc3V" +
		"iIiwiaXNzIjoiaHR0cHM6Ly9pZHAuZXhhbXBsZS5jb20vIiwic3ViIjoiNzM3NT" +
		"YyNkE2NTYzNzQifSwicmVhc29uIjoiaGlqYWNraW5nIn19fQ" +
		".Y4rXxMD406P2edv00cr9Wf3_XwNtLjB9n-jTqN1_lLc"
	w := newWorld(t)
	w.sent = append(w.sent, body)
	rec := w.post(t, signals.EventsPath, secevent, body, "Accept", "application/json", "Accept-Language", "en-US, en;q=0.5")
	want(t, rec, 202, "")
	at := time.Unix(1508184845, 0).UTC()
	w.wantRecords(t,
		revocation.Record{Kind: revocation.KindSuspension, Issuer: idp, Value: "7375626A656374", At: at},
		revocation.Record{
			Kind: revocation.KindSubject, Issuer: idp, Value: "7375626A656374", At: noon(), Before: at,
			ExpiresAt: noon().Add(maxLifetime + margin),
		})
	lines := w.lines(slog.LevelInfo)
	if len(lines) != 1 || lines[0]["by"] != idp || lines[0]["jti"] != "756E69717565206964656E746966696572" {
		t.Errorf("the log says %v", lines)
	}
}

func TestPush_BadTokens(t *testing.T) {
	const event = caep + "session-revoked"
	parts := func(name string, part any) object {
		return object{"sub_id": object{"format": "complex", "user": issSub("alice"), name: part}}
	}
	for name, change := range map[string]object{
		"sub":                   {"sub": "alice"},
		"exp":                   {"exp": 1915304991},
		"exp of another type":   {"exp": "never"},
		"no jti":                {"jti": nil},
		"an empty jti":          {"jti": ""},
		"no iat":                {"iat": nil},
		"no events":             {"events": nil},
		"no event":              {"events": object{}},
		"events is a list":      {"events": []string{event}},
		"an event is a text":    {"events": object{event: "now"}},
		"an event is null":      {"events": object{event: object{}, "x": nil}},
		"no subject":            {"sub_id": nil},
		"a text for a subject":  {"sub_id": "alice"},
		"no format":             {"sub_id": object{"iss": idp, "sub": "alice"}},
		"format is a number":    {"sub_id": object{"format": 7, "iss": idp, "sub": "alice"}},
		"no sub":                {"sub_id": object{"format": "iss_sub", "iss": idp}},
		"an empty sub":          {"sub_id": issSub("")},
		"no iss":                {"sub_id": object{"format": "iss_sub", "sub": "alice"}},
		"another issuer's":      {"sub_id": object{"format": "iss_sub", "iss": "https://idp.example.com", "sub": "alice"}},
		"iss is an object":      {"sub_id": object{"format": "iss_sub", "iss": object{}, "sub": "alice"}},
		"no id":                 {"sub_id": object{"format": "opaque"}},
		"an id without end":     {"sub_id": opaque(strings.Repeat("x", 1025))},
		"opaque of another":     {"sub_id": object{"format": "opaque", "id": "alice", "iss": "https://other.example/"}},
		"a token":               {"sub_id": object{"format": "jwt_id", "iss": idp, "jti": "x"}},
		"an email address":      {"sub_id": object{"format": "email", "email": "alice@example.com"}},
		"an account":            {"sub_id": object{"format": "account", "uri": "acct:alice@example.com"}},
		"a phone number":        {"sub_id": object{"format": "phone_number", "phone_number": "+12065550100"}},
		"a format of one's own": {"sub_id": object{"format": "catalog_item", "catalog_id": "c0384/winter/2354122"}},
		"no parts":              {"sub_id": object{"format": "complex"}},
		"only a device":         {"sub_id": object{"format": "complex", "device": issSub("d")}},
		"another issuer's user": {"sub_id": object{"format": "complex", "user": object{"format": "iss_sub", "iss": "https://other.example/", "sub": "x"}}},
		"another's device":      parts("device", object{"format": "iss_sub", "iss": "https://other.example/", "sub": "x"}),
		"a text for a session":  parts("session", "s-1"),
		"a session of no form":  parts("session", object{"id": "s-1"}),
		"parts within parts":    {"sub_id": object{"format": "complex", "user": object{"format": "complex", "user": issSub("alice")}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want(t, w.push(t, set(t, event, happened, change)), 400, "invalid_request")
			w.wantRecords(t)
			if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["reason"] == "" || lines[0]["by"] != idp {
				t.Errorf("the log says %v", lines)
			}
		})
	}
}

// TestPush_AllOrNothing: a token with one bad event has no effect at all, and one with several good events has all effects.
func TestPush_AllOrNothing(t *testing.T) {
	w := newWorld(t)
	events := object{caep + "session-revoked": happened, caep + "credential-change": object{"change_type": "nonsense"}}
	want(t, w.push(t, set(t, "", nil, object{"events": events})), 400, "invalid_request")
	w.wantRecords(t)
	events[caep+"credential-change"] = object{"change_type": "update"}
	events["https://example.com/event"] = object{}
	events[risc+"account-disabled"] = happened
	want(t, w.push(t, set(t, "", nil, object{"events": events})), 202, "")
	issued := at().Add(168 * time.Second)
	w.wantRecords(t, before(revocation.KindSubject, "alice", issued), before(revocation.KindSubject, "alice", at()),
		suspended("alice", at()), before(revocation.KindSubject, "alice", at()))
}

// TestPush_Repeated: a transmitter that missed the answer gets it again, and nothing is recorded twice.
func TestPush_Repeated(t *testing.T) {
	w := newWorld(t)
	token := set(t, risc+"account-disabled", object{}, nil)
	// While the store fails after the first of two records, nothing is acknowledged.
	w.revoker.err, w.revoker.after = errors.New("the disk is full"), 1
	want(t, w.push(t, token), 503, "temporarily_unavailable")
	want(t, w.push(t, token), 503, "temporarily_unavailable")
	w.revoker.err = nil
	want(t, w.push(t, token), 202, "")
	n := len(w.revoker.kept)
	want(t, w.push(t, token), 202, "")
	if len(w.revoker.kept) != n || n != 3 {
		t.Errorf("recorded %+v", w.revoker.kept)
	}
	if lines := w.lines(slog.LevelDebug); len(lines) != 1 {
		t.Errorf("the log says %v", lines)
	}
	want(t, w.push(t, with(t, token, object{"jti": "another"})), 202, "")
	if len(w.revoker.kept) != n+2 {
		t.Errorf("recorded %+v", w.revoker.kept)
	}
}

// TestPush_RepeatedWhileTheFirstIsKept: a copy is not acknowledged while the first is being kept, which may still fail.
func TestPush_RepeatedWhileTheFirstIsKept(t *testing.T) {
	w := newWorld(t)
	token := set(t, risc+"sessions-revoked", object{}, nil)
	w.revoker.during = func() {
		w.revoker.err = errors.New("the disk is full")
		want(t, w.push(t, token), 503, "temporarily_unavailable")
		w.revoker.err = nil
	}
	want(t, w.push(t, token), 202, "")
}

// TestPush_VerifierErrors pins the codes of RFC 8935 section 2.4, in the form of its figure 3.
func TestPush_VerifierErrors(t *testing.T) {
	for status, c := range map[authz.TokenStatus]struct {
		status int
		code   string
	}{
		authz.TokenMalformed:       {400, "invalid_request"},
		authz.TokenBadSignature:    {400, "invalid_key"},
		authz.TokenUntrustedIssuer: {400, "invalid_issuer"},
		authz.TokenWrongAudience:   {400, "invalid_audience"},
		authz.TokenNotYetValid:     {400, "invalid_request"},
		authz.TokenUnavailable:     {503, "temporarily_unavailable"},
	} {
		w := newWorld(t)
		w.verifier.err = &authz.TokenError{Status: status, Text: "the reason"}
		rec := w.push(t, set(t, risc+"account-disabled", object{}, nil))
		want(t, rec, c.status, c.code)
		var body struct{ Err, Description string }
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || body.Err != c.code || body.Description == "" || body.Description == "the reason" {
			t.Errorf("%s: %s, %v", status, rec.Body, err)
		}
		if rec.Header().Get("Content-Language") != "en" {
			t.Errorf("%s: Content-Language is %q", status, rec.Header().Get("Content-Language"))
		}
		w.wantRecords(t)
	}
	w := newWorld(t)
	w.verifier.err = errors.New("who knows")
	want(t, w.push(t, set(t, risc+"account-disabled", object{}, nil)), 503, "temporarily_unavailable")
}

func TestPush_Authorization(t *testing.T) {
	const secret = "Bearer h480djs93hd8"
	for name, c := range map[string]struct {
		given []string
		code  string
	}{
		"as agreed":   {[]string{secret}, ""},
		"not":         {nil, "authentication_failed"},
		"empty":       {[]string{""}, "authentication_failed"},
		"wrong":       {[]string{"Bearer h480djs93hd9"}, "authentication_failed"},
		"another way": {[]string{"bearer h480djs93hd8"}, "authentication_failed"},
		"twice":       {[]string{secret, secret}, "authentication_failed"},
	} {
		w := newWorld(t, func(o *signals.Options) { o.EventAuthorization = secret })
		w.sent = append(w.sent, "h480djs93hd8")
		var headers []string
		for _, g := range c.given {
			headers = append(headers, "Authorization", g)
		}
		rec := w.post(t, signals.EventsPath, secevent, sign(set(t, risc+"account-disabled", object{}, nil)), headers...)
		if c.code == "" {
			want(t, rec, 202, "")
			continue
		}
		want(t, rec, 400, c.code)
		if len(w.revoker.kept) != 0 {
			t.Errorf("%s: recorded %+v", name, w.revoker.kept)
		}
	}
}

// TestPush_VerificationIsLogged: the operator finds the state that the transmitter was asked to send in the log.
func TestPush_VerificationIsLogged(t *testing.T) {
	w := newWorld(t)
	want(t, w.push(t, set(t, "https://schemas.openid.net/secevent/ssf/event-type/verification", object{"state": "VGhpcyBp"}, nil)), 202, "")
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["verification"] != "VGhpcyBp" || lines[0]["ignored"] != nil {
		t.Errorf("the log says %v", lines)
	}
}
