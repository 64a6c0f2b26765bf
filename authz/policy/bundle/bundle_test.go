package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCompile_Faults(t *testing.T) {
	tests := []struct {
		name string
		src  Source
		o    Options
		want string // the whole text
	}{
		{"syntax", files("a/p.rego", "package p\n\nallow if {\n  x = \n}\n"), Options{},
			"a/p.rego:5:1: unexpected } token"},
		{"compile", module("allow if {\n  no_such_function(1)\n}\n"), Options{},
			"p.rego:4:3: undefined function no_such_function"},
		{"type", module("allow if 1 + \"1\" == 2"), Options{},
			"p.rego:3:10: plus: invalid argument(s) (have: (number, string, ???), want: (x: number, y: number, z: number))"},
		{"old syntax", module("allow { true }"), Options{},
			"p.rego:3:1: `if` keyword is required before rule body; this is Rego v0: set policy.rego_version to v0 (--rego-version v0), or rewrite it with opa fmt --v0-v1 --write"},
		{"empty module", files("p.rego", ""), Options{}, "p.rego: empty module"},
		{"json", files("p.rego", allowAll, "d.json", "{\"a\": 1,\n}"), Options{},
			"d.json:2:1: invalid character '}' looking for beginning of object key string"},
		{"yaml", files("p.rego", allowAll, "d.yaml", "a: 1\nb: [\n"), Options{},
			"d.yaml:2: yaml: line 2: did not find expected node content"},
		{"data is no object", files("p.rego", allowAll, "d.json", "[1]"), Options{},
			"d.json:1:1: data must be an object"},
		{"data twice", files("p.rego", allowAll, "a.yaml", "x: {y: 1}", "b.json", `{"x": {"y": 1}}`), Options{},
			"b.json:1:8: data.x.y is also defined in a.yaml:1"},
		{"rule and data", files("p.rego", allowAll, "a.yaml", "envoy: {authz: {allow: true}}"), Options{},
			"p.rego:3:1: conflicting rule for data path envoy/authz/allow found"},
		{"rule below data", files("p.rego", allowAll, "a.yaml", "envoy: 5"), Options{},
			"p.rego:3:1: conflicting rule for data path envoy/authz/allow found"},
		{"no such rule", files("p.rego", allowAll), Options{Query: "envoy/authz/deny"},
			"the query data.envoy.authz.deny names no rule and no package with rules"},
		{"data is no rule", files("p.rego", allowAll, "a.yaml", "flags: {allow: true}"), Options{Query: "flags/allow"},
			"the query data.flags.allow names no rule and no package with rules"},
		{"empty query", files("p.rego", allowAll), Options{Query: "/"},
			`the query "/" does not name a rule or a package`},
		{"query of everything", files("p.rego", allowAll), Options{Query: "data"},
			`the query "data" does not name a rule or a package`},
		{"query with a variable", files("p.rego", allowAll), Options{Query: "data.envoy[x]"},
			`the query "data.envoy[x]" does not name a rule or a package`},
		{"query that is Rego", files("p.rego", allowAll), Options{Query: "data.envoy.authz.allow == true"},
			`the query "data.envoy.authz.allow == true" does not name a rule or a package`},
		{"profile has no place", files("p.rego", allowAll, "a.yaml", "tollkeeper: 1"), Options{Profile: "rfc"},
			"data.tollkeeper must be an object"},
		{"nowhere", Source{}, Options{}, "no policy path is given"},
		{"missing", FS(fstest.MapFS{}, "policies"), Options{}, "policies: file does not exist"},
		{"not a policy", FS(fstest.MapFS{"a.txt": {}}, "a.txt"), Options{},
			"a.txt: want a policy (.rego) or data (.json, .yaml, .yml)"},
		{"several at once", files("p.rego", "package p\nallow if {", "d.json", "{"), Options{},
			"p.rego:2:10: unexpected eof token\nd.json:1:1: unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Compile(t.Context(), tt.src, tt.o)
			if b != nil || err == nil {
				t.Fatal("it compiled")
			}
			var le *LoadError
			if !errors.As(err, &le) || len(le.Faults) == 0 {
				t.Fatalf("got %T without faults", err)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			for _, f := range le.Faults {
				if f.Code == "" {
					t.Errorf("fault %v has no code", f)
				}
			}
		})
	}
}

func TestCompile_StopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compile(ctx, files("p.rego", allowAll), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCompile_QueryForms(t *testing.T) {
	src := files("p.rego", "package edge[\"gate-1\"]\n\nallow := true\n")
	for _, q := range []string{"edge/gate-1/allow", "/edge/gate-1/allow", `data.edge["gate-1"].allow`} {
		b := mustCompile(t, src, Options{Query: q})
		if got := b.Query.String(); got != `data.edge["gate-1"].allow` {
			t.Errorf("%s became %s", q, got)
		}
	}
}

func TestCompile_MergesData(t *testing.T) {
	b := mustCompile(t, files(
		"p.rego", allowAll,
		"plans.yaml", "tollkeeper:\n  plans: {free: {units: 9007199254740993}}\n",
		"reasons.json", "\xef\xbb\xbf"+`{"tollkeeper": {"profile": "strict", "reasons": {"a": 1}}}`,
		"sub/dir/list.yml", "- 1\n- two\n",
		"sub/more.json", `{"x": null}`,
		"notes.txt", "not data",
		".hidden.json", "{",
		"..data/plans.yaml", "[",
		"p_test.rego", "package broken {",
	), Options{Profile: "rfc"})
	tests := []struct {
		path []string
		want string
		ok   bool
	}{
		{[]string{"tollkeeper", "profile"}, `"rfc"`, true},
		{[]string{"tollkeeper", "plans", "free", "units"}, `9007199254740993`, true},
		{[]string{"tollkeeper", "reasons"}, `{"a":1}`, true},
		{[]string{"sub", "dir"}, `{"list":null}`, false},
		{[]string{"sub", "x"}, `null`, true},
		{[]string{"sub", "x", "y"}, ``, false},
		{[]string{"nothing"}, ``, false},
	}
	for _, tt := range tests {
		got, ok := b.Data(tt.path...)
		if tt.path[0] == "sub" && tt.path[1] == "dir" {
			list, _ := got.([]any)
			if !ok || len(list) != 2 {
				t.Errorf("sub.dir is %v", got)
			}
			continue
		}
		if ok != tt.ok {
			t.Errorf("%v: found %v", tt.path, ok)
			continue
		}
		if !ok {
			continue
		}
		raw, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(raw); text != tt.want {
			t.Errorf("%v is %s, want %s", tt.path, text, tt.want)
		}
	}
}

func TestCompile_Revision(t *testing.T) {
	base := mustCompile(t, files("p.rego", allowAll), Options{})
	same := mustCompile(t, files("p.rego", allowAll), Options{Query: "data.envoy.authz.allow"})
	if base.Revision != same.Revision {
		t.Error("two spellings of one query differ")
	}
	if len(base.Revision) != 16 {
		t.Errorf("revision %q", base.Revision)
	}
	seen := []string{base.Revision}
	for name, p := range map[string]*Bundle{
		"content": mustCompile(t, files("p.rego", allowAll+"# more\n"), Options{}),
		"name":    mustCompile(t, files("q.rego", allowAll), Options{}),
		"file":    mustCompile(t, files("p.rego", allowAll, "d.json", "{}"), Options{}),
		"profile": mustCompile(t, files("p.rego", allowAll), Options{Profile: "rfc"}),
		"query":   mustCompile(t, files("p.rego", allowAll), Options{Query: "envoy/authz"}),
	} {
		if slices.Contains(seen, p.Revision) {
			t.Errorf("another %s, the same revision", name)
		}
		seen = append(seen, p.Revision)
	}
}

func TestCompile_Strict(t *testing.T) {
	schema := []byte(`{"type": "object", "properties": {"key": {"type": "object", "properties": {"status": {"type": "string"}}, "additionalProperties": false}}}`)
	tests := []struct {
		name, rule, want string
	}{
		{"unused variable", "allow if {\n\tx := 1\n}", "p.rego:4:2: assigned var x unused"},
		{"name that the schema lacks", `allow if input.key.state == "active"`, "p.rego:3:10: undefined ref: input.key.state"},
		{"type that never matches", `allow if input.key.status == 7`, "p.rego:3:10: match error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := module(tt.rule)
			mustCompile(t, src, Options{Schema: schema})
			_, err := Compile(t.Context(), src, Options{Schema: schema, Strict: true})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if _, err := Compile(t.Context(), module(`allow if input.key.status == "active"`), Options{Schema: schema, Strict: true}); err != nil {
		t.Errorf("a good policy: %v", err)
	}
	if _, err := Compile(t.Context(), module(`allow := true`), Options{Schema: []byte("{"), Strict: true}); err == nil {
		t.Error("a broken schema was taken")
	}
}
