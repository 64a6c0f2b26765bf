package lint_test

import (
	"os"
	"path/filepath"
	"slices"
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

// The routes that we ship leave open only what the note says that they leave open, and meet the routes of each Envoy that we ship.
func TestShipped_RoutesHaveOneNote(t *testing.T) {
	envoys, err := filepath.Glob("../../../envoy/*.yaml")
	if err != nil || len(envoys) == 0 {
		t.Fatalf("no configurations found: %v", err)
	}
	routes := lint.Parse("routes.yaml", []byte(read(t, "../../../policies/routes.yaml")), lint.AnySubject)
	for _, name := range envoys {
		envoy := lint.Parse("envoy.yaml", []byte(read(t, name)), lint.AnySubject)
		r, err := lint.Run([]*lint.File{envoy, routes}, lint.Options{EnvoyVersion: "1.40.0"})
		if err != nil {
			t.Fatal(err)
		}
		var about []string
		for _, f := range r.Findings {
			if f.Rule >= "TK250" {
				about = append(about, f.Rule+" "+string(f.Severity))
			}
		}
		if !slices.Equal(about, []string{"TK250 info"}) {
			t.Errorf("%s: %q", name, about)
		}
	}
}
