package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
	"github.com/tollkeeper-authz/tollkeeper/authz/route/openapi"
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
	var imported []any
	read := func(name string) ([]route.Imported, []route.Fault) {
		operations, faults := readDocument(d.File, name)
		if faults == nil && operations == nil { // it is on another machine
			documents++
			return []route.Imported{{Entry: map[string]any{"name": fmt.Sprintf("document %d", documents)}}}, nil
		}
		for _, o := range operations {
			imported = append(imported, o.Entry)
		}
		return operations, faults
	}
	list, _ := d.Routes.([]any)
	for _, item := range list {
		if entry, ok := item.(map[string]any); ok {
			if name, ok := entry["openapi"].(string); ok {
				_, _ = read(name)
			}
		}
	}
	_, faults := route.Parse(route.Spec{
		Routes: d.Routes, Paths: d.Paths, Unmatched: d.Unmatched, Plans: namedPlans(slices.Concat(list, imported)), OpenAPI: read,
	})
	for _, f := range faults {
		if f.At == nil {
			f.Text = fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
		}
		out = append(out, lint.TableFault{At: f.At, Text: f.Text})
	}
	return out
}

// operations implements lint.Options.Operations.
func operations(table, document string) (out []lint.Operation, ok bool) {
	read, faults := readDocument(table, document)
	for _, o := range read {
		out = append(out, lint.Operation(o))
	}
	return out, len(read) > 0 && len(faults) == 0
}

// readDocument reads an OpenAPI document that a table names. It returns neither operations nor faults if there is none. It opens only
// files below the directory of the table.
func readDocument(table, document string) (out []route.Imported, faults []route.Fault) {
	if _, err := os.Stat(table); err != nil { // standard input, or the shipped policies
		return nil, nil
	}
	root, err := os.OpenRoot(filepath.Dir(table))
	if err != nil {
		return nil, nil
	}
	defer func() { _ = root.Close() }()
	open := func(name string) ([]byte, bool) {
		info, err := root.Stat(name)
		if err != nil || !info.Mode().IsRegular() || info.Size() > lint.MaxBytes {
			return nil, false
		}
		raw, err := root.ReadFile(name)
		return raw, err == nil
	}
	if _, exists := open(document); !exists {
		return nil, nil
	}
	read, wrong := openapi.Read(document, open)
	for _, o := range read {
		out = append(out, route.Imported(o))
	}
	for _, f := range wrong {
		faults = append(faults, route.Fault{File: f.File, Line: f.Line, Text: f.Text})
	}
	return out, faults
}

// namedPlans are plans with everything that routes name: which plans and limits exist is not known here.
func namedPlans(routes []any) map[string][]authz.Limit {
	plans := map[string][]authz.Limit{"": nil}
	var limits []authz.Limit
	for _, item := range routes {
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
