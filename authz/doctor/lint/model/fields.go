package model

import "time"

// Way is a way to configure the check.
type Way int

// The ways.
const (
	ByFilter   Way = iota // an ext_authz filter of an Envoy
	ByPatch               // what an EnvoyFilter or EnvoyPatchPolicy merges into a filter that istiod or Envoy Gateway makes
	ByProvider            // an extension provider of Istio
	ByPolicy              // a SecurityPolicy of Envoy Gateway
)

// Fields are the paths of the fields of a check in one way, "" where the way has none. Connect and Breaker are below the
// cluster, the spec of the DestinationRule and extAuth.
type Fields struct {
	HTTP, Timeout, FailOpen, StatusOnError, Body, ClearRoute, Headers, Retry, Connect, Breaker string
}

// FieldsOf are the fields in each way. A test in k8s/apitest compares them with the real API types.
var FieldsOf = map[Way]Fields{
	ByFilter: envoyFields,
	ByPatch:  envoyFields,
	ByProvider: {
		Timeout: "timeout", FailOpen: "failOpen", StatusOnError: "statusOnError", Body: "includeRequestBodyInCheck",
		Connect: "trafficPolicy.connectionPool.tcp.connectTimeout", Breaker: "trafficPolicy.connectionPool.http.http2MaxRequests",
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

// What holds where nothing is configured.
const (
	envoyTimeout  = 200 * time.Millisecond
	policyTimeout = 10 * time.Second
	// IstioTimeout is how long a check may take that has no timeout in Istio.
	IstioTimeout = 10 * time.Minute

	envoyConnect   = 5 * time.Second
	gatewayConnect = 10 * time.Second // istiod's and Envoy Gateway's

	// MaxRequests is Envoy's limit on checks at a time. Istio has none.
	MaxRequests = 1024
)

// Object types that are read from YAML as they stand: the real types are heavy dependencies. An API server drops a field
// that it does not know, so that what was meant is not in force.
const (
	ExtAuthType         = "gateway.envoyproxy.io ExtAuth"
	ExtAuthGRPCType     = "gateway.envoyproxy.io GRPCExtAuthService"
	ExtAuthBodyType     = "gateway.envoyproxy.io BodyToExtAuth"
	ContextType         = "gateway.envoyproxy.io ContextExtension"
	EarlyHeadersType    = "gateway.envoyproxy.io HTTPHeaderFilter"
	ProviderType        = "istio.io EnvoyExternalAuthorizationGrpcProvider"
	ProviderBodyType    = "istio.io EnvoyExternalAuthorizationRequestBody"
	AuthorizationType   = "istio.io AuthorizationPolicy"
	AuthorizationRule   = "istio.io Rule"
	AuthorizationTarget = "istio.io Operation"
)

// KnownFields are the fields of these types. A test in k8s/apitest compares them with the real API types.
var KnownFields = map[string][]string{
	ExtAuthType: {
		"grpc", "http", "headersToExtAuth", "bodyToExtAuth", "timeout", "failOpen", "recomputeRoute", "includeRouteMetadata",
		"contextExtensions", "statusOnError",
	},
	ExtAuthGRPCType:     {"backendRef", "backendRefs", "backendSettings"},
	ExtAuthBodyType:     {"maxRequestBytes"},
	ContextType:         {"name", "type", "value", "valueRef"},
	EarlyHeadersType:    {"set", "add", "addIfAbsent", "remove", "removeOnMatch"},
	ProviderType:        {"service", "port", "timeout", "failOpen", "clearRouteCache", "statusOnError", "includeRequestBodyInCheck"},
	ProviderBodyType:    {"maxRequestBytes", "allowPartialMessage", "packAsBytes"},
	AuthorizationType:   {"selector", "targetRef", "targetRefs", "rules", "action", "provider"},
	AuthorizationRule:   {"from", "to", "when"},
	AuthorizationTarget: {"hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"},
}
