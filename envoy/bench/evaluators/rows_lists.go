package evaluators

import (
	"fmt"
	"strconv"
)

// scanRows look for one entry of a list.
func scanRows() []Row {
	var rows []Row
	for _, n := range []int{10, 100, 1000, 10_000} {
		texts := map[string]any{"paths": list(n, numbered("/items/#"))}
		objects := map[string]any{"routes": list(n, func(i int) any {
			return map[string]any{"path": "/items/" + strconv.Itoa(i), "method": "GET", "plans": []any{"free", "pro"}}
		})}
		for _, s := range []struct {
			name, rule string
			data       map[string]any
		}{
			{"texts", "allow if { some p in data.paths; p == http.path }\n", texts},
			{"objects", "allow if { some r in data.routes; r.path == http.path }\n", objects},
			{"objects, method first", "allow if { some r in data.routes; r.method == http.method; r.path == http.path; input.key.plan in r.plans }\n", objects},
		} {
			p, name := rules(s.rule, s.data), "some in "+size(n)+" "+s.name
			rows = append(rows,
				row(name+", first matches", p, Allow, get("/items/0")),
				row(name+", last matches", p, Allow, get(fmt.Sprintf("/items/%d", n-1))),
				row(name+", none matches", p, Deny, get("/items")))
		}
	}
	return append(rows, otherScanRows()...)
}

// otherScanRows look for entries in other ways.
func otherScanRows() []Row {
	const n = 1000
	routes := list(n, func(i int) any {
		return map[string]any{"path": "/items/" + strconv.Itoa(i), "methods": []any{"GET", "HEAD"}}
	})
	byPath, prefixes := make(map[string]any), list(n, numbered("/items-#/"))
	for _, r := range routes {
		byPath[r.(map[string]any)["path"].(string)] = r
	}
	data := map[string]any{"routes": routes, "by_path": byPath, "prefixes": prefixes, "paths": list(n, numbered("/items/#")),
		"networks": list(n, func(i int) any { return fmt.Sprintf("10.%d.%d.0/24", i/256+1, i%256) })}
	var rows []Row
	for _, s := range []struct{ name, rule, path string }{
		{"membership in a list", "allow if http.path in data.paths\n", "/items/999"},
		{"no membership in a list", "allow if not http.path in data.paths\n", "/other"},
		{"underscore instead of some", "allow if data.paths[_] == http.path\n", "/items/999"},
		{"two underscores", "allow if { r := data.routes[_]; r.path == http.path; r.methods[_] == http.method }\n", "/items/999"},
		{"some key, value in an object", "allow if { some path, r in data.by_path; path == http.path; http.method in r.methods }\n", "/items/999"},
		{"lookup by key", "allow if http.method in data.by_path[http.path].methods\n", "/items/999"},
		{"set comprehension", "paths := {r.path | some r in data.routes}\nallow if http.path in paths\n", "/items/999"},
		{"set comprehension of what fits", "fitting := {r.path | some r in data.routes; startswith(http.path, r.path)}\nallow if count(fitting) > 0\n", "/items/9"},
		{"count of what fits", "allow if count([r | some r in data.routes; r.path == http.path]) == 1\n", "/items/999"},
		{"start of the path", "allow if { some p in data.prefixes; startswith(http.path, p) }\n", "/items-999/7"},
		{"start of the path, by strings.any_prefix_match", "allow if strings.any_prefix_match(http.path, data.prefixes)\n", "/items-999/7"},
		{"networks", "allow if { some n in data.networks; net.cidr_contains(n, \"10.4.231.9\") }\n", "/"},
		{"networks of the caller", "allow if { some n in data.networks; not net.cidr_contains(n, input.attributes.source.address.socketAddress.address); n == \"10.4.231.0/24\" }\n", "/"},
		{"by a function", "fits(r) if { r.path == http.path; http.method in r.methods }\nallow if { some r in data.routes; fits(r) }\n", "/items/999"},
		{"nothing forbids", "allow if not forbidden\nforbidden if { some r in data.routes; r.path == http.path }\n", "/other"},
		{"every is different", "allow if every p in data.paths { p != http.path }\n", "/other"},
	} {
		rows = append(rows, row("scan 1,000: "+s.name, rules(s.rule, data), Allow, get(s.path)))
	}
	return rows
}

// joinRows compare two lists.
func joinRows() []Row {
	var rows []Row
	for _, n := range []int{10, 100, 300} {
		groups := list(n, func(i int) any {
			return map[string]any{"user": fmt.Sprintf("user-%d", i), "name": fmt.Sprintf("group-%d", i%7)}
		})
		data := map[string]any{"groups": groups}
		body := post(map[string]any{"users": list(n, numbered("user-#")), "groups": groups})
		for _, s := range []struct{ name, rule string }{
			{"data with input", "names := {g.name | some g in data.groups; some u in input.parsed_body.users; g.user == u}\nallow if count(names) > 0\n"},
			{"input with data", "names := {g.name | some u in input.parsed_body.users; some g in data.groups; g.user == u}\nallow if count(names) > 0\n"},
			{"input with input", "names := {g.name | some u in input.parsed_body.users; some g in input.parsed_body.groups; g.user == u}\nallow if count(names) > 0\n"},
			{"object of comprehensions", "names := {u: [g.name | some g in data.groups; g.user == u] | some u in input.parsed_body.users}\nallow if count(names) > 0\n"},
			{"comprehension in a rule", "allow if { some u in input.parsed_body.users; names := {g.name | some g in data.groups; g.user == u}; count(names) > 1 }\n" +
				"allow if http.method == \"POST\"\n"},
			{"function of an entry", "names(u) := {g.name | some g in data.groups; g.user == u}\nallow if every u in input.parsed_body.users { count(names(u)) > 0 }\n"},
			{"every and some", "allow if every u in input.parsed_body.users { some g in data.groups; g.user == u }\n"},
			{"membership", "names := {g.name | some g in data.groups; g.user in input.parsed_body.users}\nallow if count(names) > 0\n"},
		} {
			rows = append(rows, row(fmt.Sprintf("join %d: %s", n, s.name), rules(s.rule, data), Allow, body))
		}
	}
	return append(rows, roleRows()...)
}

// roleRows are the access control by roles of OPA's manual.
func roleRows() []Row {
	const n = 100
	holders, grants := make(map[string]any), make(map[string]any)
	for i := range n {
		holders[fmt.Sprintf("acc_%d", i)] = list(5, func(k int) any { return fmt.Sprintf("role-%d", (i+k)%n) })
		grants[fmt.Sprintf("role-%d", i)] = list(10, func(k int) any { return map[string]any{"method": "GET", "path": fmt.Sprintf("/items/%d", i+k)} })
	}
	data := map[string]any{"holders": holders, "grants": grants,
		"bindings": list(n, func(i int) any {
			return map[string]any{"user": fmt.Sprintf("acc_%d", i), "role": fmt.Sprintf("role-%d", i)}
		})}
	return []Row{
		row("roles 100: of a user by key", rules(`allow if {
	some role in data.holders[input.key.account]
	some grant in data.grants[role]
	grant == {"method": http.method, "path": http.path}
}
`, data), Allow, get("/items/20")),
		row("roles 100: of a user in a list", rules(`roles contains b.role if {
	some b in data.bindings
	b.user == input.key.account
}

allow if {
	some role in roles
	some grant in data.grants[role]
	grant.method == http.method
	grant.path == http.path
}
`, data), Allow, get("/items/16")),
	}
}
