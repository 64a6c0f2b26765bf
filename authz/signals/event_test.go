package signals_test

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
)

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

// TestEvent_Records pins the records of each event, with the examples of CAEP 1.0 section 3, RISC 1.0 section 2 and SSF 1.0.
func TestEvent_Records(t *testing.T) {
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
		"session-revoked with its issuer": {caep + "session-revoked", happened, object{"format": "complex", "session": issSub("s-1")},
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
		"an event of a device":     {caep + "device-compliance-change", happened, object{"format": "complex", "device": object{"format": "iss_sub", "iss": "https://mdm.example/", "sub": "d"}}, nil},
		"an event without subject": {"https://example.com/event", object{}, nil, nil},
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

// TestSubject_DraftForms uses subjects in the place and form that drafts gave them.
func TestSubject_DraftForms(t *testing.T) {
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

// TestEvent_Time has every way in which an event can say when it happened.
func TestEvent_Time(t *testing.T) {
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

// TestEvent_SuspensionsInAnyOrder: the event that happened last wins, not the one that arrives last.
func TestEvent_SuspensionsInAnyOrder(t *testing.T) {
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

// TestEvent_WithoutEffect: an event that could not take effect is refused.
func TestEvent_WithoutEffect(t *testing.T) {
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
