// Package lint reads configurations and says what is wrong with them: of Envoy, which asks Tollkeeper, of Istio and Envoy
// Gateway, which configure Envoy, and Tollkeeper's own. Most faults that it knows pass every validator and are seen only
// when a request is let through that should not be, or when nothing is let through any more.
//
// Files are read by Parse, in which nothing is asked of the network or of any cluster. Run applies the rules of the table
// in table.go, each of which has an id that stays, a sentence on what is wrong and one on how to mend it.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// Severity is how bad a finding is.
type Severity string

// The severities. An error breaks a promise: a request is let through unchecked, or none is let through. A warning is a
// way to an outage or a leak. An info is worth knowing.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

func (s Severity) rank() int { return slices.Index([]Severity{Info, Warning, Error}, s) }

// Finding is something wrong in one place.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Object   string   `json:"object,omitempty"` // what people call the thing
	Path     string   `json:"path,omitempty"`   // from the root of the document
	Field    string   `json:"-"`                // from the object on
	Wrong    string   `json:"wrong"`
	Remedy   string   `json:"mend"`
}

// Rule is one thing that can be wrong.
type Rule struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"` // of most of its findings: some are milder, which the finding says
	Title    string   `json:"title"`    // what is wrong, in general
	Why      string   `json:"why"`      // what comes of it
	Remedy   string   `json:"mend"`
	checks   []func(in *Input, report func(Finding))
}

// Options are what Run is told besides the files.
type Options struct {
	// Cluster is the Envoy cluster of Tollkeeper. Filters that ask another one are passed over. "": every ext_authz filter
	// is judged.
	Cluster string
	// EnvoyVersion is the version of the Envoy that will read a bootstrap, such as 1.40.0. "": what a dump says, or unknown.
	EnvoyVersion string
	// Unchecked is what is meant to be open: the path, prefix or name of a route, the name of a virtual host or listener,
	// what a policy of Istio leaves out, or the name of the policy or patch.
	Unchecked []string
	// Ignore are ids of rules that are not applied.
	Ignore []string
	// Usable says why a server would not start with a configuration of Tollkeeper for another machine, as far as it can be
	// said without that machine's files. nil: nobody is asked.
	Usable func(*config.Config) []StartFault
	// Now is the time by which certificates are judged; zero is now.
	Now time.Time
}

// Report is what Run found.
type Report struct {
	Files    []Seen    `json:"files"`
	Findings []Finding `json:"findings"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Infos    int       `json:"infos"`
}

// Seen is a file with what was found in it.
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

// Input is everything that rules look at.
type Input struct {
	opt     Options
	version version
	envoys  []*envoy
	meshes  []*mesh
	objects []*object
	owns    []*Own
	broken  []Finding       // what could not be read at all
	taken   map[string]bool // the clusters that are asked, once somebody wants to know
}

// Run applies all rules but those to ignore. The error says what is wrong with the options.
func Run(files []*File, opt Options) (Report, error) {
	in := &Input{opt: opt}
	for _, id := range opt.Ignore {
		if _, ok := RuleByID(id); !ok {
			return Report{}, fmt.Errorf("there is no rule %q", id)
		}
	}
	if opt.EnvoyVersion != "" {
		v, ok := parseVersion(opt.EnvoyVersion)
		if !ok {
			return Report{}, fmt.Errorf("%q is not a version such as 1.40.0", opt.EnvoyVersion)
		}
		in.version = v
	}
	r := Report{Files: make([]Seen, 0, len(files)), Findings: []Finding{}}
	for _, f := range files {
		in.take(f)
		r.Files = append(r.Files, Seen{f.Name, f.is()})
	}
	in.complete()
	for i := range Rules() {
		if rule := &table[i]; !slices.Contains(opt.Ignore, rule.ID) {
			r.apply(in, rule)
		}
	}
	r.sort()
	return r, nil
}

// maxFindings bounds what is listed of one rule and severity. Nobody reads more, and files from anywhere may hold millions.
const maxFindings = 500

// apply notes what breaks a rule, each thing once.
func (r *Report) apply(in *Input, rule *Rule) {
	seen := make(map[Finding]bool)
	listed := make(map[Severity]int)
	for _, check := range rule.checks {
		check(in, func(f Finding) {
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

// sort puts the findings of a file together, in the order of the files, the worst first.
func (r *Report) sort() {
	order := make(map[string]int)
	for i, f := range r.Files {
		order[f.File] = i
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]), -cmp.Compare(a.Severity.rank(), b.Severity.rank()),
			cmp.Compare(a.Line, b.Line), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Path, b.Path), strings.Compare(a.Wrong, b.Wrong),
		)
	})
}

func (in *Input) take(f *File) {
	in.envoys = append(in.envoys, f.envoys...)
	in.meshes = append(in.meshes, f.meshes...)
	in.objects = append(in.objects, f.objects...)
	in.owns = append(in.owns, f.owns...)
	in.broken = append(in.broken, f.broken...)
	if in.version == (version{}) {
		in.version = f.version
	}
}

// versionOf is the version of the Envoy that has a configuration, zero if nobody says.
func (in *Input) versionOf(e *envoy) version {
	if e.version != (version{}) {
		return e.version
	}
	return in.version
}

// asks are the filters that ask Tollkeeper.
func (in *Input) asks() []*authzFilter {
	var out []*authzFilter
	for _, e := range in.envoys {
		for _, m := range e.managers {
			out = append(out, in.asksOf(m)...)
			for _, u := range m.upgrades {
				out = append(out, in.ours(u.asks)...)
			}
		}
	}
	return out
}

func (in *Input) asksOf(m *manager) []*authzFilter { return in.ours(m.asks) }

// ours are those of some filters that ask Tollkeeper.
func (in *Input) ours(asks []*authzFilter) []*authzFilter {
	var out []*authzFilter
	for _, f := range asks {
		if in.opt.Cluster == "" || f.cluster == in.opt.Cluster {
			out = append(out, f)
		}
	}
	return out
}

// configs are the configurations of the filter, in patches too, for rules about what stands there and not about what does
// not: a patch says only what it changes.
func (in *Input) configs() []part[*extauthzv3.ExtAuthz] {
	out := in.extAuthzPatches()
	for _, a := range in.asks() {
		if a.authz.GetHttpService() == nil {
			out = append(out, part[*extauthzv3.ExtAuthz]{a.spot, a.authz})
		}
	}
	return out
}

// managers are where requests come in that Tollkeeper is asked about.
func (in *Input) managers() []*manager {
	var out []*manager
	for _, e := range in.envoys {
		for _, m := range e.managers {
			if len(in.asksOf(m)) > 0 {
				out = append(out, m)
			}
		}
	}
	return out
}

// version is that of an Envoy. The zero version is unknown.
type version [3]int

func parseVersion(text string) (v version, ok bool) {
	n, err := fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2])
	if n == 2 { // 1.40
		return v, true
	}
	return v, err == nil
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) known() bool { return v != version{} }

func (v version) before(major, minor, patch int) bool {
	return slices.Compare(v[:], []int{major, minor, patch}) < 0
}
