package model

import "time"

// Way is a way to configure the check.
type Way int

// The ways.
const (
	ByFilter   Way = iota // an ext_authz filter of an Envoy
	ByPatch               // a configuration that an EnvoyFilter or EnvoyPatchPolicy merges into a generated filter
	ByProvider            // an extension provider of Istio
	ByPolicy              // a SecurityPolicy of Envoy Gateway
)

// Fields are the paths of the fields of a check for one way, "" if it has no such field. Connect and Breaker are relative to the
// cluster, the spec of the DestinationRule or extAuth.
type Fields struct {
	HTTP, Timeout, FailOpen, StatusOnError, Body, ClearRoute, Headers, Retry, Connect, Breaker string
}

// FieldsOf are the fields for each way. A test in k8s/apitest compares them with the real API types.
var FieldsOf = map[Way]Fields{
	ByFilter: envoyFields,
	ByPatch:  envoyFields,
	ByProvider: {
		Timeout: "timeout", FailOpen: "failOpen", StatusOnError: "statusOnError", Body: "includeRequestBodyInCheck",
		ClearRoute: "clearRouteCache",
		Connect:    "trafficPolicy.connectionPool.tcp.connectTimeout", Breaker: "trafficPolicy.connectionPool.http.http2MaxRequests",
	},
	ByPolicy: {
		HTTP: "http", Timeout: "timeout", FailOpen: "failOpen", StatusOnError: "statusOnError", Body: "bodyToExtAuth",
		ClearRoute: "recomputeRoute", Headers: "headersToExtAuth", Retry: "grpc.backendSettings.retry.retryOn.triggers",
		Connect: "grpc.backendSettings.timeout.tcp.connectTimeout", Breaker: "grpc.backendSettings.circuitBreaker.maxParallelRequests",
	},
}

var envoyFields = Fields{
	HTTP: "http_service", Timeout: "grpc_service.timeout", FailOpen: "failure_mode_allow", StatusOnError: "status_on_error",
	Body: "with_request_body", ClearRoute: "clear_route_cache", Headers: "allowed_headers",
	Retry: "grpc_service.retry_policy.retry_on", Connect: "connect_timeout", Breaker: "circuit_breakers",
}

// Defaults.
const (
	envoyTimeout  = 200 * time.Millisecond
	policyTimeout = 10 * time.Second
	// IstioTimeout is the timeout of a check if a provider of Istio sets none.
	IstioTimeout = 10 * time.Minute

	envoyConnect   = 5 * time.Second
	gatewayConnect = 10 * time.Second // istiod's and Envoy Gateway's

	// MaxRequests is Envoy's limit on concurrent checks. Istio has no limit.
	MaxRequests = 1024
)

// KnownFields are the fields of Kubernetes types. They are listed because the Go packages of the types are large dependencies.
// An API server silently drops an unknown field, so a misspelt field has no effect. A test in k8s/apitest compares the lists
// with the types.
var KnownFields = map[string][]string{
	"ExtAuth": {
		"grpc", "http", "headersToExtAuth", "bodyToExtAuth", "timeout", "failOpen", "recomputeRoute", "includeRouteMetadata",
		"contextExtensions", "statusOnError",
	},
	"GRPCExtAuthService": {"backendRef", "backendRefs", "backendSettings"},
	"BodyToExtAuth":      {"maxRequestBytes"},
	"ContextExtension":   {"name", "type", "value", "valueRef"},
	"HTTPHeaderFilter":   {"set", "add", "addIfAbsent", "remove", "removeOnMatch"},
	"EnvoyExternalAuthorizationGrpcProvider": {
		"service", "port", "timeout", "failOpen", "clearRouteCache", "statusOnError", "includeRequestBodyInCheck",
	},
	"EnvoyExternalAuthorizationRequestBody": {"maxRequestBytes", "allowPartialMessage", "packAsBytes"},
	"AuthorizationPolicy":                   {"selector", "targetRef", "targetRefs", "rules", "action", "provider"},
	"Rule":                                  {"from", "to", "when"},
	"Operation":                             {"hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"},
}
