package lint_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

// This is what readers of SARIF rely on. The report was valid against the schema of SARIF 2.1.0 when this was written.
func TestReport_SARIF(t *testing.T) {
	bad := strings.NewReplacer("failure_mode_allow: false", "failure_mode_allow: true", "encode_raw_headers: true", "encode_raw_headers: false")
	raw := []byte(bad.Replace(read(t, "testdata/base/envoy.yaml")))
	files := []*lint.File{
		lint.Parse("deploy/my envoy.yaml", raw, lint.AnySubject), lint.Parse("/etc/envoy.yaml", raw, lint.AnySubject),
		lint.Parse("http://127.0.0.1:9901/config_dump", raw, lint.AnySubject),
	}
	r, err := lint.Run(files, lint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := r.WriteSARIF(&text, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Schema, Version string
		Runs            []struct {
			Tool struct {
				Driver struct {
					Name, Version string
					Rules         []struct{ ID string }
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Version != "1.2.3" {
		t.Fatalf("%+v", log)
	}
	rules, results := log.Runs[0].Tool.Driver.Rules, log.Runs[0].Results
	if len(rules) != len(lint.Rules()) || len(results) != 6 {
		t.Fatalf("%d rules, %d results:\n%s", len(rules), len(results), text.String())
	}
	levels, places := make(map[string]int), make(map[string]int)
	for _, res := range results {
		levels[res.Level]++
		at := res.Locations[0].PhysicalLocation
		places[at.ArtifactLocation.URI]++
		if rules[res.RuleIndex].ID != res.RuleID || at.Region.StartLine < 1 || res.Message.Text == "" {
			t.Errorf("%+v", res)
		}
	}
	if levels["error"] != 3 || levels["note"] != 3 {
		t.Errorf("levels: %v", levels)
	}
	for _, uri := range []string{"deploy/my%20envoy.yaml", "file:///etc/envoy.yaml", "http://127.0.0.1:9901/config_dump"} {
		if places[uri] != 2 {
			t.Errorf("%s: %v", uri, places)
		}
	}
}
