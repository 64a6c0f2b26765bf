package signals

import (
	"errors"
	"net/http"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// logoutEvent is the member of events that makes a token a logout token (Back-Channel Logout 1.0 section 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logout handles a back-channel logout of OpenID Connect: an issuer ends a session, or all sessions of a user.
//
// A logout token enters the cache once its records are durable. So an issuer that was told to try again is not refused as
// a replay. If two copies arrive at the same time, both do the same work, and one is refused as a replay.
func (es *endpoints) logout(r *http.Request) (string, error) {
	form, err := readForm(r)
	if err != nil {
		return "", err
	}
	text := form["logout_token"]
	if text == "" {
		return "", invalid("the parameter logout_token is missing")
	}
	st, err := es.verifier.Logout(r.Context(), text)
	if err != nil {
		return "", statementError(err, nil)
	}
	records, err := es.logoutRecords(&st)
	if err != nil {
		return st.Issuer, err
	}
	id := statementKey(&st)
	if es.logouts.has(id, es.opt.Now()) {
		return st.Issuer, replayed()
	}
	if err := es.keep(r.Context(), records); err != nil {
		return st.Issuer, err
	}
	if !es.logouts.add(id, es.opt.Now()) {
		return st.Issuer, replayed()
	}
	es.log.Info("logged out", "endpoint", LogoutPath, "by", st.Issuer, "jti", st.ID, "kinds", kindNames(records))
	return st.Issuer, nil
}

func replayed() error { return invalid("the logout token was acknowledged before") }

// logoutRecords validates the claims of a logout token (section 2.6) and returns the records that it asks for.
//
//   - With a session, that session ends for good.
//   - Without a session, every session of the user ends that began before the logout token was issued. A logout token that is
//     delivered late or twice must not end later sessions.
//   - With a session and a user, the user's other sessions continue (section 2.4). Access tokens that name no session are
//     revoked as well, because they may belong to the session that ends.
func (es *endpoints) logoutRecords(st *authz.Statement) ([]revocation.Record, error) {
	events, _ := st.Claims["events"].(map[string]any)
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return nil, invalid("events does not name a logout")
	}
	if st.Claims["nonce"] != nil {
		return nil, invalid("nonce must not be present")
	}
	if st.ID == "" || st.IssuedAt.IsZero() {
		return nil, invalid("iat and jti must be present")
	}
	sid, err := identifier(st.Claims, "sid")
	if err != nil {
		return nil, err
	}
	sub, err := identifier(st.Claims, "sub")
	if err != nil {
		return nil, err
	}
	if sid == "" && sub == "" {
		return nil, invalid("sub and sid are missing")
	}
	session := revocation.Record{
		Kind: revocation.KindSession, Issuer: st.Issuer, Value: sid, At: es.opt.Now(), Cause: "back-channel logout", ExpiresAt: es.expiry(st.IssuedAt),
	}
	user := session
	user.Kind, user.Value, user.Before = revocation.KindSubject, sub, st.IssuedAt
	switch {
	case sid == "":
		return []revocation.Record{user}, nil
	case sub == "":
		return []revocation.Record{session}, nil
	}
	user.Kind = revocation.KindSessionless
	return []revocation.Record{session, user}, nil
}

// identifier returns the member of that name: "" if it is absent or null, and an error if it is not a usable id.
func identifier(members map[string]any, name string) (string, error) {
	v := members[name]
	if v == nil {
		return "", nil
	}
	s, ok := v.(string)
	if !ok || s == "" || len(s) > maxID {
		return "", invalid("%s must be a string of 1 to %d bytes", name, maxID)
	}
	return s, nil
}

// statementTexts tell the sender why a statement is refused. The verifier's own text goes only to the log, because the sender
// has not proven that it is the issuer.
var statementTexts = map[authz.TokenStatus]string{
	authz.TokenMalformed:       "the token is malformed",
	authz.TokenBadSignature:    "the signature of the token is not valid",
	authz.TokenUntrustedIssuer: "the issuer of the token is not trusted",
	authz.TokenWrongAudience:   "the token is meant for another audience",
	authz.TokenExpired:         "the token has expired",
	authz.TokenNotYetValid:     "the token is not valid yet",
}

// statementError turns an error of the verifier into a refusal. Each status has a code; the default is invalid_request.
func statementError(err error, codes map[authz.TokenStatus]string) error {
	var te *authz.TokenError
	if !errors.As(err, &te) || te.Status == authz.TokenUnavailable {
		return unavailable("the token cannot be verified now", err)
	}
	r := &refusal{status: http.StatusBadRequest, code: "invalid_request", text: "the token is not acceptable", cause: err}
	if code, ok := codes[te.Status]; ok {
		r.code = code
	}
	if text, ok := statementTexts[te.Status]; ok {
		r.text = text
	}
	return r
}
