package evaluators

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// Rows returns all rows whose name has one of the given texts, or all rows if there are none. The cases of OPA's Envoy plugin are
// lines of JSON, as in authz/extauthz/testdata/opa-envoy.jsonl.
func Rows(pluginCases []byte, only ...string) ([]Row, error) {
	dropIn, err := dropInRow(pluginCases)
	if err != nil {
		return nil, err
	}
	tokens, err := tokenRows()
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, more := range [][]Row{shippedRows(), {dropIn}, guardedRows(), scanRows(), joinRows(), tokens, patternRows(), otherRows()} {
		for _, r := range more {
			if len(only) == 0 || named(r.Name, only) {
				rows = append(rows, r)
			}
		}
	}
	return rows, nil
}

func named(name string, texts []string) bool {
	for _, text := range texts {
		if strings.Contains(name, text) {
			return true
		}
	}
	return false
}

// row is a row of one case, about a caller with a good key.
func row(name string, p *Policy, want Want, requests ...*authz.Request) Row {
	return Row{name, []Case{{Name: name, Policy: p, Requests: requests, Facts: caller(), Want: want}}}
}

// caller has a good key, and units left of what the shipped plan pro limits.
func caller() *authz.Facts {
	f := inputtest.ActiveKey()
	f.Path.State, f.Route = authz.PathOK, authz.RouteFact{State: authz.RouteNone}
	f.Quota = []authz.QuotaFact{{Name: "rate", State: authz.QuotaOK}, {Name: "monthly", State: authz.QuotaOK}}
	return f
}

// get is a browser's request for a path.
func get(path string) *authz.Request {
	r := inputtest.Browser()
	r.HTTP.Path, r.HTTP.Params = path, nil
	r.HTTP.Segments = strings.Split(strings.TrimLeft(path, "/"), "/")
	return r
}

func with(name, value string) *authz.Request {
	r := get("/v1/things")
	r.HTTP.Headers = append(r.HTTP.Headers, authz.Header{Name: name, Value: value})
	return r
}

func post(body any) *authz.Request {
	r := get("/v1/things")
	r.HTTP.Method, r.Body.Parsed = "POST", body
	return r
}

// shippedRows ask the shipped policies.
func shippedRows() []Row {
	p := &Policy{source: bundle.FS(policies.Files)}
	missing, scoped, jwt := caller(), caller(), caller()
	missing.Key = authz.KeyFact{Status: authz.KeyMissing}
	scoped.Route = authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{
		Name: "orders", Template: "/v1/orders/{id}", Methods: []string{"GET"}, Scopes: []string{"read"}, Plans: []string{"pro"}, Charge: authz.Charge{"rate": 1},
	}, Params: []authz.Param{{Name: "id", Value: "17"}}}
	jwt.Key = authz.KeyFact{Status: authz.KeyMissing}
	jwt.Token = authz.TokenFact{Status: authz.TokenValid, Issuer: "https://id.example", Account: "acc_7", Scopes: []string{"read"},
		Claims: map[string]any{"sub": "alice", "iss": "https://id.example", "groups": []any{"a", "b"}}}
	exhausted := caller()
	exhausted.Quota[0].State = authz.QuotaExhausted
	var rows []Row
	for _, c := range []struct {
		name  string
		facts *authz.Facts
		want  Want
	}{
		{"key", caller(), Allow},
		{"key, route with scope", scoped, Allow},
		{"token", jwt, Either},
		{"no key", missing, Deny},
		{"limit exhausted", exhausted, Deny},
	} {
		r := row("shipped: "+c.name, p, c.want, get("/v1/things"))
		r.Cases[0].Facts = c.facts
		rows = append(rows, r)
	}
	return rows
}

// repeat concatenates a text for each number below n. It replaces # in the text by the number.
func repeat(n int, text string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(text, "#", strconv.Itoa(i)))
	}
	return b.String()
}

// list makes n values.
func list(n int, value func(i int) any) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = value(i)
	}
	return out
}

// numbered makes values such as a text with a number in the place of #.
func numbered(text string) func(i int) any {
	return func(i int) any { return strings.ReplaceAll(text, "#", strconv.Itoa(i)) }
}

// size formats the size of a row's policy or data.
func size(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
