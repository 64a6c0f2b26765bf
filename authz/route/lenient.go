package route

import (
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// A server may be more lenient than this package and read a request in another way. Where that leads to the same route, nothing is
// lost. Where it leads to another one, the path is ambiguous: the caller could choose the rule that is applied. All lists below
// are of readings that servers and frameworks in use have.

// Headers that replace the method or the path, and the parameters of the query that replace the method.
const (
	methodOverride1 = "x-http-method-override"
	methodOverride2 = "x-method-override"
	methodOverride3 = "x-http-method"
	urlOverride1    = "x-original-url"
	urlOverride2    = "x-rewrite-url"
	methodParam1    = "_method"
	methodParam2    = "_METHOD"

	// maxClaims is the number of methods, and of URLs, that a request may claim. Every method is tried with every URL, and honest
	// requests claim one.
	maxClaims = 4
)

// claims are the methods and URLs of a request besides those that it was sent with.
type claims struct {
	methods, urls list
	tooMany       authz.PathFault // "" if there is room for all
}

// list has its room inside, so that a check does not allocate.
type list struct {
	texts [maxClaims]string
	n     int
}

func (l *list) all() []string { return l.texts[:l.n] }

func (c *claims) collect(h *authz.HTTP) {
	c.method(h, h.Method)
	if h.Params != nil {
		for _, v := range h.Params[methodParam1] {
			c.method(h, v)
		}
		for _, v := range h.Params[methodParam2] {
			c.method(h, v)
		}
	}
	for i := range h.Headers {
		switch overrides(h.Headers[i].Name) {
		case authz.PathMethodOverride:
			c.method(h, h.Headers[i].Value)
		case authz.PathURLOverride:
			if url := strings.TrimSpace(h.Headers[i].Value); url != "" {
				c.add(&c.urls, url, authz.PathURLOverride)
			}
		}
	}
}

// overrides returns the fault of a header that replaces the method or the path, "" for other headers.
func overrides(name string) authz.PathFault {
	switch len(name) {
	case len(methodOverride1):
		if sameName(name, methodOverride1) {
			return authz.PathMethodOverride
		}
	case len(methodOverride2):
		if sameName(name, methodOverride2) {
			return authz.PathMethodOverride
		}
	case len(methodOverride3), len(urlOverride1):
		switch {
		case sameName(name, methodOverride3):
			return authz.PathMethodOverride
		case sameName(name, urlOverride1), sameName(name, urlOverride2):
			return authz.PathURLOverride
		}
	}
	return ""
}

// sameName reports whether servers may take a lower-case name for the known one. CGI and its successors turn every byte that is
// neither a letter nor a digit into one and the same.
func sameName(name, known string) bool {
	if len(name) != len(known) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		isPlain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if c != known[i] && (isPlain || known[i] != '-') {
			return false
		}
	}
	return true
}

// method adds a method in capital letters, in which some frameworks read it, unless the request was sent with it.
func (c *claims) method(h *authz.HTTP, method string) {
	if method = strings.ToUpper(strings.TrimSpace(method)); method != "" && method != h.Method {
		c.add(&c.methods, method, authz.PathMethodOverride)
	}
}

func (c *claims) add(l *list, text string, fault authz.PathFault) {
	if l.n == maxClaims {
		c.tooMany = fault
		return
	}
	l.texts[l.n] = text
	l.n++
}

// faultOfMethod is the fault of a claimed method that leads to another route.
func faultOfMethod(h *authz.HTTP, claimed string) authz.PathFault {
	if claimed == strings.ToUpper(h.Method) {
		return authz.PathMethodCase
	}
	return authz.PathMethodOverride
}

// otherwise returns the fault of a reading of the request that leads to another route than the one with this number, "" if there
// is none.
func (t *Table) otherwise(number int, h *authz.HTTP, host string, segments []string, found odd) authz.PathFault {
	if found != 0 {
		if fault := t.otherPath(number, h.Method, host, segments, found); fault != "" {
			return fault
		}
	}
	var c claims
	c.collect(h)
	if !t.byMethod {
		c.methods.n = 0
	}
	if c.tooMany != "" {
		return c.tooMany
	}
	differs := func(method string, segments []string, found odd) bool {
		return t.tree.find(host, method, segments) != number || found != 0 && t.otherPath(number, method, host, segments, found) != ""
	}
	for _, method := range c.methods.all() {
		if differs(method, segments, found) {
			return faultOfMethod(h, method)
		}
	}
	for _, url := range c.urls.all() {
		segments, found, fault := t.paths.read(pathOf(url), nil)
		if fault != "" || differs(h.Method, segments, found) || slices.ContainsFunc(c.methods.all(), func(m string) bool { return differs(m, segments, found) }) {
			return authz.PathURLOverride
		}
	}
	return ""
}

// chosenOtherwise returns the fault of a claim that the proxy, which chose the route, did not see: it could have chosen another one.
func (t *Table) chosenOtherwise(h *authz.HTTP, segments []string) authz.PathFault {
	var c claims
	c.collect(h)
	if c.methods.n > 0 {
		return faultOfMethod(h, c.methods.texts[0])
	}
	if c.tooMany != "" {
		return c.tooMany
	}
	for _, url := range c.urls.all() {
		path, _, fault := t.paths.read(pathOf(url), nil)
		if fault != "" || !slices.Equal(t.paths.foldAll(path), t.paths.foldAll(segments)) {
			return authz.PathURLOverride
		}
	}
	return ""
}

// otherPath tries all combinations of the ways in which a server may read a path beyond its settings.
func (t *Table) otherPath(number int, method, host string, segments []string, found odd) authz.PathFault {
	for ways := odd(1); ways <= found; ways++ {
		if ways&found != ways {
			continue
		}
		var b strings.Builder
		for _, text := range segments {
			text = reread(text, ways)
			cut := strings.IndexAny(text, "?#")
			if ways&oddMark != 0 && cut >= 0 {
				b.WriteString("/" + t.escape(text[:cut]))
				break
			}
			b.WriteString("/" + t.escape(text))
		}
		path, _, fault := t.paths.read(b.String(), nil)
		if fault == "" && t.tree.find(host, method, path) == number {
			continue
		}
		return faultOfWays(ways)
	}
	return ""
}

// faultOfWays names the first of the ways that took part.
func faultOfWays(ways odd) authz.PathFault {
	switch {
	case ways&oddEncoded != 0:
		return authz.PathDoubleEncoded
	case ways&oddUnicode != 0:
		return authz.PathCompatible
	case ways&oddEnding != 0:
		return authz.PathLooseEnding
	}
	return authz.PathCutShort
}

// reread reads a decoded segment in some of the ways.
func reread(text string, ways odd) string {
	if ways&oddEncoded != 0 {
		text = unescapeAll(text)
	}
	if ways&oddUnicode != 0 {
		text = norm.NFKC.String(text)
	}
	if ways&oddEnding != 0 {
		text = cutEnding(text)
	}
	return text
}

// escape protects what would be decoded again. A slash that a reading brings about cuts the path, unless encoded slashes are kept.
func (t *Table) escape(text string) string {
	text = escapePath(text)
	if t.paths.keepEncodedSlash {
		text = strings.ReplaceAll(text, "/", "%2f")
	}
	return text
}

// pathOf is the path of a URL, or of a path with a query.
func pathOf(url string) string {
	_, rest, found := strings.Cut(url, "://")
	if !found {
		return url
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return "/"
}
