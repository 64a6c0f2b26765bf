package rules

import (
	"fmt"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about the state of this machine: the policies and the data directory.

// seen returns checks that report texts at a field.
func seen(field string, texts func(*model.Own, *model.State) []string) []rule.Check {
	return onThisMachine(func(_ *model.Model, o *model.Own, s *model.State, report rule.Report) {
		for _, text := range texts(o, s) {
			report(rule.At(o.At(field), "%s", text))
		}
	})
}

// textIf returns a list with the text if the condition is true.
func textIf(holds bool, format string, args ...any) []string {
	if !holds {
		return nil
	}
	return []string{fmt.Sprintf(format, args...)}
}

var ownPolicies = rule.Rule{
	ID: "TK202", Severity: rule.Error, Since: since, Title: "The policies cannot be used.",
	Why:    "The server does not start, unless its data directory has the policies that it used last. A running server keeps its policies.",
	Remedy: "Run tollkeeper policy check on them.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) (out []string) {
		for _, fault := range s.PolicyFaults {
			if s.PolicyKept != "" {
				fault += " (a start uses the policies that were kept at " + s.PolicyKept + ")"
			}
			out = append(out, fault)
		}
		return out
	}),
}

var ownCache = rule.Rule{
	ID: "TK203", Severity: rule.Info, Since: since, Title: "Verdicts are not cached.",
	Why:    "Each check evaluates the policy, which takes most of the time of a check.",
	Remedy: "Avoid functions in the policies that ask the clock or the network, and keep policy.memo above 0.",
	Checks: seen("policy.memo", func(_ *model.Own, s *model.State) []string {
		return textIf(strings.HasPrefix(s.VerdictCache, "off"), "the cache of verdicts is %s", s.VerdictCache)
	}),
}

var ownEvaluator = rule.Rule{
	ID: "TK209", Severity: rule.Info, Since: since, Title: "The policies are not compiled.",
	Why:    "OPA's evaluator decides, which takes about ten times as long.",
	Remedy: "Change the rule that cannot be compiled, or set policy.evaluator to compiled.",
	Checks: seen("policy.evaluator", func(_ *model.Own, s *model.State) []string {
		return textIf(s.Evaluator != "" && s.Evaluator != "compiled", "the evaluator is %s", s.Evaluator)
	}),
}

var ownTests = rule.Rule{
	ID: "TK204", Severity: rule.Warning, Since: since, Title: "Tests of the policies fail.",
	Why:    "They may not decide as intended.",
	Remedy: "Run tollkeeper policy test on them.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string {
		return textIf(len(s.FailedTests) > 0, "tests of the policies fail: %s", some(s.FailedTests))
	}),
}

var ownStrict = rule.Rule{
	ID: "TK207", Severity: rule.Warning, Since: since, Title: "The policies do not pass the strict check.",
	Why:    "The server accepts them, but something in them is unused, misspelt or never true.",
	Remedy: "Run tollkeeper policy check on them.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string { return s.PolicyNotes }),
}

var ownPlans = rule.Rule{
	ID: "TK208", Severity: rule.Error, Since: since, Title: "Accounts or keys are on a plan that does not exist.",
	Why:    "Their requests are denied with policy_error. A running server keeps its plans, and a restarted one uses those that it had last.",
	Remedy: "Restore the plan, or change their plan: tollkeeper account update ID --plan PLAN.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string { return s.MissingPlans }),
}

var ownData = rule.Rule{
	ID: "TK210", Severity: rule.Error, Since: since, Title: "The data directory cannot be used.",
	Why:    "The server does not start.",
	Remedy: "Name a directory that the server's user can write to.",
	Checks: seen("data_dir", func(_ *model.Own, s *model.State) []string {
		return textIf(s.Data.Fault != "", "the data directory cannot be used: %s", s.Data.Fault)
	}),
}

var ownRunning = rule.Rule{
	ID: "TK211", Severity: rule.Info, Since: since, Title: "A server is using the data directory.",
	Why:    "Only that server can check its data file.",
	Remedy: "Run tollkeeper doctor ledger, which asks the server.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		return textIf(s.Data.Running, "a server is using %s, so the data file was not checked", o.Config.DataDir)
	}),
}

var ownDisk = rule.Rule{
	ID: "TK212", Severity: rule.Warning, Since: since, Title: "The disk of the data directory is nearly full.",
	Why:    "Once it is full, keys cannot be changed and quotas cannot be reserved: requests are denied.",
	Remedy: "Delete files, or use a larger volume.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		const low = 256 << 20
		return textIf(s.Data.Free > 0 && s.Data.Free < low, "the disk of %s has %d MiB left", o.Config.DataDir, s.Data.Free>>20)
	}),
}

var ownShared = rule.Rule{
	ID: "TK213", Severity: rule.Warning, Since: since, Title: "Other users can read the data directory.",
	Why:    "It holds the admin token, and the digests of all keys.",
	Remedy: "chmod 700 the data directory, and chmod 600 the files in it.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		return textIf(s.Data.Shared, "other users of this machine can read the admin token or the data file in %s", o.Config.DataDir)
	}),
}

var ownDamage = rule.Rule{
	ID: "TK214", Severity: rule.Error, Since: since, Title: "The data file is damaged.",
	Why:    "The server does not start, or denies what it cannot read.",
	Remedy: "Run tollkeeper doctor ledger for all that is wrong, and restore a backup.",
	Checks: seen("data_dir", func(_ *model.Own, s *model.State) []string {
		return textIf(s.Data.Damage != "", "the data file is damaged: %s", s.Data.Damage)
	}),
}
