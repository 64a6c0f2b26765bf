package signals

import (
	"crypto/sha256"
	"crypto/subtle"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// eventCodes are the error codes of RFC 8935 section 2.4 by the verifier's status.
var eventCodes = map[authz.TokenStatus]string{
	authz.TokenMalformed:       "invalid_request",
	authz.TokenBadSignature:    "invalid_key",
	authz.TokenUntrustedIssuer: "invalid_issuer",
	authz.TokenWrongAudience:   "invalid_audience",
}

// push handles a security event token that a transmitter delivers (RFC 8935).
//
// A token enters the cache once all of its records are durable. If it comes again it is acknowledged and does nothing,
// because transmitters repeat a token when they miss the answer.
func (es *endpoints) push(r *http.Request) (string, error) {
	if err := es.admit(r); err != nil {
		return "", err
	}
	body, err := readBody(r, "application/secevent+jwt")
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(body)
	if text == "" {
		return "", invalid("the body is empty")
	}
	st, err := es.verifier.Event(r.Context(), text)
	if err != nil {
		return "", statementError(err, eventCodes)
	}
	events, err := readEvents(&st)
	if err != nil {
		return st.Issuer, err
	}
	id := statementKey(&st)
	if es.events.has(id, es.opt.Now()) {
		es.log.Debug("security event repeated", "endpoint", EventsPath, "by", st.Issuer, "jti", st.ID)
		return st.Issuer, nil
	}
	p, err := es.plan(&st, events)
	if err != nil {
		return st.Issuer, err
	}
	if err := es.keep(r.Context(), p.records); err != nil {
		return st.Issuer, err
	}
	es.events.add(id, es.opt.Now())
	es.log.Info("security event taken", append([]any{"endpoint", EventsPath, "by", st.Issuer, "jti", st.ID}, p.attrs()...)...)
	return st.Issuer, nil
}

// admit checks the Authorization header that operator and transmitter have agreed on.
func (es *endpoints) admit(r *http.Request) error {
	if es.opt.EventAuthorization == "" {
		return nil
	}
	given := r.Header.Values("Authorization")
	want, got := sha256.Sum256([]byte(es.opt.EventAuthorization)), sha256.Sum256([]byte(r.Header.Get("Authorization")))
	if len(given) != 1 || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return &refusal{status: http.StatusBadRequest, code: "authentication_failed", text: "the Authorization header is missing or wrong"}
	}
	return nil
}

// readEvents validates the claims that every security event token has (RFC 8417 section 2.2, SSF 1.0 section 4.1) and
// returns its events by type. It refuses sub and exp, so that another kind of token cannot pass for a security event.
func readEvents(st *authz.Statement) (map[string]map[string]any, error) {
	for _, name := range []string{"sub", "exp"} {
		if st.Claims[name] != nil {
			return nil, invalid("%s must not be present", name)
		}
	}
	if st.ID == "" || st.IssuedAt.IsZero() {
		return nil, invalid("iat and jti must be present")
	}
	members, _ := st.Claims["events"].(map[string]any)
	if len(members) == 0 {
		return nil, invalid("events must be an object with at least one member")
	}
	events := make(map[string]map[string]any, len(members))
	for name, v := range members {
		e, ok := v.(map[string]any)
		if !ok {
			return nil, invalid("every member of events must be an object")
		}
		events[name] = e
	}
	return events, nil
}

// plan is the effect of a security event token.
type plan struct {
	records []revocation.Record
	ignored []string // types of events that have no effect here
	state   any      // the state of a verification event, which is logged for the operator
}

// plan makes the records of all events before any is kept: a token with one bad event has no effect.
func (es *endpoints) plan(st *authz.Statement, events map[string]map[string]any) (*plan, error) {
	p := &plan{}
	for _, name := range slices.Sorted(maps.Keys(events)) {
		claims := events[name]
		if name == verificationEvent {
			p.state = claims["state"]
			continue
		}
		handle, known := handlers[name]
		if !known {
			p.ignored = append(p.ignored, name)
			continue
		}
		e := event{
			issuer: st.Issuer, issued: st.IssuedAt, now: es.opt.Now(), expires: es.expiry(st.IssuedAt),
			name: name[strings.LastIndex(name, "/")+1:], claims: claims,
		}
		if err := e.read(st.Claims); err != nil {
			return nil, err
		}
		records, err := handle(&e)
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			p.ignored = append(p.ignored, name)
		}
		p.records = append(p.records, records...)
	}
	return p, nil
}

func (p *plan) attrs() []any {
	var out []any
	if len(p.records) > 0 {
		out = append(out, "kinds", kindNames(p.records))
	}
	if len(p.ignored) > 0 {
		out = append(out, "ignored", p.ignored)
	}
	if state, ok := p.state.(string); ok {
		out = append(out, "verification", state)
	}
	return out
}
