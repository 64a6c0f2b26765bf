package model_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
)

const filter = `
static_resources:
  listeners:
  - name: edge
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          http_filters:
          - name: ext_authz
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
`

// A check is the same however it is configured, and has the defaults of its way.
func TestExtAuthz_IsTheSameInAllWays(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		way     model.Way
		timeout time.Duration // without one
	}{
		"filter":   {filter + `grpc_service: {timeout: 2s}, failure_mode_allow: true, clear_route_cache: true, status_on_error: {code: NotFound}, with_request_body: {max_request_bytes: 1}}`, model.ByFilter, 200 * time.Millisecond},
		"provider": {`extensionProviders: [{name: x, envoyExtAuthzGrpc: {timeout: 2s, failOpen: true, clearRouteCache: true, statusOnError: "404", includeRequestBodyInCheck: {}}}]`, model.ByProvider, 10 * time.Minute},
		"policy":   {`{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: SecurityPolicy, spec: {extAuth: {timeout: 2s, failOpen: true, recomputeRoute: true, statusOnError: 404, bodyToExtAuth: {}}}}`, model.ByPolicy, 10 * time.Second},
	} {
		check := func(text string) *model.ExtAuthz {
			t.Helper()
			m, err := model.Build([]*model.File{model.Parse("x", []byte(text), model.AnySubject)}, model.Options{})
			if err != nil || len(m.Checks) != 1 || m.Checks[0].Way != c.way {
				t.Fatalf("%s: %v, %+v", name, err, m)
			}
			return m.Checks[0]
		}
		a := check(c.text)
		if a.Timeout.Value != 2*time.Second || !a.FailOpen.Value || !a.ClearRoute.Value || a.StatusOnError.Value != 404 || !a.Body.Exists() || !a.GRPC {
			t.Errorf("%s: %+v", name, a)
		}
		if a.Timeout.Path() == "" || a.FailOpen.Line() == 0 {
			t.Errorf("%s: no position: %+v", name, a)
		}
		if b := check(strings.NewReplacer("timeout: 2s, ", "", "timeout: 2s", "").Replace(c.text)); b.Timeout.Exists() || b.Timeout.Value != c.timeout {
			t.Errorf("%s: without a timeout: %+v", name, b.Timeout)
		}
	}
}
