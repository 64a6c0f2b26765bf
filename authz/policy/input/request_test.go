package input

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tollkeeper-authz/tollkeeper/authz"
)

func inputJSON(t *testing.T, r *authz.Request, f *authz.Facts) map[string]any {
	t.Helper()
	v := mustValue(t, everything, r, f)
	var m map[string]any
	if err := json.Unmarshal([]byte(jsonOf(t, v)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func wantJSON(t *testing.T, what string, got any, want string) {
	t.Helper()
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != want {
		t.Errorf("%s is\n     %s\nwant %s", what, b, want)
	}
}

func TestValue_NothingKnown(t *testing.T) {
	wantJSON(t, "the input", inputJSON(t, &authz.Request{}, nil),
		`{"account":{"status":"unknown"},"attributes":{},"key":{"status":"missing"},"parsed_body":null,"parsed_path":[""],`+
			`"parsed_query":{},"path":{"state":"malformed"},"quota":{},"revocation":{"stale":false},"route":{"state":"missing"},"token":{"status":"missing"},"truncated_body":false,`+
			`"version":{"encoding":"protojson","ext_authz":"v3"}}`)
}

func TestValue_Attributes(t *testing.T) {
	r := &authz.Request{
		Source: &authz.Peer{
			Address:   &authz.Address{Socket: &authz.SocketAddress{Protocol: 1, Address: "10.1.2.3", HasPort: true, IPv4Compat: true}},
			Service:   "web",
			Labels:    map[string]string{"a": "b"},
			Principal: "spiffe://x/y", Certificate: "pem",
		},
		Destination: &authz.Peer{Address: &authz.Address{Pipe: &authz.PipeAddress{Path: "/run/s", Mode: 420}}},
		Time:        time.Unix(1700000000, 0),
		HTTP: &authz.HTTP{
			ID: "7", Method: "POST", Scheme: "https", Host: "h", Path: "/a?b=c", Query: "q", Fragment: "f", Protocol: "HTTP/2", Size: 5,
			Headers: authz.Headers{{Name: "x-a", Value: "1"}, {Name: "x-empty", Value: ""}},
			Body:    "hello", RawBody: []byte{0, 255},
			Segments: []string{"a"}, Params: map[string][]string{"b": {"c", "d"}},
		},
		ContextExtensions: map[string]string{"k": "v"},
		Metadata:          &authz.Metadata{Filter: map[string]any{"f": map[string]any{"n": 1.5, "b": true}}, Typed: map[string]any{"t": []any{nil}}},
		RouteMetadata:     &authz.Metadata{},
		TLS:               &authz.TLSSession{SNI: "sni.example"},
		Body:              authz.Body{Parsed: map[string]any{"n": json.Number("9007199254740993")}, Truncated: true},
	}
	m := inputJSON(t, r, nil)
	wantJSON(t, "attributes", m["attributes"],
		`{"contextExtensions":{"k":"v"},`+
			`"destination":{"address":{"pipe":{"mode":420,"path":"/run/s"}}},`+
			`"metadataContext":{"filterMetadata":{"f":{"b":true,"n":1.5}},"typedFilterMetadata":{"t":[null]}},`+
			`"request":{"http":{"body":"hello","fragment":"f","headers":{"x-a":"1","x-empty":""},"host":"h","id":"7","method":"POST",`+
			`"path":"/a?b=c","protocol":"HTTP/2","query":"q","rawBody":"AP8=","scheme":"https","size":5},"time":{"seconds":1700000000}},`+
			`"routeMetadataContext":{},`+
			`"source":{"address":{"socketAddress":{"address":"10.1.2.3","ipv4Compat":true,"portValue":0,"protocol":1}},`+
			`"certificate":"pem","labels":{"a":"b"},"principal":"spiffe://x/y","service":"web"},`+
			`"tlsSession":{"sni":"sni.example"}}`)
	wantJSON(t, "source_principal", m["source_principal"], `"spiffe://x/y"`)
	wantJSON(t, "parsed_path", m["parsed_path"], `["a"]`)
	wantJSON(t, "parsed_query", m["parsed_query"], `{"b":["c","d"]}`)
	wantJSON(t, "truncated_body", m["truncated_body"], `true`)

	v := mustValue(t, everything, r, nil)
	n, err := v.Find(ast.MustParseRef("input.parsed_body.n")[1:])
	if err != nil || jsonOf(t, n) != "9007199254740993" {
		t.Errorf("the number became %v, %v", n, err)
	}
}

func TestValue_OtherAddresses(t *testing.T) {
	r := &authz.Request{
		Source: &authz.Peer{Address: &authz.Address{Internal: &authz.InternalAddress{ServerListenerName: "in", EndpointID: "e"}}},
		Destination: &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "::1", NamedPort: "http",
			ResolverName: "r"}}},
	}
	wantJSON(t, "attributes", inputJSON(t, r, nil)["attributes"],
		`{"destination":{"address":{"socketAddress":{"address":"::1","namedPort":"http","resolverName":"r"}}},`+
			`"source":{"address":{"envoyInternalAddress":{"endpointId":"e","serverListenerName":"in"}}}}`)
}

func TestValue_HeaderList(t *testing.T) {
	r := &authz.Request{HTTP: &authz.HTTP{RawHeaders: true, Headers: authz.Headers{
		{Name: "x-a", Value: "1"}, {Name: "x-b", Value: ""}, {Name: "x-a", Value: "2"},
	}}}
	wantJSON(t, "attributes", inputJSON(t, r, nil)["attributes"],
		`{"request":{"http":{"headerMap":{"headers":[{"key":"x-a","rawValue":"MQ=="},{"key":"x-b"},{"key":"x-a","rawValue":"Mg=="}]},`+
			`"headers":{"x-a":"1,2","x-b":""}}}}`)
}

func TestValue_SkippedBody(t *testing.T) {
	m := inputJSON(t, &authz.Request{Body: authz.Body{Skipped: true, Parsed: "x"}}, nil)
	for _, name := range []string{"parsed_body", "truncated_body"} {
		if _, ok := m[name]; ok {
			t.Errorf("there is %s", name)
		}
	}
}

func TestValue_Facts(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 0, time.FixedZone("x", 3600))
	f := &authz.Facts{
		Key: authz.KeyFact{Status: authz.KeyActive, ID: "k", Name: "n", Account: "a", Environment: "live", Plan: "p", NotBefore: at,
			ExpiresAt: at.Add(time.Hour), Meta: map[string]any{"team": "x"}, CreatedAt: at, Lineage: "l"},
		Account: authz.AccountFact{ID: "a", Plan: "p", Status: authz.AccountOverdue, Meta: map[string]any{"n": 1}},
		Token:   authz.TokenFact{Status: authz.TokenValid, Issuer: "i", ID: "j", Account: "a", Plan: "p", Scopes: []string{"s"}, Claims: map[string]any{"aud": []string{"x", "y"}}},
		Quota: []authz.QuotaFact{
			{Name: "calls", State: authz.QuotaOK, Limit: 10, Remaining: 3, ResetsAt: at, Window: time.Hour},
			{Name: "credits"},
		},
		Revocation: authz.RevocationFact{Stale: true},
	}
	m := inputJSON(t, &authz.Request{}, f)
	wantJSON(t, "key", m["key"], `{"account":"a","environment":"live","expires_at":"2031-02-03T04:05:06Z","id":"k","meta":{"team":"x"},`+
		`"name":"n","not_before":"2031-02-03T03:05:06Z","plan":"p","scopes":[],"status":"active"}`)
	wantJSON(t, "account", m["account"], `{"id":"a","meta":{"n":1},"plan":"p","status":"overdue"}`)
	wantJSON(t, "token", m["token"], `{"account":"a","claims":{"aud":["x","y"]},"has_account":true,"id":"j","issuer":"i","plan":"p","same_account":true,"scopes":["s"],"status":"valid"}`)
	wantJSON(t, "quota", m["quota"], `{"calls":{"limit":10,"remaining":3,"resets_at":"2031-02-03T03:05:06Z","state":"ok"},`+
		`"credits":{"limit":0,"remaining":0,"state":"unavailable"}}`)
	wantJSON(t, "revocation", m["revocation"], `{"stale":true}`)
}

// TestValue_TokenBesideAKey sends a key of the account "a", and tokens of that account, of another, and of none.
func TestValue_TokenBesideAKey(t *testing.T) {
	for name, c := range map[string]struct {
		token authz.TokenFact
		want  string
	}{
		"the same":              {authz.TokenFact{Account: "a"}, `"has_account":true,"same_account":true`},
		"another":               {authz.TokenFact{Account: "b"}, `"has_account":true,"same_account":false`},
		"none, though it could": {authz.TokenFact{}, `"has_account":false,"same_account":false`},
		"none, as always":       {authz.TokenFact{Accountless: true}, `"accountless":true,"has_account":false,"same_account":true`},
	} {
		c.token.Status, c.token.Issuer = authz.TokenValid, "i"
		got, err := json.Marshal(inputJSON(t, &authz.Request{}, &authz.Facts{Key: authz.KeyFact{Account: "a"}, Token: c.token})["token"])
		if err != nil || !strings.Contains(strings.Replace(string(got), `"issuer":"i",`, "", 1), c.want) {
			t.Errorf("%s: %s, want %s (%v)", name, got, c.want, err)
		}
	}
}

func TestValue_RefusesWhatIsNotJSON(t *testing.T) {
	for name, v := range map[string]any{"NaN": math.NaN(), "infinity": math.Inf(1), "channel": make(chan int)} {
		for _, place := range []*authz.Request{
			{Body: authz.Body{Parsed: []any{v}}},
			{Metadata: &authz.Metadata{Filter: map[string]any{"x": map[string]any{"y": v}}}},
			{RouteMetadata: &authz.Metadata{Typed: map[string]any{"x": v}}},
		} {
			if _, err := Value(everything, place, nil); err == nil {
				t.Errorf("%s was taken", name)
			}
		}
		for _, place := range []*authz.Facts{
			{Key: authz.KeyFact{Meta: map[string]any{"x": v}}},
			{Account: authz.AccountFact{Meta: map[string]any{"x": v}}},
			{Token: authz.TokenFact{Claims: map[string]any{"x": v}}},
		} {
			if _, err := Value(everything, &authz.Request{}, place); err == nil {
				t.Errorf("%s was taken", name)
			}
		}
	}
}
