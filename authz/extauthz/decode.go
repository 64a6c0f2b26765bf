package extauthz

import (
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// requestMemory is what most requests need, in one piece: everything in it is wanted and forgotten together.
type requestMemory struct {
	request  authz.Request
	http     authz.HTTP
	peers    [2]peerMemory
	segments [8]string
}

// decoder reads a CheckRequest from the wire, by the numbers that the fields have in Envoy's definitions. Texts of the
// request are parts of the message, so whoever keeps one keeps the message.
//
// Where a message comes twice for a field that holds one, the second is read over the first, and the last of a number or
// a text counts. That is protobuf's rule, and FuzzDecode holds the decoder to it.
type decoder struct {
	reader
	*requestMemory
	seconds, nanos int64
	timed          bool
	raw, plain     authz.Headers
}

// decode reads a CheckRequest. What cannot be understood becomes the request's Fault, never a guess.
func decode(message string, opt Options) *authz.Request {
	d := decoder{requestMemory: &requestMemory{}}
	for s := message; s != ""; {
		var f field
		if f, s = d.cut(s); f.tag == 1<<3|aText {
			d.attributes(f.text)
		}
	}
	if d.bad {
		return &authz.Request{Fault: "the message is not a CheckRequest"}
	}
	out := d.finish()
	if out.Fault = readPath(out); out.Fault == "" {
		out.Body, out.Fault = readBody(out, opt)
	}
	return out
}

// finish makes what could not be made before the whole message was read.
func (d *decoder) finish() *authz.Request {
	out := &d.request
	if d.timed {
		out.Time = time.Unix(d.seconds, d.nanos).UTC()
	}
	if h := out.HTTP; h != nil {
		h.Headers, h.RawHeaders = d.headers()
		// Checks are remembered by these two for a while. They must not keep their messages, with bodies, for as long.
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
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			out.Source = &d.peers[0].peer
			d.peer(&d.peers[0], f.text)
		case 2<<3 | aText:
			out.Destination = &d.peers[1].peer
			d.peer(&d.peers[1], f.text)
		case 4<<3 | aText:
			d.requestOf(f.text)
		case 10<<3 | aText:
			out.ContextExtensions = d.put(out.ContextExtensions, f.text)
		case 11<<3 | aText:
			out.Metadata = d.metadata(out.Metadata, f.text)
		case 12<<3 | aText:
			d.tls(f.text)
		case 13<<3 | aText:
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
		if f, s = d.cut(s); f.tag == 1<<3|aText {
			d.request.TLS.SNI = d.utf8(f.text)
		}
	}
}

func (d *decoder) requestOf(s string) {
	d.request.Described = true
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			d.timestamp(f.text)
		case 2<<3 | aText:
			d.request.HTTP, d.http.Segments = &d.http, d.segments[:0]
			d.httpRequest(f.text)
		}
	}
}

func (d *decoder) timestamp(s string) {
	d.timed = true
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aNumber:
			d.seconds = int64(f.number)
		case 2<<3 | aNumber:
			d.nanos = int64(int32(f.number))
		}
	}
}

func (d *decoder) httpRequest(s string) {
	h := &d.http
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			h.ID = d.utf8(f.text)
		case 2<<3 | aText:
			h.Method = d.utf8(f.text)
		case 3<<3 | aText:
			d.plainHeader(f.text)
		case 4<<3 | aText:
			h.Path = d.utf8(f.text)
		case 5<<3 | aText:
			h.Host = d.utf8(f.text)
		case 6<<3 | aText:
			h.Scheme = d.utf8(f.text)
		case 7<<3 | aText:
			h.Query = d.utf8(f.text)
		case 8<<3 | aText:
			h.Fragment = d.utf8(f.text)
		case 9<<3 | aNumber:
			h.Size = int64(f.number)
		case 10<<3 | aText:
			h.Protocol = d.utf8(f.text)
		case 11<<3 | aText:
			h.Body = d.utf8(f.text)
		case 12<<3 | aText:
			h.RawBody = []byte(f.text)
		case 13<<3 | aText:
			d.headerMap(f.text)
		}
	}
}

// Texts are those of a request that JSON cannot hold where they are not UTF-8. Nil is not given.
type Texts struct{ Method, Path, Host []byte }

// DecodeJSON reads a CheckRequest in its JSON form, as it stands in Envoy's logs and in the explain API, on the same way
// as one that Envoy sent. The texts that are given count in place of those in it, byte for byte.
func DecodeJSON(raw []byte, texts Texts, opt Options) (*authz.Request, error) {
	var req authv3.CheckRequest
	if err := protojson.Unmarshal(raw, &req); err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a CheckRequest: %w", err)
	}
	message, err := proto.Marshal(&req)
	if err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "not a CheckRequest: %w", err)
	}
	// The message goes on with another piece of itself, of which the last of each text counts.
	var http []byte
	for _, f := range []struct {
		number protowire.Number
		text   []byte
	}{{2, texts.Method}, {4, texts.Path}, {5, texts.Host}} {
		if f.text != nil {
			http = protowire.AppendBytes(protowire.AppendTag(http, f.number, protowire.BytesType), f.text)
		}
	}
	if http != nil {
		for _, number := range []protowire.Number{2, 4, 1} { // http, in request, in attributes
			http = protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), http)
		}
	}
	return decode(string(message)+string(http), opt), nil
}
