package wire

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// BenchmarkDecode reads typical requests with this package (on) and with protobuf (off). The copy of the message that gRPC
// makes necessary is part of "on".
func BenchmarkDecode(b *testing.B) {
	for _, form := range []string{"typical", "plain", "full"} {
		raw := checkRequests(b)[form]
		b.Run(form+"/wire=on", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decode(string(raw))
			}
		})
		b.Run(form+"/wire=off", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var req authv3.CheckRequest
				if err := proto.Unmarshal(raw, &req); err != nil {
					b.Fatal(err)
				}
				oracleDecode(&req)
			}
		})
	}
}

// BenchmarkEncode writes a typical allow and a denial with this package (on) and with protobuf (off).
func BenchmarkEncode(b *testing.B) {
	allow := typicalAnswer()
	deny := authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded, Headers: allow.ResponseHeaders, Body: `{"code":"quota_exceeded"}`, ID: allow.ID, NoteID: true, Notes: allow.Notes}
	for name, d := range map[string]authz.Decision{"allow": authz.Allow(allow), "deny": authz.Deny(deny)} {
		b.Run(name+"/wire=on", func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = AppendResponse(buf[:0], &d)
			}
		})
		b.Run(name+"/wire=off", func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				var err error
				if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], oracleEncode(&d)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
