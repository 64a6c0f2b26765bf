package extauthz

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// decide is a checker.
type decide func(r *authz.Request) authz.Decision

func (f decide) Check(_ context.Context, r *authz.Request) authz.Decision { return f(r) }

func TestServer_APanicIsADenial(t *testing.T) {
	s := NewServer(decide(func(*authz.Request) authz.Decision { panic("boom") }), Options{}, quiet())
	resp := ask(t, s, nil)
	if resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("%v", resp)
	}
}

// TestServer_DeniesWhatIsNotACheckRequest: a malformed message is denied and recorded like any other request. An error would be
// left to Envoy's failure mode.
func TestServer_DeniesWhatIsNotACheckRequest(t *testing.T) {
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

func TestPath_SegmentsAndFaults(t *testing.T) {
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

// TestBody_IsReadUnderLenientContentTypes uses content types that a strict parser refuses and a lenient upstream accepts.
func TestBody_IsReadUnderLenientContentTypes(t *testing.T) {
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

// FuzzCheckRequest sends arbitrary messages along the whole path, under a policy that allows one path only. Every message
// gets an answer, only that path is allowed, and every denial has a reason.
func FuzzCheckRequest(f *testing.F) {
	seed := func(r *authv3.CheckRequest) { f.Add(marshal(f, r)) }
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
				t.Fatalf("allowed a message that is not a CheckRequest: %v", err)
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

// openByReference decides what the fuzzed policy should. It decodes the path one character at a time.
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

// FuzzBody checks that a body is parsed, left alone, or a fault, and that what is parsed is JSON.
func FuzzBody(f *testing.F) {
	f.Add("application/json", `{"a":[1,2,{"b":null}]}`, "")
	f.Add("application/x-www-form-urlencoded", "a=1&a=2&b=%20", "7")
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n", "")
	f.Add("application/grpc", "\x00\x00\x00\x00\x01a", "")
	f.Fuzz(func(t *testing.T, contentType, content, length string) {
		r := &authz.Request{HTTP: &authz.HTTP{Body: content, Headers: authz.Headers{{Name: "content-type", Value: contentType}, {Name: "content-length", Value: length}}}}
		body, fault := readBody(r, Options{})
		if fault != "" && body.Parsed != nil {
			t.Fatalf("parsed %v despite the fault %q", body.Parsed, fault)
		}
		if body.Truncated && body.Parsed != nil {
			t.Fatal("a truncated body was parsed")
		}
		if _, err := json.Marshal(body.Parsed); err != nil {
			t.Fatalf("parsed into something that is not JSON: %v", err)
		}
	})
}
