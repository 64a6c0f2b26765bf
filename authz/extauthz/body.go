package extauthz

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// readBody decodes a body by its content type, as OPA's Envoy plugin does: JSON, forms, multipart forms, and gRPC if there are
// descriptors. It does not decode bodies of other types, or truncated ones. A body that does not match its type is a fault.
func readBody(r *authz.Request, opt Options) (body authz.Body, fault string) {
	if opt.SkipBody {
		return authz.Body{Skipped: true}, ""
	}
	if r.HTTP == nil {
		return authz.Body{}, ""
	}
	if r.HTTP.Headers.Get("x-envoy-auth-partial-body") == "true" { // Envoy sets this header
		return authz.Body{Truncated: true}, ""
	}
	kind := kindOf(r.HTTP.Headers.Get("content-type"))
	if kind == "" {
		return authz.Body{}, ""
	}
	content := []byte(r.HTTP.Body)
	if len(content) == 0 {
		content = r.HTTP.RawBody
	}
	if kind == "application/grpc" {
		return readGRPC(r.HTTP.Path, content, opt.Descriptors)
	}
	if truncated, fault := isTruncated(r.HTTP.Headers, len(content)); truncated || fault != "" {
		return authz.Body{Truncated: truncated}, fault
	}
	parsed, err := parse(kind, r.HTTP.Headers.Get("content-type"), content)
	if err != nil {
		return authz.Body{}, "the body is not the " + kind + " that it says it is"
	}
	return authz.Body{Parsed: parsed}, ""
}

// kindOf returns the kind of body that a content type names, "" for a kind that is not decoded. The name may be anywhere in the
// header: an upstream may accept a malformed header, so it must not hide the body from the policy.
func kindOf(contentType string) string {
	contentType = strings.ToLower(contentType)
	for _, kind := range []string{kindJSON, "application/x-www-form-urlencoded", "multipart/form-data", "application/grpc"} {
		if strings.Contains(contentType, kind) {
			return kind
		}
	}
	return ""
}

const kindJSON = "application/json"

func parse(kind, contentType string, content []byte) (any, error) {
	switch kind {
	case kindJSON:
		return readJSON(content)
	case "application/x-www-form-urlencoded":
		return readForm(string(content))
	}
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	if params["boundary"] == "" { // the parts cannot be separated
		return nil, nil
	}
	return readMultipart(content, params["boundary"])
}

// isTruncated reports whether the proxy sent only the beginning of a body: its content-length is larger than the body.
func isTruncated(h authz.Headers, have int) (truncated bool, fault string) {
	length := h.Get("content-length")
	if length == "" || have == 0 {
		return false, ""
	}
	want, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return false, "the content-length is not a number"
	}
	return want > int64(have), ""
}

func readJSON(b []byte) (any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

func readForm(s string) (any, error) {
	if s == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(s)
	if err != nil {
		return nil, err
	}
	out := make(map[string]any, len(values))
	for k, list := range values {
		texts := make([]any, len(list))
		for i, v := range list {
			texts[i] = v
		}
		out[k] = texts
	}
	return out, nil
}

func readMultipart(b []byte, boundary string) (any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	out := make(map[string]any)
	for r := multipart.NewReader(bytes.NewReader(b), boundary); ; {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		name := part.FormName()
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		var v any = string(content)
		if kindOf(part.Header.Get("Content-Type")) == kindJSON {
			if v, err = readJSON(content); err != nil {
				return nil, err
			}
		}
		list, _ := out[name].([]any)
		out[name] = append(list, v)
	}
}

// grpcHeader is the size of what precedes a message: one byte that says whether it is compressed, and four for its length.
const grpcHeader = 5

// readGRPC decodes the first message of a gRPC request. The path names the method, and so the type. It does not decode
// compressed messages, messages of methods that are not in the descriptors, or messages of client streams.
func readGRPC(path string, b []byte, files *protoregistry.Files) (body authz.Body, fault string) {
	if files == nil || len(b) == 0 {
		return authz.Body{}, ""
	}
	if len(b) < grpcHeader {
		return authz.Body{}, "the gRPC body is shorter than the header of a message"
	}
	compressed, length := b[0] != 0, binary.BigEndian.Uint32(b[1:grpcHeader])
	if compressed {
		return authz.Body{}, ""
	}
	if uint64(len(b)-grpcHeader) < uint64(length) {
		return authz.Body{Truncated: true}, ""
	}
	input := messageOf(path, files)
	if input == nil {
		return authz.Body{}, ""
	}
	types := dynamicpb.NewTypes(files)
	msg := dynamicpb.NewMessage(input)
	if err := (proto.UnmarshalOptions{Resolver: types}).Unmarshal(b[grpcHeader:grpcHeader+int(length)], msg); err != nil {
		return authz.Body{}, "the gRPC body is not the message that its method takes"
	}
	raw, err := protojson.MarshalOptions{Resolver: types}.Marshal(msg)
	if err != nil {
		return authz.Body{}, "the gRPC body has no JSON form"
	}
	parsed, err := readJSON(raw)
	if err != nil {
		return authz.Body{}, "the gRPC body has no JSON form"
	}
	return authz.Body{Parsed: parsed}, ""
}

// messageOf finds the message that the method at /package.Service/Method takes. It is nil if the method is unknown or takes a
// stream.
func messageOf(path string, files *protoregistry.Files) protoreflect.MessageDescriptor {
	path, _, _ = strings.Cut(path, "?")
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok {
		return nil
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	s, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil
	}
	m := s.Methods().ByName(protoreflect.Name(method))
	if m == nil || m.IsStreamingClient() {
		return nil
	}
	return m.Input()
}

// ReadDescriptors reads a binary FileDescriptorSet, as protoc --descriptor_set_out writes it.
func ReadDescriptors(b []byte) (*protoregistry.Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a FileDescriptorSet: %w", err)
	}
	return protodesc.NewFiles(&set)
}
