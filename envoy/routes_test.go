package envoy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// routeWorld is one Tollkeeper with the routes of testdata/routes and an upstream that takes everything, behind two Envoys.
type routeWorld struct {
	*stack
	up             *rawUpstream
	plain, shipped *harness.Proxy // plain normalises nothing; shipped runs envoy.yaml
	all, none      madeKey        // with all scopes, and without any
	routes         string         // the text of routes.yaml
	setting        string
	settings       int // how many there were
}

func newRouteWorld(t *testing.T) *routeWorld {
	t.Helper()
	policies := ownPolicies(t)
	copyFiles(t, filepath.Join("testdata", "routes"), policies)
	routes, err := os.ReadFile(filepath.Join(policies, "routes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := &routeWorld{stack: &stack{t: t, policies: policies}, up: startRawUpstream(t), routes: string(routes)}
	w.write("{}")
	w.tk = startTollkeeper(t, harness.TollkeeperOptions{Policies: policies, Query: "e2e/answer"})
	w.shipped = startProxy(t, w.tk.Port(), w.up.port(), w.withChosen)
	w.plain = startProxy(t, w.tk.Port(), w.up.port(), func(y string) string { return w.withChosen(withoutNormalising(t, y)) })
	w.account("acme", "free")
	w.all = w.key("acme", "--scopes", "reports:read,reports:write,orders,items,files,things,admin,console,console:admin,console:tenant,grpc,pinned")
	w.none = w.key("acme")
	return w
}

func withoutNormalising(t *testing.T, y string) string {
	t.Helper()
	for old, off := range map[string]string{
		"normalize_path: true": "normalize_path: false",
		"merge_slashes: true":  "merge_slashes: false",
		"path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT": "path_with_escaped_slashes_action: KEEP_UNCHANGED",
	} {
		y = replaceOnce(t, y, old, off)
	}
	return y
}

// withChosen adds routes of Envoy that choose a route of ours by its name, one that exists and one that does not. It also has
// Envoy end connections with errors at once, because there are many.
func (w *routeWorld) withChosen(y string) string {
	y = replaceOnce(w.t, y, "          stat_prefix: edge\n", "          stat_prefix: edge\n          delayed_close_timeout: 0.01s\n")
	const last = "              - match: {prefix: /}\n                route:\n                  cluster: upstream\n"
	var chosen strings.Builder
	for prefix, name := range map[string]string{"/chosen/": "pinned", "/misspelt/": "pined"} {
		fmt.Fprintf(&chosen, `              - match: {prefix: %s}
                route: {cluster: upstream}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {context_extensions: {tollkeeper.route: %s}}
`, prefix, name)
	}
	return replaceOnce(w.t, y, last, chosen.String()+last)
}

func replaceOnce(t *testing.T, text, old, by string) string {
	t.Helper()
	if n := strings.Count(text, old); n != 1 {
		t.Fatalf("%q occurs %d times, want once", old, n)
	}
	return strings.Replace(text, old, by, 1)
}

// write writes a setting of data.tollkeeper, and counts it.
func (w *routeWorld) write(setting string) {
	w.t.Helper()
	w.setting = setting
	w.settings++
	routes := w.routes
	if strings.Contains(setting, "extension: ignore") { // then a route for .pdf could never match, which is a fault
		routes = regexp.MustCompile(`(?m)^    - name: pdf\n(      .*\n)*`).ReplaceAllString(routes, "")
	}
	w.writePolicy("routes.yaml", routes)
	w.writePolicy("setting.yaml", fmt.Sprintf("tollkeeper: %s\ne2e: {setting: \"%d\"}\n", setting, w.settings))
}

// configure writes a setting and waits until it is in force.
func (w *routeWorld) configure(setting string) {
	w.t.Helper()
	w.write(setting)
	probe := rawRequest{method: "GET", target: "/probe", host: "api.example.com"}
	await(w.t, func() bool {
		return probe.overHTTP1(w.t, w.shipped.Addr()).header.Get("X-E2e-Setting") == fmt.Sprint(w.settings)
	})
	w.up.take()
}

// result is what became of one request.
type result struct {
	outcome string // see outcomeOf
	status  int
	reason  string
	charge  string // JSON
	detail  string // of a denial
	seen    []harness.Seen
}

// send sends a request with a key, unless the key is empty. It tries again where a busy machine was too slow for Envoy.
func (w *routeWorld) send(r rawRequest, to *harness.Proxy, http2 bool, key string) (out result) {
	w.t.Helper()
	for range 20 {
		if out = w.sendOnce(r, to, http2, key); out.status != http.StatusServiceUnavailable && out.reason != "decision_timeout" {
			break
		}
	}
	return out
}

func (w *routeWorld) sendOnce(r rawRequest, to *harness.Proxy, http2 bool, key string) result {
	w.t.Helper()
	if key != "" {
		r.fields = append(slices.Clone(r.fields), [2]string{"x-api-key", key})
	}
	var a rawAnswer
	if http2 {
		a = r.overHTTP2(w.t, to.Addr())
	} else {
		a = r.overHTTP1(w.t, to.Addr())
	}
	out := result{outcome: outcomeOf(a), status: a.status, reason: a.header.Get("X-Authz-Reason"), charge: a.header.Get("X-E2e-Charge"), seen: w.up.take()}
	var p problem
	if json.Unmarshal([]byte(a.body), &p) == nil {
		out.detail = p.Detail
	}
	return out
}

// outcomeOf says in a few words what became of a request: the route that applied ("unmatched" for none), what is wrong with
// the path, or what Envoy answered without asking; and after a colon the reason of a denial, unless it goes without saying.
func outcomeOf(a rawAnswer) string {
	path, route, reason := a.header.Get("X-E2e-Path"), a.header.Get("X-E2e-Route"), a.header.Get("X-Authz-Reason")
	switch {
	case path == "" && reason != "":
		return "not understood: " + reason // no policy was asked
	case path == "" && a.status == 0:
		return "Envoy " + a.ended
	case path == "" && a.header.Get("Location") != "":
		return fmt.Sprintf("Envoy: %d to %s", a.status, a.header.Get("Location"))
	case path == "" && a.header.Get("Grpc-Status") != "":
		return "Envoy: grpc-status " + a.header.Get("Grpc-Status")
	case path == "":
		return fmt.Sprintf("Envoy: %d", a.status)
	case path != "ok" && reason == "request_malformed":
		return path
	case path != "ok":
		return path + ": " + reason
	case route == "none":
		route = "unmatched"
	}
	if reason != "" {
		return route + ": " + reason
	}
	return route
}

// openTo names the servers that would serve a resource of another route than the one that applied.
func openTo(r result) string {
	var names []string
	for _, s := range r.seen {
		served := servedBy(s)
		for _, server := range lenient {
			if route, ok := served[server.name]; ok && route != r.outcome {
				names = append(names, server.name)
			}
		}
	}
	if names == nil {
		return ""
	}
	return " (open to " + listed(names) + ")"
}

// listed is a list of servers in a few words.
func listed(names []string) string {
	if slices.Contains(names, "plain") {
		return "most"
	}
	if last := len(names) - 1; last > 0 && names[last] == "all at once" {
		names = names[:last]
	}
	return strings.Join(names, ", ")
}

// servedText says which lenient servers would serve what of a request that reached them as it was sent.
func servedText(r rawRequest) string {
	seen := harness.Seen{Method: r.method, URI: r.target, Host: r.host, Headers: make(http.Header)}
	for _, f := range r.fields {
		seen.Headers.Add(f[0], f[1])
	}
	served, by := servedBy(seen), make(map[string][]string)
	var routes []string
	for _, server := range lenient {
		route, ok := served[server.name]
		if !ok {
			continue
		}
		if by[route] == nil {
			routes = append(routes, route)
		}
		by[route] = append(by[route], server.name)
	}
	for i, route := range routes {
		if len(by[route]) == len(lenient) {
			return route
		}
		routes[i] += " by " + listed(by[route])
	}
	if routes == nil {
		return "nothing"
	}
	return strings.Join(routes, "; ")
}
