package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// TestRelease_GoesOnAfterAFailure has a server refuse one of three releases. The others take place, the failure is listed, and the
// command that is repeated asks only for what is still stranded.
func TestRelease_GoesOnAfterAFailure(t *testing.T) {
	stranded := []admin.Stranded{
		{Account: "a", Per: "account", Holder: "a", Limit: "credits", Unit: "requests", Node: "gone", Units: 3},
		{Account: "b", Per: "account", Holder: "b", Limit: "credits", Unit: "requests", Node: "gone", Units: 4},
		{Account: "c", Per: "account", Holder: "c", Limit: "credits", Unit: "requests", Node: "gone", Units: 5},
	}
	var asked []string
	broken := true
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/quota/stranded", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(stranded) })
	mux.HandleFunc("POST /v1/quota/release", func(w http.ResponseWriter, r *http.Request) {
		var in admin.QuotaRelease
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		asked = append(asked, in.Account)
		if in.Account == "b" && broken {
			http.Error(w, `{"detail":"the disk is full"}`, http.StatusServiceUnavailable)
			return
		}
		for i := range stranded {
			if stranded[i].Account == in.Account {
				stranded = append(stranded[:i:i], stranded[i+1:]...)
				break
			}
		}
		_ = json.NewEncoder(w).Encode(in)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("tka_0123456789012345"), 0o600); err != nil {
		t.Fatal(err)
	}
	release := func() (code int, out, notes string) {
		var stdout, stderr bytes.Buffer
		root := newRoot()
		root.SetOut(&stdout)
		root.SetErr(&stderr)
		root.SetArgs([]string{"--admin", server.URL, "--token-file", token, "quota", "release", "--unproven", "refund", "--yes"})
		return exitCode(&stderr, root.Execute()), stdout.String(), stderr.String()
	}
	code, out, notes := release()
	if code != 1 || strings.Join(asked, "") != "abc" || strings.Count(out, "released") != 2 || strings.Count(out, "failed") != 1 ||
		!strings.Contains(notes, `tollkeeper: credits of account "b", node gone: the disk is full`) {
		t.Errorf("exit code %d, asked for %v\n%s%s", code, asked, out, notes)
	}
	asked, broken = nil, false
	if code, out, notes := release(); code != 0 || strings.Join(asked, "") != "b" || notes != "" {
		t.Errorf("repeated: exit code %d, asked for %v\n%s%s", code, asked, out, notes)
	}
}
