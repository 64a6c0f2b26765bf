package main

import (
	"context"
	"fmt"
	"os"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	"github.com/open-policy-agent/opa/v1/util"
	"google.golang.org/protobuf/encoding/protojson"
)

// keysAsData is the rival that does for each check what OPA's Envoy plugin does, with the keys as data of the policy: encode the
// message as JSON, decode it, make a value of it, and evaluate a prepared query with metrics. It has no quotas, revocations or
// decision log.
const keysAsData = "opa-keys"

// keysPolicy checks keys, tokens and routes as policies for the plugin do. Its routes are those of the loads.
const keysPolicy = `package envoy.authz

default allow := {"allowed": false, "reason": "key_unknown"}

allow := {"allowed": true, "headers": {"x-account": caller.account, "x-plan": caller.plan}} if {
	caller.status == "active"
	every scope in needed {
		scope in caller.scopes
	}
}

caller := data.keys[crypto.sha256(http.headers["x-api-key"])]

caller := {"status": "active", "account": claims.` + accountClaim + `, "plan": claims.` + planClaim + `, "scopes": split(claims.scope, " ")} if {
	token := trim_prefix(http.headers.authorization, "Bearer ")
	[valid, _, claims] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": data.issuer, "aud": "` + tokenAudience + `"})
	valid
}

http := input.attributes.request.http

default needed := []

needed := ["` + ordersScope + `"] if {
	http.method == "GET"
	input.parsed_path = ["v1", "orders", _]
}
`

// newKeysAsData reads the data from a file that writeData has written.
func newKeysAsData(ctx context.Context, file string) (*opa, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var data map[string]any
	if err := util.UnmarshalJSON(raw, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	query, err := rego.New(
		rego.Query(opaQuery), rego.Module("keys.rego", keysPolicy), rego.Store(inmem.NewFromObject(data)),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys.rego: %w", err)
	}
	config, err := cache.ParseCachingConfig(nil)
	if err != nil {
		return nil, err
	}
	values := cache.NewInterQueryValueCache(ctx, config) // remembers tokens, as the plugin does
	return &opa{query: query, input: func(req *authv3.CheckRequest) (rego.EvalOption, error) {
		input, err := pluginInput(req)
		return func(e *rego.EvalContext) {
			input(e)
			rego.EvalInterQueryBuiltinValueCache(values)(e)
		}, err
	}}, nil
}

// pluginInput makes the input in the steps of the plugin.
func pluginInput(req *authv3.CheckRequest) (rego.EvalOption, error) {
	text, err := protojson.Marshal(req)
	if err != nil {
		return nil, err
	}
	var input map[string]any
	if err := util.UnmarshalJSON(text, &input); err != nil {
		return nil, err
	}
	segments, params, err := parsePath(req.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	input["parsed_path"], input["parsed_query"], input["truncated_body"] = segments, params, false
	input["version"] = map[string]string{"ext_authz": "v3", "encoding": "protojson"}
	value, err := ast.InterfaceToValue(input)
	if err != nil {
		return nil, err
	}
	m := metrics.New()
	return func(e *rego.EvalContext) {
		rego.EvalParsedInput(value)(e)
		rego.EvalMetrics(m)(e)
	}, nil
}
