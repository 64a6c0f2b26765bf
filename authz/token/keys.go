package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

// algorithms are the accepted signature algorithms, each with a test whether a key fits. None is symmetric, so that a public key
// cannot be used as a shared secret (RFC 8725 section 2.1).
var algorithms = map[string]struct {
	alg  jwa.SignatureAlgorithm
	fits func(k any) bool
}{
	"RS256": {jwa.RS256(), isRSA}, "RS384": {jwa.RS384(), isRSA}, "RS512": {jwa.RS512(), isRSA},
	"PS256": {jwa.PS256(), isRSA}, "PS384": {jwa.PS384(), isRSA}, "PS512": {jwa.PS512(), isRSA},
	"ES256": {jwa.ES256(), onCurve(256)}, "ES384": {jwa.ES384(), onCurve(384)}, "ES512": {jwa.ES512(), onCurve(521)},
	"EdDSA": {jwa.EdDSA(), isEd25519}, "Ed25519": {jwa.EdDSAEd25519(), isEd25519},
}

// canonical returns one name for an algorithm with two names: EdDSA with a key on the curve Ed25519 (RFC 8037) is also called
// Ed25519 (RFC 9864). No other curve is supported, so an issuer may use either name.
func canonical(alg string) string {
	if alg == "EdDSA" {
		return "Ed25519"
	}
	return alg
}

// Smaller RSA keys are too weak (RFC 7518 section 3.3), and larger ones cost too much.
const minRSABits, maxRSABits = 2048, 8192

func isRSA(k any) bool {
	r, ok := k.(*rsa.PublicKey)
	return ok && r.N.BitLen() >= minRSABits && r.N.BitLen() <= maxRSABits
}

func onCurve(bits int) func(any) bool {
	return func(k any) bool {
		e, ok := k.(*ecdsa.PublicKey)
		return ok && e.Curve.Params().BitSize == bits
	}
}

func isEd25519(k any) bool {
	_, ok := k.(ed25519.PublicKey)
	return ok
}

// key is one public key of an issuer.
type key struct {
	kid string
	alg string // the only algorithm that it is for; "": any that fits
	raw any
}

// keySet is one version of an issuer's keys. It is immutable.
type keySet struct {
	keys   []key
	faulty []string  // the signature keys that cannot be used, each with the reason
	at     time.Time // when it was fetched
}

// maxKeys is the most keys that one issuer can have.
const maxKeys = 100

// parseKeys reads a JWK Set (RFC 7517 section 5). It leaves out keys for other purposes, and keys that are unreadable or too
// weak; the latter are reported in faulty. If no key is left, the set is refused. An empty set is accepted: the issuer
// withdraws all of its keys.
func parseKeys(raw []byte) (keys []key, faulty []string, err error) {
	doc, err := decodeObject(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("the key set %w", err)
	}
	list, ok := doc["keys"].([]any)
	switch {
	case !ok:
		return nil, nil, errors.New("the key set has no list of keys")
	case len(list) > maxKeys:
		return nil, nil, fmt.Errorf("the key set has %d keys: at most %d are read", len(list), maxKeys)
	}
	var other []string
	for i, v := range list {
		k, err := readKey(v)
		var purpose otherPurpose
		switch {
		case err == nil:
			keys = append(keys, k)
		case errors.As(err, &purpose):
			other = append(other, nameKey(i, v)+": "+err.Error())
		default:
			faulty = append(faulty, nameKey(i, v)+": "+err.Error())
		}
	}
	if len(keys) == 0 && len(list) > 0 {
		return nil, nil, fmt.Errorf("none of the key set's %d keys can verify a signature: %s", len(list), firstFew(append(faulty, other...)))
	}
	return keys, faulty, nil
}

// firstFew joins the first few texts.
func firstFew(texts []string) string {
	const most = 5
	if more := len(texts) - most; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(texts[:most], "; "), more)
	}
	return strings.Join(texts, "; ")
}

// nameKey names a key so that an operator can find it in its set.
func nameKey(i int, v any) string {
	m, _ := v.(map[string]any)
	if kid, ok := m["kid"].(string); ok {
		return fmt.Sprintf("key %.64q", kid)
	}
	return fmt.Sprintf("key %d, which has no kid", i+1)
}

// otherPurpose is the error for a key that is not for verifying signatures. Such a key is not faulty.
type otherPurpose string

func (o otherPurpose) Error() string { return string(o) }

// readKey returns the public part of a key that is for signatures.
func readKey(v any) (key, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return key{}, errors.New("it is not a JSON object")
	}
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil }) // null counts as absent
	if err := checkUse(m); err != nil {
		return key{}, err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return key{}, err
	}
	k, err := jwk.ParseKey(raw)
	if err != nil {
		return key{}, fmt.Errorf("it cannot be read: %w", err)
	}
	if _, symmetric := k.(jwk.SymmetricKey); symmetric {
		return key{}, otherPurpose("it is a shared secret")
	}
	pub, err := jwk.PublicRawKeyOf(k)
	if err != nil {
		return key{}, fmt.Errorf("it cannot be read: %w", err)
	}
	out := key{raw: pub}
	out.kid, _ = k.KeyID()
	if alg, ok := k.Algorithm(); ok {
		out.alg = alg.String()
	}
	for name, a := range algorithms {
		if (out.alg == "" || canonical(out.alg) == canonical(name)) && a.fits(pub) {
			return out, nil
		}
	}
	return key{}, whyUnfit(out)
}

// checkUse returns an error if use or key_ops of a key exclude verifying signatures (RFC 7517 sections 4.2 and 4.3).
func checkUse(m map[string]any) error {
	if use, there := m["use"]; there && use != "sig" && use != "" {
		return otherPurpose(fmt.Sprintf("its use is %.32q", fmt.Sprint(use)))
	}
	ops, there := m["key_ops"]
	if !there {
		return nil
	}
	list, ok := ops.([]any)
	if !ok {
		return errors.New("its key_ops is not a list")
	}
	if !slices.Contains(list, any("verify")) {
		return otherPurpose(fmt.Sprintf("its key_ops is %.64q, without verify", fmt.Sprint(list)))
	}
	return nil
}

// whyUnfit returns why a readable key cannot verify signatures.
func whyUnfit(k key) error {
	if r, ok := k.raw.(*rsa.PublicKey); ok && !isRSA(r) {
		return fmt.Errorf("it has %d bits: want %d to %d", r.N.BitLen(), minRSABits, maxRSABits)
	}
	if _, known := algorithms[k.alg]; k.alg != "" && !known {
		return otherPurpose(fmt.Sprintf("its alg is %.32q", k.alg))
	}
	return fmt.Errorf("no signature can be verified with a key of its kind (%T, alg %q)", k.raw, k.alg)
}

// find returns the keys that may have made a signature: those with its kid, else those without a kid, or all keys if the
// signature has no kid. named reports whether the kid was found.
func (s *keySet) find(kid, alg string) (candidates []key, named bool) {
	var nameless []key
	for _, k := range s.keys {
		if k.alg != "" && canonical(k.alg) != canonical(alg) || !algorithms[alg].fits(k.raw) {
			continue
		}
		switch {
		case kid != "" && k.kid == kid:
			candidates = append(candidates, k)
		case kid == "" || k.kid == "":
			nameless = append(nameless, k)
		}
	}
	if len(candidates) > 0 {
		return candidates, true
	}
	return nameless, false
}

// equal reports whether the set has these keys, with the same kid and alg.
func (s *keySet) equal(keys []key) bool {
	if len(s.keys) != len(keys) {
		return false
	}
	for i, k := range keys {
		o := s.keys[i]
		pub, ok := o.raw.(interface{ Equal(crypto.PublicKey) bool })
		if o.kid != k.kid || o.alg != k.alg || !ok || !pub.Equal(k.raw) {
			return false
		}
	}
	return true
}
