package openapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"
)

// extensionName is the name of the field with our settings.
const extensionName = "x-tollkeeper"

// level is where an extension stands. The higher one counts.
type level int

const (
	atDocument level = iota
	atItem
	atOperation
)

// setting is a field of an extension.
type setting struct {
	value any // a JSON value
	at    value
	level level
}

// extension is the settings by name.
type extension map[string]setting

// kinds are the settings that exist, each with the outermost level where it may stand.
var kinds = map[string]struct {
	from level
	read func(r *reader, v value) (any, bool)
	want string
}{
	"name":        {atOperation, readText, "a text"},
	"path":        {atItem, readText, "a text"},
	"skip":        {atDocument, readBoolean, "true or false"},
	"public":      {atDocument, readBoolean, "true or false"},
	"scopes":      {atDocument, readTexts, "a list of texts"},
	"plans":       {atDocument, readTexts, "a list of texts"},
	"environment": {atDocument, readText, "a text"},
	"key":         {atDocument, readText, "required"},
	"token":       {atDocument, readText, "required"},
	"charge":      {atDocument, readCharge, "units by the name of the limit, such as {credits: 5}"},
}

// extend reads the extension of an object.
func (r *reader) extend(o *object, l level) extension {
	out := make(extension)
	for _, name := range o.names {
		if name != extensionName && resembles(name) {
			r.fault(o.fields[name], "%s is not read: did you mean %s: {...}?", name, extensionName)
		}
	}
	at, has := o.fields[extensionName]
	if !has {
		return out
	}
	r.used[at.key] = true
	fields := r.object(at)
	if fields == nil {
		return out
	}
	for _, name := range fields.names {
		v := fields.fields[name]
		kind, known := kinds[name]
		if !known {
			r.fault(v, "%s: %s is no field here: want %s", extensionName, name, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
			continue
		}
		if l < kind.from {
			r.fault(v, "%s: %s cannot stand here: it belongs to %s", extensionName, name, []string{"", "a path or an operation", "an operation"}[kind.from])
			continue
		}
		content, ok := kind.read(r, v)
		if !ok {
			r.fault(v, "%s: %s: want %s", extensionName, name, kind.want)
			continue
		}
		out[name] = setting{content, v, l}
	}
	return out
}

// resembles reports whether a name looks like that of the extension.
func resembles(name string) bool {
	plain := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(name))
	want := strings.ReplaceAll(extensionName, "-", "")
	return strings.HasPrefix(plain, want) || levenshtein.ComputeDistance(plain, want) <= 2
}

func readText(_ *reader, v value) (any, bool) {
	text, ok := v.text()
	return text, ok && text != ""
}

func readBoolean(_ *reader, v value) (any, bool) { return v.boolean() }

func readTexts(_ *reader, v value) (any, bool) {
	items, ok := v.items()
	out := make([]any, len(items))
	for i, item := range items {
		text, isText := item.text()
		out[i], ok = text, ok && isText && text != ""
	}
	return out, ok
}

func readCharge(r *reader, v value) (any, bool) {
	o, err := r.objects.of(v)
	if err != nil {
		return nil, false
	}
	out := make(map[string]any, len(o.names))
	for _, limit := range o.names {
		units, ok := o.fields[limit].number()
		if !ok {
			return nil, false
		}
		out[limit] = units
	}
	return out, true
}

// with returns the settings, and those of a nearer extension in their place.
func (e extension) with(nearer extension) extension {
	out := maps.Clone(e)
	maps.Copy(out, nearer)
	return out
}

func (e extension) is(name string) bool {
	is, _ := e[name].value.(bool)
	return is
}

// fill adds the settings to an entry. A public route asks for nothing, so what levels further out ask for does not count there; what
// stands beside "public" is a contradiction, which the table refuses.
func (e extension) fill(entry map[string]any) {
	for name, s := range e {
		switch name {
		case "name", "path", "skip":
		default:
			if !e.is("public") || s.level >= e["public"].level {
				entry[name] = s.value
			}
		}
	}
}

// unused reports each extension that was not read, because it would be ignored in silence.
func (r *reader) unused() {
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if f := r.files[name]; f != nil && f.root != nil {
			r.unusedBelow(f, f.root)
		}
	}
}

// unusedBelow does not follow aliases: what they stand for is in the file.
func (r *reader) unusedBelow(f *file, n *yaml.Node) {
	for i, child := range n.Content {
		if isKey := n.Kind == yaml.MappingNode && i%2 == 0; isKey && child.Value == extensionName && !r.used[child] {
			r.fault(value{f, child, child}, "%s has no effect here: it belongs to the top of the document that a route names, to a path or to an operation", extensionName)
		}
		r.unusedBelow(f, child)
	}
}
