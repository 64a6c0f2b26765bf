package rules

import (
	"fmt"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// The rules of this file report what was seen on this machine: of the policies, and of the data directory.

// seen are checks that report texts at a field.
func seen(field string, texts func(*model.Own, *model.State) []string) []rule.Check {
	return onThisMachine(func(_ *model.Model, o *model.Own, s *model.State, report rule.Report) {
		for _, text := range texts(o, s) {
			report(rule.At(o.At(field), "%s", text))
		}
	})
}

// textIf is a list with a text if something holds.
func textIf(holds bool, format string, args ...any) []string {
	if !holds {
		return nil
	}
	return []string{fmt.Sprintf(format, args...)}
}

var ownPolicies = rule.Rule{
	ID: "TK202", Severity: rule.Error, Since: since, Title: "The policies cannot be used.",
	Why:    "The server does not start, unless its data directory holds the policies that it had last. A running server keeps those that it has.",
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
	ID: "TK203", Severity: rule.Info, Since: since, Title: "Verdicts are not remembered.",
	Why:    "Each check evaluates the policy, which is what costs most.",
	Remedy: "Leave functions that ask the clock or the network out of the policies, and policy.memo above 0.",
	Checks: seen("policy.memo", func(_ *model.Own, s *model.State) []string {
		return textIf(strings.HasPrefix(s.VerdictCache, "off"), "the memory of verdicts is %s", s.VerdictCache)
	}),
}

var ownTests = rule.Rule{
	ID: "TK204", Severity: rule.Warning, Since: since, Title: "Tests of the policies fail.",
	Why:    "They may not decide as they are meant to.",
	Remedy: "Run tollkeeper policy test on them.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string {
		return textIf(len(s.FailedTests) > 0, "tests of the policies fail: %s", some(s.FailedTests))
	}),
}

var ownStrict = rule.Rule{
	ID: "TK207", Severity: rule.Warning, Since: since, Title: "The policies do not pass the strict check.",
	Why:    "The server takes them, but something in them is unused, misspelt or never true.",
	Remedy: "Run tollkeeper policy check on them.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string { return s.PolicyNotes }),
}

var ownPlans = rule.Rule{
	ID: "TK208", Severity: rule.Error, Since: since, Title: "Accounts or keys are on a plan that does not exist.",
	Why:    "Their requests are denied with policy_error. A running server keeps the plans that it has, and a start those that it had last.",
	Remedy: "Bring the plan back, or put them on another: tollkeeper account update ID --plan PLAN.",
	Checks: seen("policy.paths", func(_ *model.Own, s *model.State) []string { return s.MissingPlans }),
}

var ownData = rule.Rule{
	ID: "TK210", Severity: rule.Error, Since: since, Title: "The data directory cannot be used.",
	Why:    "The server does not start.",
	Remedy: "Name a folder that the server's user can write to.",
	Checks: seen("data_dir", func(_ *model.Own, s *model.State) []string {
		return textIf(s.Data.Fault != "", "the data directory cannot be used: %s", s.Data.Fault)
	}),
}

var ownRunning = rule.Rule{
	ID: "TK211", Severity: rule.Info, Since: since, Title: "A server runs on the data directory.",
	Why:    "Only that server can look at its file.",
	Remedy: "Run tollkeeper doctor ledger, which asks it.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		return textIf(s.Data.Running, "a server runs on %s, so that the data file was not looked at", o.Config.DataDir)
	}),
}

var ownDisk = rule.Rule{
	ID: "TK212", Severity: rule.Warning, Since: since, Title: "The disk of the data directory is nearly full.",
	Why:    "Once it is full, keys cannot be changed and quotas cannot be reserved: requests are denied.",
	Remedy: "Make room, or use a larger volume.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		const low = 256 << 20
		return textIf(s.Data.Free > 0 && s.Data.Free < low, "the disk of %s has %d MiB left", o.Config.DataDir, s.Data.Free>>20)
	}),
}

var ownShared = rule.Rule{
	ID: "TK213", Severity: rule.Warning, Since: since, Title: "Other users may read what is in the data directory.",
	Why:    "It holds the admin token, and the digests of all keys.",
	Remedy: "chmod 700 the data directory, and chmod 600 the files in it.",
	Checks: seen("data_dir", func(o *model.Own, s *model.State) []string {
		return textIf(s.Data.Shared, "other users of this machine may read the admin token or the data file in %s", o.Config.DataDir)
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
