package rulebook

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
)

// TestBook_Difference moves a revision to OPA's evaluator. It stays there when it is loaded again after another one.
func TestBook_Difference(t *testing.T) {
	dir, cfg := policyOf(t, "a.rego", allowNothing)
	var used policy.Evaluator // when the rules were put in force
	registry, log := prometheus.NewRegistry(), new(bytes.Buffer)
	b := New(Options{
		Policy: cfg, DataDir: t.TempDir(), Metrics: telemetry.New(registry, nil), Log: slog.New(slog.NewTextHandler(log, nil)),
		Use: func(r *check.Rules) { used = r.Policy.(*policy.Policy).Evaluator() }, Uses: func(context.Context) (Uses, error) { return nil, nil },
	})
	if _, ok := b.Evaluator(); ok {
		t.Error("something decides before the start")
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := func(reason policy.EvaluatorReason) {
		t.Helper()
		if e, _ := b.Evaluator(); e.Reason != reason {
			t.Errorf("evaluator: %v, want %q", e, reason)
		}
	}
	load := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.rego"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.reload(t.Context(), source(cfg))
		if b.Fault() != "" {
			t.Fatal(b.Fault())
		}
	}
	want("")
	first := b.inForce.Load().policy
	b.rechecked(policy.Same, nil)
	b.rechecked(policy.Different, &policy.Difference{Revision: first.Revision(), Query: first.Query(), Program: "true", OPA: "false"})
	want(policy.Differs)
	line := log.String()[strings.Index(log.String(), "level=ERROR"):]
	for _, text := range []string{"compiled=true", "opa=false", "revision=" + first.Revision(), "query=" + first.Query()} {
		if !strings.Contains(line, text) {
			t.Errorf("the log has no %s: %s", text, line)
		}
	}
	load(allowNothing + "\nallow if input.key\n")
	want("")
	load(allowNothing)
	want(policy.Differs)
	if used.Reason != policy.Differs {
		t.Error("the program decided for a moment")
	}
	if !strings.Contains(log.String(), "level=WARN msg=\"OPA's evaluator decides") {
		t.Errorf("the load does not tell: %s", log)
	}

	// A difference may come up while the same revision is loaded.
	load(allowNothing + "\nallow if input.token\n")
	b.distrusted.add(b.inForce.Load().policy.Revision())
	b.accept(b.inForce.Load())
	want(policy.Differs)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP tollkeeper_policy_rechecks_total Decisions of the compiled program that OPA's evaluator repeated: same, different (and denied) or unfinished (there was no time).
# TYPE tollkeeper_policy_rechecks_total counter
tollkeeper_policy_rechecks_total{result="different"} 1
tollkeeper_policy_rechecks_total{result="same"} 1
tollkeeper_policy_rechecks_total{result="unfinished"} 0
`), "tollkeeper_policy_rechecks_total"); err != nil {
		t.Error(err)
	}
}

// TestOptionsOf_Evaluator holds that the configuration reaches the policy.
func TestOptionsOf_Evaluator(t *testing.T) {
	_, cfg := policyOf(t, "a.rego", allowNothing)
	cfg.Evaluator, cfg.Recheck = "opa", 7
	if o := optionsOf(cfg); !o.Interpreted || o.Recheck != 7 {
		t.Errorf("%+v", o)
	}
	if s, err := Check(t.Context(), cfg, nil); err != nil || s.Evaluator != "OPA's: the configuration asks for it" {
		t.Errorf("%+v, %v", s, err)
	}
	cfg.Evaluator = "compiled"
	if s, err := Check(t.Context(), cfg, nil); err != nil || s.Evaluator != "compiled" {
		t.Errorf("%+v, %v", s, err)
	}
}
