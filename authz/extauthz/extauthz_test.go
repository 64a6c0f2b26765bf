package extauthz

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// answer is a checker that always gives the same decision.
type answer func() authz.Decision

func (a answer) Check(context.Context, *authz.Request) authz.Decision { return a() }

func TestCodeZeroOnlyForAnAllow(t *testing.T) {
	decisions := map[string]authz.Decision{
		"zero":         {},
		"empty denial": authz.Deny(authz.Answer{}),
		"denied 200":   authz.Deny(authz.Answer{Status: 200}),
		"denied":       authz.Deny(authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded}),
	}
	for name, d := range decisions {
		resp := encode(&d)
		if resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse() == nil || resp.GetDeniedResponse().GetStatus().GetCode() == 0 {
			t.Errorf("%s: %v", name, resp)
		}
		if got := values(resp.GetDeniedResponse().GetHeaders())["x-authz-reason"]; len(got) != 1 {
			t.Errorf("%s: reason %q", name, got)
		}
	}
	d := authz.Allow(authz.Answer{})
	if resp := encode(&d); resp.GetStatus() == nil || resp.GetStatus().GetCode() != 0 || resp.GetOkResponse() == nil {
		t.Errorf("allow: %v", resp)
	}
}

func TestAPanicIsADenial(t *testing.T) {
	s := NewServer(answer(func() authz.Decision { panic("boom") }), Options{}, quiet())
	resp, err := s.Check(t.Context(), &authv3.CheckRequest{})
	if err != nil || resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestEveryHeaderOverwrites(t *testing.T) {
	in := authz.Headers{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}, {Name: "x-a", Value: "3"}}
	sets := map[destination][]bool{toUpstream: {true, true, false}, toClient: {false, true, false}, toDenied: {true, true, true}}
	for to, want := range sets {
		for i, h := range headers(in, to) {
			action := h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			//lint:ignore SA1019 some releases of Envoy heed only this one
			if h.Append == nil || h.GetAppend().GetValue() == want[i] || action != want[i] {
				t.Errorf("destination %d, header %d: %v, want it set: %v", to, i, h, want[i])
			}
		}
	}
}

func TestBothFormsOfHeadersAreRead(t *testing.T) {
	raw := &authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "X-Dup", RawValue: []byte("one")}, {Key: "x-dup", RawValue: []byte("t\xffo")},
	}}}
	got, isRaw := readHeaders(raw)
	if !isRaw || !slices.Equal(got.Values("x-dup"), []string{"one", "t\xffo"}) {
		t.Errorf("raw: %v", got)
	}
	plain := &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-dup": "one,two"}}
	if got, isRaw := readHeaders(plain); isRaw || got.Get("x-dup") != "one,two" {
		t.Errorf("plain: %v", got)
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

// FuzzEncode puts arbitrary texts everywhere in an answer. It can be sent, and its code is what the decision says.
func FuzzEncode(f *testing.F) {
	f.Add("x-a", "v", "body", "meta", true)
	f.Add("x\xff", "\xfe\n", "\xc3", "\xed\xa0\x80", false)
	f.Fuzz(func(t *testing.T, name, value, body, key string, allow bool) {
		h := authz.Headers{{Name: name, Value: value}, {Name: name, Value: body}}
		a := authz.Answer{
			ID: value, Status: len(value), Headers: h, ResponseHeaders: h, Body: body, RemoveRequestHeaders: []string{name},
			SetQueryParameters: h, RemoveQueryParameters: []string{value}, Metadata: map[string]any{key: []any{value, map[string]any{value: json.Number(body)}}},
		}
		d := authz.Deny(a)
		if allow {
			d = authz.Allow(a)
		}
		resp := encode(&d)
		if _, err := proto.Marshal(resp); err != nil {
			t.Fatalf("cannot be sent: %v", err)
		}
		if (resp.GetStatus().GetCode() == 0) != allow {
			t.Fatalf("code %d for allow = %v", resp.GetStatus().GetCode(), allow)
		}
	})
}

// FuzzCheckRequest feeds arbitrary messages to the whole path under a policy that allows one thing only. Whatever comes,
// there is an answer, it is an allow only for that thing, and every denial says why.
func FuzzCheckRequest(f *testing.F) {
	seed := func(r *authv3.CheckRequest) {
		raw, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	seed(&authv3.CheckRequest{})
	for _, path := range []string{"/open", "//open", "/open?x=%zz", "/%6fpen", "/closed", "/a%2f..%2fopen", "/%ff"} {
		seed(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: path, Headers: map[string]string{"content-type": "application/json", "authorization": "Bearer x"}, Body: `{"a":1}`,
		}}}})
	}
	s := newServer(f, "package envoy.authz\n\ndefault allow := false\n\nallow if {\n\tinput.attributes.request.http.method == \"GET\"\n\tinput.parsed_path == [\"open\"]\n}\n", "", check.Options{}, Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req authv3.CheckRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		resp, err := s.Check(t.Context(), &req)
		if err != nil || resp.GetStatus() == nil {
			t.Fatalf("no answer: %v, %v", resp, err)
		}
		if resp.GetStatus().GetCode() == 0 {
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
		if _, err := proto.Marshal(resp); err != nil {
			t.Fatalf("the answer cannot be sent: %v", err)
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
