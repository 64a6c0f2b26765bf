package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	smallSet    = 1000 // keys in the small set, and callers of the large one
	manyCallers = 9000 // callers of the large set for a busy server
	strays      = 1000 // keys of the crowd that are revoked, and as many without a scope
)

// rivalSpec says how to make a rival.
type rivalSpec struct {
	name, label string
	trial       string   // the name of its load, if that is one of the trials
	kind        string   // of our own servers; "": Tollkeeper
	data        *dataset // of Tollkeeper and of OPA
	load        load
	// session is shared by rivals that are measured in one process, one after the other in the order of the list; "": a process
	// of its own.
	session string
	visited bool // all callers visit the process before it is measured
}

// trial is a load for which all kinds of authorizers are compared.
type trial struct{ name, label string }

// trials are in the order of the report.
var trials = []trial{
	{"street", "The street: callers by Zipf, ids in the paths, 5 % denials, 10 % with a token"},
	{"path", "The hot path: one path, 1,000 callers"},
	{"ids", "Another id in each path, 1,000 callers"},
	{"zipf", "Callers by Zipf, one path"},
	{"alike", "All callers alike, one path"},
}

func trialNames() string {
	names := make([]string, len(trials))
	for i, t := range trials {
		names[i] = t.name
	}
	return strings.Join(names, ", ")
}

const (
	streetSkew    = 1.1
	streetDenied  = .05
	streetBearing = .10
	callersAToken = 10 // so many callers have one user with a token
)

// crowd is the population of the trials. Each caller has an account of its own, as customers of a service have.
func crowd(callers int) *population {
	return &population{keys: newKeySet(callers + 2*strays), revoked: strays, narrow: strays, perAccount: 1}
}

// loads are those of the trials by name.
func loads(people *population, tokens *tokenSet) map[string]load {
	busy, all := loadOf(people, smallSet), loadOf(people, people.callers())
	return map[string]load{
		"street": all.to(idPaths).drawn(streetSkew).mixed(streetDenied, []fault{unknown, garbage, revoked, narrow}, streetBearing, tokens),
		"path":   busy.to(onePath),
		"ids":    busy.to(idPaths),
		"zipf":   all.to(onePath).drawn(streetSkew),
		"alike":  all.to(onePath).drawn(0),
	}
}

// trialSpecs are the rivals of the trials. A server that is visited gets first the loads with busy callers: those
// with cold ones leave work behind.
func trialSpecs(people *population, tokens *tokenSet) []rivalSpec {
	data := &dataset{name: "crowd", people: people, tokens: tokens}
	var all []rivalSpec
	of := loads(people, tokens)
	each := func(spec rivalSpec, prepare func(load) load, order ...string) {
		for _, name := range order {
			one := spec
			one.name, one.trial, one.load = strings.Replace(spec.name, "*", name, 1), name, prepare(of[name])
			all = append(all, one)
		}
	}
	asItIs := func(l load) load { return l }
	order := []string{"street", "path", "ids", "zipf", "alike"}
	each(rivalSpec{name: baseline + "-*", label: "noop", kind: baseline, session: baseline},
		func(l load) load { return l.judgedBy(allAllow) }, order...)
	each(rivalSpec{name: "tollkeeper-*-aged", label: "Tollkeeper, after a visit of all callers", data: data, session: "aged", visited: true},
		asItIs, "path", "ids", "street", "zipf", "alike")
	each(rivalSpec{name: "tollkeeper-*", label: "Tollkeeper, just started", data: data}, asItIs, order...)
	each(rivalSpec{name: keysAsData + "-*", label: "OPA as its Envoy plugin, keys as data", kind: keysAsData, data: data, session: keysAsData},
		func(l load) load { return l.mapped().judgedBy(byVerdict) }, order...)
	return all
}

// pathRules read the raw path, so that a verdict is good for one path alone.
const pathRules = `package tollkeeper.custom

deny contains {"reason": "path_not_allowed", "detail": "this path is internal"} if {
	startswith(input.attributes.request.http.path, "/internal/")
}

deny contains {"reason": "path_not_allowed", "detail": "reports are read by GET"} if {
	input.parsed_path[1] == "reports"
	input.attributes.request.http.method != "GET"
}
`

// settingSpecs are Tollkeepers with other data and settings, and the rivals for the same requests: of a few paths.
func settingSpecs(large int) []rivalSpec {
	many := newPopulation(max(large, smallSet))
	few := many.first(smallSet)
	many = many.first(large)
	small := &dataset{name: "small", people: few}
	full := &dataset{name: "large", people: many, logouts: large}
	raw := &dataset{name: "raw", people: few, rules: pathRules}
	nomemo := &dataset{name: "nomemo", people: few, policy: ", memo: 0"}
	usual, ofMany := loadOf(few, smallSet), loadOf(many, smallSet)
	inFew, inMany := grouped(smallSet)+" keys", grouped(int64(large))+" keys and revocations"
	return []rivalSpec{
		{name: baseline, label: "noop (answers OK at once)", kind: baseline, load: usual},
		{name: sameAnswer, label: "noop with Tollkeeper's answer", kind: sameAnswer, load: usual},
		{name: "opa", label: "OPA SDK with the same policies", kind: "opa", load: usual},
		{name: "tollkeeper", label: "Tollkeeper, " + inFew, data: small, load: usual},
		{name: "tollkeeper-large", label: "… " + inMany + ", as many callers", data: full, load: ofMany},
		{name: "tollkeeper-busy", label: "… and " + grouped(manyCallers) + " callers", data: full, load: loadOf(many, manyCallers)},
		{name: "tollkeeper-unknown", label: "… and only unknown keys", data: full, load: ofMany.drawn(0).mixed(1, []fault{unknown}, 0, nil)},
		{name: "tollkeeper-garbage", label: "… and only mistyped keys", data: full, load: ofMany.drawn(0).mixed(1, []fault{garbage}, 0, nil)},
		{name: "tollkeeper-nomemo", label: "Tollkeeper without verdict cache, " + inFew, data: nomemo, load: usual},
		{name: "tollkeeper-ids-raw", label: "Tollkeeper, ids in paths, own rules that read the raw path", data: raw, load: usual.to(idPaths)},
	}
}

// rivalSpecs are all rivals.
func rivalSpecs(o options) ([]rivalSpec, error) {
	people := crowd(o.callers)
	tokens, err := mintTokens(people, max(1, o.callers/callersAToken))
	if err != nil {
		return nil, err
	}
	return append(trialSpecs(people, tokens), settingSpecs(o.keys)...), nil
}

// chosen keeps the rivals that -only names, or whose trials it names.
func chosen(all []rivalSpec, only string) ([]rivalSpec, error) {
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c rivalSpec) bool { return c.name == name || c.trial == name }) {
			known := make([]string, 0, len(all)+len(trials))
			for _, t := range trials {
				known = append(known, t.name)
			}
			for _, c := range all {
				known = append(known, c.name)
			}
			return nil, fmt.Errorf("unknown rival or load %q: want one of %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(c rivalSpec) bool { return !slices.Contains(names, c.name) && !slices.Contains(names, c.trial) }), nil
}

// maker makes authorizers. Rivals with the same data share one.
type maker struct {
	binary, dir string
	made        map[*dataset]*tollkeeper
	data        string // the file with OPA's data, "" until it is written
}

// prepare makes the rivals and starts none. It returns those that it made even with an error, so that the caller can close
// them.
func prepare(ctx context.Context, o options, dir string) ([]*session, error) {
	all, err := rivalSpecs(o)
	if err != nil {
		return nil, err
	}
	list, err := chosen(all, o.only)
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, err
	}
	m := &maker{binary: binary, dir: dir, made: make(map[*dataset]*tollkeeper)}
	var sessions []*session
	for _, c := range list {
		rv := &rival{name: c.name, label: c.label, kind: c.kind, trial: c.trial, load: c.load, aged: c.visited}
		if n := len(sessions); n > 0 && c.session != "" && sessions[n-1].name == c.session {
			sessions[n-1].rivals = append(sessions[n-1].rivals, rv)
			continue
		}
		a, err := m.authorizer(ctx, &c)
		if err != nil {
			return sessions, fmt.Errorf("%s: %w", c.name, err)
		}
		sessions = append(sessions, &session{authorizer: a, name: c.session, visited: c.visited, rest: o.rest, rivals: []*rival{rv}})
	}
	return sessions, nil
}

func (m *maker) authorizer(ctx context.Context, c *rivalSpec) (authorizer, error) {
	if c.kind == keysAsData && m.data == "" {
		file := filepath.Join(m.dir, "opa-data.json")
		if err := writeFile(file, func(w io.Writer) error { return c.data.people.writeData(w, c.data.tokens) }); err != nil {
			return nil, err
		}
		m.data = file
	}
	if c.kind != "" {
		return &ownServer{kind: c.kind, data: m.data}, nil
	}
	if _, err := os.Stat(m.binary); err != nil {
		return nil, fmt.Errorf("%w: build it first, or name it with -tollkeeper", err)
	}
	if m.made[c.data] == nil {
		t, err := newTollkeeper(ctx, m.binary, m.dir, c.data)
		if err != nil {
			return nil, err
		}
		m.made[c.data] = t
	}
	return m.made[c.data], nil
}
