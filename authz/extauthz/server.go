// Package extauthz is Envoy's door: it turns CheckRequests (envoy.service.auth.v3) into authz.Requests and decisions
// into CheckResponses. No type of Envoy's gets past it.
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
	// SkipBody leaves bodies alone: policies see neither parsed_body nor truncated_body.
	SkipBody bool
	// Descriptors describe the messages of gRPC requests; nil leaves those bodies undecoded.
	Descriptors *protoregistry.Files
}

// Server answers Envoy's checks.
//
// It never returns a gRPC error, for Envoy treats any error of ours by its failure mode, which may be to let the request
// pass. Whatever happens is a CheckResponse that says what it is.
type Server struct {
	checker Checker
	opt     Options
	log     *slog.Logger
}

// NewServer makes a server that asks the checker.
func NewServer(c Checker, opt Options, log *slog.Logger) *Server {
	return &Server{checker: c, opt: opt, log: log}
}

// check answers one check, from the message of the question to that of the answer.
func (s *Server) check(ctx context.Context, q *question) (a *answer) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("check panicked", "panic", p, "stack", string(debug.Stack()))
			a = newAnswer(&authz.Decision{})
		}
	}()
	d := s.checker.Check(ctx, s.read(q))
	return newAnswer(&d)
}

// read decodes a request. One that cannot be survived is denied as one that cannot be understood, and recorded like it.
func (s *Server) read(q *question) (r *authz.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("request could not be read", "panic", p, "stack", string(debug.Stack()))
			r = &authz.Request{Fault: "reading it panicked"}
		}
	}()
	return decode(q.message, s.opt)
}
