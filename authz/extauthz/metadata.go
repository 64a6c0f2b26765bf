package extauthz

import (
	"encoding/base64"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// metadataDepth is how deep messages may lie in metadata. Protobuf bounds it for all of a CheckRequest, which has three
// to here.
const metadataDepth = protowire.DefaultRecursionLimit - 3

// metadata reads what other filters or the route left for us over what came before.
//
// Texts in it are copies: it may say who the caller is, and that is remembered for longer than the message may be kept.
func (r *reader) metadata(m *authz.Metadata, s string) *authz.Metadata {
	if m == nil {
		m = &authz.Metadata{Filter: make(map[string]any)}
	}
	for s != "" {
		var f field
		switch f, s = r.cut(s); f.tag {
		case 1<<3 | aText:
			filter := make(map[string]any)
			name := r.member(f.text, func(s string) { r.object(filter, s, metadataDepth-2) })
			m.Filter[name] = filter
		case 2<<3 | aText:
			var a anypb.Any
			name := r.member(f.text, func(s string) { r.any(&a, s) })
			if m.Typed == nil {
				m.Typed = make(map[string]any)
			}
			m.Typed[name] = typed(&a)
		}
	}
	return m
}

// member reads an entry of a map of messages. A map's entry counts as a message, and so does its value.
func (r *reader) member(s string, value func(s string)) (key string) {
	for s != "" {
		var f field
		switch f, s = r.cut(s); f.tag {
		case 1<<3 | aText:
			key = r.utf8(f.text)
		case 2<<3 | aText:
			value(f.text)
		}
	}
	return strings.Clone(key)
}

// object reads a Struct over what is in a map. As many messages as depth may lie in it.
func (r *reader) object(into map[string]any, s string, depth int) {
	if depth < 0 {
		r.bad = true
		return
	}
	for s != "" {
		var f field
		if f, s = r.cut(s); f.tag != 1<<3|aText {
			continue
		}
		if depth < 1 { // even without a value
			r.bad = true
			return
		}
		var v any
		name := r.member(f.text, func(s string) { v = r.value(v, s, depth-2) })
		into[name] = v
	}
}

// value reads a Value over what it was before: objects and lists of the same grow, and everything else is replaced.
func (r *reader) value(v any, s string, depth int) any {
	if depth < 0 {
		r.bad = true
		return nil
	}
	for s != "" {
		var f field
		switch f, s = r.cut(s); f.tag {
		case 1<<3 | aNumber:
			v = nil
		case 2<<3 | aDouble:
			v = double(math.Float64frombits(f.number))
		case 3<<3 | aText:
			v = strings.Clone(r.utf8(f.text))
		case 4<<3 | aNumber:
			v = f.number != 0
		case 5<<3 | aText:
			object, ok := v.(map[string]any)
			if !ok {
				object = make(map[string]any)
			}
			r.object(object, f.text, depth-1)
			v = object
		case 6<<3 | aText:
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
		r.bad = true
		return nil
	}
	for s != "" {
		var f field
		if f, s = r.cut(s); f.tag == 1<<3|aText {
			out = append(out, r.value(nil, f.text, depth-1))
		}
	}
	return out
}

// double is a number as JSON has it, which knows only finite ones.
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

func (r *reader) any(a *anypb.Any, s string) {
	for s != "" {
		var f field
		switch f, s = r.cut(s); f.tag {
		case 1<<3 | aText:
			a.TypeUrl = strings.Clone(r.utf8(f.text))
		case 2<<3 | aText:
			a.Value = []byte(f.text)
		}
	}
}

// typed is a message as OPA's Envoy plugin shows it: packed, whether or not its type is known.
func typed(a *anypb.Any) any {
	out := make(map[string]any, 2)
	if a.TypeUrl != "" {
		out["typeUrl"] = a.TypeUrl
	}
	if len(a.Value) > 0 {
		out["value"] = base64.StdEncoding.EncodeToString(a.Value)
	}
	return out
}
