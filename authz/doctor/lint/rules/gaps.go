package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// The check in this file finds requests that no CUSTOM policy of a mesh covers. A request is checked if it meets all conditions of
// any clause. It is not checked if it breaks a condition of every clause: such a set of broken conditions is a hole.

// condition is a list in a rule of an AuthorizationPolicy.
type condition struct {
	source.Location
	what   string // of the request
	except bool   // the policy excludes the listed values
	values []string
}

// clause is a rule with one of its sources and one of its operations: the conditions that one request must meet.
type clause []condition

// hole is a set of conditions: a request that breaks them all is not checked. An empty hole means every request.
type hole []condition

// Bounds for the work on one policy, because a file may be made to keep doctor busy.
const (
	maxHoles   = 64
	maxClauses = 500
	maxOthers  = 200 // other policies that may cover the holes of one
)

// custom is a CUSTOM policy.
type custom struct {
	*model.Object
	clauses []clause
}

// customsInForce are the CUSTOM policies that probably ask Tollkeeper.
func customsInForce(in *model.Model) []custom {
	var out []custom
	ours := in.ChecksBy(model.ByProvider)
	for _, o := range in.Objects.Customs() {
		foreign := len(in.Meshes) > 0 && !slices.ContainsFunc(ours, func(c *model.ExtAuthz) bool { return c.Name == o.ProviderName().Text() })
		if !foreign && len(o.At("spec.rules").Items()) > 0 && !o.IsDryRun() {
			out = append(out, custom{o, clauses(o)})
		}
	}
	return out
}

// leftOut finds requests that no CUSTOM policy covers.
func leftOut(in *model.Model, report rule.Report) {
	policies := customsInForce(in)
	for _, p := range policies {
		if in.IsMeant(p.Name) {
			continue
		}
		found, judged := holesOf(in, p, policies)
		if !judged {
			report(rule.At(p.At("spec.rules"), "there are too many rules to find out which requests they do not cover").As(rule.Info))
		}
		for _, h := range found {
			if !h.known() {
				report(h.finding(p.Object))
			}
		}
	}
}

// holesOf are the holes of a policy that no other policy for the same workloads covers, without those that are open on purpose.
// judged is false if there are too many.
func holesOf(in *model.Model, p custom, policies []custom) (out []hole, judged bool) {
	all := slices.Clone(p.clauses)
	for _, other := range policies[:min(len(policies), maxOthers)] {
		if other.Object != p.Object && model.Covers(other.Object, p.Object) {
			all = append(all, other.clauses...)
		}
	}
	found, judged := holes(all)
	for _, h := range found {
		if h = h.without(in.IsMeant); h != nil {
			out = append(out, h)
		}
	}
	return out, judged
}

// clauses are the clauses of a policy.
func clauses(o *model.Object) []clause {
	operations := map[string]string{"paths": "path", "hosts": "host", "methods": "method", "ports": "port"}
	var out []clause
	for _, r := range o.At("spec.rules").Items() {
		var when clause
		for _, w := range r.At("when").Items() {
			when = append(when, conditions(w, map[string]string{"values": w.At("key").Text()})...)
		}
		for _, from := range itemsOrNone(r.At("from")) {
			from = from.At("source")
			about := make(map[string]string)
			for _, k := range from.Keys() {
				k = positive(k)
				about[k] = "source." + k
			}
			for _, to := range itemsOrNone(r.At("to")) {
				if out = append(out, slices.Concat(when, conditions(from, about), conditions(to.At("operation"), operations))); len(out) > maxClauses {
					return out
				}
			}
		}
	}
	return out
}

// itemsOrNone are the items of a list, or one location without a value if it has none.
func itemsOrNone(list source.Location) []source.Location {
	if items := list.Items(); len(items) > 0 {
		return items
	}
	return []source.Location{list.Index(0)}
}

// positive is the name of a list without the leading "not".
func positive(key string) string {
	if rest, ok := strings.CutPrefix(key, "not"); ok && rest != "" {
		return strings.ToLower(rest[:1]) + rest[1:]
	}
	return key
}

// conditions reads the lists of an object that a request can break. about names the part of a request for each list.
func conditions(at source.Location, about map[string]string) clause {
	var out clause
	for _, k := range at.Keys() {
		c := condition{Location: at.Child(k), what: about[positive(k)], except: positive(k) != k}
		for _, v := range c.Items() {
			c.values = append(c.values, v.Text())
		}
		if c.what != "" && len(c.values) > 0 && (c.except || !c.takesAll()) {
			out = append(out, c)
		}
	}
	return out
}

// takesAll reports whether every request meets the condition.
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

// opposes reports whether no request can break both conditions, because one includes the values that the other excludes.
func (c *condition) opposes(d *condition) bool {
	if c.what != d.what || c.except == d.except {
		return false
	}
	if !c.except {
		c, d = d, c
	}
	return !slices.ContainsFunc(c.values, func(v string) bool {
		return !slices.ContainsFunc(d.values, func(w string) bool {
			start, open := strings.CutSuffix(w, "*")
			return v == w || open && strings.HasPrefix(v, start)
		})
	})
}

// excludes reports whether no request can break both conditions, because no request can have values of two lists.
func (c *condition) excludes(d *condition) bool {
	single := slices.Contains([]string{"path", "method", "port"}, c.what) // not addresses: one block may be in another
	return single && c.what == d.what && c.except && d.except && !slices.ContainsFunc(c.values, func(v string) bool {
		return slices.ContainsFunc(d.values, func(w string) bool { return mayTake(w, v) || mayTake(v, w) })
	})
}

// mayTake reports whether a pattern may match a value, which may be a pattern itself.
func mayTake(pattern, value string) bool {
	start, open := strings.CutSuffix(pattern, "*")
	return value == pattern || open && strings.HasPrefix(value, start) || strings.HasPrefix(pattern, "*") || strings.Contains(pattern, "{")
}

// holes are the holes of clauses. judged is false if there are too many.
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

// with returns a hole with one more condition. It returns false if no request can break all of them.
func (h hole) with(x condition) (hole, bool) {
	if x.except && x.takesAll() || slices.ContainsFunc(h, func(c condition) bool { return c.same(&x) }) {
		return h, true
	}
	if slices.ContainsFunc(h, func(c condition) bool { return c.opposes(&x) || c.excludes(&x) }) {
		return nil, false
	}
	return append(slices.Clip(h), x), true
}

// within reports whether another hole has all conditions of this one, and so is not larger.
func (h hole) within(other hole) bool {
	return !slices.ContainsFunc(h, func(c condition) bool {
		return !slices.ContainsFunc(other, func(d condition) bool { return c.same(&d) })
	})
}

// without removes values that are open on purpose. It returns nil if nothing is left.
func (h hole) without(meant func(string) bool) hole {
	out := hole{}
	for _, c := range h {
		if c.except && c.what != "method" {
			c.values = slices.DeleteFunc(slices.Clone(c.values), meant)
			if len(c.values) == 0 {
				return nil
			}
		}
		out = append(out, c)
	}
	return out
}

// known reports whether other rules report a hole: for preflights, for all OPTIONS requests, and for tokens that are not verified
// yet.
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

func (h hole) finding(o *model.Object) rule.Finding {
	if len(h) == 0 {
		return rule.At(o.At("spec.rules"), "the rules match no request, so Tollkeeper is not asked").
			FixedBy("Write rules: [{}] to check every request.")
	}
	var words []string
	severity := rule.Error
	for _, c := range h {
		words = append(words, c.words())
		if s := c.severity(); s.Rank() < severity.Rank() {
			severity = s
		}
	}
	return rule.At(h[0].Location, "requests go to your service unchecked: %s", strings.Join(words, ", ")).As(severity).
		FixedBy("Remove the exemption, or name it with --unchecked if it is meant: its value, or the name of the policy.")
}

// words describe the requests that break a condition.
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

// severity returns the severity of a hole with a single condition. It depends on who can use the hole.
func (c *condition) severity() rule.Severity {
	open := func(v string) bool { return strings.ContainsAny(v, "*{") }
	switch {
	case strings.HasPrefix(c.what, "request.headers["):
		return rule.Error // any client can set a header
	case c.what == "path" && c.except && slices.ContainsFunc(c.values, func(v string) bool { return strings.HasPrefix(v, "*") }):
		return rule.Error // any client can send a path with this end
	case c.what == "path" && c.except && !slices.ContainsFunc(c.values, open), c.what == "port":
		return rule.Info
	case strings.HasPrefix(c.what, "source.") && c.except:
		if slices.Contains(c.values, "*") {
			return rule.Error // any workload of the mesh
		}
		return rule.Info
	}
	return rule.Warning
}
