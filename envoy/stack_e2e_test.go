package envoy

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// stack is the whole path of a request: clients send to Envoy at addr, Envoy asks the real Tollkeeper and forwards to the
// upstream.
type stack struct {
	*harness.Upstream
	t        *testing.T
	addr     string
	proxy    *harness.Proxy
	tk       *harness.Tollkeeper
	policies string // this test's copy of the bundle
	http     *http.Client
}

// newStack starts everything with ownPolicies.
func newStack(t *testing.T) *stack {
	t.Helper()
	return startStack(t, ownPolicies(t))
}

// startStack starts everything with a bundle, by default the embedded one, and more sections of Tollkeeper's configuration.
func startStack(t *testing.T, policies string, extra ...string) *stack {
	t.Helper()
	// Keys in a query parameter are off by default.
	extra = append([]string{"credentials: {query: [api_key]}\n"}, extra...)
	return runStack(t, harness.TollkeeperOptions{Policies: policies, Extra: strings.Join(extra, "")}, nil)
}

// runStack starts everything with options, and with changes to the shipped configuration of Envoy, if there are any.
func runStack(t *testing.T, o harness.TollkeeperOptions, change func(envoyYAML string) string) *stack {
	t.Helper()
	s := &stack{t: t, policies: o.Policies, http: httpClient(t, false), Upstream: startUpstream(t), tk: startTollkeeper(t, o)}
	s.proxy = startProxy(t, s.tk.Port(), s.Port(), change)
	s.addr = s.proxy.Addr()
	return s
}

// startTollkeeper starts a Tollkeeper, and logs its output when the test fails.
func startTollkeeper(t *testing.T, o harness.TollkeeperOptions) *harness.Tollkeeper {
	t.Helper()
	var err error
	if o.Binary, err = binary(); err != nil {
		t.Fatal(err)
	}
	tk, err := harness.StartTollkeeper(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Tollkeeper wrote:\n%s", lastLines(tk.Log(), 12))
		}
		if err := tk.Close(); err != nil {
			t.Error(err)
		}
	})
	return tk
}

// ownPolicies is a copy of the shipped bundle with the files of testdata/policies, which replace plans and routes.
func ownPolicies(t *testing.T) string {
	t.Helper()
	root, err := harness.ModuleRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	policies := filepath.Join(t.TempDir(), "policies")
	copyFiles(t, filepath.Join(root, "policies"), policies)
	copyFiles(t, filepath.Join(root, "envoy", "testdata", "policies"), policies)
	return policies
}

// copyFiles copies a folder over another one, and replaces files of the same name.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// writePolicy replaces a file of the bundle.
func (s *stack) writePolicy(name, text string) {
	s.t.Helper()
	replace(s.t, filepath.Join(s.policies, name), []byte(text))
}

// replace replaces a file in one step, as an editor or a deployment does.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// cli runs a command against Tollkeeper and reads its JSON into out, unless out is nil.
func (s *stack) cli(out any, args ...string) {
	s.t.Helper()
	text, err := s.tk.CLI(s.t.Context(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(text, out); err != nil {
		s.t.Fatalf("tollkeeper %v: %v in %q", args, err, text)
	}
}

func (s *stack) account(id, plan string, more ...string) {
	s.t.Helper()
	s.cli(nil, append([]string{"account", "create", id, "--plan", plan}, more...)...)
}

// madeKey is a key and its text, which is printed only once.
type madeKey struct {
	ID   string `json:"id"`
	Text string `json:"key"`
}

func (s *stack) key(account string, more ...string) madeKey {
	s.t.Helper()
	var k madeKey
	s.cli(&k, append([]string{"key", "create", "--account", account, "--name", "e2e"}, more...)...)
	if k.ID == "" || k.Text == "" {
		s.t.Fatalf("key create printed %+v", k)
	}
	return k
}

// customer makes an account, and a key for it.
func (s *stack) customer(id, plan string, more ...string) madeKey {
	s.t.Helper()
	s.account(id, plan)
	return s.key(id, more...)
}

// get sends a GET with a key, and more header fields as name, value ...
func (s *stack) get(path, key string, fields ...string) reply {
	s.t.Helper()
	return get(s.t, s.http, s.addr, path, append([]string{"x-api-key", key}, fields...)...)
}

// paths returns how often each path reached the upstream.
func (s *stack) paths() map[string]int {
	out := make(map[string]int)
	for _, r := range s.Requests() {
		out[r.URI]++
	}
	return out
}

// balance is the state of one limit in the ledger.
type balance struct {
	Limit       string           `json:"limit"`
	Spent       int64            `json:"spent"`
	Outstanding map[string]int64 `json:"outstanding"` // leased by runs, by their names
	Stranded    int64            `json:"stranded"`    // leased by runs that have died
}

func (s *stack) balance(account, limit string) balance {
	s.t.Helper()
	var limits []balance
	s.cli(&limits, "quota", "show", "--account", account)
	for _, b := range limits {
		if b.Limit == limit {
			return b
		}
	}
	s.t.Fatalf("account %s has no limit %q: %+v", account, limit, limits)
	return balance{}
}

// spent returns the units charged to a limit of an account.
func (s *stack) spent(account, limit string) int64 {
	s.t.Helper()
	return s.balance(account, limit).Spent
}
