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

// eventCodes are the error codes of RFC 8935 section 2.4 for what the verifier found.
var eventCodes = map[authz.TokenStatus]string{
	authz.TokenMalformed:       "invalid_request",
	authz.TokenBadSignature:    "invalid_key",
	authz.TokenUntrustedIssuer: "invalid_issuer",
	authz.TokenWrongAudience:   "invalid_audience",
}

// push is the delivery of a security event token by its transmitter (RFC 8935).
//
// A token that was acknowledged before is acknowledged again and does nothing: transmitters repeat what they saw no answer
// to. It counts as acknowledged once everything that it says is durable.
func (d *door) push(r *http.Request) (string, error) {
	if err := d.admit(r); err != nil {
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
	st, err := d.verifier.Event(r.Context(), text)
	if err != nil {
		return "", statementError(err, eventCodes)
	}
	events, err := readEvents(&st)
	if err != nil {
		return st.Issuer, err
	}
	id := statementKey(&st)
	if d.events.has(id, d.opt.Now()) {
		d.log.Debug("security event repeated", "endpoint", EventsPath, "by", st.Issuer, "jti", st.ID)
		return st.Issuer, nil
	}
	p, err := d.plan(&st, events)
	if err != nil {
		return st.Issuer, err
	}
	if err := d.keep(r.Context(), p.records); err != nil {
		return st.Issuer, err
	}
	d.events.add(id, d.opt.Now())
	d.log.Info("security event taken", append([]any{"endpoint", EventsPath, "by", st.Issuer, "jti", st.ID}, p.attrs()...)...)
	return st.Issuer, nil
}

// admit checks the Authorization header that the transmitter was told to send.
func (d *door) admit(r *http.Request) error {
	if d.opt.EventAuthorization == "" {
		return nil
	}
	given := r.Header.Values("Authorization")
	want, got := sha256.Sum256([]byte(d.opt.EventAuthorization)), sha256.Sum256([]byte(r.Header.Get("Authorization")))
	if len(given) != 1 || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return &refusal{status: http.StatusBadRequest, code: "authentication_failed", text: "the Authorization header is missing or wrong"}
	}
	return nil
}

// readEvents validates the claims that every security event token has (RFC 8417 section 2.2, SSF 1.0 section 4.1) and
// returns its events by their types. That sub and exp must be absent keeps other tokens from being taken for one.
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

// plan is what a security event token leads to.
type plan struct {
	records []revocation.Record
	ignored []string // the types of events that nothing is done about
	state   any      // of a verification event, which its receiver is to find in the log
}

// plan says what is to be recorded, without recording it: a token with something wrong in it does nothing at all.
func (d *door) plan(st *authz.Statement, events map[string]map[string]any) (*plan, error) {
	p := &plan{}
	for _, name := range slices.Sorted(maps.Keys(events)) {
		claims := events[name]
		if name == verificationEvent {
			p.state = claims["state"]
			continue
		}
		act, known := acts[name]
		if !known {
			p.ignored = append(p.ignored, name)
			continue
		}
		e := event{
			issuer: st.Issuer, issued: st.IssuedAt, now: d.opt.Now(), expires: d.expiry(st.IssuedAt),
			name: name[strings.LastIndex(name, "/")+1:], claims: claims,
		}
		if err := e.read(st.Claims); err != nil {
			return nil, err
		}
		records, err := act(&e)
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
		out = append(out, "kinds", kinds(p.records))
	}
	if len(p.ignored) > 0 {
		out = append(out, "ignored", p.ignored)
	}
	if state, ok := p.state.(string); ok {
		out = append(out, "verification", state)
	}
	return out
}
