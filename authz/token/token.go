// Package token says what a bearer token is worth: JSON Web Tokens are verified against the keys of their issuer, which
// are fetched in the background, and opaque tokens by asking the server that made them. It knows nothing of the records
// that revoke tokens; those are matched on every request, however long ago the token was verified.
package token

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Issuer is somebody whose tokens are trusted, and for what.
type Issuer struct {
	// Name is the iss of its tokens, compared byte by byte.
	Name string
	// Audiences are who we are to it: a token has to name one of them.
	Audiences []string
	// Algorithms are those that its signatures may use; empty: RS256 and ES256.
	Algorithms []string
	// Exactly one of these says where its keys are: a JWK Set by URL or in a file, or its own word for where they are
	// (OpenID Connect Discovery). With Envoy, the proxy has verified the token and left its claims under that name in
	// the metadata of the jwt_authn filter (payload_in_metadata).
	JWKSURL, JWKSFile string
	Discovery         bool
	Envoy             string
	// AudienceClaim is where a token names its audiences; empty: aud.
	AudienceClaim string
	// AccountClaim and PlanClaim name the claims that say who pays, and by which plan.
	AccountClaim, PlanClaim string
	// Accounts are how the accounts begin that its tokens may name. Empty: any.
	Accounts []string
	// LogoutAudiences are our client ids, to which it addresses logout tokens, and EventAudiences what it addresses
	// security events to. Without any, it cannot log out anybody, or send events.
	LogoutAudiences, EventAudiences []string
	// StatusLists are prefixes of the URLs at which its status lists may be, besides those at the issuer's own host.
	StatusLists []string
}

// Timing says how often things are fetched, and how long they are trusted.
type Timing struct {
	Refresh      time.Duration // between two fetches of an issuer's keys
	MissInterval time.Duration // the least between two fetches because a token names an unknown key
	MaxAge       time.Duration // how long keys are trusted that cannot be fetched anew
	Skew         time.Duration // by how much clocks may differ
	// MaxLifetime is how long a token can live from its iat, whatever its exp says: what revokes it is kept as long.
	MaxLifetime time.Duration
}

// RevocationTTL is how long a record that revokes tokens must be kept: until no token issued before now can be accepted, by
// whichever clock.
func (t *Timing) RevocationTTL() time.Duration { return t.MaxLifetime + 2*t.Skew }

// Options are the settings of a Verifier.
type Options struct {
	Issuers       []Issuer
	Introspection *Introspection // nil: opaque tokens are not understood
	Timing        Timing
	// MaxBytes is the longest token that is read. 0 is DefaultMaxBytes.
	MaxBytes int
	// AcceptBound accepts tokens that are bound to a key of their client without a proof that it has the key.
	AcceptBound bool
	// MayBeKey reports whether a text is an API key, and an error if that cannot be found out. Only a text that is none
	// goes to another server. IsKey says so of keys of our own form, without a look at the others.
	MayBeKey func(ctx context.Context, text string) (bool, error)
	IsKey    func(text string) bool
	Client   *http.Client // nil: NewClient
	Now      func() time.Time
	Log      *slog.Logger
}

// DefaultMaxBytes is larger than any token that an ordinary server would let pass in a header.
const DefaultMaxBytes = 16 << 10

// cacheSize is how many verified tokens are remembered, at a few kilobytes each.
const cacheSize = 50_000

// Verifier verifies tokens. Its methods may be called concurrently.
type Verifier struct {
	opt          Options
	issuers      map[string]*issuer
	lists        *statusLists
	introspector *introspector
	cache        *otter.Cache[cacheKey, *verified]
	epoch        atomic.Uint64 // rises when the keys of any issuer change

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// cacheKey finds a verified token. Issuers, audiences and everything else that is configured are fixed for the life of a
// Verifier, and its cache with them; their keys are not, and are covered by the epoch.
type cacheKey struct {
	sum   digest // of its whole text
	epoch uint64
}

// verified is a token whose signature was found good. It is never changed.
type verified struct {
	fact      authz.TokenFact
	notBefore time.Time
	until     time.Time // its end, by its exp and the longest lifetime; zero: it did not say
	recheck   time.Time // from when its server has to be asked again; zero: never
	keys      *keyring  // whose signature it has; nil: somebody else verified it
	status    *statusRef
	binding   binding
}

// knownFor is how long a token is remembered at least, also one that has expired: clients repeat themselves.
const knownFor = time.Minute

// issuer is an Issuer at work.
type issuer struct {
	Issuer
	keys *keyring // nil where the proxy verifies
}

func (i *issuer) payers() payers { return payers{i.AccountClaim, i.PlanClaim, i.Accounts} }

// New makes a verifier and starts to fetch what it needs. The issuers are taken as they are: see Check.
func New(opt Options) *Verifier {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if opt.Client == nil {
		opt.Client = NewClient()
	}
	v := &Verifier{opt: opt, issuers: make(map[string]*issuer)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.cache = otter.Must(&otter.Options[cacheKey, *verified]{
		MaximumSize: cacheSize,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[cacheKey, *verified]) time.Duration {
			return max(knownFor, e.Value.until.Sub(opt.Now()))
		}),
	})
	v.lists = newStatusLists(v.spawn, opt)
	if opt.Introspection != nil {
		v.introspector = newIntrospector(*opt.Introspection, v.spawn, opt)
	}
	for _, i := range opt.Issuers {
		if len(i.Algorithms) == 0 {
			i.Algorithms = []string{"RS256", "ES256"}
		}
		i.AudienceClaim = cmp.Or(i.AudienceClaim, "aud")
		is := &issuer{Issuer: i}
		if i.Envoy == "" {
			is.keys = &keyring{
				issuer: i.Name, source: v.source(i), timing: opt.Timing, now: opt.Now, log: opt.Log, spawn: v.spawn,
				changed: func() { v.epoch.Add(1) },
			}
			v.work.Go(func() { is.keys.keep(v.ctx) })
		}
		v.issuers[i.Name] = is
	}
	return v
}

// Check returns an error that says which part of an issuer's configuration cannot be honoured.
func (i *Issuer) Check() error {
	sources := 0
	for _, there := range []bool{i.JWKSURL != "", i.JWKSFile != "", i.Discovery, i.Envoy != ""} {
		if there {
			sources++
		}
	}
	switch {
	case i.Name == "":
		return authz.Errorf(authz.KindInvalid, "an issuer needs its name, the iss of its tokens")
	case len(i.Audiences) == 0 || slices.Contains(i.Audiences, ""):
		return authz.Errorf(authz.KindInvalid, "audiences: want at least one, or tokens for any other service would pass")
	case sources != 1:
		return authz.Errorf(authz.KindInvalid, "want exactly one of jwks_url, jwks_file, discovery and envoy")
	}
	for _, alg := range i.Algorithms {
		if _, ok := algorithms[alg]; !ok {
			return authz.Errorf(authz.KindInvalid, "algorithm %q: want some of %v", alg, slices.Sorted(maps.Keys(algorithms)))
		}
	}
	if err := checkAccounts(i.Accounts, i.AccountClaim); err != nil {
		return err
	}
	urls := slices.Clone(i.StatusLists)
	if i.JWKSURL != "" {
		urls = append(urls, i.JWKSURL)
	}
	if i.Discovery {
		urls = append(urls, i.Name)
	}
	for _, u := range urls {
		if err := CheckURL(u); err != nil {
			return err
		}
	}
	return nil
}

// checkAccounts returns an error if the beginnings of accounts would limit nothing.
func checkAccounts(accounts []string, claim string) error {
	switch {
	case slices.Contains(accounts, ""):
		return authz.Errorf(authz.KindInvalid, "accounts: every account begins with an empty text: leave accounts out, or say how they begin")
	case len(accounts) > 0 && claim == "":
		return authz.Errorf(authz.KindInvalid, "accounts: without account_claim its tokens name none")
	}
	return nil
}

// source gets the document with an issuer's keys.
func (v *Verifier) source(i Issuer) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		from := i.JWKSURL
		if i.JWKSFile != "" {
			return os.ReadFile(i.JWKSFile)
		}
		if i.Discovery {
			var err error
			if from, err = discover(ctx, v.opt.Client, i.Name); err != nil {
				return nil, err
			}
		}
		raw, _, err := fetch(ctx, v.opt.Client, from, "application/jwk-set+json, application/json")
		return raw, err
	}
}

// spawn runs work that no check waits for to its end.
func (v *Verifier) spawn(f func(ctx context.Context)) { v.work.Go(func() { f(v.ctx) }) }

// Close ends the fetching. The verifier must not be used afterwards.
func (v *Verifier) Close() {
	v.cancel()
	v.work.Wait()
	v.cache.StopAllGoroutines()
	if v.introspector != nil {
		v.introspector.close()
	}
}

// Ready waits until every issuer's keys were asked for once, or until the context ends: a server that starts does not
// refuse the first tokens because their keys are on their way.
func (v *Verifier) Ready(ctx context.Context) {
	for _, i := range v.issuers {
		if i.keys == nil || i.keys.current() != nil {
			continue
		}
		select {
		case <-i.keys.start():
		case <-ctx.Done():
			return
		}
	}
}

// Names are the issuers whose tokens are understood, in their order.
func (v *Verifier) Names() []string {
	out := slices.Collect(maps.Keys(v.issuers))
	if in := v.introspector; in != nil && !slices.Contains(out, in.Issuer) {
		out = append(out, in.Issuer)
	}
	slices.Sort(out)
	return out
}

// Signers returns the names of the issuers whose keys are known here, and so which key signed a token, sorted.
func (v *Verifier) Signers() []string {
	var out []string
	for name, is := range v.issuers {
		if is.keys != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// IssuerState is how an issuer is doing, for operators.
type IssuerState struct {
	Issuer string `json:"issuer"`
	Keys   int    `json:"keys"`
	// Unusable says which other keys it has for signatures, and why they cannot be used.
	Unusable []string      `json:"unusable,omitempty"`
	Age      time.Duration `json:"-"`
	Fault    string        `json:"fault,omitempty"` // what was wrong when its keys were last fetched
}

// Issuers reports the state of every issuer whose keys are fetched, in the order of their names.
func (v *Verifier) Issuers() []IssuerState {
	var out []IssuerState
	for _, name := range slices.Sorted(maps.Keys(v.issuers)) {
		r := v.issuers[name].keys
		if r == nil {
			continue
		}
		s := IssuerState{Issuer: name}
		if set := r.set.Load(); set != nil {
			s.Keys, s.Unusable, s.Age = len(set.keys), set.faulty, v.opt.Now().Sub(set.at)
		}
		if f := r.fault.Load(); f != nil {
			s.Fault = *f
		}
		out = append(out, s)
	}
	return out
}
