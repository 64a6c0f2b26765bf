package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write README.md anew")

// TestReference_IsUpToDate compares README.md with what the comments, tags and defaults of the fields say.
func TestReference_IsUpToDate(t *testing.T) {
	want := newReference(t).page()
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("README.md"); err != nil || string(got) != want {
		t.Errorf("README.md is not what the fields say (%v): run\n\tgo test ./authz/config -run TestReference -update", err)
	}
}

// TestReference_FieldsAreDocumented holds that each field has a comment that begins with its name, and each section one.
func TestReference_FieldsAreDocumented(t *testing.T) {
	for name, text := range newReference(t).docs {
		_, field, ok := strings.Cut(name, ".")
		if !ok {
			field = name
		}
		if !strings.HasPrefix(text, field+" ") || !strings.HasSuffix(strings.TrimSpace(text), ".") {
			t.Errorf("%s: want a comment of whole sentences that begins with %q, not %q", name, field, text)
		}
	}
}

// reference makes the page. Comments come from the source, everything else from the types and from Default.
type reference struct {
	docs map[string]string // of sections by "Type", of fields by "Type.Field"
	out  strings.Builder
}

func newReference(t *testing.T) *reference {
	r := &reference{docs: make(map[string]string)}
	for _, file := range []string{"config.go", "listen.go", "store.go", "tokens.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				r.read(g)
			}
		}
	}
	return r
}

// read takes the comments of a struct whose fields have yaml tags.
func (r *reference) read(g *ast.GenDecl) {
	spec := g.Specs[0].(*ast.TypeSpec)
	s, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		r.docs[spec.Name.Name] = g.Doc.Text()
		if isSection := strings.Contains(f.Tag.Value, "envPrefix") && f.Doc == nil; !isSection {
			r.docs[spec.Name.Name+"."+f.Names[0].Name] = f.Doc.Text()
		}
	}
}

func (r *reference) page() string {
	r.out.WriteString(`# Configuration

<!-- Generated from the comments of config.go, listen.go, store.go and tokens.go by: go test ./authz/config -run TestReference -update -->

` + "`tollkeeper serve --config FILE`" + ` reads one YAML file. Every field has a default, so no file is needed. A field that does not exist
is an error with its line. A variable takes precedence over the file; ` + "`TOLLKEEPER_…`" + ` variables that do not exist are errors, too.
Lists are written with commas in variables (` + "`a,b`" + `). Durations are written as ` + "`250ms`, `30s` or `1m30s`" + `.

`)
	fmt.Fprintf(&r.out, "The command line also reads `%s`.\n\n", strings.Join(CommandVariables, "`, `"))
	r.section(reflect.TypeFor[Config](), reflect.ValueOf(Default()), "", EnvPrefix)
	return strings.TrimRight(r.out.String(), "\n") + "\n"
}

// section writes the table of a struct's own fields, and then those of the sections in it.
func (r *reference) section(t reflect.Type, defaults reflect.Value, path, variables string) {
	if path != "" {
		fmt.Fprintf(&r.out, "## `%s`\n\n%s\n\n", path, r.text(t.Name(), ""))
	}
	r.out.WriteString("| Field | Type | Default | Variable | Meaning |\n|---|---|---|---|---|\n")
	var nested []func()
	for i, f := range reflect.VisibleFields(t) {
		name, prefix := f.Tag.Get("yaml"), f.Tag.Get("envPrefix")
		value := defaults.Field(i)
		switch {
		case name == "": // of the short form
		case f.Tag.Get("env") != "" && prefix != "":
			fmt.Fprintf(&r.out, "| `%s` | text or section | %s | `%s` | %s |\n", name, defaultText(value.Field(0)), variables+f.Tag.Get("env"), r.text(t.Name(), f.Name))
			nested = append(nested, func() { r.nested(f.Type, value, name, variables+prefix) })
		case prefix == "":
			fmt.Fprintf(&r.out, "| `%s` | %s | %s | `%s` | %s |\n", name, typeName(f.Type), defaultText(value), variables+f.Tag.Get("env"), r.text(t.Name(), f.Name))
		case f.Type.Kind() == reflect.Slice:
			fmt.Fprintf(&r.out, "| `%s` | list | empty | | %s |\n", name, r.text(t.Name(), f.Name))
			nested = append(nested, func() {
				r.section(f.Type.Elem(), reflect.Zero(f.Type.Elem()), path+dot(path)+name+"[0]", variables+prefix+"0_")
			})
		default:
			nested = append(nested, func() { r.section(f.Type, value, path+dot(path)+name, variables+prefix) })
		}
	}
	r.out.WriteString("\n")
	for _, f := range nested {
		f()
	}
}

// nested writes the sections in a section that has a short form.
func (r *reference) nested(t reflect.Type, defaults reflect.Value, path, variables string) {
	for i, f := range reflect.VisibleFields(t) {
		if prefix := f.Tag.Get("envPrefix"); prefix != "" {
			r.section(f.Type, defaults.Field(i), path+"."+f.Tag.Get("yaml"), variables+prefix)
		}
	}
}

func dot(path string) string {
	if path == "" {
		return ""
	}
	return "."
}

// text returns a comment on one line, without the name with which it begins.
func (r *reference) text(section, field string) string {
	name := section
	if field != "" {
		name, section = field, section+"."+field
	}
	text := strings.TrimPrefix(strings.Join(strings.Fields(r.docs[section]), " "), name+" ")
	for _, verb := range []string{"is ", "are "} {
		text = strings.TrimPrefix(text, verb)
	}
	text = strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
	return strings.ToUpper(text[:1]) + text[1:]
}

func typeName(t reflect.Type) string {
	if t == reflect.TypeFor[Duration]() {
		return "duration"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of texts"
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Bool:
		return "`true` or `false`"
	case reflect.Int:
		return "number"
	default:
		return "text"
	}
}

func defaultText(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		return "`" + short(v.Interface().(Duration)) + "`"
	case v.Kind() == reflect.Slice && v.Len() == 0, v.Kind() == reflect.String && v.Len() == 0:
		return "empty"
	case v.Kind() == reflect.Pointer:
		return "not set"
	case v.Kind() == reflect.Slice:
		return "`[" + strings.Join(v.Interface().([]string), ", ") + "]`"
	default:
		return fmt.Sprintf("`%v`", v.Interface())
	}
}

// short writes a duration without the parts that are zero: 10m and not 10m0s.
func short(d Duration) string {
	text := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if rest := strings.TrimSuffix(text, zero); rest != text && strings.ContainsAny(rest[max(0, len(rest)-1):], "mh") {
			text = rest
		}
	}
	return text
}
