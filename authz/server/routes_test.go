package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
)

const (
	scopedRoutes = "tollkeeper:\n  routes:\n    - {match: {path: /v1/x}, scopes: [secret]}\n    - openapi: api.yaml\n"
	misspeltX    = "tollkeeper:\n  routes:\n    - {match: {path: /v1/x}, scope: [secret]}\n"
	documentOfX  = `openapi: 3.0.3
info: {title: X, version: "1"}
components: {securitySchemes: {oauth: {type: oauth2, flows: {}}}}
paths:
  /v1/x:
    get: {operationId: x, security: [{oauth: [secret]}], responses: {}}
`
	documentOfY = "openapi: 3.0.3\ninfo: {title: Y, version: \"1\"}\npaths: {/v1/y: {get: {operationId: y, responses: {}}}}\n"
)

// startWithRoutes starts a server on policies with these routes, and makes a key without scopes.
func startWithRoutes(t *testing.T, nameAndContent ...string) (w *running, cfg config.Config, log *journal, key string) {
	t.Helper()
	cfg, log = configFor(t.TempDir()), &journal{}
	cfg.Policy.Paths = []string{policyFolder(t, nameAndContent...)}
	w = startLogging(t, cfg, log.logger())
	return w, cfg, log, w.newKey("acme", "free").Key
}

// TestReload_FaultOfRoutes edits routes and their document badly. The old ones stay, and file and line are in the log, in the
// metric and in the status.
func TestReload_FaultOfRoutes(t *testing.T) {
	w, cfg, log, key := startWithRoutes(t, "routes.yaml", scopedRoutes, "api.yaml", documentOfY)
	w.want(key, 403, "permission_denied")
	dir := cfg.Policy.Paths[0]
	for _, c := range []struct {
		name, file, text string
		line, column     string
		fault            string
	}{
		{"a misspelt field", "routes.yaml", misspeltX, "3", "30", "scope is no field here: did you mean scopes?"},
		{"no plan", "routes.yaml", strings.Replace(scopedRoutes, "scopes: [secret]", "plans: [gold]", 1), "3", "38", `plan \"gold\" does not exist`},
		{"no document", "routes.yaml", strings.Replace(scopedRoutes, "api.yaml", "openapi.yaml", 1), "4", "7", `there is no file \"openapi.yaml\" among the policies`},
		{"a fault in the document", "api.yaml", strings.Replace(documentOfX, "security: [", "securty: [", 1), "6", "0", "securty is no field here"},
		{"a conflict with the document", "api.yaml", strings.NewReplacer("/v1/x:", "/{version}/x:", "get: {", "get: {parameters: [], ").Replace(documentOfX), "6", "0",
			`it and route \"/v1/x\" both match GET, HEAD /v1/x, and neither is more specific`},
		{"a document that cannot be read", "api.yaml", "openapi: [", "1", "0", "did not find expected node content"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, path := w.status().Policy, filepath.Join(dir, c.file)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			writeFiles(t, dir, c.file, c.text)
			w.await("the change is refused", func() bool { return w.status().PolicyFault != "" })
			s := w.status()
			if !strings.HasPrefix(s.PolicyFault, path+":"+c.line+":") || s.Policy != before {
				t.Errorf("revision %s became %s: %s", before, s.Policy, s.PolicyFault)
			}
			logged := grep(log.String(), `"file":"`+path+`","line":`+c.line+`,"column":`+c.column)
			if !strings.Contains(logged, c.fault) || !strings.Contains(logged, `"level":"ERROR"`) || !strings.Contains(logged, "policy refused, the one in force stays") {
				t.Errorf("logged: %s", grep(log.String(), "refused"))
			}
			if m := grep(w.metrics(), "tollkeeper_policy_fault{"); !strings.Contains(m, `file="`+path+`"`) || !strings.Contains(m, `line="`+c.line+`"`) {
				t.Errorf("the metric: %s", m)
			}
			w.want(key, 403, "permission_denied")
			writeFiles(t, dir, c.file, string(whole))
			w.await("the file is good again", func() bool { return w.status().PolicyFault == "" })
		})
	}
}

// TestReload_DocumentOfRoutes edits only the document that routes name.
func TestReload_DocumentOfRoutes(t *testing.T) {
	w, cfg, _, key := startWithRoutes(t, "routes.yaml", "tollkeeper: {routes: [{openapi: api.yaml}]}", "api.yaml", documentOfX)
	w.want(key, 403, "permission_denied")
	writeFiles(t, cfg.Policy.Paths[0], "api.yaml", strings.Replace(documentOfX, "oauth: [secret]", "oauth: []", 1))
	w.await("the document is read again", func() bool { status, _ := w.check(key); return status == 200 })
}

// TestStart_FaultOfRoutes fails with the place of the fault where no policies are kept, and uses the kept ones where there are.
func TestStart_FaultOfRoutes(t *testing.T) {
	w, cfg, _, key := startWithRoutes(t, "routes.yaml", scopedRoutes, "api.yaml", documentOfY)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	dir := cfg.Policy.Paths[0]
	writeFiles(t, dir, "routes.yaml", misspeltX)
	w = start(t, cfg)
	w.want(key, 403, "permission_denied")
	if s := w.status(); s.PolicyKept.IsZero() || !strings.HasPrefix(s.PolicyFault, dir+"/routes.yaml:3:30: ") {
		t.Errorf("%+v", s)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.DataDir, rulebook.KeptFile)); err != nil {
		t.Fatal(err)
	}
	wantNoStart(t, cfg, "policy: "+dir+"/routes.yaml:3:30: scope is no field here")
}

func wantNoStart(t *testing.T, cfg config.Config, want string) {
	t.Helper()
	if s, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("it started, or said: %v", err)
		if s != nil {
			s.close()
		}
	}
}

// TestStart_KeptRoutesAreRefused has kept a table that an older version accepted and this one does not. The configured policies
// count. Without good ones there is nothing to serve by.
func TestStart_KeptRoutesAreRefused(t *testing.T) {
	w, cfg, _, key := startWithRoutes(t, "routes.yaml", scopedRoutes, "api.yaml", documentOfY)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	editKept(t, cfg, "routes.yaml", misspeltX)
	dir, log := cfg.Policy.Paths[0], &journal{}
	writeFiles(t, dir, "routes.yaml", "tollkeeper: {routes: [{match: {path: /v1/x}, scopes: [other]}, {openapi: api.yaml}]}")
	w = startLogging(t, cfg, log.logger())
	w.want(key, 403, "permission_denied")
	if l := grep(log.String(), "the kept policy cannot be used"); !strings.Contains(l, dir+"/routes.yaml:3:30: scope is no field here") {
		t.Errorf("logged: %s", log)
	}
	if s := w.status(); s.PolicyFault != "" || !s.PolicyKept.IsZero() {
		t.Errorf("%+v", s)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	editKept(t, cfg, "routes.yaml", misspeltX)
	writeFiles(t, dir, "routes.yaml", "tollkeeper: {routes: 7}")
	wantNoStart(t, cfg, "policy: "+dir+"/routes.yaml:1:14: want a list of routes")
}

// editKept changes a file of the kept policies.
func editKept(t *testing.T, cfg config.Config, name, text string) {
	t.Helper()
	file := filepath.Join(cfg.DataDir, rulebook.KeptFile)
	var kept map[string]json.RawMessage
	var files []map[string]any
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &kept)
	}
	if err == nil {
		err = json.Unmarshal(kept["files"], &files)
	}
	for _, f := range files {
		if filepath.Base(f["name"].(string)) == name {
			f["bytes"] = []byte(text)
		}
	}
	if err == nil {
		kept["files"], err = json.Marshal(files)
	}
	sum := sha256.Sum256(kept["files"])
	kept["sha256"] = []byte(`"` + hex.EncodeToString(sum[:]) + `"`)
	kept["fingerprint"] = []byte(`"another"`)
	if err == nil {
		raw, err = json.Marshal(kept)
	}
	if err == nil {
		err = os.WriteFile(file, bytes.TrimSpace(raw), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOlderFiles_Decide serves by the files of an older version, which find the route themselves.
func TestOlderFiles_Decide(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../rulebook/testdata/older")); err != nil {
		t.Fatal(err)
	}
	log := &journal{}
	cfg := configFor(t.TempDir())
	cfg.Policy.Paths = []string{dir}
	w := startLogging(t, cfg, log.logger())
	key := w.newKey("acme", "free").Key
	w.want(key, 200, "")
	if l := grep(log.String(), "older_files"); !strings.Contains(l, `"level":"WARN"`) || !strings.Contains(l, "tollkeeper policy init --upgrade "+dir) {
		t.Errorf("logged: %s", log)
	}
	writeFiles(t, dir, "routes.yaml", "tollkeeper: {routes: [{match: {path: /v1/x}, scopes: [secret]}]}")
	w.await("the route is in force", func() bool { _, reason := w.check(key); return reason == "permission_denied" })
	writeFiles(t, dir, "routes.yaml", "tollkeeper: {routes: [{match: {path: \"/v1/{id}\"}, scopes: [secret]}]}")
	w.await("a template is refused", func() bool { return strings.Contains(w.status().PolicyFault, "route.rego is of an older version") })
	w.want(key, 403, "permission_denied")
}
