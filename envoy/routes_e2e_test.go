package envoy

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// openByDefault are the ways that some servers leave open and that no default closes. The head of tried.md says what closes them.
var openByDefault = regexp.MustCompile("^(extension|extension under `\\*\\*`|extension after a slash|X-Forwarded-Host)$")

// TestRoutes_EverySpellingGetsItsRoute sends the requests of tried.md through both Envoys, over HTTP/1.1 and HTTP/2.
func TestRoutes_EverySpellingGetsItsRoute(t *testing.T) {
	w := newRouteWorld(t)
	for _, section := range readTried(t) {
		w.configure(section.setting)
		for _, row := range section.rows {
			got := row
			got.served = servedText(row.request)
			got.plain, got.shipped = w.outcomes(row, w.plain), w.outcomes(row, w.shipped)
			if got.String() != row.String() {
				t.Errorf("tried.md:%d, %s: want\n%s\nand it is\n%s", row.line, section.setting, row, got)
			}
			if open := strings.Contains(got.plain+got.shipped, "(open to"); open && section.setting == "{}" && !openByDefault.MatchString(row.name) {
				t.Errorf("tried.md:%d: %s is a way round a route", row.line, row.name)
			}
		}
	}
}

// outcomes is the cell of one Envoy: the outcome over both protocols.
func (w *routeWorld) outcomes(row tried, to *harness.Proxy) string {
	w.t.Helper()
	second := w.outcome(row, to, true)
	if row.request.grpc {
		return second
	}
	if first := w.outcome(row, to, false); first != second {
		return first + "; HTTP/2: " + second
	}
	return second
}

// outcome sends the request with a key that has every scope, with one that has none, and without a key.
func (w *routeWorld) outcome(row tried, to *harness.Proxy, http2 bool) string {
	w.t.Helper()
	got := w.send(row.request, to, http2, w.all.Text)
	if passed := got.status == http.StatusOK && got.charge != "" && got.reason == ""; len(got.seen) > 0 != passed || len(got.seen) > 1 {
		w.t.Errorf("%s: status %d, reason %q, and %d requests reached the upstream", row.name, got.status, got.reason, len(got.seen))
	}
	if strings.Contains(got.outcome, " ") { // refused whatever the key
		return got.outcome
	}
	weak, stranger := w.send(row.request, to, http2, w.none.Text), w.send(row.request, to, http2, "")
	want, wantStranger := wanted(got.outcome)
	if weak.outcome != want || stranger.outcome != wantStranger {
		w.t.Errorf("%s: %s; without scopes %s, want %s; without a key %s, want %s", row.name, got.outcome, weak.outcome, want, stranger.outcome, wantStranger)
	}
	if charge := w.charges(got.outcome); got.status == http.StatusOK && got.reason == "" && got.charge != charge {
		w.t.Errorf("%s: %s was charged %s, want %s", row.name, got.outcome, got.charge, charge)
	}
	return got.outcome + openTo(got)
}

// wanted are the outcomes without scopes and without a key, if this is the outcome with all scopes.
func wanted(outcome string) (weak, stranger string) {
	switch {
	case outcome == "public":
		return outcome, outcome
	case outcome == "render", outcome == "unmatched":
		return outcome, outcome + ": key_missing"
	}
	return outcome + ": permission_denied", outcome + ": key_missing"
}

// charges is the charge of a request that passes, as JSON.
func (w *routeWorld) charges(route string) string {
	switch {
	case route == "render":
		return `{"credits":5}`
	case route == "public", route == "unmatched" && strings.Contains(w.setting, "unmatched: allow"):
		return `{}`
	}
	return `{"daily":1}`
}

// Denials because of the path say what is wrong with it.
func TestRoutes_DenialsSayWhatIsWrong(t *testing.T) {
	w := newRouteWorld(t)
	const things = "GET /v1/things"
	for fault, c := range map[string]struct{ cell, says string }{
		"dot_segment":       {"`GET /public/../v1/render`", `\.\.`},
		"backslash":         {"`GET /v1%5crender`", `backslash`},
		"control_character": {"`GET /v1/render%0a`", `control character`},
		"matrix_parameter":  {"`GET /v1/render;v=1`", `semicolon`},
		"encoded_slash":     {"`GET /v1%2frender`", `encoded slash|%2F`},
		"double_encoded":    {"`GET /v1/%2572ender`", `once`},
		"loose_ending":      {"`GET /v1/render.`", `dots and spaces`},
		"cut_short":         {"`GET /v1/render%3fx`", `question marks`},
		"compatible_text":   {"`GET /v1/%ef%bd%92ender`", `full-width`},
		"method_override":   {"`" + things + "` `X-HTTP-Method-Override: POST`", `method`},
		"method_case":       {"`post /v1/things`", `capital letters`},
		"url_override":      {"`GET /v2/x` `X-Original-URL: /v1/render`", `path itself`},
	} {
		row, err := readRow("| " + fault + " | " + c.cell + " | | | |")
		if err != nil {
			t.Fatal(err)
		}
		got := w.send(row.request, w.plain, true, w.all.Text)
		if !strings.HasSuffix(got.outcome, " "+fault) || got.status != http.StatusForbidden || got.reason != "request_malformed" || !regexp.MustCompile(c.says).MatchString(got.detail) {
			t.Errorf("%s: %s, %d %s, detail %q, want one like %s", fault, got.outcome, got.status, got.reason, got.detail, c.says)
		}
	}
}

// Envoy accepts 60 KiB of header fields.
func TestRoutes_LongPaths(t *testing.T) {
	w := newRouteWorld(t)
	for _, c := range []struct{ name, target, plain, shipped string }{
		{"1,000 segments under **", "/v1/reports" + strings.Repeat("/a", 1000), "read-reports", "read-reports"},
		{"1,000 segments", strings.Repeat("/a", 1000), "unmatched", "unmatched"},
		{"1,000 slashes", strings.Repeat("/", 1000) + "v1/render", "render", "render"},
		{"1,000 slashes at the end", "/v1/render" + strings.Repeat("/", 1000), "render", "render"},
		{"a long value", "/v1/orders/" + strings.Repeat("x", 50_000), "order", "order"},
		{"a long value, encoded", "/v1/orders/" + strings.Repeat("%7e", 15_000), "order", "order"},
		{"1,000 dot segments", strings.Repeat("/..", 1000) + "/v1/render", "malformed dot_segment", "render"},
		{"1,000 segments and back", strings.Repeat("/a", 1000) + strings.Repeat("/..", 1000) + "/v1/render", "malformed dot_segment", "render"},
		{"a parameter behind a long path", strings.Repeat("/a", 10_000) + ";x", "malformed matrix_parameter", "malformed matrix_parameter"},
		{"deeply encoded", "/v1/" + "%" + strings.Repeat("25", 10_000) + "72ender", "ambiguous double_encoded", "ambiguous double_encoded"},
	} {
		request := rawRequest{method: "GET", target: c.target, host: "api.example.com"}
		for _, http2 := range []bool{false, true} {
			for to, want := range map[*harness.Proxy]string{w.plain: c.plain, w.shipped: c.shipped} {
				if got := w.send(request, to, http2, w.all.Text); got.outcome != want {
					t.Errorf("%s, HTTP/2 %v: %s, want %s", c.name, http2, got.outcome, want)
				}
			}
		}
	}
}

// TestRoutes_Reload breaks routes.yaml in several ways and then repairs it: a broken table is never used.
func TestRoutes_Reload(t *testing.T) {
	w := newRouteWorld(t)
	ask := func(target string) string {
		return w.send(rawRequest{method: "GET", target: target, host: "api.example.com"}, w.shipped, false, w.all.Text).outcome
	}
	for name, broken := range map[string]string{
		"a misspelt field": "    - name: new\n      match: {path: \"/v2/**\"}\n      scope: [\"admin\"]\n",
		"a conflict":       "    - name: new\n      match: {path: \"/v1/orders/{id}/**\", methods: [GET]}\n",
		"an unknown limit": "    - name: new\n      match: {path: \"/v2/**\"}\n      charge: {credit: 1}\n",
		"no YAML":          "    - name: [\n",
	} {
		refusals := regexp.MustCompile(`"policy refused[^\n]*\n`)
		before := len(refusals.FindAllString(w.tk.Log(), -1))
		w.writePolicy("routes.yaml", w.routes+broken)
		var lines []string
		await(t, func() bool { lines = refusals.FindAllString(w.tk.Log(), -1); return len(lines) > before })
		if !regexp.MustCompile(`"file":"[^"]*routes\.yaml","line":(4[5-9]|5\d),`).MatchString(lines[before]) {
			t.Errorf("%s: the log does not say where: %s", name, lines[before])
		}
		for target, want := range map[string]string{"/v2/x": "unmatched", "/admin/x": "admin", "/v1/orders/7": "order"} {
			if got := ask(target); got != want {
				t.Errorf("%s: %s is %s, want %s", name, target, got, want)
			}
		}
	}
	loaded := strings.Count(w.tk.Log(), "policy loaded")
	w.writePolicy("routes.yaml", w.routes+"    - name: new\n      match: {path: \"/v2/**\"}\n      scopes: [\"admin\"]\n")
	await(t, func() bool { return strings.Count(w.tk.Log(), "policy loaded") > loaded })
	if got := ask("/v2/x"); got != "new" {
		t.Errorf("after the new table: %s", got)
	}
	if got := w.send(rawRequest{method: "GET", target: "/v2/x", host: "api.example.com"}, w.shipped, true, w.none.Text).outcome; got != "new: permission_denied" {
		t.Errorf("after the new table, without scopes: %s", got)
	}
}

// The decision log names the route, or what is wrong with the path.
func TestRoutes_AreRecorded(t *testing.T) {
	w := newRouteWorld(t)
	for target, want := range map[string]string{
		"/v1/orders/17": `"route":"order"`, "/v1/render;x": `"path_fault":"matrix_parameter"`, "/chosen/x": `"route":"pinned"`,
	} {
		w.send(rawRequest{method: "GET", target: target, host: "api.example.com"}, w.shipped, false, w.all.Text)
		line := regexp.MustCompile(`"path":"` + regexp.QuoteMeta(target) + `"[^\n]*` + want)
		await(t, func() bool { return line.MatchString(w.tk.Log()) })
	}
}
