package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// object collects the fields of an object as far as somebody reads them. Fields that are not set are left out, so that
// a policy finds them undefined.
type object struct {
	reads  *reads
	fields [][2]*ast.Term
}

// newObject returns an object that takes about size fields.
func newObject(r *reads, size int) object {
	return object{reads: r, fields: make([][2]*ast.Term, 0, r.size(size))}
}

// put adds a field if it is read. Values that cost something to make are better made after asking reads.
func (o *object) put(name string, v ast.Value) {
	if o.reads.field(name) == nil {
		return
	}
	pair := &[2]ast.Term{{Value: ast.String(name)}, {Value: v}}
	o.fields = append(o.fields, [2]*ast.Term{&pair[0], &pair[1]})
}

// text adds s unless it is empty.
func (o *object) text(name, s string) {
	if s != "" && o.reads.field(name) != nil {
		o.put(name, ast.String(s))
	}
}

// number adds n unless it is 0.
func (o *object) number(name string, n int64) {
	if n != 0 && o.reads.field(name) != nil {
		o.put(name, integer(n))
	}
}

// time adds t in the form of RFC 3339 unless it is zero.
func (o *object) time(name string, t time.Time) {
	if !t.IsZero() && o.reads.field(name) != nil {
		o.put(name, ast.String(t.UTC().Format(time.RFC3339Nano)))
	}
}

// list adds a list of strings.
func (o *object) list(name string, list []string) {
	if o.reads.field(name) != nil {
		o.put(name, textList(list))
	}
}

// texts adds a map of strings unless it is empty.
func (o *object) texts(name string, m map[string]string) {
	r := o.reads.field(name)
	if r == nil || len(m) == 0 {
		return
	}
	sub := newObject(r, len(m))
	for k, v := range m {
		sub.put(k, ast.String(v))
	}
	o.put(name, sub.value())
}

// json adds a map of JSON values unless it is empty.
func (o *object) json(name string, m map[string]any) error {
	r := o.reads.field(name)
	if r == nil || len(m) == 0 {
		return nil
	}
	v, err := objectOf(r, m)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	o.put(name, v)
	return nil
}

func (o *object) value() ast.Value { return ast.NewObject(o.fields...) }

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
func valueOf(r *reads, v any) (ast.Value, error) {
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

func objectOf(r *reads, m map[string]any) (ast.Value, error) {
	o := newObject(r, len(m))
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
	return o.value(), nil
}
