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

const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
)

// TestPushExample is the body of RFC 8935 figure 1 without its line breaks: RISC account-disabled, with the subject in
// the event, as drafts had it.
func TestPushExample(t *testing.T) {
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

// set is a security event token with one event.
func set(t testing.TB, event string, claims, changes object) string {
	t.Helper()
	base := object{
		"iss": idp, "jti": "756E69717565206964656E746966696572", "iat": at().Unix() + 168, "aud": "636C69656E745F6964",
		"sub_id": issSub("alice"), "events": object{event: claims},
	}
	raw, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	return with(t, string(raw), changes)
}

// at is when the events of the CAEP examples happened.
func at() time.Time { return time.Unix(1615304991, 0).UTC() }

func issSub(sub string) object { return object{"format": "iss_sub", "iss": idp, "sub": sub} }
func opaque(id string) object  { return object{"format": "opaque", "id": id} }

var happened = object{"event_timestamp": 1615304991}

// before is a record for what was issued before the event.
func before(kind revocation.Kind, value string, at time.Time) revocation.Record {
	r := forGood(kind, value)
	r.Before = at
	return r
}

func forGood(kind revocation.Kind, value string) revocation.Record {
	return revocation.Record{Kind: kind, Issuer: idp, Value: value, At: noon(), ExpiresAt: noon().Add(maxLifetime + margin)}
}

func suspended(value string, at time.Time) revocation.Record {
	return revocation.Record{Kind: revocation.KindSuspension, Issuer: idp, Value: value, At: at}
}

func lifted(value string, at time.Time) revocation.Record {
	return revocation.Record{
		Kind: revocation.KindSuspension, Issuer: idp, Value: value, At: at, Lifted: true, ExpiresAt: noon().Add(maxLifetime + margin),
	}
}

// TestEvents says what each event does, by the examples of CAEP 1.0 section 3, RISC 1.0 section 2 and SSF 1.0.
func TestEvents(t *testing.T) {
	const session = "dMTlD|1600802906337.16|16008.16"
	sub, sid, jti := revocation.KindSubject, revocation.KindSession, revocation.KindJTI
	issued := at().Add(168 * time.Second)
	change := func(how string) object {
		return object{"event_timestamp": 1615304991, "credential_type": "fido2-roaming", "change_type": how, "friendly_name": "Jane's USB authenticator"}
	}
	type records = []revocation.Record
	for name, c := range map[string]struct {
		event   string
		claims  object
		subject any
		want    records
	}{
		"CAEP session-revoked by an opaque id": {caep + "session-revoked", happened, opaque(session),
			records{forGood(sid, session), before(sub, session, at())}},
		"CAEP session-revoked by its parts": {caep + "session-revoked", object{
			"event_timestamp": 1615304991, "initiating_entity": "policy", "reason_admin": object{"en": "Landspeed Policy Violation: C076E82F"},
		}, object{"format": "complex", "session": opaque(session), "user": issSub("99beb27c"), "tenant": opaque("123456789")},
			records{forGood(sid, session), before(revocation.KindSessionless, "99beb27c", at())}},
		"CAEP session-revoked by user and device": {caep + "session-revoked", happened, object{
			"format": "complex", "user": issSub("jane.smith@example.com"), "device": issSub("e9297990"), "tenant": opaque("123456789"),
		}, records{before(sub, "jane.smith@example.com", at())}},
		"session-revoked beside its issuer": {caep + "session-revoked", happened, object{"format": "complex", "session": issSub("s-1")},
			records{forGood(sid, "s-1")}},
		"session-revoked of a session that cannot be found": {caep + "session-revoked", happened, object{
			"format": "complex", "user": issSub("alice"), "session": object{"format": "jwt_id", "iss": idp, "jti": "x"},
		}, records{before(sub, "alice", at())}},
		"session-revoked of a user": {caep + "session-revoked", happened, issSub("alice"), records{before(sub, "alice", at())}},

		"CAEP token-claims-change of a token": {caep + "token-claims-change", object{"event_timestamp": 1615304991, "claims": object{"role": "ro-admin"}},
			object{"format": "jwt_id", "iss": idp, "jti": "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7"},
			records{forGood(jti, "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7")}},
		"token-claims-change of a user":    {caep + "token-claims-change", happened, opaque("alice"), records{before(sub, "alice", at())}},
		"token-claims-change of a session": {caep + "token-claims-change", happened, object{"format": "complex", "session": opaque("s-1")}, records{before(sid, "s-1", at())}},

		"CAEP credential-change, create": {caep + "credential-change", change("create"), issSub("jane.smith@example.com"), nil},
		"credential-change, revoke":      {caep + "credential-change", change("revoke"), issSub("alice"), records{before(sub, "alice", at())}},
		"credential-change, delete":      {caep + "credential-change", change("delete"), issSub("alice"), records{before(sub, "alice", at())}},
		"credential-change, update":      {caep + "credential-change", change("update"), issSub("alice"), records{before(sub, "alice", at())}},

		"RISC account-disabled": {risc + "account-disabled", object{"reason": "hijacking"}, issSub("7375626A656374"),
			records{suspended("7375626A656374", issued), before(sub, "7375626A656374", issued)}},
		"RISC account-purged":  {risc + "account-purged", object{}, issSub("alice"), records{suspended("alice", issued), before(sub, "alice", issued)}},
		"RISC account-enabled": {risc + "account-enabled", object{}, issSub("alice"), records{lifted("alice", issued)}},
		"RISC credential-compromise": {risc + "credential-compromise", object{"credential_type": "password"}, issSub("joe.smith@example.com"),
			records{before(sub, "joe.smith@example.com", issued)}},
		"RISC sessions-revoked": {risc + "sessions-revoked", object{}, object{"format": "complex", "user": opaque("alice")}, records{before(sub, "alice", issued)}},

		"SSF verification":         {"https://schemas.openid.net/secevent/ssf/event-type/verification", object{"state": "VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo="}, opaque("72e6991badb44e08a69672960053b342"), nil},
		"an event of another kind": {risc + "identifier-changed", object{"new-value": "john.roe@example.com"}, object{"format": "email", "email": "john.doe@example.com"}, nil},
		"an event of nobody here":  {caep + "device-compliance-change", happened, object{"format": "complex", "device": object{"format": "iss_sub", "iss": "https://mdm.example/", "sub": "d"}}, nil},
		"an event of no subject":   {"https://example.com/event", object{}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want(t, w.push(t, set(t, c.event, c.claims, object{"sub_id": c.subject})), 202, "")
			w.wantRecords(t, c.want...)
			if lines := w.lines(slog.LevelInfo); len(lines) != 1 || (lines[0]["kinds"] == nil) != (c.want == nil) {
				t.Errorf("the log says %v", lines)
			}
		})
	}
}

// TestOlderSubjects reads the subject where drafts had it.
func TestOlderSubjects(t *testing.T) {
	for name, subject := range map[string]object{
		"RFC 8417":          {"subject_type": "iss-sub", "iss": idp, "sub": "alice"},
		"with _":            {"subject_type": "iss_sub", "iss": idp, "sub": "alice"},
		"with format":       issSub("alice"),
		"by parts":          {"user": issSub("alice")},
		"by parts, complex": {"format": "complex", "user": issSub("alice")},
	} {
		w := newWorld(t)
		want(t, w.push(t, set(t, risc+"sessions-revoked", object{"subject": subject}, object{"sub_id": nil})), 202, "")
		if len(w.revoker.kept) != 1 || w.revoker.kept[0].Value != "alice" {
			t.Errorf("%s: %+v", name, w.revoker.kept)
		}
	}
}

func TestPushRefusesBadTokens(t *testing.T) {
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
		"parts of nobody":       {"sub_id": object{"format": "complex"}},
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

// TestPushRefusesWhatItCannotDo holds that an event is refused that would take no effect.
func TestPushRefusesWhatItCannotDo(t *testing.T) {
	token := object{"format": "jwt_id", "iss": idp, "jti": "x"}
	session := object{"format": "complex", "session": opaque("s-1")}
	for name, c := range map[string]struct {
		event   string
		claims  object
		subject object
	}{
		"an account by a token":    {risc + "account-disabled", object{}, token},
		"an account by a session":  {risc + "account-purged", object{}, session},
		"an account by an address": {risc + "account-enabled", object{}, object{"format": "email", "email": "foo@example.com"}},
		"a credential's session":   {caep + "credential-change", object{"change_type": "update"}, session},
		"a change of no type":      {caep + "credential-change", object{}, issSub("alice")},
		"a change of new type":     {caep + "credential-change", object{"change_type": "expire"}, issSub("alice")},
		"a SAML assertion": {caep + "token-claims-change", happened,
			object{"format": "saml_assertion_id", "issuer": idp, "assertion_id": "_a75adf55-01d7-dbd8372ebdfc"}},
		"a time that is a text":   {risc + "sessions-revoked", object{"event_timestamp": "1615304991"}, issSub("alice")},
		"a time of no sign":       {risc + "sessions-revoked", object{"event_timestamp": -5}, issSub("alice")},
		"the beginning of time":   {risc + "sessions-revoked", object{"event_timestamp": 0}, issSub("alice")},
		"the end of time":         {risc + "sessions-revoked", object{"event_timestamp": 1e15}, issSub("alice")},
		"a time beyond a number":  {risc + "sessions-revoked", object{"event_timestamp": json.Number("1e999")}, issSub("alice")},
		"a time that is not said": {risc + "sessions-revoked", object{"event_timestamp": object{}}, issSub("alice")},
	} {
		w := newWorld(t)
		rec := w.push(t, set(t, c.event, c.claims, object{"sub_id": c.subject}))
		want(t, rec, 400, "invalid_request")
		if len(w.revoker.kept) != 0 {
			t.Errorf("%s: recorded %+v", name, w.revoker.kept)
		}
	}
}

// TestEventsTakeTheirTime goes through what an event says of when it happened.
func TestEventsTakeTheirTime(t *testing.T) {
	now := noon().Unix()
	for name, c := range map[string]struct {
		iat       int64
		timestamp any
		before    time.Time
		suspended time.Time
	}{
		"by the event":           {now, now - 60, noon().Add(-time.Minute), noon().Add(-time.Minute)},
		"with a fraction":        {now, json.Number("1715774399.5"), noon().Add(-500 * time.Millisecond), noon().Add(-500 * time.Millisecond)},
		"in milliseconds":        {now, (now - 60) * 1000, noon().Add(-time.Minute), noon().Add(-time.Minute)},
		"by the token":           {now - 5, nil, noon().Add(-5 * time.Second), noon().Add(-5 * time.Second)},
		"in the future":          {now, now + 3600, noon(), noon()},
		"of a clock ahead":       {now + 20, nil, noon().Add(20 * time.Second), noon()},
		"of a clock far ahead":   {now + 20, now + 60, noon().Add(20 * time.Second), noon()},
		"before a clock's ahead": {now + 20, now - 60, noon().Add(-time.Minute), noon().Add(-time.Minute)},
	} {
		w := newWorld(t)
		claims := object{}
		if c.timestamp != nil {
			claims["event_timestamp"] = c.timestamp
		}
		want(t, w.push(t, set(t, risc+"account-disabled", claims, object{"iat": c.iat})), 202, "")
		if got := w.revoker.kept; len(got) != 2 || !got[0].At.Equal(c.suspended) || !got[1].Before.Equal(c.before) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestSuspensionsInAnyOrder holds that the latest event counts and not the one that arrives last.
func TestSuspensionsInAnyOrder(t *testing.T) {
	alice := authz.TokenFact{Issuer: idp, Subject: "alice", IssuedAt: noon()}
	w := newWorld(t)
	send := func(jti, event string, ago time.Duration) {
		t.Helper()
		stamp := noon().Add(-ago).Unix()
		want(t, w.push(t, set(t, risc+event, object{"event_timestamp": stamp}, object{"jti": jti, "iat": noon().Unix()})), 202, "")
	}
	send("2", "account-enabled", time.Minute)
	send("1", "account-disabled", time.Hour) // it was sent first
	if w.revoker.Token(&alice) {
		t.Error("an older event suspends")
	}
	send("3", "account-disabled", time.Second)
	if !w.revoker.Token(&alice) {
		t.Error("a newer event does not suspend")
	}
	send("4", "account-enabled", 30*time.Second)
	if !w.revoker.Token(&alice) {
		t.Error("an older event lifts the suspension")
	}
	send("5", "account-enabled", 0)
	if w.revoker.Token(&alice) {
		t.Error("a newer event does not lift the suspension")
	}
	if alice.IssuedAt = noon().Add(-2 * time.Second); !w.revoker.Token(&alice) {
		t.Error("a token from before the suspension is good again")
	}
}

// TestPushIsAllOrNothing holds that a token with something wrong in it has no effect at all, and that one with several
// events has all of theirs.
func TestPushIsAllOrNothing(t *testing.T) {
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

// TestPushRepeated holds that a transmitter which did not hear the answer is answered again, and nothing is done twice.
func TestPushRepeated(t *testing.T) {
	w := newWorld(t)
	token := set(t, risc+"account-disabled", object{}, nil)
	// While the store fails, after the first of two records, nothing is acknowledged.
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

// TestPushRepeatedMeanwhile holds that a copy is not acknowledged because another is being worked on, which may yet fail.
func TestPushRepeatedMeanwhile(t *testing.T) {
	w := newWorld(t)
	token := set(t, risc+"sessions-revoked", object{}, nil)
	w.revoker.during = func() {
		w.revoker.err = errors.New("the disk is full")
		want(t, w.push(t, token), 503, "temporarily_unavailable")
		w.revoker.err = nil
	}
	want(t, w.push(t, token), 202, "")
}

// TestPushErrors maps what the verifier found to the codes of RFC 8935 section 2.4, in the form of its figure 3.
func TestPushErrors(t *testing.T) {
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

func TestPushIsAuthorized(t *testing.T) {
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

// TestVerificationIsLogged shows the operator the state that he had the transmitter send.
func TestVerificationIsLogged(t *testing.T) {
	w := newWorld(t)
	want(t, w.push(t, set(t, "https://schemas.openid.net/secevent/ssf/event-type/verification", object{"state": "VGhpcyBp"}, nil)), 202, "")
	if lines := w.lines(slog.LevelInfo); len(lines) != 1 || lines[0]["verification"] != "VGhpcyBp" || lines[0]["ignored"] != nil {
		t.Errorf("the log says %v", lines)
	}
}
