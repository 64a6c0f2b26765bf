package apitest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	meshv1 "istio.io/api/mesh/v1alpha1"
	istionet "istio.io/api/networking/v1alpha3"
	istiosec "istio.io/api/security/v1beta1"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
)

// Doctor reads objects of Istio and Envoy Gateway without their types, which would make the binary much larger. These tests
// hold its lists of fields against the types.

func TestLintFields_AreThoseOfTheTypes(t *testing.T) {
	types := map[string]any{
		"ExtAuth":                                egv1a1.ExtAuth{},
		"GRPCExtAuthService":                     egv1a1.GRPCExtAuthService{},
		"BodyToExtAuth":                          egv1a1.BodyToExtAuth{},
		"ContextExtension":                       egv1a1.ContextExtension{},
		"HTTPHeaderFilter":                       reflect.Zero(reflect.TypeOf(egv1a1.HeaderSettings{}.EarlyRequestHeaders).Elem()).Interface(),
		"EnvoyExternalAuthorizationGrpcProvider": &meshv1.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{},
		"EnvoyExternalAuthorizationRequestBody":  &meshv1.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationRequestBody{},
		"AuthorizationPolicy":                    &istiosec.AuthorizationPolicy{},
		"Rule":                                   &istiosec.Rule{},
		"Operation":                              &istiosec.Operation{},
	}
	for name, known := range model.KnownFields {
		v, ok := types[name]
		if !ok {
			t.Errorf("%s: its type is not known here", name)
			continue
		}
		if want := fieldsOf(v); !slices.Equal(slices.Sorted(slices.Values(known)), want) {
			t.Errorf("%s: doctor knows %q, and the type has %q", name, known, want)
		}
		delete(types, name)
	}
	for name := range types {
		t.Errorf("doctor does not know %s", name)
	}
}

func TestLintFields_OfChecksExist(t *testing.T) {
	for way, c := range map[model.Way]struct{ check, connection any }{
		model.ByFilter: {&authzv3.ExtAuthz{}, &clusterv3.Cluster{}},
		model.ByPatch:  {&authzv3.ExtAuthz{}, &clusterv3.Cluster{}},
		model.ByProvider: {
			&meshv1.MeshConfig_ExtensionProvider_EnvoyExternalAuthorizationGrpcProvider{}, &istionet.DestinationRule{},
		},
		model.ByPolicy: {egv1a1.ExtAuth{}, egv1a1.ExtAuth{}},
	} {
		fields := reflect.ValueOf(model.FieldsOf[way])
		for i := range fields.NumField() {
			name, path := fields.Type().Field(i).Name, fields.Field(i).String()
			v := c.check
			if name == "Connect" || name == "Breaker" {
				v = c.connection
			}
			if path != "" && !hasPath(v, path) {
				t.Errorf("way %d: %s: %T has no field %s", way, name, v, path)
			}
		}
	}
}

// fieldsOf are the names of the fields of a type in JSON, sorted.
func fieldsOf(v any) []string {
	var out []string
	if m, ok := v.(proto.Message); ok {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			out = append(out, fields.Get(i).JSONName())
		}
	} else {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// hasPath reports whether a type has a field at a path of names with dots between them.
func hasPath(v any, path string) bool {
	if m, ok := v.(proto.Message); ok {
		return hasProtoPath(m.ProtoReflect().Descriptor(), strings.Split(path, "."))
	}
	at := reflect.TypeOf(v)
	for name := range strings.SplitSeq(path, ".") {
		for at.Kind() == reflect.Pointer || at.Kind() == reflect.Slice {
			at = at.Elem()
		}
		i := slices.IndexFunc(reflect.VisibleFields(at), func(f reflect.StructField) bool {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			return tag == name
		})
		if i < 0 {
			return false
		}
		at = reflect.VisibleFields(at)[i].Type
	}
	return true
}

// hasProtoPath takes names as they are in JSON and as they are in a .proto file: Envoy is configured with both.
func hasProtoPath(m protoreflect.MessageDescriptor, path []string) bool {
	f := m.Fields().ByJSONName(path[0])
	if f == nil {
		f = m.Fields().ByTextName(path[0])
	}
	return f != nil && (len(path) == 1 || f.Message() != nil && hasProtoPath(f.Message(), path[1:]))
}
