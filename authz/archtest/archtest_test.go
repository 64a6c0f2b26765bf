// Package archtest holds the law of imports: who may know whom. A part that can be understood, tested and replaced
// without the others stays so only if something says no.
package archtest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tollkeeper-authz/tollkeeper/"

// law says what of this module each package may import. A package that is not in the table fails the test.
var law = map[string]struct {
	may []string
	why string
}{
	"authz":            {nil, "the vocabulary, which everybody imports, imports nobody"},
	"authz/credential": {nil, "what the text of a credential looks like, and its digest: needed on both sides of the request path"},
	"authz/check":      {[]string{"authz", "authz/credential"}, "the request path declares what it needs and is given it"},
	"authz/apikey":     {[]string{"authz"}, "domain packages do not know each other: the request path brings their facts together"},
	"authz/revocation": {[]string{"authz", "authz/revocation/digesttable"}, "as apikey"},
	"authz/quota":      {[]string{"authz"}, "as apikey"},
	"authz/dispenser":  {[]string{"authz", "authz/dispenser/holding", "authz/quota"}, "the node's side of the ledger: it speaks the ledger's contract, which knows nothing of it"},
	"authz/policy": {[]string{"authz", "authz/policy/bundle", "authz/policy/input", "authz/policy/verdictcache", "authz/policy/yielder"},
		"as apikey; its rooms do not know each other, and it puts them together"},
	"authz/token": {[]string{"authz", "authz/credential"}, "as apikey"},

	"authz/dispenser/holding":      {[]string{"authz", "authz/quota"}, "the part of dispenser that takes no lock, alone with its oracle"},
	"authz/policy/bundle":          {nil, "reads and compiles files, and knows nothing of requests"},
	"authz/policy/input":           {[]string{"authz"}, "makes what rules see of a request, and knows nothing of files"},
	"authz/policy/input/inputtest": {[]string{"authz"}, "requests and facts for tests"},
	"authz/policy/verdictcache":    {[]string{"authz"}, "keeps verdicts by keys, whatever a key is made of"},
	"authz/policy/yielder":         {nil, "a device that knows only the clock"},

	"authz/tlsfiles/tlstest":          {nil, "a certificate authority, which knows nobody"},
	"authz/token/tokentest":           {nil, "an issuer at the far edge of the network, which knows nobody"},
	"authz/apikey/apikeytest":         {[]string{"authz", "authz/apikey", "authz/store/memory", "authz/store/storetest"}, "a suite knows its contract, and the memory store as the oracle"},
	"authz/revocation/digesttable":    {nil, "a map, which knows nothing of what is in it"},
	"authz/revocation/revocationtest": {[]string{"authz", "authz/revocation", "authz/store/memory", "authz/store/storetest"}, "as apikeytest"},
	"authz/quota/quotatest":           {[]string{"authz", "authz/quota", "authz/store/memory", "authz/store/storetest"}, "as apikeytest"},

	"authz/store/storetest": {[]string{"authz"}, "a fixture, which knows no contract"},
	"authz/store/memory":    {[]string{"authz", "authz/apikey", "authz/quota", "authz/revocation"}, "a store implements the three contracts, and knows no other store"},
	"authz/store/bolt": {[]string{"authz", "authz/apikey", "authz/doctor", "authz/quota", "authz/revocation", "authz/store/bolt/digestset", "authz/store/bolt/pagefile"},
		"as memory; and it says itself how its file is checked"},
	"authz/store/bolt/digestset": {nil, "a set of bytes"},
	"authz/store/bolt/pagefile":  {[]string{"authz"}, "a format of files, which knows nothing of what is in them"},

	"authz/extauthz":               {[]string{"authz", "authz/extauthz/wire"}, "the door to Envoy knows only the vocabulary, so that protobuf stops here"},
	"authz/extauthz/wire":          {[]string{"authz"}, "the codec of extauthz, which can be replaced by protobuf's own"},
	"authz/signals":                {[]string{"authz", "authz/credential", "authz/revocation"}, "the door through which others revoke: what they say becomes records"},
	"authz/decisionlog":            {[]string{"authz", "authz/check", "authz/decisionlog/linebuffer"}, "writes down what the request path records"},
	"authz/decisionlog/linebuffer": {nil, "the lock-free buffer of decisionlog, which a mutex can replace"},
	"authz/telemetry":              {[]string{"authz", "authz/check"}, "counts what the request path records"},
	"authz/config":                 {[]string{"authz/tlsfiles"}, "the configuration, whose TLS section has the rules of the TLS files"},
	"authz/tlsfiles":               {nil, "files, and what crypto/tls makes of them"},
	"authz/gcpace":                 {nil, "sets the garbage collector of the process, and knows nothing else"},
	"authz/doctor":                 {nil, "a check is given what it looks at, so that it runs in the server and without one"},

	"authz/doctor/lint": {[]string{"authz/config", "authz/doctor/lint/model", "authz/doctor/lint/rule", "authz/doctor/lint/rules", "authz/doctor/lint/source"},
		"the door to the rules over files that it is given, and over what others saw of this machine"},
	"authz/doctor/lint/source": {nil, "documents with positions, which know nothing of their meaning"},
	"authz/doctor/lint/model":  {[]string{"authz/config", "authz/doctor/lint/source"}, "what documents mean, without judging it"},
	"authz/doctor/lint/rule":   {[]string{"authz/doctor/lint/model", "authz/doctor/lint/source"}, "what a rule is, whichever rules there are"},
	"authz/doctor/lint/rules":  {[]string{"authz/doctor/lint/model", "authz/doctor/lint/rule", "authz/doctor/lint/source"}, "the rules, which judge the model"},
	"authz/admin": {[]string{"authz", "authz/apikey", "authz/check", "authz/credential", "authz/decisionlog", "authz/doctor", "authz/quota", "authz/revocation"},
		"operators work on the domain, through its contracts, and look at recent decisions"},
	"authz/rulebook": {[]string{"authz", "authz/admin", "authz/check", "authz/config", "authz/policy", "authz/policy/bundle", "authz/quota", "authz/telemetry", "policies"},
		"turns policy files into the rules of the request path, and is told who is on which plan"},
	"authz/server": {[]string{
		"authz", "authz/admin", "authz/apikey", "authz/check", "authz/config", "authz/decisionlog", "authz/dispenser", "authz/doctor", "authz/extauthz", "authz/gcpace",
		"authz/policy", "authz/quota", "authz/revocation", "authz/rulebook", "authz/signals", "authz/store/bolt", "authz/store/memory",
		"authz/telemetry", "authz/tlsfiles", "authz/token",
	}, "the only place that connects all parts"},
	"authz/archtest":  {nil, "this test"},
	"authz/crashtest": {nil, "tests, which know the product only from outside"},

	"cmd/tollkeeper": {[]string{"authz/admin", "authz/apikey", "authz/config", "authz/doctor", "authz/doctor/lint", "authz/policy", "authz/policy/bundle", "authz/rulebook", "authz/server", "policies"}, "the command line: the server, or a client of its admin API"},
	"policies":       {nil, "files"},
	"envoy":          {nil, "a configuration and its tests"},
	"envoy/harness":  {nil, "runs real processes, and knows the product only from outside"},
	"envoy/demo":     {[]string{"authz/token/tokentest", "envoy/harness"}, "as harness, with an issuer to sign in at"},
	"envoy/bench": {[]string{"authz/apikey", "authz/revocation", "authz/store/bolt", "envoy/harness", "policies"},
		"as harness, and it is the rivals, one of which asks our policies without us; no command revokes a million tokens at once"},
}

// doors are the foreign modules that may be imported through one door only.
var doors = map[string][]string{
	"github.com/open-policy-agent/opa":       {"authz/policy", "authz/policy/bundle", "authz/policy/input", "envoy/bench"},
	"go.etcd.io/bbolt":                       {"authz/store/bolt"},
	"github.com/envoyproxy/go-control-plane": {"authz/doctor/lint/model", "authz/doctor/lint/rules", "authz/extauthz", "authz/server", "envoy", "envoy/bench", "envoy/harness"},
	"google.golang.org/protobuf":             {"authz/doctor/lint/model", "authz/extauthz", "authz/extauthz/wire", "envoy", "envoy/bench", "envoy/harness", "envoy/demo"},
	"google.golang.org/grpc":                 {"authz/extauthz", "authz/server", "envoy", "envoy/bench", "envoy/harness", "envoy/demo"},
	"github.com/danielgtaylor/huma":          {"authz/admin"},
	"github.com/prometheus":                  {"authz/server", "authz/telemetry"},
	"go.yaml.in/yaml":                        {"authz/config", "authz/doctor/lint/source"},
	"github.com/spf13":                       {"cmd/tollkeeper"},
	"github.com/lestrrat-go/jwx":             {"authz/token", "authz/token/tokentest"},
	// k8s/image is a module of its own, so that these stay out of the binary's requirements.
	"github.com/opencontainers": nil,
	"github.com/CycloneDX":      nil,
}

func TestLaw(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		rule, ok := law[pkg]
		if !ok {
			t.Errorf("%s is not in the law: say what it may import, and why", pkg)
			continue
		}
		for _, imported := range fields[1:] {
			if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(rule.may, ours) {
				t.Errorf("%s must not import %s: %s", pkg, ours, rule.why)
			}
			for foreign, through := range doors {
				if strings.HasPrefix(imported, foreign) && !slices.Contains(through, pkg) {
					t.Errorf("%s must not import %s, which is known only to %v", pkg, imported, through)
				}
			}
			if pkg == "authz" && strings.Contains(imported, ".") {
				t.Errorf("authz must import only the standard library, not %s", imported)
			}
		}
	}
}

// TestExitIsForMain keeps libraries from ending the process.
func TestExitIsForMain(t *testing.T) {
	out, err := exec.Command("grep", "-rnE", `os\.Exit\(|log\.Fatal|^func init\(`, "--include=*.go", "../../authz", "../../policies").CombinedOutput()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "archtest") && !strings.Contains(line, "_test.go") {
				t.Errorf("only cmd may end the process, and nothing may run before main: %s", strings.TrimSpace(line))
			}
		}
	}
}

// TestTopLevel holds what lies at the top of the repository: people look for things there, so nothing else may.
func TestTopLevel(t *testing.T) {
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
