package extauthz

import (
	"context"
	"log/slog"
	"runtime/debug"

	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Checker decides requests.
type Checker interface {
	Check(ctx context.Context, r *authz.Request) authz.Decision
}

// Options say how requests are read.
type Options struct {
	// SkipBody does not decode bodies: policies see neither parsed_body nor truncated_body.
	SkipBody bool
	// Descriptors describe the messages of gRPC requests. If they are nil, those bodies are not decoded.
	Descriptors *protoregistry.Files
}

// Server answers Envoy's checks.
//
// It never returns a gRPC error, because Envoy's failure mode may let a request pass after an error. So every answer is a
// CheckResponse.
type Server struct {
	checker Checker
	opt     Options
	log     *slog.Logger
}

// NewServer makes a server that asks the checker.
func NewServer(c Checker, opt Options, log *slog.Logger) *Server {
	return &Server{checker: c, opt: opt, log: log}
}

func (s *Server) check(ctx context.Context, in *checkRequest) (out *checkResponse) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("check panicked", "panic", p, "stack", string(debug.Stack()))
			out = newResponse(&authz.Decision{})
		}
	}()
	d := s.checker.Check(ctx, s.read(in))
	return newResponse(&d)
}

// read decodes a request. A request that makes the decoder panic is denied and recorded like a malformed one.
func (s *Server) read(in *checkRequest) (r *authz.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("request could not be read", "panic", p, "stack", string(debug.Stack()))
			r = &authz.Request{Fault: "reading it panicked"}
		}
	}()
	return decode(in.message, s.opt)
}
