package evaluators

import "fmt"

// patternRows match the path with patterns.
func patternRows() []Row {
	var rows []Row
	for _, n := range []int{10, 100, 1000} {
		data := map[string]any{"regexes": list(n, numbered(`^/v1/things-#/[0-9]+$`)), "globs": list(n, numbered("/v1/things-#/*"))}
		last, none := get(fmt.Sprintf("/v1/things-%d/7", n-1)), get("/v1/other/7")
		for _, s := range []struct{ name, rule string }{
			{"regexes", "allow if { some p in data.regexes; regex.match(p, http.path) }\n"},
			{"globs", `allow if { some p in data.globs; glob.match(p, ["/"], http.path) }` + "\n"},
		} {
			p, name := rules(s.rule, data), s.name+" in data "+size(n)
			rows = append(rows, row(name+", last matches", p, Allow, last), row(name+", none matches", p, Deny, none))
		}
	}
	for _, n := range []int{10, 100} {
		last, none := get(fmt.Sprintf("/v1/things-%d/7", n-1)), get("/v1/other/7")
		for _, s := range []struct{ name, rule string }{
			{"regexes", "allow if regex.match(`^/v1/things-#/[0-9]+$`, http.path)\n"},
			{"globs and a method", `allow if { glob.match("/v1/things-#/*", ["/"], http.path); http.method != "POST" }` + "\n"},
		} {
			p, name := rules(repeat(n, s.rule), nil), s.name+" in rules "+size(n)
			rows = append(rows, row(name+", last matches", p, Allow, last), row(name+", none matches", p, Deny, none))
		}
	}
	long := get("/v1/tenants/acme-17/projects/main/items/2029-03-11/files/report.pdf")
	for _, s := range []struct{ name, rule string }{
		{"regex.find_all_string_submatch_n", "allow if { [[_, tenant, _]] := regex.find_all_string_submatch_n(`^/v1/tenants/([^/]+)/projects/([^/]+)/`, http.path, 1); tenant == \"acme-17\" }\n"},
		{"regex.replace", "allow if regex.replace(http.path, `[0-9]{4}-[0-9]{2}-[0-9]{2}`, \"DATE\") != http.path\n"},
		{"regex.split", "allow if count(regex.split(`[/-]`, http.path)) > 5\n"},
		{"regex.template_match", "allow if regex.template_match(\"/v1/tenants/{[^/]+}/projects/{.*}\", http.path, \"{\", \"}\")\n"},
		{"pattern from the request", "allow if regex.match(concat(\"\", [\"^/v1/tenants/\", \"[^/]+/\", input.parsed_path[3]]), http.path)\n"},
	} {
		rows = append(rows, row("pattern: "+s.name, rules(s.rule, nil), Allow, long))
	}
	return rows
}
