// Package archtest tests which package may import which, so that each part can be understood, tested and replaced without the
// others.
package archtest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tollkeeper-authz/tollkeeper/"

// law lists the packages of this module that each package may import, and the reason. A package without a row fails the test.
var law = map[string]struct {
	may []string
	why string
}{
	"authz":            {nil, "the vocabulary: every package may import it, so it imports only the standard library"},
	"authz/credential": {nil, "the form and the digest of credentials, for the request path and for the admin API"},
	"authz/check":      {[]string{"authz", "authz/credential"}, "the request path declares the interfaces that it needs; server passes the implementations"},
	"authz/apikey":     {[]string{"authz"}, "domain packages do not import each other: the request path combines their facts"},
	"authz/route":      {[]string{"authz"}, "see apikey"},
	"authz/revocation": {[]string{"authz", "authz/revocation/digesttable"}, "see apikey"},
	"authz/quota":      {[]string{"authz"}, "see apikey"},
	"authz/dispenser":  {[]string{"authz", "authz/dispenser/holding", "authz/dispenser/textmap", "authz/quota"}, "the node's side of the ledger: it uses the ledger's interface"},
	"authz/policy": {[]string{"authz", "authz/policy/bundle", "authz/policy/input", "authz/policy/verdictcache", "authz/policy/yielder", "authz/rego"},
		"see apikey; its parts do not import each other"},
	"authz/token": {[]string{"authz", "authz/credential"}, "see apikey"},

	"authz/dispenser/textmap":      {nil, "a map, which does not know what its texts mean"},
	"authz/dispenser/holding":      {[]string{"authz", "authz/quota"}, "the part of dispenser that takes no lock"},
	"authz/route/openapi":          {nil, "reads documents, and does not know the table that its entries are for"},
	"authz/policy/bundle":          {[]string{"authz/rego"}, "reads, compiles and tests files, and does not know requests"},
	"authz/policy/input":           {[]string{"authz"}, "makes the input of rules from a request, and does not know files"},
	"authz/policy/input/inputtest": {[]string{"authz"}, "requests and facts for tests"},
	"authz/policy/verdictcache":    {[]string{"authz"}, "stores verdicts by keys, and does not know what a key means"},
	"authz/rego":                   {nil, "compiles and runs Rego, and does not know what it decides"},
	"authz/rego/regotest":          {nil, "policies for tests"},
	"authz/policy/yielder":         {nil, "interrupts long evaluations, and needs only the clock"},

	"authz/tlsfiles/tlstest":          {nil, "a certificate authority for tests"},
	"authz/token/tokentest":           {nil, "an issuer for tests"},
	"authz/apikey/apikeytest":         {[]string{"authz", "authz/apikey", "authz/store/memory", "authz/store/storetest"}, "a conformance suite needs its interface, and the memory store to compare with"},
	"authz/revocation/digesttable":    {nil, "a map, which does not know what its values mean"},
	"authz/revocation/revocationtest": {[]string{"authz", "authz/revocation", "authz/store/memory", "authz/store/storetest"}, "see apikeytest"},
	"authz/quota/quotatest":           {[]string{"authz", "authz/quota", "authz/store/memory", "authz/store/storetest"}, "see apikeytest"},

	"authz/store/storetest": {[]string{"authz"}, "a fixture for the suites"},
	"authz/store/memory":    {[]string{"authz", "authz/apikey", "authz/quota", "authz/revocation"}, "a store implements the three interfaces, and shares no code with other stores"},
	"authz/store/bolt": {[]string{"authz", "authz/apikey", "authz/doctor", "authz/quota", "authz/revocation", "authz/store/bolt/pagefile", "authz/store/bolt/wal", "authz/store/keycache", "authz/store/keyrecord", "authz/store/transfer"},
		"see memory; it also has the checks of its own file"},
	"authz/store/postgres":           {[]string{"authz", "authz/apikey", "authz/quota", "authz/revocation", "authz/store/keycache", "authz/store/keyrecord", "authz/store/localcopy", "authz/store/transfer"}, "see memory"},
	"authz/store/postgres/faulttest": {nil, "tests that use the store as a node does"},
	"authz/store/postgres/pgtest":    {nil, "servers for tests, which do not know what is stored"},
	"authz/store/digestset":          {nil, "a set of byte strings"},
	"authz/store/keycache":           {[]string{"authz", "authz/apikey", "authz/store/digestset", "authz/store/keyrecord", "authz/store/recordcache"}, "what memory holds of a store, which passes the way to read it"},
	"authz/store/keyrecord":          {[]string{"authz", "authz/apikey"}, "the form of records, without the place that they are in"},
	"authz/store/localcopy":          {nil, "a file of entries, without their meaning"},
	"authz/store/transfer":           {[]string{"authz", "authz/apikey", "authz/quota", "authz/revocation", "authz/store/keyrecord"}, "what stores have in common when one is copied into another, without any of them"},
	"authz/store/recordcache":        {nil, "a map, which does not know what its values mean"},
	"authz/store/bolt/pagefile":      {[]string{"authz"}, "a file format, without the meaning of the content"},
	"authz/store/bolt/wal":           {[]string{"authz"}, "files of records, without their meaning"},

	"authz/extauthz":               {[]string{"authz", "authz/extauthz/wire"}, "serves Envoy: it turns protobuf into the vocabulary, so that other packages need no protobuf"},
	"authz/extauthz/wire":          {[]string{"authz"}, "the codec of extauthz, which protobuf's own can replace"},
	"authz/signals":                {[]string{"authz", "authz/credential", "authz/revocation"}, "serves other programs that revoke: it turns their messages into records"},
	"authz/decisionlog":            {[]string{"authz", "authz/check", "authz/decisionlog/linebuffer"}, "writes the entries that the request path records"},
	"authz/decisionlog/audit":      {[]string{"authz", "authz/decisionlog", "authz/quota"}, "adds up what logs say, for the command line; no server needs it"},
	"authz/decisionlog/linebuffer": {nil, "the lock-free buffer of decisionlog, which a mutex can replace"},
	"authz/telemetry":              {[]string{"authz", "authz/check"}, "counts the entries that the request path records"},
	"authz/config":                 {[]string{"authz/tlsfiles"}, "the configuration; tlsfiles validates its TLS section"},
	"authz/tlsfiles":               {nil, "files, and the crypto/tls configuration made of them"},
	"authz/gcpace":                 {nil, "sets the garbage collector of the process"},
	"authz/doctor":                 {nil, "callers pass the things to check, so it runs inside a server and without one"},

	"authz/doctor/lint": {[]string{"authz/config", "authz/doctor/lint/model", "authz/doctor/lint/rule", "authz/doctor/lint/rules", "authz/doctor/lint/source"},
		"applies the rules; callers pass the files and the state of the machine"},
	"authz/doctor/lint/source": {nil, "documents with positions, without their meaning"},
	"authz/doctor/lint/model":  {[]string{"authz/config", "authz/doctor/lint/source"}, "the meaning of documents, without judging them"},
	"authz/doctor/lint/rule":   {[]string{"authz/doctor/lint/model", "authz/doctor/lint/source"}, "the form of a rule, without the rules"},
	"authz/doctor/lint/rules":  {[]string{"authz/doctor/lint/model", "authz/doctor/lint/rule", "authz/doctor/lint/source"}, "the rules, which judge the model"},
	"authz/admin": {[]string{"authz", "authz/apikey", "authz/check", "authz/credential", "authz/decisionlog", "authz/doctor", "authz/quota", "authz/revocation"},
		"operators use the domain through its interfaces, and see recent decisions"},
	"authz/rulebook": {[]string{"authz", "authz/admin", "authz/check", "authz/config", "authz/policy", "authz/policy/bundle", "authz/quota", "authz/route", "authz/route/openapi", "authz/telemetry", "policies"},
		"turns policy files into the rules of the request path, and checks the plans in use"},
	"authz/server": {[]string{
		"authz", "authz/admin", "authz/apikey", "authz/check", "authz/config", "authz/decisionlog", "authz/dispenser", "authz/doctor", "authz/extauthz", "authz/gcpace",
		"authz/policy", "authz/quota", "authz/revocation", "authz/rulebook", "authz/signals", "authz/store/bolt", "authz/store/memory", "authz/store/postgres", "authz/store/transfer",
		"authz/telemetry", "authz/tlsfiles", "authz/token",
	}, "the only package that connects all parts"},
	"authz/archtest":  {nil, "this test"},
	"authz/crashtest": {nil, "tests that use the product only from outside"},

	"cmd/tollkeeper": {[]string{"authz", "authz/admin", "authz/apikey", "authz/config", "authz/decisionlog/audit", "authz/doctor", "authz/doctor/lint", "authz/policy", "authz/policy/bundle", "authz/quota", "authz/route", "authz/route/openapi", "authz/rulebook", "authz/server", "policies"}, "the command line: it runs the server, or is a client of its admin API"},
	"policies":       {nil, "embedded files"},
	"envoy":          {nil, "a configuration and its tests"},
	"envoy/nodes":    {nil, "tests that use the product only from outside, except that they read the books in the end"},
	"envoy/harness":  {nil, "runs real processes, and uses the product only from outside"},
	"envoy/demo":     {[]string{"authz/token/tokentest", "envoy/harness"}, "see harness; it also runs an issuer"},
	"envoy/bench": {[]string{"authz/apikey", "authz/revocation", "authz/store/bolt", "authz/token/tokentest", "envoy/bench/evaluators", "envoy/harness", "policies"},
		"see harness; it also runs other authorizers for comparison, one with our policies, signs tokens, and fills the store with a million revoked tokens, for which there is no command"},
	"envoy/bench/evaluators": {[]string{"authz", "authz/extauthz", "authz/policy", "authz/policy/bundle", "authz/policy/input/inputtest", "policies"},
		"compares what evaluates policies, without a server"},
}

// doors lists the packages that may import a foreign module.
var doors = map[string][]string{
	"github.com/open-policy-agent/opa":       {"authz/policy", "authz/policy/bundle", "authz/policy/input", "authz/rego", "envoy/bench"},
	"go.etcd.io/bbolt":                       {"authz/store/bolt"},
	"github.com/jackc/pgx":                   {"authz/store/postgres", "authz/store/postgres/pgtest"},
	"github.com/gobwas/glob":                 {"authz/rego"}, // OPA uses it too
	"github.com/envoyproxy/go-control-plane": {"authz/doctor/lint/model", "authz/doctor/lint/rules", "authz/extauthz", "authz/server", "envoy", "envoy/bench", "envoy/harness"},
	"google.golang.org/protobuf":             {"authz/doctor/lint/model", "authz/extauthz", "authz/extauthz/wire", "envoy", "envoy/bench", "envoy/harness", "envoy/demo"},
	"google.golang.org/grpc":                 {"authz/extauthz", "authz/server", "envoy", "envoy/bench", "envoy/harness", "envoy/demo"},
	"github.com/danielgtaylor/huma":          {"authz/admin"},
	"github.com/prometheus":                  {"authz/server", "authz/telemetry"},
	// OPA reads the data of policies; bundle reads it once more to know lines.
	"go.yaml.in/yaml":            {"authz/config", "authz/doctor/lint/source", "authz/policy/bundle", "authz/route/openapi"},
	"github.com/spf13":           {"cmd/tollkeeper"},
	"github.com/lestrrat-go/jwx": {"authz/token", "authz/token/tokentest"},
	// The oracle of a test: authz/decisions/013-openapi.md.
	"github.com/getkin/kin-openapi": {},
	// One YAML library is enough.
	"github.com/goccy/go-yaml": nil,
	// k8s/image is a module of its own, so that these stay out of the binary's requirements.
	"github.com/opencontainers": nil,
	"github.com/CycloneDX":      nil,
}

// imports lists the imports of each package of this module: of the package, and of its tests.
func imports(t *testing.T) map[string][2][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}|{{join .Imports " "}}|{{join .TestImports " "}} {{join .XTestImports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string][2][]string)
	for line := range strings.Lines(string(out)) {
		parts := strings.Split(line, "|")
		all[strings.TrimPrefix(parts[0], module)] = [2][]string{strings.Fields(parts[1]), strings.Fields(parts[2])}
	}
	return all
}

func TestImports_FollowTheLaw(t *testing.T) {
	for pkg, imported := range imports(t) {
		rule, ok := law[pkg]
		if !ok {
			t.Errorf("%s has no row in the law: say what it may import, and why", pkg)
			continue
		}
		for _, path := range imported[0] {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(rule.may, ours) {
				t.Errorf("%s must not import %s: %s", pkg, ours, rule.why)
			}
			if pkg == "authz" && strings.Contains(path, ".") {
				t.Errorf("authz must import only the standard library, not %s", path)
			}
		}
	}
}

// TestImports_ThroughDoors also checks imports of tests, for modules that no package may import.
func TestImports_ThroughDoors(t *testing.T) {
	for pkg, imported := range imports(t) {
		for foreign, through := range doors {
			paths := imported[0]
			if through == nil {
				paths = slices.Concat(paths, imported[1])
			}
			for _, path := range paths {
				if strings.HasPrefix(path, foreign) && !slices.Contains(through, pkg) {
					t.Errorf("%s must not import %s: the packages that may are %q", pkg, path, through)
				}
			}
		}
	}
}

// TestLibraries_DoNotExit: only cmd may end the process, and nothing may run before main.
func TestLibraries_DoNotExit(t *testing.T) {
	out, err := exec.Command("grep", "-rnE", `os\.Exit\(|log\.Fatal|^func init\(`, "--include=*.go", "../../authz", "../../policies").CombinedOutput()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "archtest") && !strings.Contains(line, "_test.go") {
				t.Errorf("a library must not end the process or have an init function: %s", strings.TrimSpace(line))
			}
		}
	}
}

// TestTopLevel_HasNoStrayFiles keeps the top of the repository small, because people look for files there first.
func TestTopLevel_HasNoStrayFiles(t *testing.T) {
	known := strings.Fields("LICENSE Makefile README.md authz bin cmd coverage.out data envoy go.mod go.sum k8s policies tollkeeper")
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(known, e.Name()) {
			t.Errorf("%s does not belong at the top of the repository", e.Name())
		}
	}
}
