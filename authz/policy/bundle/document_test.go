package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	namesAPI = "tollkeeper:\n  routes:\n    - name: a\n    - openapi: api/v1.yaml\n"
	api      = "openapi: 3.1.0\npaths:\n  /a:\n    $ref: \"parts/a%20b.json#/x\"\n  /b: {$ref: '#/paths/~1a'}\n  /c: {$ref: https://example.com/c.yaml}\n"
	part     = `{"x": {"get": {"schema": {"$ref": "../../common/s.yaml"}}}, "$ref": {"not": "a reference"}}`
	common   = "[1, {\"$ref\": \"../api/v1.yaml\"}]"
)

func apiFiles(more ...string) Source {
	return files(append([]string{"p.rego", allowAll, "conf/routes.yaml", "", "routes.yaml", namesAPI, "api/v1.yaml", api, "api/parts/a b.json", part,
		"common/s.yaml", common, "conf/routes.yaml", "mine: 1"}, more...)...)
}

func TestDocument_IsNoData(t *testing.T) {
	b := mustCompile(t, apiFiles(), Options{})
	for _, name := range []string{"api", "common", "openapi", "paths"} {
		if v, ok := b.Data(name); ok {
			t.Errorf("data.%s is %v", name, v)
		}
	}
	if _, ok := b.Data("conf", "mine"); !ok || len(b.Warnings) > 0 {
		t.Errorf("the other data is missing, or there are warnings: %v", b.Warnings)
	}
	for _, c := range []struct{ from, name, file, content string }{
		{"routes.yaml", "api/v1.yaml", "api/v1.yaml", api},
		{"routes.yaml", "./api/../api/v1.yaml", "api/v1.yaml", api},
		{"", "api/v1.yaml", "api/v1.yaml", api},
		{"api/v1.yaml", "parts/a b.json", "api/parts/a b.json", part},
		{"api/parts/a b.json", "../../common/s.yaml", "common/s.yaml", common},
		{"routes.yaml", "conf/routes.yaml", "", ""}, // in the source, and no document
		{"routes.yaml", "p.rego", "", ""},
		{"routes.yaml", "../routes.yaml", "", ""},
		{"routes.yaml", "/etc/passwd", "", ""},
		{"routes.yaml", "https://example.com/c.yaml", "", ""},
		{"routes.yaml", "", "", ""},
	} {
		file, content, ok := b.Document(c.from, c.name)
		if file != c.file || string(content) != c.content || ok != (c.file != "") {
			t.Errorf("%s from %s: %q, %q, %v", c.name, c.from, file, content, ok)
		}
	}
}

// TestDocument_IsKept holds that documents are part of what is watched, held and packed.
func TestDocument_IsKept(t *testing.T) {
	src := apiFiles()
	one, err := src.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if two, err := apiFiles("common/s.yaml", common+"\n").Fingerprint(); err != nil || two == one {
		t.Errorf("a change of a document went unnoticed: %v", err)
	}
	packed, err := src.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if src, err = Unpack(packed); err != nil {
		t.Fatal(err)
	}
	b := mustCompile(t, src, Options{})
	if _, content, ok := b.Document("api/v1.yaml", "../common/s.yaml"); !ok || string(content) != common || b.Fingerprint != one {
		t.Errorf("after unpacking: %q, %v, fingerprint %s, before %s", content, ok, b.Fingerprint, one)
	}
}

func TestDocument_OnDisk(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"rules/p.rego": allowAll, "rules/routes.yaml": "tollkeeper: {routes: [{openapi: ../apis/v1.json}]}", "apis/v1.json": "{\"openapi\": \"3.0.0\"}"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := mustCompile(t, Disk(filepath.Join(dir, "rules"), filepath.Join(dir, "apis")), Options{})
	file, _, _ := b.Locate("tollkeeper", "routes", 0)
	if got, _, ok := b.Document(file, "../apis/v1.json"); !ok || got != filepath.Join(dir, "apis/v1.json") {
		t.Errorf("got %q, %v", got, ok)
	}
	// A file outside of the policies is not read.
	if _, err := Compile(t.Context(), Disk(filepath.Join(dir, "rules")), Options{}); err == nil || !strings.Contains(err.Error(), `rules/routes.yaml:1:24: there is no file "../apis/v1.json" among the policies`) {
		t.Errorf("got %v", err)
	}
}

func TestDocument_Faults(t *testing.T) {
	const ownData = ": this file is named as an OpenAPI document and has data of its own below tollkeeper: divide it into two files"
	for name, c := range map[string]struct {
		more []string
		want string
	}{
		"missing":                       {[]string{"routes.yaml", "tollkeeper:\n  routes:\n    - openapi: no.yaml\n"}, `routes.yaml:3:7: there is no file "no.yaml" among the policies: give a .yaml or .json file, relative to this one`},
		"a file with routes":            {[]string{"routes.yaml", "tollkeeper: {routes: [{openapi: v1.yaml}]}", "v1.yaml", "openapi: 3.0.0\ntollkeeper: {plans: {}}"}, "v1.yaml:1:1" + ownData},
		"itself":                        {[]string{"routes.yaml", "tollkeeper:\n  routes:\n    - openapi: routes.yaml\n"}, "routes.yaml:1:1" + ownData},
		"plans by a reference":          {[]string{"api/v1.yaml", "openapi: 3.0.0\nx: {$ref: ../plans.yaml}", "plans.yaml", "tollkeeper: {plans: {}}"}, "plans.yaml:1:1" + ownData},
		"plans in a directory's name":   {[]string{"api/v1.yaml", "openapi: 3.0.0\nx: {$ref: ../tollkeeper/plans/p.yaml}", "tollkeeper/plans/p.yaml", "free: {}"}, "tollkeeper/plans/p.yaml:1:1" + ownData},
		"itself, in a directory's name": {[]string{"tollkeeper/r.yaml", "routes: [{openapi: r.yaml}]", "routes.yaml", "{}"}, "tollkeeper/r.yaml:1:1" + ownData},
		"text that cannot be read":      {[]string{"api/v1.yaml", "openapi: [\n"}, "api/v1.yaml:1: yaml: line 1: did not find expected node content"},
	} {
		_, err := Compile(t.Context(), apiFiles(c.more...), Options{})
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got  %v\nwant %s", name, err, c.want)
		}
	}
}

func TestDocument_BelowTollkeeper(t *testing.T) {
	b := mustCompile(t, files("p.rego", allowAll, "tollkeeper/r.yaml", "routes: [{openapi: api.yaml}]", "tollkeeper/api.yaml", "openapi: 3.0.0\npaths: {}"), Options{})
	if _, ok := b.Data("tollkeeper", "paths"); ok {
		t.Error("the paths of a document became the setting of that name")
	}
}

func TestWarnings_UnnamedDocument(t *testing.T) {
	const text = "# An API.\nopenapi: 3.0.3\npaths: {}\n"
	b := mustCompile(t, files("p.rego", allowAll, "api.yaml", text), Options{})
	want := "api.yaml:2:1: this OpenAPI document is read as data, because no route names it: write - openapi: api.yaml below tollkeeper.routes"
	if len(b.Warnings) != 1 || b.Warnings[0].String() != want {
		t.Errorf("got  %v\nwant %s", b.Warnings, want)
	}
}
