package check

import (
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The headers that Tollkeeper gives to the upstream. Copies that a client sends are removed.
const (
	identityPrefix = "x-tollkeeper-"
	headerKeyID    = identityPrefix + "key-id"
	headerAccount  = identityPrefix + "account"
	headerPlan     = identityPrefix + "plan"
	headerSubject  = identityPrefix + "subject"
	headerIssuer   = identityPrefix + "issuer" // of the subject: two issuers may use the same name for different people

	// HeaderReason carries the reason of every denial, HeaderDecision its id, and headerRequest the proxy's id of the request.
	HeaderReason   = "x-authz-reason"
	HeaderDecision = "x-authz-decision-id"
	headerRequest  = "x-request-id"
)

// Answers are the settings that shape what callers see.
type Answers struct {
	// Realm is named in www-authenticate.
	Realm string
	// ProblemBase and a reason's code make the type of a problem document, which is also the URL of a page that explains it.
	ProblemBase string
	// BillingURL is where a caller who gets a 402 can pay, "" for nowhere.
	BillingURL string
	// Omit is what an allow does not carry.
	Omit Omitted
	// KeepCredentials leaves the key in the request that goes to the upstream, and KeepTokens the bearer token.
	KeepCredentials, KeepTokens bool
}

// copyOf copies a list of the policy, with room for more items. The policy may return the same list again, so it must not be
// changed.
func copyOf[S ~[]E, E any](list S, more int) S {
	if len(list)+more == 0 {
		return nil
	}
	return append(make(S, 0, len(list)+more), list...)
}

// setIdentity tells the upstream who is calling. It removes what is not known or omitted, so that nothing in these headers can come
// from the client.
func setIdentity(out *authz.Answer, f *authz.Facts, account, plan string, opt *Options) {
	var keyID, subject, issuer string
	if f.Key.Status == authz.KeyActive {
		keyID = f.Key.ID
	}
	if f.Token.Status == authz.TokenValid {
		subject, issuer = f.Token.Subject, f.Token.Issuer
	}
	for i, h := range [...]authz.Header{ // in the order of identityNames
		{Name: headerKeyID, Value: keyID}, {Name: headerAccount, Value: account}, {Name: headerPlan, Value: plan},
		{Name: headerSubject, Value: subject}, {Name: headerIssuer, Value: issuer},
	} {
		out.Headers = without(out.Headers, h.Name)
		switch {
		case h.Value != "" && !opt.Answers.Omit.has(firstIdentity+i):
			out.Headers = append(out.Headers, h)
		case h.Name != headerSubject && h.Name != headerIssuer || opt.Tokens != nil: // without tokens no upstream expects these two
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

// notes are the facts that Envoy can write into its access log.
func notes(reason authz.Reason, f *authz.Facts, plan string, held heldCharge, omit Omitted) authz.Headers {
	var rid string
	if held != nil && !omit.has(noteReservation) {
		rid = held.ID()
	}
	values := [firstIdentity]string{
		noteReason: string(reason), noteKeyID: f.Key.ID, noteAccount: f.Account.ID, notePlan: plan, noteRoute: f.Route.RouteName(),
		noteIssuer: f.Token.Issuer, noteTokenID: f.Token.ID, noteSubject: f.Token.Subject, noteReservation: rid,
	}
	n := 0
	for i := range values {
		if omit.has(i) {
			values[i] = ""
		}
		if values[i] != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make(authz.Headers, 0, n)
	for i, v := range values {
		if v != "" {
			out = append(out, authz.Header{Name: noteNames[i], Value: v})
		}
	}
	return out
}

// reasonInfo returns what the rules say about a reason, with defaults for missing parts.
func reasonInfo(rules *Rules, reason authz.Reason) authz.ReasonInfo {
	var info authz.ReasonInfo
	if rules != nil {
		info = rules.Reasons[reason]
	}
	if info.Status == 0 {
		info.Status = 403
	}
	if info.Title == "" {
		words := strings.ReplaceAll(string(reason), "_", " ")
		info.Title = strings.ToUpper(words[:1]) + words[1:]
	}
	return info
}

// maxRequestID is the longest request id that is repeated to the caller, who may have made it.
const maxRequestID = 256

func requestIDOf(h *authz.HTTP) string {
	if h == nil {
		return ""
	}
	id := h.Headers.Get(headerRequest)
	if len(id) > maxRequestID {
		return ""
	}
	return id
}

// withoutControls replaces control characters by spaces, in place. Envoy answers 500 if a value has a line break, and a denial
// must not become a 500.
func withoutControls(h authz.Headers) authz.Headers {
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

// without removes a header from a list, in place.
func without(h authz.Headers, name string) authz.Headers {
	return slices.DeleteFunc(h, func(f authz.Header) bool { return f.Name == name })
}

// seconds are whole seconds, rounded up so that a caller who waits that long does not come too early.
func seconds(d time.Duration) int64 { return max(0, int64((d+time.Second-1)/time.Second)) }
