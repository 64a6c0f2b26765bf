package extauthz

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// readPath cuts the path into its decoded segments and reads the query's parameters. It uses no URL parser, because
// that would read the admin of //admin as a host. All leading slashes are removed, and escapes are decoded before the cut. A path or a
// query that cannot be decoded is a fault, because a policy must not decide on less than the upstream may read. In the path of a
// check Envoy puts a ! for each byte that is not UTF-8; only the header has the path as the upstream gets it.
func readPath(r *authz.Request) (fault string) {
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
	if !utf8.ValidString(decoded) || !utf8.ValidString(h.Headers.Get(":path")) {
		return "the path is not UTF-8"
	}
	h.Segments = strings.Split(strings.TrimLeft(decoded, "/"), "/")
	if query == "" {
		return ""
	}
	if h.Params, err = url.ParseQuery(query); err != nil {
		return "the query has a malformed escape or a semicolon"
	}
	return ""
}
