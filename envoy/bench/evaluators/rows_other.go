package evaluators

import (
	"encoding/base64"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// otherRows are what API policies do beside looking for a rule or an entry.
func otherRows() []Row {
	var rows []Row
	for _, c := range otherCases {
		request := c.request
		if request == nil {
			request = get("/v1/things")
		}
		rows = append(rows, row(c.name, rules(c.rule, otherData), Allow, request))
	}
	for _, n := range []int{10, 100, 1000} {
		scopes := list(n, numbered("scope-#"))
		p := rules("allow if every s in data.needed { s in input.parsed_body.scopes }\n", map[string]any{"needed": scopes[:min(n, 100)]})
		rows = append(rows, row("every of "+size(min(n, 100))+" in a list of "+size(n), p, Allow, post(map[string]any{"scopes": scopes})))
	}
	return rows
}

var otherData = map[string]any{
	"tree":   tree(4, 5),
	"limits": map[string]any{"free": 10, "pro": map[string]any{"calls": 1000, "regions": []any{"eu", "us"}}},
	"opens":  "2020-01-01T00:00:00Z", "closes": "2090-01-01T00:00:00Z",
	"graph": map[string]any{"root": []any{"staff"}, "staff": []any{"dev", "ops"}, "dev": []any{"intern"}, "ops": []any{}, "intern": []any{}},
}

// tree is a document of that depth, with that many branches at each place.
func tree(depth, branches int) any {
	if depth == 0 {
		return map[string]any{"id": "leaf", "secret": false}
	}
	out := make(map[string]any)
	for i := range branches {
		out[fmt.Sprintf("part-%d", i)] = tree(depth-1, branches)
	}
	return out
}

func order() map[string]any {
	items := list(20, func(i int) any {
		return map[string]any{"sku": fmt.Sprintf("sku-%d", i), "quantity": i + 1, "price": 9.5}
	})
	return map[string]any{"customer": map[string]any{"id": "acc_7", "country": "DE"}, "items": items, "note": "Ring twice.", "total": 95}
}

func rawBody() *authz.Request {
	r := post(order())
	r.HTTP.Body = `{"customer": {"id": "acc_7", "country": "DE"}, "items": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}], "total": 95}`
	return r
}

var otherCases = []struct {
	name, rule string
	request    *authz.Request // nil: a GET of /v1/things
}{
	{"small: one rule with two conditions", `allow if { input.key.status == "active"; http.method == "GET" }`, nil},
	{"small: constant", "allow := true if true", nil},
	{"small: answer with headers", `allow := {"allowed": true, "headers": {"x-account": input.key.account, "x-plan": input.key.plan}} if input.key.status == "active"`, nil},
	{"small: denial with body", `verdict := {"allowed": false, "http_status": 403, "body": sprintf("%s %s is not for you", [http.method, http.path])}
allow if verdict.http_status == 403`, nil},
	{"whole input as text", "allow if contains(json.marshal(input), \"active\")", nil},
	{"headers: read five", `allow if { http.headers["x-header-0"]; http.headers["x-header-3"] != ""; http.headers["x-header-7"] != "y"; http.headers["x-header-13"]; startswith(http.headers["x-api-key"], "tk_") }`, nil},
	{"headers: all", `allow if count({name | some name, value in http.headers; startswith(name, "x-header-"); value != ""}) == 14`, nil},
	{"headers: object.get", `allow if object.get(http.headers, "x-missing", "none") == "none"`, nil},
	{"headers: object.get of a path", `allow if object.get(input, ["attributes", "request", "http", "headers", "x-header-3"], "") != ""`, nil},
	{"headers: basic authentication", `allow if { [user, password] := split(base64.decode(substring(http.headers.authorization, 6, -1)), ":"); user == "alice"; crypto.sha256(password) != "" }`,
		with("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:wonderland")))},
	{"headers: hmac", `allow if crypto.hmac.equal(crypto.hmac.sha256(http.path, "secret"), crypto.hmac.sha256(http.path, "secret"))`, nil},
	{"headers: cookie", `cookies := {name: value | some pair in split(http.headers.cookie, "; "); [name, value] := split(pair, "=")}
allow if cookies.session == "17"`, with("cookie", "theme=dark; session=17; lang=de; seen=1; consent=yes")},
	{"query: parameter", `allow if { page := to_number(object.get(input.parsed_query, "page", ["1"])[0]); page < 100 }`, nil},
	{"text: sprintf", `allow if sprintf("%s:%s:%d", [http.method, http.path, count(input.parsed_path)]) == "GET:/v1/things:2"`, nil},
	{"text: concat", `allow if concat("/", array.concat([""], input.parsed_path)) == http.path`, nil},
	{"text: split, lower, trim", `allow if { parts := split(trim_prefix(lower(http.path), "/"), "/"); parts[0] == "v1"; trim_space(parts[1]) == "things" }`, nil},
	{"text: interpolation", "allow if $\"{http.method} {http.path}\" == \"GET /v1/things\"", nil},
	{"text: replace, indexof, substring", `allow if { p := replace(http.path, "/v1/", "/v2/"); substring(p, indexof(p, "things"), -1) == "things"; strings.count(p, "/") == 2 }`, nil},
	{"numbers: sum, max, round", `allow if { sum([p | some i in input.parsed_body.items; p := i.price * i.quantity]) > 100; max([q | some i in input.parsed_body.items; q := i.quantity]) == 20; round(2.5) == 3 }`, post(order())},
	{"numbers: range", `allow if { some i in numbers.range(1, 50); i * i == count(input.parsed_path) * 200 }`, nil},
	{"body: a field", `allow if { input.parsed_body.customer.id == input.account.id; input.parsed_body.total < 100 }`, post(order())},
	{"body: all items", `allow if every i in input.parsed_body.items { i.quantity < 100; startswith(i.sku, "sku-") }`, post(order())},
	{"body: parsed by the policy", `allow if json.unmarshal(http.body).customer.country == "DE"`, rawBody()},
	{"body: json.filter", `allow if json.filter(input.parsed_body, ["customer/id", "total"]) == {"customer": {"id": "acc_7"}, "total": 95}`, post(order())},
	{"body: schema by hand", `deny contains "customer" if not is_string(input.parsed_body.customer.id)
deny contains "total" if not is_number(input.parsed_body.total)
deny contains "items" if not is_array(input.parsed_body.items)
deny contains "field" if { some k, _ in input.parsed_body; not k in {"customer", "items", "note", "total"} }
allow if count(deny) == 0`, post(order())},
	{"body: graphql.is_valid", `allow if graphql.is_valid(input.parsed_body.query, "type Query { hello: String, orders: [String] }")`, post(map[string]any{"query": "query { hello orders }"})},
	{"time: between two moments", `allow if { now := time.now_ns(); now > time.parse_rfc3339_ns(data.opens); now < time.parse_rfc3339_ns(data.closes) }`, nil},
	{"time: clock and weekday", `allow if { [h, _, _] := time.clock([time.now_ns(), "Europe/Berlin"]); h >= 0; time.weekday(time.now_ns()) != "Noday" }`, nil},
	{"time: moment in the key's metadata", `allow if time.parse_rfc3339_ns(object.get(input.key, ["meta", "ends"], "2090-01-01T00:00:00Z")) > time.now_ns()`, nil},
	{"addresses: ten networks", `networks := ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16", "10.6.0.0/16", "10.7.0.0/16", "10.8.0.0/16", "10.9.0.0/16", "10.0.0.0/16"]
allow if { some n in networks; net.cidr_contains(n, input.attributes.source.address.socketAddress.address) }`, nil},
	{"addresses: net.cidr_contains_matches", `allow if count(net.cidr_contains_matches(["10.1.0.0/16", "10.0.0.0/16"], input.attributes.source.address.socketAddress.address)) > 0`, nil},
	{"with: input", `allow if { permitted with input.key as {"status": "active", "plan": "pro"} }
permitted if { input.key.plan == "pro"; http.method == "GET" }`, nil},
	{"with: a whole input", `allow if { permitted with input as {"user": input.key.account, "action": http.method} }
permitted if { input.user == "acc_7"; input.action == "GET" }`, nil},
	{"with: data", `allow if { permitted with data.limits as {"acc_7": http.method} }
permitted if data.limits[input.key.account] == "GET"`, nil},
	{"with: in a loop", `allow if every r in ["a", "b", "c", "d", "e"] { permitted with input.role as r }
permitted if { input.role != "z"; http.method == "GET" }`, nil},
	{"walk: data, a leaf by its path", `allow if { walk(data.tree, [["part-4", "part-4", "part-4", "part-4", "id"], v]); v == "leaf" }`, nil},
	{"walk: data, all leaves", `allow if count([v | walk(data.tree, [path, v]); path[count(path) - 1] == "id"]) == 625`, nil},
	{"walk: body", `found contains v if { walk(input.parsed_body, [_, v]); v == "sku-19" }
allow if "sku-19" in found`, post(order())},
	{"sets: scopes", `allow if { needed := {"read", "write"}; granted := {s | some s in input.key.scopes}; count(needed - granted) == 0; count(needed & granted) == 2 }`, nil},
	{"sets: object.keys, object.union", `allow if { o := object.union({"a": 1}, {"b": http.method}); object.keys(o) == {"a", "b"} }`, nil},
	{"data: nested by plan", `allow if { data.limits[input.key.plan].calls > 10; "eu" in data.limits[input.key.plan].regions }`, nil},
	{"data: graph.reachable", `allow if "intern" in graph.reachable(data.graph, {"root"})`, nil},
	{"functions: five deep", `a(x) := b(concat("", [x, "1"]))
b(x) := c(concat("", [x, "2"]))
c(x) := d(concat("", [x, "3"]))
d(x) := e(concat("", [x, "4"]))
e(x) := upper(x)
allow if a(http.method) == "GET1234"`, nil},
	{"reasons: ten denials and their texts", repeat(10, `deny contains {"code": "code-#", "text": sprintf("%s #", [http.path])} if { http.method == "GET"; input.key.status == "active" }`+"\n") +
		`allow if count([d.text | some d in deny]) == 10`, nil},
	{"uuid", `allow if uuid.rfc4122(http.path) != ""`, nil},
	{"sort", `allow if sort([s | some s in ["c", "b", "a", http.method]])[0] == "GET"`, nil},
	{"semver", `allow if semver.compare(trim_prefix(object.get(http.headers, "x-version", "v1.2.3"), "v"), "1.0.0") > 0`, nil},
	{"urlquery", `allow if urlquery.encode_object({"path": http.path}) != ""`, nil},
}
