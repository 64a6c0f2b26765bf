package openapi

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// Operation is an operation of a document.
type Operation struct {
	Entry map[string]any // in the form of an entry of routes.yaml: JSON values, with json.Number for numbers
	File  string         // where the operation stands
	Line  int
}

// Fault is one reason why the document cannot be used.
type Fault struct {
	File string
	Line int    // from 1; 0 if unknown
	Text string // one line, for people
}

// Read reads the operations of an OpenAPI document as entries of routes.yaml, in the order of the document. With faults there are
// no operations.
//
// open returns the content of a file by its name, cleaned and relative like name, and reports whether there is one. Nothing else
// is read, whatever the document refers to.
func Read(name string, open func(name string) ([]byte, bool)) ([]Operation, []Fault) {
	r := &reader{
		open: open, files: make(map[string]*file), objects: objects{made: make(map[*yaml.Node]*object)},
		followed: make(map[*yaml.Node]*object), used: make(map[*yaml.Node]bool),
		bases: make(map[*yaml.Node][]string), security: make(map[*yaml.Node][][]string),
		ids: make(map[string]value), taken: make(map[*yaml.Node]bool),
	}
	name = path.Clean(name)
	if f := r.load(name, value{file: &file{name: name}}); f != nil && f.root != nil {
		r.document(f)
	}
	if len(r.faults) == 0 {
		r.unused()
	}
	if len(r.faults) == 0 {
		return r.operations, nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(a.Text, b.Text))
	})
	return nil, slices.Compact(r.faults)
}

// reader reads one document and the files that it refers to.
type reader struct {
	open     func(name string) ([]byte, bool)
	files    map[string]*file // nil: there is none
	bytes    int
	objects  objects
	followed map[*yaml.Node]*object // objects with a $ref, by the node of the $ref's object
	used     map[*yaml.Node]bool    // keys of x-tollkeeper that were read

	schemes   map[string]value // components.securitySchemes
	extension extension        // at the top of the document
	defaults  struct{ servers, security value }

	bases    map[*yaml.Node][]string   // the base paths of a list of servers
	security map[*yaml.Node][][]string // the sets of scopes of a list of requirements

	ids        map[string]value    // operations by operationId
	taken      map[*yaml.Node]bool // operations that were added
	operations []Operation
	faults     []Fault
}

// object returns the object at a value. It reports a fault and returns nil if there is none.
func (r *reader) object(v value) *object {
	o, err := r.objects.of(v)
	if err != nil {
		r.report(v, err)
		return nil
	}
	return o
}

// The fields of OpenAPI's objects. Those that are read come first.
var (
	documentFields  = []string{"openapi", "paths", "components", "servers", "security", "info", "tags", "externalDocs", "jsonSchemaDialect", "webhooks"}
	operationFields = []string{"operationId", "security", "servers", "tags", "summary", "description", "externalDocs", "parameters", "requestBody", "responses", "callbacks", "deprecated"}
	itemFields      = []string{"$ref", "servers", "summary", "description", "parameters"}
	methods         = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}
)

func (r *reader) document(f *file) {
	o := r.object(value{f, f.root, f.root})
	if o == nil || !r.version(o) {
		return
	}
	r.similar(o, documentFields, 5)
	r.extension = r.extend(o, atDocument)
	r.defaults.servers, r.defaults.security = o.fields["servers"], o.fields["security"]
	if components, has := o.fields["components"]; has {
		if c := r.object(components); c != nil && !c.fields["securitySchemes"].missing() {
			if s := r.object(c.fields["securitySchemes"]); s != nil {
				r.schemes = s.fields
			}
		}
	}
	r.requirements(r.defaults.security)
	paths, has := o.fields["paths"]
	if !has {
		return
	}
	if p := r.object(paths); p != nil {
		for _, path := range p.names {
			if !strings.HasPrefix(path, "x-") {
				r.item(path, p.fields[path])
			}
		}
	}
}

// version reports whether this is a version of OpenAPI that we know.
func (r *reader) version(o *object) bool {
	if v, has := o.fields["swagger"]; has {
		r.fault(v, "this is a Swagger 2.0 document: convert it to OpenAPI 3.0 or 3.1")
		return false
	}
	v, has := o.fields["openapi"]
	text, _ := v.written()
	if !has {
		r.fault(o.value, "this is no OpenAPI document: the field openapi, with its version, is missing")
		return false
	}
	if text += "."; !strings.HasPrefix(text, "3.0.") && !strings.HasPrefix(text, "3.1.") {
		r.fault(v, "OpenAPI %s cannot be read: want 3.0 or 3.1", strings.TrimSuffix(text, "."))
		return false
	}
	return true
}

// similar reports fields that OpenAPI does not have and that look like one of the first few, which are read. Others, such as
// those of an older version, play no part here.
func (r *reader) similar(o *object, known []string, read int) {
	for _, name := range o.names {
		if slices.Contains(known, name) || strings.HasPrefix(name, "x-") {
			continue
		}
		for _, k := range known[:read] {
			if levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)) <= 2 {
				r.fault(o.fields[name], "%s is no field here: did you mean %s?", name, k)
				break
			}
		}
	}
}

// item reads a path item.
func (r *reader) item(path string, at value) {
	if !strings.HasPrefix(path, "/") {
		r.fault(at, "path %q: want a slash at the beginning", path)
		return
	}
	o := r.follow(at, 0)
	if o == nil {
		return
	}
	ext := r.extend(o, atItem)
	for _, name := range o.names {
		switch {
		case slices.Contains(methods, name):
			r.operation(&pathItem{path, at, o, ext}, name, o.fields[name])
		case !slices.Contains(itemFields, name) && !strings.HasPrefix(name, "x-"):
			r.fault(o.fields[name], "%s is no field of a path: want a method (%s), servers or parameters", name, strings.Join(methods, ", "))
		}
	}
}

// pathItem is what the operations of a path share.
type pathItem struct {
	path   string
	at     value
	object *object
	ext    extension
}

func (r *reader) operation(p *pathItem, method string, at value) {
	o := r.follow(at, 0)
	if o == nil {
		return
	}
	r.similar(o, operationFields, 3)
	ext := r.extension.with(p.ext).with(r.extend(o, atOperation))
	if ext.is("skip") {
		return
	}
	name := r.nameOf(o, ext)
	scopes := r.scopes(o, ext)
	template, ok := r.template(p, ext)
	bases := r.basesOf(o.fields["servers"], p.object.fields["servers"], r.defaults.servers)
	if !ok {
		return
	}
	again := r.taken[o.node]
	r.taken[o.node] = true
	for i, base := range bases {
		route, full := name, base+template
		switch {
		case name == "":
			route = strings.ToUpper(method) + " " + full
		case again: // several paths share a path item
			route += " " + full
		case i > 0:
			route += " " + cmp.Or(base, "/")
		}
		entry := map[string]any{
			"name":  route,
			"match": map[string]any{"path": full, "methods": []any{strings.ToUpper(method)}},
		}
		if scopes != nil {
			entry["scopes"] = scopes
		}
		ext.fill(entry)
		r.add(Operation{entry, at.file.name, at.line()}, at)
	}
}

const maxOperations = 20_000

func (r *reader) add(o Operation, at value) {
	switch len(r.operations) {
	case maxOperations:
		r.fault(at, "the document has more than %d operations, each counted once for each base path", maxOperations)
		r.operations = append(r.operations, o)
	case maxOperations + 1:
	default:
		r.operations = append(r.operations, o)
	}
}

// nameOf returns the name of an operation, "" if it has none.
func (r *reader) nameOf(o *object, ext extension) string {
	id := o.fields["operationId"]
	name, isText := id.text()
	if !id.missing() {
		first, exists := r.ids[name]
		switch {
		case !isText || name == "":
			r.fault(id, "operationId: want a text")
		case !exists:
			r.ids[name] = value{o.file, id.key, o.node}
		case first.node != o.node:
			r.fault(id, "operationId %q is there twice: the first is in %s, line %d", name, first.file.name, first.line())
		}
	}
	if s, has := ext["name"]; has {
		name, _ = s.value.(string)
	}
	return name
}
