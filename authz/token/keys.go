package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

// algorithms are those that tokens can be signed with, and whether a key is of their kind. There is none among them whose
// key both sides know, so that no public key can be taken for a secret (RFC 8725 section 2.1).
var algorithms = map[string]struct {
	alg  jwa.SignatureAlgorithm
	fits func(k any) bool
}{
	"RS256": {jwa.RS256(), isRSA}, "RS384": {jwa.RS384(), isRSA}, "RS512": {jwa.RS512(), isRSA},
	"PS256": {jwa.PS256(), isRSA}, "PS384": {jwa.PS384(), isRSA}, "PS512": {jwa.PS512(), isRSA},
	"ES256": {jwa.ES256(), onCurve(256)}, "ES384": {jwa.ES384(), onCurve(384)}, "ES512": {jwa.ES512(), onCurve(521)},
	"EdDSA": {jwa.EdDSA(), isEd25519}, "Ed25519": {jwa.EdDSAEd25519(), isEd25519},
}

// canonical is one name for an algorithm. RFC 9864 calls Ed25519 what RFC 8037 called EdDSA with a key on that curve; there
// are no others here, so an issuer may move from one name to the other.
func canonical(alg string) string {
	if alg == "EdDSA" {
		return "Ed25519"
	}
	return alg
}

// RSA keys outside of these sizes are too weak, or cost too much to use (RFC 7518 section 3.3).
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
	alg string // the only one it is for, "" for any that fits
	raw any
}

// keySet is the keys of an issuer at one time. It is never changed.
type keySet struct {
	keys   []key
	faulty []string  // what is wrong with those that look like keys for signatures and cannot be used
	at     time.Time // when it was fetched
}

// maxKeys is the most keys that one issuer can have.
const maxKeys = 100

// parseKeys reads a JWK Set (RFC 7517 section 5). Keys for other purposes are left out, and so are those that cannot be
// read or are too weak, of which it says what is wrong; a set of which nothing remains is refused. One that is empty to
// begin with is an issuer's way to say that it trusts none of its keys any more.
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
		return nil, nil, fmt.Errorf("the key set has %d keys: %d are read", len(list), maxKeys)
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
		return nil, nil, fmt.Errorf("none of the key set's %d keys can verify a signature: %s", len(list), someOf(append(faulty, other...)))
	}
	return keys, faulty, nil
}

// someOf joins the first few texts.
func someOf(texts []string) string {
	const most = 5
	if more := len(texts) - most; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(texts[:most], "; "), more)
	}
	return strings.Join(texts, "; ")
}

// nameKey is how an operator finds a key in its set.
func nameKey(i int, v any) string {
	m, _ := v.(map[string]any)
	if kid, ok := m["kid"].(string); ok {
		return fmt.Sprintf("key %.64q", kid)
	}
	return fmt.Sprintf("key %d, which has no kid", i+1)
}

// otherPurpose says why a key is not for verifying signatures. There is nothing wrong with it.
type otherPurpose string

func (o otherPurpose) Error() string { return string(o) }

// readKey returns the public part of a key that is for signatures.
func readKey(v any) (key, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return key{}, errors.New("it is not a JSON object")
	}
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil }) // null is absent, and nothing else reads the document
	if err := verifies(m); err != nil {
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
		return key{}, otherPurpose("it is a secret that both sides know")
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
	return key{}, unfit(out)
}

// verifies returns an error if a key says of itself that it is not for verifying signatures (RFC 7517 sections 4.2 and 4.3).
func verifies(m map[string]any) error {
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

// unfit says why a key that can be read cannot verify a signature.
func unfit(k key) error {
	if r, ok := k.raw.(*rsa.PublicKey); ok && !isRSA(r) {
		return fmt.Errorf("it has %d bits: want %d to %d", r.N.BitLen(), minRSABits, maxRSABits)
	}
	if _, known := algorithms[k.alg]; k.alg != "" && !known {
		return otherPurpose(fmt.Sprintf("its alg is %.32q", k.alg))
	}
	return fmt.Errorf("no signature can be verified with a key of its kind (%T, alg %q)", k.raw, k.alg)
}

// find returns the keys that may have made a signature, and whether its kid says so: those with its kid or, where there
// are none, those that have no kid to tell them by; all of them if the signature names none.
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

// equal reports whether the same keys are for the same things.
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

// keyring keeps the keys of one issuer up to date. They are fetched in the background, in time, and once more when a
// token names a key that is not there; a fetch that fails leaves the keys that were there.
type keyring struct {
	issuer  string
	source  func(ctx context.Context) ([]byte, error)
	timing  Timing
	now     func() time.Time
	log     *slog.Logger
	changed func()                          // is called after the keys became others
	spawn   func(func(ctx context.Context)) // runs a fetch beside everything else
	set     atomic.Pointer[keySet]
	fault   atomic.Pointer[string] // of the last fetch, nil if it went well

	mu       sync.Mutex
	flight   chan struct{} // closed when the fetch that is under way ends; nil: none is
	missedAt time.Time     // when a missing key last caused a fetch
}

// current returns the keys, nil if there are none that can be trusted.
func (r *keyring) current() *keySet {
	if s := r.set.Load(); s != nil && r.now().Sub(s.at) <= r.timing.MaxAge {
		return s
	}
	return nil
}

// start begins a fetch unless one is under way, and returns what is closed when it ends.
func (r *keyring) start() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.startLocked()
}

func (r *keyring) startLocked() <-chan struct{} {
	if r.flight == nil {
		done := make(chan struct{})
		r.flight = done
		r.spawn(func(ctx context.Context) {
			r.fetch(ctx)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flight = nil
			close(done)
		})
	}
	return r.flight
}

// missing has the keys fetched because one is not there, but not more often than once in MissInterval, and waits for it.
// It reports whether the keys may be others now.
func (r *keyring) missing(ctx context.Context, had *keySet) bool {
	r.mu.Lock()
	var done <-chan struct{}
	switch now := r.now(); {
	case r.flight != nil:
		done = r.flight
	case r.missedAt.IsZero() || now.Sub(r.missedAt) >= r.timing.MissInterval:
		r.missedAt = now
		done = r.startLocked()
	}
	r.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return r.set.Load() != had
}

// fetch gets the keys once.
func (r *keyring) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	raw, err := r.source(ctx)
	var keys []key
	var faulty []string
	if err == nil {
		keys, faulty, err = parseKeys(raw)
	}
	if err != nil {
		text := err.Error()
		if old := r.fault.Swap(&text); old == nil || *old != text { // the same fault again is no news
			r.log.Error("keys of an issuer cannot be had", "issuer", r.issuer, "error", text)
		}
		return
	}
	if r.fault.Swap(nil) != nil {
		r.log.Info("keys of an issuer can be had again", "issuer", r.issuer)
	}
	old := r.set.Load()
	if len(faulty) > 0 && (old == nil || !slices.Equal(old.faulty, faulty)) {
		r.log.Warn("some keys of an issuer cannot be used", "issuer", r.issuer, "keys", len(keys), "unusable", len(faulty), "why", someOf(faulty))
	}
	if old != nil && old.equal(keys) {
		r.set.Store(&keySet{keys: old.keys, faulty: faulty, at: r.now()})
		return
	}
	r.set.Store(&keySet{keys: keys, faulty: faulty, at: r.now()})
	r.changed()
	r.log.Info("keys of an issuer", "issuer", r.issuer, "keys", len(keys))
}

// retryAfterFault is how soon a fetch that failed is repeated.
const retryAfterFault = 5 * time.Second

// keep fetches the keys in time until the context ends.
func (r *keyring) keep(ctx context.Context) {
	for {
		select {
		case <-r.start():
		case <-ctx.Done():
			return
		}
		wait := r.timing.Refresh
		if r.fault.Load() != nil {
			wait = min(wait, retryAfterFault)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}
