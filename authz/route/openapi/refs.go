package openapi

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on documents.
const (
	maxBytes = 10 << 20 // of one file, and four times as much for all
	maxFiles = 500
	maxHops  = 20 // references that lead to references
)

// load reads a file once. It returns nil if there is a fault, which it reports where the file is wrong; from is where the file is
// named.
func (r *reader) load(name string, from value) *file {
	if f, known := r.files[name]; known {
		if f == nil {
			r.fault(from, "there is no file %q among the policies", name)
		}
		return f
	}
	raw, found := r.open(name)
	if !found {
		r.files[name] = nil
		r.fault(from, "there is no file %q among the policies", name)
		return nil
	}
	f := &file{name: name}
	r.files[name] = f
	here := value{file: f}
	if r.bytes += len(raw); len(raw) > maxBytes || r.bytes > 4*maxBytes || len(r.files) > maxFiles {
		r.fault(here, "too large: want at most %d MiB in a file, %d MiB in all and %d files", maxBytes>>20, 4*maxBytes>>20, maxFiles)
		return f
	}
	root, err := parse(raw)
	if err != nil {
		r.report(here, err)
		return f
	}
	f.root = root
	return f
}

// follow returns an object, with the fields of the object that its $ref leads to. It returns nil if there is a fault.
func (r *reader) follow(v value, hops int) *object {
	if o, known := r.followed[v.node]; known {
		return o
	}
	o := r.object(v)
	if o == nil {
		return nil
	}
	ref, isRef := o.fields["$ref"]
	if !isRef {
		return o
	}
	o = r.join(o, ref, hops)
	r.followed[v.node] = o
	return o
}

// join returns the object that ref leads to, with the fields that stand beside ref.
func (r *reader) join(o *object, ref value, hops int) *object {
	if hops == maxHops {
		r.fault(ref, "this $ref leads in a circle, or through more than %d others", maxHops)
		return nil
	}
	to, ok := r.resolve(ref)
	if !ok {
		return nil
	}
	from := r.follow(to, hops+1)
	if from == nil {
		return nil
	}
	out := &object{value: from.value, names: slices.Clone(from.names), fields: make(map[string]value, len(from.fields))}
	for name, field := range from.fields {
		out.fields[name] = field
	}
	for _, name := range o.names {
		_, both := from.fields[name]
		switch {
		case name == "$ref" || name == "summary" || name == "description":
		case both:
			r.fault(o.fields[name], "%s stands beside $ref and also where $ref leads: OpenAPI does not say which one counts", name)
			return nil
		default:
			out.add(name, o.fields[name])
		}
	}
	return out
}

// resolve returns the value that a reference leads to.
func (r *reader) resolve(ref value) (to value, ok bool) {
	text, isText := ref.text()
	u, err := url.Parse(text)
	switch {
	case !isText || err != nil || text == "":
		r.fault(ref, "$ref: want a reference such as #/components/pathItems/orders or orders.yaml#/get")
		return to, false
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(u.Path, "/"):
		r.fault(ref, "$ref %q leads to another place than the files of the policies: want a name relative to this file", text)
		return to, false
	}
	f := ref.file
	if u.Path != "" {
		if f = r.load(path.Join(path.Dir(ref.file.name), u.Path), ref); f == nil || f.root == nil {
			return to, false
		}
	}
	to, err = r.point(f, u.Fragment)
	if err != nil || u.RawQuery != "" {
		r.fault(ref, "$ref %q leads nowhere", text)
		return to, false
	}
	return to, true
}

var errNowhere = errors.New("the pointer leads nowhere")

// point follows a JSON pointer (RFC 6901).
func (r *reader) point(f *file, pointer string) (value, error) {
	v := value{f, f.root, f.root}
	if pointer == "" {
		return v, nil
	}
	steps := strings.Split(pointer, "/")
	if steps[0] != "" {
		return v, errNowhere
	}
	for _, step := range steps[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if v.node.Kind == yaml.SequenceNode {
			items, _ := v.items()
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(items) {
				return v, errNowhere
			}
			v = items[i]
			continue
		}
		o, err := r.objects.of(v)
		if err != nil {
			return v, err
		}
		if v = o.fields[step]; v.missing() {
			return v, errNowhere
		}
	}
	return v, nil
}

// report adds the fault that an error describes.
func (r *reader) report(at value, err error) {
	var lined *lineError
	line := at.line()
	if errors.As(err, &lined) {
		line = lined.line
	}
	r.faults = append(r.faults, Fault{at.file.name, line, err.Error()})
}

func (r *reader) fault(at value, format string, args ...any) {
	r.faults = append(r.faults, Fault{at.file.name, at.line(), fmt.Sprintf(format, args...)})
}
