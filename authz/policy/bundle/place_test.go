package bundle

import (
	"fmt"
	"strings"
	"testing"
)

const placedYAML = `# Comments do not count.
tollkeeper:
  routes:
    - name: a
      match: {path: /a, methods: [GET, POST]}
    - &b
      name: b
    - *b
    - <<: *b
      name: c
  "quoted": 1
  0x10: 2
`

const placedJSON = "{\n\t\"tollkeeper\": {\n\t\t\"plans\": {\"é\": {}, \"free\": [\n\t\t\ttrue,\n\t\t\t{\"x\" : [ 1,2]}]}\n\t}\n}"

func TestLocate_NamesFileLineAndColumn(t *testing.T) {
	b := mustCompile(t, files("p.rego", allowAll, "sub/r.yaml", placedYAML, "p.json", placedJSON, "tollkeeper/reasons/mine.yml", "one:\n  two: 2\n",
		"tollkeeper/list/l.yaml", "- 1\n- {b: 2}\n", "m.yaml", "x: &x {p: 1}\ny: &y {p: 2, q: 3}\nmerged:\n  <<: [*x, *y]\n  own: 4\n", "q.yaml", placedYAML), Options{Profile: "rfc"})
	for _, c := range []struct {
		path []any
		want string
	}{
		{[]any{"tollkeeper", "routes", 0, "match", "path"}, "q.yaml:5:15"},
		{[]any{"tollkeeper", "routes", 0, "match", "methods", 1}, "q.yaml:5:40"},
		{[]any{"tollkeeper", "routes", 0, "match", "methods", 2}, "q.yaml:5:25"}, // missing: the nearest above
		{[]any{"tollkeeper", "routes", 0, "scopes"}, "q.yaml:4:7"},
		{[]any{"tollkeeper", "routes", 0, "name", "deeper"}, "q.yaml:4:7"},
		{[]any{"tollkeeper", "routes", 1, "name"}, "q.yaml:7:7"},
		{[]any{"tollkeeper", "routes", 2}, "q.yaml:8:7"},
		{[]any{"tollkeeper", "routes", 2, "name"}, "q.yaml:7:7"}, // where the anchor is
		{[]any{"tollkeeper", "routes", 3, "name"}, "q.yaml:10:7"},
		{[]any{"tollkeeper", "routes", 4}, "q.yaml:3:3"},
		{[]any{"tollkeeper", "routes", -1}, "q.yaml:3:3"},
		{[]any{"tollkeeper", "routes", "name"}, "q.yaml:3:3"},
		{[]any{"tollkeeper", "quoted"}, "q.yaml:11:3"},
		{[]any{"tollkeeper", "16"}, "q.yaml:12:3"},
		{[]any{"sub", "tollkeeper", "routes", 3, "name"}, "sub/r.yaml:10:7"},
		{[]any{"tollkeeper", "plans", "free", 0}, "p.json:4:4"},
		{[]any{"tollkeeper", "plans", "free", 1, "x", 1}, "p.json:5:15"},
		{[]any{"tollkeeper", "plans", "free", 1, "y"}, "p.json:5:4"},
		{[]any{"tollkeeper", "plans", "free"}, "p.json:3:22"},
		{[]any{"tollkeeper", "reasons", "one", "two"}, "tollkeeper/reasons/mine.yml:2:3"},
		{[]any{"tollkeeper", "reasons", "three"}, "tollkeeper/reasons/mine.yml:0:0"},
		{[]any{"tollkeeper", "list", 1, "b"}, "tollkeeper/list/l.yaml:2:4"},
		{[]any{"merged", "own"}, "m.yaml:5:3"},
		{[]any{"merged", "p"}, "m.yaml:1:8"}, // the first of a list takes precedence
		{[]any{"merged", "q"}, "m.yaml:2:14"},
		{[]any{"tollkeeper", "profile"}, "p.json:2:2"}, // from the options
		{[]any{"nothing"}, ":0:0"},
		{nil, ":0:0"},
	} {
		file, line, column := b.Locate(c.path...)
		if got := fmt.Sprintf("%s:%d:%d", file, line, column); got != c.want {
			t.Errorf("%v is at %s, want %s", c.path, got, c.want)
		}
	}
}

// TestLocate_EveryValue holds that each value of a JSON and of a YAML file is found on its own line, whatever its neighbours are.
func TestLocate_EveryValue(t *testing.T) {
	const form = `{"a":[1,true,null,"x, : {",-2.5e3],"b":{"c":{"d":[[],{}]},"é, ":"q"},"\u0065":{"f":0}}`
	split := strings.NewReplacer(`,"`, ",\n\t\"", ",true", ",\r\n\t true", ",null", " ,\n null", ",-", "\n,\n  -", ",{", ",\n\t\t{", ":[[", ": [\n[", `:"q`, ":\n\t \"q")
	for name, text := range map[string]string{"d.json": split.Replace(form), "d.yaml": strings.ReplaceAll(split.Replace(form), "\t", "  "), "e.yaml": split.Replace(form)} {
		b := mustCompile(t, files("p.rego", allowAll, name, text), Options{})
		lines := strings.Split(text, "\n")
		for _, c := range []struct {
			path []any
			word string
		}{
			{[]any{"a", 0}, `1`}, {[]any{"a", 1}, `true`}, {[]any{"a", 2}, `null`}, {[]any{"a", 3}, `"x, : {"`}, {[]any{"a", 4}, `-2.5e3`},
			{[]any{"b"}, `"b"`}, {[]any{"b", "c", "d", 0}, `[]`}, {[]any{"b", "c", "d", 1}, `{}`}, {[]any{"b", "é, "}, `"é, "`},
			{[]any{"e"}, `"\u0065"`}, {[]any{"e", "f"}, `"f"`},
		} {
			file, line, column := b.Locate(c.path...)
			if file != name || line < 1 || line > len(lines) || column < 1 || !strings.HasPrefix(string([]rune(lines[line-1])[column-1:]), c.word) {
				t.Errorf("%v is at %s:%d:%d, which is not %s", c.path, file, line, column, c.word)
			}
		}
	}
}
