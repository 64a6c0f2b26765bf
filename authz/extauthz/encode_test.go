package extauthz

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FuzzEncode holds the encoder to protobuf: whatever is in an answer, it reads as what protobuf would have sent, and its
// code is what the decision says.
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

// sameResponse writes a decision both ways.
func sameResponse(t *testing.T, d authz.Decision, allow bool) {
	t.Helper()
	got, want := answerTo(t, d), oracleEncode(&d)
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	if (got.GetStatus().GetCode() == 0) != allow {
		t.Fatalf("code %d for allow = %v", got.GetStatus().GetCode(), allow)
	}
}

// TestAnyAnswer has answers of all shapes, for those who do not fuzz.
func TestAnyAnswer(t *testing.T) {
	for seed := range uint64(3000) {
		a := answerOf(recipe(seed), "", "x-a", "7", "1e999", "t\xff", strings.Repeat("long ", 40))
		sameResponse(t, authz.Allow(a), true)
		sameResponse(t, authz.Deny(a), false)
	}
}

// TestAnswersOfAnyLength has messages around the lengths whose length is a byte longer.
func TestAnswersOfAnyLength(t *testing.T) {
	for _, around := range []int{1 << 7, 1 << 14} {
		for n := around - 100; n < around+10; n++ {
			long := strings.Repeat("x", n)
			sameResponse(t, authz.Deny(authz.Answer{Body: long}), false)
			sameResponse(t, authz.Allow(authz.Answer{Metadata: map[string]any{"k": []any{long}}}), true)
		}
	}
}

// answerOf makes an answer of the texts, each list as long as a byte of the shape says.
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
	}
}
