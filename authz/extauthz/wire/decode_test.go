package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FuzzDecode compares the decoder with protobuf. A message that protobuf refuses is a fault, and every other one reads the
// same.
func FuzzDecode(f *testing.F) {
	for _, raw := range checkRequests(f) {
		f.Add(raw)
	}
	for _, raw := range oddMessages() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sameRequest(t, raw)
		sameRequest(t, checkRequestOf(raw))
	})
}

func TestDecode_OddMessages(t *testing.T) {
	for name, raw := range oddMessages() {
		t.Run(name, func(t *testing.T) { sameRequest(t, raw) })
	}
}

// TestDecode_AnyMessage reads messages of many shapes, in every test run and not only when fuzzing.
func TestDecode_AnyMessage(t *testing.T) {
	for seed := range uint64(5000) {
		sameRequest(t, checkRequestOf(shapeOf(seed)))
	}
}

// sameRequest reads a message with the decoder and with protobuf.
func sameRequest(t *testing.T, raw []byte) {
	t.Helper()
	got := Decode(string(raw))
	var req authv3.CheckRequest
	if err := proto.Unmarshal(raw, &req); err != nil {
		if !reflect.DeepEqual(got, &authz.Request{Fault: FaultMalformed}) {
			t.Fatalf("protobuf refuses it: %v\ngot %s", err, show(got))
		}
		return
	}
	want := oracleDecode(&req)
	normalise(got)
	normalise(want)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %s\nwant %s", show(got), show(want))
	}
}

// normalise removes differences that mean nothing: between nil and empty, and in the order of headers from a map.
func normalise(r *authz.Request) {
	r.ContextExtensions = nilIfEmpty(r.ContextExtensions)
	for _, p := range []*authz.Peer{r.Source, r.Destination} {
		if p != nil {
			p.Labels = nilIfEmpty(p.Labels)
		}
	}
	h := r.HTTP
	if h == nil {
		return
	}
	if len(h.RawBody) == 0 {
		h.RawBody = nil
	}
	if len(h.Headers) == 0 {
		h.Headers = nil
	}
	if !h.RawHeaders {
		slices.SortFunc(h.Headers, func(a, b authz.Header) int {
			return strings.Compare(a.Name+"\x00"+a.Value, b.Name+"\x00"+b.Value)
		})
	}
}

func nilIfEmpty[V any](m map[string]V) map[string]V {
	if len(m) == 0 {
		return nil
	}
	return m
}

func show(r *authz.Request) string {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Sprintf("%+v", r)
	}
	return string(raw)
}

// TestDecode_NestingIsLimitedAsInProtobuf nests messages up to protobuf's limit and beyond, in every way in which they can be.
func TestDecode_NestingIsLimitedAsInProtobuf(t *testing.T) {
	const near = 20
	var starts, ends []byte
	for range protowire.DefaultRecursionLimit - near {
		starts, ends = append(starts, 0x0b), append(ends, 0x0c)
	}
	value, empty := []byte{}, in(in(nil, 1), 5) // an empty value, and an object with an empty member
	for range (protowire.DefaultRecursionLimit - near) / 2 {
		value, empty = in(in(value, 1), 6), in(in(empty, 1), 6) // lists of one value
	}
	for range near + 5 {
		groups := append(slices.Clip(starts), ends...)
		sameRequest(t, groups)
		sameRequest(t, in(in(in(groups, 2), 4), 1))
		starts, ends = append(starts, 0x0b), append(ends, 0x0c)

		for _, v := range [][]byte{value, in(messageEntry(1, "k", value), 5), empty, in(messageEntry(1, "k", empty), 5)} {
			sameRequest(t, in(in(messageEntry(1, "f", messageEntry(1, "k", v)), 11), 1))
		}
		value, empty = in(in(value, 1), 6), in(in(empty, 1), 6)
	}
}

func TestDecode_BothFormsOfHeaders(t *testing.T) {
	httpOf := func(h *authv3.AttributeContext_HttpRequest) *authz.HTTP {
		return Decode(string(marshal(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}}))).HTTP
	}
	raw := httpOf(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "X-Dup", RawValue: []byte("one")}, {Key: "x-dup", RawValue: []byte("t\xffo")},
	}}})
	if !raw.RawHeaders || !slices.Equal(raw.Headers.Values("x-dup"), []string{"one", "t\xffo"}) {
		t.Errorf("raw: %v", raw.Headers)
	}
	plain := httpOf(&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-dup": "one,two"}})
	if plain.RawHeaders || plain.Headers.Get("x-dup") != "one,two" {
		t.Errorf("plain: %v", plain.Headers)
	}
}

// TestDecode_RememberedTextsDoNotKeepTheMessage: the texts that identify a check share no memory with the message, whose
// body may have megabytes.
func TestDecode_RememberedTextsDoNotKeepTheMessage(t *testing.T) {
	message := string(marshal(t, typicalRequest()))
	r := Decode(message)
	for _, s := range []string{r.HTTP.ID, r.Source.Address.Socket.Address} {
		if isPartOf(s, message) {
			t.Errorf("%q is part of the message", s)
		}
	}
	if !isPartOf(r.HTTP.Path, message) {
		t.Error("the path is not part of the message: it was copied without need")
	}
}

// isPartOf reports whether a text lies in the memory of another.
func isPartOf(s, whole string) bool {
	at, start := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(whole)))
	return at >= start && at < start+uintptr(len(whole))
}
