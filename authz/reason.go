package authz

// Reason is a code, for programs, that says why a request was denied.
// Codes match ^[a-z][a-z0-9_]{2,63}$ and never change their meaning. A policy may use codes of its own.
type Reason string

// The reasons that Tollkeeper itself knows, in order of precedence.
const (
	ReasonRequestMalformed    Reason = "request_malformed"
	ReasonCredentialAmbiguous Reason = "credential_ambiguous"

	// ReasonRouteUnknown: no route has the method and the path of the request, and the operator refuses such requests.
	ReasonRouteUnknown Reason = "route_unknown"

	ReasonKeyMissing          Reason = "key_missing"
	ReasonKeyMalformed        Reason = "key_malformed"
	ReasonKeyUnknown          Reason = "key_unknown"
	ReasonKeyRevoked          Reason = "key_revoked"
	ReasonKeyRotated          Reason = "key_rotated"
	ReasonKeyDisabled         Reason = "key_disabled"
	ReasonKeyNotYetValid      Reason = "key_not_yet_valid"
	ReasonKeyExpired          Reason = "key_expired"
	ReasonKeyWrongEnvironment Reason = "key_wrong_environment"

	ReasonAccountSuspended Reason = "account_suspended"

	ReasonTokenMissing          Reason = "token_missing"
	ReasonTokenMalformed        Reason = "token_malformed"
	ReasonTokenSignatureInvalid Reason = "token_signature_invalid"
	ReasonTokenIssuerUntrusted  Reason = "token_issuer_untrusted"
	ReasonTokenAudienceMismatch Reason = "token_audience_mismatch"
	ReasonTokenExpired          Reason = "token_expired"
	ReasonTokenNotYetValid      Reason = "token_not_yet_valid"
	ReasonTokenRevoked          Reason = "token_revoked"
	ReasonTokenInactive         Reason = "token_inactive"
	ReasonTokenBindingFailed    Reason = "token_binding_failed"
	ReasonTokenStatusUnknown    Reason = "token_status_unknown"

	ReasonPermissionDenied Reason = "permission_denied"
	ReasonPolicyDenied     Reason = "policy_denied"

	ReasonPaymentOverdue      Reason = "payment_overdue"
	ReasonSubscriptionExpired Reason = "subscription_expired"
	ReasonPlanUpgradeRequired Reason = "plan_upgrade_required"

	ReasonQuotaExceeded       Reason = "quota_exceeded"
	ReasonCreditsExhausted    Reason = "credits_exhausted"
	ReasonCreditsInsufficient Reason = "credits_insufficient"
	ReasonRateLimited         Reason = "rate_limited"

	ReasonPolicyError      Reason = "policy_error"
	ReasonStoreUnavailable Reason = "store_unavailable"
	ReasonStateStale       Reason = "state_stale"
	ReasonDecisionTimeout  Reason = "decision_timeout"
)

// Undecided reports whether the reason means that Tollkeeper could not decide. The reason then says nothing about the caller.
func (r Reason) Undecided() bool {
	switch r {
	case ReasonPolicyError, ReasonStoreUnavailable, ReasonStateStale, ReasonDecisionTimeout, ReasonTokenStatusUnknown:
		return true
	}
	return false
}

// ValidReason reports whether s is a reason's code, fit for a header and a metric label: ^[a-z][a-z0-9_]{2,63}$.
func ValidReason(s string) bool {
	if len(s) < 3 || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// Retry says whether waiting helps a denied caller.
type Retry string

// The values of Retry.
const (
	RetryNever Retry = "never" // the caller or the operator has to act
	RetryReset Retry = "reset" // when the quota's period ends, or when the key becomes valid
	RetrySoon  Retry = "soon"  // in a moment: Tollkeeper could not decide
)

// ReasonInfo is what callers are told about a reason in addition to its code.
type ReasonInfo struct {
	Status int // the HTTP status in the current profile
	Title  string
	Remedy string
	Retry  Retry
}
