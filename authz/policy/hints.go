package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
)

// hints says what makes an evaluation slow, or later ones necessary, and why.
func (e *evaluation) hints(a answer, m *measure) (out []string) {
	if m.disputed != "" {
		out = append(out, "The compiled program failed, and then OPA's evaluator decided, so the decision costs both: "+m.disputed+".")
	}
	switch place := inputAsOne(e.bundle.Modules()); {
	case place == "":
	case e.buildsAll():
		out = append(out, "The whole input is built as a document, because rules read it as one: "+place+".")
	case e.program != nil && e.slots == nil:
		out = append(out, "The parts of the input that rules read are built as a document, because a rule replaces the input: "+place+".")
	}
	return append(out, e.caching(a))
}

// buildsAll reports whether the evaluation builds the whole input as a document.
func (e *evaluation) buildsAll() bool {
	if e.slots == nil {
		return e.refs.Whole()
	}
	return slices.ContainsFunc(e.program.Slots(), func(path []string) bool { return len(path) == 0 })
}

// inputAsOne returns where rules read the input other than by constant names, or replace it, "" for nowhere.
func inputAsOne(modules []*ast.Module) string {
	var places []string
	add := func(t *ast.Term, replaced bool) {
		ref, ok := t.Value.(ast.Ref)
		switch {
		case !ok || !ref.HasPrefix(ast.InputRootRef):
		case replaced:
			places = append(places, placeOf("with "+ref.String(), t))
		case len(ref) == 1:
			places = append(places, placeOf("input", t))
		case !ref[1].IsGround():
			places = append(places, placeOf("input[…]", t))
		}
	}
	for _, m := range modules {
		replaced := make(map[*ast.Term]bool)
		ast.WalkWiths(m, func(w *ast.With) bool {
			replaced[w.Target] = true
			return false
		})
		ast.WalkTerms(m, func(t *ast.Term) bool {
			add(t, replaced[t])
			return false
		})
	}
	slices.Sort(places)
	return strings.Join(slices.Compact(places), ", ")
}

// often are the parts of the input that differ from request to request.
var often = [][]string{
	{"attributes", "request", "http", "path"}, {"parsed_path"}, {"parsed_query"}, {"attributes", "request", "http", "query"},
	{"attributes", "request", "http", "body"}, {"attributes", "request", "http", "raw_body"}, {"parsed_body"},
	{"attributes", "request", "http", "id"}, {"attributes", "request", "http", "headers", "x-request-id"}, {"attributes", "request", "time"},
	{"attributes", "source", "address", "socketAddress", "portValue"},
}

// caching says whether later requests get the verdict without an evaluation.
func (e *evaluation) caching(a answer) string {
	not := func(why string) string { return "The verdict is not remembered, because " + why + "." }
	var key input.Key
	switch changing := e.changing(); {
	case e.cache == nil && len(e.nondeterminism.always) > 0:
		return not("rules call " + strings.Join(slices.Compact(e.nondeterminism.always), ", "))
	case e.cache == nil:
		return not("the cache of verdicts is off")
	case a.err != nil:
		return not("there is none")
	case len(e.failed) > 0:
		return not("a function failed: " + errorsOf(e.failed)[0])
	case len(changing) > 0:
		return not("rules call " + strings.Join(e.placesOf(changing), ", "))
	case len(e.printed.lines) > 0:
		return not("rules call " + strings.Join(e.placesOf([]string{"print"}), ", "))
	case !key.Fill(e.refs, e.request, e.facts):
		return not(fmt.Sprintf("what rules read of the request is longer than %d bytes", input.MaxKey))
	}
	out := "The verdict is remembered for requests that agree in all that rules read"
	var parts []string
	for _, path := range often {
		if !e.refs.Whole() && e.refs.Reads(path...) {
			parts = append(parts, "input."+strings.Join(path, "."))
		}
	}
	switch {
	case e.refs.Whole():
		out += ", which is the whole input"
	case len(parts) > 0:
		out += ", such as " + strings.Join(parts, ", ")
	}
	s := e.cache.Stats()
	return fmt.Sprintf("%s. Since the policies were loaded, that saved %d of %d evaluations.", out, s.Hits, s.Hits+s.Misses)
}

// placesOf returns the functions with the places where rules call them.
func (e *evaluation) placesOf(names []string) (out []string) {
	for _, name := range names {
		var places []string
		for _, call := range e.nondeterminism.sometimes {
			if place, ok := strings.CutPrefix(call, name+" ("); ok && !slices.Contains(places, strings.TrimSuffix(place, ")")) {
				places = append(places, strings.TrimSuffix(place, ")"))
			}
		}
		if len(places) > 0 {
			name += " (" + strings.Join(places, " or ") + ")"
		}
		out = append(out, name)
	}
	return out
}
