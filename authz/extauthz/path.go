package extauthz

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// readPath cuts the path into its decoded segments and reads the query's parameters. The path is not a URL, and is not
// parsed as one: in //admin, a URL parser would take admin for a host. All leading slashes go, escapes are decoded
// before the cut. What cannot be decoded, in the path or in the query, is a fault: a policy must not decide on less than
// the upstream may read.
func readPath(r *authz.Request) string {
	h := r.HTTP
	if h == nil {
		return ""
	}
	if strings.Contains(h.Path, "#") {
		return "the path has a fragment"
	}
	path, query, _ := strings.Cut(h.Path, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "the path has a malformed escape"
	}
	if !utf8.ValidString(decoded) {
		return "the path is not UTF-8"
	}
	h.Segments = split(h.Segments[:0], strings.TrimLeft(decoded, "/"))
	if query == "" {
		return ""
	}
	if h.Params, err = url.ParseQuery(query); err != nil {
		return "the query has a malformed escape or a semicolon"
	}
	return ""
}

// split cuts a path at its slashes, into memory that is there.
func split(out []string, path string) []string {
	for {
		segment, rest, more := strings.Cut(path, "/")
		out = append(out, segment)
		if !more {
			return out
		}
		path = rest
	}
}
