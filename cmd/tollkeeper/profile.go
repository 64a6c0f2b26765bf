package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// showProfile prints what the evaluation of a policy takes: first the whole, then where, then what may help.
func showProfile(t *table, p *admin.Profile) {
	t.line("")
	if p == nil {
		t.sentence("There is no profile: the request cannot be read, so the policy is not asked.")
		return
	}
	t.field("time", fmt.Sprintf("%s, of which the input takes %s", took(p.TimeNS), took(p.InputNS)))
	evaluations := fmt.Sprint(p.Evaluations)
	if p.Once != "" {
		evaluations += ": " + p.Once
	}
	t.field("evaluations", evaluations)
	t.field("error", p.Error)
	for _, hint := range p.Hints {
		t.field("hint", hint)
	}
	profileRows(t, p.Rules, []string{"SHARE", "OWN", "TOTAL", "CALLS", "EVALUATED", "AT", "RULE"}, func(r *admin.Profiled) []string {
		return []string{share(r), took(r.OwnNS), took(r.TotalNS), fmt.Sprint(r.Calls), fmt.Sprint(r.Evaluated), at(r), r.Name}
	})
	profileRows(t, p.Functions, []string{"SHARE", "OWN", "CALLS", "FUNCTION"}, func(r *admin.Profiled) []string {
		return []string{share(r), took(r.OwnNS), fmt.Sprint(r.Calls), r.Name}
	})
	profileRows(t, p.Lines, []string{"SHARE", "OWN", "CALLS", "AT", "LINE"}, func(r *admin.Profiled) []string {
		first, _, _ := strings.Cut(r.Name, "\n")
		return []string{share(r), took(r.OwnNS), fmt.Sprint(r.Calls), at(r), first}
	})
}

// profileRows prints the first rows. The others take the least time.
func profileRows(t *table, rows []admin.Profiled, header []string, cells func(*admin.Profiled) []string) {
	const most = 30
	if len(rows) == 0 {
		return
	}
	t.line("")
	t.row(header...)
	for i := range rows[:min(len(rows), most)] {
		t.row(cells(&rows[i])...)
	}
	if more := len(rows) - most; more > 0 {
		t.sentence("%d more take less: see --output json.", more)
	}
}

func share(r *admin.Profiled) string { return fmt.Sprintf("%.1f%%", 100*r.Share) }

func at(r *admin.Profiled) string { return fmt.Sprintf("%s:%d", r.File, r.Line) }

// took formats a time with three digits.
func took(ns int64) string {
	unit := time.Duration(1)
	for time.Duration(ns)/unit >= 1000 {
		unit *= 10
	}
	return time.Duration(ns).Round(unit).String()
}
