package signals

import (
	"encoding/json"
	"math"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// Event types begin with one of these.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	// verificationEvent tests a stream and has no other effect (SSF 1.0 section 8.1.4).
	verificationEvent = "https://schemas.openid.net/secevent/ssf/event-type/verification"
)

// handlers are the events that have an effect. Each returns the records to keep. An event whose subject matches no tokens is
// refused, so that its transmitter does not believe that it took effect.
var handlers = map[string]func(*event) ([]revocation.Record, error){
	caep + "session-revoked":       (*event).sessionRevoked,
	caep + "credential-change":     (*event).credentialChange,
	caep + "token-claims-change":   (*event).claimsChange,
	risc + "account-disabled":      (*event).suspend,
	risc + "account-purged":        (*event).suspend,
	risc + "account-enabled":       (*event).enable,
	risc + "sessions-revoked":      (*event).cutOffUser,
	risc + "credential-compromise": (*event).cutOffUser,
}

// event is one event of a security event token.
type event struct {
	issuer  string
	issued  time.Time // the iat of its token
	now     time.Time
	name    string // the last part of its type
	claims  map[string]any
	subject subject
	at      time.Time // when it happened
	expires time.Time // when the tokens that it revokes have expired anyway
}

// read reads the subject and the time of the event. Drafts had the subject inside the event.
func (e *event) read(token map[string]any) (err error) {
	id := token["sub_id"]
	if id == nil {
		id = e.claims["subject"]
	}
	if id == nil {
		return invalid("%s: sub_id is missing", e.name)
	}
	if e.subject, err = readSubject(id, e.issuer); err != nil {
		return err
	}
	e.at, err = e.happened()
	return err
}

// milliseconds is the smallest event_timestamp that is read as milliseconds, which drafts of CAEP used. As seconds it would be
// the year 5138.
const milliseconds = 1e11

// happened returns when the event took place: event_timestamp in seconds (CAEP 1.0 section 2), or else the iat of the token.
// A time in the future becomes now, or iat if the issuer's clock is ahead of ours. Otherwise a user who logs in again after
// the event would be refused: the new token's iat comes from the issuer's clock.
func (e *event) happened() (time.Time, error) {
	at := e.issued
	if v := e.claims["event_timestamp"]; v != nil {
		n, _ := v.(json.Number)
		seconds, err := n.Float64()
		if seconds >= milliseconds {
			seconds /= 1000
		}
		if err != nil || seconds <= 0 || seconds >= milliseconds {
			return time.Time{}, invalid("%s: event_timestamp must be a number of seconds since 1970", e.name)
		}
		whole, part := math.Modf(seconds)
		at = time.Unix(int64(whole), int64(part*1e9)).UTC()
	}
	if latest := later(e.now, e.issued); at.After(latest) {
		at = latest
	}
	return at, nil
}

// record makes a record of that kind without a Before.
func (e *event) record(kind revocation.Kind, value string) revocation.Record {
	return revocation.Record{
		Kind: kind, Issuer: e.issuer, Value: value, At: e.now, Cause: "security event " + e.name, ExpiresAt: e.expires,
	}
}

// unmatched refuses an event whose subject matches no tokens.
func (e *event) unmatched(wanted string) error {
	return invalid("%s: the subject names no %s that could match tokens", e.name, wanted)
}

// recordBefore makes a record for tokens that were issued before the event.
func (e *event) recordBefore(kind revocation.Kind, value string) revocation.Record {
	r := e.record(kind, value)
	r.Before = e.at
	return r
}

// cutOffUser revokes every token that the user has now. The user may log in again.
func (e *event) cutOffUser() ([]revocation.Record, error) {
	if e.subject.user == "" {
		return nil, e.unmatched("user")
	}
	return []revocation.Record{e.recordBefore(revocation.KindSubject, e.subject.user)}, nil
}

// sessionRevoked ends the named session, and the user's tokens that name no session. If the event names only a user, it ends all
// present sessions of the user. An opaque id may be a session or a user, so it is recorded as both; one of the two records matches
// no token.
func (e *event) sessionRevoked() ([]revocation.Record, error) {
	switch s := e.subject; {
	case s.session != "" && s.user != "":
		return []revocation.Record{e.record(revocation.KindSession, s.session), e.recordBefore(revocation.KindSessionless, s.user)}, nil
	case s.session != "":
		return []revocation.Record{e.record(revocation.KindSession, s.session)}, nil
	case s.opaque:
		return []revocation.Record{e.record(revocation.KindSession, s.user), e.recordBefore(revocation.KindSubject, s.user)}, nil
	case s.user != "":
		return e.cutOffUser()
	}
	return nil, e.unmatched("session or user")
}

// credentialChange revokes what the user obtained before a credential was removed or changed. A credential that was added
// revokes nothing.
func (e *event) credentialChange() ([]revocation.Record, error) {
	switch e.claims["change_type"] {
	case "revoke", "delete", "update":
		return e.cutOffUser()
	case "create":
		return nil, nil
	}
	return nil, invalid("%s: change_type must be create, revoke, update or delete", e.name)
}

// claimsChange revokes tokens with old claims: the named token, or the tokens that the session or the user had when the claims
// changed.
func (e *event) claimsChange() ([]revocation.Record, error) {
	switch s := e.subject; {
	case s.token != "":
		return []revocation.Record{e.record(revocation.KindJTI, s.token)}, nil
	case s.user != "":
		return e.cutOffUser()
	case s.session != "":
		return []revocation.Record{e.recordBefore(revocation.KindSession, s.session)}, nil
	}
	return nil, e.unmatched("token, session or user")
}

// suspend refuses the user until an event enables the account again. The present tokens stay revoked after that.
func (e *event) suspend() ([]revocation.Record, error) {
	records, err := e.cutOffUser()
	if err != nil {
		return nil, err
	}
	return append([]revocation.Record{e.suspension(false)}, records...), nil
}

// enable lifts a suspension. Tokens that were issued before the suspension stay revoked.
func (e *event) enable() ([]revocation.Record, error) {
	if e.subject.user == "" {
		return nil, e.unmatched("user")
	}
	return []revocation.Record{e.suspension(true)}, nil
}

// suspension makes a record that begins or lifts a suspension. Its At is when the event happened, so that the later event
// wins even if it arrives first. A suspension has no expiry. A lifted one may be forgotten once every earlier token has
// expired.
func (e *event) suspension(lifted bool) revocation.Record {
	r := e.record(revocation.KindSuspension, e.subject.user)
	r.Lifted, r.At = lifted, e.at
	if r.At.After(e.now) {
		r.At = e.now
	}
	if !lifted {
		r.ExpiresAt = time.Time{}
	}
	return r
}
