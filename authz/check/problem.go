package check

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// problem is the content of a problem document.
type problem struct {
	base     string // of the type's URL
	instance string
	status   int
	info     authz.ReasonInfo
	reason   authz.Reason
	detail   string
	violated []*authz.QuotaFact
	roomAt   time.Time // when they have room again, zero for never
}

// problemDocument is the body of a denial (RFC 9457).
func problemDocument(p problem) string {
	doc := struct {
		Type     string   `json:"type"`
		Title    string   `json:"title"`
		Status   int      `json:"status"`
		Detail   string   `json:"detail,omitempty"`
		Instance string   `json:"instance"`
		Code     string   `json:"code"`
		Remedy   string   `json:"remedy,omitempty"`
		Violated []string `json:"violated-policies,omitempty"`
		ResetAt  string   `json:"reset_at,omitempty"`
	}{
		Type: p.base + string(p.reason), Title: p.info.Title, Status: p.status, Detail: p.detail,
		Instance: p.instance, Code: string(p.reason), Remedy: p.info.Remedy,
	}
	for _, q := range p.violated {
		doc.Violated = append(doc.Violated, q.Name)
	}
	if !p.roomAt.IsZero() {
		doc.ResetAt = p.roomAt.UTC().Format(time.RFC3339)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(doc) // texts and numbers always encode
	return strings.TrimSuffix(buf.String(), "\n")
}

// instanceOf names a denial by the decision's id. The proxy's request id is added as a component that comparisons ignore
// (RFC 8141 section 2.3.2).
func instanceOf(decisionID, requestID string) string {
	out := "urn:uuid:" + decisionID
	if requestID != "" {
		out += "?=" + headerRequest + "=" + url.QueryEscape(requestID)
	}
	return out
}

// challenge is the www-authenticate field (RFC 9110 section 11.6.1, RFC 6750 section 3), "" for none. A 401 must have one. On a
// 403 it says that another credential could change the answer.
func challenge(status int, reason authz.Reason, title, realm string) string {
	bearer := `Bearer realm="` + quotable(realm) + `"`
	code := string(reason)
	switch {
	case status != 401 && status != 403:
		return ""
	case reason == authz.ReasonKeyMissing || reason == authz.ReasonTokenMissing:
		return bearer
	case reason == authz.ReasonPermissionDenied && status == 403:
		return bearer + `, error="insufficient_scope"`
	case strings.HasPrefix(code, "key_"), strings.HasPrefix(code, "token_") && reason != authz.ReasonTokenStatusUnknown:
		return bearer + `, error="invalid_token", error_description="` + quotable(title) + `"`
	case status == 401:
		return bearer
	}
	return ""
}

// quotable removes characters that a quoted attribute of a challenge must not have (RFC 6750 section 3).
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// grpcStatus is the code that a gRPC caller gets. Without it Envoy turns a 402 into UNKNOWN.
func grpcStatus(status int, reason authz.Reason) string {
	const permissionDenied, resourceExhausted, unimplemented, unavailable, unauthenticated = "7", "8", "12", "14", "16"
	switch reason {
	case authz.ReasonStoreUnavailable, authz.ReasonStateStale, authz.ReasonDecisionTimeout, authz.ReasonTokenStatusUnknown:
		return unavailable
	case authz.ReasonRateLimited:
		return resourceExhausted
	case authz.ReasonRouteUnknown: // what a server says about a method that it does not have
		return unimplemented
	}
	switch status {
	case 402, 429:
		return resourceExhausted
	case 401:
		return unauthenticated
	case 503:
		return unavailable
	}
	return permissionDenied
}
