package signals

import (
	"encoding/json"
	"math"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// The families of event types.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	// verificationEvent shows that a stream works, and asks for nothing (SSF 1.0 section 8.1.4).
	verificationEvent = "https://schemas.openid.net/secevent/ssf/event-type/verification"
)

// acts are the events that something is done about. Each returns what is to be recorded; an event whose subject cannot be
// found among tokens is refused, for its transmitter must not believe that it took effect.
var acts = map[string]func(*event) ([]revocation.Record, error){
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
	expires time.Time // when what it cuts off has ended by itself
}

// read finds the subject and the time of the event. Drafts had the subject within the event.
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

// milliseconds is from where on a number of seconds would lie after the year 5138 and so is one of milliseconds, which
// drafts of CAEP wrote.
const milliseconds = 1e11

// happened returns when the event took place: event_timestamp in seconds (CAEP 1.0 section 2), or else when its token was
// issued. It does not lie in the future, so that who logs in again after this is let in, where the clock of the issuer
// decides if it is ahead of ours: by that clock tokens say when they were issued.
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

// record begins a record of that kind.
func (e *event) record(kind revocation.Kind, value string) revocation.Record {
	return revocation.Record{
		Kind: kind, Issuer: e.issuer, Value: value, At: e.now, Cause: "security event " + e.name, ExpiresAt: e.expires,
	}
}

// unmatched refuses an event that names nothing that it could be applied to.
func (e *event) unmatched(wanted string) error {
	return invalid("%s: the subject names no %s by which tokens could be found", e.name, wanted)
}

// recordBefore is a record for what was issued before the event.
func (e *event) recordBefore(kind revocation.Kind, value string) revocation.Record {
	r := e.record(kind, value)
	r.Before = e.at
	return r
}

// cutOffUser ends everything that the user has now, and lets him log in again.
func (e *event) cutOffUser() ([]revocation.Record, error) {
	if e.subject.user == "" {
		return nil, e.unmatched("user")
	}
	return []revocation.Record{e.recordBefore(revocation.KindSubject, e.subject.user)}, nil
}

// sessionRevoked ends the session that is named, with the tokens of its user that name no session, or else all sessions that
// the user has now. Where an opaque id may name
// either, it is taken for both: it can only be one of them, and the other record matches nobody.
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

// credentialChange cuts off what was obtained with a credential that is gone or is another one now. A new one beside
// those that the user had takes nothing away.
func (e *event) credentialChange() ([]revocation.Record, error) {
	switch e.claims["change_type"] {
	case "revoke", "delete", "update":
		return e.cutOffUser()
	case "create":
		return nil, nil
	}
	return nil, invalid("%s: change_type must be create, revoke, update or delete", e.name)
}

// claimsChange cuts off the tokens that carry old claims: the one that is named, or those that the session or the user had
// when the claims changed.
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

// suspend keeps the user out until he is enabled again. What he has now stays cut off then.
func (e *event) suspend() ([]revocation.Record, error) {
	records, err := e.cutOffUser()
	if err != nil {
		return nil, err
	}
	return append([]revocation.Record{e.suspension(false)}, records...), nil
}

// enable lifts a suspension. Tokens that were issued before it stay cut off.
func (e *event) enable() ([]revocation.Record, error) {
	if e.subject.user == "" {
		return nil, e.unmatched("user")
	}
	return []revocation.Record{e.suspension(true)}, nil
}

// suspension is a record that holds against those of earlier events, in whichever order they arrive. One that is lifted
// can be forgotten once nothing from before is valid.
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
