package authz

import "time"

// Facts are what is known about the caller when the policy is asked. They never say what to do: a key that expired is
// a fact, to refuse it is the policy's business. The zero value knows nothing and every shipped policy denies on it.
type Facts struct {
	Key        KeyFact
	Account    AccountFact
	Token      TokenFact
	Quota      []QuotaFact // in the plan's order
	Revocation RevocationFact
}

// KeyStatus is what became of the API key that the request carries.
type KeyStatus string

// The states of a key. Only KeyActive is good.
const (
	KeyMissing     KeyStatus = "missing"   // no key was sent
	KeyAmbiguous   KeyStatus = "ambiguous" // two credentials that differ, or one source that was sent twice
	KeyMalformed   KeyStatus = "malformed" // cannot be a key: decided without looking it up
	KeyUnknown     KeyStatus = "unknown"   // well formed, but nobody's
	KeyNotYetValid KeyStatus = "not_yet_valid"
	KeyExpired     KeyStatus = "expired"
	KeyDisabled    KeyStatus = "disabled" // switched off, can be switched on again
	KeyRevoked     KeyStatus = "revoked"  // switched off for good
	KeyRotated     KeyStatus = "rotated"  // replaced by a successor, and the overlap is over
	KeyActive      KeyStatus = "active"
	KeyUnavailable KeyStatus = "unavailable" // the key store could not say
)

// KeyFact is what is known about the API key. The fields after Status are empty unless the key was found.
type KeyFact struct {
	Status      KeyStatus
	ID          string
	Name        string
	Account     string
	Environment string
	Plan        string
	Scopes      []string
	NotBefore   time.Time // zero: valid since ever
	ExpiresAt   time.Time // zero: never expires
	Meta        map[string]any

	// CreatedAt and Lineage are not shown to policies. Lineage names the chain of rotations that the key belongs to,
	// which shares one balance.
	CreatedAt time.Time
	Lineage   string
}

// Found reports whether the key belongs to somebody, whatever its state.
func (k *KeyFact) Found() bool { return k.ID != "" }

// AccountStatus is the state of the account that pays for the request.
type AccountStatus string

// The states of an account.
const (
	AccountActive    AccountStatus = "active"
	AccountSuspended AccountStatus = "suspended" // cut off by the operator
	AccountOverdue   AccountStatus = "overdue"   // has not paid
	AccountUnknown   AccountStatus = "unknown"   // there is no such account, or no credential that leads to one
	// AccountUnavailable is one of which the store could not say.
	AccountUnavailable AccountStatus = "unavailable"
)

// AccountFact is what is known about the account.
type AccountFact struct {
	ID     string
	Plan   string
	Status AccountStatus
	Meta   map[string]any
}

// TokenStatus is what became of the bearer token that the request carries.
type TokenStatus string

// The states of a token. Only TokenValid is good.
const (
	TokenMissing         TokenStatus = "missing"
	TokenMalformed       TokenStatus = "malformed"
	TokenBadSignature    TokenStatus = "bad_signature"
	TokenUntrustedIssuer TokenStatus = "untrusted_issuer"
	TokenWrongAudience   TokenStatus = "wrong_audience"
	TokenExpired         TokenStatus = "expired"
	TokenNotYetValid     TokenStatus = "not_yet_valid"
	TokenRevoked         TokenStatus = "revoked"
	// TokenInactive is one that its server does not know as good: it was never issued, or has expired, or was revoked there.
	TokenInactive TokenStatus = "inactive"
	// TokenUnbound is one that is bound to a key of its client, and came without a proof that the client has it.
	TokenUnbound     TokenStatus = "unbound"
	TokenValid       TokenStatus = "valid"
	TokenUnavailable TokenStatus = "unavailable"
)

// TokenFact is what is known about the bearer token. The fields after Status are empty unless its issuer is known to have
// made it: a token that expired is described, one with a bad signature is not.
type TokenFact struct {
	Status TokenStatus
	Issuer string
	ID     string // its jti
	// Account and Plan are who pays and by which plan, from the claims that the issuer's configuration names.
	Account string
	Plan    string
	// Accountless says that tokens of the issuer never name an account: nothing is known of whose this one is.
	Accountless bool
	Scopes      []string
	Claims      map[string]any // JSON values with numbers as json.Number; never written again

	// The rest is not shown to policies. Fault says why a token is not good, for the operator, and by the others it is
	// revoked.
	Fault      string
	Digest     string // of its text: see credential.TokenDigest
	ByClaims   string // names it by its claims: see credential.ClaimsDigest; "" where the text is always known
	Subject    string
	Session    string
	Client     string
	SigningKey string // the kid of the key that signed it
	IssuedAt   time.Time
	ExpiresAt  time.Time // from when it is not accepted any more, with what clocks may differ by
}

// Bearer is a bearer token as a request brings it.
type Bearer struct {
	Text string
	// Peer is the address of who sent it, "" if that is not known.
	Peer string
	// Certificate is that of the client's TLS connection as Envoy sends it, in PEM and URL-encoded; "" if it sent none.
	Certificate string
}

// Known reports whether the token was made by an issuer that is trusted, whatever its state.
func (t *TokenFact) Known() bool { return t.Issuer != "" }

// Statement is something that an issuer signed and that is not an access token: a logout token, or a security event.
type Statement struct {
	Issuer    string
	ID        string // its jti, "" if it has none
	IssuedAt  time.Time
	ExpiresAt time.Time      // zero if it does not say
	Claims    map[string]any // JSON values with numbers as json.Number
}

// TokenError says why a token or a statement is not accepted. Its text is for the operator or the issuer, not for the
// caller who sent a token.
type TokenError struct {
	Status TokenStatus
	Text   string
}

func (e *TokenError) Error() string { return e.Text }

// QuotaState says whether a limit has room.
type QuotaState string

// The states of a quota.
const (
	QuotaOK           QuotaState = "ok"
	QuotaExhausted    QuotaState = "exhausted"    // nothing is left
	QuotaInsufficient QuotaState = "insufficient" // something is left, but less than the request costs
	QuotaUnavailable  QuotaState = "unavailable"  // the ledger could not say, and no lease is in hand
)

// QuotaFact is what is known about one limit of the caller's plan.
type QuotaFact struct {
	Name      string
	State     QuotaState
	Limit     int64 // units granted for the period; for prepaid credits, all that were ever credited
	Remaining int64
	ResetsAt  time.Time // when the period ends; zero for prepaid credits
	// Window is the length of the period that is running, 0 for prepaid credits. Not shown to policies.
	Window time.Duration
}

// RevocationFact is what is known about the revocation list itself.
type RevocationFact struct {
	// Stale reports that the list may lack revocations that were acknowledged elsewhere: nobody can be trusted.
	Stale bool
}
