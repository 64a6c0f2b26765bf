package lint

import (
	"fmt"
	"slices"
	"strings"
)

// The rules of this file look at what the CUSTOM policies of a mesh leave out. A request is checked if all conditions of
// any clause hold for it, so that one goes unchecked which breaks a condition of every clause.

// condition is a list in a rule of an authorization policy.
type condition struct {
	spot
	what   string // of the request
	except bool   // what is listed is left out, and not taken
	values []string
}

// clause is a rule with one of its sources and one of its operations.
type clause []condition

// operations are the lists in an operation, and what they are about.
var operations = map[string]string{"paths": "path", "hosts": "host", "methods": "method", "ports": "port"}

// clauses are those of a policy.
func clauses(o *object) []clause {
	var out []clause
	for _, rule := range o.at("spec", "rules").items() {
		var when clause
		for _, w := range rule.at("when").items() {
			what := w.at("key").text()
			when = append(when, conditions(w, map[string]string{"values": what})...)
		}
		for _, from := range orNone(rule.at("from")) {
			source := from.at("source")
			about := make(map[string]string)
			for _, k := range source.keys() {
				k = positive(k)
				about[k] = "source." + k
			}
			for _, to := range orNone(rule.at("to")) {
				if out = append(out, slices.Concat(when, conditions(source, about), conditions(to.at("operation"), operations))); len(out) > maxClauses {
					return out
				}
			}
		}
	}
	return out
}

// orNone are the items of a list, or one spot where there is nothing if it has none.
func orNone(list spot) []spot {
	if items := list.items(); len(items) > 0 {
		return items
	}
	return []spot{list.index(0)}
}

// positive is the name of a list without the not before it.
func positive(key string) string {
	if rest, ok := strings.CutPrefix(key, "not"); ok && rest != "" {
		return strings.ToLower(rest[:1]) + rest[1:]
	}
	return key
}

// conditions reads the lists of an object that can be broken.
func conditions(s spot, about map[string]string) clause {
	var out clause
	for _, k := range s.keys() {
		what := about[positive(k)]
		c := condition{spot: s.at(k), what: what, except: positive(k) != k}
		for _, v := range c.items() {
			c.values = append(c.values, v.text())
		}
		if what == "" || len(c.values) == 0 || !c.except && c.takesAll() {
			continue
		}
		out = append(out, c)
	}
	return out
}

// takesAll reports whether the list takes every request.
func (c *condition) takesAll() bool {
	return slices.ContainsFunc(c.values, func(v string) bool {
		switch c.what {
		case "path":
			return slices.Contains([]string{"*", "/*", "/{**}"}, v)
		case "host", "method":
			return v == "*"
		}
		return strings.HasSuffix(c.what, "pBlocks") && strings.HasSuffix(v, "/0")
	})
}

func (c *condition) same(d *condition) bool {
	return c.what == d.what && c.except == d.except && slices.Equal(c.values, d.values)
}

// opposes reports whether no request can break both: what one leaves out is what the other takes.
func (c *condition) opposes(d *condition) bool {
	if c.what != d.what || c.except == d.except {
		return false
	}
	if !c.except {
		c, d = d, c
	}
	return !slices.ContainsFunc(c.values, func(v string) bool {
		return !slices.ContainsFunc(d.values, func(w string) bool {
			begin, open := strings.CutSuffix(w, "*")
			return v == w || open && strings.HasPrefix(v, begin)
		})
	})
}

// misses reports whether no request can break both, as none has what two lists name.
func (c *condition) misses(d *condition) bool {
	plain := slices.Contains([]string{"path", "method", "port"}, c.what) // not addresses, of which one block is in another
	return plain && c.what == d.what && c.except && d.except && !slices.ContainsFunc(c.values, func(v string) bool {
		return slices.ContainsFunc(d.values, func(w string) bool { return meet(v, w) || meet(w, v) })
	})
}

// meet reports whether a value may be what a pattern takes, which may end in anything.
func meet(value, pattern string) bool {
	begin, open := strings.CutSuffix(pattern, "*")
	return value == pattern || open && strings.HasPrefix(value, begin) || strings.HasPrefix(pattern, "*") || strings.Contains(pattern, "{")
}

// hole is a set of conditions: what breaks them all is not checked. Without any it is everything.
type hole []condition

// Bounds for the work on one policy, so that files that were made to keep doctor busy do not.
const (
	maxHoles   = 64
	maxClauses = 500
	maxOthers  = 200 // policies that are looked at for what one leaves out
)

// holes are those that clauses leave. They are nobody's to judge if there are too many.
func holes(all []clause) (out []hole, judged bool) {
	out = []hole{nil}
	for _, c := range all {
		var next []hole
		for _, h := range out {
			for _, x := range c {
				if wider, ok := h.with(x); ok && !slices.ContainsFunc(next, func(n hole) bool { return n.within(wider) }) {
					next = append(slices.DeleteFunc(next, wider.within), wider)
				}
				if len(next) > maxHoles {
					return nil, false
				}
			}
		}
		out = next
	}
	return out, len(all) <= maxClauses
}

// with is a hole with one condition more, unless nothing is left of it.
func (h hole) with(x condition) (hole, bool) {
	if x.except && x.takesAll() || slices.ContainsFunc(h, func(c condition) bool { return c.same(&x) }) {
		return h, true
	}
	if slices.ContainsFunc(h, func(c condition) bool { return c.opposes(&x) || c.misses(&x) }) {
		return nil, false
	}
	return append(slices.Clip(h), x), true
}

// within reports whether the conditions of a hole are among those of another, which is therefore no larger.
func (h hole) within(other hole) bool {
	return !slices.ContainsFunc(h, func(c condition) bool {
		return !slices.ContainsFunc(other, func(d condition) bool { return c.same(&d) })
	})
}

// custom is a CUSTOM policy.
type custom struct {
	*object
	clauses []clause
}

// inForce are the CUSTOM policies that ask Tollkeeper, as far as one can tell.
func (in *Input) inForce() []custom {
	var out []custom
	ours := in.providers()
	for _, o := range in.customs() {
		name := o.at("spec", "provider", "name").text()
		foreign := len(in.meshes) > 0 && !slices.ContainsFunc(ours, func(p provider) bool { return p.name == name })
		if !foreign && len(o.at("spec", "rules").items()) > 0 && !dryRun(o) {
			out = append(out, custom{o, clauses(o)})
		}
	}
	return out
}

// named reports whether what goes by a name is meant to be open.
func (in *Input) named(name string) bool {
	return name != "" && slices.Contains(in.opt.Unchecked, name)
}

// holesOf are those that a policy leaves, and others for the same workloads leave too. Those that are meant are left out.
func (in *Input) holesOf(o custom, policies []custom) (out []hole, judged bool) {
	all := slices.Clone(o.clauses)
	for _, other := range policies[:min(len(policies), maxOthers)] {
		if other.object != o.object && covers(other.object, o.object) {
			all = append(all, other.clauses...)
		}
	}
	found, judged := holes(all)
	for _, h := range found {
		if h = in.unmeant(h); h != nil {
			out = append(out, h)
		}
	}
	return out, judged
}

// unmeant takes out what is named as meant. It is nil if nothing is left.
func (in *Input) unmeant(h hole) hole {
	out := hole{}
	for _, c := range h {
		if c.except && c.what != "method" {
			c.values = slices.DeleteFunc(slices.Clone(c.values), in.named)
			if len(c.values) == 0 {
				return nil
			}
		}
		out = append(out, c)
	}
	return out
}

// covers reports whether a policy surely holds wherever another does.
func covers(wide, o *object) bool {
	if wide.namespace != o.namespace && wide.namespace != rootNamespace || wide.at("spec", "provider", "name").text() != o.at("spec", "provider", "name").text() {
		return false
	}
	if len(targets(wide))+len(targets(o)) > 0 {
		return overlap(wide, o)
	}
	return selects(wide.at("spec", "selector"), o.at("spec", "selector", "matchLabels"))
}

// leftOut: requests that no CUSTOM policy takes.
func leftOut(in *Input, report func(Finding)) {
	policies := in.inForce()
	for _, o := range policies {
		if in.named(o.name) {
			continue
		}
		found, judged := in.holesOf(o, policies)
		if !judged {
			f := o.at("spec", "rules").says("the rules are too many to say what they leave out")
			f.Severity = Info
			report(f)
		}
		for _, h := range found {
			if !h.known() {
				report(h.finding(o.object))
			}
		}
	}
}

func (h hole) finding(o *object) Finding {
	if len(h) == 0 {
		f := o.at("spec", "rules").says("there is no request that the rules take, so that nobody is asked")
		f.Remedy = "Write rules: [{}] to check every request."
		return f
	}
	var words []string
	severity := Error
	for _, c := range h {
		words = append(words, c.words())
		if s := c.severity(); s.rank() < severity.rank() {
			severity = s
		}
	}
	f := h[0].says("requests go to your service unchecked: %s", strings.Join(words, ", "))
	f.Severity = severity
	f.Remedy = "Remove the exemption, or name it with --unchecked if it is meant: its value, or the name of the policy."
	return f
}

// known reports whether a hole is what other rules are about: those of preflights, of anything with the method OPTIONS, and
// of tokens that nobody has verified yet.
func (h hole) known() bool {
	var options, preflight, token bool
	for _, c := range h {
		sent := c.except && slices.Equal(c.values, []string{"*"})
		options = options || c.what == "method" && c.except && slices.Equal(c.values, []string{"OPTIONS"})
		preflight = preflight || sent && strings.EqualFold(c.what, "request.headers[origin]") ||
			sent && strings.EqualFold(c.what, "request.headers[access-control-request-method]")
		token = token || c.what == "source.requestPrincipals" || strings.HasPrefix(c.what, "request.auth.")
	}
	return options && (preflight || len(h) == 1) || token
}

// words say which requests break a condition.
func (c *condition) words() string {
	which, with := "other than "+some(c.values), "without"
	if c.except {
		which, with = some(c.values), "with"
	}
	if name, ok := strings.CutPrefix(c.what, "request.headers["); ok {
		name = strings.TrimSuffix(name, "]")
		if slices.Equal(c.values, []string{"*"}) {
			return with + " the header " + name
		}
		return fmt.Sprintf("with the header %s %s", name, which)
	}
	return fmt.Sprintf("with the %s %s", strings.TrimPrefix(c.what, "request."), which)
}

// severity is that of a hole of a single condition: who can get through it?
func (c *condition) severity() Severity {
	open := func(v string) bool { return strings.ContainsAny(v, "*{") }
	switch {
	case strings.HasPrefix(c.what, "request.headers["):
		return Error // whoever likes
	case c.what == "path" && c.except && slices.ContainsFunc(c.values, func(v string) bool { return strings.HasPrefix(v, "*") }):
		return Error // a path may end as one likes
	case c.what == "path" && c.except && !slices.ContainsFunc(c.values, open), c.what == "port":
		return Info
	case strings.HasPrefix(c.what, "source.") && c.except:
		if slices.Contains(c.values, "*") {
			return Error // whoever is in the mesh
		}
		return Info
	}
	return Warning
}

// dryRun reports whether a policy is only to be noted.
func dryRun(o *object) bool { return o.meta("annotations", "istio.io/dry-run") == "true" }

func istioDryRun(in *Input, report func(Finding)) {
	for _, o := range in.customs() {
		if dryRun(o) {
			f := o.at("metadata", "annotations").key("istio.io/dry-run").says("the policy is a dry run, which there is not for CUSTOM: nobody is asked")
			f.Remedy = "Remove the annotation."
			report(f)
		}
	}
}
