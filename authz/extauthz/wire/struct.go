package wire

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// The names of our own metadata. A policy cannot set them.
const (
	nameDecision = "decision_id"
	nameNotes    = "tollkeeper"
)

// appendMetadata writes the policy's metadata and ours as a Struct, unless there is none.
func appendMetadata(b []byte, a *authz.Answer) []byte {
	named := a.NoteID && a.ID != ""
	if len(a.Metadata) == 0 && len(a.Notes) == 0 && !named {
		return b
	}
	b, start := begin(b, checkResponseMetadata)
	for k, v := range a.Metadata {
		if (k != nameDecision || !named) && (k != nameNotes || len(a.Notes) == 0) {
			b = appendMember(b, k, v, 1)
		}
	}
	if named {
		b = appendTextMember(b, nameDecision, a.ID)
	}
	if len(a.Notes) > 0 {
		var member, value, object int
		b, member = begin(b, structFields)
		b = appendText(b, entryKey, nameNotes)
		b, value = begin(b, entryValue)
		b, object = begin(b, valueStruct)
		for _, n := range a.Notes {
			b = appendTextMember(b, n.Name, n.Value)
		}
		b = end(end(end(b, object), value), member)
	}
	return end(b, start)
}

// appendTextMember is appendMember for a text, without the allocation of an interface.
func appendTextMember(b []byte, k, v string) []byte {
	var member, value int
	b, member = begin(b, structFields)
	b = appendText(b, entryKey, k)
	b, value = begin(b, entryValue)
	return end(end(appendString(b, valueString, v), value), member)
}

func appendMember(b []byte, k string, v any, level int) []byte {
	var member, value int
	b, member = begin(b, structFields)
	b = appendText(b, entryKey, k)
	b, value = begin(b, entryValue)
	return end(end(appendValue(b, v, level), value), member)
}

// maxLevels is how deep values may be nested. Envoy reads at most 100 nested messages and refuses a response with more,
// even a denial. One level is up to three messages. The value may come from a caller, if a policy copied it.
const maxLevels = 30

// appendValue writes the content of a Value, which is a JSON value. Numbers become doubles: protobuf has no others.
func appendValue(b []byte, v any, level int) []byte {
	switch v := v.(type) {
	case nil:
		return appendNumber(b, valueNull, 0)
	case float64:
		return appendDouble(b, valueNumber, v)
	case string:
		return appendString(b, valueString, v)
	case bool:
		return appendNumber(b, valueBool, protowire.EncodeBool(v))
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return appendString(b, valueString, v.String())
		}
		return appendDouble(b, valueNumber, f)
	case map[string]any:
		if level == maxLevels {
			return appendAsText(b, v)
		}
		b, start := begin(b, valueStruct)
		for k, member := range v {
			b = appendMember(b, k, member, level+1)
		}
		return end(b, start)
	case []any:
		if level == maxLevels {
			return appendAsText(b, v)
		}
		b, start := begin(b, valueList)
		for _, item := range v {
			var at int
			b, at = begin(b, listValues)
			b = end(appendValue(b, item, level+1), at)
		}
		return end(b, start)
	}
	return appendOther(b, v)
}

// appendAsText writes a value that is nested too deep as its JSON text.
func appendAsText(b []byte, v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return appendString(b, valueString, fmt.Sprint(v))
	}
	return appendString(b, valueString, string(raw))
}

// appendOther writes a value that is not a JSON value, as protobuf would. No policy produces one so far.
func appendOther(b []byte, v any) []byte {
	if other, err := structpb.NewValue(v); err == nil {
		if out, err := (proto.MarshalOptions{}).MarshalAppend(b, other); err == nil {
			return out
		}
	}
	return appendString(b, valueString, fmt.Sprint(v))
}
