package token

import "strings"

// forAccess returns an error if the claims say that the token is not an access token. An ID token, a refresh token or a
// logout token may have the issuer and the audience of an access token.
//
// In an introspection response token_type has the values of RFC 7662 section 2.2; in a signed token it is a claim like any
// other, so the caller says which values are accepted. Claims that applications use for purposes of their own (typ, type,
// purpose) refuse a token only if their value names another kind of token.
func forAccess(claims map[string]any, tokenType func(kind string) bool) error {
	for _, c := range []struct {
		name string
		good func(kind string) bool
	}{
		{"token_type", tokenType},
		{"token_use", isAccess},   // Cognito, Ory
		{"token_usage", isAccess}, // OpenIddict
		{"typ", mayBeAccess},      // Keycloak
		{"type", mayBeAccess},
		{"purpose", mayBeAccess}, // Curity
	} {
		switch v := claims[c.name].(type) {
		case nil:
		case string:
			if !c.good(kindOf(v)) {
				return malformed("%s is %.64q: it is not an access token", c.name, v)
			}
		default:
			if strings.HasPrefix(c.name, "token_") {
				return malformed("%s is not a text", c.name)
			}
		}
	}
	for _, name := range []string{"at_hash", "c_hash"} { // OpenID Connect Core sections 3.1.3.6 and 3.3.2.11
		if claims[name] != nil {
			return malformed("it has %s, which only ID tokens have", name)
		}
	}
	if claims["events"] != nil { // RFC 8417 section 2.2
		return malformed("it has events: it is a logout token or a security event")
	}
	return nil
}

// forAccess reports whether the typ in the header is one of an access token (RFC 8725 section 3.11, RFC 9068 section 2.1).
func (p *parsed) forAccess() bool { return p.typ == "" || p.typ == "jwt" || p.typ == "at+jwt" }

func otherType(p *parsed) error {
	return malformed("the typ is %.64q: it is not an access token", p.typ)
}

// kindOf returns one name for each kind of token: "Refresh", "refresh_token", "refresh+jwt" and
// "urn:ietf:params:oauth:token-type:refresh_token" are all "refresh".
func kindOf(v string) string {
	v = strings.ToLower(strings.TrimSpace(v))
	v = v[strings.LastIndexAny(v, ":/")+1:]
	v = strings.TrimSuffix(v, "+jwt")
	v = strings.NewReplacer("-", "", "_", "", " ", "").Replace(v)
	return strings.TrimSuffix(v, "token")
}

// isAccess reports whether a kind is one of an access token.
func isAccess(kind string) bool {
	switch kind {
	case "", "access", "bearer", "at", "jwt", "dpop", "pop", "mac": // the last three are bound: see bindingOf
		return true
	}
	return false
}

// mayBeAccess reports whether a kind is not one of the known kinds of other tokens.
func mayBeAccess(kind string) bool {
	switch kind {
	case "id", "serializedid", "refresh", "offline", "logout", "secevent", "na", "authorizationcode", "code", "devicecode",
		"statuslist", "introspection", "clientauthentication", "actor":
		return false
	}
	return true
}
