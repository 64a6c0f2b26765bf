package policy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// unit is what comes out of a source's files.
type unit struct {
	base     map[string]any
	compiler *ast.Compiler
}

// compile builds rules and data from files that were read. Its error is a *LoadError with everything that is wrong.
func compile(files []file, o Options) (*unit, error) {
	modules, faults := parseModules(files, o.RegoVersion)
	base, more := mergeData(files)
	faults = append(append(faults, more...), customFaults(modules)...)
	if fault := setProfile(base, o.Profile); fault != nil {
		faults = append(faults, *fault)
	}
	if len(faults) > 0 {
		return nil, &LoadError{Faults: faults}
	}
	c, err := newCompiler(base, o)
	if err != nil {
		return nil, err
	}
	if c.Compile(modules); c.Failed() {
		return nil, &LoadError{Faults: hintV0(faultsOf(c.Errors), files, o.RegoVersion)}
	}
	return &unit{base: base, compiler: c}, nil
}

// parseModules parses the files with rules, and says what is wrong with those that are none.
func parseModules(files []file, version string) (map[string]*ast.Module, []Fault) {
	modules := make(map[string]*ast.Module)
	var faults []Fault
	for i := range files {
		f := &files[i]
		if !f.isRego() {
			continue
		}
		m, err := parseModule(f, version)
		if err != nil {
			faults = append(faults, faultsOf(err)...)
			continue
		}
		modules[f.name] = m
	}
	return modules, hintV0(faults, files, version)
}

func newCompiler(base map[string]any, o Options) (*ast.Compiler, error) {
	c := ast.NewCompiler().
		WithDefaultRegoVersion(ast.RegoV1). // every module says its own
		WithStrict(o.strict).
		WithEnablePrintStatements(o.Print != nil).
		WithPathConflictsCheck(func(path []string) (bool, error) {
			return occupied(base, path), nil
		})
	if o.strict && len(o.Schema) > 0 {
		schemas, err := schemaSet(o.Schema)
		if err != nil {
			return nil, err
		}
		// An empty list of hosts: a schema that refers to the network must not make us go there.
		caps := ast.CapabilitiesForThisVersion()
		caps.AllowNet = []string{}
		c = c.WithCapabilities(caps).WithSchemas(schemas).WithUseTypeCheckAnnotations(true)
	}
	if len(o.builtins) > 0 {
		decls := make(map[string]*ast.Builtin, len(o.builtins))
		for _, b := range o.builtins {
			decls[b.decl.Name] = &ast.Builtin{Name: b.decl.Name, Decl: b.decl.Decl}
		}
		//lint:ignore SA1019 its successor replaces the set of all builtins, and this adds to it
		c = c.WithBuiltins(decls)
	}
	return c, nil
}

// schemaSet makes a schema known both as that of the whole input and, for rules with annotations, as schema.input.
func schemaSet(schema []byte) (*ast.SchemaSet, error) {
	var v any
	if err := util.UnmarshalJSON(schema, &v); err != nil {
		return nil, loadError(faultSchema, "", "the schema of the input: %v", err)
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, v)
	set.Put(ast.SchemaRootRef.Append(ast.StringTerm("input")), v)
	return set, nil
}

// queryRef reads a query in either of its forms.
func queryRef(query string) (ast.Ref, error) {
	if query == "" {
		query = DefaultQuery
	}
	if query == "data" || strings.HasPrefix(query, "data.") || strings.HasPrefix(query, "data[") {
		ref, err := ast.ParseRef(query)
		if err != nil || !ref.IsGround() || len(ref) < 2 {
			return nil, loadError(faultQuery, "", "the query %q does not name a rule or a package", query)
		}
		return ref, nil
	}
	ref := ast.Ref{ast.DefaultRootDocument}
	for name := range strings.SplitSeq(strings.Trim(query, "/"), "/") {
		if name == "" {
			return nil, loadError(faultQuery, "", "the query %q does not name a rule or a package", query)
		}
		ref = append(ref, ast.StringTerm(name))
	}
	return ref, nil
}
