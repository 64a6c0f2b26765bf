package server

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// policyFolder is a folder with the shipped policies in it, and more files over them: pairs of name and content.
func policyFolder(t testing.TB, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, policies.Files); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, more...)
	return dir
}

func writeFiles(t testing.TB, dir string, nameAndContent ...string) {
	t.Helper()
	for i := 0; i < len(nameAndContent); i += 2 {
		// In one step, as editors and Kubernetes do: a reload must not see half a file.
		file := filepath.Join(dir, nameAndContent[i])
		if err := os.WriteFile(file+".new", []byte(nameAndContent[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
}

// journal is a log that tests read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

// explain asks how a GET of /v1/x with that key would be decided.
func (r *running) explain(key string) admin.Explanation {
	r.t.Helper()
	var e admin.Explanation
	r.do("POST", "/v1/explain", map[string]any{"attributes": map[string]any{"request": map[string]any{"http": map[string]any{
		"method": "GET", "path": "/v1/x", "headers": map[string]string{"x-api-key": key},
	}}}}, &e)
	return e
}

// TestCustomDeny_EveryFormDenies serves each form in which an operator may write a rule, and sends two checks.
func TestCustomDeny_EveryFormDenies(t *testing.T) {
	dir := policyFolder(t)
	cfg := configFor(t.TempDir())
	cfg.Policy.Paths = []string{dir}
	cfg.Policy.AllowRemovedPlans = true
	r := start(t, cfg)
	key := r.newKey("acme", "free").Key
	for rule, want := range map[string][2]string{
		`deny contains {"reason": "no_way"} if input.key.id != ""`:                                                        {"no_way", ""},
		`deny contains {"reason": "no_way", "detail": "No."} if input.key.id != ""`:                                       {"no_way", "No."},
		`deny contains {"detail": "No."} if input.key.id != ""`:                                                           {"policy_denied", "No."},
		`deny contains {"reason": "No Way"} if input.key.id != ""`:                                                        {"policy_denied", ""},
		`deny contains "No." if input.key.id != ""`:                                                                       {"policy_denied", "No."},
		`deny contains msg if { msg := sprintf("No %s.", [input.account.id]) }`:                                           {"policy_denied", "No acme."},
		"deny contains \"No.\" if input.key.id == \"\"\n\ndeny contains {\"reason\": \"no_way\"} if input.key.id != \"\"": {"no_way", ""},
		`deny contains 5 if input.key.id != ""`:                                                                           {"policy_denied", ""},
		`deny if input.key.id != ""`:                                                                                      {"policy_denied", ""},
		`deny := true`:                                                                                                    {"policy_denied", ""},
		"default deny := false\n\ndeny if input.key.id != \"\"":                                                           {"policy_denied", ""},
		`deny := "No." if input.key.id != ""`:                                                                             {"policy_denied", "No."},
		`deny := {"reason": "no_way", "detail": "No."} if input.key.id != ""`:                                             {"no_way", "No."},
		`deny := [{"reason": "no_way"}] if input.key.id != ""`:                                                            {"no_way", ""},
		`deny["No."] if input.key.id != ""`:                                                                               {"policy_denied", "No."},
		`deny["x"] := {"reason": "no_way"} if input.key.id != ""`:                                                         {"no_way", ""},
		`deny := null if input.key.id != ""`:                                                                              {"policy_denied", ""},
	} {
		var before, status admin.Status
		r.do("GET", "/v1/status", nil, &before)
		writeFiles(t, dir, "custom.rego", "package tollkeeper.custom\n\n"+rule+"\n")
		if _, err := rulebook.Check(t.Context(), cfg.Policy, nil); err != nil {
			t.Errorf("%s\nis refused: %v", rule, err)
			continue
		}
		r.await("the rule is in force: "+rule, func() bool {
			r.do("GET", "/v1/status", nil, &status)
			return status.Policy != before.Policy && status.PolicyFault == ""
		})
		if e := r.explain(key); e.Allowed || e.Reason != want[0] || e.Detail != want[1] {
			t.Errorf("%s\ngives %q %q, want %q", rule, e.Reason, e.Detail, want)
		}
		for range 2 {
			r.want(key, 403, want[0])
		}
	}
}

// TestPolicyErrors_AreCountedRecordedAndExplained has a rule that cannot read what it is given, under "not".
func TestPolicyErrors_AreCountedRecordedAndExplained(t *testing.T) {
	lax := false
	rule := "package tollkeeper.custom\n\ndeny contains {\"reason\": \"too_old\"} if not young\n\ndeny contains \"never\" if {\n\tprint(\"seen\", input.key.account)\n\tnot is_string(input.key.id)\n}\n\nyoung if not old\n\nold if to_number(input.key.name) > 30\n"
	for _, strict := range []*bool{nil, &lax} {
		dir := t.TempDir()
		cfg := configFor(dir)
		cfg.Policy.Paths = []string{policyFolder(t, "custom.rego", rule)}
		cfg.Policy.StrictErrors = strict
		cfg.Log.Decisions = filepath.Join(dir, "decisions")
		log := &journal{}
		r := startLogging(t, cfg, log.logger())
		var k admin.Key
		r.do("POST", "/v1/accounts", admin.AccountCreate{ID: "acme", Plan: "free"}, nil)
		r.do("POST", "/v1/keys", admin.KeyCreate{Account: "acme", Name: "old"}, &k)

		status, reason := 403, "policy_error"
		if strict != nil {
			status, reason = 200, ""
		}
		r.want(k.Key, status, reason)
		r.want(k.Key, status, reason)
		if m := r.metrics(); !strings.Contains(m, "tollkeeper_policy_errors_total 2") {
			t.Errorf("not counted: %s", grep(m, "policy_errors"))
		}
		place := filepath.Join(cfg.Policy.Paths[0], "custom.rego") + ":12: to_number: "
		if e := r.explain(k.Key); e.Status != map[bool]int{true: 403, false: 0}[strict == nil] || len(e.PolicyErrors) != 1 || !strings.HasPrefix(e.PolicyErrors[0], place) {
			t.Errorf("explained: %d %s %q", e.Status, e.Reason, e.PolicyErrors)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(cfg.Log.Decisions)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		for _, line := range lines {
			var d struct {
				Errors []string `json:"policy_errors"`
			}
			if err := json.Unmarshal([]byte(line), &d); err != nil || len(d.Errors) != 1 || !strings.HasPrefix(d.Errors[0], place) {
				t.Errorf("the record of the decision: %s", line)
			}
		}
		if len(lines) != 2 {
			t.Errorf("%d decisions are recorded, want 2", len(lines))
		}
		printed := grep(log.String(), "seen acme")
		if strings.Count(printed, `"line":6`) != 3 || !strings.Contains(printed, "custom.rego") {
			t.Errorf("printed for two checks and an explanation: %s", printed)
		}
	}
}

// TestPolicyWarnings_AreLogged has a package that no rule reads.
func TestPolicyWarnings_AreLogged(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Policy.Paths = []string{policyFolder(t, "custom.rego", "package tollkeper.custom\n\ndeny contains \"x\" if input.key.id\n")}
	log := &journal{}
	startLogging(t, cfg, log.logger())
	if got := grep(log.String(), "tollkeper.custom"); !strings.Contains(got, `"WARN"`) || !strings.Contains(got, "did you mean package tollkeeper.custom?") {
		t.Errorf("logged: %s", got)
	}
	s, err := rulebook.Check(t.Context(), config.Policy{}, nil)
	if err != nil || len(s.Warnings) > 0 || !s.StrictErrors {
		t.Errorf("the shipped policies: %v, %+v", err, s)
	}
}
