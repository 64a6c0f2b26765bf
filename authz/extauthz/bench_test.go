package extauthz

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// BenchmarkDecode reads typical requests, and reads them as protobuf does.
func BenchmarkDecode(b *testing.B) {
	for _, form := range []string{"typical", "plain", "full"} {
		raw := checkRequests(b)[form]
		b.Run(form, func(b *testing.B) {
			data := mem.BufferSlice{mem.SliceBuffer(raw)}
			b.ReportAllocs()
			for b.Loop() {
				var q question
				if err := Codec().Unmarshal(data, &q); err != nil {
					b.Fatal(err)
				}
				decode(q.message, Options{})
			}
		})
		b.Run(form+"/oracle", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var req authv3.CheckRequest
				if err := proto.Unmarshal(raw, &req); err != nil {
					b.Fatal(err)
				}
				oracleDecode(&req, Options{})
			}
		})
	}
}

// BenchmarkEncode writes a typical answer and a denial, and writes them as protobuf does.
func BenchmarkEncode(b *testing.B) {
	answers := map[string]authz.Decision{
		"allow": authz.Allow(typicalAnswer()),
		"deny":  authz.Deny(authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded, Headers: typicalAnswer().ResponseHeaders, Body: `{"code":"quota_exceeded"}`, ID: typicalAnswer().ID, Notes: typicalAnswer().Notes}),
	}
	for name, d := range answers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out, err := Codec().Marshal(newAnswer(&d))
				if err != nil {
					b.Fatal(err)
				}
				out.Free()
			}
		})
		b.Run(name+"/oracle", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := proto.Marshal(oracleEncode(&d)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
