package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// opa evaluates policies with OPA's SDK. The query is prepared once.
type opa struct {
	authv3.UnimplementedAuthorizationServer
	query rego.PreparedEvalQuery
	input func(*authv3.CheckRequest) (rego.EvalOption, error)
}

const opaQuery = "data.envoy.authz.allow"

// newOPA evaluates the shipped policies as OPA's documentation shows: the input of each request is a map. It does less than an
// authorizer: it knows key and route beforehand, counts nothing and logs nothing.
func newOPA(ctx context.Context) (*opa, error) {
	files, err := loader.NewFileLoader().WithFS(policies.Files).Filtered([]string{"."}, isNoRule)
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	compiler, err := files.Compiler()
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	store, err := files.Store()
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	query, err := rego.New(rego.Query(opaQuery), rego.Compiler(compiler), rego.Store(store)).PrepareForEval(ctx)
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	return &opa{query: query, input: func(req *authv3.CheckRequest) (rego.EvalOption, error) {
		input, err := inputOf(req)
		return rego.EvalInput(input), err
	}}, nil
}

// isNoRule excludes files that are neither rules nor their data.
func isNoRule(name string, info fs.FileInfo, _ int) bool {
	if info.IsDir() {
		return path.Base(name) == "schema"
	}
	return strings.HasSuffix(name, "_test.rego") || path.Ext(name) != ".rego" && path.Ext(name) != ".yaml"
}

// Check returns every failure as an error, which ends the run, and does not deny: it protects nothing.
func (o *opa) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	input, err := o.input(req)
	if err != nil {
		return nil, err
	}
	results, err := o.query.Eval(ctx, input)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, errors.New("the policy is undefined")
	}
	decision, ok := results[0].Expressions[0].Value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the policy returned %v", results[0].Expressions[0].Value)
	}
	if allowed, _ := decision["allowed"].(bool); allowed {
		return allow(), nil
	}
	return deny(fmt.Sprint(decision["reason"])), nil
}

func deny(reason string) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-authz-reason", Value: reason}}},
		}},
	}
}

// inputOf is the input document, with the names of the message in JSON.
func inputOf(req *authv3.CheckRequest) (map[string]any, error) {
	attrs := req.GetAttributes()
	h := attrs.GetRequest().GetHttp()
	segments, params, err := parsePath(h.GetPath())
	if err != nil {
		return nil, err
	}
	headers := make(map[string]any, len(h.GetHeaderMap().GetHeaders()))
	for _, f := range h.GetHeaderMap().GetHeaders() {
		headers[f.GetKey()] = string(f.GetRawValue())
	}
	extensions := make(map[string]any, len(attrs.GetContextExtensions()))
	for name, value := range attrs.GetContextExtensions() {
		extensions[name] = value
	}
	at := attrs.GetRequest().GetTime()
	return map[string]any{
		"version": map[string]any{"ext_authz": "v3", "encoding": "protojson"},
		"attributes": map[string]any{
			"source":      peerOf(attrs.GetSource()),
			"destination": peerOf(attrs.GetDestination()),
			"request": map[string]any{
				"time": map[string]any{"seconds": at.GetSeconds(), "nanos": at.GetNanos()},
				"http": map[string]any{
					"id": h.GetId(), "method": h.GetMethod(), "path": h.GetPath(), "host": h.GetHost(),
					"scheme": h.GetScheme(), "protocol": h.GetProtocol(), "headers": headers,
				},
			},
			"contextExtensions": extensions,
		},
		"parsed_path":    segments,
		"parsed_query":   params,
		"truncated_body": false,
		"key":            goodKey["key"],
		"account":        goodKey["account"],
		"token":          goodKey["token"],
		"quota":          goodKey["quota"],
		"revocation":     goodKey["revocation"],
		"path":           map[string]any{"state": "ok"},
		"route":          map[string]any{"state": "none"},
	}, nil
}

// parsePath splits a path into decoded segments and the parameters of its query.
func parsePath(text string) ([]string, map[string][]string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	return strings.Split(strings.TrimLeft(u.Path, "/"), "/"), u.Query(), nil
}

func peerOf(p *authv3.AttributeContext_Peer) map[string]any {
	s := p.GetAddress().GetSocketAddress()
	return map[string]any{"address": map[string]any{"socketAddress": map[string]any{"address": s.GetAddress(), "portValue": s.GetPortValue()}}}
}

// goodKey has the facts about every caller: an active key with the shipped plan pro and units left.
var goodKey = map[string]map[string]any{
	"key": {
		"status": "active", "id": "key_5YzPqTnW8sLkR2vXcB4d", "account": "acme", "environment": "live", "plan": "pro",
		"scopes": []any{},
	},
	"account":    {"id": "acme", "plan": "pro", "status": "active"},
	"token":      {"status": "missing", "has_account": false, "same_account": true},
	"revocation": {"stale": false},
	"quota": {
		"rate":    map[string]any{"state": "ok", "limit": 600, "remaining": 599, "resets_at": "2026-01-01T00:01:00Z"},
		"monthly": map[string]any{"state": "ok", "limit": 100000, "remaining": 99999, "resets_at": "2026-02-01T00:00:00Z"},
	},
}
