package check

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

const headerPath = ":path"

// forwardedPath is the path as the proxy will forward it, byte for byte.
func forwardedPath(h *authz.HTTP) string {
	if h.RawHeaders {
		for i := range h.Headers {
			if h.Headers[i].Name == headerPath {
				return h.Headers[i].Value
			}
		}
	}
	return h.Path
}

// maxAdded is how many bytes a policy may add to a request, in headers and in the query. Envoy answers 500 to a request with
// more than 60 KiB in all.
const maxAdded = 48 << 10

// acceptableToEnvoy returns an error if Envoy would not accept what a verdict does to a request.
func acceptableToEnvoy(h *authz.HTTP, v *authz.Verdict) error {
	if len(v.SetQueryParameters)+len(v.RemoveQueryParameters) > 0 && h != nil && !canRewrite(forwardedPath(h), v.SetQueryParameters, v.RemoveQueryParameters) {
		return errors.New("the policy changes a query with bytes that have to be escaped")
	}
	if len(v.SetQueryParameters) > 0 {
		if size := sizeOf(v.Headers, v.SetQueryParameters); size > maxAdded {
			return fmt.Errorf("the policy adds %d bytes to a request: Envoy would refuse more than %d", size, maxAdded)
		}
	}
	return nil
}

// sizeOf is how many bytes headers and query parameters take on the wire.
func sizeOf(headers authz.Headers, query []authz.Header) (size int) {
	for i := range headers {
		size += len(headers[i].Name) + len(headers[i].Value)
	}
	for i := range query {
		size += len("&=") + len(encoded(query[i].Name)) + len(encoded(query[i].Value))
	}
	return size
}

// canRewrite reports whether the query of a path can be changed like this, by Envoy or by setting the path.
func canRewrite(path string, set []authz.Header, remove []string) bool {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return true
	}
	_, plain := rewritten(path, set, remove)
	return plain
}

// keyParameters are the query parameters that hold the key and must be removed. A parameter that the policy sets is not among
// them.
func keyParameters(out *authz.Answer, c *credentials, f *authz.Facts, opt *Answers) (names []string) {
	if opt.KeepCredentials || !keyIsSecret(f) {
		return nil
	}
	for _, p := range c.places {
		if p.in == "query" && !authz.Headers(out.SetQueryParameters).Has(p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// rewriteQuery removes the key from the query and applies the changes that the policy asks for. Envoy can change queries too,
// but it rewrites the whole query: it sorts parameters, writes "flag=" for "flag", does not see that "%61pi_key" is "api_key",
// and does not escape a "&" in a value. So rewriteQuery leaves the change to Envoy only if the result is the same. Otherwise the
// answer sets the path.
func rewriteQuery(out *authz.Answer, path string, key []string) {
	if len(key)+len(out.SetQueryParameters)+len(out.RemoveQueryParameters) == 0 {
		return
	}
	at := slices.IndexFunc(out.Headers, func(h authz.Header) bool { return h.Name == headerPath })
	if at >= 0 { // the policy sets the path
		path = out.Headers[at].Value
	}
	out.RemoveQueryParameters = append(out.RemoveQueryParameters, key...)
	after, plain := rewritten(path, out.SetQueryParameters, out.RemoveQueryParameters)
	switch {
	case plain && at < 0:
		return
	case at >= 0:
		out.Headers[at].Value = after
	case after != path:
		out.Headers = append(out.Headers, authz.Header{Name: headerPath, Value: after})
	}
	out.SetQueryParameters, out.RemoveQueryParameters = nil, nil
}

// rewritten removes some parameters of a path and sets others, which replace those of the same name. It also returns whether
// Envoy would make the same path, apart from the position of the parameters that are set.
func rewritten(path string, set []authz.Header, remove []string) (_ string, plain bool) {
	base, query, hasQuery := strings.Cut(path, "?")
	if query == "" && len(set) == 0 {
		return path, !hasQuery // Envoy would remove the "?"
	}
	plain = true
	var parts []string
	last := ""
	for part := range strings.SplitSeq(query, "&") {
		raw, _, hasValue := strings.Cut(part, "=")
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
		plain = plain && hasValue && raw >= last
		last = raw
		parts = append(parts, part)
	}
	for i, p := range set {
		// Envoy sets one after the other, and then removes. So the last of several values stays.
		again := slices.ContainsFunc(set[i+1:], func(q authz.Header) bool { return q.Name == p.Name })
		if again || slices.Contains(remove, p.Name) {
			continue
		}
		name, value := encoded(p.Name), encoded(p.Value)
		plain = plain && name == p.Name && value == p.Value && !strings.ContainsAny(name+value, "%~") // Envoy refuses these two
		parts = append(parts, name+"="+value)
	}
	if len(parts) == 0 {
		return base, plain
	}
	return base + "?" + strings.Join(parts, "&"), plain
}

// encoded escapes a text for a query. OPA's Envoy plugin sends texts of a policy as they are, so careful policies encode
// them: an encoded text stays as it is.
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

// isEncoded reports whether a text looks as if it was encoded for a query.
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
