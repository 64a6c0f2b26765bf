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

// Issuer is the configuration of one issuer whose tokens are trusted.
type Issuer struct {
	// Name is the iss of its tokens, compared byte by byte.
	Name string
	// Audiences are the names of this service. A token must name one of them.
	Audiences []string
	// Algorithms are the allowed algorithms of signatures; empty: RS256 and ES256.
	Algorithms []string
	// Exactly one of these is set. JWKSURL and JWKSFile say where the JWK Set is. With Discovery, the issuer says where
	// (OpenID Connect Discovery). With Envoy, the proxy verifies the tokens, and leaves their claims under that name in the
	// metadata of the jwt_authn filter (payload_in_metadata).
	JWKSURL, JWKSFile string
	Discovery         bool
	Envoy             string
	// AudienceClaim is the claim with the audiences; empty: aud.
	AudienceClaim string
	// AccountClaim and PlanClaim are the claims with the account that pays and its plan.
	AccountClaim, PlanClaim string
	// Accounts are prefixes of the accounts that its tokens may name. Empty: any account.
	Accounts []string
	// LogoutAudiences and EventAudiences are the audiences of its logout tokens (our client ids) and of its security
	// events. If they are empty, such tokens are refused.
	LogoutAudiences, EventAudiences []string
	// StatusLists are prefixes of the URLs of its status lists, besides those at the issuer's own host.
	StatusLists []string
}

// Timing says how often keys are fetched, and how long things are trusted.
type Timing struct {
	Refresh      time.Duration // between two fetches of an issuer's keys
	MissInterval time.Duration // at least this between two fetches that tokens with unknown keys cause
	MaxAge       time.Duration // how long keys are trusted when they cannot be fetched again
	Skew         time.Duration // by how much clocks may differ
	// MaxLifetime is the longest life of a token from its iat, even if its exp is later. It bounds how long revocations are
	// kept.
	MaxLifetime time.Duration
}

// RevocationTTL is how long a record that revokes tokens must be kept: until every token issued before now has expired, even if
// clocks differ.
func (t *Timing) RevocationTTL() time.Duration { return t.MaxLifetime + 2*t.Skew }

// Options are the settings of a Verifier.
type Options struct {
	Issuers       []Issuer
	Introspection *Introspection // nil: opaque tokens are malformed
	Timing        Timing
	// MaxBytes is the length of the longest token that is read. 0: DefaultMaxBytes.
	MaxBytes int
	// AcceptBound accepts sender-constrained tokens without proof that the client has the key.
	AcceptBound bool
	// MayBeKey reports whether a text is an API key. It returns an error if it cannot find out. Only a text that is not a
	// key is sent to the introspection server. IsKey recognises keys of our own form by their text alone.
	MayBeKey func(ctx context.Context, text string) (bool, error)
	IsKey    func(text string) bool
	Client   *http.Client // nil: NewClient
	Now      func() time.Time
	Log      *slog.Logger
}

// DefaultMaxBytes is longer than any header that ordinary servers accept.
const DefaultMaxBytes = 16 << 10

// cacheSize is how many verified tokens are remembered. Each takes a few kilobytes.
const cacheSize = 50_000

// Verifier verifies tokens. Its methods may be called concurrently.
type Verifier struct {
	opt          Options
	issuers      map[string]*issuer
	lists        *statusLists
	introspector *introspector
	cache        *otter.Cache[cacheKey, *verified]
	epoch        atomic.Uint64 // is incremented when the keys of any issuer change

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// cacheKey finds a verified token. The configuration (issuers, audiences and the rest) is fixed for the life of a Verifier
// and its cache, so it is no part of the key. The keys of issuers change, which the epoch covers.
type cacheKey struct {
	sum   digest // of the whole text
	epoch uint64
}

// verified is a token that was verified. It is immutable.
type verified struct {
	fact      authz.TokenFact
	notBefore time.Time
	until     time.Time // when it ends, by exp and MaxLifetime; zero: unknown
	recheck   time.Time // when its server must be asked again; zero: never
	keys      *keyring  // the keys that verified its signature; nil: its server or the proxy verified it
	status    *statusRef
	binding   binding
}

// minRemembered is the shortest time for which a token is remembered. It applies to expired tokens too, because clients
// repeat them.
const minRemembered = time.Minute

// issuer is an Issuer with its keys.
type issuer struct {
	Issuer
	keys *keyring // nil: the proxy verifies its tokens
}

func (i *issuer) payers() payers { return payers{i.AccountClaim, i.PlanClaim, i.Accounts} }

// New makes a verifier and starts to fetch the keys of its issuers. The caller has checked the issuers with Check.
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
			return max(minRemembered, e.Value.until.Sub(opt.Now()))
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
			v.work.Go(func() { is.keys.refreshLoop(v.ctx) })
		}
		v.issuers[i.Name] = is
	}
	return v
}

// Check returns an error if the configuration of an issuer cannot be used.
func (i *Issuer) Check() error {
	sources := 0
	for _, isSet := range []bool{i.JWKSURL != "", i.JWKSFile != "", i.Discovery, i.Envoy != ""} {
		if isSet {
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

// checkAccounts returns an error if the prefixes of accounts would have no effect.
func checkAccounts(accounts []string, claim string) error {
	switch {
	case slices.Contains(accounts, ""):
		return authz.Errorf(authz.KindInvalid, "accounts: an empty prefix allows every account: leave accounts out, or give prefixes")
	case len(accounts) > 0 && claim == "":
		return authz.Errorf(authz.KindInvalid, "accounts: needs account_claim: without it tokens name no account")
	}
	return nil
}

// source returns a function that fetches the JWK Set of an issuer.
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

// spawn runs work in the background. A check may stop waiting for it; Close does not.
func (v *Verifier) spawn(f func(ctx context.Context)) { v.work.Go(func() { f(v.ctx) }) }

// Close stops the background work and waits for it. The verifier must not be used afterwards.
func (v *Verifier) Close() {
	v.cancel()
	v.work.Wait()
	v.cache.StopAllGoroutines()
	if v.introspector != nil {
		v.introspector.close()
	}
}

// Ready waits until the first fetch of every issuer's keys has ended, with or without success, or until the context ends. A
// starting server waits for it, so that it does not refuse the first tokens because keys are missing.
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

// Names returns the names of all issuers whose tokens are accepted, sorted.
func (v *Verifier) Names() []string {
	out := slices.Collect(maps.Keys(v.issuers))
	if in := v.introspector; in != nil && !slices.Contains(out, in.Issuer) {
		out = append(out, in.Issuer)
	}
	slices.Sort(out)
	return out
}

// Signers returns the names of the issuers whose signatures are verified here, sorted. The signing key of a token is known
// only for these.
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

// IssuerState is the state of an issuer's keys, for operators.
type IssuerState struct {
	Issuer string `json:"issuer"`
	Keys   int    `json:"keys"`
	// Unusable names its other signature keys, and why each cannot be used.
	Unusable []string      `json:"unusable,omitempty"`
	Age      time.Duration `json:"-"`               // since the last successful fetch
	Fault    string        `json:"fault,omitempty"` // of the last fetch; "": it succeeded
}

// Issuers reports the state of every issuer whose keys are fetched, sorted by name.
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
