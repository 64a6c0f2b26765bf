package wire

import (
	"encoding/base64"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// metadataDepth is how deep messages in metadata may be nested. Protobuf limits the depth of the whole CheckRequest, and
// metadata lies three messages deep in it.
const metadataDepth = protowire.DefaultRecursionLimit - 3

// metadata merges metadata of other filters or of the route into earlier metadata. It copies the texts: metadata may hold the
// claims of a token, which are kept for longer than the message.
func (r *reader) metadata(m *authz.Metadata, s string) *authz.Metadata {
	if m == nil {
		m = &authz.Metadata{Filter: make(map[string]any)}
	}
	for s != "" {
		var f field
		switch f, s = r.next(s); f.tag {
		case metadataFilter:
			filter := make(map[string]any)
			name := r.member(f.text, func(s string) { r.object(filter, s, metadataDepth-2) })
			m.Filter[name] = filter
		case metadataTyped:
			var p packed
			name := r.member(f.text, func(s string) { r.packed(&p, s) })
			if m.Typed == nil {
				m.Typed = make(map[string]any)
			}
			m.Typed[name] = p.shown()
		}
	}
	return m
}

// member reads an entry of a map of messages: its key, and its value with the given function. The entry and its value count as
// two levels of depth.
func (r *reader) member(s string, value func(s string)) (key string) {
	for s != "" {
		var f field
		switch f, s = r.next(s); f.tag {
		case entryKey:
			key = r.utf8(f.text)
		case entryValue:
			value(f.text)
		}
	}
	return strings.Clone(key)
}

// object merges a Struct into a map. depth is how deep messages in it may be nested.
func (r *reader) object(into map[string]any, s string, depth int) {
	if depth < 0 {
		r.malformed = true
		return
	}
	for s != "" {
		var f field
		if f, s = r.next(s); f.tag != structFields {
			continue
		}
		if depth < 1 { // an entry is too deep even if it has no value
			r.malformed = true
			return
		}
		var v any
		name := r.member(f.text, func(s string) { v = r.value(v, s, depth-2) })
		into[name] = v
	}
}

// value merges a Value into an earlier one. An object or a list is extended by another of the same kind; all others are
// replaced.
func (r *reader) value(v any, s string, depth int) any {
	if depth < 0 {
		r.malformed = true
		return nil
	}
	for s != "" {
		var f field
		switch f, s = r.next(s); f.tag {
		case valueNull:
			v = nil
		case valueNumber:
			v = double(math.Float64frombits(f.number))
		case valueString:
			v = strings.Clone(r.utf8(f.text))
		case valueBool:
			v = f.number != 0
		case valueStruct:
			object, ok := v.(map[string]any)
			if !ok {
				object = make(map[string]any)
			}
			r.object(object, f.text, depth-1)
			v = object
		case valueList:
			list, ok := v.([]any)
			if !ok {
				list = []any{}
			}
			v = r.list(list, f.text, depth-1)
		}
	}
	return v
}

func (r *reader) list(out []any, s string, depth int) []any {
	if depth < 0 {
		r.malformed = true
		return nil
	}
	for s != "" {
		var f field
		if f, s = r.next(s); f.tag == listValues {
			out = append(out, r.value(nil, f.text, depth-1))
		}
	}
	return out
}

// double is a number in JSON. JSON knows only finite numbers; protobuf writes the others as these texts.
func double(v float64) any {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	return v
}

// packed is a google.protobuf.Any.
type packed struct {
	typeURL string
	value   []byte
}

func (r *reader) packed(p *packed, s string) {
	for s != "" {
		var f field
		switch f, s = r.next(s); f.tag {
		case anyTypeURL:
			p.typeURL = strings.Clone(r.utf8(f.text))
		case anyValue:
			p.value = []byte(f.text)
		}
	}
}

// shown returns the message as OPA's Envoy plugin shows it: not unpacked.
func (p *packed) shown() any {
	out := make(map[string]any, 2)
	if p.typeURL != "" {
		out["typeUrl"] = p.typeURL
	}
	if len(p.value) > 0 {
		out["value"] = base64.StdEncoding.EncodeToString(p.value)
	}
	return out
}
