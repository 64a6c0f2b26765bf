package policy

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// decision evaluates a Rego term as the decision.
func decision(t *testing.T, term string) (authz.Verdict, error) {
	t.Helper()
	return verdictOf(ast.MustParseTerm(term).Value)
}

func TestVerdict_Fields(t *testing.T) {
	body := "no\nmore"
	tests := []struct {
		name, term string
		want       authz.Verdict
	}{
		{"true", `true`, authz.Verdict{Allowed: true}},
		{"false", `false`, authz.Verdict{}},
		{"unknown keys", `{"allowed": true, "colour": 7, 4: 5}`, authz.Verdict{Allowed: true}},
		{"deny", `{"allowed": false, "http_status": 402, "reason": "quota_exceeded", "detail": "no calls", "body": "no\nmore"}`,
			authz.Verdict{Status: 402, Reason: authz.ReasonQuotaExceeded, Detail: "no calls", Body: &body}},
		{"headers are sorted and in lower case", `{"allowed": false, "headers": {"X-B": ["2", "1"], "x-a": "é", "set-cookie": []}}`,
			authz.Verdict{Headers: authz.Headers{{Name: "x-a", Value: "é"}, {Name: "x-b", Value: "2"}, {Name: "x-b", Value: "1"}}}},
		{"a list of headers keeps its order", `{"allowed": true, "headers": [{"x-b": "1", "x-a": "2"}, {}, {"x-b": "0"}]}`,
			authz.Verdict{Allowed: true, Headers: authz.Headers{{Name: "x-a", Value: "2"}, {Name: "x-b", Value: "1"}, {Name: "x-b", Value: "0"}}}},
		{"sets are lists", `{"allowed": true, "headers": {"x-a": {"b", "a"}}, "request_headers_to_remove": {"X-D", "x-c"}}`,
			authz.Verdict{Allowed: true, Headers: authz.Headers{{Name: "x-a", Value: "a"}, {Name: "x-a", Value: "b"}},
				RemoveRequestHeaders: []string{"x-d", "x-c"}}},
		{"pseudo headers", `{"allowed": true, "headers": {":path": "/x"}}`,
			authz.Verdict{Allowed: true, Headers: authz.Headers{{Name: ":path", Value: "/x"}}}},
		{"what cannot be removed is left out", `{"allowed": true, "request_headers_to_remove": ["Host", "x-a", ":path"]}`,
			authz.Verdict{Allowed: true, RemoveRequestHeaders: []string{"x-a"}}},
		{"cookies are one field", `{"allowed": true, "headers": {"cookie": ["a=1", "b=2"], "x-a": "1"}}`,
			authz.Verdict{Allowed: true, Headers: authz.Headers{{Name: "x-a", Value: "1"}, {Name: "cookie", Value: "a=1; b=2"}}}},
		{"allow", `{"allowed": true, "response_headers_to_add": {"x-r": "1"}, "request_headers_to_remove": ["a"],
			"query_parameters_to_set": {"q": ["2", "1"], "A b": "&"}, "query_parameters_to_remove": ["T"]}`,
			authz.Verdict{Allowed: true, ResponseHeaders: authz.Headers{{Name: "x-r", Value: "1"}}, RemoveRequestHeaders: []string{"a"},
				SetQueryParameters:    []authz.Header{{Name: "A b", Value: "&"}, {Name: "q", Value: "2"}, {Name: "q", Value: "1"}},
				RemoveQueryParameters: []string{"T"}}},
		{"metadata", `{"allowed": false, "dynamic_metadata": {"n": 1.5, "big": 9007199254740993, "x": null, "l": [true, {}]}}`,
			authz.Verdict{Metadata: map[string]any{"n": json.Number("1.5"), "big": json.Number("9007199254740993"), "x": nil,
				"l": []any{true, map[string]any{}}}}},
		{"charge", `{"allowed": true, "charge": {"calls": 3, "tokens": 0}}`,
			authz.Verdict{Allowed: true, Charge: authz.Charge{"calls": 3, "tokens": 0}}},
		{"no charge", `{"allowed": true, "charge": {}}`, authz.Verdict{Allowed: true, Charge: authz.Charge{}}},
		{"an allow ignores what only a deny has", `{"allowed": true, "http_status": "x", "body": 1, "reason": "!", "detail": {}}`,
			authz.Verdict{Allowed: true}},
		{"a deny ignores what only an allow has", `{"allowed": false, "response_headers_to_add": 1, "request_headers_to_remove": "x",
			"query_parameters_to_set": 1, "query_parameters_to_remove": 2}`, authz.Verdict{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decision(t, tt.term)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Headers) == 0 {
				got.Headers = nil
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestVerdict_Errors(t *testing.T) {
	tests := []struct{ term, want string }{
		{`"x"`, "a decision must be a boolean or an object, not string"},
		{`{"http_status": 200}`, "the decision has no allowed"},
		{`{"allowed": 1}`, "allowed must be a boolean, not number"},
		{`{"allowed": false, "http_status": "402"}`, "http_status must be a number, not string"},
		{`{"allowed": false, "http_status": 199}`, "http_status 199 is not from 200 to 599"},
		{`{"allowed": false, "http_status": 600}`, "http_status 600 is not from 200 to 599"},
		{`{"allowed": false, "http_status": 402.5}`, "http_status 402.5 is not from 200 to 599"},
		{`{"allowed": false, "http_status": null}`, "http_status must be a number, not null"},
		{`{"allowed": false, "body": 5}`, "body must be a string, not number"},
		{`{"allowed": false, "detail": ["x"]}`, "detail must be a string, not array"},
		{`{"allowed": false, "reason": "No Way"}`, `reason "No Way" is not a reason code`},
		{`{"allowed": false, "reason": ""}`, `reason "" is not a reason code`},
		{`{"allowed": false, "reason": 1}`, "reason must be a string, not number"},
		{`{"allowed": true, "headers": "x"}`, "headers must be an object or an array of objects, not string"},
		{`{"allowed": true, "headers": ["x"]}`, "an element of headers must be an object, not string"},
		{`{"allowed": true, "headers": {"x": 1}}`, "headers.x must be an array of strings, not number"},
		{`{"allowed": true, "headers": {"x": ["a", 1]}}`, "an element of headers.x must be a string, not number"},
		{`{"allowed": true, "headers": {1: "a"}}`, "a name in headers must be a string, not number"},
		{`{"allowed": true, "headers": {"x y": "a"}}`, `"x y" is not a header name`},
		{`{"allowed": true, "headers": {"": "a"}}`, `"" is not a header name`},
		{`{"allowed": true, "headers": {":": "a"}}`, `":" is not a header name`},
		{`{"allowed": true, "headers": {"x:y": "a"}}`, `"x:y" is not a header name`},
		{`{"allowed": true, "headers": {"x\r\ny": "a"}}`, `"x\r\ny" is not a header name`},
		{`{"allowed": true, "headers": {"x": "a\r\nset-cookie: b"}}`, `the value of header "x" has a line break or a zero byte`},
		{`{"allowed": true, "headers": {"Content-Length": "0"}}`, `a policy cannot set header "content-length"`},
		{`{"allowed": false, "headers": {"transfer-encoding": "chunked"}}`, `a policy cannot set header "transfer-encoding"`},
		{`{"allowed": true, "headers": {":path": "/a b"}}`, `the value "/a b" of header ":path" is not visible ASCII`},
		{`{"allowed": true, "headers": {":path": "/café"}}`, `the value "/café" of header ":path" is not visible ASCII`},
		{`{"allowed": true, "headers": {":path": "/a#b"}}`, `"/a#b" is not a path`},
		{`{"allowed": true, "headers": {":authority": ""}}`, `the value "" of header ":authority" is not visible ASCII`},
		{`{"allowed": true, "headers": {":protocol": "websocket"}}`, `":protocol" is not a header`},
		{`{"allowed": false, "headers": {":path": "/x"}}`, `header ":path" cannot go to a client`},
		{`{"allowed": true, "response_headers_to_add": {":status": "200"}}`, `":status" is not a header`},
		{`{"allowed": true, "headers": {"x": "` + strings.Repeat("x", maxHeaders) + `"}}`, "headers has 49153 bytes: Envoy would refuse more than 49152"},
		{`{"allowed": true, "response_headers_to_add": {"x": [` + strings.Repeat(`"1",`, maxFields) + `"1"]}}`,
			"response_headers_to_add has 65 headers: Envoy would refuse more than 64 in addition to those of the request"},
		{`{"allowed": true, "response_headers_to_add": 1}`, "response_headers_to_add must be an object or an array of objects, not number"},
		{`{"allowed": true, "request_headers_to_remove": "x"}`, "request_headers_to_remove must be an array of strings, not string"},
		{`{"allowed": true, "request_headers_to_remove": ["x y"]}`, `"x y" is not a header name`},
		{`{"allowed": true, "query_parameters_to_set": "a=b"}`, "query_parameters_to_set must be an object, not string"},
		{`{"allowed": true, "query_parameters_to_set": {"a": 1}}`, "query_parameters_to_set.a must be an array of strings, not number"},
		{`{"allowed": true, "query_parameters_to_remove": [1]}`, "an element of query_parameters_to_remove must be a string, not number"},
		{`{"allowed": true, "dynamic_metadata": []}`, "dynamic_metadata must be an object, not array"},
		{`{"allowed": true, "charge": 1}`, "charge must be an object, not number"},
		{`{"allowed": true, "charge": {"calls": -1}}`, `charge of "calls" is -1, not a whole number from 0`},
		{`{"allowed": true, "charge": {"calls": 0.5}}`, `charge of "calls" is 0.5, not a whole number from 0`},
		{`{"allowed": true, "charge": {"calls": 9223372036854775808}}`, `charge of "calls" is 9223372036854775808, not a whole number from 0`},
		{`{"allowed": true, "charge": {"calls": "1"}}`, "charge must map names to numbers, not string to string"},
	}
	for _, tt := range tests {
		t.Run(tt.term, func(t *testing.T) {
			v, err := decision(t, tt.term)
			if v.Allowed || !reflect.DeepEqual(v, authz.Verdict{}) {
				t.Errorf("the verdict is %+v", v)
			}
			var e *EvalError
			if !errors.As(err, &e) || e.Text != tt.want || e.Code != codeDecision {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// FuzzDecide takes the request's body as the decision. Only true, and an object with a true "allowed", allow.
func FuzzDecide(f *testing.F) {
	for _, seed := range []string{`true`, `false`, `{"allowed":true}`, `{"allowed":false,"http_status":402}`, `{"allowed":"true"}`,
		`{"allowed":true,"headers":{"a":"b"}}`, `{"allowed":true,"headers":[{"a":["b"]}],"charge":{"x":1}}`, `[true]`, `null`, `1e999`,
		`{"allowed":true,"charge":{"x":1e400}}`, `{"allowed":false,"http_status":4e2,"dynamic_metadata":{"":{}}}`} {
		f.Add([]byte(seed))
	}
	p := mustLoad(f, module("allow := input.parsed_body"), Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var body any
		if json.Unmarshal(b, &body) != nil {
			return
		}
		r := get("/")
		r.Body.Parsed = body
		v, err := p.Decide(t.Context(), r, nil, nil)
		if err != nil && !reflect.DeepEqual(v, authz.Verdict{}) {
			t.Errorf("an error and the verdict %+v", v)
		}
		object, _ := body.(map[string]any)
		if v.Allowed && body != true && object["allowed"] != true {
			t.Errorf("%s was allowed", b)
		}
	})
}
