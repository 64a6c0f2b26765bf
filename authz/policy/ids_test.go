package policy

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// orderRoutes is a table of the usual kinds of routes.
const orderRoutes = `tollkeeper:
  routes:
  - {name: order, match: {methods: [GET], path: "/v1/orders/{id}"}, scopes: ["orders:read"]}
  - {name: cancel, match: {methods: [POST], path: "/v1/orders/{id}:cancel"}, scopes: ["orders:write"]}
  - {name: item, match: {path: "/v1/orders/{id}/items/{item}"}, charge: {daily: 2}}
  - {name: files, match: {methods: [GET], path: "/files/**"}, public: true}
`

// withOrderRoutes are the shipped policies with another table of routes.
func withOrderRoutes(t testing.TB) bundle.Source {
	t.Helper()
	m := fstest.MapFS{}
	if err := fs.WalkDir(policies.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(policies.Files, name)
		m[name] = &fstest.MapFile{Data: data}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m["routes.yaml"] = &fstest.MapFile{Data: []byte(orderRoutes)}
	return bundle.FS(m)
}

// tableOf compiles the routes of a policy, whose plans have the limits rate and daily.
func tableOf(t testing.TB, p *Policy) *route.Table {
	t.Helper()
	routes, _ := p.Data("tollkeeper", "routes")
	table, faults := route.Parse(route.Spec{Routes: routes, Plans: map[string][]authz.Limit{"free": {{Name: "rate"}, {Name: "daily"}}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return table
}

// anyID is an id of one of the usual forms: a number, a UUID in capitals, base64url.
func anyID(rnd *rand.Rand) string {
	switch n := rnd.Uint64(); n % 3 {
	case 0:
		return fmt.Sprint(n >> (n % 40))
	case 1:
		return fmt.Sprintf("%08X-%04X-4%03X-A%03X-%012X", n>>32, n>>16&0xffff, n>>8&0xfff, n&0xfff, n>>16)
	default:
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		id := make([]byte, 11+n>>8%12)
		for i := range id {
			id[i] = letters[n>>(i*2)&63]
		}
		return string(id)
	}
}

// idRequests are requests by the ids in their paths, with the reason of their denial. The caller may read orders.
var idRequests = []struct {
	method, before, after string
	want                  authz.Reason
}{
	{"GET", "/v1/orders/", "", ""},
	{"GET", "/V1/Orders/", "/", ""},
	{"POST", "/v1/orders/", ":cancel", authz.ReasonPermissionDenied},
	{"POST", "/v1/orders/7/items/", "", ""},
	{"GET", "/files/", "/a/b", ""},
	{"GET", "/v1/customers/", "/invoices?page=2", ""},
	{"GET", "/v1/orders/", ";x=1", authz.ReasonRequestMalformed},
}

// fillIDs makes a request of a thousand callers with an id in its path, and matches it.
func fillIDs(table *route.Table, rnd *rand.Rand, n int, r *authz.Request, f *authz.Facts, room []authz.Param) (want authz.Reason) {
	kind := &idRequests[n%len(idRequests)]
	r.HTTP.Method, r.HTTP.Path = kind.method, kind.before+anyID(rnd)+kind.after
	r.HTTP.Segments = strings.Split(r.HTTP.Path[1:], "/")
	caller := n / len(idRequests) % 1000
	f.Key.ID, f.Key.Plan, f.Key.Environment = fmt.Sprintf("key_%03d", caller), "free", "live"
	f.Key.Scopes, f.Account.Status = orderScopes, authz.AccountActive
	f.Quota = append(f.Quota[:0], authz.QuotaFact{Name: "rate", State: authz.QuotaOK, Remaining: int64(n)}, authz.QuotaFact{Name: "daily", State: authz.QuotaOK})
	table.Match(r, &f.Path, &f.Route, room[:0])
	return kind.want
}

var orderScopes = []string{"orders:read"}

// TestVerdictCache_IDsInPaths decides requests with another id in each path, by the shipped policies with a real table. Almost all
// verdicts have to come from the cache, and each has to be right.
func TestVerdictCache_IDsInPaths(t *testing.T) {
	p := mustLoad(t, withOrderRoutes(t), Options{CachedVerdicts: 1000})
	table, rnd := tableOf(t, p), rand.New(rand.NewPCG(1, 2))
	r, f, room := get("/"), goodFacts(), make([]authz.Param, 0, 4)
	const n = 100_000 // the number of verdicts, and so of misses, does not depend on it
	for i := range n {
		want := fillIDs(table, rnd, i, r, f, room)
		if v := mustDecide(t, p, r, f); v.Reason != want || v.Allowed != (want == "") {
			t.Fatalf("%s %s: %+v, want %q", r.HTTP.Method, r.HTTP.Path, v, want)
		}
	}
	s := stats(t, p)
	if s.Hits < n*99/100 || s.Misses > 100 {
		t.Errorf("of %d decisions: %+v", n, s)
	}
}

// TestVerdictCache_PoliciesThatReadIDs checks that a policy which reads ids gets the answer for each, and a verdict again only for
// the same ids.
func TestVerdictCache_PoliciesThatReadIDs(t *testing.T) {
	for name, rule := range map[string]string{
		"parsed_path": `allow := {"allowed": input.parsed_path[2] == input.key.account, "headers": {"x-order": input.parsed_path[2]}}`,
		"params":      `allow := {"allowed": input.route.params.id == input.key.account, "headers": {"x-order": input.route.params.id}}`,
		"any param":   `allow := {"allowed": id == input.key.account, "headers": {"x-order": id}} if some id in input.route.params`,
		"route":       `allow := {"allowed": r.params.id == input.key.account, "headers": {"x-order": r.params.id}} if r := input.route`,
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, files("p.rego", "package envoy.authz\n"+rule, "routes.yaml", orderRoutes), Options{CachedVerdicts: 10_000})
			table, rnd := tableOf(t, p), rand.New(rand.NewPCG(1, 2))
			ids := make([]string, 50)
			for i := range ids {
				ids[i] = anyID(rnd)
			}
			const n = 10_000
			for range n {
				id, owner := ids[rnd.IntN(len(ids))], ids[rnd.IntN(len(ids))]
				r, f := get("/v1/orders/"+id), goodFacts()
				f.Key.Account = owner
				table.Match(r, &f.Path, &f.Route, nil)
				v := mustDecide(t, p, r, f)
				if len(v.Headers) != 1 || v.Headers[0].Value != id || v.Allowed != (id == owner) {
					t.Fatalf("%s of %s: %+v", id, owner, v)
				}
			}
			if s, pairs := stats(t, p), int64(len(ids)*len(ids)); s.Misses > pairs || s.Hits < n-pairs {
				t.Errorf("%+v", s)
			}
		})
	}
}

// BenchmarkVerdictCache_IDsInPaths matches and decides requests with another id in each path.
func BenchmarkVerdictCache_IDsInPaths(b *testing.B) {
	p := mustLoad(b, withOrderRoutes(b), Options{CachedVerdicts: 1000})
	table, rnd := tableOf(b, p), rand.New(rand.NewPCG(1, 2))
	r, f, room := get("/"), goodFacts(), make([]authz.Param, 0, 4)
	fillIDs(table, rnd, 0, r, f, room)
	ids := make([]string, 1024)
	for i := range ids {
		ids[i] = "/v1/orders/" + anyID(rnd)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.HTTP.Path = ids[i%len(ids)]
		table.Match(r, &f.Path, &f.Route, room[:0])
		if v, err := p.Decide(b.Context(), r, f, nil); err != nil || !v.Allowed {
			b.Fatal(r.HTTP.Path, v, err)
		}
	}
}
