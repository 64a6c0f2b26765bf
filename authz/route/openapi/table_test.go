package openapi

import (
	"os"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/route"
)

// TestRead_TableTakesEntries makes tables of the documents of real size.
func TestRead_TableTakesEntries(t *testing.T) {
	var limits []authz.Limit
	for _, name := range []string{"requests", "events", "streams", "queries", "exports", "payments"} {
		limits = append(limits, authz.Limit{Name: name})
	}
	for name, routes := range map[string]int{"metering.yaml": 54, "payments.json": 15} {
		raw, err := os.ReadFile("testdata/documents/" + name)
		if err != nil {
			t.Fatal(err)
		}
		table, faults := route.Parse(route.Spec{
			Routes: []any{map[string]any{"openapi": name}},
			Plans:  map[string][]authz.Limit{"team": limits, "business": limits},
			OpenAPI: func(file string) (out []route.Imported, bad []route.Fault) {
				operations, faults := Read(file, from(map[string]string{name: string(raw)}))
				for _, e := range operations {
					out = append(out, route.Imported(e))
				}
				for _, f := range faults {
					bad = append(bad, route.Fault{File: f.File, Line: f.Line, Text: f.Text})
				}
				return out, bad
			},
		})
		if faults != nil || len(table.Routes()) != routes {
			t.Errorf("%s: %v", name, faults)
		}
	}
}
