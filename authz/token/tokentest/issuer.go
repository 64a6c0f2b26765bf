// Package tokentest is a small issuer of tokens for tests and the demo. It signs any claims, publishes its keys
// over HTTP like an OpenID provider, and answers introspection.
package tokentest

import (
	"bytes"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// Issuer is an issuer that listens on a port of this machine. Its methods may be called concurrently.
type Issuer struct {
	URL string // also its iss
	Now func() time.Time
	// ClientID and Secret are needed for introspection.
	ClientID, Secret string
	// Fetches counts the fetches of its keys, and Asked the introspection requests.
	Fetches, Asked atomic.Int64

	server *httptest.Server
	mu     sync.Mutex
	keys   []signer // the last one signs
	serve  map[string]http.HandlerFunc
	status []byte // the status list, 8 bits a token
	opaque map[string]map[string]any
}

type signer struct {
	kid     string
	private *ecdsa.PrivateKey
	hidden  bool
}

// New starts an issuer with one key. The caller calls Close.
func New() *Issuer {
	i := &Issuer{Now: time.Now, serve: make(map[string]http.HandlerFunc), opaque: make(map[string]map[string]any), ClientID: "tollkeeper", Secret: "s3cret/+"}
	i.AddKey()
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(i.handle))
	i.URL = "http://" + i.server.Listener.Addr().String()
	i.server.Start()
	return i
}

// Close stops it.
func (i *Issuer) Close() { i.server.Close() }

// AddKey adds a key, signs with it from now on, and returns its kid.
func (i *Issuer) AddKey() string {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	kid := fmt.Sprintf("key-%d", len(i.keys)+1)
	i.keys = append(i.keys, signer{kid: kid, private: k})
	return kid
}

// HideKey removes a key from the published set.
func (i *Issuer) HideKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := range i.keys {
		if i.keys[n].kid == kid {
			i.keys[n].hidden = true
		}
	}
}

// Serve sets a handler for a path, in place of the issuer's own. nil removes it.
func (i *Issuer) Serve(path string, h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.serve[path] = h; h == nil {
		delete(i.serve, path)
	}
}

// Token signs an access token for the audience "api" that lives for an hour. The claims are added; a nil claim is left out.
func (i *Issuer) Token(claims map[string]any) string {
	now := i.Now()
	all := map[string]any{
		"iss": i.URL, "aud": "api", "sub": "alice", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": rand.Text(),
	}
	maps.Copy(all, claims)
	return i.Sign("at+jwt", all)
}

// Sign signs claims with that typ and the latest key. A nil claim is left out.
func (i *Issuer) Sign(typ string, claims map[string]any) string {
	i.mu.Lock()
	k := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return i.SignRaw(map[string]any{"typ": typ, "kid": k.kid}, payload)
}

// SignRaw signs any bytes with any header and the latest key.
func (i *Issuer) SignRaw(header map[string]any, payload []byte) string {
	i.mu.Lock()
	k := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	h := jws.NewHeaders()
	for name, v := range header {
		if err := h.Set(name, v); err != nil {
			panic(err)
		}
	}
	out, err := jws.Sign(payload, jws.WithKey(jwa.ES256(), k.private, jws.WithProtectedHeaders(h)))
	if err != nil {
		panic(err)
	}
	return string(out)
}

// Paths of the issuer.
const (
	DiscoveryPath  = "/.well-known/openid-configuration"
	KeysPath       = "/keys"
	StatusPath     = "/statuslists/1"
	IntrospectPath = "/introspect"
	TokenPath      = "/token"
)

func (i *Issuer) handle(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	h := i.serve[r.URL.Path]
	i.mu.Unlock()
	if r.URL.Path == KeysPath {
		i.Fetches.Add(1)
	}
	switch {
	case h != nil:
		h(w, r)
	case r.URL.Path == DiscoveryPath:
		writeJSON(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + KeysPath})
	case r.URL.Path == KeysPath:
		_, _ = w.Write(i.Keys())
	case r.URL.Path == StatusPath:
		w.Header().Set("Content-Type", "application/statuslist+jwt")
		_, _ = w.Write([]byte(i.StatusList(nil)))
	case r.URL.Path == IntrospectPath:
		i.introspect(w, r)
	case r.URL.Path == TokenPath:
		i.signIn(w, r)
	default:
		http.NotFound(w, r)
	}
}

// Keys returns the published JWK Set.
func (i *Issuer) Keys() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	set := jwk.NewSet()
	for _, k := range i.keys {
		if k.hidden {
			continue
		}
		pub, err := jwk.Import(&k.private.PublicKey)
		if err == nil {
			err = pub.Set(jwk.KeyIDKey, k.kid)
		}
		if err == nil {
			err = set.AddKey(pub)
		}
		if err != nil {
			panic(err)
		}
	}
	raw, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return raw
}

// SetStatus sets the status of the token with that index in the list at StatusPath.
func (i *Issuer) SetStatus(index int, status byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.status) <= index {
		i.status = append(i.status, 0)
	}
	i.status[index] = status
}

// StatusList returns the status list as a signed token. The claims are added.
func (i *Issuer) StatusList(claims map[string]any) string {
	i.mu.Lock()
	row := slices.Clone(i.status)
	i.mu.Unlock()
	if len(row) == 0 {
		row = []byte{0}
	}
	all := map[string]any{
		"iss": i.URL, "sub": i.URL + StatusPath, "iat": i.Now().Unix(), "ttl": 60,
		"status_list": map[string]any{"bits": 8, "lst": Pack(row)},
	}
	maps.Copy(all, claims)
	return i.Sign("statuslist+jwt", all)
}

// Pack compresses and encodes the array of a status list.
func Pack(row []byte) string {
	var buf bytes.Buffer
	z := zlib.NewWriter(&buf)
	_, _ = z.Write(row)
	_ = z.Close()
	return base64.RawURLEncoding.EncodeToString(buf.Bytes())
}

// Opaque sets the introspection answer for an opaque token. nil claims make the token inactive.
func (i *Issuer) Opaque(token string, claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.opaque[token] = claims; claims == nil {
		delete(i.opaque, token)
	}
}

func (i *Issuer) introspect(w http.ResponseWriter, r *http.Request) {
	i.Asked.Add(1)
	// Both are form-urlencoded in the header (RFC 6749 section 2.3.1). That changes only the secret.
	if id, secret, ok := r.BasicAuth(); !ok || id != i.ClientID || secret != "s3cret%2F%2B" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	i.mu.Lock()
	claims := maps.Clone(i.opaque[r.FormValue("token")])
	i.mu.Unlock()
	if claims == nil {
		writeJSON(w, map[string]any{"active": false})
		return
	}
	claims["active"] = true
	writeJSON(w, claims)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// signIn issues a token to anyone who names a user and an organisation. There are no passwords.
func (i *Issuer) signIn(w http.ResponseWriter, r *http.Request) {
	claims := map[string]any{"sub": r.PostFormValue("username"), "org": r.PostFormValue("org"), "sid": rand.Text()}
	writeJSON(w, map[string]any{"access_token": i.Token(claims), "token_type": "Bearer", "expires_in": 3600})
}

// LogoutToken returns a logout token for the client "rp" (OpenID Connect Back-Channel Logout 1.0 section 2.4). The claims,
// such as sub or sid, are added.
func (i *Issuer) LogoutToken(claims map[string]any) string {
	now := i.Now()
	all := map[string]any{
		"iss": i.URL, "aud": "rp", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	maps.Copy(all, claims)
	return i.Sign("logout+jwt", all)
}

// Event returns a security event token for the receiver "receiver" about one of the issuer's subjects. The name is the end
// of the event's URI, such as caep/event-type/session-revoked.
func (i *Issuer) Event(name, sub string) string {
	now := i.Now().Unix()
	return i.Sign("secevent+jwt", map[string]any{
		"iss": i.URL, "aud": "receiver", "iat": now, "jti": rand.Text(),
		"sub_id": map[string]any{"format": "iss_sub", "iss": i.URL, "sub": sub},
		"events": map[string]any{"https://schemas.openid.net/secevent/" + name: map[string]any{"event_timestamp": now}},
	})
}
