package check

import (
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// allowance is the answer of an allow.
func (e *evaluation) allowance() authz.Answer {
	v, f, omit := &e.verdict, &e.facts, e.opt.Answers.Omit
	out := authz.Answer{
		ID:                    e.id,
		Headers:               copyOf(v.Headers, 4),
		ResponseHeaders:       copyOf(v.ResponseHeaders, 2),
		RemoveRequestHeaders:  copyOf(v.RemoveRequestHeaders, 4),
		SetQueryParameters:    v.SetQueryParameters,
		RemoveQueryParameters: copyOf(v.RemoveQueryParameters, 0),
		Metadata:              v.Metadata,
		NoteID:                !omit.has(noteDecision),
		Notes:                 notes(e.dryRunReason, f, e.plan, e.held, omit),
	}
	if q := nearestLimit(e.limits, f.Quota, e.charge); q != nil {
		policy, state := rateLimitFields(e.began, q)
		out.ResponseHeaders = append(out.ResponseHeaders, authz.Header{Name: headerPolicy, Value: policy}, authz.Header{Name: headerLimit, Value: state})
	}
	if f.Key.Status == authz.KeyActive || f.Token.Status == authz.TokenValid {
		setIdentity(&out, f, e.holder.Account, e.plan, &e.opt)
	}
	if h := e.request.HTTP; h != nil {
		dropCredentials(&out, h.Headers, &e.credentials, f, &e.opt.Answers)
		dropForgeries(&out, h.Headers)
		rewriteQuery(&out, forwardedPath(h), keyParameters(&out, &e.credentials, f, &e.opt.Answers))
	}
	out.Headers = withoutControls(out.Headers)
	out.ResponseHeaders = withoutControls(out.ResponseHeaders)
	return out
}

// denial is the answer of a deny: what the policy said, and what every denial carries.
func (e *evaluation) denial() authz.Answer {
	v, now := &e.verdict, e.began
	info := reasonInfo(e.rules, v.Reason)
	violated := violatedLimits(e.limits, e.facts.Quota, v, e.wanted)
	roomAt := roomAgainAt(violated)
	requestID := requestIDOf(e.request.HTTP)
	out := authz.Answer{
		ID: e.id, Status: v.Status, Reason: v.Reason, Headers: copyOf(v.Headers, 10), Metadata: v.Metadata,
		NoteID: true, Notes: notes(v.Reason, &e.facts, e.plan, e.held, 0),
	}
	if out.Status == 0 {
		out.Status = info.Status
	}
	out.Headers = append(without(without(out.Headers, HeaderReason), HeaderDecision),
		authz.Header{Name: HeaderReason, Value: string(out.Reason)}, authz.Header{Name: HeaderDecision, Value: e.id})
	offer := func(name, value string) {
		if value != "" && !out.Headers.Has(name) {
			out.Headers = append(out.Headers, authz.Header{Name: name, Value: value})
		}
	}
	offer(headerRequest, requestID)
	offer("cache-control", "no-store")
	offer("retry-after", retryAfter(info.Retry, v.Reason, e.facts.Key.NotBefore, roomAt, now))
	offer("www-authenticate", challenge(out.Status, v.Reason, info.Title, e.opt.Answers.Realm))
	if url := e.opt.Answers.BillingURL; out.Status == 402 && url != "" {
		offer("link", "<"+url+`>; rel="payment"`)
	}
	policy, state := rateLimitFields(now, violated...)
	offer(headerPolicy, policy)
	offer(headerLimit, state)
	switch {
	case e.request.IsGRPC():
		// No content-type: Envoy sets the one of gRPC, and makes grpc-message of the body.
		offer("grpc-status", grpcStatus(out.Status, out.Reason))
		out.Body = strings.TrimSpace(info.Title + ". " + info.Remedy)
	case v.Body == nil && out.Status >= 400: // a redirect, or an answer without content, is not a problem
		offer("content-type", "application/problem+json")
		out.Body = problemDocument(problem{
			base: e.opt.Answers.ProblemBase, instance: instanceOf(e.id, requestID), status: out.Status, info: info,
			reason: v.Reason, detail: v.Detail, violated: violated, roomAt: roomAt,
		})
	}
	if v.Body != nil {
		out.Body = *v.Body
	}
	if out.Status == 204 || out.Status == 304 { // a client would take a body for the beginning of the next response
		out.Body = ""
	}
	out.Headers = withoutControls(out.Headers)
	return out
}
