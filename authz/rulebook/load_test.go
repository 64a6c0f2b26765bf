package rulebook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// TestCheck_ReasonsTable holds that tables which would tell callers something wrong are refused.
func TestCheck_ReasonsTable(t *testing.T) {
	cases := map[string]string{
		"a success":                  "{key_expired: {status: {strict: 200}}}",
		"paying for a fault of ours": "{policy_error: {status: {strict: 402}}}",
		"no status in the profile":   "{key_expired: {status: {rfc: 401}}}",
		"a code that is no code":     "{'Key Expired': {status: {strict: 403}}}",
		"a retry that is none":       "{key_expired: {status: {strict: 403}, retry: maybe}}",
		"not a table":                "[]",
	}
	for name, table := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"a.rego": "package envoy.authz\n\ndefault allow := false\n", "reasons.yaml": "tollkeeper: {reasons: " + table + "}\n"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Check(t.Context(), config.Policy{Paths: []string{dir}}, nil); err == nil || !strings.HasPrefix(err.Error(), "data.tollkeeper.reasons: ") {
				t.Errorf("accepted: %v", err)
			}
		})
	}
}
