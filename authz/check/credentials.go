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

// place is where a key was found.
type place struct {
	in   string // "header", "query" or "cookie"
	name string
}

// credentials are what a request carries to say who sent it.
type credentials struct {
	key       string
	places    []place      // of the key
	bearer    string       // what came by the bearer scheme: a key or a token, see evaluation.classifyBearer
	token     authz.Bearer // its text is "" if there is no token
	ambiguous bool
	room      [1]place // memory for places
}

// find reads the key from every source, and the bearer credential. The same key may be in two places. Two different
// keys, or one source that was sent twice, are ambiguous: the caller may want to be charged as one customer and served as
// another.
func (s *Sources) find(c *credentials, r *authz.Request, tokens bool) {
	if r.HTTP == nil {
		return
	}
	for _, name := range s.Headers {
		switch r.HTTP.Headers.Count(name) {
		case 0:
		case 1:
			c.addKey(place{"header", name}, r.HTTP.Headers.Get(name))
		default:
			c.ambiguous = true
		}
	}
	if n := r.HTTP.Headers.Count("authorization"); n > 0 && (s.Bearer || tokens) {
		c.addBearer(r.HTTP.Headers.Values("authorization"))
	}
	for _, name := range s.Query {
		c.addOnlyKey(place{"query", name}, r.HTTP.Params[name])
	}
	for _, name := range s.Cookies {
		c.addOnlyKey(place{"cookie", name}, cookies(r.HTTP.Headers, name))
	}
}

// Put puts a key into a request, in the first place where find looks for one. It reports whether there is such a place.
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

// addOnlyKey adds the value of a source. More than one value is ambiguous.
func (c *credentials) addOnlyKey(from place, values []string) {
	switch len(values) {
	case 0:
	case 1:
		c.addKey(from, values[0])
	default:
		c.ambiguous = true
	}
}

// addKey adds the value of one source. A comma in it means that a proxy has joined repeated headers.
func (c *credentials) addKey(from place, value string) {
	text := strings.Trim(value, " \t")
	if strings.Contains(text, ",") {
		c.ambiguous = true
		return
	}
	if text == "" {
		return
	}
	if c.key != "" && c.key != text {
		c.ambiguous = true
	}
	c.key = text
	if c.places == nil {
		c.places = c.room[:0]
	}
	c.places = append(c.places, from)
}

const bearerScheme = "bearer "

// addBearer takes the key or the token of an Authorization field (RFC 6750 section 2.1). Other schemes are left to the
// upstream. Envoy joins a repeated Authorization with a comma, so a comma in a bearer credential means two credentials.
func (c *credentials) addBearer(values []string) {
	for _, v := range values {
		lower := strings.ToLower(v)
		if !strings.Contains(lower, bearerScheme) {
			continue
		}
		if len(values) > 1 || strings.Contains(lower, ",") {
			c.ambiguous = true
			continue
		}
		if strings.HasPrefix(lower, bearerScheme) {
			c.bearer = strings.Trim(v[len(bearerScheme):], " \t")
		}
	}
}

// cookies returns the values of a cookie in all Cookie fields (RFC 6265 section 4.2.1). HTTP/2 may send several fields.
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

// cutCookie cuts a pair at its first "=" and removes the spaces around the name and the value, as servers do.
func cutCookie(pair string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(pair, "=")
	return strings.Trim(name, " \t"), strings.Trim(value, " \t"), ok
}
