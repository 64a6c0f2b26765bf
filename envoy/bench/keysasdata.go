package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"
	"google.golang.org/protobuf/encoding/protojson"
)

// keysAsData is the rival that does for each check what OPA's Envoy plugin does, with the keys as data of the policy: encode the
// message as JSON, decode it, make a value of it, and evaluate a prepared query with metrics. It has no quotas, revocations or
// decision log.
const keysAsData = "opa-keys"

// keysPolicy checks keys and routes as policies for the plugin do. Its routes are those of the loads.
const keysPolicy = `package envoy.authz

default allow := {"allowed": false, "reason": "key_unknown"}

allow := {"allowed": true, "headers": {"x-account": key.account, "x-plan": key.plan}} if {
	key.status == "active"
	every scope in needed {
		scope in key.scopes
	}
}

key := data.keys[crypto.sha256(http.headers["x-api-key"])]

http := input.attributes.request.http

default needed := []

needed := ["` + ordersScope + `"] if {
	http.method == "GET"
	input.parsed_path = ["v1", "orders", _]
}
`

func newKeysAsData(ctx context.Context) (*opa, error) {
	keys, set := make(map[string]any, smallSet), newKeySet(smallSet)
	for i := range set.len() {
		digest := sha256.Sum256(set.text(i))
		keys[hex.EncodeToString(digest[:])] = map[string]any{
			"account": accountOf(i), "plan": plan, "status": "active", "scopes": []any{ordersScope},
		}
	}
	query, err := rego.New(
		rego.Query(opaQuery), rego.Module("keys.rego", keysPolicy), rego.Store(inmem.NewFromObject(map[string]any{"keys": keys})),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys.rego: %w", err)
	}
	return &opa{query: query, input: pluginInput}, nil
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
