package envoy

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestPolicy_ErrorDenies(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "three")
	p := s.wantDenial(s.get("/boom", key.Text), http.StatusForbidden, "policy_error")
	if regexp.MustCompile(`rego|conflict|contradiction`).MatchString(p.Detail) {
		t.Errorf("the denial reveals internals: %q", p.Detail)
	}
	await(t, func() bool { return regexp.MustCompile(`e2e\.rego:\d+`).MatchString(s.tk.Log()) }) // the log tells the operator
	if n := s.spent("acme", "monthly"); n != 0 {
		t.Errorf("a request without a decision was charged %d", n)
	}
}

func TestPolicy_TimeoutDenies(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "three")
	s.wantDenial(s.get("/slow", key.Text), http.StatusForbidden, "decision_timeout")
	if r := s.get("/", key.Text); r.StatusCode != http.StatusOK {
		t.Errorf("the request after the slow one: %d %s", r.StatusCode, r.body)
	}
}

func TestPolicy_BrokenOneIsNotLoaded(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	good, err := os.ReadFile(filepath.Join(s.policies, "key.rego"))
	if err != nil {
		t.Fatal(err)
	}
	load := s.underLoad(4, "x-api-key", key.Text)
	s.writePolicy("key.rego", string(good)+"\ndeny contains \"x\" if nonsense(1)\n")
	named := regexp.MustCompile(`"file":"[^"]*key\.rego","line":[1-9]\d*,"column":[1-9]`)
	await(t, func() bool { return named.MatchString(s.tk.Log()) })
	counted := regexp.MustCompile(`(?m)^tollkeeper_policy_fault\{.*column="[1-9]\d*",file="[^"]*key\.rego",line="[1-9]\d*"\} 1$`)
	await(t, func() bool {
		text, err := s.tk.Metrics(t.Context())
		return err == nil && counted.MatchString(text)
	})
	mark := load.count()
	await(t, func() bool { return load.count() > mark+100 })
	s.writePolicy("key.rego", string(good)+"\ndeny contains \"key_disabled\" if input.parsed_path == [\"new\"]\n")
	await(t, func() bool { return s.get("/new", key.Text).StatusCode == http.StatusForbidden })
	for status, n := range load.stop() {
		if status != http.StatusOK {
			t.Errorf("%d requests got status %d", n, status)
		}
	}
}
