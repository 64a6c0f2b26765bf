package extauthz

import (
	"context"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/dispenser"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// conformanceCase is one fact about OPA's Envoy plugin: a policy, a request, and the only answer that the plugin gives.
type conformanceCase struct {
	ID, Fact, Policy, Query string
	Request                 json.RawMessage
	Config                  struct {
		SkipBody   bool   `json:"skip_request_body_parse"`
		DryRun     bool   `json:"dry_run"`
		Descriptor []byte `json:"descriptor_b64"`
	}
	Expect struct {
		Outcome         string              `json:"outcome"` // allow, deny or refuse: anything but an allow
		Status          int                 `json:"http_status"`
		Headers         map[string][]string `json:"headers"`
		HeadersAbsent   []string            `json:"headers_absent"`
		ResponseHeaders map[string][]string `json:"response_headers_to_add"`
		HeadersToRemove []string            `json:"headers_to_remove"`
		QuerySet        map[string][]string `json:"query_parameters_to_set"`
		QueryRemove     []string            `json:"query_parameters_to_remove"`
		Body            *string             `json:"body"`
		Metadata        map[string]any      `json:"dynamic_metadata"`
		MetadataPresent []string            `json:"dynamic_metadata_present"`
	}
}

func conformanceCases(t *testing.T) []conformanceCase {
	t.Helper()
	out := readLines[conformanceCase](t, "testdata/opa-envoy.jsonl")
	if len(out) != 75 {
		t.Errorf("%d cases, want 75", len(out))
	}
	return out
}

// message is the case's CheckRequest on the wire.
func (c *conformanceCase) message(t *testing.T) []byte {
	t.Helper()
	var req authv3.CheckRequest
	if err := protojson.Unmarshal(c.Request, &req); err != nil {
		t.Fatal(err)
	}
	return marshal(t, &req)
}

// server is the whole path with the case's policy. OPA's evaluator repeats each decision of a program.
func (c *conformanceCase) server(t *testing.T, o policy.Options) *Server {
	t.Helper()
	opt := Options{SkipBody: c.Config.SkipBody}
	if len(c.Config.Descriptor) > 0 {
		var err error
		if opt.Descriptors, err = ReadDescriptors(c.Config.Descriptor); err != nil {
			t.Fatal(err)
		}
	}
	o.Query, o.Recheck, o.Rechecked = c.Query, 1, func(_ policy.RecheckResult, d *policy.Difference) {
		if d != nil {
			t.Errorf("%+v", *d)
		}
	}
	return newServer(t, c.Policy, o, check.Options{DryRun: c.Config.DryRun}, opt)
}

// TestDropIn_AnswersLikeThePlugin runs every conformance case on the whole path, from CheckRequest to CheckResponse: without a
// verdict cache, with one, and once more when the cache knows the answer, on both evaluators.
func TestDropIn_AnswersLikeThePlugin(t *testing.T) {
	cases, compiled := conformanceCases(t), 0
	for _, c := range cases {
		for evaluator, interpreted := range map[string]bool{"compiled": false, "opa": true} {
			t.Run(c.ID+"/"+evaluator, func(t *testing.T) {
				message := c.message(t)
				c.compare(t, ask(t, c.server(t, policy.Options{Interpreted: interpreted}), message))
				s := c.server(t, policy.Options{Interpreted: interpreted, CachedVerdicts: 100})
				c.compare(t, ask(t, s, message))
				c.compare(t, ask(t, s, message))
			})
		}
		p, err := policy.Load(t.Context(), source(c.Policy), policy.Options{Query: c.Query})
		if err == nil && p.Evaluator().Compiled() {
			compiled++
		}
	}
	t.Logf("conformance: drop-in answers: %d cases on OPA's evaluator, %d compiled", len(cases), compiled)
	if compiled != len(cases) {
		t.Errorf("%d of %d cases are compiled", compiled, len(cases))
	}
}

func source(rego string) bundle.Source {
	return bundle.FS(fstest.MapFS{"policy.rego": {Data: []byte(rego)}})
}

// TestVerdictCache_MixesNothingUp asks the policy of every conformance case about the requests of all cases. A policy with a cache
// gives the same answers as one without.
func TestVerdictCache_MixesNothingUp(t *testing.T) {
	cases := conformanceCases(t)
	messages := make([][]byte, len(cases))
	for i := range cases {
		messages[i] = cases[i].message(t)
	}
	for _, c := range cases {
		plain, caching := c.server(t, policy.Options{}), c.server(t, policy.Options{CachedVerdicts: 1000})
		for round := range 2 {
			for i, other := range cases {
				want, got := unnamed(ask(t, plain, messages[i])), unnamed(ask(t, caching, messages[i]))
				if want != got {
					t.Errorf("policy of %s, request of %s, round %d: with a cache\n%s\nwithout\n%s", c.ID, other.ID, round, got, want)
				}
			}
		}
	}
}

var decisionID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// unnamed is the text of an answer without what differs from check to check: the id of the decision.
func unnamed(resp *authv3.CheckResponse) string {
	return decisionID.ReplaceAllLiteralString(prototext.Format(resp), "ID")
}

// newServer makes the whole path over empty stores.
func newServer(t testing.TB, rego string, opa policy.Options, opt check.Options, reading Options) *Server {
	t.Helper()
	p, err := policy.Load(context.Background(), source(rego), opa)
	if err != nil {
		t.Fatal(err)
	}
	revoked := revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now)
	if err := revoked.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	meter := dispenser.New(memory.NewLedger(time.Now), "test", time.Now)
	opt.Credentials = check.Sources{Headers: []string{"x-api-key"}, Bearer: true}
	checker := check.New(apikey.NewIdentifier(memory.NewKeys(), apikey.Hasher{}), revoked, meter, forget{}, opt)
	checker.Use(&check.Rules{Policy: p})
	return NewServer(checker, reading, quiet())
}

func (c *conformanceCase) compare(t *testing.T, resp *authv3.CheckResponse) {
	t.Helper()
	want := &c.Expect
	allowed := resp.GetStatus().GetCode() == 0
	ok, denied := resp.GetOkResponse(), resp.GetDeniedResponse()
	if allowed != (want.Outcome == "allow") {
		t.Fatalf("%s\nallowed = %v, want outcome %s: %v", c.Fact, allowed, want.Outcome, resp)
	}
	headers := values(ok.GetHeaders())
	if !allowed {
		headers = values(denied.GetHeaders())
	}
	if want.Status != 0 && int(denied.GetStatus().GetCode()) != want.Status {
		t.Errorf("status %d, want %d", denied.GetStatus().GetCode(), want.Status)
	}
	for name, v := range want.Headers {
		if !slices.Equal(headers[name], v) {
			t.Errorf("header %s is %q, want %q", name, headers[name], v)
		}
	}
	for _, name := range want.HeadersAbsent {
		if len(headers[name]) > 0 {
			t.Errorf("header %s is there: %q", name, headers[name])
		}
	}
	if allowed { // nothing that the policy did not ask for
		equal(t, "headers", headers, want.Headers)
		equal(t, "response headers", values(ok.GetResponseHeadersToAdd()), want.ResponseHeaders)
		equal(t, "query parameters to set", parameterValues(ok), want.QuerySet)
		if want.HeadersToRemove != nil && !slices.Equal(sorted(ok.GetHeadersToRemove()), sorted(want.HeadersToRemove)) {
			t.Errorf("removes headers %q, want %q", ok.GetHeadersToRemove(), want.HeadersToRemove)
		}
		if want.QueryRemove != nil && !slices.Equal(sorted(ok.GetQueryParametersToRemove()), sorted(want.QueryRemove)) {
			t.Errorf("removes parameters %q, want %q", ok.GetQueryParametersToRemove(), want.QueryRemove)
		}
	}
	if want.Body != nil && denied.GetBody() != *want.Body {
		t.Errorf("body %q, want %q", denied.GetBody(), *want.Body)
	}
	c.compareMetadata(t, allowed, resp.GetDynamicMetadata().AsMap())
}

// compareMetadata ignores our own key, except where a case says that a plain allow carries only the id of the decision.
func (c *conformanceCase) compareMetadata(t *testing.T, allowed bool, got map[string]any) {
	t.Helper()
	if _, ok := got["decision_id"]; !ok {
		t.Errorf("no decision_id in metadata %v", got)
	}
	for _, name := range c.Expect.MetadataPresent {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s in metadata %v", name, got)
		}
	}
	if c.Expect.Metadata == nil {
		return
	}
	delete(got, "decision_id")
	if !allowed || c.Config.DryRun {
		delete(got, "tollkeeper")
	}
	if !reflect.DeepEqual(got, c.Expect.Metadata) {
		t.Errorf("metadata %v, want %v", got, c.Expect.Metadata)
	}
}

func equal(t *testing.T, what string, got, want map[string][]string) {
	t.Helper()
	if want != nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%s %v, want %v", what, got, want)
	}
}

func values(in []*corev3.HeaderValueOption) map[string][]string {
	out := make(map[string][]string)
	for _, h := range in {
		name := h.GetHeader().GetKey()
		out[name] = append(out[name], h.GetHeader().GetValue())
	}
	return out
}

func parameterValues(ok *authv3.OkHttpResponse) map[string][]string {
	out := make(map[string][]string)
	for _, p := range ok.GetQueryParametersToSet() {
		out[p.GetKey()] = append(out[p.GetKey()], p.GetValue())
	}
	return out
}

func sorted(in []string) []string { return slices.Sorted(slices.Values(in)) }
