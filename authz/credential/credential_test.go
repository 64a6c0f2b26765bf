package credential

import (
	"encoding/base64"
	"testing"
)

// TestTokenDigest_LeavesOutOnlyTheSignatureOfAJWT holds that two texts are one token only if both are a JWT and differ in the
// signature alone.
func TestTokenDigest_LeavesOutOnlyTheSignatureOfAJWT(t *testing.T) {
	part := base64.RawURLEncoding.EncodeToString
	header, payload := part([]byte(`{"alg":"ES256","typ":"JWT"}`)), part([]byte(`{"sub":"a"}`))
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"a JWT with another signature":    {header + "." + payload + ".YQ", header + "." + payload + ".YR", true},
		"a JWT without a signature":       {header + "." + payload + ".YQ", header + "." + payload + ".", true},
		"another payload":                 {header + "." + payload + ".YQ", header + "." + part([]byte(`{"sub":"b"}`)) + ".YQ", false},
		"PASETO":                          {"v4.public.A", "v4.public.B", false},
		"opaque":                          {"a.b.c", "a.b.d", false},
		"opaque, and begins like a JWT":   {"eyJabc.b.c", "eyJabc.b.d", false},
		"JSON that names no alg":          {part([]byte(`{"a":1}`)) + ".b.c", part([]byte(`{"a":1}`)) + ".b.d", false},
		"a JWE":                           {header + ".a.b.c.d", header + ".a.b.c.e", false},
		"four parts":                      {header + "." + payload + ".c.d", header + "." + payload + ".c.e", false},
		"a payload that is not base64url": {header + ".b*.c", header + ".b*.d", false},
	} {
		if got := TokenDigest(c.a) == TokenDigest(c.b); got != c.same {
			t.Errorf("%s: same token: %v", name, got)
		}
	}
}
