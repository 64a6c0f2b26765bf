package authz

// Decision is the answer to one request. The zero value denies with ReasonPolicyError. Only Allow makes one that allows.
type Decision struct {
	allowed bool
	Answer
}

// Answer is the content of a decision.
type Answer struct {
	// ID names the decision in logs, in metadata and in the body of a denial. It is random.
	ID string
	// Status is the HTTP status of a denial.
	Status int
	Reason Reason
	// Headers go to the upstream on allow and to the client on deny.
	Headers Headers
	Body    string
	// ResponseHeaders go to the client on allow.
	ResponseHeaders       Headers
	RemoveRequestHeaders  []string
	SetQueryParameters    []Header
	RemoveQueryParameters []string
	// Metadata comes from the policy and goes to the proxy's access logs: JSON values, which must not be changed. Notes describe
	// the caller, the route and the outcome. They go there too, under "tollkeeper". NoteID says whether ID goes there, as "decision_id".
	Metadata map[string]any
	Notes    Headers
	NoteID   bool
}

// Allow is the decision to let a request through.
func Allow(a Answer) Decision {
	a.Status, a.Reason, a.Body = 0, "", ""
	return Decision{allowed: true, Answer: a}
}

// Deny is the decision to refuse a request. A status that is not an HTTP status, or that would not end the request, becomes
// 403. A missing reason becomes ReasonPolicyError.
func Deny(a Answer) Decision {
	if a.Status < 200 || a.Status > 599 {
		a.Status = 403
	}
	if a.Reason == "" {
		a.Reason = ReasonPolicyError
	}
	a.ResponseHeaders, a.RemoveRequestHeaders = nil, nil
	a.SetQueryParameters, a.RemoveQueryParameters = nil, nil
	return Decision{Answer: a}
}

// Allowed reports whether the request may pass.
func (d *Decision) Allowed() bool { return d.allowed }

// HTTPStatus is the status of a denial, and 0 for an allow.
func (d *Decision) HTTPStatus() int {
	if !d.allowed && d.Status == 0 {
		return 403
	}
	return d.Status
}

// DeniedFor is the reason of a denial, and empty for an allow.
func (d *Decision) DeniedFor() Reason {
	if !d.allowed && d.Reason == "" {
		return ReasonPolicyError
	}
	return d.Reason
}
