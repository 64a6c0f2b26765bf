package route

import (
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// A server may be more lenient than this package and read a request in another way. Where that leads to the same route, nothing is
// lost. Where it leads to another one, the path is ambiguous: the caller could choose the rule that is applied. All lists below
// are of readings that servers and frameworks in use have.

// Headers that replace the method or the path, and a query parameter that replaces the method.
const (
	methodOverride1 = "x-http-method-override"
	methodOverride2 = "x-method-override"
	methodOverride3 = "x-http-method"
	urlOverride1    = "x-original-url"
	urlOverride2    = "x-rewrite-url"

	methodParam = "_method"
)

// otherwise returns the fault of a reading of the request that leads to another route than the one with this number, "" if there
// is none.
func (t *Table) otherwise(number int, h *authz.HTTP, host string, segments []string, found odd) authz.PathFault {
	if found != 0 {
		if fault := t.otherPath(number, h.Method, host, segments, found); fault != "" {
			return fault
		}
	}
	differs := func(method string) bool { return method != h.Method && t.tree.find(host, method, segments) != number }
	if t.byMethod {
		if differs(strings.ToUpper(h.Method)) {
			return authz.PathMethodCase
		}
		for _, v := range h.Params[methodParam] {
			if differs(strings.ToUpper(v)) {
				return authz.PathMethodOverride
			}
		}
	}
	for i := range h.Headers {
		switch name, value := h.Headers[i].Name, h.Headers[i].Value; name {
		case methodOverride1, methodOverride2, methodOverride3:
			if value != "" && t.byMethod && differs(strings.ToUpper(strings.TrimSpace(value))) {
				return authz.PathMethodOverride
			}
		case urlOverride1, urlOverride2:
			if value != "" && t.otherURL(number, h.Method, host, value) {
				return authz.PathURLOverride
			}
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
			b.WriteString("/" + t.escape(reread(text, ways)))
		}
		path, _, fault := t.paths.read(b.String(), nil)
		if fault == "" && t.tree.find(host, method, path) == number {
			continue
		}
		switch {
		case ways&oddEncoded != 0:
			return authz.PathDoubleEncoded
		case ways&oddEnding != 0:
			return authz.PathLooseEnding
		}
		return authz.PathCompatible
	}
	return ""
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
	text = strings.ReplaceAll(strings.ReplaceAll(text, "%", "%25"), "?", "%3f")
	if t.paths.keepEncodedSlash {
		text = strings.ReplaceAll(text, "/", "%2f")
	}
	return text
}

// otherURL reports whether a URL leads to another route, or cannot be read.
func (t *Table) otherURL(number int, method, host, url string) bool {
	if _, rest, found := strings.Cut(url, "://"); found {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			url = rest[i:]
		} else {
			url = "/"
		}
	}
	path, _, fault := t.paths.read(strings.TrimSpace(url), nil)
	return fault != "" || t.tree.find(host, method, path) != number
}
