package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollkeeper.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad_WithoutAFile(t *testing.T) {
	got, err := Load("")
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := Load(write(t, "")); err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("an empty file: %+v, %v", got, err)
	}
}

func TestLoad_FileAndEnvironment(t *testing.T) {
	path := write(t, `
listen: {grpc: "127.0.0.1:7001", admin: "127.0.0.1:7002"}
tls: {cert_file: tls.crt, key_file: tls.key, client_ca_file: ca.crt, client_names: [envoy.edge.svc], min_version: 1.2}
shutdown: {delay: 5s}
policy: {paths: [a, b], query: x/y, profile: rfc}
data_dir: /var/lib/tollkeeper
request: {timeout: 50ms, dry_run: true, skip_body_parse: true, proto_descriptor: x.pb}
credentials: {headers: [X-Key], bearer: false, query: [k]}
`)
	t.Setenv("TOLLKEEPER_LISTEN_GRPC", "127.0.0.1:8001")
	t.Setenv("TOLLKEEPER_POLICY_PATHS", "c,d")
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen.GRPC, want.Listen.Admin = "127.0.0.1:8001", "127.0.0.1:7002"
	want.TLS = TLS{CertFile: "tls.crt", KeyFile: "tls.key", ClientCAFile: "ca.crt", ClientNames: []string{"envoy.edge.svc"}, MinVersion: "1.2"}
	want.Shutdown = Shutdown{Delay: Duration{Duration: 5 * time.Second}}
	want.Policy.Paths, want.Policy.Query, want.Policy.Profile = []string{"c", "d"}, "x/y", "rfc"
	want.DataDir = "/var/lib/tollkeeper"
	want.Request = Request{Timeout: Duration{Duration: 50 * time.Millisecond}, DryRun: true, SkipBodyParse: true, ProtoDescriptor: "x.pb"}
	want.Credentials = Credentials{Headers: []string{"x-key"}, Query: []string{"k"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestLoad_Mistakes holds that the error for every mistake is one line that says where it is and what to write.
func TestLoad_Mistakes(t *testing.T) {
	cases := map[string]struct{ file, want string }{
		"unknown field":      {"listen:\n  grcp: x\n", `:2:3: unknown field "grcp"`},
		"unknown at the top": {"lisen: {}\n", `:1:1: unknown field "lisen"`},
		"unknown in a list":  {"tokens: {issuers: [{issuer: a}, {isuer: b}]}\n", `:1:34: unknown field "isuer"`},
		"no boolean":         {"request:\n  dry_run: 7\n", `:2:12: request.dry_run: "7": want true or false`},
		"YAML 1.1 boolean":   {"request: {dry_run: yes}\n", `:1:20: request.dry_run: "yes": want true or false`},
		"no number":          {"policy: {memo: 1k}\n", `:1:16: policy.memo: "1k": want a number`},
		"no whole number":    {"policy: {recheck: 0.5}\n", `:1:19: policy.recheck: "0.5": want a number`},
		"too large a number": {"policy: {memo: 99999999999999999999}\n", `:1:16: policy.memo: "99999999999999999999": want a number`},
		"text for a list":    {"policy: {paths: x}\n", ":1:17: policy.paths: want a list"},
		"list for a text":    {"data_dir: [a]\n", ":1:11: data_dir: want one value"},
		"list for a time":    {"request: {timeout: [1s]}\n", ":1:20: request.timeout: want one value"},
		"text for a section": {"listen: x\n", ":1:9: listen: want fields, such as grpc: "},
		"a text alone":       {"listen\n", ":1:1: want fields, such as listen: "},
		"not YAML":           {"listen: [\n", ":2:1: did not find"},
		"not YAML, line 2":   {"data_dir: a\n b: c\n", ":2:2: mapping values are not allowed"},
		"unquoted port":      {"listen: {admin: 'a:1', grpc: :9001}\n", ":1:1: did not find expected node content: put a text with : or ? in quotes"},
		"unquoted ?":         {"policy:\n  paths: [what?]\n", ":2:3: did not find expected ',' or ']': put a text with : or ? in quotes"},
		"alias for a name":   {"data_dir: &store x\n*store : memory\n", ":2:1: want the name of a field"},
		"not YAML, line 3":   {"log:\n  level: debug\n decisions: off\n", ":3:2: did not find expected key"},
		"not YAML, line 4":   {"store: memory\n\n\nlog: {level: debug\n", ":4:1: did not find expected ',' or '}'"},
		"no such anchor":     {"store: memory\n\nlog:\n  level: *x\n", ":4:3: unknown anchor 'x'"},
		"endless anchor":     {"listen: &x {<<: *x}\n", "anchor that contains itself"},
		"duplicate":          {"data_dir: a\ndata_dir: b\n", `:2:1: field "data_dir" is already set at 1:1`},
		"duplicate deeper":   {"listen:\n  grpc: a\n  grpc: b\n", `:3:3: field "grpc" is already set at 2:3`},
		"two documents":      {"data_dir: a\n---\ndata_dir: b\n", ":2:1: a second document"},
		"no port":            {"listen:\n  grpc: localhost\n", `:2:9: listen.grpc: "localhost": want host:port`},
		"timeout":            {"request: {timeout: 0s}\n", ":1:20: request.timeout: "},
		"duration":           {"request: {timeout: soon}\n", `:1:20: request.timeout: "soon": want a duration`},
		"profile":            {"policy: {profile: rcf}\n", `policy.profile: "rcf": want strict, article or rfc`},
		"evaluator":          {"policy: {evaluator: wasm}\n", `:1:21: policy.evaluator: "wasm": want compiled or opa`},
		"no evaluator":       {"policy: {evaluator: ''}\n", `policy.evaluator: "": want compiled or opa`},
		"recheck":            {"policy: {recheck: -1}\n", `:1:19: policy.recheck: -1: want a number of decisions`},
		"store":              {"store: redis\n", `:1:8: store: "redis": want bolt, memory or postgres`},
		"authorization":      {"credentials: {headers: [Authorization]}\n", "for Authorization set bearer: true"},
		"header name":        {"credentials: {headers: ['x y']}\n", "want header names"},
		"billing URL":        {"answers: {billing_url: 'javascript:alert(1)'}\n", "answers.billing_url: "},
		"identity":           {"answers: {identity: [plan, x-tollkeeper-account]}\n", `answers.identity: "x-tollkeeper-account": want some of key-id, account`},
		"metadata":           {"answers: {metadata: [path]}\n", `answers.metadata: "path": want some of decision_id, reason`},
		"data_dir":           {"data_dir: ''\n", ":1:11: data_dir: want a folder"},
		"level":              {"log: {level: loud}\n", "log.level: "},
		"relative socket":    {"listen: {grpc: 'unix:run/x.sock'}\n", `:1:16: listen.grpc: "unix:run/x.sock": want an absolute path`},
		"long socket":        {"listen: {grpc: 'unix:/" + strings.Repeat("x", 80) + "'}\n", "of 80 bytes at most"},
		"socket for admin":   {"listen: {admin: 'unix:/run/x.sock'}\n", "listen.admin: \"unix:/run/x.sock\": want host:port"},
		"health":             {"listen: {health: '9003'}\n", `listen.health: "9003": want host:port, such as 0.0.0.0:9003`},
		"one port for two":   {"listen: {health: '127.0.0.1:9002'}\n", `listen.health: "127.0.0.1:9002" is the address of listen.admin too`},
		"everywhere for two": {"listen: {health: ':9002'}\n", `listen.health: ":9002" is the address of listen.admin too`},
		"by another name":    {"listen: {metrics: 'localhost:9001'}\n", `listen.metrics: "localhost:9001" is the address of listen.grpc too`},
		"metrics":            {"listen: {metrics: x}\n", `listen.metrics: "x": want host:port`},
		"connection age":     {"listen: {max_connection_age: -1s}\n", "listen.max_connection_age: "},
		"delay":              {"shutdown: {delay: 5}\n", `shutdown.delay: "5": want a duration`},
		"TLS without a key":  {"tls: {cert_file: tls.crt}\n", "tls.key_file: want the file"},
		"TLS without files":  {"tls: {min_version: '1.3'}\n", "tls.cert_file: want the file"},
		"names without CA":   {"tls: {cert_file: a, key_file: b, client_names: [c]}\n", ":1:48: tls.client_names: clients have no names"},
		"old TLS":            {"tls: {cert_file: a, key_file: b, min_version: 1.1}\n", `:1:47: tls.min_version: "1.1": want 1.3 or 1.2`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v\nwant one line with %q", err, c.want)
			}
		})
	}
	if _, err := Load("nowhere.yaml"); err == nil || !strings.Contains(err.Error(), "nowhere.yaml") {
		t.Errorf("missing file: %v", err)
	}
	t.Setenv("TOLLKEEPER_REQUEST_TIMEOUT", "-1s")
	if _, err := Load(""); err == nil || !strings.HasPrefix(err.Error(), "TOLLKEEPER_REQUEST_TIMEOUT: ") {
		t.Errorf("bad variable: %v", err)
	}
	t.Setenv("TOLLKEEPER_REQUEST_TIMEOUT", "soon")
	if _, err := Load(""); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("variable of a wrong type: %v", err)
	}
}

// TestRead_LooseForms reads what the decoder need not take as strictly as a mistake.
func TestRead_LooseForms(t *testing.T) {
	for text, want := range map[string]func(*Config){
		"# nothing\n":                            func(*Config) {},
		"---\nstore: memory\n---\n":              func(c *Config) { c.Store.Kind = "memory" },
		"listen:\ndata_dir: ~\n":                 func(*Config) {}, // as if they were not there
		"credentials: {headers: []}\n":           func(c *Config) { c.Credentials.Headers = []string{} },
		"policy: {memo: '5', profile: ''}\n":     func(c *Config) { c.Policy.Memo = 5 },
		"policy: {memo: '010'}\n":                func(c *Config) { c.Policy.Memo = 10 },
		"listen:\n  grpc: :9001\n":               func(c *Config) { c.Listen.GRPC = ":9001" },
		"policy: {memo: 0x10}\n":                 func(c *Config) { c.Policy.Memo = 16 },
		"policy: {memo: 1e3}\n":                  func(c *Config) { c.Policy.Memo = 1000 },
		"policy: {recheck: 0, evaluator: opa}\n": func(c *Config) { c.Policy.Recheck, c.Policy.Evaluator = 0, "opa" },
		"policy: {strict_errors: false}\n":       func(c *Config) { c.Policy.StrictErrors = new(bool) },
		"policy: {paths: [1.10, true]}\n":        func(c *Config) { c.Policy.Paths = []string{"1.10", "true"} },
		"tokens: {issuers: [&a {issuer: a, discovery: true}, {<<: *a, issuer: b}, {<<: [{issuer: c}, *a]}]}\n": func(c *Config) {
			c.Tokens.Issuers = []Issuer{{Issuer: "a", Discovery: true}, {Issuer: "b", Discovery: true}, {Issuer: "c", Discovery: true}}
		},
	} {
		wanted := Default()
		want(&wanted)
		if got, err := Read("x.yaml", []byte(text), nil); err != nil || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", text, err, got, wanted)
		}
	}
}

// FuzzRead holds that no document makes the decoder panic or run forever.
func FuzzRead(f *testing.F) {
	f.Add("listen: {grpc: \"127.0.0.1:9001\"}")
	f.Add("policy: {paths: [policies], query: envoy/authz/allow}\nrequest: {timeout: 1s}")
	f.Add("a: &a [*a]")
	f.Add("<<: {listen: 1}")
	f.Add("tokens: &a {<<: [*a, *a]}")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = Read("x.yaml", []byte(text), nil)
	})
}

// TestLoad_ExamplesOfTheREADMEs reads every configuration that the READMEs show.
func TestLoad_ExamplesOfTheREADMEs(t *testing.T) {
	for readme, least := range map[string]int{"../../README.md": 2, "../../envoy/README.md": 2} {
		raw, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(raw), "```yaml\n# tollkeeper.yaml\n")[1:]
		if len(blocks) < least {
			t.Fatalf("%s: %d configurations found", readme, len(blocks))
		}
		for _, b := range blocks {
			text, _, _ := strings.Cut(b, "```")
			if _, err := Load(write(t, text)); err != nil {
				t.Errorf("%s: %v in\n%s", readme, err, text)
			}
		}
	}
}
