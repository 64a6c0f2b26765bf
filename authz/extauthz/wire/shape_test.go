package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// shaper makes values of any shape. Each choice is a byte of the shape, or 0 after its end.
type shaper struct {
	shape []byte
	texts []string
}

func (s *shaper) next(n int) int {
	if len(s.shape) == 0 {
		return 0
	}
	b := s.shape[0]
	s.shape = s.shape[1:]
	return int(b) % n
}

func (s *shaper) text() string { return s.texts[s.next(len(s.texts))] }

// object returns an object whose names are UTF-8. If two names became the same, chance would decide which value stays.
func (s *shaper) object(level int) map[string]any {
	out := make(map[string]any)
	for range s.next(5) {
		out[valid(s.text())] = s.value(level)
	}
	return out
}

func (s *shaper) value(level int) any {
	kinds := 12
	if level > 6 {
		kinds = 10
	}
	switch s.next(kinds) {
	case 0:
		return nil
	case 1:
		return s.next(2) == 1
	case 2:
		return float64(s.next(256)) / 3
	case 3:
		return json.Number(s.text())
	case 4:
		return json.Number(fmt.Sprint(s.next(256)))
	case 5:
		return s.next(256)
	case 6:
		return []byte(s.text())
	case 7:
		return map[string]string{"not": "JSON"}
	case 10:
		return s.object(level + 1)
	case 11:
		list := make([]any, s.next(5))
		for i := range list {
			list[i] = s.value(level + 1)
		}
		return list
	}
	return s.text()
}

// shapeOf returns a shape, always the same for a seed.
func shapeOf(seed uint64) []byte {
	out := make([]byte, 300)
	_, _ = rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed))).Read(out)
	return out
}

// checkRequestOf makes a message that is nearly a CheckRequest. A fuzzer that changes bytes of a message seldom finds one whose
// lengths are right.
func checkRequestOf(shape []byte) []byte {
	s := shaper{shape: shape, texts: []string{"", "a", "X-B", "/p/%20?q=1", "application/json", "caf\u00e9", strings.Repeat("long ", 30)}}
	return s.message((&authv3.CheckRequest{}).ProtoReflect().Descriptor(), 0)
}

// message makes a message with some of the fields of its kind, in any order and number.
func (s *shaper) message(kind protoreflect.MessageDescriptor, level int) []byte {
	var out []byte
	for range 1 + s.next(6) {
		f := kind.Fields().Get(s.next(kind.Fields().Len()))
		switch odd := s.next(256); {
		case odd == 1:
			out = append(out, s.stray(f.Number())...)
		case odd == 2:
			out = append(out, s.stray(protowire.Number(s.next(256)))...)
		case f.Message() != nil && level < 24:
			out = append(out, in(s.message(f.Message(), level+1), f.Number())...)
		default:
			out = append(out, s.scalar(f)...)
		}
		if len(s.shape) == 0 {
			break
		}
	}
	return out
}

// scalar makes a field of the right wire type. A few texts are not UTF-8.
func (s *shaper) scalar(f protoreflect.FieldDescriptor) []byte {
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		if s.next(128) == 1 {
			return text(f.Number(), "\xff")
		}
		return text(f.Number(), s.text())
	case protoreflect.DoubleKind:
		return fixed64(f.Number(), uint64(s.next(256))<<s.next(64))
	}
	return number(f.Number(), uint64(s.next(256))<<s.next(64))
}

// stray makes a field of any wire type.
func (s *shaper) stray(n protowire.Number) []byte {
	switch s.next(6) {
	case 0:
		return number(n, uint64(s.next(256)))
	case 1:
		return protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), 1)
	case 2:
		return fixed64(n, 1)
	case 3:
		group := protowire.AppendTag(nil, n, protowire.StartGroupType)
		group = append(group, text(1, s.text())...)
		return protowire.AppendTag(group, n, protowire.EndGroupType)
	case 4:
		return protowire.AppendTag(nil, n, protowire.Type(s.next(8)))
	}
	return text(n, s.text())
}
