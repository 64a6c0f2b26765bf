package policy

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// object collects the fields of an object as far as somebody reads them. Fields that are not set are left out, so that
// a policy finds them undefined.
//
// What it collects becomes a value for the evaluator or, where there is a key, is written to that: the same code makes
// both, so that two requests with one key have one input.
type object struct {
	refs   *inputRefs
	fields [][2]*ast.Term
	key    *key
}

// rootObject returns the outermost object, which takes about size fields.
func rootObject(r *inputRefs, size int, k *key) object {
	o := object{refs: r, key: k}
	if k == nil {
		o.fields = make([][2]*ast.Term, 0, r.size(size))
	} else {
		k.open()
	}
	return o
}

// child begins an object that is to become the field of that name by putChild, and returns false if nobody reads it.
func (o *object) child(name string, size int) (object, bool) {
	r := o.refs.field(name)
	if r == nil {
		return object{}, false
	}
	return rootObject(r, size, o.key), true
}

// putChild adds what a child has collected.
func (o *object) putChild(name string, c object) {
	if o.key != nil {
		o.key.end()
		o.key.name(name)
		return
	}
	o.put(name, ast.NewObject(c.fields...))
}

// put adds a value. The field is read, and there is no key.
func (o *object) put(name string, v ast.Value) {
	pair := &[2]ast.Term{{Value: ast.String(name)}, {Value: v}}
	o.fields = append(o.fields, [2]*ast.Term{&pair[0], &pair[1]})
}

// string adds s, also when it is empty.
func (o *object) string(name, s string) {
	switch {
	case o.refs.field(name) == nil:
	case o.key != nil:
		o.key.text(s)
		o.key.name(name)
	default:
		o.put(name, ast.String(s))
	}
}

// text adds s unless it is empty.
func (o *object) text(name, s string) {
	if s != "" {
		o.string(name, s)
	}
}

// integer adds n, also when it is 0.
func (o *object) integer(name string, n int64) {
	switch {
	case o.refs.field(name) == nil:
	case o.key != nil:
		o.key.integer(n)
		o.key.name(name)
	default:
		o.put(name, integer(n))
	}
}

// number adds n unless it is 0.
func (o *object) number(name string, n int64) {
	if n != 0 {
		o.integer(name, n)
	}
}

func (o *object) boolean(name string, b bool) {
	switch {
	case o.refs.field(name) == nil:
	case o.key != nil:
		o.key.boolean(b)
		o.key.name(name)
	default:
		o.put(name, ast.Boolean(b))
	}
}

// time adds t in the form of RFC 3339 unless it is zero.
func (o *object) time(name string, t time.Time) {
	if !t.IsZero() && o.refs.field(name) != nil {
		o.string(name, t.UTC().Format(time.RFC3339Nano))
	}
}

// list adds a list of strings.
func (o *object) list(name string, list []string) {
	switch {
	case o.refs.field(name) == nil:
	case o.key != nil:
		o.key.texts(list)
		o.key.name(name)
	default:
		o.put(name, textList(list))
	}
}

// texts adds a map of strings unless it is empty.
func (o *object) texts(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	c, ok := o.child(name, len(m))
	if !ok {
		return
	}
	if c.refs.open() {
		for k, v := range inOrder(m, o.key) {
			c.string(k, v)
		}
	} else { // a policy that names its fields reads few of them
		for _, k := range c.refs.order {
			if v, there := m[k]; there {
				c.string(k, v)
			}
		}
	}
	o.putChild(name, c)
}

// json adds a map of JSON values unless it is empty.
func (o *object) json(name string, m map[string]any) error {
	if len(m) == 0 {
		return nil
	}
	if err := o.any(name, m); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// any adds a JSON value, objects as far as they are read. Other types and numbers that JSON does not know are an error.
func (o *object) any(name string, v any) error {
	r := o.refs.field(name)
	if r == nil {
		return nil
	}
	if o.key != nil {
		if err := o.key.any(r, v); err != nil {
			return err
		}
		o.key.name(name)
		return nil
	}
	value, err := valueOf(r, v)
	if err != nil {
		return err
	}
	o.put(name, value)
	return nil
}

// inOrder goes through a map, for a key in the order of its names: an object has none, and a key must not either.
func inOrder[V any](m map[string]V, k *key) iter.Seq2[string, V] {
	if k == nil || len(m) < 2 {
		return maps.All(m)
	}
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}

func integer(n int64) ast.Value { return ast.Number(strconv.FormatInt(n, 10)) }

func textList(list []string) ast.Value {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.NewArray(terms...)
}

// valueOf is a JSON value as OPA has it, objects as far as they are read. Other types and numbers that JSON does not
// know are an error.
func valueOf(r *inputRefs, v any) (ast.Value, error) {
	switch v := v.(type) {
	case nil:
		return ast.NullValue, nil
	case bool:
		return ast.Boolean(v), nil
	case string:
		return ast.String(v), nil
	case json.Number:
		return ast.Number(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("the number %v is not JSON", v)
		}
		return ast.FloatNumberTerm(v).Value, nil
	case int64:
		return integer(v), nil
	case int:
		return integer(int64(v)), nil
	case []string:
		return textList(v), nil
	case []any:
		return arrayOf(v)
	case map[string]any:
		return objectOf(r, v)
	}
	return nil, fmt.Errorf("a %T is not JSON", v)
}

func arrayOf(list []any) (ast.Value, error) {
	terms := make([]*ast.Term, len(list))
	for i := range list {
		v, err := valueOf(everything(), list[i])
		if err != nil {
			return nil, err
		}
		terms[i] = &ast.Term{Value: v}
	}
	return ast.NewArray(terms...), nil
}

func objectOf(r *inputRefs, m map[string]any) (ast.Value, error) {
	o := rootObject(r, len(m), nil)
	for k := range m {
		sub := r.field(k)
		if sub == nil {
			continue
		}
		v, err := valueOf(sub, m[k])
		if err != nil {
			return nil, err
		}
		o.put(k, v)
	}
	return ast.NewObject(o.fields...), nil
}
