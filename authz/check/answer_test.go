package check_test

import (
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

func TestDenial_HeadersHoldNoControlCharacters(t *testing.T) {
	w := newWorld(t, always(authz.Verdict{Headers: authz.Headers{{Name: "x-note", Value: "a\r\nset-cookie: x=1\x00"}}}), check.Options{})
	d := w.Check(t.Context(), request())
	if got := d.Headers.Get("x-note"); strings.ContainsAny(got, "\r\n\x00") {
		t.Errorf("header value %q", got)
	}
	w.wantDeny(t, d, authz.ReasonPolicyDenied)
}

// TestDenial_WithoutContentHasNoBody uses a policy that sets a body for statuses that cannot have one.
func TestDenial_WithoutContentHasNoBody(t *testing.T) {
	body := "HTTP/1.1 200 OK"
	for status, want := range map[int]string{204: "", 304: "", 200: body, 404: body} {
		w := newWorld(t, always(authz.Verdict{Status: status, Body: &body}), check.Options{})
		if d := w.Check(t.Context(), request()); d.Allowed() || d.Status != status || d.Body != want {
			t.Errorf("%d: %+v", status, d)
		}
	}
}

func TestDenial_OfAGRPCCaller(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{})
	d := w.Check(t.Context(), request("content-type", "application/grpc"))
	w.wantDeny(t, d, authz.ReasonKeyMissing)
	if d.Headers.Get("grpc-status") != "7" || d.Headers.Has("content-type") {
		t.Errorf("headers %v", d.Headers)
	}
	for range 4 {
		d = w.Check(t.Context(), request("content-type", "application/grpc+proto", "x-api-key", w.text))
	}
	if d.Headers.Get("grpc-status") != "8" {
		t.Errorf("quota: headers %v", d.Headers)
	}
	w = newWorld(t, always(authz.Verdict{Reason: authz.ReasonRouteUnknown}), check.Options{})
	d = w.Check(t.Context(), request("content-type", "application/grpc"))
	if d.Headers.Get("grpc-status") != "12" {
		t.Errorf("unknown route: headers %v", d.Headers)
	}
}
