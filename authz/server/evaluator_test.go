package server

import (
	"strings"
	"testing"
)

// TestEvaluator_IsVisible looks at what the metrics, the status, explanations and the log say about what decides.
func TestEvaluator_IsVisible(t *testing.T) {
	const refused = "package tollkeeper.custom\n\ndeny contains \"x\" if p[1].y\n\np[1] contains \"x\"\n"
	for name, c := range map[string]struct {
		evaluator     string
		files         []string
		metric, shown string
		warned        bool
	}{
		"compiled":    {"compiled", nil, `evaluator="compiled",reason=""`, "compiled", false},
		"configured":  {"opa", nil, `evaluator="opa",reason="configured"`, "OPA's: the configuration asks for it", false},
		"unsupported": {"compiled", []string{"custom.rego", refused}, `evaluator="opa",reason="unsupported"`, "OPA's: ", true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, log := configFor(t.TempDir()), &journal{}
			cfg.Policy.Paths = []string{policyFolder(t, c.files...)}
			cfg.Policy.Evaluator, cfg.Policy.Recheck = c.evaluator, 1
			r := startLogging(t, cfg, log.logger())
			key := r.newKey("acme", "free").Key
			r.want(key, 200, "")
			e := r.explain(key)
			for place, got := range map[string]string{"the status": r.status().Evaluator, "an explanation": e.Evaluator} {
				if !strings.HasPrefix(got, c.shown) {
					t.Errorf("%s says %q", place, got)
				}
			}
			m := r.metrics()
			if got := grep(m, "tollkeeper_policy_evaluator{"); got != "tollkeeper_policy_evaluator{"+c.metric+"} 1\n" {
				t.Errorf("the metrics say %q", got)
			}
			for _, result := range []string{"different", "unfinished"} {
				if !strings.Contains(m, `tollkeeper_policy_rechecks_total{result="`+result+`"} 0`) {
					t.Error(grep(m, "rechecks"))
				}
			}
			if repeated := !strings.Contains(m, `tollkeeper_policy_rechecks_total{result="same"} 0`); repeated != (name == "compiled") {
				t.Error(grep(m, "rechecks"))
			}
			if got := grep(log.String(), "OPA's evaluator decides"); (got != "") != c.warned || c.warned && !strings.Contains(got, "custom.rego:5") {
				t.Errorf("logged %q", got)
			}
			if got := grep(log.String(), "policy loaded"); !strings.Contains(got, `"evaluator":"`+map[bool]string{true: "compiled", false: "opa"}[name == "compiled"]) {
				t.Errorf("logged %q", got)
			}
		})
	}
}
