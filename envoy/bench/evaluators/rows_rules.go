package evaluators

import (
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
	return append(rows, elseRows()...)
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
