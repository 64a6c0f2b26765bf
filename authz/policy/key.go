package policy

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
)

// key is what a policy reads of an input, as bytes. Every part says what it is and how long it is, so that two inputs with
// one key are one input as far as the policy can tell.
type key struct {
	buf  []byte
	over bool // longer than maxKey, and so of no use
}

// maxKey is the longest key. Requests with a longer one, which a policy that reads bodies may see, are decided each time.
const maxKey = 4096

var errNoKey = errors.New("a value that is not JSON")

func (k *key) reset() { k.buf, k.over = k.buf[:0], false }

func (k *key) open() { k.buf = append(k.buf, '{') }
func (k *key) end()  { k.buf = append(k.buf, '}') }

// name says what the value before it is the value of.
func (k *key) name(s string) { k.bytes(':', s) }

func (k *key) text(s string) { k.bytes('"', s) }

func (k *key) bytes(what byte, s string) {
	if len(k.buf)+len(s) > maxKey {
		k.over = true
		return
	}
	k.buf = append(k.buf, what)
	k.buf = binary.AppendUvarint(k.buf, uint64(len(s)))
	k.buf = append(k.buf, s...)
}

func (k *key) integer(n int64) {
	k.buf = append(k.buf, '#')
	k.buf = binary.AppendVarint(k.buf, n)
}

func (k *key) boolean(b bool) {
	if b {
		k.buf = append(k.buf, 't')
	} else {
		k.buf = append(k.buf, 'f')
	}
}

func (k *key) texts(list []string) {
	k.count('[', len(list))
	for _, s := range list {
		k.text(s)
	}
}

func (k *key) count(what byte, n int) {
	k.buf = append(k.buf, what)
	k.buf = binary.AppendUvarint(k.buf, uint64(n))
}

// any writes a JSON value, as valueOf makes one.
func (k *key) any(r *inputRefs, v any) error {
	switch v := v.(type) {
	case nil:
		k.buf = append(k.buf, '0')
	case bool:
		k.boolean(v)
	case string:
		k.text(v)
	case json.Number:
		k.bytes('n', string(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errNoKey
		}
		k.buf = append(k.buf, 'd')
		k.buf = binary.LittleEndian.AppendUint64(k.buf, math.Float64bits(v))
	case int64:
		k.integer(v)
	case int:
		k.integer(int64(v))
	case []string:
		k.texts(v)
	case []any:
		k.count('(', len(v))
		for i := range v {
			if err := k.any(everything(), v[i]); err != nil {
				return err
			}
		}
	case map[string]any:
		return k.object(r, v)
	default:
		return errNoKey
	}
	return nil
}

func (k *key) object(r *inputRefs, m map[string]any) error {
	k.open()
	for name, v := range inOrder(m, k) {
		if sub := r.field(name); sub != nil {
			if err := k.any(sub, v); err != nil {
				return err
			}
			k.name(name)
		}
	}
	k.end()
	return nil
}
