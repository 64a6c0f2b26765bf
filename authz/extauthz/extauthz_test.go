package extauthz

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// decide is a checker.
type decide func(r *authz.Request) authz.Decision

func (f decide) Check(_ context.Context, r *authz.Request) authz.Decision { return f(r) }

func TestCodeZeroOnlyForAnAllow(t *testing.T) {
	decisions := map[string]authz.Decision{
		"zero":         {},
		"empty denial": authz.Deny(authz.Answer{}),
		"denied 200":   authz.Deny(authz.Answer{Status: 200}),
		"denied":       authz.Deny(authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded}),
	}
	for name, d := range decisions {
		resp := answerTo(t, d)
		if resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse() == nil || resp.GetDeniedResponse().GetStatus().GetCode() == 0 {
			t.Errorf("%s: %v", name, resp)
		}
		if got := values(resp.GetDeniedResponse().GetHeaders())["x-authz-reason"]; len(got) != 1 {
			t.Errorf("%s: reason %q", name, got)
		}
	}
	d := authz.Allow(authz.Answer{})
	if resp := answerTo(t, d); resp.GetStatus() == nil || resp.GetStatus().GetCode() != 0 || resp.GetOkResponse() == nil {
		t.Errorf("allow: %v", resp)
	}
}

func TestAPanicIsADenial(t *testing.T) {
	s := NewServer(decide(func(*authz.Request) authz.Decision { panic("boom") }), Options{}, quiet())
	resp := ask(t, s, nil)
	if resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("%v", resp)
	}
}

// TestWhatIsNoCheckRequestIsDenied holds that a message that cannot be read is denied and recorded as any other request,
// where an error would be left to Envoy's failure mode.
func TestWhatIsNoCheckRequestIsDenied(t *testing.T) {
	var fault string
	s := NewServer(decide(func(r *authz.Request) authz.Decision {
		fault = r.Fault
		return authz.Deny(authz.Answer{Reason: authz.ReasonRequestMalformed})
	}), Options{}, quiet())
	for _, message := range []string{"\x0a\x05", "\x0a\x04\x22\x02\x12\x03", "\xff", "\x0f", "\x0c"} {
		fault = ""
		if resp := ask(t, s, []byte(message)); resp.GetStatus().GetCode() == 0 || fault == "" {
			t.Errorf("%q: fault %q, %v", message, fault, resp)
		}
	}
}

func TestEveryHeaderOverwrites(t *testing.T) {
	in := authz.Headers{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}, {Name: "x-a", Value: "3"}, {Name: "x-authz-reason", Value: "r"}}
	allow := answerTo(t, authz.Allow(authz.Answer{Headers: in, ResponseHeaders: in})).GetOkResponse()
	deny := answerTo(t, authz.Deny(authz.Answer{Headers: in})).GetDeniedResponse()
	for name, c := range map[string]struct {
		got  []*corev3.HeaderValueOption
		sets []bool
	}{
		"to the upstream":      {allow.GetHeaders(), []bool{true, true, false, true}},
		"to the client":        {allow.GetResponseHeadersToAdd(), []bool{false, true, false, true}},
		"to the denied client": {deny.GetHeaders(), []bool{true, true, true, true}},
	} {
		if len(c.got) != len(in) {
			t.Fatalf("%s: %v", name, c.got)
		}
		for i, h := range c.got {
			action := h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			//lint:ignore SA1019 some releases of Envoy heed only this one
			if h.Append == nil || h.GetAppend().GetValue() == c.sets[i] || action != c.sets[i] {
				t.Errorf("%s, header %d: %v, want it set: %v", name, i, h, c.sets[i])
			}
		}
	}
}

// TestMetadataIsNotTooDeepForEnvoy has a value with as many levels as its caller liked. Envoy would refuse the response.
func TestMetadataIsNotTooDeepForEnvoy(t *testing.T) {
	const envoyReads = 100
	for name, wrap := range map[string]func(any) any{
		"objects": func(v any) any { return map[string]any{"a": v} },
		"arrays":  func(v any) any { return []any{v} },
	} {
		v := any(json.Number("1"))
		for range 5000 {
			v = wrap(v)
		}
		b := appendResponse(nil, &authz.Decision{Answer: authz.Answer{Metadata: map[string]any{"copied": v}}})
		opt := proto.UnmarshalOptions{RecursionLimit: envoyReads}
		var resp authv3.CheckResponse
		if err := opt.Unmarshal(b, &resp); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBothFormsOfHeadersAreRead(t *testing.T) {
	httpOf := func(h *authv3.AttributeContext_HttpRequest) *authz.HTTP {
		return decode(string(wire(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}})), Options{}).HTTP
	}
	raw := httpOf(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "X-Dup", RawValue: []byte("one")}, {Key: "x-dup", RawValue: []byte("t\xffo")},
	}}})
	if !raw.RawHeaders || !slices.Equal(raw.Headers.Values("x-dup"), []string{"one", "t\xffo"}) {
		t.Errorf("raw: %v", raw.Headers)
	}
	plain := httpOf(&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-dup": "one,two"}})
	if plain.RawHeaders || plain.Headers.Get("x-dup") != "one,two" {
		t.Errorf("plain: %v", plain.Headers)
	}
}

func TestPaths(t *testing.T) {
	cases := map[string]struct {
		segments string
		fault    bool
	}{
		"/":                {segments: ""},
		"":                 {segments: ""},
		"//admin":          {segments: "admin"},
		"///a//b":          {segments: "a||b"},
		"/a%2fb":           {segments: "a|b"},
		"/%2e%2e/etc":      {segments: "..|etc"},
		"/a?x=/b#c":        {fault: true},
		"/a#b":             {fault: true},
		"/%zz":             {fault: true},
		"/%":               {fault: true},
		"/%ff":             {fault: true},
		"http://evil/a":    {segments: "http:||evil|a"},
		"/a;x=1":           {segments: "a;x=1"},
		"/caf%C3%A9?q=%20": {segments: "café"},
		"/a?q=%zz":         {fault: true},
		"/a?x=1;admin=1":   {fault: true},
	}
	for path, want := range cases {
		r := &authz.Request{HTTP: &authz.HTTP{Path: path}}
		fault := readPath(r)
		if (fault != "") != want.fault || !want.fault && strings.Join(r.HTTP.Segments, "|") != want.segments {
			t.Errorf("%q: segments %q, fault %q", path, r.HTTP.Segments, fault)
		}
	}
}

// TestContentTypesThatUpstreamsUnderstand has headers that a strict parser refuses and a lenient one reads.
func TestContentTypesThatUpstreamsUnderstand(t *testing.T) {
	for _, contentType := range []string{
		"application/json", "Application/JSON; charset", `application/json;q="`, "application/json, text/plain", "text/plain, application/json",
	} {
		r := &authz.Request{HTTP: &authz.HTTP{Body: `{"admin": true}`, Headers: authz.Headers{{Name: "content-type", Value: contentType}}}}
		if body, fault := readBody(r, Options{}); fault != "" || body.Parsed == nil {
			t.Errorf("%s: parsed %v, fault %q", contentType, body.Parsed, fault)
		}
		r.HTTP.Body = "{"
		if _, fault := readBody(r, Options{}); fault == "" {
			t.Errorf("%s: broken JSON is no fault", contentType)
		}
	}
}

// FuzzCheckRequest feeds arbitrary messages to the whole path under a policy that allows one thing only. Whatever comes,
// there is an answer, it is an allow only for that thing, and every denial says why.
func FuzzCheckRequest(f *testing.F) {
	seed := func(r *authv3.CheckRequest) { f.Add(wire(f, r)) }
	seed(&authv3.CheckRequest{})
	for _, path := range []string{"/open", "//open", "/open?x=%zz", "/%6fpen", "/closed", "/a%2f..%2fopen", "/%ff"} {
		seed(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: path, Headers: map[string]string{"content-type": "application/json", "authorization": "Bearer x"}, Body: `{"a":1}`,
		}}}})
	}
	s := newServer(f, "package envoy.authz\n\ndefault allow := false\n\nallow if {\n\tinput.attributes.request.http.method == \"GET\"\n\tinput.parsed_path == [\"open\"]\n}\n", policy.Options{}, check.Options{}, Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		resp := ask(t, s, raw)
		if resp.GetStatus() == nil {
			t.Fatalf("no answer: %v", resp)
		}
		if resp.GetStatus().GetCode() == 0 {
			var req authv3.CheckRequest
			if err := proto.Unmarshal(raw, &req); err != nil {
				t.Fatalf("allowed what is no CheckRequest: %v", err)
			}
			h := req.GetAttributes().GetRequest().GetHttp()
			if !openByReference(h.GetMethod(), h.GetPath()) {
				t.Fatalf("allowed %q %q", h.GetMethod(), h.GetPath())
			}
			return
		}
		h := values(resp.GetDeniedResponse().GetHeaders())
		if len(h["x-authz-reason"]) != 1 || !authz.ValidReason(h["x-authz-reason"][0]) {
			t.Fatalf("denied without a reason: %v", resp)
		}
	})
}

// openByReference decides the fuzzed policy the slow way: it decodes the path one character at a time.
func openByReference(method, path string) bool {
	var out []byte
	for i := 0; i < len(path) && path[i] != '?'; i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return false
			}
			hi, lo := strings.IndexByte("0123456789abcdef", path[i+1]|0x20), strings.IndexByte("0123456789abcdef", path[i+2]|0x20)
			if hi < 0 || lo < 0 {
				return false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		out = append(out, c)
	}
	return method == "GET" && strings.TrimLeft(string(out), "/") == "open"
}

// FuzzBody holds that a body is either understood, left alone, or a fault, and that what is understood is JSON.
func FuzzBody(f *testing.F) {
	f.Add("application/json", `{"a":[1,2,{"b":null}]}`, "")
	f.Add("application/x-www-form-urlencoded", "a=1&a=2&b=%20", "7")
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n", "")
	f.Add("application/grpc", "\x00\x00\x00\x00\x01a", "")
	f.Fuzz(func(t *testing.T, contentType, content, length string) {
		r := &authz.Request{HTTP: &authz.HTTP{Body: content, Headers: authz.Headers{{Name: "content-type", Value: contentType}, {Name: "content-length", Value: length}}}}
		body, fault := readBody(r, Options{})
		if fault != "" && body.Parsed != nil {
			t.Fatalf("parsed %v in spite of %q", body.Parsed, fault)
		}
		if body.Truncated && body.Parsed != nil {
			t.Fatal("a truncated body was parsed")
		}
		if _, err := json.Marshal(body.Parsed); err != nil {
			t.Fatalf("parsed into something that is not JSON: %v", err)
		}
	})
}

// TestJSONIsReadAsTheWire holds that an explanation is of the request that Envoy would have sent.
func TestJSONIsReadAsTheWire(t *testing.T) {
	for name, raw := range checkRequests(t) {
		var req authv3.CheckRequest
		if err := proto.Unmarshal(raw, &req); err != nil {
			t.Fatal(err)
		}
		if name == "full" { // has a message that nobody knows, which has no JSON form
			delete(req.GetAttributes().GetMetadataContext().GetTypedFilterMetadata(), "unknown")
			raw = wire(t, &req)
		}
		text, err := protojson.Marshal(&req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeJSON(text, Texts{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := decode(string(raw), Options{})
		normalise(got)
		normalise(want)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %s\nwant %s", name, show(got), show(want))
		}
	}
	if _, err := DecodeJSON([]byte(`{"attributes": 1}`), Texts{}, Options{}); authz.KindOf(err) != authz.KindInvalid {
		t.Errorf("what is no CheckRequest: %v", err)
	}
}
