package bundle

import "testing"

// FuzzData holds that every file is either refused or data whose every value has a place.
func FuzzData(f *testing.F) {
	for _, seed := range []string{
		placedYAML, placedJSON, namesAPI, api, part, "a: &a {<<: *a}", "tollkeeper: &a [*a]", "<<: [{a: 1}, 2]\n? [x]\n: y", "- 1\n---\n- 2", "? &k tollkeeper\n: {*k : 1}",
		"tollkeeper: {routes: [{openapi: d.yaml}, {openapi: ../d.yaml}, 7, {openapi: ''}]}", "{\"tollkeeper\": {}, \"tollkeeper\": 1}", "1.50: 2\n0x1: 3\n.inf: 4\n-.inf: 5\n.nan: 6\n3.14159265358979: 7\n2026-01-01: 8\ntrue: 9\nyes: 10\n1e30: 11\n-0: 12",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, asJSON bool) {
		name := "d.yaml"
		if asJSON {
			name = "d.json"
		}
		b, err := Compile(t.Context(), files("p.rego", allowAll, name, string(raw)), Options{})
		if err != nil {
			return
		}
		left := 1000
		var walk func(v any, path []any)
		walk = func(v any, path []any) {
			if left--; left < 0 {
				return
			}
			file, line, column := b.Locate(path...)
			if len(path) > 0 {
				if file != name || line < 1 || column < 1 {
					t.Fatalf("%v is at %s:%d:%d", path, file, line, column)
				}
				if _, depth := place(&b.files[0], path); depth != len(path) {
					t.Fatalf("only %d of %q is found", depth, path)
				}
			}
			switch v := v.(type) {
			case map[string]any:
				for _, k := range sortedKeys(v) {
					walk(v[k], append(path, k))
				}
			case []any:
				for i := range v {
					walk(v[i], append(path, i))
				}
			}
		}
		walk(b.data, nil)
	})
}
