package route

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FuzzMatch compares the tree with a slow reference: a regular expression for each route, and a comparison of all that match.
func FuzzMatch(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := draw{rand.New(rand.NewPCG(seed, 7))}
		table, lines := d.table(t)
		if len(lines) == 0 {
			return
		}
		for range 50 {
			line := d.pick("GET", "POST", "HEAD", "PUT") + " http://" + d.pick("x.org", "a.x.org", "b.a.x.org", "y.org") + d.path()
			got := regexp.MustCompile(` p\d=.*`).ReplaceAllString(answer(table, request(line)), "")
			if want := reference(lines, line); got != want {
				t.Fatalf("%s: %q, want %q\n%s", line, got, want, strings.Join(lines, "\n"))
			}
		}
	})
}

type draw struct{ *rand.Rand }

func (d draw) pick(list ...string) string { return list[d.IntN(len(list))] }

// table draws lines for tableOf until a table without faults is left.
func (d draw) table(t *testing.T) (*Table, []string) {
	var lines []string
	for range 1 + d.IntN(12) {
		line := d.pick("", "", "GET ", "POST ", "GET,POST ", "HEAD ") + d.pick("", "", "", "x.org ", "*.x.org ", "a.x.org ", "*.a.x.org ", "a.x.org,y.org ") + d.template()
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for {
		table, faults := Parse(specOf(t, fileOf("", lines...)))
		if len(faults) == 0 {
			return table, lines
		}
		i := faults[0].At[1].(int)
		lines = slices.Delete(lines, i, i+1)
	}
}

func (d draw) template() string {
	var b strings.Builder
	for i := range d.IntN(4) {
		b.WriteString("/" + d.pick("a", "b", "ab", "*", fmt.Sprintf("{p%d}", i), fmt.Sprintf("a{p%d}", i), fmt.Sprintf("{p%d}b", i), fmt.Sprintf("a{p%d}b", i)))
	}
	if b.Len() == 0 || d.IntN(3) == 0 {
		b.WriteString(d.pick("/**", "/a", "/**"))
	}
	return b.String()
}

func (d draw) path() string {
	var b strings.Builder
	for range d.IntN(5) {
		b.WriteString("/" + d.pick("a", "b", "ab", "aab", "abb", "c", "A", "aCb", "AB"))
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// reference finds the line that applies: the one that matches and is narrower than all others that match.
func reference(lines []string, request string) string {
	method, url, _ := strings.Cut(request, " http://")
	i := strings.IndexByte(url, '/')
	host, path := url[:i], strings.ToLower(url[i:])
	var matching []*entry
	for _, line := range lines {
		e := &entry{route: &authz.Route{Name: line}}
		for _, word := range strings.Fields(line) {
			switch {
			case strings.HasPrefix(word, "/"):
				e.pattern, _ = parsePattern(word)
			case strings.ToUpper(word) == word:
				e.methods = strings.Split(word, ",")
			default:
				e.hosts = strings.Split(word, ",")
			}
		}
		if slices.Contains(e.methods, "GET") && !headNamed(lines, line) {
			e.methods = append(e.methods, "HEAD")
		}
		if (e.methods == nil || slices.Contains(e.methods, method)) && hostFits(e.hosts, host) && expression(line).MatchString(path) {
			matching = append(matching, e)
		}
	}
	for _, e := range matching {
		if !slices.ContainsFunc(matching, func(o *entry) bool { return !e.within(o) }) {
			return e.route.Name
		}
	}
	if len(matching) > 0 {
		return "undecided"
	}
	return "-"
}

// headNamed reports whether another line for the same hosts and path names HEAD.
func headNamed(lines []string, line string) bool {
	bare := func(l string) string { return regexp.MustCompile(`^[A-Z,]+ `).ReplaceAllString(l, "") }
	return slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "HEAD") && bare(l) == bare(line) })
}

func hostFits(list []string, host string) bool {
	return list == nil || slices.ContainsFunc(list, func(h string) bool {
		return h == host || h[0] == '*' && strings.HasSuffix(host, h[1:])
	})
}

// expression is the regular expression of a line's template.
func expression(line string) *regexp.Regexp {
	template := line[strings.IndexByte(line, '/'):]
	x := regexp.MustCompile(`\{[^}]*\}|\*\*|\*`).ReplaceAllStringFunc(template, func(s string) string {
		if s == "**" {
			return "\x00"
		}
		return `[^/]+`
	})
	x = strings.ReplaceAll(x, "/\x00", `(/.*)?`)
	return regexp.MustCompile("^" + x + "/?$")
}

// FuzzSpellings: two spellings of a path that some lenient server serves alike never get different routes. One of them may be
// refused.
func FuzzSpellings(f *testing.F) {
	for seed := range uint64(2000) {
		f.Add(seed, "/v1/reports/7", "")
	}
	for _, s := range []string{"/v1/re%2570orts/7", "/v1/..;/admin", "/v1;x/reports", "//admin", "/public/%2e%2e/admin", "/admin%20", "/ADMIN/.", "/v1/ｒender", "/public/..%5cadmin"} {
		f.Add(uint64(0), "/admin/x", s)
	}
	table := tableOf(f, "", append(shop, "/admin", "/v1/orders")...)
	f.Fuzz(func(t *testing.T, seed uint64, plain, other string) {
		d := draw{rand.New(rand.NewPCG(seed, 9))}
		if seed > 0 {
			plain = "/" + strings.Join([]string{d.pick("v1", "public", "admin", "v2"), d.pick("reports", "render", "orders", "x"), d.pick("7", "x", "items")}[:1+d.IntN(3)], "/")
			other = d.spell(plain)
		}
		a, b := answer(table, request("GET "+plain)), answer(table, request("GET "+other))
		if refused(a) || refused(b) {
			return
		}
		name := func(s string) string { n, _, _ := strings.Cut(s, " id="); return n }
		if name(a) == name(b) {
			return
		}
		for server, serves := range lenient {
			if x, y := serves(plain), serves(other); x == y && x != "" {
				t.Fatalf("%s serves %q and %q alike (%s), but their routes are %q and %q", server, plain, other, x, a, b)
			}
		}
	})
}

func refused(answer string) bool {
	return strings.HasPrefix(answer, "malformed") || strings.HasPrefix(answer, "ambiguous")
}

// spell writes a path in another way.
func (d draw) spell(path string) string {
	b := []byte(path)
	for range 1 + d.IntN(3) {
		i := 1 + d.IntN(len(b)-1)
		switch d.IntN(12) {
		case 0:
			b = slices.Insert(b, i, []byte(d.pick(";", ";x=1", "/", "//", "/./", "/.", "/../x/..", "%2f", "%5c", "\\", ".", "%20", "%00", "%3b", "%253b"))...)
		case 1:
			b = append(b, d.pick("/", ".", "%20", ";", ";a=b", "/.", "/..", "%2e", "::$DATA", "%09", "?", "#")...)
		case 2:
			b = []byte(strings.ToUpper(string(b[:i])) + string(b[i:]))
		case 3, 4, 5:
			b = slices.Replace(b, i, i+1, []byte(fmt.Sprintf("%%%02x", b[i]))...)
		case 6, 7:
			b = slices.Replace(b, i, i+1, []byte(fmt.Sprintf("%%25%02X", b[i]))...)
		case 8:
			b = slices.Replace(b, i, i+1, []byte(fmt.Sprintf("%%25%%%02X%%%02X", fmt.Sprintf("%02x", b[i])[0], fmt.Sprintf("%02x", b[i])[1]))...)
		case 9:
			b = append([]byte(d.pick("/", "/.", "/x/..", "/;", "/%2e")), b...)
		case 10:
			if b[i] > ' ' && b[i] < 0x7f {
				b = slices.Replace(b, i, i+1, []byte(string(rune(b[i])+0xfee0))...) // the full-width form
			}
		case 11:
			b = slices.Replace(b, i, i+1, []byte(string(rune(b[i])))...)
		}
	}
	return string(b)
}

// lenient are servers as they are documented, each as the resource that it serves for a path, written independently of the code
// under test.
var lenient = map[string]func(string) string{
	"a plain server": func(p string) string { return clean(decode(path(p))) },
	"a servlet container": func(p string) string {
		return clean(decode(regexp.MustCompile(`;[^/]*`).ReplaceAllString(path(p), "")))
	},
	"a server that folds":                  func(p string) string { return strings.ToLower(clean(decode(path(p)))) },
	"a server behind a proxy that decodes": func(p string) string { return clean(decode(decode(path(p)))) },
	"three decoders":                       func(p string) string { return clean(decode(decode(decode(path(p))))) },
	"Windows":                              windows,
	"a string preparer":                    func(p string) string { return clean(narrow(decode(path(p)))) },
	"one that decodes last":                func(p string) string { return decode(clean(path(p))) },
	"one that stops at NUL":                func(p string) string { s, _, _ := strings.Cut(clean(decode(path(p))), "\x00"); return s },
}

func path(p string) string {
	if i := strings.IndexAny(p, "?#"); i >= 0 {
		return p[:i]
	}
	return p
}

func decode(p string) string {
	return regexp.MustCompile(`%[0-9a-fA-F]{2}`).ReplaceAllStringFunc(p, func(e string) string {
		var c byte
		fmt.Sscanf(e[1:], "%02x", &c)
		return string([]byte{c})
	})
}

// clean resolves dot segments and drops empty ones.
func clean(p string) string {
	var out []string
	for _, s := range strings.Split(p, "/") {
		switch s {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

func windows(p string) string {
	var out []string
	for _, s := range strings.Split(clean(strings.ReplaceAll(decode(path(p)), `\`, "/")), "/") {
		s, _, _ = strings.Cut(s, "::$")
		out = append(out, strings.TrimRight(s, ". "))
	}
	return strings.ToLower(clean(strings.Join(out, "/")))
}

func narrow(p string) string {
	return strings.Map(func(r rune) rune {
		if 0xff01 <= r && r <= 0xff5e {
			return r - 0xfee0
		}
		return r
	}, p)
}

// FuzzParse: whatever stands in the file, Parse returns a table or a fault with a place, and each route of a table can apply.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"routes": {}}`, `{"routes": [1]}`, fileOf("", shop...), fileOf(`{"case": "exact"}`, "/a/", "GET *.x.org /{a}b"),
		`{"routes": [{"match": {"path": "/{a}/{a}"}}]}`, `{"routes": [{"name": "x", "charge": {"rate": 1.5}}], "unmatched": "deny"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v map[string]any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return
		}
		table, faults := Parse(Spec{Routes: v["routes"], Paths: v["paths"], Unmatched: v["unmatched"], Plans: plans})
		if (table == nil) != (len(faults) > 0) {
			t.Fatalf("table %v and faults %v", table, faults)
		}
		for _, f := range faults {
			if f.Text == "" || len(f.At) == 0 {
				t.Errorf("a fault without a text or a place: %+v", f)
			}
		}
		if table == nil {
			return
		}
		for _, r := range table.Routes() {
			if r.Name == "" || table.Routes()[table.names[r.Name]] != r {
				t.Errorf("the route %q is not found by its name", r.Name)
			}
		}
		answer(table, request("GET /a/b/c"))
	})
}
