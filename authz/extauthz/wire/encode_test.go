package wire

import (
	"encoding/json"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FuzzEncode compares the encoder with protobuf. Every answer decodes to the message that protobuf would have sent, and its
// code says what the decision says.
func FuzzEncode(f *testing.F) {
	f.Add("x-a", "v", "body", "meta", true, []byte("typical"))
	f.Add("x\xff", "\xfe\n", "\xc3", "\xed\xa0\x80", false, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	f.Add("x-authz-reason", strings.Repeat("long ", 40), "", "", false, []byte(strings.Repeat("\x08\x09\x0a", 30)))
	f.Fuzz(func(t *testing.T, name, value, body, key string, allow bool, shape []byte) {
		a := answerOf(shape, name, value, body, key)
		d := authz.Deny(a)
		if allow {
			d = authz.Allow(a)
		}
		sameResponse(t, d, allow)
	})
}

// sameResponse writes a decision with the encoder and with protobuf.
func sameResponse(t *testing.T, d authz.Decision, allow bool) {
	t.Helper()
	got, want := responseTo(t, &d), oracleEncode(&d)
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	if (got.GetStatus().GetCode() == 0) != allow {
		t.Fatalf("code %d for allow = %v", got.GetStatus().GetCode(), allow)
	}
}

// TestEncode_AnyAnswer writes answers of many shapes, in every test run and not only when fuzzing.
func TestEncode_AnyAnswer(t *testing.T) {
	for seed := range uint64(3000) {
		a := answerOf(shapeOf(seed), "", "x-a", "7", "1e999", "t\xff", strings.Repeat("long ", 40))
		sameResponse(t, authz.Allow(a), true)
		sameResponse(t, authz.Deny(a), false)
	}
}

// TestEncode_AnyLength writes messages around the sizes at which a length takes one byte more.
func TestEncode_AnyLength(t *testing.T) {
	for _, around := range []int{1 << 7, 1 << 14} {
		for n := around - 100; n < around+10; n++ {
			long := strings.Repeat("x", n)
			sameResponse(t, authz.Deny(authz.Answer{Body: long}), false)
			sameResponse(t, authz.Allow(authz.Answer{Metadata: map[string]any{"k": []any{long}}}), true)
		}
	}
}

// answerOf makes an answer of the texts. Bytes of the shape say how long each list is.
func answerOf(shape []byte, texts ...string) authz.Answer {
	s := shaper{shape: shape, texts: texts}
	headers := func() (out authz.Headers) {
		for range s.next(6) {
			out = append(out, authz.Header{Name: s.text(), Value: s.text()})
		}
		return out
	}
	list := func() (out []string) {
		for range s.next(4) {
			out = append(out, s.text())
		}
		return out
	}
	return authz.Answer{
		ID: s.text(), Status: s.next(256) * 4, Reason: authz.Reason(s.text()), Headers: headers(), Body: s.text(), ResponseHeaders: headers(),
		RemoveRequestHeaders: list(), SetQueryParameters: headers(), RemoveQueryParameters: list(), Metadata: s.object(0), Notes: headers(),
		NoteID: s.next(4) > 0,
	}
}

func TestEncode_CodeIsZeroOnlyForAnAllow(t *testing.T) {
	decisions := map[string]authz.Decision{
		"zero":         {},
		"empty denial": authz.Deny(authz.Answer{}),
		"denied 200":   authz.Deny(authz.Answer{Status: 200}),
		"denied":       authz.Deny(authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded}),
	}
	for name, d := range decisions {
		resp := responseTo(t, &d)
		if resp.GetStatus().GetCode() == 0 || resp.GetDeniedResponse() == nil || resp.GetDeniedResponse().GetStatus().GetCode() == 0 {
			t.Errorf("%s: %v", name, resp)
		}
		if got := values(resp.GetDeniedResponse().GetHeaders())["x-authz-reason"]; len(got) != 1 {
			t.Errorf("%s: reason %q", name, got)
		}
	}
	d := authz.Allow(authz.Answer{})
	if resp := responseTo(t, &d); resp.GetStatus() == nil || resp.GetStatus().GetCode() != 0 || resp.GetOkResponse() == nil {
		t.Errorf("allow: %v", resp)
	}
}

func TestEncode_OurHeadersReplaceThoseThatAreThere(t *testing.T) {
	in := authz.Headers{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}, {Name: "x-a", Value: "3"}, {Name: "x-authz-reason", Value: "r"}}
	allowed, denied := authz.Allow(authz.Answer{Headers: in, ResponseHeaders: in}), authz.Deny(authz.Answer{Headers: in})
	allow := responseTo(t, &allowed).GetOkResponse()
	deny := responseTo(t, &denied).GetDeniedResponse()
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
			//lint:ignore SA1019 some releases of Envoy obey only this one
			if h.Append == nil || h.GetAppend().GetValue() == c.sets[i] || action != c.sets[i] {
				t.Errorf("%s, header %d: %v, want it set: %v", name, i, h, c.sets[i])
			}
		}
	}
}

// TestEncode_DeepMetadataIsReadableForEnvoy writes a value that a caller nested as deep at will. Envoy would refuse it.
func TestEncode_DeepMetadataIsReadableForEnvoy(t *testing.T) {
	const envoyReads = 100
	for name, wrap := range map[string]func(any) any{
		"objects": func(v any) any { return map[string]any{"a": v} },
		"arrays":  func(v any) any { return []any{v} },
	} {
		v := any(json.Number("1"))
		for range 5000 {
			v = wrap(v)
		}
		b := AppendResponse(nil, &authz.Decision{Answer: authz.Answer{Metadata: map[string]any{"copied": v}}})
		opt := proto.UnmarshalOptions{RecursionLimit: envoyReads}
		var resp authv3.CheckResponse
		if err := opt.Unmarshal(b, &resp); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// responseTo is a decision as Envoy reads it.
func responseTo(t testing.TB, d *authz.Decision) *authv3.CheckResponse {
	t.Helper()
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(AppendResponse(nil, d), &resp); err != nil {
		t.Fatalf("the answer cannot be read: %v", err)
	}
	return &resp
}

// values are the values of each header.
func values(in []*corev3.HeaderValueOption) map[string][]string {
	out := make(map[string][]string)
	for _, h := range in {
		name := h.GetHeader().GetKey()
		out[name] = append(out[name], h.GetHeader().GetValue())
	}
	return out
}
