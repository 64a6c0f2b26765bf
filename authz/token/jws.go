package token

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// parsed is a JWS in its compact form (RFC 7515 section 7.1). It is not verified.
type parsed struct {
	text   string
	alg    string
	kid    string
	typ    string // in lower case, without "application/"
	claims map[string]any
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// parse reads a token without verifying it.
func parse(text string, maxBytes int) (*parsed, error) {
	if len(text) > maxBytes {
		return nil, tooLong(text, maxBytes)
	}
	if strings.Count(text, ".") != 2 || strings.Trim(text, base64url+".") != "" { // the decoder would skip line breaks
		return nil, malformed("it is not three parts of base64url")
	}
	protected, rest, _ := strings.Cut(text, ".")
	payload, _, _ := strings.Cut(rest, ".")
	header, err := decodePart(protected)
	if err != nil {
		return nil, malformed("the header %v", err)
	}
	p := &parsed{text: text}
	if p.claims, err = decodePart(payload); err != nil {
		return nil, malformed("the payload %v", err)
	}
	// No extension is understood here, so none may be critical (RFC 7515 section 4.1.11). Headers that say where to find a
	// key are ignored: keys come from the issuer's configuration only.
	for _, name := range []string{"crit", "b64"} {
		if _, there := header[name]; there {
			return nil, malformed("the header has %q", name)
		}
	}
	for name, to := range map[string]*string{"alg": &p.alg, "kid": &p.kid, "typ": &p.typ} {
		v := header[name]
		s, ok := v.(string)
		if v != nil && !ok || name == "alg" && s == "" {
			return nil, malformed("the header's %s is not a text", name)
		}
		*to = s
	}
	p.typ = strings.TrimPrefix(strings.ToLower(p.typ), "application/")
	return p, nil
}

func decodePart(part string) (map[string]any, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "is not base64url")
	}
	return decodeObject(raw)
}

func tooLong(text string, maxBytes int) *authz.TokenError {
	return malformed("it has %d bytes: at most %d are read", len(text), maxBytes)
}

func malformed(format string, args ...any) *authz.TokenError {
	return refuse(authz.TokenMalformed, format, args...)
}

func refuse(s authz.TokenStatus, format string, args ...any) *authz.TokenError {
	return &authz.TokenError{Status: s, Text: authz.Errorf(authz.KindInvalid, format, args...).Error()}
}

// maxName is the longest claim, in bytes, that names something, such as jti or sub. Longer names could not be revoked.
const maxName = 1024

// Everywhere in this package a claim that is null counts as absent, because many libraries write null for a value that they
// do not have.

// textClaim returns a claim that must be a text, "" if it is absent.
func textClaim(claims map[string]any, name string) (string, error) {
	v := claims[name]
	s, ok := v.(string)
	if v != nil && !ok || len(s) > maxName {
		return "", malformed("%s is not a text of at most %d bytes", name, maxName)
	}
	return s, nil
}

// timeClaim returns a claim that is a NumericDate (RFC 7519 section 2), a number of seconds. Zero if it is absent.
func timeClaim(claims map[string]any, name string) (time.Time, error) {
	v := claims[name]
	if v == nil {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, malformed("%s is not a number", name)
	}
	secs, err := n.Float64()
	if err != nil || secs < 0 || secs > 1e11 { // the year 5138
		return time.Time{}, malformed("%s is no time", name)
	}
	whole, part := math.Modf(secs)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), nil
}

// audiences returns the values of a claim such as aud (RFC 7519 section 4.1.3): one text or a list of them.
func audiences(claims map[string]any, name string) ([]string, error) {
	switch aud := claims[name].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{aud}, nil
	case []any:
		return textList(aud, name)
	}
	return nil, malformed("%s is not a text or a list", name)
}

// addressed reports whether a claim names one of those audiences.
func addressed(claims map[string]any, name string, to []string) (bool, error) {
	aud, err := audiences(claims, name)
	return slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(to, a) }), err
}

func textList(list []any, name string) ([]string, error) {
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, malformed("%s holds something that is not a text", name)
		}
		out = append(out, s)
	}
	return out, nil
}

// scopes returns the permissions of a token: scope, separated by spaces (RFC 8693 section 4.2), or scp, the same or a list,
// which some issuers write.
func scopes(claims map[string]any) []string {
	for _, name := range []string{"scope", "scp"} {
		switch v := claims[name].(type) {
		case string:
			return strings.Fields(v)
		case []any:
			if out, err := textList(v, name); err == nil {
				return out
			}
		}
	}
	return nil
}
