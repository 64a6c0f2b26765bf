package model

import (
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	// The extensions that rules look into, and other frequent ones. All others are opaque: only their names are known.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Any packs a message of any type.
type Any = anypb.Any

const structType = "type.googleapis.com/google.protobuf.Struct"

// Part is a message with its position.
type Part[M proto.Message] struct {
	source.Location
	Msg M
}

// decode reads a message strictly. If that fails, it reads the message again and ignores unknown fields, so that rules can look
// at the known ones: then it returns both the message and the error. If that fails too, the message is nil.
func decode[M proto.Message](at source.Location, into M) (msg M, err error) {
	var none M
	at = source.Untyped(at) // a dump names the type of each message
	if !at.IsMap() {
		return none, errors.New("want an object")
	}
	plain, err := source.Plain(at)
	if err != nil {
		return none, err
	}
	raw, err := json.Marshal(knownTypes(plain))
	if err != nil {
		return none, err
	}
	strict := protojson.UnmarshalOptions{RecursionLimit: source.MaxDepth}.Unmarshal(raw, into)
	if strict == nil {
		return into, nil
	}
	proto.Reset(into)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: source.MaxDepth}).Unmarshal(raw, into); err != nil {
		return none, errors.New(faultText(err))
	}
	return into, &unknownField{faultText(strict)}
}

// unknownField is an error about a field that a newer Envoy may know.
type unknownField struct{ text string }

func (e *unknownField) Error() string { return e.text }

func isUnknownField(err error) bool {
	var soft *unknownField
	return errors.As(err, &soft)
}

// faultText cleans an error message of protojson. It removes the position, which is not a position in the file, and the random
// spaces.
func faultText(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = strings.TrimPrefix(text, "proto: ")
	if _, rest, ok := strings.Cut(text, "): "); ok && strings.Contains(text, "(line ") {
		text = rest
	}
	return strings.TrimSpace(text)
}

var faultyField = regexp.MustCompile(`unknown field "([^"]+)"|field ([\w.]+):`)

// unreadable is the fault of a message that decode could not read. It is at the field if only one has that name.
func unreadable(at source.Location, err error) Fault {
	if m := faultyField.FindStringSubmatch(err.Error()); m != nil {
		at = source.Find(at, m[1]+m[2])
	}
	return fault(at, "cannot be read: %v", err)
}

// knownTypes replaces messages of unknown types in a JSON value by opaque structures: only an Envoy with the extension can check
// them. A TypedStruct becomes the message in it.
func knownTypes(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = knownTypes(v[i])
		}
	case map[string]any:
		name, typed := v[source.TypeKey].(string)
		if typed {
			if strings.HasSuffix(name, ".TypedStruct") {
				v, name = unwrap(v, name)
			}
			if !isKnown(name) {
				return map[string]any{source.TypeKey: structType, "value": v}
			}
		}
		for k := range v {
			v[k] = knownTypes(v[k])
		}
		return v
	}
	return v
}

// unwrap returns the message in a TypedStruct and its type, if that is known.
func unwrap(v map[string]any, name string) (map[string]any, string) {
	url, _ := v["type_url"].(string)
	if url == "" {
		url, _ = v["typeUrl"].(string)
	}
	inner, ok := v["value"].(map[string]any)
	if !ok || !isKnown(url) {
		return v, name
	}
	out := make(map[string]any, len(inner)+1)
	maps.Copy(out, inner)
	out[source.TypeKey] = url
	return out, url
}

func isKnown(url string) bool {
	_, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	return err == nil
}

// Unpack returns the message in an Any, and the name of its type. The message is nil if the type is opaque.
func Unpack(a *Any) (proto.Message, string) {
	if a == nil {
		return nil, ""
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil, string(a.MessageName())
	}
	if s, ok := m.(*structpb.Struct); ok {
		return nil, opaqueName(s)
	}
	return m, string(a.MessageName())
}

// opaqueName is the name of the type that an opaque structure replaces.
func opaqueName(s *structpb.Struct) string {
	url := s.GetFields()[source.TypeKey].GetStringValue()
	if strings.HasSuffix(url, ".TypedStruct") {
		if inner := s.GetFields()["type_url"].GetStringValue(); inner != "" {
			url = inner
		}
	}
	return url[strings.LastIndex(url, "/")+1:]
}

// validate returns the constraints of Envoy that a message, or a message in its Anys, breaks. It returns at most a given number.
func validate(m proto.Message, most int) []string {
	faults := broken(m)
	_ = protorange.Options{Stable: true}.Range(m.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if last.Step.Kind() != protopath.AnyExpandStep {
			return nil
		}
		inner := last.Value.Message().Interface()
		if _, opaque := inner.(*structpb.Struct); opaque {
			return protorange.Break
		}
		if faults = append(faults, broken(inner)...); len(faults) >= most {
			return protorange.Terminate
		}
		return nil
	}, nil)
	return faults[:min(len(faults), most)]
}

// broken are the constraints that a message breaks, without those of its Anys.
func broken(m proto.Message) []string {
	if v, ok := m.(interface{ ValidateAll() error }); ok { // generated by protoc-gen-validate
		if err := v.ValidateAll(); err != nil {
			return constraintFaults(err)
		}
	}
	return nil
}

// constraintFaults lists the tree of faults that ValidateAll returns.
func constraintFaults(err error) []string {
	var many interface{ AllErrors() []error }
	if errors.As(err, &many) {
		var out []string
		for _, e := range many.AllErrors() {
			out = append(out, constraintFaults(e)...)
		}
		return out
	}
	var one interface {
		Field() string
		Reason() string
		Cause() error
		ErrorName() string
	}
	if !errors.As(err, &one) {
		return []string{err.Error()}
	}
	if one.Cause() != nil {
		return constraintFaults(one.Cause())
	}
	return []string{strings.TrimSuffix(one.ErrorName(), "ValidationError") + "." + one.Field() + ": " + one.Reason()}
}
