package main

import (
	"fmt"
	"path/filepath"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// tableFiles are the data files of the policies that have a part of the table of routes.
func tableFiles(cfg config.Policy) (out []*lint.File) {
	add := func(name string, raw []byte, err error) {
		if err != nil {
			return // the server's own code reports it
		}
		if f := lint.ParseData(name, raw); f.Known() {
			out = append(out, f)
		}
	}
	if len(cfg.Paths) == 0 {
		raw, err := policies.Files.ReadFile(shippedRoutes)
		add("(shipped policies) "+shippedRoutes, raw, err)
	}
	for _, path := range cfg.Paths {
		names, _ := filesIn(path)
		for _, name := range names {
			// The data of a file in a folder below is not data.tollkeeper, but data.FOLDER.tollkeeper.
			if data := filepath.Ext(name) != ".rego"; data && (name == path || filepath.Dir(name) == filepath.Clean(path)) {
				raw, err := readFile(name)
				add(name, raw, err)
			}
		}
	}
	return out
}

const shippedRoutes = "routes.yaml"

// routable implements lint.Options.Routable.
func routable(d lint.TableData) (out []lint.TableFault) {
	documents := 0
	_, faults := route.Parse(route.Spec{
		Routes: d.Routes, Paths: d.Paths, Unmatched: d.Unmatched, Plans: namedPlans(d.Routes),
		OpenAPI: func(string) ([]route.Imported, []route.Fault) { // the document may be on another machine
			documents++
			return []route.Imported{{Entry: map[string]any{"name": fmt.Sprintf("document %d", documents)}}}, nil
		},
	})
	for _, f := range faults {
		out = append(out, lint.TableFault{At: f.At, Text: f.Text})
	}
	return out
}

// namedPlans are plans with everything that routes name: which plans and limits exist is not known here.
func namedPlans(routes any) map[string][]authz.Limit {
	plans := map[string][]authz.Limit{"": nil}
	var limits []authz.Limit
	list, _ := routes.([]any)
	for _, item := range list {
		entry, _ := item.(map[string]any)
		named, _ := entry["plans"].([]any)
		for _, plan := range named {
			if name, ok := plan.(string); ok {
				plans[name] = nil
			}
		}
		charge, _ := entry["charge"].(map[string]any)
		for limit := range charge {
			limits = append(limits, authz.Limit{Name: limit})
		}
	}
	for name := range plans {
		plans[name] = limits
	}
	return plans
}
