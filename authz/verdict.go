package authz

// Verdict is the result of a policy for a request. The zero value denies. Its lists and maps must not be changed, because the
// policy may return the same ones again.
//
// The decision object of OPA's Envoy plugin has the same fields, except Reason, Detail, Charge and Errors.
type Verdict struct {
	Allowed bool
	// Status is the HTTP status of a denial, 0 if the policy gave none.
	Status int
	Reason Reason
	// Detail is one sentence for the caller about this request, such as which scope is missing.
	Detail string
	// Headers go to the upstream on allow and to the client on deny. One name may come several times.
	Headers Headers
	// Body is the body of a denial, nil if the policy gave none.
	Body *string
	// ResponseHeaders go to the client on allow.
	ResponseHeaders       Headers
	RemoveRequestHeaders  []string
	SetQueryParameters    []Header
	RemoveQueryParameters []string
	// Metadata holds JSON values (nil, bool, json.Number, string, []any, map[string]any).
	Metadata map[string]any
	Charge   Charge
	// Errors tell the operator which functions of the policy failed, as file:line: text. Their expressions were undefined. The
	// verdict is valid all the same.
	Errors []string
}
