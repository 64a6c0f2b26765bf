package rego

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// trap is a policy of which a plan, or a first idea of how to run it, has another meaning.
type trap struct {
	name        string
	modules     map[string]string // by file name
	data, input string
	want        string // the value or the error, undefined, or refused if OPA's evaluator must evaluate it
}

// TestTraps has policies for which a plan or an earlier program was wrong.
func TestTraps(t *testing.T) {
	for _, c := range readTraps(t, "traps.txt") {
		t.Run(c.name, c.run)
	}
}

// TestTraps_OfOPAsPlanner has policies for which OPA's planner, or a runtime of its plans, was wrong once. The number is that of the
// issue or the pull request of OPA.
func TestTraps_OfOPAsPlanner(t *testing.T) {
	for _, c := range readTraps(t, "planner.txt") {
		t.Run(c.name, c.run)
	}
}

// readTraps reads a file of traps. Each begins with a line "== name", has modules with "---" between them, and then lines "data: …" and
// "input: …", which are {} if they are missing, and "want: …".
func readTraps(t *testing.T, file string) (out []trap) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimPrefix(string(text), "== "), "\n== ") {
		c := trap{data: "{}", input: "{}", modules: make(map[string]string)}
		name, rest, _ := strings.Cut(block, "\n")
		c.name = name
		var module strings.Builder
		end := func() {
			c.modules[fmt.Sprintf("%d.rego", len(c.modules))] = module.String()
			module.Reset()
		}
		for line := range strings.Lines(rest) {
			field, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch field {
			case "---":
				end()
			case "data":
				c.data = value
			case "input":
				c.input = value
			case "want":
				c.want = value
			default:
				module.WriteString(line)
			}
		}
		end()
		if c.want == "" {
			t.Fatalf("%s: %s wants nothing", file, c.name)
		}
		out = append(out, c)
	}
	return out
}

// run compares both evaluators, and the program's answer with what is wanted.
func (c *trap) run(t *testing.T) {
	e, input, err := c.evaluators(t)
	if _, ok := errors.AsType[refused](err); ok && c.want == "refused" {
		return
	}
	if err != nil || c.want == "refused" {
		t.Fatalf("%v, want %s", err, c.want)
	}
	for range 2 { // the first evaluation must not change what the second one reads
		if d := e.compare(t.Context(), input); d != "" {
			t.Error(d)
		}
		a := e.compiled(t.Context(), "all", input)
		got := a.value + a.err
		if got == "" {
			got = "undefined"
		}
		if got != c.want {
			t.Errorf("%v, want %s", a, c.want)
		}
	}
}

func (c *trap) evaluators(t *testing.T) (*evaluators, ast.Value, error) {
	e, err := newEvaluators(t.Context(), c.modules, ast.MustParseTerm(c.data).Value, modes)
	return e, ast.MustParseTerm(c.input).Value, err
}
