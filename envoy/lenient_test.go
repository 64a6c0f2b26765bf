package envoy

import (
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// reading is how a server understands a request. Its path begins as it was sent, without the query.
type reading struct {
	method, host, path, query string
	header                    http.Header
	fold                      bool // the server takes capital letters in a path for small ones
}

// lenient are servers that serve more spellings of a path than the plain one: each reads a request by its steps, in their
// order. They are written for these tests, apart from the code that they test.
var lenient = []struct {
	name  string
	steps []func(*reading)
}{
	{"plain", []func(*reading){decode}},
	{"Tomcat", []func(*reading){cutMatrix, decode}},
	{"Spring", []func(*reading){decode, cutMatrix}},
	{"Express", []func(*reading){decode, foldCase}},
	{"Java", []func(*reading){decode, foldLetters}},
	{"IIS", []func(*reading){decodeUnicode, decode, turnBackslashes, cutEndings, foldCase}},
	{"proxied", []func(*reading){decode, decode}},
	{"old UTF-8", []func(*reading){decode, decodeOverlong}},
	{"NFKC", []func(*reading){decode, compose}},
	{"C", []func(*reading){decode, cutAtNUL}},
	{"WHATWG", []func(*reading){dropControls, cutAtHash, decode, turnBackslashes}},
	{"lines", []func(*reading){decode, cutAtLine}},
	{"CGI", []func(*reading){decode, cutAtQuestionMark}},
	{"Rails", []func(*reading){overrideMethod, decode, cutExtension}},
	{"Symfony", []func(*reading){overrideMethod, overrideURL, decode}},
	{"forwarded", []func(*reading){overrideHost, decode}},
	{"all at once", []func(*reading){
		overrideMethod, overrideURL, overrideHost, dropControls, decodeUnicode, decode, decodeOverlong, decode, compose, cutAtNUL, cutAtLine,
		cutAtHash, cutAtQuestionMark, turnBackslashes, cutMatrix, cutEndings, foldLetters, foldCase,
	}},
}

// resources are what is served behind the gateway: each belongs to the route of its name, and the first that fits counts.
var resources = []struct {
	route   string
	path    *regexp.Regexp
	methods string // nothing: all
	host    *regexp.Regexp
}{
	{"read-reports", regexp.MustCompile(`^/v1/reports(/|$)`), "GET", nil},
	{"write-reports", regexp.MustCompile(`^/v1/reports(/|$)`), "", nil},
	{"render", regexp.MustCompile(`^/v1/render$`), "", nil},
	{"order", regexp.MustCompile(`^/v1/orders/[^/]+$`), "", nil},
	{"item", regexp.MustCompile(`^/v1/orders/[^/]+/items/[^/]+$`), "", nil},
	{"pdf", regexp.MustCompile(`^/v1/files/[^/]+\.pdf$`), "", nil},
	{"create", regexp.MustCompile(`^/v1/things$`), "POST", nil},
	{"public", regexp.MustCompile(`^/public(/|$)`), "", nil},
	{"admin", regexp.MustCompile(`^/admin(/|$)`), "", nil},
	{"console-admin", regexp.MustCompile(`^/console(/|$)`), "", regexp.MustCompile(`^admin\.example\.com$`)},
	{"console-tenant", regexp.MustCompile(`^/console(/|$)`), "", regexp.MustCompile(`.\.tenants\.example\.com$`)},
	{"console", regexp.MustCompile(`^/console(/|$)`), "", nil},
	{"grpc", regexp.MustCompile(`^/pkg\.Service/Method$`), "", nil},
}

// servedBy returns the routes of what the lenient servers would serve, by the servers' names. A server that has nothing of
// that name is not in the map.
func servedBy(s harness.Seen) map[string]string {
	out := make(map[string]string)
	for _, server := range lenient {
		r := reading{method: s.Method, host: s.Host, header: s.Headers}
		r.path, r.query, _ = strings.Cut(s.URI, "?")
		if u, ok := strings.CutPrefix(r.path, "http://"); ok {
			host, rest, _ := strings.Cut(u, "/")
			r.host, r.path = host, "/"+rest
		}
		for _, step := range server.steps {
			step(&r)
		}
		if route := r.route(); route != "" {
			out[server.name] = route
		}
	}
	return out
}

func (r *reading) route() string {
	// Merges slashes, resolves dot segments and drops a slash at the end.
	clean := path.Clean("/" + r.path)
	if r.method == http.MethodHead {
		r.method = http.MethodGet
	}
	host, _, _ := strings.Cut(strings.ToLower(r.host), ":")
	host = strings.TrimSuffix(host, ".")
	for _, known := range resources {
		fits := known.path.MatchString(clean)
		if r.fold {
			fits = fits || known.path.MatchString(strings.ToLower(clean)) || known.route == "grpc" && strings.EqualFold(clean, "/pkg.Service/Method")
		}
		if fits && (known.methods == "" || known.methods == r.method) && (known.host == nil || known.host.MatchString(host)) {
			return known.route
		}
	}
	return ""
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// decode replaces escapes, and leaves broken ones.
func decode(r *reading) {
	r.path = escape.ReplaceAllStringFunc(r.path, func(e string) string {
		n, _ := strconv.ParseUint(e[1:], 16, 8)
		return string([]byte{byte(n)})
	})
}

func decodeUnicode(r *reading) {
	r.path = regexp.MustCompile(`%[uU][0-9A-Fa-f]{4}`).ReplaceAllStringFunc(r.path, func(e string) string {
		n, _ := strconv.ParseUint(e[2:], 16, 16)
		return norm.NFKC.String(string(rune(n)))
	})
}

// decodeOverlong reads forms of UTF-8 that are longer than needed, as old decoders did.
func decodeOverlong(r *reading) {
	r.path = strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xc1\x9c", "\\", "\xc0\x80", "\x00").Replace(r.path)
}

// eachSegment changes the segments one by one.
func (r *reading) eachSegment(change func(string) string) {
	segments := strings.Split(r.path, "/")
	for i := range segments {
		segments[i] = change(segments[i])
	}
	r.path = strings.Join(segments, "/")
}

func cutMatrix(r *reading) {
	r.eachSegment(func(s string) string { before, _, _ := strings.Cut(s, ";"); return before })
}

// cutEndings drops what Windows ignores at the end of a file's name.
func cutEndings(r *reading) {
	r.eachSegment(func(s string) string {
		if s == "." || s == ".." {
			return s
		}
		before, _, _ := strings.Cut(s, ":")
		return strings.TrimRight(before, ". ")
	})
}

func cutExtension(r *reading) {
	if ext := path.Ext(r.path); slices.Contains([]string{".json", ".xml", ".html"}, ext) {
		r.path = strings.TrimSuffix(r.path, ext)
	}
}

// foldLetters compares letters as Java's equalsIgnoreCase does: in capital letters, and these in small ones.
func foldLetters(r *reading) {
	foldCase(r)
	r.path = strings.Map(func(c rune) rune { return unicode.ToLower(unicode.ToUpper(c)) }, r.path)
}

func turnBackslashes(r *reading)   { r.path = strings.ReplaceAll(r.path, `\`, "/") }
func foldCase(r *reading)          { r.fold = true }
func compose(r *reading)           { r.path = norm.NFKC.String(r.path) }
func cutAtNUL(r *reading)          { r.path, _, _ = strings.Cut(r.path, "\x00") }
func cutAtLine(r *reading)         { r.path = regexp.MustCompile(`[\r\n][\s\S]*`).ReplaceAllString(r.path, "") }
func cutAtHash(r *reading)         { r.path, _, _ = strings.Cut(r.path, "#") }
func cutAtQuestionMark(r *reading) { r.path, _, _ = strings.Cut(r.path, "?") }

// dropControls does what the URL standard of browsers does with tabs and line breaks in a path, and with blanks at its end.
func dropControls(r *reading) {
	plain := regexp.MustCompile(`(?i)%0[9ad]|[\t\r\n]`).ReplaceAllString(r.path, "")
	r.path = regexp.MustCompile(`(%20| )+$`).ReplaceAllString(plain, "")
}

// overrideMethod takes the method from a header or a parameter, and reads it in any case.
func overrideMethod(r *reading) {
	for _, name := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		if m := r.header.Get(name); m != "" {
			r.method = m
		}
	}
	for name, values := range parameters(r.query) {
		if strings.EqualFold(name, "_method") && values[0] != "" { // also _METHOD, as Slim has it
			r.method = values[0]
		}
	}
	r.method = strings.ToUpper(r.method)
}

// parameters reads a query whose parameters may end in semicolons too, as older servers do.
func parameters(query string) url.Values {
	values, _ := url.ParseQuery(strings.ReplaceAll(query, ";", "&"))
	return values
}

func overrideHost(r *reading) {
	if host := r.header.Get("X-Forwarded-Host"); host != "" {
		r.host = host
	}
}

func overrideURL(r *reading) {
	for _, name := range []string{"X-Rewrite-Url", "X-Original-Url"} {
		if u := r.header.Get(name); u != "" {
			r.path, _, _ = strings.Cut(u, "?")
		}
	}
}
