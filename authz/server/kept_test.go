package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
)

// TestStart_BrokenPolicy breaks the policy in several ways between two starts: the kept one is used.
func TestStart_BrokenPolicy(t *testing.T) {
	for name, breakIt := range map[string]func(*testing.T, *planWorld){
		"a file does not compile": func(t *testing.T, w *planWorld) {
			writeFiles(t, w.dir, "custom.rego", "package tollkeeper.custom\n\ndeny if nope\n")
		},
		"plans cannot be read":      func(t *testing.T, w *planWorld) { writeFiles(t, w.dir, "plans.yaml", "tollkeeper: {plans: [1]}\n") },
		"the folder is gone":        func(t *testing.T, w *planWorld) { _ = os.RemoveAll(w.dir) },
		"another rule is asked for": func(_ *testing.T, w *planWorld) { w.cfg.Policy.Query = "envoy/authz/nothing" },
		"a plan that is used is gone": func(t *testing.T, w *planWorld) {
			writeFiles(t, w.dir, "plans.yaml", strings.Replace(plansInUse, "basic:", "base:", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := startPlanWorld(t, nil)
			before := w.status()
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			breakIt(t, w)
			log := &journal{}
			w.running = startLogging(t, w.cfg, log.logger())
			now := w.status()
			if now.Policy != before.Policy || now.PolicyFault == "" || now.PolicyKept.IsZero() {
				t.Errorf("status: %+v", now)
			}
			if m := w.metrics(); !strings.Contains(m, "tollkeeper_policy_kept 1") || !strings.Contains(m, "tollkeeper_policy_fault{") {
				t.Errorf("metrics: %s", grep(m, "policy"))
			}
			if l := grep(log.String(), "serving the last good policy"); !strings.Contains(l, "ERROR") {
				t.Errorf("logged: %s", log)
			}
			w.want(w.basic.Key, 200, "")

			// The next start uses the kept one again, and a reload the files once they are good.
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			w.running = start(t, w.cfg)
			w.want(w.basic.Key, 200, "")
			if w.cfg.Policy.Query != config.Default().Policy.Query {
				return
			}
			if err := os.MkdirAll(w.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			writeFiles(t, w.dir, "plans.yaml", plansInUse, "custom.rego", "package envoy.authz\n\nallow := {\"allowed\": false, \"reason\": \"repaired\"}\n")
			for _, shipped := range []string{"authz.rego"} {
				_ = os.Remove(filepath.Join(w.dir, shipped))
			}
			w.await("the repaired policy is in force", func() bool {
				_, reason := w.check(w.basic.Key)
				return reason == "repaired"
			})
			if s := w.status(); s.PolicyFault != "" || !s.PolicyKept.IsZero() || !strings.Contains(w.metrics(), "tollkeeper_policy_kept 0") {
				t.Errorf("after the repair: %+v", s)
			}
		})
	}
}

// TestStart_KeptPolicyThatDoesNotFit fails to start where the kept policy is damaged, missing, or of other paths.
func TestStart_KeptPolicyThatDoesNotFit(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *planWorld){
		"nothing is kept": func(t *testing.T, w *planWorld) {
			if err := os.Remove(filepath.Join(w.cfg.DataDir, rulebook.KeptFile)); err != nil {
				t.Fatal(err)
			}
		},
		"a byte of it is another": func(t *testing.T, w *planWorld) {
			file := filepath.Join(w.cfg.DataDir, rulebook.KeptFile)
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			i := strings.Index(string(raw), `"bytes":"`) + 20
			raw[i] = map[bool]byte{true: 'B', false: 'A'}[raw[i] == 'A']
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"it is of other paths": func(t *testing.T, w *planWorld) {
			w.cfg.Policy.Paths = []string{policyFolder(t, "custom.rego", "broken")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := startPlanWorld(t, nil)
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			writeFiles(t, w.dir, "custom.rego", "broken")
			spoil(t, w)
			if _, err := New(t.Context(), w.cfg, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "custom.rego:1") {
				t.Errorf("it started, or said: %v", err)
			}
		})
	}
}
