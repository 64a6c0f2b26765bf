package config

import "time"

// Tokens says which bearer tokens are understood. Without issuers and introspection they are left to the upstream.
type Tokens struct {
	Issuers       []Issuer      `yaml:"issuers" envPrefix:"ISSUERS_"`
	Introspection Introspection `yaml:"introspection" envPrefix:"INTROSPECTION_"`
	// Keep leaves the token in the request that goes to the upstream.
	Keep bool `yaml:"keep" env:"KEEP"`
	// MaxLifetime is how long a token can live from its iat, whatever its exp says. What revokes it is kept that long: if
	// this is raised later, tokens that were revoked before and are still good by their exp may be accepted again.
	MaxLifetime Duration `yaml:"max_lifetime" env:"MAX_LIFETIME"`
	// Skew is by how much the clocks of issuers may differ from ours, 2m at most.
	Skew Duration `yaml:"skew" env:"SKEW"`
	// AcceptBound accepts tokens that are bound to a key of their client (cnf, as DPoP and mutual TLS have it) without a proof
	// that the client has the key. Without it, a token that is bound to a certificate is good where Envoy sends the client's
	// (include_peer_certificate) and it is that one, and one that is bound in another way is refused. A certificate that is
	// sent has to be the right one in any case.
	AcceptBound bool `yaml:"accept_bound" env:"ACCEPT_BOUND"`
	// MaxBytes is the longest token that is read.
	MaxBytes int `yaml:"max_bytes" env:"MAX_BYTES"`
	// Refresh is how often the keys of issuers are fetched, MissInterval how soon they are fetched again because a token
	// names a key that is not there, and KeysMaxAge how long keys are trusted that cannot be fetched anew.
	Refresh      Duration `yaml:"refresh" env:"REFRESH"`
	MissInterval Duration `yaml:"miss_interval" env:"MISS_INTERVAL"`
	KeysMaxAge   Duration `yaml:"keys_max_age" env:"KEYS_MAX_AGE"`
}

// Issuer is somebody whose tokens are trusted. Of discovery, jwks_url, jwks_file and envoy exactly one is given.
type Issuer struct {
	// Issuer is the iss of its tokens, to the letter.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// Audiences are those of which a token has to name one in aud.
	Audiences []string `yaml:"audiences" env:"AUDIENCES"`
	// AudienceClaim is where tokens name it, if not in aud: client_id for Amazon Cognito, whose access tokens have no aud.
	AudienceClaim string `yaml:"audience_claim" env:"AUDIENCE_CLAIM"`
	// Algorithms are those of its signatures: RS, PS and ES with 256, 384 or 512, and EdDSA, which is also called Ed25519.
	// Empty: RS256 and ES256.
	Algorithms []string `yaml:"algorithms" env:"ALGORITHMS"`
	// Discovery asks the issuer where its keys are: ISSUER/.well-known/openid-configuration.
	Discovery bool   `yaml:"discovery" env:"DISCOVERY"`
	JWKSURL   string `yaml:"jwks_url" env:"JWKS_URL"`
	JWKSFile  string `yaml:"jwks_file" env:"JWKS_FILE"`
	// Envoy leaves the signature to Envoy's jwt_authn filter, and is its payload_in_metadata. A token is revoked by its text
	// also where the filter does not forward it: its jti and its claims are recorded.
	Envoy string `yaml:"envoy" env:"ENVOY"`
	// AccountClaim names the claim with the account that pays for callers that have a token and no key; without it they
	// need a key. PlanClaim names the one with the plan; without it the account's own counts.
	AccountClaim string `yaml:"account_claim" env:"ACCOUNT_CLAIM"`
	PlanClaim    string `yaml:"plan_claim" env:"PLAN_CLAIM"`
	// Accounts are how the accounts begin that its tokens may name: [acme-] for acme-1 and acme-2. A token that names another
	// is refused. Empty: any; where there are several issuers, each of them could then make tokens for the customers of others.
	Accounts []string `yaml:"accounts" env:"ACCOUNTS"`
	// LogoutAudiences are our client ids at the issuer, to which it addresses back-channel logout.
	LogoutAudiences []string `yaml:"logout_audiences" env:"LOGOUT_AUDIENCES"`
	// EventAudiences are what it addresses Shared Signals events to.
	EventAudiences []string `yaml:"event_audiences" env:"EVENT_AUDIENCES"`
	// StatusLists are prefixes of the URLs of its Token Status Lists, besides those at the issuer's own host.
	StatusLists []string `yaml:"status_lists" env:"STATUS_LISTS"`
}

// Introspection says who is asked about opaque tokens (RFC 7662). It is off without a URL. Its server should say iat: a
// token without it, whose end moves while it is used, is cut off by its text or jti for good, but by sid, sub and client for
// tokens.max_lifetime only.
type Introspection struct {
	URL string `yaml:"url" env:"URL"`
	// Issuer is whose tokens they are: the name by which they are revoked here.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// ClientID and the secret in ClientSecretFile are who we are to it.
	ClientID         string `yaml:"client_id" env:"CLIENT_ID"`
	ClientSecretFile string `yaml:"client_secret_file" env:"CLIENT_SECRET_FILE"`
	// Audiences, if there are any, are those of which the answer has to name one in aud.
	Audiences []string `yaml:"audiences" env:"AUDIENCES"`
	// AudienceClaim, AccountClaim, PlanClaim and Accounts are those of an issuer.
	AudienceClaim string   `yaml:"audience_claim" env:"AUDIENCE_CLAIM"`
	AccountClaim  string   `yaml:"account_claim" env:"ACCOUNT_CLAIM"`
	PlanClaim     string   `yaml:"plan_claim" env:"PLAN_CLAIM"`
	Accounts      []string `yaml:"accounts" env:"ACCOUNTS"`
	// TTL is how long an active token is believed to be, never past its end, and NegativeTTL how long one that is not.
	TTL         Duration `yaml:"ttl" env:"TTL"`
	NegativeTTL Duration `yaml:"negative_ttl" env:"NEGATIVE_TTL"`
	// Timeout bounds one call. A check waits for less.
	Timeout Duration `yaml:"timeout" env:"TIMEOUT"`
	// MaxRefusals is about how many tokens that are not good the server is asked about in a minute for one peer, by its
	// address (of IPv6, its /64). Behind a proxy that hides addresses, all callers are one peer. 0: any number. Tokens that
	// were good before are always asked about.
	MaxRefusals int `yaml:"max_refusals" env:"MAX_REFUSALS"`
}

func defaultTokens() Tokens {
	seconds := func(n time.Duration) Duration { return Duration{Duration: n * time.Second} }
	return Tokens{
		MaxLifetime: seconds(24 * 3600), Skew: seconds(30), MaxBytes: 16 << 10, Refresh: seconds(300), MissInterval: seconds(5),
		KeysMaxAge:    seconds(24 * 3600),
		Introspection: Introspection{TTL: seconds(10), NegativeTTL: seconds(2), Timeout: seconds(2), MaxRefusals: 120},
	}
}

// maxSkew is the most that tokens.skew can be: what revokes tokens is kept only little longer than they live.
const maxSkew = 2 * time.Minute

// durations are the times of the section with the least that each can be.
func (t *Tokens) durations() []bound {
	return []bound{
		{"tokens.max_lifetime", t.MaxLifetime, time.Second}, {"tokens.skew", t.Skew, 0},
		{"tokens.refresh", t.Refresh, time.Second}, {"tokens.miss_interval", t.MissInterval, time.Second},
		{"tokens.keys_max_age", t.KeysMaxAge, time.Second}, {"tokens.introspection.ttl", t.Introspection.TTL, 0},
		{"tokens.introspection.negative_ttl", t.Introspection.NegativeTTL, 0}, {"tokens.introspection.timeout", t.Introspection.Timeout, 1},
	}
}
