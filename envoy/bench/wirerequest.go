package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Placeholders of a wireRequest. Each is as long on the wire as the values that replace it, and occurs once.
const (
	blankID        = "11111111111111111111"
	blankRequestID = "00000000-0000-4000-8000-000000000000"
	blankPort      = 40000
	blankKey       = math.MaxUint64 // the number of a key outside all sets
)

var blankTime = &timestamppb.Timestamp{Seconds: 1_000_000_000, Nanos: 1 << 28}

// wireRequest is an encoded CheckRequest. For the next check only a few of its bytes are replaced, because the client takes
// its CPU time from the server, which runs on the same processors.
type wireRequest struct {
	wire                                  []byte
	id, requestID, time, port, credential int // offsets in wire

	shape   shape // of the id in the path
	pathIDs []int // the offsets of that id: the path is a field and a header
}

// carrier is how a request carries a credential: in a header, after a prefix. blank stands for one of the same length.
type carrier struct{ header, prefix, blank string }

var apiKey = carrier{header: "x-api-key", blank: string(appendKey(nil, blankKey))}

// bearer carries one of the tokens.
func bearer(t *tokenSet) carrier {
	return carrier{"authorization", "Bearer ", strings.Repeat("!", len(t.text(0)))}
}

// newWireRequest makes the check of a request with a credential. Headers come as a list, or as a map.
func newWireRequest(t target, c carrier, headersAsMap bool) (*wireRequest, error) {
	blankPathID := strings.Repeat("~", t.shape.length)
	check := checkRequest(t.method, strings.Replace(t.path, idMark, blankPathID, 1), c.header, c.prefix+c.blank)
	if headersAsMap {
		mapHeaders(check)
	}
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(check)
	if err != nil {
		return nil, err
	}
	blank, err := proto.Marshal(blankTime)
	if err != nil {
		return nil, err
	}
	q := &wireRequest{wire: wire, shape: t.shape}
	if strings.Contains(t.path, idMark) {
		first, last := bytes.Index(wire, []byte(blankPathID)), bytes.LastIndex(wire, []byte(blankPathID))
		if n := bytes.Count(wire, []byte(blankPathID)); n != 2 {
			return nil, fmt.Errorf("the id of %s occurs %d times in the check, want twice", t.path, n)
		}
		q.pathIDs = []int{first, last}
	}
	for _, b := range []struct {
		at   *int
		what []byte
		skip int // length of the tag that makes it unique
	}{
		{&q.id, []byte(blankID), 0},
		{&q.requestID, []byte(blankRequestID), 0},
		{&q.time, blank, 0},
		{&q.port, protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), blankPort), 1},
		{&q.credential, []byte(c.blank), 0},
	} {
		if n := bytes.Count(wire, b.what); n != 1 {
			return nil, fmt.Errorf("%q occurs %d times in the check, want once", b.what, n)
		}
		*b.at = bytes.Index(wire, b.what) + b.skip
	}
	return q, nil
}

// renew makes it the check of another request: with a new stream and request id, at a time, with a credential, and with another
// id in the path if there is one.
func (q *wireRequest) renew(rnd *rand.Rand, now time.Time, credential []byte) {
	const least = 10_000_000_000_000_000_000 // so that the number has as many digits as the placeholder
	strconv.AppendUint(q.wire[q.id:q.id], least+rnd.Uint64N(math.MaxUint64-least), 10)

	var random [8]byte
	binary.LittleEndian.PutUint64(random[:], rnd.Uint64())
	hex.Encode(q.wire[q.requestID+len(blankRequestID)-12:], random[:6])
	hex.Encode(q.wire[q.requestID:], random[4:])

	// A varint takes as many bytes as its placeholder if it is about as large: so the port is from the range of clients'
	// ports, and small nanoseconds are raised.
	binary.PutUvarint(q.wire[q.port:], 32768+rnd.Uint64N(28232))
	nanos := uint64(now.Nanosecond())
	if nanos < 1<<28 {
		nanos += 1 << 28
	}
	binary.PutUvarint(q.wire[q.time+1:], uint64(now.Unix()))
	binary.PutUvarint(q.wire[q.time+7:], nanos)

	copy(q.wire[q.credential:], credential)

	if len(q.pathIDs) > 0 {
		text := q.wire[q.pathIDs[0]:][:q.shape.length]
		q.shape.fill(text, rnd)
		copy(q.wire[q.pathIDs[1]:], text)
	}
}

// checkRequest is the check that Envoy with our configuration sends for a request with 15 header fields.
func checkRequest(method, path, header, credential string) *authv3.CheckRequest {
	headers := [][2]string{
		{":authority", "api.example.com"}, {":path", path}, {":method", method}, {":scheme", "https"},
		{"user-agent", "example-sdk-python/4.2.1 (Linux x86_64) httpx/0.28.1"},
		{"accept", "application/json"},
		{"accept-encoding", "gzip, deflate, br"},
		{"accept-language", "en-GB,en;q=0.8"},
		{header, credential},
		{"x-client-version", "2026-05-01"},
		{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		{"x-forwarded-for", "198.51.100.23"},
		{"x-forwarded-proto", "https"},
		{"x-envoy-external-address", "198.51.100.23"},
		{"x-request-id", blankRequestID},
	}
	raw := make([]*corev3.HeaderValue, len(headers))
	for i, h := range headers {
		raw[i] = &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:      peer("198.51.100.23", blankPort),
		Destination: peer("192.0.2.10", 443),
		Request: &authv3.AttributeContext_Request{
			Time: blankTime,
			Http: &authv3.AttributeContext_HttpRequest{
				Id: blankID, Method: method, Path: path, Host: "api.example.com", Scheme: "https", Protocol: "HTTP/2",
				HeaderMap: &corev3.HeaderMap{Headers: raw},
			},
		},
		ContextExtensions:    map[string]string{"tollkeeper.gateway": "edge", "tollkeeper.protocol": "http"},
		MetadataContext:      &corev3.Metadata{},
		RouteMetadataContext: &corev3.Metadata{},
	}}
}

// mapHeaders turns the list of headers into a map, which Envoy sends unless encode_raw_headers is set.
func mapHeaders(check *authv3.CheckRequest) {
	h := check.GetAttributes().GetRequest().GetHttp()
	h.Headers = make(map[string]string, len(h.GetHeaderMap().GetHeaders()))
	for _, f := range h.GetHeaderMap().GetHeaders() {
		h.Headers[f.GetKey()] = string(f.GetRawValue())
	}
	h.HeaderMap = nil
}

func peer(address string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}},
	}}}
}
