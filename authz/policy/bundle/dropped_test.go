package bundle

import "testing"

func TestCompile_RefusesWhatTheDecoderDrops(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"a field": {"r.yaml", "tollkeeper:\n  routes:\n    - name: a\n      scopes: [x]\n      scopes: []\n",
			`r.yaml:5:7: "scopes" is written twice here, first on line 4: only one of them would be read`},
		"a second list of routes": {"r.yaml", "tollkeeper:\n  routes: [1]\n  plans: {}\n  routes: [2]\n",
			`r.yaml:4:3: "routes" is written twice here, first on line 2: only one of them would be read`},
		"all of it": {"r.yaml", "tollkeeper: {routes: []}\nother: 1\ntollkeeper: {plans: {}}\n",
			`r.yaml:3:1: "tollkeeper" is written twice here, first on line 1: only one of them would be read`},
		"three": {"r.yaml", "tollkeeper: {a: 1, a: 2, a: 3}\n",
			"r.yaml:1:20: \"a\" is written twice here, first on line 1: only one of them would be read\n" +
				"r.yaml:1:26: \"a\" is written twice here, first on line 1: only one of them would be read"},
		"two spellings of a name": {"r.yaml", "tollkeeper:\n  'a': 1\n  ? \"\\u0061\"\n  : 2\n",
			`r.yaml:3:5: "a" is written twice here, first on line 2: only one of them would be read`},
		"a number and a text": {"r.yaml", "tollkeeper: {plans: {1: {}, \"1\": {}}}\n",
			`r.yaml:1:29: "1" is written twice here, first on line 1: only one of them would be read`},
		"JSON": {"r.json", "{\"tollkeeper\": {\n\t\"routes\": [],\n\t\"routes\": []}}",
			`r.json:3:2: "routes" is written twice here, first on line 2: only one of them would be read`},
		"escaped JSON": {"r.json", "{\"\\u0074ollkeeper\": {},\n\"tollkeeper\": {}}",
			`r.json:2:1: "tollkeeper" is written twice here, first on line 1: only one of them would be read`},
		"JSON in a YAML file": {"r.yaml", "{\"tollkeeper\":\n{\"a\": 1,\n\t\"a\": 1}}",
			`r.yaml:3:2: "a" is written twice here, first on line 2: only one of them would be read`},
		"in a directory of that name": {"tollkeeper/plans/p.yaml", "free: {}\nfree: {}\n",
			`tollkeeper/plans/p.yaml:2:1: "free" is written twice here, first on line 1: only one of them would be read`},
		"in an anchor elsewhere": {"r.yaml", "x: &x\n  a: 1\n  a: 2\ntollkeeper: {plans: *x}\n",
			`r.yaml:3:3: "a" is written twice here, first on line 2: only one of them would be read`},
		"two merges": {"r.yaml", "x: &x {a: 1}\ny: &y {b: 1}\ntollkeeper:\n  <<: *x\n  <<: *y\n",
			`r.yaml:5:3: "<<" is written twice here, first on line 4: only one of them would be read`},
		"a second document": {"r.yaml", "tollkeeper: {plans: {}}\n---\n# more\ntollkeeper: {routes: []}\n",
			`r.yaml:4:1: a second document, which would not be read: write it into a file of its own`},
		"a second document after another's": {"r.yaml", "other: 1\n---\ntollkeeper: {routes: []}\n",
			`r.yaml:3:1: a second document, which would not be read: write it into a file of its own`},
		"an empty document first": {"tollkeeper/r.yaml", "---\na: 1\n---\n---\nroutes: []\n",
			`tollkeeper/r.yaml:5:1: a second document, which would not be read: write it into a file of its own`},
	} {
		_, err := Compile(t.Context(), files("p.rego", allowAll, c.file, c.text), Options{})
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got  %v\nwant %s", name, err, c.want)
		}
	}
}

func TestCompile_LeavesOtherDataAsItIs(t *testing.T) {
	for name, text := range map[string]string{
		"data of others":             "a: 1\na: 2\nx: {y: 1, y: 2}\ntollkeeper: {plans: {}}\n",
		"a merge that is overridden": "x: &x {a: 1, b: 1}\ntollkeeper: {<<: *x, a: 2, plans: {p: *x, q: *x}}\n",
		"an end without a document":  "tollkeeper: {plans: {}}\n---\n...\n",
		"a document of others":       "tollkeeper: {plans: {}}\n---\nkind: ConfigMap\n",
		"the word alone":             "a: tollkeeper\na: tollkeeper\n",
	} {
		if _, err := Compile(t.Context(), files("p.rego", allowAll, "r.yaml", text), Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
