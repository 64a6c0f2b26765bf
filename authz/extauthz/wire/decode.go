package wire

import (
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FaultMalformed is the fault of a request whose message is not a CheckRequest.
const FaultMalformed = "the message is not a CheckRequest"

// memory holds the parts of most requests. It is one allocation, because all parts are used and freed together.
type memory struct {
	request authz.Request
	http    authz.HTTP
	peers   [2]peerMemory
}

// decoder reads one CheckRequest.
//
// It follows protobuf's rules: if a message field comes twice, the second is merged into the first; if a number or a text comes
// twice, the last one counts.
type decoder struct {
	reader
	*memory
	seconds, nanos int64
	timed          bool
	raw, plain     authz.Headers
}

// Decode reads a CheckRequest. If the message is malformed, the request has the fault FaultMalformed and nothing else. The
// path and the body are as the proxy sent them: Segments, Params and the parsed body are not set.
//
// Texts of the request share the memory of the message, so keeping one text keeps the whole message in memory.
func Decode(message string) *authz.Request {
	d := decoder{memory: &memory{}}
	for s := message; s != ""; {
		var f field
		if f, s = d.next(s); f.tag == checkRequestAttributes {
			d.attributes(f.text)
		}
	}
	if d.malformed {
		return &authz.Request{Fault: FaultMalformed}
	}
	return d.finish()
}

// finish sets the fields that depend on the whole message.
func (d *decoder) finish() *authz.Request {
	out := &d.request
	if d.timed {
		out.Time = time.Unix(d.seconds, d.nanos).UTC()
	}
	if h := out.HTTP; h != nil {
		h.Headers, h.RawHeaders = d.headers()
		// The check package may keep these two texts for a while. They must not keep the whole message in memory.
		h.ID = strings.Clone(h.ID)
		if p := out.Source; p != nil && p.Address != nil && p.Address.Socket != nil {
			p.Address.Socket.Address = strings.Clone(p.Address.Socket.Address)
		}
	}
	return out
}

func (d *decoder) attributes(s string) {
	out := &d.request
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case attributesSource:
			out.Source = &d.peers[0].peer
			d.peer(&d.peers[0], f.text)
		case attributesDestination:
			out.Destination = &d.peers[1].peer
			d.peer(&d.peers[1], f.text)
		case attributesRequest:
			d.requestPart(f.text)
		case attributesContextExtensions:
			out.ContextExtensions = d.put(out.ContextExtensions, f.text)
		case attributesMetadataContext:
			out.Metadata = d.metadata(out.Metadata, f.text)
		case attributesTLSSession:
			d.tls(f.text)
		case attributesRouteMetadata:
			out.RouteMetadata = d.metadata(out.RouteMetadata, f.text)
		}
	}
}

func (d *decoder) tls(s string) {
	if d.request.TLS == nil {
		d.request.TLS = &authz.TLSSession{}
	}
	for s != "" {
		var f field
		if f, s = d.next(s); f.tag == tlsSNI {
			d.request.TLS.SNI = d.utf8(f.text)
		}
	}
}

func (d *decoder) requestPart(s string) {
	d.request.Described = true
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case requestTime:
			d.timestamp(f.text)
		case requestHTTP:
			d.request.HTTP = &d.http
			d.httpRequest(f.text)
		}
	}
}

func (d *decoder) timestamp(s string) {
	d.timed = true
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case timestampSeconds:
			d.seconds = int64(f.number)
		case timestampNanos:
			d.nanos = int64(int32(f.number))
		}
	}
}

func (d *decoder) httpRequest(s string) {
	h := &d.http
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case httpID:
			h.ID = d.utf8(f.text)
		case httpMethod:
			h.Method = d.utf8(f.text)
		case httpHeaders:
			d.plainHeader(f.text)
		case httpPath:
			h.Path = d.utf8(f.text)
		case httpHost:
			h.Host = d.utf8(f.text)
		case httpScheme:
			h.Scheme = d.utf8(f.text)
		case httpQuery:
			h.Query = d.utf8(f.text)
		case httpFragment:
			h.Fragment = d.utf8(f.text)
		case httpSize:
			h.Size = int64(f.number)
		case httpProtocol:
			h.Protocol = d.utf8(f.text)
		case httpBody:
			h.Body = d.utf8(f.text)
		case httpRawBody:
			h.RawBody = []byte(f.text)
		case httpHeaderMap:
			d.headerMap(f.text)
		}
	}
}

// AppendTexts appends a partial CheckRequest with these texts of the HTTP request, except nil ones. Appended to a whole message,
// it replaces the texts in that. The texts need not be UTF-8 until they are decoded.
func AppendTexts(b, method, path, host []byte) []byte {
	if method == nil && path == nil && host == nil {
		return b
	}
	var attributes, request, http int
	b, attributes = begin(b, checkRequestAttributes)
	b, request = begin(b, attributesRequest)
	b, http = begin(b, requestHTTP)
	for _, f := range []struct {
		tag  tag
		text []byte
	}{{httpMethod, method}, {httpPath, path}, {httpHost, host}} {
		if f.text != nil {
			b = append(appendLength(b, f.tag, len(f.text)), f.text...)
		}
	}
	return end(end(end(b, http), request), attributes)
}
