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

// stack is all of it: clients reach Envoy at addr, Envoy asks the real Tollkeeper and forwards to the upstream.
type stack struct {
	*harness.Upstream
	t        *testing.T
	addr     string
	proxy    *harness.Proxy
	tk       *harness.Tollkeeper
	policies string // this test's own copy of the bundle
	http     *http.Client
}

// newStack starts everything with ownPolicies.
func newStack(t *testing.T) *stack {
	t.Helper()
	return startStack(t, ownPolicies(t))
}

// startStack starts everything, with that bundle or, if it is empty, the one in the binary, and further sections of
// Tollkeeper's configuration.
func startStack(t *testing.T, policies string, extra ...string) *stack {
	t.Helper()
	// A query parameter beside the header and Authorization; it is off unless asked for.
	extra = append([]string{"credentials: {query: [api_key]}\n"}, extra...)
	return runStack(t, harness.TollkeeperOptions{Policies: policies, Extra: strings.Join(extra, "")}, nil)
}

// runStack starts everything with those options, and changes to the shipped configuration of Envoy.
func runStack(t *testing.T, o harness.TollkeeperOptions, change func(envoyYAML string) string) *stack {
	t.Helper()
	s := &stack{t: t, policies: o.Policies, http: httpClient(t, false), Upstream: startUpstream(t), tk: startTollkeeper(t, o)}
	s.proxy = startProxy(t, s.tk.Port(), s.Port(), change)
	s.addr = s.proxy.Addr()
	return s
}

// startTollkeeper starts one with those options. When the test fails, its log is shown.
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

// ownPolicies is a copy of the shipped bundle in which the files of testdata/policies stand in for plans and routes.
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

// copyFiles copies a folder over another one. What is there already is replaced.
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

// writePolicy replaces a file of the bundle in one step, as an editor or a deployment does.
func (s *stack) writePolicy(name, text string) {
	s.t.Helper()
	final := filepath.Join(s.policies, name)
	tmp := filepath.Join(s.t.TempDir(), "new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, final); err != nil {
		s.t.Fatal(err)
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

// madeKey is a key and, only when it is made, its text.
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

// customer makes an account with one key.
func (s *stack) customer(id, plan string, more ...string) madeKey {
	s.t.Helper()
	s.account(id, plan)
	return s.key(id, more...)
}

// get sends a GET with that key, and further header fields as name, value ...
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

// balance is what the ledger knows of one limit.
type balance struct {
	Limit       string           `json:"limit"`
	Spent       int64            `json:"spent"`
	Outstanding map[string]int64 `json:"outstanding"` // in the hands of runs, by their names
	Stranded    int64            `json:"stranded"`    // in the hands of runs that are known to be dead
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

// spent returns what was charged to a limit of an account.
func (s *stack) spent(account, limit string) int64 {
	s.t.Helper()
	return s.balance(account, limit).Spent
}
