package lint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// The Envoy configurations that we ship break no rule.
func TestShipped_EnvoyConfigurationsAreClean(t *testing.T) {
	names, err := filepath.Glob("../../../envoy/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no configurations found: %v", err)
	}
	names = append(names, "../../../k8s/standalone/envoy.yaml")
	for _, name := range names {
		t.Run(strings.TrimPrefix(name, "../../../"), func(t *testing.T) {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f := lint.Parse(filepath.Base(name), raw, lint.AnySubject)
			if !f.Known() {
				t.Fatal("doctor does not know this file")
			}
			r, err := lint.Run([]*lint.File{f}, lint.Options{EnvoyVersion: "1.40.0"})
			if err != nil {
				t.Fatal(err)
			}
			if w := r.Worst(); w == lint.Error || w == lint.Warning {
				var text strings.Builder
				_ = r.WriteText(&text)
				t.Error(text.String())
			}
		})
	}
}
