package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/pem"
	"net/url"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// binding is the key that the client of a token must prove to have (RFC 7800). The zero value needs no proof.
type binding struct {
	certificate string // x5t#S256 of the client's certificate (RFC 8705 section 3.1)
	other       bool   // it needs a proof that this package cannot check, such as DPoP (RFC 9449 section 6)
}

// bindingOf reads the confirmation claim.
func bindingOf(claims map[string]any) (binding, error) {
	var b binding
	if kind, _ := claims["token_type"].(string); isProof(kindOf(kind)) {
		b.other = true
	}
	if kind, _ := claims["typ"].(string); isProof(kindOf(kind)) {
		b.other = true
	}
	cnf, ok := claims["cnf"].(map[string]any)
	if !ok {
		if claims["cnf"] != nil {
			return b, malformed("cnf is not an object")
		}
		return b, nil
	}
	methods := 0
	for name, v := range cnf {
		if v == nil {
			continue
		}
		methods++
		if name != "x5t#S256" {
			b.other = true
			continue
		}
		if b.certificate, ok = v.(string); !ok || b.certificate == "" {
			return b, malformed("cnf has an x5t#S256 that is not a text")
		}
	}
	b.other = b.other || methods == 0 // bound, in an unknown way
	return b, nil
}

func isProof(kind string) bool { return kind == "dpop" || kind == "pop" || kind == "mac" }

// proven returns the status of a token that was sent with a certificate, and why it is not valid. "" means no certificate. A wrong
// certificate is refused even if the configuration accepts tokens without proof.
func (b *binding) proven(certificate string, accept bool) (authz.TokenStatus, string) {
	switch {
	case b.certificate != "" && certificate != "":
		if !b.matches(certificate) {
			return authz.TokenUnbound, "it is bound to another certificate than the client sent"
		}
		if !b.other {
			return authz.TokenValid, ""
		}
	case b.certificate == "" && !b.other:
		return authz.TokenValid, ""
	}
	if accept {
		return authz.TokenValid, ""
	}
	if b.other {
		return authz.TokenUnbound, "it is bound to a key, and proofs of such keys cannot be checked"
	}
	return authz.TokenUnbound, "it is bound to a certificate, and the proxy sent none"
}

// matches reports whether a certificate is the one that the token is bound to.
func (b *binding) matches(certificate string) bool {
	text, err := url.PathUnescape(certificate) // QueryUnescape would replace a plus sign
	if err != nil {
		return false
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return false
	}
	sum := sha256.Sum256(block.Bytes)
	want, err := base64.RawURLEncoding.DecodeString(b.certificate)
	return err == nil && subtle.ConstantTimeCompare(want, sum[:]) == 1
}
