package extauthz

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz/wire"
)

// decode reads a CheckRequest. If it is malformed, decode sets the request's Fault and does not guess.
func decode(message string, opt Options) *authz.Request {
	out := wire.Decode(message)
	if out.Fault == "" {
		out.Fault = readPath(out)
	}
	if out.Fault == "" {
		out.Body, out.Fault = readBody(out, opt)
	}
	return out
}

// Texts replace texts of a request in its JSON form, because JSON cannot hold texts that are not UTF-8. A nil text replaces
// nothing.
type Texts struct{ Method, Path, Host []byte }

// DecodeJSON reads a CheckRequest in its JSON form, which Envoy's logs and the explain API use. It uses the same decoder as for
// requests of Envoy.
func DecodeJSON(raw []byte, texts Texts, opt Options) (*authz.Request, error) {
	var req authv3.CheckRequest
	if err := protojson.Unmarshal(raw, &req); err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a CheckRequest: %w", err)
	}
	message, err := proto.Marshal(&req)
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a CheckRequest: %w", err)
	}
	return decode(string(wire.AppendTexts(message, texts.Method, texts.Path, texts.Host)), opt), nil
}
