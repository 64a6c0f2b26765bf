package extauthz

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// FuzzDecode holds the decoder to protobuf: what protobuf refuses is a fault, and everything else reads the same.
func FuzzDecode(f *testing.F) {
	for _, raw := range checkRequests(f) {
		f.Add(raw)
	}
	for _, raw := range protobufsRules() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sameRequest(t, raw)
		sameRequest(t, checkRequestOf(raw))
	})
}

func TestProtobufsRules(t *testing.T) {
	for name, raw := range protobufsRules() {
		t.Run(name, func(t *testing.T) { sameRequest(t, raw) })
	}
}

// TestAnyCheckRequest has messages of all shapes, for those who do not fuzz.
func TestAnyCheckRequest(t *testing.T) {
	for seed := range uint64(5000) {
		sameRequest(t, checkRequestOf(recipe(seed)))
	}
}

// sameRequest reads a message both ways.
func sameRequest(t *testing.T, raw []byte) {
	t.Helper()
	got := decode(string(raw), Options{})
	var req authv3.CheckRequest
	if err := proto.Unmarshal(raw, &req); err != nil {
		if !reflect.DeepEqual(got, &authz.Request{Fault: "the message is not a CheckRequest"}) {
			t.Fatalf("protobuf refuses it: %v\ngot %s", err, show(got))
		}
		return
	}
	want := oracleDecode(&req, Options{})
	normalise(got)
	normalise(want)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %s\nwant %s", show(got), show(want))
	}
}

// normalise removes differences that nobody can see: between nothing and nothing at all, and the order of a map's headers.
func normalise(r *authz.Request) {
	r.ContextExtensions = some(r.ContextExtensions)
	for _, p := range []*authz.Peer{r.Source, r.Destination} {
		if p != nil {
			p.Labels = some(p.Labels)
		}
	}
	h := r.HTTP
	if h == nil {
		return
	}
	h.Params = some(h.Params)
	if len(h.RawBody) == 0 {
		h.RawBody = nil
	}
	if len(h.Segments) == 0 {
		h.Segments = nil
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

func some[V any](m map[string]V) map[string]V {
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

// TestNestingIsBounded goes to protobuf's limit from below, in the ways in which a message can be deep.
func TestNestingIsBounded(t *testing.T) {
	const near = 20
	var starts, ends []byte
	for range protowire.DefaultRecursionLimit - near {
		starts, ends = append(starts, 0x0b), append(ends, 0x0c)
	}
	value, empty := []byte{}, in(in(nil, 1), 5) // nothing, and an object with a member that is nothing
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
