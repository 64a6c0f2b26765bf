package extauthz

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// pluginInput is what OPA's Envoy plugin makes of a CheckRequest: its input document, or a refusal.
type pluginInput struct {
	ID           string
	CheckRequest []byte `json:"check_request"`
	SkipBody     bool   `json:"skip_request_body_parse"`
	Refused      bool
	Input        json.RawMessage
}

func pluginInputs(t *testing.T) []pluginInput {
	t.Helper()
	out := readLines[pluginInput](t, "testdata/plugin-inputs.jsonl")
	if len(out) != 250 {
		t.Errorf("%d cases, want 250", len(out))
	}
	return out
}

// addedFields are the fields of the input that the plugin does not have.
var addedFields = []string{"path", "route", "key", "account", "token", "quota", "revocation"}

// TestInput_IsThatOfTheEnvoyPlugin compares the whole input document with the one that the plugin gave its policy.
func TestInput_IsThatOfTheEnvoyPlugin(t *testing.T) {
	for _, c := range pluginInputs(t) {
		t.Run(c.ID, func(t *testing.T) {
			r := decode(string(c.CheckRequest), Options{SkipBody: c.SkipBody})
			if c.Refused {
				return // what the plugin refuses may be a denial or a fact here
			}
			// policies/README.md lists these three differences.
			if r.HTTP != nil && strings.Contains(r.HTTP.Path, "#") {
				if r.Fault == "" {
					t.Error("a path with a fragment is let through")
				}
				return
			}
			fromList := r.HTTP != nil && r.HTTP.RawHeaders && !bytes.Contains(c.Input, []byte(`"headers":{`))
			anyCase := r.HTTP != nil && r.HTTP.Headers.Get("content-type") == "APPLICATION/JSON"
			if r.Fault != "" && !fromList {
				t.Fatalf("refused, because %s: %s", r.Fault, c.Input)
			}
			if fromList {
				r.Body.Parsed, r.Body.Truncated = nil, false
			}
			if anyCase {
				r.Body.Parsed = nil
			}
			if got, want := inputOf(t, r, fromList), sortedJSON(t, c.Input); got != want {
				t.Errorf("the input is\n     %s\nwant %s", got, want)
			}
		})
	}
}

// TestDecodeJSON_ReadsTheSameAsTheWire: an explanation must be about the request that Envoy would have sent.
func TestDecodeJSON_ReadsTheSameAsTheWire(t *testing.T) {
	for _, c := range pluginInputs(t) {
		var req authv3.CheckRequest
		if err := proto.Unmarshal(c.CheckRequest, &req); err != nil {
			t.Fatal(err)
		}
		// JSON encodes these messages again, perhaps in another order, and cannot hold messages of an unknown type.
		for _, m := range []*corev3.Metadata{req.GetAttributes().GetMetadataContext(), req.GetAttributes().GetRouteMetadataContext()} {
			if m != nil {
				m.TypedFilterMetadata = nil
			}
		}
		text, err := protojson.Marshal(&req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeJSON(text, Texts{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := decode(string(marshal(t, &req)), Options{})
		for _, r := range []*authz.Request{got, want} {
			if r.HTTP != nil && !r.HTTP.RawHeaders { // these come from a map, in any order
				slices.SortFunc(r.HTTP.Headers, func(a, b authz.Header) int { return strings.Compare(a.Name, b.Name) })
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", c.ID, got, want)
		}
	}
	if _, err := DecodeJSON([]byte(`{"attributes": 1}`), Texts{}, Options{}); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("JSON that is not a CheckRequest: %v", err)
	}
}

// TestDecodeJSON_TextsReplaceThoseInTheJSON replaces texts by ones that JSON cannot hold.
func TestDecodeJSON_TextsReplaceThoseInTheJSON(t *testing.T) {
	raw := []byte(`{"attributes":{"request":{"http":{"method":"GET","path":"/a","host":"h"}}}}`)
	r, err := DecodeJSON(raw, Texts{Path: []byte("/b")}, Options{})
	if err != nil || r.Fault != "" || r.HTTP.Path != "/b" || r.HTTP.Method != "GET" || r.HTTP.Host != "h" {
		t.Errorf("%v, %+v", err, r)
	}
	if r, err := DecodeJSON(raw, Texts{Host: []byte("\xff")}, Options{}); err != nil || r.Fault == "" {
		t.Errorf("a host that is not UTF-8: %v, %+v", err, r)
	}
}

var withoutHeaders = regexp.MustCompile(`"headers":\{[^{}]*\},`)

// inputOf is the input document of a request without our own fields and, with noHeaders, without the headers by name.
func inputOf(t *testing.T, r *authz.Request, noHeaders bool) string {
	t.Helper()
	p, err := policy.Load(context.Background(), bundle.FS(fstest.MapFS{"p.rego": {Data: []byte("package envoy.authz\n\nallow := true\n")}}), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var tr authz.Trace
	if _, err := p.Decide(t.Context(), r, &authz.Facts{}, &tr); err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(tr.Input, &all); err != nil {
		t.Fatal(err)
	}
	for _, name := range addedFields {
		delete(all, name)
	}
	if noHeaders {
		all["attributes"] = withoutHeaders.ReplaceAll(all["attributes"], nil)
	}
	rest, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return sortedJSON(t, rest)
}

// sortedJSON writes a document in one form: names sorted, numbers by their value.
func sortedJSON(t *testing.T, raw []byte) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(sameNumbers(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// sameNumbers replaces numbers by their value, except integers that are too large for JavaScript.
func sameNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			if n := int64(f); float64(n) == f && f < 1<<53 && f > -1<<53 {
				return n
			}
			return f
		}
		return fmt.Sprint(v)
	case map[string]any:
		for k := range v {
			v[k] = sameNumbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = sameNumbers(v[i])
		}
	}
	return v
}

// TestDecode_RefusesAPathThatEnvoyCouldNotQuote has a path as Envoy sends it if the client's is not UTF-8.
func TestDecode_RefusesAPathThatEnvoyCouldNotQuote(t *testing.T) {
	for raw, refused := range map[string]bool{"/a/!!": false, "/a/\xc0\xae": true} {
		req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/a/!!", HeaderMap: &corev3.HeaderMap{
				Headers: []*corev3.HeaderValue{{Key: ":path", RawValue: []byte(raw)}},
			}},
		}}}
		if r := decode(string(marshal(t, req)), Options{}); (r.Fault != "") != refused {
			t.Errorf("%q: fault %q", raw, r.Fault)
		}
	}
}
