package check

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// This file removes two things from requests that go to the upstream: the key, and headers of the client that a server may take
// for ours, in every spelling. Everything else stays byte for byte, because the caller may have signed it.

// keyIsSecret reports whether the text that was sent as a key is one of our keys, or may be one because the store gives no
// answer. Any other text is forwarded to the upstream.
func keyIsSecret(f *authz.Facts) bool {
	return f.Key.Found() || f.Key.Status == authz.KeyUnavailable
}

// unremovable says why the key cannot be removed without changing other parts of the request, "" if it can. An answer carries
// only UTF-8, and Envoy accepts no control characters in a path.
func (e *evaluation) unremovable() (fault string) {
	if e.opt.Answers.KeepCredentials || !keyIsSecret(&e.facts) {
		return ""
	}
	for _, p := range e.credentials.places {
		switch p.in {
		case "query":
			if !canRewrite(forwardedPath(e.request.HTTP), nil, []string{p.name}) {
				return "the key cannot be taken out of a path with bytes that have to be escaped"
			}
		case "cookie":
			for _, field := range e.request.HTTP.Headers.Values("cookie") {
				if fault := oddCookies(field); fault != "" {
					return fault
				}
			}
		}
	}
	return ""
}

// oddCookies says why a cookie cannot be removed from a field, "" if it can. If a quote is not closed, servers differ in where
// a value ends.
func oddCookies(field string) (fault string) {
	if !utf8.ValidString(field) || strings.ContainsFunc(field, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "the key cannot be taken out of cookies that are not UTF-8"
	}
	for pair := range strings.SplitSeq(field, ";") {
		if strings.Count(pair, `"`)%2 != 0 {
			return "a cookie next to the key has a quote that is not closed"
		}
	}
	return ""
}

// dropCredentials removes the key and the token from the forwarded request, even an expired key on a route that needs no key.
// Headers that the policy sets stay. rewriteQuery removes keys from the query.
func dropCredentials(out *authz.Answer, in authz.Headers, c *credentials, f *authz.Facts, opt *Answers) {
	if keyIsSecret(f) && !opt.KeepCredentials {
		dropKey(out, in, c.places)
	}
	if c.token.Text != "" && f.Token.Known() && !opt.KeepTokens && !out.Headers.Has("authorization") {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, "authorization")
	}
}

func dropKey(out *authz.Answer, in authz.Headers, places []place) {
	var names []string
	for _, p := range places {
		switch p.in {
		case "cookie":
			names = append(names, p.name)
		case "header":
			dropHeader(out, in, p.name)
		}
	}
	if len(names) == 0 || out.Headers.Has("cookie") {
		return
	}
	if rest := withoutCookies(in, names); rest != "" {
		out.Headers = append(out.Headers, authz.Header{Name: "cookie", Value: rest})
	} else {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, "cookie")
	}
}

// dropHeader removes a header under every name that a server may take for it, unless the policy sets it.
func dropHeader(out *authz.Answer, in authz.Headers, name string) {
	if !out.Headers.Has(name) {
		out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, name)
	}
	for _, h := range in {
		if h.Name != name && folds(h.Name, name) && !out.Headers.Has(h.Name) {
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

// dropForgeries removes headers of the client that have our names and are not overwritten. If Envoy does not send us all
// headers, we cannot see all forgeries. So Envoy's configuration must remove them too, before the check.
func dropForgeries(out *authz.Answer, in authz.Headers) {
	for _, h := range in {
		if isOurHeader(h.Name) && !out.Headers.Has(h.Name) {
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
}

func isOurHeader(name string) bool {
	return len(name) >= len(identityPrefix) && folds(name[:len(identityPrefix)], identityPrefix) ||
		folds(name, HeaderReason) || folds(name, HeaderDecision)
}

// folds reports whether a server may confuse a header name with another, which is in lower case. CGI, WSGI, Rack and PHP make
// variables of headers: all turn "-" into an underscore, some also ".", and some every character except letters and digits.
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

// withoutCookies returns the Cookie fields without those cookies, joined to one field. HTTP/2 may have cut one field into
// several.
func withoutCookies(h authz.Headers, names []string) string {
	var fields []string
	for _, field := range h.Values("cookie") {
		var keep []string
		for i, pair := range strings.Split(field, ";") {
			if name, _, ok := cutCookie(pair); ok && slices.Contains(names, name) {
				continue
			}
			if len(keep) == 0 && i > 0 { // the space belonged to the separator before it, which is removed
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
