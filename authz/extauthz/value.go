package extauthz

import (
	"encoding/json"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The names of our own metadata, which the policy's cannot take.
const (
	nameDecision = "decision_id"
	nameNotes    = "tollkeeper"
)

// appendMetadata writes a Struct, unless it would be empty: the policy's metadata, and ours.
func appendMetadata(b []byte, number protowire.Number, a *authz.Answer) []byte {
	if len(a.Metadata) == 0 && len(a.Notes) == 0 && a.ID == "" {
		return b
	}
	b, start := open(b, number)
	for k, v := range a.Metadata {
		if (k != nameDecision || a.ID == "") && (k != nameNotes || len(a.Notes) == 0) {
			b = appendMember(b, k, v, 1)
		}
	}
	if a.ID != "" {
		b = appendTextMember(b, nameDecision, a.ID)
	}
	if len(a.Notes) > 0 {
		var member, value, object int
		b, member = open(b, 1)
		b = appendText(b, 1, nameNotes)
		b, value = open(b, 2)
		b, object = open(b, 5)
		for _, n := range a.Notes {
			b = appendTextMember(b, n.Name, n.Value)
		}
		b = shut(shut(shut(b, object), value), member)
	}
	return shut(b, start)
}

// appendTextMember is appendMember for a text, which needs no interface to stand in.
func appendTextMember(b []byte, k, v string) []byte {
	var member, value int
	b, member = open(b, 1)
	b = appendText(b, 1, k)
	b, value = open(b, 2)
	return shut(shut(appendStringValue(b, v), value), member)
}

func appendMember(b []byte, k string, v any, level int) []byte {
	var member, value int
	b, member = open(b, 1)
	b = appendText(b, 1, k)
	b, value = open(b, 2)
	return shut(shut(appendValue(b, v, level), value), member)
}

// appendMembers writes what is in a Struct: its one field, a map.
func appendMembers(b []byte, in map[string]any, level int) []byte {
	for k, v := range in {
		b = appendMember(b, k, v, level)
	}
	return b
}

// maxLevels is how deep values may lie in one another. Envoy reads 100 messages in one another and refuses a response with
// more, be it a denial; a level is up to three of them. A policy may have copied what a caller has sent.
const maxLevels = 30

// appendValue writes what is in a Value: a JSON value. Numbers become doubles there, as protobuf has no others.
func appendValue(b []byte, v any, level int) []byte {
	switch v := v.(type) {
	case nil:
		return appendNumber(b, 1, 0)
	case float64:
		return appendDouble(b, v)
	case string:
		return appendStringValue(b, v)
	case bool:
		return appendNumber(b, 4, protowire.EncodeBool(v))
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return appendStringValue(b, v.String())
		}
		return appendDouble(b, f)
	case map[string]any:
		if level == maxLevels {
			return appendFlat(b, v)
		}
		b, start := open(b, 5)
		return shut(appendMembers(b, v, level+1), start)
	case []any:
		if level == maxLevels {
			return appendFlat(b, v)
		}
		b, start := open(b, 6)
		for _, item := range v {
			var at int
			b, at = open(b, 1)
			b = shut(appendValue(b, item, level+1), at)
		}
		return shut(b, start)
	}
	return appendOther(b, v)
}

func appendDouble(b []byte, v float64) []byte {
	b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(v))
}

// appendStringValue writes a text, even an empty one, for without it the value would be none at all.
func appendStringValue(b []byte, s string) []byte {
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	return protowire.AppendString(b, text(s))
}

// appendFlat writes a value that lies too deep as its JSON text.
func appendFlat(b []byte, v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return appendStringValue(b, fmt.Sprint(v))
	}
	return appendStringValue(b, string(raw))
}

// appendOther writes what is no JSON value, and comes from nowhere so far, as protobuf would.
func appendOther(b []byte, v any) []byte {
	if other, err := structpb.NewValue(v); err == nil {
		if out, err := (proto.MarshalOptions{}).MarshalAppend(b, other); err == nil {
			return out
		}
	}
	return appendStringValue(b, fmt.Sprint(v))
}
