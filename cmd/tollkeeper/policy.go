package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
)

func (c *cli) policyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check and test policies, and start your own"}
	cmd.AddCommand(c.policyCheckCmd(), c.policyTestCmd(), c.policyRoutesCmd(), c.policyInitCmd())
	return group(cmd)
}

func (c *cli) policyCheckCmd() *cobra.Command {
	var cfg config.Policy
	var onServer bool
	cmd := &cobra.Command{
		Use: "check [PATH...]", Short: "Compile policies in strict mode, with their routes, plans and reasons",
		Long: `Compile policies in strict mode and read their routes, plans and reasons. No server is needed.
Without paths, the shipped policies are checked. A package that no decision uses, perhaps
because its name is misspelt, is a warning.

With --server, the running server is asked which plans, limits and reasons are in use. If
the policies lack one of them, the check fails, as it does when a server loads them.`,
		Example: "  tollkeeper policy check\n  tollkeeper policy check --server policies/",
		RunE: func(cmd *cobra.Command, paths []string) error {
			cfg.Paths = paths
			var used *admin.Plans
			if onServer {
				used = new(admin.Plans)
				if err := c.do(cmd, "GET", admin.Path("plans"), nil, used); err != nil {
					return err
				}
			}
			s, err := rulebook.Check(cmd.Context(), cfg, used)
			if err != nil {
				return c.policyFaults(cmd, err)
			}
			c.policyWarnings(cmd, s.Warnings)
			return c.show(cmd, s, func(t *table) {
				t.sentence("The policies are good.")
				t.field("revision", s.Revision)
				t.field("query", s.Query)
				t.field("plans", strings.Join(s.Plans, ", "))
				t.field("routes", fmt.Sprint(s.Routes))
				t.field("reasons", fmt.Sprint(s.Reasons))
				t.field("verdict cache", s.Memo)
				t.field("strict errors", fmt.Sprint(s.StrictErrors))
				t.field("evaluator", s.Evaluator)
			})
		},
	}
	cmd.Flags().StringVar(&cfg.Query, "query", bundle.DefaultQuery, "rule that decides")
	cmd.Flags().BoolVar(&onServer, "server", false, "also check that the policies have all that is in use on the running server")
	regoVersion(cmd, &cfg)
	return cmd
}

// regoVersion adds the flag --rego-version, and refuses unknown versions.
func regoVersion(cmd *cobra.Command, cfg *config.Policy) {
	cmd.Flags().StringVar(&cfg.RegoVersion, "rego-version", "v1", "version of Rego in the policies: v1, or v0 as before OPA 1.0")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(bundle.RegoVersions, cfg.RegoVersion) {
			return usagef("--rego-version %q: want v1 or v0", cfg.RegoVersion)
		}
		return nil
	}
}

// policyFaults prints one fault a line in the form file:line:column: text, which editors understand.
func (c *cli) policyFaults(cmd *cobra.Command, err error) error {
	var load *bundle.LoadError
	if !errors.As(err, &load) {
		return err
	}
	if c.output == "json" {
		if err := c.show(cmd, map[string]any{"faults": load.Faults}, nil); err != nil {
			return err
		}
		return errSaid
	}
	for _, f := range load.Faults {
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), f.String())
	}
	return errSaid
}

// policyWarnings prints warnings as policyFaults prints faults. In JSON they are part of the answer.
func (c *cli) policyWarnings(cmd *cobra.Command, warnings []bundle.Fault) {
	if c.output == "json" {
		return
	}
	for _, w := range warnings {
		w.Text = "warning: " + w.Text
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), w.String())
	}
}

func (c *cli) policyTestCmd() *cobra.Command {
	var verbose bool
	var cfg config.Policy
	cmd := &cobra.Command{
		Use: "test [PATH...]", Short: "Run the tests of policies, as opa test does",
		Long: `Run all rules named test_…, including those in files named *_test.rego, as opa test does.
No server is needed. Without paths, the shipped policies are tested.

Each test runs on OPA's evaluator and as a compiled program, which decides requests. They must
give the same value. --verbose names the tests that are not compiled, and why.`,
		Example: "  tollkeeper policy test\n  tollkeeper policy test policies/ --verbose",
		RunE: func(cmd *cobra.Command, paths []string) error {
			cfg.Paths = paths
			results, err := rulebook.Test(cmd.Context(), cfg)
			if err != nil {
				return c.policyFaults(cmd, err)
			}
			bad := 0
			for i := range results {
				if !results[i].Passed() && !results[i].Skipped {
					bad++
				}
			}
			if err := c.show(cmd, results, func(t *table) { testResults(t, results, bad, verbose) }); err != nil {
				return err
			}
			if bad > 0 {
				return errSaid
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print every test")
	regoVersion(cmd, &cfg)
	return cmd
}

func testResults(t *table, results []bundle.TestResult, bad int, verbose bool) {
	both := 0
	for i := range results {
		if results[i].OnBoth() {
			both++
		}
		switch r := &results[i]; {
		case r.Passed():
			if verbose {
				t.row("PASS", r.Name, r.Duration.String())
				if !r.OnBoth() {
					t.line("  not compiled: " + r.Uncompiled)
				}
			}
		case r.Skipped:
			t.row("SKIP", r.Name, fmt.Sprintf("%s:%d", r.File, r.Line))
		default:
			t.row("FAIL", r.Name, fmt.Sprintf("%s:%d", r.File, r.Line))
			if r.Err != nil {
				t.line("  " + r.Err.Error())
			}
			if r.Difference != "" {
				t.line("  " + r.Difference)
			}
			t.line(r.Trace)
			for line := range strings.Lines(r.Output) {
				t.line("  printed: " + strings.TrimRight(line, "\n"))
			}
		}
	}
	if len(results) == 0 {
		t.sentence("There are no tests: name a rule test_… to make it a test.")
		return
	}
	t.sentence("%d of %d tests passed, %d ran on both evaluators.", len(results)-bad, len(results), both)
}
