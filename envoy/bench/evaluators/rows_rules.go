package evaluators

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// shape is a way to write many rules, each with a guard that few requests pass.
type shape struct {
	name  string
	sizes []int
	head  string
	rule  string // # is its number
	path  string // of the request that the rule holds for
}

var shapes = []shape{
	{"path", []int{10, 100, 1000}, "", `allow if { http.path == "/items/#"; input.key.status == "active" }` + "\n", "/items/#"},
	{"method and path", []int{10, 100, 1000}, "", `allow if { http.method == "GET"; http.path == "/items/#" }` + "\n", "/items/#"},
	{"argument of a function", []int{10, 100, 1000}, "allow if permitted(http.path, input.key.status)\n",
		`permitted("/items/#", status) if status == "active"` + "\n", "/items/#"},
	{"segments of the path", []int{100, 1000}, "", `allow if { input.parsed_path = ["v1", "things-#", id]; id != "" }` + "\n", "/v1/things-#/7"},
	{"first segment", []int{100}, "", `allow if { input.parsed_path[0] == "things-#"; input.key.status == "active" }` + "\n", "/things-#/7"},
	{"method in a set", []int{100}, "", `allow if { http.method in {"GET", "HEAD"}; http.path == "/items/#" }` + "\n", "/items/#"},
	{"path is one of two", []int{100}, "", `allow if { http.path in ["/items/#", "/other/#"]; input.key.status == "active" }` + "\n", "/items/#"},
	{"different values", []int{100, 1000}, "allow if limit > 0\n", `limit := 1# if http.path == "/items/#"` + "\n", "/items/#"},
	{"glob", []int{100, 1000}, "", `allow if { glob.match("/v1/*/things-#", ["/"], http.path); input.key.status == "active" }` + "\n", "/v1/x/things-#"},
	{"start of the path", []int{100, 1000}, "", `allow if { startswith(http.path, "/items-#/"); input.key.status == "active" }` + "\n", "/items-#/7"},
	{"end of the path", []int{1000}, "", `allow if { endswith(http.path, "/things-#"); input.key.status == "active" }` + "\n", "/v1/things-#"},
	{"one of two starts", []int{1000}, "", `allow if { strings.any_prefix_match(http.path, ["/a-#/", "/b-#/"]); input.key.status == "active" }` + "\n", "/a-#/7"},
	{"one of two ends", []int{1000}, "", `allow if { strings.any_suffix_match(http.path, ["/a-#", "/b-#"]); input.key.status == "active" }` + "\n", "/v1/a-#"},
	{"whole segments", []int{1000}, "", `allow if { input.parsed_path == ["v1", "things-#"]; input.key.status == "active" }` + "\n", "/v1/things-#"},
	{"segments as argument", []int{1000}, "allow if permitted(http.method, input.parsed_path)\n", `permitted("GET", ["v1", "things-#", id]) if id != ""` + "\n", "/v1/things-#/7"},
	{"scope of the caller", []int{1000}, "", `allow if { "scope-#" in input.key.scopes; http.method == "GET" }` + "\nallow if http.path == \"/items/#\"\n", "/items/#"},
	{"any scope of the caller", []int{1000}, "", `allow if { input.key.scopes[_] == "scope-#"; http.method == "GET" }` + "\nallow if http.path == \"/items/#\"\n", "/items/#"},
	{"header that is there", []int{100}, "", `allow if { http.headers["x-tenant-#"]; http.method == "GET" }` + "\nallow if http.path == \"/items/#\"\n", "/items/#"},
	{"not another path", []int{100}, "", `allow if { not http.path == "/other/#"; http.path == "/items/#" }` + "\n", "/items/#"},
	{"lowercase path", []int{100}, "", `allow if lower(http.path) == "/items/#"` + "\n", "/ITEMS/#"},
	{"header", []int{100}, "", `allow if http.headers["x-header-3"] == "tenant-#"` + "\nallow if http.path == \"/items/#\"\n", "/items/#"},
	{"partial set", []int{100, 1000}, "allow if some _ in granted\n", `granted contains "right-#" if http.path == "/items/#"` + "\n", "/items/#"},
	{"partial object", []int{100, 1000}, "allow if some _, _ in granted\n", `granted["right-#"] := http.method if http.path == "/items/#"` + "\n", "/items/#"},
	{"one key of a partial object", []int{100, 1000}, "allow if granted[http.path]\n", `granted["/items/#"] if input.key.status == "active"` + "\n", "/items/#"},
	{"partial set of denials without index", []int{100}, "", `deny contains sprintf("%s is not for #", [http.path]) if { input.key.status != "active"; http.path != "/items/#" }` +
		"\nallow if { count(deny) == 0; http.path == \"/items/#\" }\n", "/items/#"},
}

// guardedRows ask policies of many rules.
func guardedRows() []Row {
	var rows []Row
	for _, s := range shapes {
		for _, n := range s.sizes {
			p := rules(s.head+repeat(n, s.rule), nil)
			name := "guarded rules " + size(n) + ": " + s.name
			at := func(i int) *authz.Request { return get(strings.ReplaceAll(s.path, "#", strconv.Itoa(i))) }
			if n == 1000 {
				rows = append(rows, row(name+", first holds", p, Allow, at(0)))
			}
			rows = append(rows, row(name+", last holds", p, Allow, at(n-1)), row(name+", none holds", p, Deny, at(n)))
		}
	}
	return slices.Concat(rows, memberRows(), elseRows())
}

// memberRows have rules whose guard is a collection of the base data.
func memberRows() []Row {
	const n = 1000
	groups := make(map[string]any)
	for i := range n {
		members := make(map[string]any)
		for k := range 10 {
			members[fmt.Sprintf("user-%d", i*10+k)] = true
		}
		groups[fmt.Sprintf("g%d", i)] = map[string]any{"members": members, "list": list(10, func(k int) any { return fmt.Sprintf("user-%d", i*10+k) })}
	}
	data := map[string]any{"groups": groups}
	last, none := with("x-user", fmt.Sprintf("user-%d", n*10-1)), with("x-user", "nobody")
	var rows []Row
	for _, s := range []struct{ name, head, rule string }{
		{"key of data", "", `allow if { data.groups.g#.members[http.headers["x-user"]]; input.key.status == "active" }`},
		{"value in data", "", `allow if { http.headers["x-user"] in data.groups.g#.list; input.key.status == "active" }`},
		{"key of data, each a permission", "allow if count(permissions) > 0\n", `permissions contains "p-#" if data.groups.g#.members[http.headers["x-user"]]`},
	} {
		p, name := rules(s.head+repeat(n, s.rule+"\n"), data), "guarded rules 1,000: "+s.name
		rows = append(rows, row(name+", last holds", p, Allow, last), row(name+", none holds", p, Deny, none))
	}
	return rows
}

// Guarded is a policy of rules that are guarded by their path.
func Guarded(n int) *Policy { return rules(repeat(n, shapes[0].rule), nil) }

func elseRows() []Row {
	var rows []Row
	for _, n := range []int{10, 100} {
		chain := "allow if answer == \"last\"\nanswer := \"first\" if http.path == \"/first\"\n" +
			repeat(n, `else := "value-#" if http.path == "/items/#"`+"\n") + "else := \"last\" if http.path == \"/last\"\n"
		p := rules(chain, nil)
		rows = append(rows, row("else "+size(n)+": first holds", p, Deny, get("/first")), row("else "+size(n)+": last holds", p, Allow, get("/last")),
			row("else "+size(n)+": none holds", p, Deny, get("/none")))
	}
	return rows
}
