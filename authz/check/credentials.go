package check

import (
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Sources are the places in a request where a key may stand.
type Sources struct {
	Headers []string // names in lower case
	Bearer  bool     // Authorization: Bearer
	Query   []string // parameter names
	Cookies []string // cookie names
}

// place is where one key stood.
type place struct {
	in   string // "header", "query" or "cookie"
	name string
}

// credential is what a request carries to say who sent it.
type credentials struct {
	text      string // the key
	bearer    string // what came by the bearer scheme: a key or a token, see attempt.tellBearer
	token     string // the bearer token
	shown     authz.Bearer
	ambiguous bool
	places    []place // of the key
	room      [1]place
}

// find reads the key from every source, and what came by the bearer scheme. Two places may hold the same key; two that
// differ, or one source that was sent twice, cannot be told apart from an attempt to be charged as one caller and served as
// another.
func (s *Sources) find(c *credentials, r *authz.Request, tokens Tokens) {
	if r.HTTP == nil {
		return
	}
	for _, name := range s.Headers {
		switch r.HTTP.Headers.Count(name) {
		case 0:
		case 1:
			c.add(place{"header", name}, r.HTTP.Headers.Get(name))
		default:
			c.ambiguous = true
		}
	}
	if n := r.HTTP.Headers.Count("authorization"); n > 0 && (s.Bearer || tokens != nil) {
		c.addBearer(r.HTTP.Headers.Values("authorization"))
	}
	for _, name := range s.Query {
		c.addOnly(place{"query", name}, r.HTTP.Params[name])
	}
	for _, name := range s.Cookies {
		c.addOnly(place{"cookie", name}, cookies(r.HTTP.Headers, name))
	}
}

// Put puts a key into a request, in the first place in which one is looked for. It reports whether there is one.
func (s *Sources) Put(r *authz.Request, text string) bool {
	h := r.HTTP
	switch {
	case h == nil:
		return false
	case len(s.Headers) > 0:
		h.Headers = append(h.Headers, authz.Header{Name: s.Headers[0], Value: text})
	case s.Bearer:
		h.Headers = append(h.Headers, authz.Header{Name: "authorization", Value: "Bearer " + text})
	case len(s.Cookies) > 0:
		h.Headers = append(h.Headers, authz.Header{Name: "cookie", Value: s.Cookies[0] + "=" + text})
	case len(s.Query) > 0:
		if h.Params == nil {
			h.Params = make(map[string][]string)
		}
		h.Params[s.Query[0]] = append(h.Params[s.Query[0]], text)
	default:
		return false
	}
	return true
}

// addOnly takes the values of one source, of which there has to be one only.
func (c *credentials) addOnly(from place, values []string) {
	switch len(values) {
	case 0:
	case 1:
		c.add(from, values[0])
	default:
		c.ambiguous = true
	}
}

// add takes the value of one source. A comma is what proxies join repeated headers with.
func (c *credentials) add(from place, value string) {
	text := strings.Trim(value, " \t")
	if strings.Contains(text, ",") {
		c.ambiguous = true
		return
	}
	if text == "" {
		return
	}
	if c.text != "" && c.text != text {
		c.ambiguous = true
	}
	c.text = text
	if c.places == nil {
		c.places = c.room[:0]
	}
	c.places = append(c.places, from)
}

const bearer = "bearer "

// addBearer takes the key or the token of an Authorization field (RFC 6750 section 2.1). Other schemes are the upstream's
// business. Envoy joins a repeated Authorization with a comma, so a comma beside a bearer scheme is two credentials.
func (c *credentials) addBearer(values []string) {
	for _, v := range values {
		lower := strings.ToLower(v)
		if !strings.Contains(lower, bearer) {
			continue
		}
		if len(values) > 1 || strings.Contains(lower, ",") {
			c.ambiguous = true
			continue
		}
		if !strings.HasPrefix(lower, bearer) {
			continue
		}
		c.bearer = strings.Trim(v[len(bearer):], " \t")
	}
}

// cookies returns the values of a cookie in every Cookie field (RFC 6265 section 4.2.1); HTTP/2 may send several.
func cookies(h authz.Headers, name string) []string {
	var out []string
	for _, field := range h.Values("cookie") {
		for pair := range strings.SplitSeq(field, ";") {
			if n, v, ok := cutCookie(pair); ok && n == name {
				out = append(out, strings.Trim(v, `"`))
			}
		}
	}
	return out
}

// cutCookie cuts a pair at its first "=", without the spaces around the name and the value that servers leave out.
func cutCookie(pair string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(pair, "=")
	return strings.Trim(name, " \t"), strings.Trim(value, " \t"), ok
}
