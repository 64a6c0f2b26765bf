package main

import (
	"slices"
	"strings"
	"testing"
)

func TestFlags_QuickAndOnly(t *testing.T) {
	o, err := parseFlags([]string{"-quick", "-keys", "500", "-callers", "50"})
	if err != nil || o.rounds != 1 || o.seconds != .5 || o.keys != 500 || o.callers != 50 || o.rest != 0 || !o.envoy {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parseFlags([]string{"-evaluators"}); err != nil || o.rounds != 5 || o.seconds != .02 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestChosen_RivalsAndLoads(t *testing.T) {
	all, err := rivalSpecs(options{keys: 500, callers: 50})
	if err != nil {
		t.Fatal(err)
	}
	for only, want := range map[string]string{
		"noop,tollkeeper-large":       "noop tollkeeper-large",
		"tollkeeper-path":             "tollkeeper-path",
		"tollkeeper-ids,opa-keys-ids": "tollkeeper-ids opa-keys-ids",
		"street,noop":                 "noop-street tollkeeper-street-aged tollkeeper-street opa-keys-street noop",
	} {
		list, err := chosen(slices.Clone(all), only)
		var names []string
		for _, one := range list {
			names = append(names, one.name)
		}
		if got := strings.Join(names, " "); got != want || err != nil {
			t.Errorf("-only %s: %s, %v", only, got, err)
		}
	}
	if _, err := chosen(all, "nope"); err == nil {
		t.Error("an unknown rival was chosen")
	}
}

// TestTrials_EachHasAllRivals also compares the order of the report, where the street is first and the hot path second.
func TestTrials_EachHasAllRivals(t *testing.T) {
	all, err := rivalSpecs(options{keys: 500, callers: 50})
	if err != nil {
		t.Fatal(err)
	}
	if trials[0].name != "street" || trials[1].name != "path" {
		t.Errorf("the trials begin with %v", trials[:2])
	}
	names := make(map[string]bool)
	for _, one := range all {
		if names[one.name] {
			t.Errorf("two rivals are %s", one.name)
		}
		names[one.name] = true
	}
	for _, trial := range trials {
		for _, form := range []string{"noop-*", "tollkeeper-*", "tollkeeper-*-aged", "opa-keys-*"} {
			if name := strings.Replace(form, "*", trial.name, 1); !names[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
}
