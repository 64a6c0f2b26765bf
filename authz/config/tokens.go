package config

import "time"

// Tokens says which bearer tokens are understood. Without issuers and introspection, none are, and tokens are left to the
// upstream.
type Tokens struct {
	// Issuers are the issuers whose JWTs are trusted.
	Issuers       []Issuer      `yaml:"issuers" envPrefix:"ISSUERS_"`
	Introspection Introspection `yaml:"introspection" envPrefix:"INTROSPECTION_"`
	// Keep leaves the token in the request that goes to the upstream.
	Keep bool `yaml:"keep" env:"KEEP"`
	// MaxLifetime bounds how long a token is accepted after its iat, whatever its exp says. Revocations are kept for that
	// long. If it is raised later, tokens that were revoked before and have not expired may be accepted again.
	MaxLifetime Duration `yaml:"max_lifetime" env:"MAX_LIFETIME"`
	// Skew is how far the clocks of issuers may differ from ours, at most 2m.
	Skew Duration `yaml:"skew" env:"SKEW"`
	// AcceptBound accepts tokens that are bound to a key of their client (claim cnf: DPoP, RFC 9449, and mutual TLS, RFC
	// 8705) without proof that the client has the key. If it is off, a token bound to a certificate is accepted only where
	// Envoy sends that client certificate (include_peer_certificate), and a token bound in another way is refused. A
	// certificate that Envoy sends must always be the right one.
	AcceptBound bool `yaml:"accept_bound" env:"ACCEPT_BOUND"`
	// MaxBytes is the length of the longest token that is read, in bytes.
	MaxBytes int `yaml:"max_bytes" env:"MAX_BYTES"`
	// Refresh is the time between two fetches of an issuer's keys.
	Refresh Duration `yaml:"refresh" env:"REFRESH"`
	// MissInterval is the shortest time until an issuer's keys are fetched again because a token names an unknown key.
	MissInterval Duration `yaml:"miss_interval" env:"MISS_INTERVAL"`
	// KeysMaxAge is how long an issuer's keys are trusted while they cannot be fetched again.
	KeysMaxAge Duration `yaml:"keys_max_age" env:"KEYS_MAX_AGE"`
}

// Issuer is an issuer whose tokens are trusted. Exactly one of discovery, jwks_url, jwks_file and envoy must be set.
type Issuer struct {
	// Issuer is the iss claim of its tokens, compared exactly.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// Audiences are the accepted audiences. A token must name one of them in its audience_claim.
	Audiences []string `yaml:"audiences" env:"AUDIENCES"`
	// AudienceClaim is the claim that holds the audience. For Amazon Cognito, whose access tokens have no aud, it is
	// client_id. Empty: aud.
	AudienceClaim string `yaml:"audience_claim" env:"AUDIENCE_CLAIM"`
	// Algorithms are the accepted signature algorithms: RS, PS and ES with 256, 384 or 512, and EdDSA, also called Ed25519.
	// Empty: RS256 and ES256.
	Algorithms []string `yaml:"algorithms" env:"ALGORITHMS"`
	// Discovery asks the issuer for the URL of its keys, at ISSUER/.well-known/openid-configuration.
	Discovery bool `yaml:"discovery" env:"DISCOVERY"`
	// JWKSURL is the URL of its keys (JWKS, RFC 7517).
	JWKSURL string `yaml:"jwks_url" env:"JWKS_URL"`
	// JWKSFile is a file with its keys (JWKS, RFC 7517).
	JWKSFile string `yaml:"jwks_file" env:"JWKS_FILE"`
	// Envoy leaves the signature to Envoy's jwt_authn filter. It is the filter's payload_in_metadata. A token can then be
	// revoked by its text even if the filter does not forward it: its jti and its other claims are recorded.
	Envoy string `yaml:"envoy" env:"ENVOY"`
	// AccountClaim is the claim with the account that pays for callers with a token and no key. Empty: callers need a key.
	AccountClaim string `yaml:"account_claim" env:"ACCOUNT_CLAIM"`
	// PlanClaim is the claim with the plan. Empty: the plan of the account applies.
	PlanClaim string `yaml:"plan_claim" env:"PLAN_CLAIM"`
	// Accounts are prefixes of the accounts that its tokens may name: [acme-] for acme-1 and acme-2. A token that names
	// another account is refused. Empty: any account. With several issuers, each of them could then make tokens for the
	// customers of the others.
	Accounts []string `yaml:"accounts" env:"ACCOUNTS"`
	// LogoutAudiences are our client ids at the issuer, to which it addresses back-channel logout.
	LogoutAudiences []string `yaml:"logout_audiences" env:"LOGOUT_AUDIENCES"`
	// EventAudiences are the audiences to which it addresses Shared Signals events.
	EventAudiences []string `yaml:"event_audiences" env:"EVENT_AUDIENCES"`
	// StatusLists are prefixes of the URLs of its Token Status Lists. URLs at the issuer's own host are always allowed.
	StatusLists []string `yaml:"status_lists" env:"STATUS_LISTS"`
}

// Introspection says which server is asked about opaque tokens (RFC 7662). It is on if url is set. The server should report
// iat. A token without iat, whose exp moves while it is used, stays revoked for good only if it is revoked by its text or
// jti; by sid, sub or client it is revoked for tokens.max_lifetime.
type Introspection struct {
	// URL is the introspection endpoint. Empty: opaque tokens are not understood.
	URL string `yaml:"url" env:"URL"`
	// Issuer is the name of the issuer of these tokens, by which they are revoked.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// ClientID is our client id at that server.
	ClientID string `yaml:"client_id" env:"CLIENT_ID"`
	// ClientSecretFile is a file with our client secret.
	ClientSecretFile string `yaml:"client_secret_file" env:"CLIENT_SECRET_FILE"`
	// Audiences are the accepted audiences. The answer must name one of them in its audience_claim. Empty: any audience.
	Audiences []string `yaml:"audiences" env:"AUDIENCES"`
	// AudienceClaim is the member of the answer with the audience. Empty: aud.
	AudienceClaim string `yaml:"audience_claim" env:"AUDIENCE_CLAIM"`
	// AccountClaim is the member with the account that pays for callers with a token and no key. Empty: callers need a key.
	AccountClaim string `yaml:"account_claim" env:"ACCOUNT_CLAIM"`
	// PlanClaim is the member with the plan. Empty: the plan of the account applies.
	PlanClaim string `yaml:"plan_claim" env:"PLAN_CLAIM"`
	// Accounts are prefixes of the accounts that the answer may name. Empty: any account.
	Accounts []string `yaml:"accounts" env:"ACCOUNTS"`
	// TTL is how long an active token is cached, but never past its exp.
	TTL Duration `yaml:"ttl" env:"TTL"`
	// NegativeTTL is how long an inactive token is cached.
	NegativeTTL Duration `yaml:"negative_ttl" env:"NEGATIVE_TTL"`
	// Timeout bounds one call. A check waits no longer than its own timeout.
	Timeout Duration `yaml:"timeout" env:"TIMEOUT"`
	// MaxRefusals bounds how many inactive tokens of one peer the server is asked about in a minute, roughly. A peer is an
	// IPv4 address or an IPv6 /64; behind a proxy that hides addresses, all callers are one peer. Tokens that were active
	// before are always asked about. 0: no bound.
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

// maxSkew bounds tokens.skew: revocations are kept only a little longer than the tokens live.
const maxSkew = 2 * time.Minute

// durations returns the times of the section with the least value of each.
func (t *Tokens) durations() []minimum {
	return []minimum{
		{"tokens.max_lifetime", t.MaxLifetime, time.Second}, {"tokens.skew", t.Skew, 0},
		{"tokens.refresh", t.Refresh, time.Second}, {"tokens.miss_interval", t.MissInterval, time.Second},
		{"tokens.keys_max_age", t.KeysMaxAge, time.Second}, {"tokens.introspection.ttl", t.Introspection.TTL, 0},
		{"tokens.introspection.negative_ttl", t.Introspection.NegativeTTL, 0}, {"tokens.introspection.timeout", t.Introspection.Timeout, 1},
	}
}
