package evaluators

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const (
	secret = "harbour-lights-at-dusk-0000000000"
	// tokens is how many are sent in turn. OPA remembers fewer that it has verified.
	tokens = 32
)

// algorithm is a way to sign tokens.
type algorithm struct {
	name string
	key  string // as the policy has it
	sign func(digest []byte, signed string) ([]byte, error)
}

// tokenRows verify tokens in a header.
func tokenRows() ([]Row, error) {
	algorithms, err := algorithms()
	if err != nil {
		return nil, err
	}
	const bearer = `token := substring(http.headers.authorization, 7, -1)` + "\n"
	var rows []Row
	for _, a := range algorithms {
		requests, err := a.requests()
		if err != nil {
			return nil, err
		}
		data := map[string]any{"key": a.key}
		constraint := "cert"
		if a.name == "hs256" {
			constraint = "secret"
		}
		decodeVerify := bearer + fmt.Sprintf(`allow if {
	[valid, _, claims] := io.jwt.decode_verify(token, {%q: data.key, "iss": "https://id.example", "aud": "orders"})
	valid
	"read" in split(claims.scope, " ")
}
`, constraint)
		verify := bearer + fmt.Sprintf(`allow if { io.jwt.verify_%s(token, data.key); io.jwt.decode(token)[1].iss == "https://id.example" }`+"\n", a.name)
		p := rules(decodeVerify, data)
		rows = append(rows,
			row("token: decode_verify "+a.name, p, Allow, requests...),
			row("token: decode_verify "+a.name+", one token", p, Allow, requests[0]),
			row("token: verify_"+a.name, rules(verify, data), Allow, requests...))
	}
	requests, err := algorithms[0].requests()
	if err != nil {
		return nil, err
	}
	claims := rules(bearer+`allow if { claims := io.jwt.decode(token)[1]; claims.exp > time.now_ns() / 1000000000; "read" in split(claims.scope, " ") }`+"\n", nil)
	parts := rules(bearer+`allow if { [_, body, _] := split(token, "."); json.unmarshal(base64url.decode(body)).iss == "https://id.example" }`+"\n", nil)
	return append(rows, row("token: decode", claims, Allow, requests...), row("token: decoded by hand", parts, Allow, requests...)), nil
}

func algorithms() ([]algorithm, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rsaPublic, err := publicKey(&rsaKey.PublicKey)
	if err != nil {
		return nil, err
	}
	ecPublic, err := publicKey(&ecKey.PublicKey)
	if err != nil {
		return nil, err
	}
	return []algorithm{
		{"hs256", secret, func(_ []byte, signed string) ([]byte, error) {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(signed))
			return mac.Sum(nil), nil
		}},
		{"rs256", rsaPublic, func(digest []byte, _ string) ([]byte, error) {
			return rsa.SignPKCS1v15(nil, rsaKey, crypto.SHA256, digest)
		}},
		{"es256", ecPublic, func(digest []byte, _ string) ([]byte, error) {
			r, s, err := ecdsa.Sign(rand.Reader, ecKey, digest)
			if err != nil {
				return nil, err
			}
			signature := make([]byte, 64)
			r.FillBytes(signature[:32])
			s.FillBytes(signature[32:])
			return signature, nil
		}},
	}, nil
}

func publicKey(key any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// requests have different tokens.
func (a *algorithm) requests() ([]*authz.Request, error) {
	out := make([]*authz.Request, tokens)
	for i := range out {
		header, err := part(map[string]any{"alg": map[string]string{"hs256": "HS256", "rs256": "RS256", "es256": "ES256"}[a.name], "typ": "JWT"})
		if err != nil {
			return nil, err
		}
		claims, err := part(map[string]any{"iss": "https://id.example", "aud": "orders", "sub": fmt.Sprintf("user-%d", i), "exp": 4_102_444_800, "scope": "read write"})
		if err != nil {
			return nil, err
		}
		signed := header + "." + claims
		digest := sha256.Sum256([]byte(signed))
		signature, err := a.sign(digest[:], signed)
		if err != nil {
			return nil, err
		}
		out[i] = with("authorization", "Bearer "+signed+"."+base64.RawURLEncoding.EncodeToString(signature))
	}
	return out, nil
}

// part is the header or the claims of a token.
func part(v map[string]any) (string, error) {
	raw, err := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(raw), err
}
