// Package inputtest makes requests and facts for tests.
package inputtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Get is a GET request for a path.
func Get(path string) *authz.Request {
	return &authz.Request{HTTP: &authz.HTTP{
		Method:   "GET",
		Path:     path,
		Segments: strings.Split(strings.TrimLeft(path, "/"), "/"),
	}}
}

// ActiveKey are the facts about a caller with a good key and room in its quota.
func ActiveKey() *authz.Facts {
	return &authz.Facts{
		Key: authz.KeyFact{
			Status: authz.KeyActive, ID: "key_1", Name: "ci", Account: "acc_7", Environment: "live", Plan: "pro",
			Scopes: []string{"read", "write"},
		},
		Account: authz.AccountFact{ID: "acc_7", Plan: "pro", Status: authz.AccountActive},
		Quota:   []authz.QuotaFact{{Name: "calls", State: authz.QuotaOK, Limit: 1000, Remaining: 998}},
	}
}

// Browser is about what a proxy sends of a browser's request with a good key.
func Browser() *authz.Request {
	r := Get("/v1/things?page=2")
	for i := range 14 {
		r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: fmt.Sprintf("x-header-%d", i), Value: strings.Repeat("v", 20)})
	}
	r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: "x-api-key", Value: "tk_live_0123456789012345678901234567"})
	r.HTTP.Params = map[string][]string{"page": {"2"}}
	r.Source = &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "10.0.0.9", Port: 4321}}}
	r.Time = time.Unix(1_900_000_000, 5)
	return r
}

// Draw makes requests and facts from few values, so that many are alike.
type Draw struct{ *rand.Rand }

// New returns the draw of a seed.
func New(seed uint64) Draw { return Draw{rand.New(rand.NewPCG(seed, seed+1))} }

// Pick picks one of several values.
func Pick[T any](d Draw, from ...T) T { return from[d.IntN(len(from))] }

// Request makes a request.
func (d Draw) Request() *authz.Request {
	r := Get(Pick(d, "/", "/a", "/a/b", "/v1/render", "/public/x", "/v1/reports/7", "/v1//reports"))
	r.HTTP.Method = Pick(d, "GET", "POST")
	r.HTTP.Host = Pick(d, "", "api.example.com", "API.example.com:80")
	r.HTTP.ID, r.HTTP.RawHeaders = fmt.Sprint(d.IntN(1000)), d.IntN(2) == 0
	for range d.IntN(3) {
		r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: Pick(d, "x-a", "x-b"), Value: Pick(d, "", "1", "2")})
	}
	if !r.HTTP.RawHeaders && len(r.HTTP.Headers) == 2 && r.HTTP.Headers[0].Name == r.HTTP.Headers[1].Name {
		r.HTTP.Headers = r.HTTP.Headers[:1] // no name comes twice in a map
	}
	if d.IntN(3) == 0 {
		r.HTTP.Params = map[string][]string{Pick(d, "q", "p"): {Pick(d, "1", "2")}, "r": {"x", "y"}}
	}
	if d.IntN(3) == 0 {
		r.ContextExtensions = map[string]string{"a": Pick(d, "1", "2"), "tollkeeper.environment": Pick(d, "live", "test")}
	}
	r.Body = authz.Body{Parsed: Pick[any](d, nil, "x", 1.5, []any{"a", 1}, map[string]any{"a": map[string]any{"b": Pick(d, 1, 2)}}), Skipped: d.IntN(4) == 0}
	return r
}

// Facts makes facts about a caller.
func (d Draw) Facts() *authz.Facts {
	f := &authz.Facts{
		Path: authz.PathFact{State: Pick(d, authz.PathOK, authz.PathOK, authz.PathOK, authz.PathMalformed)},
		Route: Pick(d, authz.RouteFact{}, authz.RouteFact{State: authz.RouteNone},
			authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: "all", Template: "/v1/{id}", Scopes: []string{"reports:read"}, Public: d.IntN(5) == 0},
				Params: []authz.Param{{Name: "id", Value: Pick(d, "1", "2")}}},
			authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: "dear", Methods: []string{"GET"}, Charge: authz.Charge{"rate": 1, "credits": int64(d.IntN(3))}, Plans: []string{"pro"}}}),
		Key: authz.KeyFact{
			Status: Pick(d, authz.KeyActive, authz.KeyActive, authz.KeyMissing, authz.KeyExpired), ID: fmt.Sprint(d.IntN(100)),
			Account: Pick(d, "acme", "other"), Plan: Pick(d, "free", "pro", "no_such_plan"), Environment: Pick(d, "live", "test"),
			Scopes: Pick(d, nil, []string{"reports:read"}, []string{"reports:read", "reports:write"}),
			Meta:   Pick(d, nil, map[string]any{"role": "intern"}, map[string]any{"subscription_ends": "2001-01-01T00:00:00Z", "n": 1}),
		},
		Account:    authz.AccountFact{ID: "acme", Plan: Pick(d, "free", "payg"), Status: Pick(d, authz.AccountActive, authz.AccountActive, authz.AccountOverdue, authz.AccountUnknown)},
		Token:      authz.TokenFact{Status: Pick(d, authz.TokenMissing, authz.TokenMissing, authz.TokenValid, authz.TokenExpired)},
		Revocation: authz.RevocationFact{Stale: d.IntN(20) == 0},
	}
	if f.Token.Status == authz.TokenValid {
		f.Token.Issuer, f.Token.Account = "i", Pick(d, "", "acme", "other")
		f.Token.Scopes, f.Token.Claims = Pick(d, nil, []string{"reports:read"}), map[string]any{"sub": Pick(d, "alice", "bob")}
	}
	for _, name := range []string{"rate", "daily", "monthly", "credits"} {
		if d.IntN(5) > 0 {
			f.Quota = append(f.Quota, authz.QuotaFact{
				Name: name, State: Pick(d, authz.QuotaOK, authz.QuotaOK, authz.QuotaOK, authz.QuotaExhausted, authz.QuotaInsufficient),
				Limit: 10, Remaining: int64(d.IntN(10)),
			})
		}
	}
	return f
}

// nasty picks a text that a sloppy key could take for the marks between others.
func (d Draw) nasty() string {
	return Pick(d, "", "\"", ":", "{}", "\x01a", ":\x06status", "a\x00", "}:", "\"\x01a:\x01b")
}

// Nudge changes one thing, often a small one.
func (d Draw) Nudge(r *authz.Request, f *authz.Facts) {
	state := Pick(d, authz.QuotaOK, authz.QuotaExhausted, authz.QuotaInsufficient, authz.QuotaUnavailable)
	switch d.IntN(18) {
	case 0:
		f.Quota = append(f.Quota, authz.QuotaFact{Name: Pick(d, "x", "calls", d.nasty()), State: state})
	case 1, 2:
		if len(f.Quota) > 0 {
			f.Quota[d.IntN(len(f.Quota))].State = state
		}
	case 3:
		f.Key.Status = Pick(d, authz.KeyActive, authz.KeyExpired, authz.KeyMissing, authz.KeyRevoked)
	case 4:
		f.Key.Plan = Pick(d, "free", "pro", d.nasty())
	case 5:
		f.Key.Scopes = append(f.Key.Scopes[:len(f.Key.Scopes):len(f.Key.Scopes)], d.nasty())
	case 6:
		f.Key.Meta = map[string]any{"role": Pick[any](d, "intern", d.nasty(), 1, nil, true), d.nasty(): "x"}
	case 7:
		f.Account.Status = Pick(d, authz.AccountActive, authz.AccountSuspended, authz.AccountUnknown)
	case 8:
		f.Token = authz.TokenFact{Status: Pick(d, authz.TokenValid, authz.TokenExpired), Issuer: "i", Claims: map[string]any{"sub": Pick(d, "alice", d.nasty())}}
	case 14:
		f.Path = Pick(d, authz.PathFact{State: authz.PathOK}, authz.PathFact{State: authz.PathMalformed, Fault: authz.PathMatrix},
			authz.PathFact{State: authz.PathAmbiguous, Fault: authz.PathLooseEnding}, authz.PathFact{})
	case 15, 16, 17:
		d.nudgeRoute(&f.Route)
	case 9:
		r.HTTP.Method = Pick(d, "GET", "POST", d.nasty())
	case 10:
		r.HTTP.Segments = append(r.HTTP.Segments[:len(r.HTTP.Segments):len(r.HTTP.Segments)], d.nasty())
	case 11:
		r.HTTP.Headers = append(r.HTTP.Headers[:0:0], authz.Header{Name: "x-a", Value: Pick(d, "1", "2", d.nasty())})
	case 12:
		r.ContextExtensions = map[string]string{"a": d.nasty(), d.nasty(): "b"}
	case 13:
		r.Body.Parsed = Pick[any](d, d.nasty(), []any{d.nasty(), d.nasty()}, map[string]any{"a": map[string]any{"b": d.nasty()}}, 1, "1")
	}
}

// nudgeRoute changes one thing about the route, or makes one.
func (d Draw) nudgeRoute(f *authz.RouteFact) {
	if f.Route == nil {
		*f = authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: Pick(d, "all", d.nasty())}}
		return
	}
	r := *f.Route
	switch d.IntN(9) {
	case 0:
		*f = authz.RouteFact{State: Pick(d, authz.RouteNone, authz.RouteMissing)}
		return
	case 1, 2:
		f.Params = Pick(d, nil, []authz.Param{{Name: "id", Value: Pick(d, "1", "2", d.nasty())}}, []authz.Param{{Name: d.nasty(), Value: d.nasty()}})
	case 3:
		r.Name = Pick(d, "all", "dear", d.nasty())
	case 4:
		r.Scopes = Pick(d, nil, []string{"reports:read"}, []string{"reports:write"})
	case 5:
		r.Plans = Pick(d, nil, []string{"free"}, []string{"pro", d.nasty()})
	case 6:
		r.Charge = Pick(d, nil, authz.Charge{}, authz.Charge{"daily": 2}, authz.Charge{"credits": int64(d.IntN(3)), d.nasty(): 1})
	case 7:
		r.Public, r.Environment = !r.Public, Pick(d, "", "live", "test")
	case 8:
		r.KeyRequired, r.TokenRequired = !r.KeyRequired, d.IntN(2) == 0
	}
	f.Route = &r
}
