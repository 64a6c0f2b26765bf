package input

import (
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input/inputtest"
)

func TestRefs_AreWhatIsBuilt(t *testing.T) {
	tests := []struct{ name, rules, want string }{
		{"nothing", `allow := true`, `{}`},
		{"a path", `allow if input.key.status == "active"`, `{"key":{"status":"active"}}`},
		{"a path in brackets", `allow if input["key"]["status"] == "active"`, `{"key":{"status":"active"}}`},
		{"two paths", `allow if input.key.id != input.key.plan`, `{"key":{"id":"k","plan":"p"}}`},
		{"a path and one above it", `allow if { input.revocation.stale; count(input.revocation) > 0 }`, `{"revocation":{"stale":false}}`},
		{"a variable in a path", `allow if input.quota[_].state == "ok"`, `{"quota":{"calls":{"state":"ok"}}}`},
		{"a variable at the end", `allow if input.quota[_] == {}`, `{"quota":{"calls":{"limit":0,"remaining":0,"state":"ok"}}}`},
		{"a variable and a name", `allow if { input.quota[_].state == "ok"; input.quota.calls.limit > 0 }`, `{"quota":{"calls":{"limit":0,"state":"ok"}}}`},
		{"a path in a path", `allow if input.quota[input.key.plan].state == "ok"`,
			`{"key":{"plan":"p"},"quota":{"calls":{"state":"ok"}}}`},
		{"a name that is no constant", `allow if input[x].status == "active"` + "\n\nx := \"key\"",
			`{"account":{"status":"unknown"},"attributes":{},"key":{"status":"active"},"parsed_body":{},"parsed_path":["x"],"parsed_query":{},` +
				`"path":{},"quota":{},"revocation":{},"route":{},"token":{"status":"missing"},"truncated_body":false,"version":{}}`},
		{"a name that may be any", `allow if input[x] == 1` + "\n\nx := \"key\"", `all`},
		{"the whole input", `allow if count(input) > 0`, `all`},
		{"the whole input under a name", "allow if {\n\tx := input\n\tx.key.status == \"active\"\n}", `all`},
		{"the whole input as an argument", "allow if f(input)\n\nf(x) if x.key.status == \"active\"", `all`},
		{"the whole input in a comprehension", `allow if count([v | some v in input]) > 0`, `all`},
		{"the whole input in an object", `allow if {"x": input}.x.key`, `all`},
		{"the whole input in a head", "allow if p.key\n\np := input", `all`},
		{"an import", "import input.attributes.request.http as http\n\nallow if http.method == \"GET\"",
			`{"attributes":{"request":{"http":{"method":"GET"}}}}`},
		{"an import of all", "import input as i\n\nallow if i.key.status == \"active\"", `{"key":{"status":"active"}}`},
		{"one header", `allow if input.attributes.request.http.headers["x-a"] == "1"`,
			`{"attributes":{"request":{"http":{"headers":{"x-a":"1"}}}}}`},
		{"one segment", `allow if input.parsed_path[0] == "x"`, `{"parsed_path":["x"]}`},
		{"a field of a body", `allow if input.parsed_body.a.b == 1`, `{"parsed_body":{"a":{"b":1}}}`},
		{"an else and a default", "default allow := false\n\nallow if input.key.id == \"x\"\n\nelse if input.key.plan == \"p\"",
			`{"key":{"id":"k","plan":"p"}}`},
		{"a text with a value in it", `allow if $"{input.key.id}!" == "k!"`, `{"key":{"id":"k"}}`},
		{"every", `allow if every s in input.parsed_path { s != input.key.plan }`, `{"key":{"plan":"p"},"parsed_path":["x"]}`},
		{"a negation", `allow if not input.revocation.stale`, `{"revocation":{"stale":false}}`},
		{"a head", "allow := {\"allowed\": false, \"detail\": input.key.id}", `{"key":{"id":"k"}}`},
		{"a replaced input", `allow if { p with input.key as {"id": input.account.status} }` + "\n\np if input.key.id",
			`{"account":{"status":"unknown"},"key":{"id":"k","meta":{"m":1},"plan":"p","scopes":[],"status":"active"}}`},
	}
	r := inputtest.Get("/x")
	r.HTTP.Headers = authz.Headers{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}}
	r.Body.Parsed = map[string]any{"a": map[string]any{"b": 1, "c": 2}, "d": 3}
	f := &authz.Facts{
		Key:   authz.KeyFact{ID: "k", Plan: "p", Status: authz.KeyActive, Meta: map[string]any{"m": 1}},
		Quota: []authz.QuotaFact{{Name: "calls", State: authz.QuotaOK}},
	}
	all := mustValue(t, everything, r, f)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mustValue(t, refsOfRules(t, tt.rules), r, f)
			if tt.want == "all" {
				tt.want = jsonOf(t, all)
			}
			if jsonOf(t, got) != tt.want {
				t.Errorf("got  %s\nwant %s", jsonOf(t, got), tt.want)
			}
		})
	}
}
