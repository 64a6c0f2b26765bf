package keyrecord

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
)

// The kinds of JSON values, as encoding/json decodes them into any.
const (
	kindNull = iota
	kindFalse
	kindTrue
	kindNumber // float64
	kindText
	kindList
	kindObject
)

// maxDepth bounds how deep values are nested. encoding/json refuses deeper ones.
const maxDepth = 10_000

func (w *writer) object(m map[string]any) {
	w.number(uint64(len(m)))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		w.text(name)
		w.value(m[name])
	}
}

// value writes a value. It panics if the value is of a type that encoding/json does not make: the caller has not kept the
// contract of AppendKey.
func (w *writer) value(v any) {
	switch v := v.(type) {
	case nil:
		w.dst = append(w.dst, kindNull)
	case bool:
		w.dst = append(w.dst, byte(flagIf(1, v)+kindFalse))
	case float64:
		w.dst = binary.LittleEndian.AppendUint64(append(w.dst, kindNumber), math.Float64bits(v))
	case string:
		w.dst = append(w.dst, kindText)
		w.text(v)
	case []any:
		w.dst = append(w.dst, kindList)
		w.number(uint64(len(v)))
		for _, item := range v {
			w.value(item)
		}
	case map[string]any:
		w.dst = append(w.dst, kindObject)
		w.object(v)
	default:
		panic("keyrecord: a value that is not JSON")
	}
}

func (r *reader) object(depth int) map[string]any {
	n := r.count()
	m := make(map[string]any, n)
	for range n {
		name := r.text()
		m[name] = r.value(depth + 1)
	}
	return m
}

func (r *reader) value(depth int) any {
	if depth > maxDepth {
		r.fail()
	}
	switch r.byte() {
	case kindNull:
	case kindFalse:
		return false
	case kindTrue:
		return true
	case kindNumber:
		return r.float()
	case kindText:
		return r.text()
	case kindList:
		list := make([]any, r.count())
		for i := range list {
			list[i] = r.value(depth + 1)
		}
		return list
	case kindObject:
		return r.object(depth)
	default:
		r.fail()
	}
	return nil
}

func (r *reader) float() float64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	bits := binary.LittleEndian.Uint64([]byte(r.rest[:8]))
	r.rest = r.rest[8:]
	return math.Float64frombits(bits)
}
