package authz

import "time"

// Facts are what is known about the request and its caller when the policy is asked. They are not decisions: for example, a fact
// says that a key has expired, and the policy decides whether to refuse it. In the zero value nothing is known, and the shipped
// policies deny.
type Facts struct {
	Path       PathFact
	Route      RouteFact
	Key        KeyFact
	Account    AccountFact
	Token      TokenFact
	Quota      []QuotaFact // in the plan's order
	Revocation RevocationFact
}

// KeyStatus is the state of the API key in the request.
type KeyStatus string

// The states of a key. Only KeyActive is accepted.
const (
	KeyMissing     KeyStatus = "missing"   // no key was sent
	KeyAmbiguous   KeyStatus = "ambiguous" // two different keys, or one source that was sent twice
	KeyMalformed   KeyStatus = "malformed" // it cannot be a key, so it was not looked up
	KeyUnknown     KeyStatus = "unknown"   // it has the form of a key, but there is no such key
	KeyNotYetValid KeyStatus = "not_yet_valid"
	KeyExpired     KeyStatus = "expired"
	KeyDisabled    KeyStatus = "disabled" // an operator can enable it again
	KeyRevoked     KeyStatus = "revoked"  // refused forever
	KeyRotated     KeyStatus = "rotated"  // replaced by a successor, and the overlap is over
	KeyActive      KeyStatus = "active"
	KeyUnavailable KeyStatus = "unavailable" // the key store gave no answer
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
	NotBefore   time.Time // zero: no earliest time
	ExpiresAt   time.Time // zero: never expires
	Meta        map[string]any

	// CreatedAt and Lineage are not shown to policies. Lineage names the key's chain of rotations, which shares one balance.
	CreatedAt time.Time
	Lineage   string
}

// Found reports whether there is such a key, in any state.
func (k *KeyFact) Found() bool { return k.ID != "" }

// AccountStatus is the state of the account that pays for the request.
type AccountStatus string

// The states of an account.
const (
	AccountActive      AccountStatus = "active"
	AccountSuspended   AccountStatus = "suspended"   // refused by the operator
	AccountOverdue     AccountStatus = "overdue"     // it has not paid
	AccountUnknown     AccountStatus = "unknown"     // there is no such account, or no credential names one
	AccountUnavailable AccountStatus = "unavailable" // the key store gave no answer
)

// AccountFact is what is known about the account.
type AccountFact struct {
	ID     string
	Plan   string
	Status AccountStatus
	Meta   map[string]any
}

// TokenStatus is the state of the bearer token in the request.
type TokenStatus string

// The states of a token. Only TokenValid is accepted.
const (
	TokenMissing         TokenStatus = "missing"
	TokenMalformed       TokenStatus = "malformed"
	TokenBadSignature    TokenStatus = "bad_signature"
	TokenUntrustedIssuer TokenStatus = "untrusted_issuer"
	TokenWrongAudience   TokenStatus = "wrong_audience"
	TokenExpired         TokenStatus = "expired"
	TokenNotYetValid     TokenStatus = "not_yet_valid"
	TokenRevoked         TokenStatus = "revoked"
	// TokenInactive: its server says that it is not active. It was never issued, has expired, or was revoked there.
	TokenInactive TokenStatus = "inactive"
	// TokenUnbound: the token is bound to a key of its client, but the request does not prove that the client has it.
	TokenUnbound     TokenStatus = "unbound"
	TokenValid       TokenStatus = "valid"
	TokenUnavailable TokenStatus = "unavailable"
)

// TokenFact is what is known about the bearer token. The fields after Status are empty unless its issuer is proven: they
// describe an expired token, but not one with a bad signature.
type TokenFact struct {
	Status TokenStatus
	Issuer string
	ID     string // its jti
	// Account is the account that pays, and Plan its plan. The issuer's configuration names their claims.
	Account string
	Plan    string
	// Accountless says that tokens of the issuer never name an account, so the account of this one is unknown.
	Accountless bool
	Scopes      []string
	Claims      map[string]any // JSON values with numbers as json.Number; never changed

	// Policies do not see the fields below. Fault tells the operator why the token is refused. The others are compared with
	// revocations.
	Fault      string
	Digest     string // of its text: see credential.TokenDigest
	ByClaims   string // of its claims: see credential.ClaimsDigest; "" if the text is always known
	Subject    string
	Session    string
	Client     string
	SigningKey string // the kid of the key that signed it
	IssuedAt   time.Time
	ExpiresAt  time.Time // the token is refused from then on; it includes the allowed clock skew
}

// Known reports whether a trusted issuer made the token, in any state.
func (t *TokenFact) Known() bool { return t.Issuer != "" }

// Bearer is a bearer token as it came in a request.
type Bearer struct {
	Text string
	// Peer is the address of the sender, "" if it is unknown.
	Peer string
	// Certificate is the client certificate as Envoy sends it: in PEM, URL-encoded, "" if Envoy sent none.
	Certificate string
}

// Statement is a signed message of an issuer that is not an access token: a logout token or a security event.
type Statement struct {
	Issuer    string
	ID        string // its jti, "" if it has none
	IssuedAt  time.Time
	ExpiresAt time.Time      // zero if it does not say
	Claims    map[string]any // JSON values with numbers as json.Number
}

// TokenError says why a token or a statement is refused. Its text is for the operator or the issuer, and not for the caller who
// sent the token.
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
	QuotaUnavailable  QuotaState = "unavailable"  // the ledger gave no answer, and the node holds no lease
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

// RevocationFact is the state of the revocation list.
type RevocationFact struct {
	// Stale reports that the list may lack acknowledged revocations, so no credential can be trusted.
	Stale bool
}
