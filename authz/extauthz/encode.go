package extauthz

import (
	"encoding/json"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// encode is the only place where a CheckResponse is made. Envoy lets a request pass whenever the status code is 0, even
// when it is not set or a denied_response stands beside it, so the code is PERMISSION_DENIED before anything else is
// looked at, and 0 only in the branch of an allow.
func encode(d *authz.Decision) *authv3.CheckResponse {
	resp := &authv3.CheckResponse{
		Status:          &statuspb.Status{Code: int32(codes.PermissionDenied)},
		DynamicMetadata: metadata(d.Metadata),
	}
	if d.Allowed() {
		resp.Status.Code = int32(codes.OK)
		resp.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:                 headers(d.Headers, toUpstream),
			HeadersToRemove:         texts(d.RemoveRequestHeaders),
			ResponseHeadersToAdd:    headers(d.ResponseHeaders, toClient),
			QueryParametersToSet:    parameters(d.SetQueryParameters),
			QueryParametersToRemove: texts(d.RemoveQueryParameters),
		}}
		return resp
	}
	h := d.Headers
	if !h.Has("x-authz-reason") {
		h = append(h, authz.Header{Name: "x-authz-reason", Value: string(d.DeniedFor())})
	}
	resp.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.HTTPStatus())},
		Headers: headers(h, toDenied),
		Body:    text(d.Body),
	}}
	return resp
}

// text makes a text fit for protobuf, which refuses to send a message with one that is not UTF-8. A policy may have
// copied it from the request, and then a denial would become an error.
func text(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func texts(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = text(s)
	}
	return out
}

// destination is where headers go. Envoy treats further values of one name differently in each.
type destination int

const (
	toUpstream destination = iota // values after the first are appended to it, with commas
	toClient                      // of an allowed request: a value that is set replaces the ones before it
	toDenied                      // to the client of a denied request: values stay apart, all of them set
)

// headers says of every name that our value replaces what is there. Both fields are set because releases of Envoy differ
// in which of them they heed, and either one alone lets a client's value survive in some. Several values of one name
// reach each destination whole, in the way that works there.
func headers(in authz.Headers, to destination) []*corev3.HeaderValueOption {
	out := make([]*corev3.HeaderValueOption, len(in))
	for i, h := range in {
		add := to == toUpstream && in[:i].Has(h.Name) || to == toClient && (in[:i].Has(h.Name) || in[i+1:].Has(h.Name))
		action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if add {
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		out[i] = &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: text(h.Name), Value: text(h.Value)}, AppendAction: action}
		//lint:ignore SA1019 it is deprecated, and the only one that some releases of Envoy heed
		out[i].Append = wrapperspb.Bool(add)
	}
	return out
}

func parameters(in []authz.Header) []*corev3.QueryParameter {
	out := make([]*corev3.QueryParameter, len(in))
	for i, p := range in {
		out[i] = &corev3.QueryParameter{Key: text(p.Name), Value: text(p.Value)}
	}
	return out
}

func metadata(in map[string]any) *structpb.Struct {
	if len(in) == 0 {
		return nil
	}
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(in))}
	for k, v := range in {
		out.Fields[text(k)] = value(v)
	}
	return out
}

// value turns a JSON value into its protobuf form. Numbers become doubles there, as protobuf has no others.
func value(v any) *structpb.Value {
	switch v := v.(type) {
	case string:
		return structpb.NewStringValue(text(v))
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return structpb.NewStringValue(text(v.String()))
		}
		return structpb.NewNumberValue(f)
	case map[string]any:
		return structpb.NewStructValue(&structpb.Struct{Fields: metadata(v).GetFields()})
	case []any:
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(v))}
		for i := range v {
			list.Values[i] = value(v[i])
		}
		return structpb.NewListValue(list)
	}
	out, err := structpb.NewValue(v)
	if err != nil {
		return structpb.NewStringValue(text(fmt.Sprint(v)))
	}
	return out
}
