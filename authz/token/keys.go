package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
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
	"EdDSA": {jwa.EdDSA(), isEd25519},
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
	keys []key
	at   time.Time // when it was fetched
}

// maxKeys is the most keys that one issuer can have.
const maxKeys = 100

// parseKeys reads a JWK Set (RFC 7517 section 5). Keys for other purposes, of other kinds and too weak ones are left out;
// a set of which nothing remains is refused. One that is empty to begin with is an issuer's way to say that it trusts none
// of its keys any more.
func parseKeys(raw []byte) ([]key, error) {
	doc, err := decodeObject(raw)
	if err != nil {
		return nil, fmt.Errorf("the key set %w", err)
	}
	switch list, ok := doc["keys"].([]any); {
	case !ok:
		return nil, errors.New("the key set has no list of keys")
	case len(list) == 0:
		return nil, nil
	}
	set, err := jwk.Parse(raw, jwk.WithIgnoreParseError(true))
	if err != nil {
		return nil, fmt.Errorf("the key set: %w", err)
	}
	if set.Len() > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys: %d are read", set.Len(), maxKeys)
	}
	var out []key
	for i := range set.Len() {
		if k, ok := set.Key(i); ok {
			if k, ok := usable(k); ok {
				out = append(out, k)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none of the key set's %d keys can verify a signature", set.Len())
	}
	return out, nil
}

// usable is the public part of a key that is for signatures.
func usable(k jwk.Key) (key, bool) {
	if use, ok := k.KeyUsage(); ok && use != "" && use != "sig" {
		return key{}, false
	}
	if _, symmetric := k.(jwk.SymmetricKey); symmetric {
		return key{}, false
	}
	raw, err := jwk.PublicRawKeyOf(k)
	if err != nil {
		return key{}, false
	}
	out := key{raw: raw}
	out.kid, _ = k.KeyID()
	if alg, ok := k.Algorithm(); ok {
		out.alg = alg.String()
	}
	for name, a := range algorithms {
		if (out.alg == "" || out.alg == name) && a.fits(raw) {
			return out, true
		}
	}
	return key{}, false
}

// find returns the keys that may have made a signature: those with its kid, or all if it names none.
func (s *keySet) find(kid, alg string) []key {
	var out []key
	for _, k := range s.keys {
		if (kid == "" || k.kid == kid) && (k.alg == "" || k.alg == alg) && algorithms[alg].fits(k.raw) {
			out = append(out, k)
		}
	}
	return out
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
	if err == nil {
		keys, err = parseKeys(raw)
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
	if old != nil && old.equal(keys) {
		r.set.Store(&keySet{keys: old.keys, at: r.now()})
		return
	}
	r.set.Store(&keySet{keys: keys, at: r.now()})
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
