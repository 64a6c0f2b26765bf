package check

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// What must not reach the upstream: the key, in the spelling in which it came, and headers in our name, in every spelling
// that a server may take for ours. Everything beside them stays byte for byte, for the caller may have signed it.

// unmovable says why the key cannot be taken out of the request without a change to what stands beside it, "" if it can:
// an answer carries only texts in UTF-8, and Envoy accepts no control characters in a path.
func (a *attempt) unmovable() string {
	if a.opt.Answers.KeepCredentials || !a.isSecret() {
		return ""
	}
	for _, p := range a.credentials.places {
		switch p.in {
		case "query":
			if !a.canRewrite(nil, []string{p.name}) {
				return "the key cannot be taken out of a path with bytes that have to be escaped"
			}
		case "cookie":
			for _, field := range a.request.HTTP.Headers.Values("cookie") {
				if fault := oddCookies(field); fault != "" {
					return fault
				}
			}
		}
	}
	return ""
}

// isSecret reports whether what came as a key is somebody's, or may be while the store cannot say. Text that is nobody's key
// is the upstream's business.
func (a *attempt) isSecret() bool {
	return a.facts.Key.Found() || a.facts.Key.Status == authz.KeyUnavailable
}

// canRewrite reports whether the query can be changed like this, in Envoy's way or by setting the path.
func (a *attempt) canRewrite(set []authz.Header, remove []string) bool {
	path := a.path()
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return true
	}
	_, plain := rewritten(path, set, remove)
	return plain
}

// oddCookies says why a cookie cannot be taken out of a field, "" if it can. With a quote that is not closed, servers
// differ in where a value ends.
func oddCookies(field string) string {
	if !utf8.ValidString(field) || strings.ContainsFunc(field, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "the key cannot be taken out of cookies that are not UTF-8"
	}
	for pair := range strings.SplitSeq(field, ";") {
		if strings.Count(pair, `"`)%2 != 0 {
			return "the key stands among cookies with a quote that is not closed"
		}
	}
	return ""
}

// path is the path as it will be forwarded, byte for byte.
func (a *attempt) path() string {
	h := a.request.HTTP
	if h.RawHeaders {
		for i := range h.Headers {
			if h.Headers[i].Name == headerPath {
				return h.Headers[i].Value
			}
		}
	}
	return h.Path
}

// dropCredential keeps the key from the upstream, unless the policy put something of its own in its place. The query is
// left to rewriteQuery.
func (a *attempt) dropCredential(out *authz.Answer) {
	if a.opt.Answers.KeepCredentials {
		return
	}
	var cookies []string
	for _, p := range a.credentials.places {
		switch p.in {
		case "cookie":
			cookies = append(cookies, p.name)
		case "header":
			a.dropHeader(out, p.name)
		}
	}
	if len(cookies) == 0 || out.Headers.Has("cookie") {
		return
	}
	if rest := withoutCookies(a.request.HTTP.Headers, cookies); rest != "" {
		out.Headers = append(out.Headers, authz.Header{Name: "cookie", Value: rest})
	} else {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, "cookie")
	}
}

// dropHeader removes a header under every name that is the same to some server, but for what the policy sets itself.
func (a *attempt) dropHeader(out *authz.Answer, name string) {
	if !out.Headers.Has(name) {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, name)
	}
	for _, h := range a.request.HTTP.Headers {
		if h.Name != name && folds(h.Name, name) && !out.Headers.Has(h.Name) {
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

// dropForgeries removes headers in our name that the client sent and that are not overwritten. Where Envoy is told not to
// show us all headers we cannot see them all, which is why its configuration removes them before anybody looks.
func (a *attempt) dropForgeries(out *authz.Answer) {
	if a.request.HTTP == nil {
		return
	}
	for _, h := range a.request.HTTP.Headers {
		if inOurName(h.Name) && !out.Headers.Has(h.Name) {
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

func inOurName(name string) bool {
	return len(name) >= len(identityPrefix) && folds(name[:len(identityPrefix)], identityPrefix) ||
		folds(name, HeaderReason) || folds(name, HeaderDecision)
}

// folds reports whether a name may be taken for another, which is in lower case, by a server that hands headers on as
// variables: CGI, WSGI, Rack and PHP make an underscore of "-", some of "." too, and some of everything that is neither a
// letter nor a digit.
func folds(name, other string) bool {
	if len(name) != len(other) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c != other[i] && (isAlnum(c) || isAlnum(other[i])) {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
}

// withoutCookies returns the Cookie fields, as one, without those cookies. HTTP/2 may have cut one field into several.
func withoutCookies(h authz.Headers, names []string) string {
	var fields []string
	for _, field := range h.Values("cookie") {
		var keep []string
		for i, pair := range strings.Split(field, ";") {
			if name, _, ok := cutCookie(pair); ok && slices.Contains(names, name) {
				continue
			}
			if len(keep) == 0 && i > 0 { // the space belonged to the separator that is gone
				pair = strings.TrimLeft(pair, " ")
			}
			keep = append(keep, pair)
		}
		if rest := strings.Join(keep, ";"); strings.Trim(rest, " ;") != "" {
			fields = append(fields, rest)
		}
	}
	return strings.Join(fields, "; ")
}

const headerPath = ":path"

// rewriteQuery takes the key out of the query and does to it what the policy asks for. Envoy's own way would write the whole
// query anew: sorted, with "flag=" for "flag", blind to "%61pi_key", and with values as they are, a "&" in them included.
// So it is taken only where nothing of that shows; else the answer sets the path.
func (a *attempt) rewriteQuery(out *authz.Answer) {
	var key []string
	if !a.opt.Answers.KeepCredentials && a.isSecret() {
		for _, p := range a.credentials.places {
			if p.in == "query" && !authz.Headers(out.SetQueryParameters).Has(p.name) { // else the policy puts its own there
				key = append(key, p.name)
			}
		}
	}
	if len(key)+len(out.SetQueryParameters)+len(out.RemoveQueryParameters) == 0 || a.request.HTTP == nil {
		return
	}
	at := slices.IndexFunc(out.Headers, func(h authz.Header) bool { return h.Name == headerPath })
	before := a.path()
	if at >= 0 { // the policy's own
		before = out.Headers[at].Value
	}
	out.RemoveQueryParameters = append(out.RemoveQueryParameters, key...)
	after, plain := rewritten(before, out.SetQueryParameters, out.RemoveQueryParameters)
	switch {
	case plain && at < 0:
		return
	case at >= 0:
		out.Headers[at].Value = after
	case after != before:
		out.Headers = append(out.Headers, authz.Header{Name: headerPath, Value: after})
	}
	out.SetQueryParameters, out.RemoveQueryParameters = nil, nil
}

// rewritten is a path without those parameters and with others in place of any of the same name, and whether Envoy would
// come to the same, but for the place of what is set.
func rewritten(path string, set []authz.Header, remove []string) (_ string, plain bool) {
	base, query, asked := strings.Cut(path, "?")
	if query == "" && len(set) == 0 {
		return path, !asked // Envoy would take the "?" away
	}
	plain = true
	var parts []string
	last := ""
	for part := range strings.SplitSeq(query, "&") {
		raw, _, valued := strings.Cut(part, "=")
		name, err := url.QueryUnescape(raw)
		if err != nil {
			name = raw
		}
		if slices.Contains(remove, name) || slices.ContainsFunc(set, func(p authz.Header) bool { return p.Name == name }) {
			plain = plain && raw == name
			continue
		}
		if query == "" {
			break
		}
		plain = plain && valued && raw >= last
		last = raw
		parts = append(parts, part)
	}
	for i, p := range set {
		// Envoy sets one after the other, and then removes: of several values the last one stays.
		again := slices.ContainsFunc(set[i+1:], func(q authz.Header) bool { return q.Name == p.Name })
		if again || slices.Contains(remove, p.Name) {
			continue
		}
		name, value := encoded(p.Name), encoded(p.Value)
		plain = plain && name == p.Name && value == p.Value && !strings.ContainsAny(name+value, "%~") // which Envoy refuses
		parts = append(parts, name+"="+value)
	}
	if len(parts) == 0 {
		return base, plain
	}
	return base + "?" + strings.Join(parts, "&"), plain
}

// maxAdded is how many bytes a policy may add to a request, in headers and in the query. With more than 60 KiB in all Envoy
// answers 500.
const maxAdded = 48 << 10

// sizeOf is how many bytes headers and query parameters take, as they are sent.
func sizeOf(headers authz.Headers, query []authz.Header) (size int) {
	for i := range headers {
		size += len(headers[i].Name) + len(headers[i].Value)
	}
	for i := range query {
		size += len("&=") + len(encoded(query[i].Name)) + len(encoded(query[i].Value))
	}
	return size
}

// encoded is a text as it stands in a query. OPA's Envoy plugin sends what a policy says as it is, so careful policies encode
// it themselves: a text that is encoded already stays.
func encoded(s string) string {
	if isEncoded(s) {
		return strings.ReplaceAll(s, "+", "%20")
	}
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; isAlnum(c) || strings.IndexByte("*-._", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + hexDigits[c>>4:c>>4+1] + hexDigits[c&15:c&15+1])
		}
	}
	return b.String()
}

// isEncoded reports whether a text is what an encoder of query parameters makes of some other.
func isEncoded(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlnum(c) || strings.IndexByte("*-._~+", c) >= 0:
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
