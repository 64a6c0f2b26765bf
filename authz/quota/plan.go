package quota

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// limitSpec is a limit as it is written in plans.yaml.
type limitSpec struct {
	Units               *int64
	Window              authz.Window
	Per                 authz.Per
	Unit, Zone, OnCrash string
	Anchor              int
}

// windowOrder is the windows from short to long. A plan's limits have the same order.
var windowOrder = []authz.Window{
	authz.WindowSecond, authz.WindowMinute, authz.WindowHour, authz.WindowDay, authz.WindowMonth, authz.WindowNone,
}

// PlanFault is one reason why plans cannot be used.
type PlanFault struct {
	At   []any  // where it is in the plans: names, such as a plan, "limits", a limit, "units"
	Text string // one line, for people
}

// ParsePlans reads the limits of each plan from the policies' data, the JSON value of
//
//	{<plan>: {limits: {<limit>: {units, window, per, unit, zone, anchor_day, on_crash}}}}
//
// It refuses limits with unknown fields: a misspelt field would be a limit that is not enforced. A plan may have other fields
// beside its limits, for policies to read. Nil is no plans. With faults, the plans have all names, so that others can tell which
// exist, and are good for nothing else.
func ParsePlans(data any) (map[string][]authz.Limit, []PlanFault) {
	var p planParser
	plans, ok := data.(map[string]any)
	if !ok && data != nil {
		p.fault(nil, "plans: want an object of plans by name")
	}
	out := make(map[string][]authz.Limit, len(plans))
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		out[name] = p.plan(name, plans[name])
	}
	if p.faults == nil {
		p.checkShared(out)
	}
	return out, p.faults
}

// planParser collects faults.
type planParser struct{ faults []PlanFault }

func (p *planParser) fault(at []any, format string, args ...any) {
	p.faults = append(p.faults, PlanFault{At: at, Text: fmt.Sprintf(format, args...)})
}

// checkShared refuses plans that give one limit per account different periods. Keys of one account may be on different plans,
// and would have a count each where one was meant. Units may differ: the keys share the count, and each is held to the units of
// its own plan.
func (p *planParser) checkShared(plans map[string][]authz.Limit) {
	first := make(map[string]string) // limit -> plan
	for _, plan := range slices.Sorted(maps.Keys(plans)) {
		for i := range plans[plan] {
			l := &plans[plan][i]
			if l.Per != authz.PerAccount {
				continue
			}
			other, ok := first[l.Name]
			if !ok {
				first[l.Name] = plan
				continue
			}
			j := slices.IndexFunc(plans[other], func(m authz.Limit) bool { return m.Name == l.Name })
			if !samePeriods(l, &plans[other][j]) {
				p.fault([]any{plan, "limits", l.Name},
					"plans %q and %q: limit %q is per account and has different periods in the two: give one of them another name", other, plan, l.Name)
			}
		}
	}
}

// samePeriods reports whether two limits begin and end their periods at the same instants.
func samePeriods(a, b *authz.Limit) bool {
	return a.Window == b.Window && zone(a).String() == zone(b).String() && max(a.Anchor, 1) == max(b.Anchor, 1)
}

// misspelt reports whether a name differs from the known one by one letter or by the order of its letters.
func misspelt(name, known string) bool {
	sorted := func(s string) string { return string(slices.Sorted(slices.Values([]rune(s)))) }
	return levenshtein.ComputeDistance(name, known) <= 1 || sorted(name) == sorted(known)
}

func (p *planParser) plan(name string, data any) []authz.Limit {
	plan, ok := data.(map[string]any)
	if !ok {
		p.fault([]any{name}, "plan %q: want an object with limits", name)
	}
	for _, other := range slices.Sorted(maps.Keys(plan)) {
		if other != "limits" && misspelt(strings.ToLower(other), "limits") {
			p.fault([]any{name, other}, "plan %q: %s is no field here: did you mean limits? Without limits a plan grants everything", name, other)
		}
	}
	limits, ok := plan["limits"].(map[string]any)
	if !ok && plan["limits"] != nil {
		p.fault([]any{name, "limits"}, "plan %q: limits: want an object of limits by name", name)
	}
	out := make([]authz.Limit, 0, len(limits))
	for _, limit := range slices.Sorted(maps.Keys(limits)) {
		r := limitReader{parser: p, plan: name, limit: limit, wrong: make(map[string]bool)}
		out = append(out, r.read(limits[limit]))
	}
	slices.SortStableFunc(out, func(a, b authz.Limit) int {
		return cmp.Compare(slices.Index(windowOrder, a.Window), slices.Index(windowOrder, b.Window))
	})
	return out
}

// limitReader reads one limit. It reports one fault for each field.
type limitReader struct {
	parser      *planParser
	plan, limit string
	wrong       map[string]bool // fields with a fault
}

// fault reports a fault of a field, or of the limit as a whole.
func (r *limitReader) fault(field, format string, args ...any) {
	at := []any{r.plan, "limits", r.limit}
	if field != "" {
		at = append(at, field)
	}
	r.wrong[field] = true
	r.parser.fault(at, "plan %q: limit %q: %s", r.plan, r.limit, fmt.Sprintf(format, args...))
}

// want reports a fault of a field unless that is as it should be, or has a fault already.
func (r *limitReader) want(holds bool, field, format string, args ...any) {
	if !holds && !r.wrong[field] {
		r.fault(field, format, args...)
	}
}

func (r *limitReader) read(data any) authz.Limit {
	r.want(strings.Trim(r.limit, "abcdefghijklmnopqrstuvwxyz0123456789_-") == "" && r.limit != "" && len(r.limit) <= 64, "",
		"use 1 to 64 lower-case letters, digits, _ and - as a name: it goes into headers")
	fields, ok := data.(map[string]any)
	if !ok {
		r.fault("", "limit: want an object, not %s", kindOf(data))
		return authz.Limit{Name: r.limit}
	}
	s := r.decode(fields)
	l := authz.Limit{
		Name: r.limit, Unit: cmp.Or(s.Unit, authz.UnitRequests), Window: s.Window, Per: cmp.Or(s.Per, authz.PerKey),
		Anchor: s.Anchor, RefundOnCrash: s.OnCrash == "refund",
	}
	if s.Units != nil {
		l.Units = *s.Units
	}
	r.want(s.Units != nil && l.Units >= 0 && l.Units <= MaxUnits, "units", "units: want a number from 0 to %d", MaxUnits)
	r.want(slices.Contains(windowOrder, l.Window), "window", "window %q: want one of %v", l.Window, windowOrder)
	r.want(l.Per == authz.PerKey || l.Per == authz.PerAccount, "per", "per %q: want key or account", l.Per)
	r.want(l.Anchor >= 0 && l.Anchor <= 31 && (l.Anchor == 0 || l.Window == authz.WindowMonth || r.wrong["window"]), "anchor_day",
		"anchor_day %d: want 1 to 31, on a monthly window", l.Anchor)
	r.want(s.OnCrash == "" || s.OnCrash == "refund" || s.OnCrash == "forfeit", "on_crash", "on_crash %q: want forfeit or refund", s.OnCrash)
	r.want(!l.RefundOnCrash || l.Window == authz.WindowNone || r.wrong["window"], "on_crash",
		"on_crash: refund is for prepaid credits (window none): a period's units come back by themselves")
	if s.Zone != "" {
		var err error
		l.Zone, err = time.LoadLocation(s.Zone)
		r.want(err == nil, "zone", "zone %q: want a name such as Europe/Berlin", s.Zone)
	}
	l.Count = BucketOf(&l, authz.Holder{}).CountKey()
	return l
}

// decode reads the fields. The names have to be exact, because policies read them too.
func (r *limitReader) decode(data map[string]any) (s limitSpec) {
	fields := map[string]any{
		"units": &s.Units, "window": &s.Window, "per": &s.Per, "unit": &s.Unit, "zone": &s.Zone, "anchor_day": &s.Anchor, "on_crash": &s.OnCrash,
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		into, known := fields[name]
		if !known {
			r.fault(name, "unknown field %q: the fields are units, window, per, unit, zone, anchor_day and on_crash", name)
			continue
		}
		raw, err := json.Marshal(data[name])
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			want := "a whole number"
			if name != "units" && name != "anchor_day" {
				want = "a text"
			}
			r.fault(name, "%s: want %s, not %s", name, want, kindOf(data[name]))
		}
	}
	return s
}

// kindOf names the kind of a JSON value, and a number itself.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "text"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return fmt.Sprintf("the number %v", v)
	}
}
