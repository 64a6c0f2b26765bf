package quota_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

func TestParsePlans_AccountLimitHasOnePeriod(t *testing.T) {
	plan := func(window string, per string) map[string]any {
		return map[string]any{"limits": map[string]any{"req": map[string]any{"units": 5, "window": window, "per": per}}}
	}
	_, faults := quota.ParsePlans(map[string]any{"a": plan("month", "account"), "b": plan("minute", "account")})
	if len(faults) != 1 || fmt.Sprint(faults[0].At) != "[b limits req]" {
		t.Errorf("two periods for one limit of an account: %v", faults)
	}
	if _, faults := quota.ParsePlans(map[string]any{"a": plan("month", "key"), "b": plan("minute", "key")}); faults != nil {
		t.Errorf("keys do not share: %v", faults)
	}
}

// TestParsePlans_Faults holds that every field with a fault is reported, once, at its place, and in words of the file.
func TestParsePlans_Faults(t *testing.T) {
	for limit, want := range map[string][]string{
		`{"units": "ten", "window": "day"}`:                   {`[units] units: want a whole number, not text`},
		`{"units": 1.5, "window": "day"}`:                     {`[units] units: want a whole number, not the number 1.5`},
		`{"units": 1, "window": "month", "anchor_day": true}`: {`[anchor_day] anchor_day: want a whole number, not true or false`},
		`{"units": 1, "window": 7, "anchor_day": 3}`:          {`[window] window: want a text, not the number 7`},
		`1000`:                          {`[] limit: want an object, not the number 1000`},
		`{"unit": "x", "windw": "day"}`: {`[windw] unknown field "windw": the fields are units, window, per, unit, zone, anchor_day and on_crash`, `[units] units: want a number from 0 to 9007199254740992`, `[window] window "": want one of [second minute hour day month none]`},
		`{"Units": 5, "units": -1, "window": "day"}`:                   {`[Units] unknown field "Units": the fields are units, window, per, unit, zone, anchor_day and on_crash`, `[units] units: want a number from 0 to 9007199254740992`},
		`{"units": 1, "window": "day", "per": "user", "zone": "Moon"}`: {`[per] per "user": want key or account`, `[zone] zone "Moon": want a name such as Europe/Berlin`},
		`{"units": 1, "window": "day", "anchor_day": 3, "on_crash": "refund"}`: {`[anchor_day] anchor_day 3: want 1 to 31, on a monthly window`,
			`[on_crash] on_crash: refund is for prepaid credits (window none): a period's units come back by themselves`},
		`{"units": 1, "window": "none", "on_crash": "explode"}`: {`[on_crash] on_crash "explode": want forfeit or refund`},
	} {
		var v any
		if err := json.Unmarshal([]byte(limit), &v); err != nil {
			t.Fatal(err)
		}
		plans, faults := quota.ParsePlans(map[string]any{"free": map[string]any{"limits": map[string]any{"daily": v}}})
		var got []string
		for _, f := range faults {
			got = append(got, fmt.Sprint(f.At[3:])+" "+strings.TrimPrefix(f.Text, `plan "free": limit "daily": `))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", limit, got, want)
		}
		if len(plans["free"]) != 1 || plans["free"][0].Name != "daily" {
			t.Errorf("%s: the plans do not have the name: %v", limit, plans)
		}
	}
}

func TestParsePlans_FaultsOfAllPlans(t *testing.T) {
	plans, faults := quota.ParsePlans(map[string]any{"a": 1, "b": map[string]any{"limits": []any{}}, "c": map[string]any{"limits": map[string]any{"B!": map[string]any{"units": 1, "window": "day"}}}})
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprint(f.At, " ", f.Text))
	}
	if want := []string{`[a] plan "a": want an object with limits`, `[b limits] plan "b": limits: want an object of limits by name`,
		`[c limits B!] plan "c": limit "B!": use 1 to 64 lower-case letters, digits, _ and - as a name: it goes into headers`}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if len(plans) != 3 {
		t.Errorf("got %v", plans)
	}
	if _, faults := quota.ParsePlans([]any{}); len(faults) != 1 || faults[0].At != nil {
		t.Errorf("a list: %v", faults)
	}
}

// TestParsePlans_MisspeltLimits: a plan without limits grants everything, so a misspelt name is a fault.
func TestParsePlans_MisspeltLimits(t *testing.T) {
	for name, fault := range map[string]bool{"limit": true, "Limits": true, "limist": true, "limts": true, "limitz": true, "title": false, "list": false, "price": false} {
		_, faults := quota.ParsePlans(map[string]any{"free": map[string]any{name: map[string]any{}}})
		if (len(faults) > 0) != fault || fault && fmt.Sprint(faults[0].At) != "[free "+name+"]" {
			t.Errorf("%s: %v", name, faults)
		}
	}
}
