package bundle

import (
	"context"
	"crypto/sha256"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
)

// DefaultQuery is the rule that decides unless Options name another one.
const DefaultQuery = "envoy/authz/allow"

// Options say how files are compiled. The zero value is valid.
type Options struct {
	// Query names the rule or the package that decides, in the form envoy/authz/allow or data.envoy.authz.allow.
	// Empty means DefaultQuery.
	Query string
	// Profile replaces data.tollkeeper.profile unless it is empty.
	Profile string
	// RegoVersion is the version of the language: v1, which is the default, or RegoV0.
	RegoVersion string
	// Schema is a JSON schema of the input. A strict compiler checks types against it.
	Schema []byte
	// Strict makes faults of unused variables, shadowed names and deprecated functions.
	Strict bool
	// Print compiles calls of print. Without it they do nothing.
	Print bool
	// Builtins are functions that rules may call besides OPA's own.
	Builtins []*ast.Builtin
}

// Bundle is one revision of a policy, compiled. It never changes.
type Bundle struct {
	Query       ast.Ref // the rule or package that decides
	Fingerprint string  // the source's fingerprint when it was read
	Revision    string  // the same on every node that compiled the same files with the same query and profile
	Compiler    *ast.Compiler
	Store       storage.Store // the base data, for OPA's evaluator
	Shipped     bool          // the shipped rules decide, perhaps with changes
	Warnings    []Fault       // rules, packages, data and documents that no decision uses, probably by mistake

	data      map[string]any
	files     []file     // what the data was made of
	documents []dataFile // see Document
	used      *usage
}

// Compile reads and compiles the files of src. It returns a *LoadError if a path is missing, if a file does not parse or
// compile, if two data files or a rule and the data define the same thing, or if the query names no rule. Otherwise the error
// is ctx's error.
func Compile(ctx context.Context, src Source, o Options) (*Bundle, error) {
	query, err := queryRef(o.Query)
	if err != nil {
		return nil, err
	}
	files, err := src.read(false)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	compiler, read, err := compile(files, o)
	if err != nil {
		return nil, err
	}
	data := read.merged
	if len(compiler.GetRules(query)) == 0 {
		return nil, loadError(faultQuery, "", "the query %s names no rule and no package with rules", query)
	}
	store, err := newBaseData(data)
	if err != nil {
		return nil, loadError(faultData, "", "%v", err)
	}
	reached := reachedFrom(compiler, query)
	used := usageOf(compiler, query, reached, data)
	b := &Bundle{
		Query: query, Fingerprint: fingerprint(files), Compiler: compiler, Store: store,
		Shipped: isShipped(reached), Warnings: append(used.warnings(compiler), read.warnings...),
		data: data, files: read.data, documents: read.documents, used: used,
	}
	b.Revision = revision(b.Fingerprint, query.String(), o.Profile)
	return b, nil
}

// Data returns the base data at a path, as JSON values: nil, bool, json.Number, string, []any or map[string]any.
// It reports whether there is any. The caller must not change what it returns.
func (b *Bundle) Data(path ...string) (any, bool) { return lookup(b.data, path) }

// Root returns the whole base data, for a compiler. It must not be changed.
func (b *Bundle) Root() ast.Value { return b.Store.(*baseData).root }

// Modules returns the compiled modules in the order of their names.
func (b *Bundle) Modules() []*ast.Module {
	var out []*ast.Module
	for _, name := range sortedKeys(b.Compiler.Modules) {
		out = append(out, b.Compiler.Modules[name])
	}
	return out
}

// compile builds rules and base data. Its error is a *LoadError with everything that is wrong.
func compile(files []file, o Options) (*ast.Compiler, content, error) {
	modules, faults := parseModules(files, o.RegoVersion)
	read, more := readData(files)
	faults = append(append(faults, more...), customFaults(modules)...)
	if fault := setProfile(read.merged, o.Profile); fault != nil {
		faults = append(faults, *fault)
	}
	if len(faults) > 0 {
		return nil, content{}, &LoadError{Faults: faults}
	}
	c, err := newCompiler(read.merged, o)
	if err != nil {
		return nil, content{}, err
	}
	if c.Compile(modules); c.Failed() {
		return nil, content{}, &LoadError{Faults: hintV0(faultsOf(c.Errors), files, o.RegoVersion)}
	}
	return c, read, nil
}

func revision(files, query, profile string) string {
	h := sha256.New()
	for _, s := range []string{files, query, profile} {
		writeField(h, s)
	}
	return shortSum(h)
}

// parseModules parses the *.rego files.
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
		WithDefaultRegoVersion(ast.RegoV1). // every module names its own
		WithStrict(o.Strict).
		WithEnablePrintStatements(o.Print).
		WithPathConflictsCheck(func(path []string) (bool, error) {
			return occupied(base, path), nil
		})
	if o.Strict && len(o.Schema) > 0 {
		schemas, err := schemaSet(o.Schema)
		if err != nil {
			return nil, err
		}
		// No hosts are allowed, so that a schema cannot make the compiler fetch from the network.
		caps := ast.CapabilitiesForThisVersion()
		caps.AllowNet = []string{}
		c = c.WithCapabilities(caps).WithSchemas(schemas).WithUseTypeCheckAnnotations(true)
	}
	if len(o.Builtins) > 0 {
		decls := make(map[string]*ast.Builtin, len(o.Builtins))
		for _, b := range o.Builtins {
			decls[b.Name] = b
		}
		//lint:ignore SA1019 its successor replaces the set of all builtins, and this adds to it
		c = c.WithBuiltins(decls)
	}
	return c, nil
}

// schemaSet registers a schema for the whole input and, for rules with annotations, as schema.input.
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

// queryRef parses a query in either form: envoy/authz/allow or data.envoy.authz.allow.
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
