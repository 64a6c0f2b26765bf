package quota

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// limitSpec is a limit as it is written in plans.yaml.
type limitSpec struct {
	Units   *int64       `json:"units"`
	Window  authz.Window `json:"window"`
	Per     authz.Per    `json:"per"`
	Unit    string       `json:"unit"`
	Zone    string       `json:"zone"`
	Anchor  int          `json:"anchor_day"`
	OnCrash string       `json:"on_crash"`
}

// windowOrder is the windows from short to long. A plan's limits have the same order.
var windowOrder = []authz.Window{
	authz.WindowSecond, authz.WindowMinute, authz.WindowHour, authz.WindowDay, authz.WindowMonth, authz.WindowNone,
}

// ParsePlans reads the limits of each plan from the policies' data, the JSON value of
//
//	{<plan>: {limits: {<limit>: {units, window, per, unit, zone, anchor_day, on_crash}}}}
//
// It refuses limits with unknown fields: a misspelt field would be a limit that is not enforced. A plan may have other fields
// beside its limits, for policies to read. Nil is no plans.
func ParsePlans(data any) (map[string][]authz.Limit, error) {
	if data == nil {
		return map[string][]authz.Limit{}, nil
	}
	plans, ok := data.(map[string]any)
	if !ok {
		return nil, authz.Errorf(authz.KindInvalid, "plans: want an object of plans by name")
	}
	out := make(map[string][]authz.Limit, len(plans))
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		limits, err := parsePlan(plans[name])
		if err != nil {
			return nil, authz.Errorf(authz.KindInvalid, "plan %q: %w", name, err)
		}
		out[name] = limits
	}
	return out, checkShared(out)
}

// checkShared refuses plans that give one limit per account different periods. Keys of one account may be on different plans,
// and would have a count each where one was meant. Units may differ: the keys share the count, and each is held to the units of
// its own plan.
func checkShared(plans map[string][]authz.Limit) error {
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
				return authz.Errorf(authz.KindInvalid, "plans %q and %q: limit %q is per account and has different periods in the two: give one of them another name",
					other, plan, l.Name)
			}
		}
	}
	return nil
}

// samePeriods reports whether two limits begin and end their periods at the same instants.
func samePeriods(a, b *authz.Limit) bool {
	return a.Window == b.Window && zone(a).String() == zone(b).String() && max(a.Anchor, 1) == max(b.Anchor, 1)
}

func parsePlan(data any) ([]authz.Limit, error) {
	plan, ok := data.(map[string]any)
	if !ok {
		return nil, authz.Errorf(authz.KindInvalid, "want an object with limits")
	}
	limits, ok := plan["limits"].(map[string]any)
	if !ok && plan["limits"] != nil {
		return nil, authz.Errorf(authz.KindInvalid, "limits: want an object of limits by name")
	}
	out := make([]authz.Limit, 0, len(limits))
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		l, err := parseLimit(name, limits[name])
		if err != nil {
			return nil, authz.Errorf(authz.KindInvalid, "limit %q: %w", name, err)
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b authz.Limit) int {
		return cmp.Compare(slices.Index(windowOrder, a.Window), slices.Index(windowOrder, b.Window))
	})
	return out, nil
}

func parseLimit(name string, data any) (authz.Limit, error) {
	var zero authz.Limit
	raw, err := json.Marshal(data)
	if err != nil {
		return zero, err
	}
	var s limitSpec
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			want := map[reflect.Kind]string{reflect.String: "a text", reflect.Struct: "an object"}[wrong.Type.Kind()]
			return zero, authz.Errorf(authz.KindInvalid, "%s: want %s, not %s", cmp.Or(wrong.Field, "limit"), cmp.Or(want, "a whole number"), wrong.Value)
		}
		return zero, authz.Errorf(authz.KindInvalid, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	l := authz.Limit{
		Name: name, Unit: cmp.Or(s.Unit, authz.UnitRequests), Window: s.Window, Per: cmp.Or(s.Per, authz.PerKey),
		Anchor: s.Anchor, RefundOnCrash: s.OnCrash == "refund",
	}
	if s.Units != nil {
		l.Units = *s.Units
	}
	switch {
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" || name == "" || len(name) > 64:
		return zero, authz.Errorf(authz.KindInvalid, "use 1 to 64 lower-case letters, digits, _ and - as a name: it goes into headers")
	case s.Units == nil || l.Units < 0 || l.Units > MaxUnits:
		return zero, authz.Errorf(authz.KindInvalid, "units: want a number from 0 to %d", MaxUnits)
	case !slices.Contains(windowOrder, l.Window):
		return zero, authz.Errorf(authz.KindInvalid, "window %q: want one of %v", l.Window, windowOrder)
	case l.Per != authz.PerKey && l.Per != authz.PerAccount:
		return zero, authz.Errorf(authz.KindInvalid, "per %q: want key or account", l.Per)
	case l.Anchor < 0 || l.Anchor > 31 || l.Anchor > 0 && l.Window != authz.WindowMonth:
		return zero, authz.Errorf(authz.KindInvalid, "anchor_day %d: want 1 to 31, on a monthly window", l.Anchor)
	case s.OnCrash != "" && s.OnCrash != "refund" && s.OnCrash != "forfeit":
		return zero, authz.Errorf(authz.KindInvalid, "on_crash %q: want forfeit or refund", s.OnCrash)
	case l.RefundOnCrash && l.Window != authz.WindowNone:
		return zero, authz.Errorf(authz.KindInvalid, "on_crash: refund is for prepaid credits (window none): a period's units come back by themselves")
	}
	if s.Zone != "" {
		if l.Zone, err = time.LoadLocation(s.Zone); err != nil {
			return zero, authz.Errorf(authz.KindInvalid, "zone %q: want a name such as Europe/Berlin", s.Zone)
		}
	}
	l.Count = BucketOf(&l, authz.Holder{}).CountKey()
	return l, nil
}
