package input

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// sink receives the document, depth first. Every method except object and array adds one value to the innermost open object or
// array. In an array the name is empty.
type sink interface {
	object(field string, size int) // begins an object of about size fields, which will be added to its parent
	array(field string, size int)  // begins an array of size values, which will be added to its parent
	end(field string)              // ends the innermost object or array, and adds it to its parent
	null(field string)
	text(field, s string)
	base64(field, s string) // the bytes of s in base64
	integer(field string, n int64)
	float(field string, n float64) // n is finite
	number(field string, n json.Number)
	boolean(field string, b bool)
	texts(field string, list []string)
	sorted() bool // whether the fields of an object must arrive in the order of their names
}

// walk passes the fields that refs names to the sink.
func walk(out sink, refs *Refs, r *authz.Request, f *authz.Facts) error {
	o := object{refs, out}
	if err := o.putRequest(r); err != nil {
		return err
	}
	return o.putFacts(f)
}

// object passes fields of one object to a sink, if rules refer to them. It leaves out fields that are not set, so that they are
// undefined for rules.
type object struct {
	refs *Refs
	out  sink
}

// begin begins an object in the field of that name, of about size fields. It returns false if no rule refers to it;
// otherwise the caller ends it with end.
func (o object) begin(name string, size int) (object, bool) {
	refs := o.refs.field(name)
	if refs == nil {
		return object{}, false
	}
	o.out.object(name, refs.size(size))
	return object{refs, o.out}, true
}

func (o object) end(name string) { o.out.end(name) }

// wants reports whether a rule refers to a field.
func (o object) wants(name string) bool { return o.refs.field(name) != nil }

// text adds s unless it is empty.
func (o object) text(name, s string) {
	if s != "" && o.wants(name) {
		o.out.text(name, s)
	}
}

// anyText adds s, even if it is empty.
func (o object) anyText(name, s string) {
	if o.wants(name) {
		o.out.text(name, s)
	}
}

// integer adds n unless it is 0.
func (o object) integer(name string, n int64) {
	if n != 0 && o.wants(name) {
		o.out.integer(name, n)
	}
}

// anyInteger adds n, even if it is 0.
func (o object) anyInteger(name string, n int64) {
	if o.wants(name) {
		o.out.integer(name, n)
	}
}

func (o object) boolean(name string, b bool) {
	if o.wants(name) {
		o.out.boolean(name, b)
	}
}

// time adds t in the form of RFC 3339 unless it is zero.
func (o object) time(name string, t time.Time) {
	if !t.IsZero() && o.wants(name) {
		o.out.text(name, t.UTC().Format(time.RFC3339Nano))
	}
}

func (o object) texts(name string, list []string) {
	if o.wants(name) {
		o.out.texts(name, list)
	}
}

// someTexts adds a list unless it is empty.
func (o object) someTexts(name string, list []string) {
	if len(list) > 0 {
		o.texts(name, list)
	}
}

// textMap adds a map of strings unless it is empty.
func (o object) textMap(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	c, ok := o.begin(name, len(m))
	if !ok {
		return
	}
	if c.refs.open() {
		for k, v := range inOrder(m, c.out) {
			c.out.text(k, v)
		}
	} else { // most policies name few fields
		for _, k := range c.refs.order {
			if v, found := m[k]; found {
				c.out.text(k, v)
			}
		}
	}
	o.end(name)
}

// jsonMap adds a map of JSON values unless it is empty.
func (o object) jsonMap(name string, m map[string]any) error {
	if len(m) == 0 {
		return nil
	}
	if err := o.json(name, m); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// json adds a JSON value. Of objects it adds only the fields that rules refer to. Other types, and numbers that JSON does not
// have, are errors.
func (o object) json(name string, v any) error {
	refs := o.refs.field(name)
	if refs == nil {
		return nil
	}
	switch v := v.(type) {
	case nil:
		o.out.null(name)
	case bool:
		o.out.boolean(name, v)
	case string:
		o.out.text(name, v)
	case json.Number:
		o.out.number(name, v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("the number %v is not JSON", v)
		}
		o.out.float(name, v)
	case int64:
		o.out.integer(name, v)
	case int:
		o.out.integer(name, int64(v))
	case []string:
		o.out.texts(name, v)
	case []any:
		return o.jsonArray(name, v)
	case map[string]any:
		return o.jsonObject(name, v, refs)
	default:
		return fmt.Errorf("a %T is not JSON", v)
	}
	return nil
}

func (o object) jsonArray(name string, list []any) error {
	o.out.array(name, len(list))
	all := object{everything, o.out}
	for _, v := range list {
		if err := all.json("", v); err != nil {
			return err
		}
	}
	o.out.end(name)
	return nil
}

func (o object) jsonObject(name string, m map[string]any, refs *Refs) error {
	o.out.object(name, refs.size(len(m)))
	sub := object{refs, o.out}
	for k, v := range inOrder(m, o.out) {
		if err := sub.json(k, v); err != nil {
			return err
		}
	}
	o.out.end(name)
	return nil
}

// inOrder iterates over a map, in the order of its names if the sink needs that.
func inOrder[V any](m map[string]V, out sink) iter.Seq2[string, V] {
	if len(m) < 2 || !out.sorted() {
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
