package check

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The headers that Tollkeeper gives to the upstream. Clients' own copies never get there.
const (
	identityPrefix = "x-tollkeeper-"
	headerKeyID    = identityPrefix + "key-id"
	headerAccount  = identityPrefix + "account"
	headerPlan     = identityPrefix + "plan"
	headerSubject  = identityPrefix + "subject"
	headerIssuer   = identityPrefix + "issuer" // whose subject it is: two issuers may call two people the same

	// HeaderReason carries the reason of every denial, HeaderDecision its id, and headerRequest the proxy's id of the request.
	HeaderReason   = "x-authz-reason"
	HeaderDecision = "x-authz-decision-id"
	headerRequest  = "x-request-id"
)

// Answers are the settings that shape what callers see.
type Answers struct {
	// Realm is named in www-authenticate.
	Realm string
	// ProblemBase and a reason's code make the type of a problem document, and a page that explains it.
	ProblemBase string
	// BillingURL, if there is one, is where a caller who gets a 402 can pay.
	BillingURL string
	// KeepCredentials leaves the key in the request that goes to the upstream, and KeepTokens the bearer token.
	KeepCredentials, KeepTokens bool
}

// allowance is what goes with an allow.
func (a *attempt) allowance() authz.Answer {
	out := authz.Answer{
		ID:                    a.id,
		Headers:               ours(a.verdict.Headers, 4),
		ResponseHeaders:       ours(a.verdict.ResponseHeaders, 2),
		RemoveRequestHeaders:  ours(a.verdict.RemoveRequestHeaders, 4),
		SetQueryParameters:    a.verdict.SetQueryParameters,
		RemoveQueryParameters: ours(a.verdict.RemoveQueryParameters, 0),
		Metadata:              a.verdict.Metadata,
		Notes:                 a.notes(a.would),
	}
	if q := a.nearest(); q != nil {
		var room [2][160]byte
		policy, state := appendLimit(room[0][:0], room[1][:0], q, a.began)
		out.ResponseHeaders = append(out.ResponseHeaders,
			authz.Header{Name: headerPolicy, Value: string(policy)}, authz.Header{Name: headerLimit, Value: string(state)})
	}
	if a.facts.Key.Status == authz.KeyActive || a.facts.Token.Status == authz.TokenValid {
		a.identityHeaders(&out)
	}
	if a.isSecret() { // also one that is no good any more, on a route that asks for none
		a.dropCredential(&out)
	}
	if a.credentials.token != "" && a.facts.Token.Known() && !a.opt.Answers.KeepTokens && !out.Headers.Has("authorization") {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, "authorization")
	}
	a.dropForgeries(&out)
	a.rewriteQuery(&out)
	out.Headers = safe(out.Headers)
	out.ResponseHeaders = safe(out.ResponseHeaders)
	return out
}

// ours is a copy of a list of the policy's, which may hand out the same list again, with room for some more.
func ours[S ~[]E, E any](list S, more int) S {
	if len(list)+more == 0 {
		return nil
	}
	return append(make(S, 0, len(list)+more), list...)
}

// identityHeaders tells the upstream who is calling. What is not known is removed, so that nothing in these can come from
// the client.
func (a *attempt) identityHeaders(out *authz.Answer) {
	var keyID, subject, issuer string
	if a.facts.Key.Status == authz.KeyActive {
		keyID = a.facts.Key.ID
	}
	if a.facts.Token.Status == authz.TokenValid {
		subject, issuer = a.facts.Token.Subject, a.facts.Token.Issuer
	}
	for _, h := range [...]authz.Header{
		{Name: headerKeyID, Value: keyID}, {Name: headerAccount, Value: a.holder.Account}, {Name: headerPlan, Value: a.plan},
		{Name: headerSubject, Value: subject}, {Name: headerIssuer, Value: issuer},
	} {
		out.Headers = without(out.Headers, h.Name)
		switch {
		case h.Value != "":
			out.Headers = append(out.Headers, h)
		case h.Name != headerSubject && h.Name != headerIssuer || a.opt.Tokens != nil: // without tokens no upstream expects one
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

// denial is what goes with a deny: what the policy said, and what every denial carries.
func (a *attempt) denial() authz.Answer {
	info := a.info()
	out := authz.Answer{ID: a.id, Status: a.verdict.Status, Reason: a.verdict.Reason, Headers: ours(a.verdict.Headers, 10),
		Metadata: a.verdict.Metadata, Notes: a.notes(a.verdict.Reason)}
	if out.Status == 0 {
		out.Status = info.Status
	}
	out.Headers = append(without(without(out.Headers, HeaderReason), HeaderDecision),
		authz.Header{Name: HeaderReason, Value: string(out.Reason)}, authz.Header{Name: HeaderDecision, Value: a.id})
	offer := func(name, value string) {
		if value != "" && !out.Headers.Has(name) {
			out.Headers = append(out.Headers, authz.Header{Name: name, Value: value})
		}
	}
	offer(headerRequest, a.requestID())
	offer("cache-control", "no-store")
	offer("retry-after", a.retryAfter(info.Retry))
	offer("www-authenticate", a.challenge(out.Status))
	if out.Status == 402 && a.opt.Answers.BillingURL != "" {
		offer("link", "<"+a.opt.Answers.BillingURL+`>; rel="payment"`)
	}
	var policy, state []byte
	for i := range a.facts.Quota {
		if a.violates(i) {
			policy, state = appendLimit(policy, state, &a.facts.Quota[i], a.began)
		}
	}
	offer(headerPolicy, string(policy))
	offer(headerLimit, string(state))
	switch {
	case a.request.IsGRPC():
		// No content-type: Envoy makes the gRPC one, and the body becomes grpc-message.
		offer("grpc-status", grpcStatus(out.Status, out.Reason))
		out.Body = strings.TrimSpace(info.Title + ". " + info.Remedy)
	case a.verdict.Body == nil && out.Status >= 400: // a redirect, or an answer without content, has no problem
		offer("content-type", "application/problem+json")
		out.Body = a.problem(out.Status, info)
	}
	if a.verdict.Body != nil {
		out.Body = *a.verdict.Body
	}
	if out.Status == 204 || out.Status == 304 { // a body would be taken for the beginning of the next response
		out.Body = ""
	}
	out.Headers = safe(out.Headers)
	return out
}

// info is what the table says about the verdict's reason, with sane values for what it does not say.
func (a *attempt) info() authz.ReasonInfo {
	var info authz.ReasonInfo
	if a.rules != nil {
		info = a.rules.Reasons[a.verdict.Reason]
	}
	if info.Status == 0 {
		info.Status = 403
	}
	if info.Title == "" {
		words := strings.ReplaceAll(string(a.verdict.Reason), "_", " ")
		info.Title = strings.ToUpper(words[:1]) + words[1:]
	}
	return info
}

// problem is the body of a denial (RFC 9457).
func (a *attempt) problem(status int, info authz.ReasonInfo) string {
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
		Type: a.opt.Answers.ProblemBase + string(a.verdict.Reason), Title: info.Title, Status: status, Detail: a.verdict.Detail,
		Instance: a.instance(), Code: string(a.verdict.Reason), Remedy: info.Remedy,
	}
	for i := range a.facts.Quota {
		if a.violates(i) {
			doc.Violated = append(doc.Violated, a.facts.Quota[i].Name)
		}
	}
	if at := a.roomAgain(); !at.IsZero() {
		doc.ResetAt = at.UTC().Format(time.RFC3339)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(doc) // texts and numbers always encode
	return strings.TrimSuffix(buf.String(), "\n")
}

// instance names this denial by the decision's id and, as a component that does not count when names are compared
// (RFC 8141 section 2.3.2), the proxy's id of the request.
func (a *attempt) instance() string {
	out := "urn:uuid:" + a.id
	if id := a.requestID(); id != "" {
		out += "?=" + headerRequest + "=" + url.QueryEscape(id)
	}
	return out
}

// maxRequestID is the longest request id that is repeated to the caller, who may have made it.
const maxRequestID = 256

func (a *attempt) requestID() string {
	if a.request.HTTP == nil {
		return ""
	}
	id := a.request.HTTP.Headers.Get(headerRequest)
	if len(id) > maxRequestID {
		return ""
	}
	return id
}

// challenge is the www-authenticate field (RFC 9110 section 11.6.1, RFC 6750 section 3). A 401 must have one; on a 403
// it says that another credential could change the answer.
func (a *attempt) challenge(status int) string {
	realm := `Bearer realm="` + quotable(a.opt.Answers.Realm) + `"`
	code := string(a.verdict.Reason)
	switch {
	case status != 401 && status != 403:
		return ""
	case a.verdict.Reason == authz.ReasonKeyMissing || a.verdict.Reason == authz.ReasonTokenMissing:
		return realm
	case a.verdict.Reason == authz.ReasonPermissionDenied && status == 403:
		return realm + `, error="insufficient_scope"`
	case strings.HasPrefix(code, "key_"), strings.HasPrefix(code, "token_") && a.verdict.Reason != authz.ReasonTokenStatusUnknown:
		return realm + `, error="invalid_token", error_description="` + quotable(a.info().Title) + `"`
	case status == 401:
		return realm
	}
	return ""
}

// quotable leaves out what may not stand in a quoted attribute of a challenge (RFC 6750 section 3).
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// grpcStatus is the code that a gRPC caller gets; without it Envoy makes UNKNOWN of a 402.
func grpcStatus(status int, reason authz.Reason) string {
	const permissionDenied, resourceExhausted, unavailable, unauthenticated = "7", "8", "14", "16"
	switch reason {
	case authz.ReasonStoreUnavailable, authz.ReasonStateStale, authz.ReasonDecisionTimeout, authz.ReasonTokenStatusUnknown:
		return unavailable
	case authz.ReasonRateLimited:
		return resourceExhausted
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

// notes go into Envoy's access logs with every answer.
func (a *attempt) notes(denied authz.Reason) authz.Headers {
	out := make(authz.Headers, 0, 8)
	put := func(name, value string) {
		if value != "" {
			out = append(out, authz.Header{Name: name, Value: value})
		}
	}
	put("reason", string(denied))
	put("key_id", a.facts.Key.ID)
	put("account", a.facts.Account.ID)
	put("plan", a.plan)
	put("issuer", a.facts.Token.Issuer)
	put("token_id", a.facts.Token.ID)
	put("subject", a.facts.Token.Subject)
	if a.reservation != nil {
		put("rid", a.reservation.ID())
	}
	return out
}

// safe replaces what would end a header field or the whole message: Envoy answers 500 to a value with a line break, and
// a denial must not become that.
func safe(h authz.Headers) authz.Headers {
	for i := range h {
		h[i].Value = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return ' '
			}
			return r
		}, h[i].Value)
	}
	return h
}

// without takes a header out of a list that is ours.
func without(h authz.Headers, name string) authz.Headers {
	return slices.DeleteFunc(h, func(f authz.Header) bool { return f.Name == name })
}

// seconds rounds up, so that who waits that long does not come too early.
func seconds(d time.Duration) string { return strconv.FormatInt(inSeconds(d), 10) }

func inSeconds(d time.Duration) int64 { return max(0, int64((d+time.Second-1)/time.Second)) }

// newID makes a random UUID (RFC 9562 section 5.4). It is a name, not a secret.
func newID() string {
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], b[:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
