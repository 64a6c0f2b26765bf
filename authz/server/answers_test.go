package server

import (
	"maps"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// answer is that to a good key.
func (r *running) answer() *authv3.CheckResponse {
	r.t.Helper()
	key := r.newKey("acme", "free")
	resp, err := r.checks.Check(r.t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/v1/x", Headers: map[string]string{"x-api-key": key.Key},
		}},
	}})
	if err != nil || resp.GetOkResponse() == nil {
		r.t.Fatalf("%v, %v", resp, err)
	}
	return resp
}

func metadataNames(resp *authv3.CheckResponse) []string {
	names := slices.Collect(maps.Keys(resp.GetDynamicMetadata().GetFields()))
	notes := resp.GetDynamicMetadata().GetFields()["tollkeeper"].GetStructValue().GetFields()
	names = slices.DeleteFunc(names, func(name string) bool { return name == "tollkeeper" })
	return slices.Sorted(slices.Values(slices.AppendSeq(names, maps.Keys(notes))))
}

// TestAnswers_OfAnAllow compares what an allow says by default with what it says when all of it is configured.
func TestAnswers_OfAnAllow(t *testing.T) {
	resp := start(t, configFor(t.TempDir())).answer()
	if got := metadataNames(resp); len(got) > 0 || resp.DynamicMetadata != nil {
		t.Errorf("by default, without a route: metadata %q", got)
	}
	if n := len(resp.GetOkResponse().GetHeaders()); n != 3 {
		t.Errorf("by default: %d identity headers of a key, want 3: %v", n, resp.GetOkResponse().GetHeaders())
	}
	cfg := configFor(t.TempDir())
	cfg.Answers.Metadata, cfg.Answers.Identity = check.NoteNames(), nil
	resp = start(t, cfg).answer()
	if got := strings.Join(metadataNames(resp), " "); got != "account decision_id key_id plan rid" {
		t.Errorf("with all metadata: %s", got)
	}
	if n := len(resp.GetOkResponse().GetHeaders()); n != 0 {
		t.Errorf("without identity: %v", resp.GetOkResponse().GetHeaders())
	}
}

// TestAnswers_NamesOfTheConfiguration: it accepts exactly the names that check knows.
func TestAnswers_NamesOfTheConfiguration(t *testing.T) {
	load := func(metadata, identity []string) error {
		t.Setenv("TOLLKEEPER_ANSWERS_METADATA", strings.Join(metadata, ","))
		t.Setenv("TOLLKEEPER_ANSWERS_IDENTITY", strings.Join(identity, ","))
		_, err := config.Load("")
		return err
	}
	if err := load(check.NoteNames(), check.IdentityNames()); err != nil {
		t.Error(err)
	}
	for field, err := range map[string]error{"METADATA": load([]string{"x"}, nil), "IDENTITY": load(nil, []string{"x"})} {
		var want []string
		if want = check.NoteNames(); field == "IDENTITY" {
			want = check.IdentityNames()
		}
		if err == nil || !strings.HasSuffix(err.Error(), "want some of "+strings.Join(want, ", ")) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if def := config.Default().Answers; !slices.Equal(def.Identity, check.IdentityNames()) {
		t.Errorf("by default the identity is %q", def.Identity)
	}
}
