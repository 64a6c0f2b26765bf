package main

import (
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// TestParts_GivenByNumber takes an answer apart, sends the parts through a file, and asks for them as Envoy does.
func TestParts_GivenByNumber(t *testing.T) {
	whole := allowAsTollkeeper()
	notes, err := structpb.NewStruct(map[string]any{"decision_id": "1", "tollkeeper": map[string]any{"route": "read-order", "plan": plan}})
	if err != nil {
		t.Fatal(err)
	}
	whole.DynamicMetadata = notes
	parts, file := partsOf(whole), filepath.Join(t.TempDir(), "answers")
	if err := writeAnswers(file, parts); err != nil {
		t.Fatal(err)
	}
	given, err := readAnswers(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for i, p := range parts {
		got, err := given.Check(t.Context(), checkRequest("GET", numberedPath(i), apiKey.header, "k"))
		if err != nil || !proto.Equal(got, p.answer) {
			t.Errorf("%s: %v, %v", p.label, got, err)
		}
		if n := proto.Size(p.answer); n > proto.Size(whole) {
			t.Errorf("%s has %d bytes, and everything %d", p.label, n, proto.Size(whole))
		}
		sum += len(p.answer.GetOkResponse().GetHeaders())
	}
	if want := 2*len(whole.GetOkResponse().GetHeaders()) + 1; sum != want {
		t.Errorf("%d headers in all parts, want %d", sum, want)
	}
	for _, path := range []string{"/v1/orders", numberedPath(len(parts)), numberedPath(-1)} {
		if got, err := given.Check(t.Context(), checkRequest("GET", path, apiKey.header, "k")); err == nil {
			t.Errorf("%s: %v", path, got)
		}
	}
}
