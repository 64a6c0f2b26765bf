package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// verdictOf reads a decision: a boolean, or an object with a boolean "allowed". Anything else is an error, and so is a
// wrong type in a field that matters for the decision. It skips unknown fields.
func verdictOf(v ast.Value) (authz.Verdict, error) {
	var out authz.Verdict
	switch d := v.(type) {
	case ast.Boolean:
		out.Allowed = bool(d)
		return out, nil
	case ast.Object:
		r := reader{object: d}
		out.Allowed = r.allowed()
		out.Headers = r.headers("headers", !out.Allowed)
		out.Metadata = r.metadata("dynamic_metadata")
		out.Charge = r.charge("charge")
		if out.Allowed {
			r.readAllow(&out)
		} else {
			r.readDeny(&out)
		}
		if r.err != nil {
			return authz.Verdict{}, r.err
		}
		return out, nil
	}
	return out, invalidDecision("a decision must be a boolean or an object, not %s", ast.ValueName(v))
}

// reader reads the fields of a decision and keeps the first error.
type reader struct {
	object ast.Object
	err    error
}

func (r *reader) readAllow(v *authz.Verdict) {
	v.Headers = joinCookies(v.Headers)
	v.ResponseHeaders = r.headers("response_headers_to_add", true)
	v.RemoveRequestHeaders = r.names("request_headers_to_remove")
	v.SetQueryParameters = r.parameters("query_parameters_to_set")
	v.RemoveQueryParameters = r.texts("query_parameters_to_remove")
}

func (r *reader) readDeny(v *authz.Verdict) {
	v.Status = r.status("http_status")
	if body, ok := r.text("body"); ok {
		v.Body = &body
	}
	if reason, ok := r.text("reason"); ok {
		if !authz.ValidReason(reason) {
			r.fail("reason %q is not a reason code", reason)
		}
		v.Reason = authz.Reason(reason)
	}
	v.Detail, _ = r.text("detail")
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = invalidDecision(format, args...)
	}
}

// fields are the names of the fields of a decision.
var fields = termsOf("allowed", "headers", "dynamic_metadata", "charge", "response_headers_to_add", "request_headers_to_remove",
	"query_parameters_to_set", "query_parameters_to_remove", "http_status", "body", "reason", "detail")

func termsOf(names ...string) map[string]*ast.Term {
	out := make(map[string]*ast.Term, len(names))
	for _, name := range names {
		out[name] = ast.StringTerm(name)
	}
	return out
}

// get returns a field, or nil.
func (r *reader) get(name string) ast.Value {
	if t := r.object.Get(fields[name]); t != nil {
		return t.Value
	}
	return nil
}

func (r *reader) wrong(name, want string, got ast.Value) {
	r.fail("%s must be %s, not %s", name, want, ast.ValueName(got))
}

func (r *reader) allowed() bool {
	switch v := r.get("allowed").(type) {
	case ast.Boolean:
		return bool(v)
	case nil:
		r.fail("the decision has no allowed")
	default:
		r.wrong("allowed", "a boolean", v)
	}
	return false
}

func (r *reader) text(name string) (string, bool) {
	switch v := r.get(name).(type) {
	case nil:
	case ast.String:
		return string(v), true
	default:
		r.wrong(name, "a string", v)
	}
	return "", false
}

func (r *reader) status(name string) int {
	v := r.get(name)
	if v == nil {
		return 0
	}
	number, ok := v.(ast.Number)
	if !ok {
		r.wrong(name, "a number", v)
		return 0
	}
	n, ok := number.Int()
	if !ok || n < 200 || n > 599 {
		r.fail("%s %s is not from 200 to 599", name, number)
		return 0
	}
	return n
}

// texts reads a list of strings.
func (r *reader) texts(name string) []string {
	v := r.get(name)
	if v == nil {
		return nil
	}
	return r.list(name, v)
}

// list reads an array of strings, or a set: as JSON it is an array.
func (r *reader) list(name string, v ast.Value) []string {
	var terms []*ast.Term
	switch v := v.(type) {
	case *ast.Array:
		for i := range v.Len() {
			terms = append(terms, v.Elem(i))
		}
	case ast.Set:
		terms = v.Slice()
	default:
		r.wrong(name, "an array of strings", v)
		return nil
	}
	out := make([]string, 0, len(terms))
	for _, t := range terms {
		s, ok := t.Value.(ast.String)
		if !ok {
			r.wrong("an element of "+name, "a string", t.Value)
			return nil
		}
		out = append(out, string(s))
	}
	return out
}

// names reads a list of headers to remove. It skips host and pseudo headers: Envoy never removes them, and with mutation rules
// it answers 500 to the attempt.
func (r *reader) names(name string) []string {
	list := r.texts(name)
	for i := range list {
		list[i] = r.headerName(list[i])
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "host" || strings.HasPrefix(s, ":") })
}

// pairs reads an object of strings or lists of strings. The result is sorted by name.
func (r *reader) pairs(name string, o ast.Object, rename func(string) string) []authz.Header {
	out := make([]authz.Header, 0, o.Len())
	o.Foreach(func(k, v *ast.Term) {
		key, ok := k.Value.(ast.String)
		if !ok {
			r.wrong("a name in "+name, "a string", k.Value)
			return
		}
		final := rename(string(key))
		if s, ok := v.Value.(ast.String); ok {
			out = append(out, authz.Header{Name: final, Value: string(s)})
			return
		}
		for _, s := range r.list(name+"."+string(key), v.Value) {
			out = append(out, authz.Header{Name: final, Value: s})
		}
	})
	slices.SortStableFunc(out, func(a, b authz.Header) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// parameters reads query parameters to set.
func (r *reader) parameters(name string) []authz.Header {
	switch v := r.get(name).(type) {
	case nil:
	case ast.Object:
		return r.pairs(name, v, func(s string) string { return s })
	default:
		r.wrong(name, "an object", v)
	}
	return nil
}

// headers reads an object of headers, or a list of such objects.
func (r *reader) headers(name string, toClient bool) authz.Headers {
	var out authz.Headers
	switch v := r.get(name).(type) {
	case nil:
		return nil
	case ast.Object:
		out = r.pairs(name, v, r.headerName)
	case *ast.Array:
		for i := range v.Len() {
			o, ok := v.Elem(i).Value.(ast.Object)
			if !ok {
				r.wrong("an element of "+name, "an object", v.Elem(i).Value)
				return nil
			}
			out = append(out, r.pairs(name, o, r.headerName)...)
		}
	default:
		r.wrong(name, "an object or an array of objects", v)
	}
	size := 0
	for i := range out {
		size += len(out[i].Name) + len(out[i].Value)
		r.checkHeader(&out[i], toClient)
	}
	if size > maxHeaders {
		r.fail("%s has %d bytes: Envoy would refuse more than %d", name, size, maxHeaders)
	}
	if n := fieldsOf(out, toClient); n > maxFields {
		r.fail("%s has %d headers: Envoy would refuse more than %d in addition to those of the request", name, n, maxFields)
	}
	return out
}

// Bounds of the headers that a policy may set. Envoy answers 500 above 60 KiB or 100 headers in all.
const (
	maxHeaders = 48 << 10 // bytes
	maxFields  = 64
)

// fieldsOf counts the headers that Envoy will set. On the way to the upstream, the values of one name become one header.
func fieldsOf(h authz.Headers, toClient bool) int {
	if toClient || len(h) <= maxFields {
		return len(h)
	}
	names := make(map[string]bool)
	for i := range h {
		names[h[i].Name] = true
	}
	return len(names)
}

// checkHeader refuses headers that would change where a message ends, and headers to which Envoy would answer 500 after
// the request was decided and charged.
func (r *reader) checkHeader(h *authz.Header, toClient bool) {
	if strings.ContainsAny(h.Value, "\r\n\x00") {
		r.fail("the value of header %q has a line break or a zero byte", h.Name)
	}
	switch h.Name {
	case "content-length", "transfer-encoding":
		r.fail("a policy cannot set header %q", h.Name)
	case ":path", ":method", ":authority", ":scheme":
		if toClient {
			r.fail("header %q cannot go to a client", h.Name)
		}
		if h.Value == "" || strings.ContainsFunc(h.Value, func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.fail("the value %q of header %q is not visible ASCII", h.Value, h.Name)
		}
		if h.Name == ":path" && (!strings.HasPrefix(h.Value, "/") || strings.Contains(h.Value, "#")) {
			r.fail("%q is not a path", h.Value)
		}
	default:
		if strings.HasPrefix(h.Name, ":") {
			r.fail("%q is not a header", h.Name)
		}
	}
}

// joinCookies joins several cookie headers with semicolons. Envoy would join them with commas.
func joinCookies(in authz.Headers) authz.Headers {
	if in.Count("cookie") < 2 {
		return in
	}
	whole := authz.Header{Name: "cookie", Value: strings.Join(in.Values("cookie"), "; ")}
	rest := slices.DeleteFunc(slices.Clone(in), func(h authz.Header) bool { return h.Name == "cookie" })
	return append(rest, whole)
}

// headerName returns the name in lower case. It takes pseudo headers such as :path too.
func (r *reader) headerName(s string) string {
	token := strings.TrimPrefix(s, ":")
	valid := token != ""
	for i := 0; i < len(token); i++ {
		valid = valid && isTokenByte(token[i])
	}
	if !valid {
		r.fail("%q is not a header name", s)
	}
	return strings.ToLower(s)
}

// isTokenByte reports whether a header's name may contain c (RFC 9110, section 5.6.2).
func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func (r *reader) metadata(name string) map[string]any {
	v := r.get(name)
	if v == nil {
		return nil
	}
	if _, ok := v.(ast.Object); !ok {
		r.wrong(name, "an object", v)
		return nil
	}
	plain, err := ast.JSON(v)
	m, ok := plain.(map[string]any)
	if err != nil || !ok {
		r.fail("%s is not JSON", name)
	}
	return m
}

// charge reads the charge: units by the name of the limit. If the field is missing, the charge is nil, which means the default
// charge. An empty object means no charge.
func (r *reader) charge(name string) authz.Charge {
	v := r.get(name)
	if v == nil {
		return nil
	}
	o, ok := v.(ast.Object)
	if !ok {
		r.wrong(name, "an object", v)
		return nil
	}
	out := make(authz.Charge, o.Len())
	o.Foreach(func(k, v *ast.Term) {
		limit, isText := k.Value.(ast.String)
		number, isNumber := v.Value.(ast.Number)
		if !isText || !isNumber {
			r.fail("%s must map names to numbers, not %s to %s", name, ast.ValueName(k.Value), ast.ValueName(v.Value))
			return
		}
		units, ok := number.Int64()
		if !ok || units < 0 {
			r.fail("%s of %q is %s, not a whole number from 0", name, string(limit), number)
			return
		}
		out[string(limit)] = units
	})
	return out
}
