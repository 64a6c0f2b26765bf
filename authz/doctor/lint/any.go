package lint

import (
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	// The extensions that rules look into, and those that are met most. All others are opaque: known by name only.
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
)

// anyMessage is short for what a message of any type is packed in.
type anyMessage = anypb.Any

const (
	typeKey    = "@type"
	structType = "type.googleapis.com/google.protobuf.Struct"
)

// soften makes the types in a JSON value known. What is in a TypedStruct becomes a message of the type that it names. A
// type that is not known becomes an opaque structure: whether it is right only an Envoy with that extension can tell.
func soften(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = soften(v[i])
		}
	case map[string]any:
		name, typed := v[typeKey].(string)
		if typed {
			if strings.HasSuffix(name, ".TypedStruct") {
				v, name = unwrap(v, name)
			}
			if !knownType(name) {
				return map[string]any{typeKey: structType, "value": v}
			}
		}
		for k := range v {
			v[k] = soften(v[k])
		}
		return v
	}
	return v
}

// unwrap makes of a TypedStruct what it stands for.
func unwrap(v map[string]any, name string) (map[string]any, string) {
	url, _ := v["type_url"].(string)
	if url == "" {
		url, _ = v["typeUrl"].(string)
	}
	inner, ok := v["value"].(map[string]any)
	if !ok || !knownType(url) {
		return v, name
	}
	out := make(map[string]any, len(inner)+1)
	for k, x := range inner {
		out[k] = x
	}
	out[typeKey] = url
	return out, url
}

func knownType(url string) bool {
	_, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	return err == nil
}

// decode reads a message strictly. If that fails it is read again without what is not known, so that other rules can be
// applied; the error says what was wrong, and is all there is if the message is nil.
func decode[M proto.Message](s spot, into M) (msg M, err error) {
	var none M
	n := s.untyped().value() // a dump says of each message what it is
	if n == nil || !n.isMap {
		return none, errors.New("want an object")
	}
	budget := maxNodes
	plain, err := n.plain(&budget, 0)
	if err != nil {
		return none, err
	}
	raw, err := json.Marshal(soften(plain))
	if err != nil {
		return none, err
	}
	strict := protojson.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(raw, into)
	if strict == nil {
		return into, nil
	}
	proto.Reset(into)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}).Unmarshal(raw, into); err != nil {
		return none, errors.New(protoFault(err))
	}
	return into, &unknownField{protoFault(strict)}
}

// unknownField is a fault that an Envoy newer than this binary may not see.
type unknownField struct{ text string }

func (e *unknownField) Error() string { return e.text }

// protoFault takes what a person can use out of the message of protojson: its position is one in a text that nobody has
// seen, and its spaces differ from build to build on purpose.
func protoFault(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = strings.TrimPrefix(text, "proto: ")
	if _, rest, ok := strings.Cut(text, "): "); ok && strings.Contains(text, "(line ") {
		text = rest
	}
	return strings.TrimSpace(text)
}

// unpack returns the message in an Any, and the name of its type. The message is nil if the type is opaque.
func unpack(a *anypb.Any) (proto.Message, string) {
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

// opaqueName is the name of the type that an opaque structure stands for.
func opaqueName(s *structpb.Struct) string {
	url := s.GetFields()[typeKey].GetStringValue()
	if strings.HasSuffix(url, ".TypedStruct") {
		if inner := s.GetFields()["type_url"].GetStringValue(); inner != "" {
			url = inner
		}
	}
	return url[strings.LastIndex(url, "/")+1:]
}

// validator is what protoc-gen-validate writes.
type validator interface{ ValidateAll() error }

// validate returns what Envoy's own constraints say against a message and the messages in its Anys, at most so many.
func validate(m proto.Message, most int) (faults []string) {
	if v, ok := m.(validator); ok {
		if err := v.ValidateAll(); err != nil {
			faults = append(faults, constraintFaults(err)...)
		}
	}
	eachAny(m.ProtoReflect(), 0, func(inner proto.Message) bool {
		faults = append(faults, validate(inner, most)...)
		return len(faults) < most
	})
	return faults[:min(len(faults), most)]
}

// constraintFaults makes a list of the tree of faults that ValidateAll returns.
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

// eachAny calls f with the messages that are packed in m, not with those that are packed in them.
func eachAny(m protoreflect.Message, depth int, f func(proto.Message) bool) bool {
	if depth > maxDepth {
		return true
	}
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, _ := unpack(a)
		return inner == nil || f(inner)
	}
	if _, ok := m.Interface().(*structpb.Struct); ok {
		return true
	}
	goOn := true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					goOn = eachAny(v.Message(), depth+1, f)
					return goOn
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; goOn && i < v.List().Len(); i++ {
				goOn = eachAny(v.List().Get(i).Message(), depth+1, f)
			}
		default:
			goOn = eachAny(v.Message(), depth+1, f)
		}
		return goOn
	})
	return goOn
}
