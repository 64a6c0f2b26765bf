package authz

import (
	"strings"
	"time"
)

// Request is one check request: the description of a request that a proxy holds back until it gets an answer.
//
// Its fields mirror Envoy's AttributeContext (envoy.service.auth.v3). A nil pointer or an empty string means that the
// proxy did not send the field, which a policy sees as undefined.
//
// Its texts may share the memory of the whole message. Clone a text before keeping it for long.
type Request struct {
	Source      *Peer
	Destination *Peer
	// Time is when the proxy saw the first byte of the request, by the proxy's clock. Zero if it was not sent.
	// It identifies a retried check and is never used to decide whether something has expired.
	Time time.Time
	// Described reports that the message has a description of the request, even one without Time and HTTP.
	Described         bool
	HTTP              *HTTP
	ContextExtensions map[string]string
	Metadata          *Metadata
	RouteMetadata     *Metadata
	TLS               *TLSSession

	Body Body

	// Fault says why the request cannot be understood, for the log. A request with a fault is denied with
	// ReasonRequestMalformed before a policy sees it.
	Fault string
}

// HTTP is the HTTP part of a request.
type HTTP struct {
	// ID is the proxy's number for the stream. It never comes from a header.
	ID       string
	Method   string
	Scheme   string
	Host     string
	Path     string // as it will be forwarded: not decoded, with the query
	Query    string
	Fragment string
	Protocol string
	Size     int64
	Headers  Headers
	// RawHeaders reports that the headers came as a list (Envoy's encode_raw_headers), which keeps repeated headers apart, and
	// not as a map, in which the proxy has joined them.
	RawHeaders bool
	Body       string
	RawBody    []byte

	// Segments is the decoded path cut at its slashes, without the leading slashes: "/" has one empty segment.
	Segments []string
	// Params are the decoded query parameters. The values of each name are in the order in which they came.
	Params map[string][]string
}

// Body is the request's body, as far as the proxy sent it and it could be read.
type Body struct {
	// Skipped reports that bodies are not decoded, by configuration. Policies then see no body fields.
	Skipped bool
	// Truncated reports that the proxy sent only the beginning.
	Truncated bool
	// Parsed is the decoded body: nil, bool, json.Number, string, []any or map[string]any.
	Parsed any
}

// Peer is one end of the connection to the proxy.
type Peer struct {
	Address     *Address
	Service     string
	Labels      map[string]string
	Principal   string
	Certificate string
}

// Address is the address of a peer. One of Socket, Pipe and Internal is set, or none if the proxy sent an empty address.
type Address struct {
	Socket   *SocketAddress
	Pipe     *PipeAddress
	Internal *InternalAddress
}

// SocketAddress is an IP address and a port.
type SocketAddress struct {
	Protocol     int32 // 0 for TCP, 1 for UDP, or what the proxy sent
	Address      string
	Port         uint32
	HasPort      bool // a port of 0 was sent, as opposed to none
	NamedPort    string
	HasNamedPort bool // a name was sent, even an empty one
	ResolverName string
	IPv4Compat   bool
}

// PipeAddress is a Unix domain socket.
type PipeAddress struct {
	Path string
	Mode uint32
}

// InternalAddress is a listener inside the proxy.
type InternalAddress struct {
	ServerListenerName string
	HasListenerName    bool // it was sent, even empty
	EndpointID         string
}

// Metadata has the values that other filters or the route set, by the name of the filter. They are JSON values
// (nil, bool, json.Number or float64, string, []any, map[string]any).
type Metadata struct {
	Filter map[string]any
	Typed  map[string]any
}

// TLSSession describes the client's TLS connection.
type TLSSession struct{ SNI string }

// Header is one header field or one query parameter.
type Header struct{ Name, Value string }

// Headers are header fields in the order in which they came. Names are in lower case.
type Headers []Header

// Values returns every value of the field with that lower-case name, in order.
func (h Headers) Values(name string) []string {
	var out []string
	for i := range h {
		if h[i].Name == name {
			out = append(out, h[i].Value)
		}
	}
	return out
}

// Get returns the first value of the field with that lower-case name, or "".
func (h Headers) Get(name string) string {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value
		}
	}
	return ""
}

// Count returns how often the field with that lower-case name was sent.
func (h Headers) Count(name string) (n int) {
	for i := range h {
		if h[i].Name == name {
			n++
		}
	}
	return n
}

// Has reports whether the field with that lower-case name was sent, even empty.
func (h Headers) Has(name string) bool {
	for i := range h {
		if h[i].Name == name {
			return true
		}
	}
	return false
}

// IsGRPC reports whether the caller speaks gRPC, which sends errors in grpc-status and not in the HTTP status.
func (r *Request) IsGRPC() bool {
	if r.HTTP == nil {
		return false
	}
	t := r.HTTP.Headers.Get("content-type")
	return t == "application/grpc" || strings.HasPrefix(t, "application/grpc+") || strings.HasPrefix(t, "application/grpc;")
}
