package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/bench/evaluators"
)

func TestCompareEvaluators_ChosenRows(t *testing.T) {
	t.Chdir("../..")
	file := filepath.Join(t.TempDir(), "table.md")
	o, err := parseFlags([]string{"-evaluators", "-quick", "-only", "small: constant,semver", "-markdown", file})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := compareEvaluators(t.Context(), o, &text); err != nil {
		t.Fatal(err)
	}
	markdown, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"small: constant", "semver"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(string(markdown), "\n| "+want+" | ") {
			t.Errorf("no row %q in\n%s\n%s", want, text.String(), markdown)
		}
	}
	if strings.Contains(text.String(), "guarded") {
		t.Errorf("rows that were not asked for:\n%s", text.String())
	}
}

func TestSlowRows(t *testing.T) {
	results := []evaluators.Result{{WorstName: "fast", Worst: .003}, {WorstName: "equal", Worst: 1.2}, {WorstName: "slow", Worst: 1.25}}
	if got := slowRows(results); !strings.Contains(got, "for 1 of 3: slow (1.2×)") {
		t.Error(got)
	}
	if got := slowRows(results[:2]); !strings.HasPrefix(got, "No program") {
		t.Error(got)
	}
}

func TestShare(t *testing.T) {
	for f, want := range map[float64]string{0: "-", .00312: "0.0031×", .067: "0.067×", .5: "0.50×", 1: "1.0×", 76.3: "76×"} {
		if got := share(f); got != want {
			t.Errorf("%v is %s, want %s", f, got, want)
		}
	}
}
