package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rules"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Types of the layers that callers need.
type (
	File       = model.File
	Subject    = model.Subject
	State      = model.State
	DataDir    = model.DataDir
	StartFault = model.StartFault
	TableData  = model.TableData
	TableFault = model.TableFault
	Operation  = model.Operation
	TLSFiles   = model.TLSFiles
	Options    = model.Options
	Finding    = rule.Finding
	Severity   = rule.Severity
	Rule       = rule.Rule
)

// See the layers below.
const (
	AnySubject   = model.AnySubject
	EnvoySubject = model.EnvoySubject
	IstioSubject = model.IstioSubject
	EGSubject    = model.EGSubject
	OwnSubject   = model.OwnSubject

	Error   = rule.Error
	Warning = rule.Warning
	Info    = rule.Info

	MaxBytes = source.MaxBytes
)

// Parse reads a file of any kind. See model.Parse.
func Parse(name string, raw []byte, about Subject) *File { return model.Parse(name, raw, about) }

// ParseData reads a data file of this machine's policies. See model.ParseData.
func ParseData(name string, raw []byte) *File { return model.ParseData(name, raw) }

// OwnFile is the configuration of this machine. See model.OwnFile.
func OwnFile(name string, raw []byte, cfg config.Config, err error, state *State) *File {
	return model.OwnFile(name, raw, cfg, err, state)
}

// Rules are all rules, sorted by id.
func Rules() []Rule { return slices.Clone(rules.All) }

// RuleByID finds a rule.
func RuleByID(id string) (Rule, bool) {
	i := slices.IndexFunc(rules.All, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return rules.All[i], true
}

// Report is what Run found.
type Report struct {
	Files    []Seen    `json:"files"`
	Findings []Finding `json:"findings"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Infos    int       `json:"infos"`
}

// Seen is a file and the kinds of configuration in it.
type Seen struct {
	File string   `json:"file"`
	Is   []string `json:"is"`
}

// Worst is the highest severity in a report, "" if there are no findings.
func (r *Report) Worst() Severity {
	switch {
	case r.Errors > 0:
		return Error
	case r.Warnings > 0:
		return Warning
	case r.Infos > 0:
		return Info
	}
	return ""
}

// Run applies all rules except those in Options.Ignore. The error says what is wrong with the options.
func Run(files []*File, opt Options) (Report, error) {
	for _, id := range opt.Ignore {
		if _, ok := RuleByID(id); !ok {
			return Report{}, fmt.Errorf("there is no rule %q", id)
		}
	}
	m, err := model.Build(files, opt)
	if err != nil {
		return Report{}, err
	}
	r := Report{Files: make([]Seen, 0, len(files)), Findings: []Finding{}}
	for _, f := range files {
		r.Files = append(r.Files, Seen{f.Name, f.Is()})
	}
	for _, rule := range Rules() {
		if !slices.Contains(opt.Ignore, rule.ID) {
			r.apply(m, &rule)
		}
	}
	r.sort()
	return r, nil
}

// maxFindings bounds the findings of one rule and severity, because a file may have millions of faults.
const maxFindings = 500

// apply adds the findings of a rule, without duplicates.
func (r *Report) apply(m *model.Model, rule *Rule) {
	seen := make(map[Finding]bool)
	listed := make(map[Severity]int)
	for _, check := range rule.Checks {
		check(m, func(f Finding) {
			f.Rule = rule.ID
			f.Severity = cmp.Or(f.Severity, rule.Severity)
			f.Remedy = cmp.Or(f.Remedy, rule.Remedy)
			if listed[f.Severity] > maxFindings || seen[f] {
				return
			}
			seen[f] = true
			if listed[f.Severity]++; listed[f.Severity] > maxFindings {
				f.Wrong = fmt.Sprintf("only %d findings like this are listed, and there are more", maxFindings)
			}
			r.add(f)
		})
	}
}

func (r *Report) add(f Finding) {
	r.Findings = append(r.Findings, f)
	switch f.Severity {
	case Error:
		r.Errors++
	case Warning:
		r.Warnings++
	default:
		r.Infos++
	}
}

// sort sorts findings by file, in the order of the files, and then by severity, the worst first.
func (r *Report) sort() {
	order := make(map[string]int)
	for i, f := range r.Files {
		order[f.File] = i
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]), -cmp.Compare(a.Severity.Rank(), b.Severity.Rank()),
			cmp.Compare(a.Line, b.Line), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Path, b.Path), strings.Compare(a.Wrong, b.Wrong),
		)
	})
}
