package server

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/gcpace"
)

// BenchmarkGCPace sends checks through gRPC with and without package gcpace: decisions, page 012. The client allocates from
// the same heap. Besides the time of a check it reports the processor time of the collector for one check, and the memory
// that the process holds.
func BenchmarkGCPace(b *testing.B) {
	for _, device := range []string{"on", "off"} {
		b.Run("device="+device, func(b *testing.B) {
			b.Setenv("GOGC", "100") // the server's own loop leaves it alone
			cfg := configFor(b.TempDir())
			cfg.Policy.Paths = []string{policyFolder(b, "plans.yaml", "tollkeeper: {plans: {large: {limits: {daily: {units: 1000000000, window: day}}}}}\n", "routes.yaml", "{}")}
			cfg.Policy.ReloadInterval.Duration = 0
			r := start(b, cfg)
			key := r.newKey("acme", "large").Key
			r.want(key, 200, "")
			check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
				Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/v1/x", Headers: map[string]string{"x-api-key": key}},
			}}}
			if device == "on" {
				b.Setenv("GOGC", "")
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan struct{})
				go func() { defer close(done); gcpace.Run(ctx) }()
				defer func() { cancel(); <-done }()
			}
			runtime.GC()
			before := read("/cpu/classes/gc/total:cpu-seconds").Float64()
			for b.Loop() {
				if _, err := r.checks.Check(b.Context(), check); err != nil {
					b.Fatal(err)
				}
			}
			held := read("/memory/classes/total:bytes").Uint64() - read("/memory/classes/heap/released:bytes").Uint64()
			runtime.GC() // the processor time is counted at the end of a collection
			b.ReportMetric((read("/cpu/classes/gc/total:cpu-seconds").Float64()-before)*1e6/float64(b.N), "gc-µs/op")
			b.ReportMetric(float64(held)/(1<<20), "MB")
		})
	}
}

func read(name string) metrics.Value {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value
}
