package signals

import (
	"errors"
	"net/http"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// logoutEvent is the member of events that makes a token a logout token (Back-Channel Logout 1.0 section 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logout is the back-channel logout of OpenID Connect: an issuer ends a session, or all sessions of a user.
//
// A token counts as seen once its record is durable, so that an issuer which was told to come back is not taken for a
// replay. Two copies that arrive at once both do the same work, and one of them is told that it is a replay.
func (d *door) logout(r *http.Request) (string, error) {
	form, err := readForm(r)
	if err != nil {
		return "", err
	}
	text := form["logout_token"]
	if text == "" {
		return "", invalid("the parameter logout_token is missing")
	}
	st, err := d.verifier.Logout(r.Context(), text)
	if err != nil {
		return "", statementError(err, nil)
	}
	records, err := d.logoutRecords(&st)
	if err != nil {
		return st.Issuer, err
	}
	id := statementKey(&st)
	if d.logouts.has(id, d.opt.Now()) {
		return st.Issuer, replayed()
	}
	if err := d.keep(r.Context(), records); err != nil {
		return st.Issuer, err
	}
	if !d.logouts.add(id, d.opt.Now()) {
		return st.Issuer, replayed()
	}
	d.log.Info("logged out", "endpoint", LogoutPath, "by", st.Issuer, "jti", st.ID, "kinds", kinds(records))
	return st.Issuer, nil
}

func replayed() error { return invalid("the logout token was acknowledged before") }

// logoutRecords validates the claims of a logout token (section 2.6) and returns what it cuts off.
//
// A session is cut off for good. Without one all sessions of the user end, which are the ones that began before the token
// was issued: a token that is delivered late, or again, must not end those that began since. With a session and a user, the
// other sessions of the user go on (section 2.4); but access tokens need not name their session, and those that do not may
// all be of the one that ends.
func (d *door) logoutRecords(st *authz.Statement) ([]revocation.Record, error) {
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
		return nil, invalid("neither sub nor sid is present")
	}
	session := revocation.Record{
		Kind: revocation.KindSession, Issuer: st.Issuer, Value: sid, At: d.opt.Now(), Cause: "back-channel logout", ExpiresAt: d.expiry(st.IssuedAt),
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

// identifier returns the member of that name, "" if there is none or it is null, and an error if it cannot name anything.
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

// statementTexts say in our words why a statement is not accepted. The verifier's words are for the log: who sent the
// statement has not proven to be its issuer.
var statementTexts = map[authz.TokenStatus]string{
	authz.TokenMalformed:       "the token is malformed",
	authz.TokenBadSignature:    "the signature of the token is not valid",
	authz.TokenUntrustedIssuer: "the issuer of the token is not trusted",
	authz.TokenWrongAudience:   "the token is meant for somebody else",
	authz.TokenExpired:         "the token has expired",
	authz.TokenNotYetValid:     "the token is not valid yet",
}

// statementError turns an error of the verifier into a refusal, with the code for its status, or invalid_request where
// there is none.
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
