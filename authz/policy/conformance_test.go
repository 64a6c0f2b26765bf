package policy

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// conformanceCase is one line of the behaviour of OPA's Envoy plugin. Package extauthz decodes CheckRequests and
// runs all cases over the whole path. Here they test what a policy sees and answers.
type conformanceCase struct {
	ID, Fact, Policy, Query string
	Request                 struct {
		Attributes struct {
			Source *struct {
				Address            *struct{ SocketAddress *socketCase }
				Service, Principal string
				Labels             map[string]string
			}
			Request           struct{ HTTP *httpCase }
			ContextExtensions map[string]string
			MetadataContext   *struct{ FilterMetadata map[string]any }
		}
	}
	Config map[string]any
	Expect struct {
		Outcome     string
		Status      int                 `json:"http_status"`
		Body        *string             `json:"body"`
		Headers     map[string][]string `json:"headers"`
		Response    map[string][]string `json:"response_headers_to_add"`
		Remove      []string            `json:"headers_to_remove"`
		SetQuery    map[string][]string `json:"query_parameters_to_set"`
		RemoveQuery []string            `json:"query_parameters_to_remove"`
		Metadata    map[string]any      `json:"dynamic_metadata"`
	}
}

type socketCase struct {
	Address   string
	PortValue uint32
}

type httpCase struct {
	ID, Method, Path, Host, Scheme, Protocol, Body string
	RawBody                                        []byte
	Headers                                        map[string]string
}

// needsDecoding reports whether a case is about an unreadable request, a body that is not JSON, or a dry run.
func (c *conformanceCase) needsDecoding() bool {
	n := c.ID[:4]
	return n >= "c052" && n <= "c057" || n >= "c059" && n <= "c061" || n >= "c068" && n <= "c074"
}

// TestConformance_OPAEnvoyPlugin runs every case on both evaluators, and counts those that a program really decides.
func TestConformance_OPAEnvoyPlugin(t *testing.T) {
	f, err := os.Open("../extauthz/testdata/opa-envoy.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	run, compiled := 0, 0
	for lines.Scan() {
		var c conformanceCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if c.needsDecoding() {
			continue
		}
		run++
		for evaluator, interpreted := range map[string]bool{"compiled": false, "opa": true} {
			t.Run(c.ID+"/"+evaluator, func(t *testing.T) {
				o := Options{Query: c.Query, Interpreted: interpreted, Recheck: 1, Rechecked: wantSame(t)}
				p := mustLoad(t, files("p.rego", c.Policy), o)
				c.run(t, p)
				if p.Evaluator().Compiled() {
					compiled++
				} else if !interpreted {
					t.Logf("not compiled: %v", p.Evaluator())
				}
			})
		}
	}
	t.Logf("conformance: drop-in verdicts: %d cases on OPA's evaluator, %d compiled", run, compiled)
	if run != 59 || compiled != 59 {
		t.Errorf("%d cases were run, %d of them compiled", run, compiled)
	}
}

func (c *conformanceCase) run(t *testing.T, p *Policy) {
	v, err := p.Decide(t.Context(), c.request(t), nil, nil)
	sameTraced(t, p, c.request(t), nil)
	want := &c.Expect
	outcome := map[bool]string{true: "allow", false: "deny"}[v.Allowed]
	if err != nil {
		outcome = "refuse"
	}
	if outcome != want.Outcome {
		t.Fatalf("%s\ngot %s, %v, want %s", c.Fact, outcome, err, want.Outcome)
	}
	if want.Status != 0 && v.Status != want.Status && !(v.Status == 0 && want.Status == 403) {
		t.Errorf("status %d, want %d", v.Status, want.Status)
	}
	if want.Body != nil && (v.Body == nil || *v.Body != *want.Body) {
		t.Errorf("body %v, want %s", v.Body, *want.Body)
	}
	for _, h := range []struct {
		name string
		got  []authz.Header
		want map[string][]string
	}{
		{"headers", v.Headers, want.Headers},
		{"response headers", v.ResponseHeaders, want.Response},
		{"query parameters", v.SetQueryParameters, want.SetQuery},
	} {
		if h.want != nil && !reflect.DeepEqual(grouped(h.got), h.want) {
			t.Errorf("%s are %v, want %v", h.name, h.got, h.want)
		}
	}
	if want.Remove != nil && !slices.Equal(v.RemoveRequestHeaders, want.Remove) {
		t.Errorf("headers to remove are %v", v.RemoveRequestHeaders)
	}
	if want.RemoveQuery != nil && !slices.Equal(v.RemoveQueryParameters, want.RemoveQuery) {
		t.Errorf("parameters to remove are %v", v.RemoveQueryParameters)
	}
	if len(want.Metadata) > 0 {
		got, _ := json.Marshal(v.Metadata)
		want, _ := json.Marshal(want.Metadata)
		if string(got) != string(want) {
			t.Errorf("metadata is %s, want %s", got, want)
		}
	}
}

func grouped(list []authz.Header) map[string][]string {
	m := map[string][]string{}
	for _, h := range list {
		m[h.Name] = append(m[h.Name], h.Value)
	}
	return m
}

func (c *conformanceCase) request(t *testing.T) *authz.Request {
	a := &c.Request.Attributes
	r := &authz.Request{ContextExtensions: a.ContextExtensions}
	r.Body.Skipped = c.Config["skip_request_body_parse"] == true
	if s := a.Source; s != nil {
		r.Source = &authz.Peer{Service: s.Service, Principal: s.Principal, Labels: s.Labels}
		if s.Address != nil {
			r.Source.Address = &authz.Address{Socket: &authz.SocketAddress{
				Address: s.Address.SocketAddress.Address, Port: s.Address.SocketAddress.PortValue, HasPort: true}}
		}
	}
	if a.MetadataContext != nil {
		r.Metadata = &authz.Metadata{Filter: a.MetadataContext.FilterMetadata}
	}
	if strings.HasPrefix(c.ID, "c035") {
		r.Time = time.Date(2031, 7, 15, 8, 0, 0, 250_000_000, time.UTC)
	}
	if h := a.Request.HTTP; h != nil {
		r.HTTP = h.decode(t, &r.Body)
	}
	return r
}

// decode decodes only what the cases need.
func (h *httpCase) decode(t *testing.T, body *authz.Body) *authz.HTTP {
	out := &authz.HTTP{ID: h.ID, Method: h.Method, Path: h.Path, Host: h.Host, Scheme: h.Scheme, Protocol: h.Protocol,
		Body: h.Body, RawBody: h.RawBody}
	for name, value := range h.Headers {
		out.Headers = append(out.Headers, authz.Header{Name: name, Value: value})
	}
	path, query, _ := strings.Cut(h.Path, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		t.Fatal(err)
	}
	out.Segments = strings.Split(strings.TrimLeft(path, "/"), "/")
	if out.Params, err = url.ParseQuery(query); err != nil {
		t.Fatal(err)
	}
	text := h.Body + string(h.RawBody)
	if strings.HasPrefix(h.Headers["content-type"], "application/json") && text != "" {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&body.Parsed); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
