package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown/cache"

	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/input"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/verdictcache"
)

// Options say how a policy is loaded. The zero value is valid.
type Options struct {
	// Query names the rule or the package that decides, in the form envoy/authz/allow or data.envoy.authz.allow.
	// Empty means bundle.DefaultQuery.
	Query string
	// Profile replaces data.tollkeeper.profile unless it is empty.
	Profile string
	// Schema is a JSON schema of the input. Check uses it to type-check the rules; Load ignores it.
	Schema []byte
	// CachedVerdicts is the number of verdicts to cache, 0 for none. The cache never takes more than verdictcache.MaxBytes.
	CachedVerdicts int
	// RegoVersion is the version of the language: v1, which is the default, or v0.
	RegoVersion string
	// StrictErrors denies when a function of Rego fails, instead of leaving its expression undefined. Nil means: only if
	// the shipped rules decide.
	StrictErrors *bool
	// Interpreted lets OPA's evaluator decide every request. Otherwise a compiled program decides where that is possible.
	Interpreted bool
	// Recheck is how many of the program's decisions there are for each one that OPA's evaluator repeats, chosen at random: 1 repeats
	// every one, 0 none. If the evaluators disagree, the decision denies and OPA's evaluator decides from then on.
	Recheck int
	// Rechecked receives the result of each repetition, and the difference where the policy moved to OPA's evaluator because of it. It
	// runs while a request waits. Nil: nobody is told.
	Rechecked func(RecheckResult, *Difference)
	// Print receives the output of print in rules. It runs while a request waits. Nil turns printing off.
	Print func(file string, line int, text string)

	builtins []builtin
	strict   bool
}

// builtin is a function that tests add to Rego.
type builtin struct {
	decl *rego.Function
	impl rego.BuiltinDyn
}

// Policy is one revision of the rules and their data. It is safe for concurrent use.
type Policy struct {
	bundle         *bundle.Bundle
	refs           *input.Refs // the parts of the input that rules read
	now            atomic.Pointer[decider]
	cached         int       // the most verdicts to cache
	keys           sync.Pool // of *input.Key
	nondeterminism nondeterminism
	strict         bool // a failed function denies
	recheck        int  // see Options.Recheck
	rechecked      func(RecheckResult, *Difference)
	print          func(file string, line int, text string)
	prepared       rego.PreparedEvalQuery
	responses      cache.InterQueryCache
	values         cache.InterQueryValueCache
	fixed          []rego.EvalOption // the same for every evaluation
}

// Load reads and compiles the policy in src. Its error is a *bundle.LoadError or ctx's error: see bundle.Compile.
func Load(ctx context.Context, src bundle.Source, o Options) (*Policy, error) {
	builtins := make([]*ast.Builtin, len(o.builtins))
	for i, b := range o.builtins {
		builtins[i] = &ast.Builtin{Name: b.decl.Name, Decl: b.decl.Decl}
	}
	compiled, err := bundle.Compile(ctx, src, bundle.Options{
		Query: o.Query, Profile: o.Profile, RegoVersion: o.RegoVersion, Schema: o.Schema, Strict: o.strict,
		Print: o.Print != nil, Builtins: builtins,
	})
	if err != nil {
		return nil, err
	}
	p := &Policy{
		bundle: compiled, cached: o.CachedVerdicts, print: o.Print, strict: compiled.Shipped, recheck: o.Recheck, rechecked: o.Rechecked,
	}
	p.refs, p.nondeterminism = input.RefsOf(compiled.Modules()), nondeterminismOf(compiled.Modules())
	if o.StrictErrors != nil {
		p.strict = *o.StrictErrors
	}
	p.keys.New = func() any { return new(input.Key) }
	if err := p.prepare(ctx, &o); err != nil {
		return nil, bundle.ErrorOf(err)
	}
	return p, nil
}

// Check is Load for people who edit policies: the compiler is strict (unused variables, shadowed names and deprecated
// functions are faults) and checks types against the schema in o.
func Check(ctx context.Context, src bundle.Source, o Options) (*Policy, error) {
	o.strict = true
	return Load(ctx, src, o)
}

// Revision identifies what was compiled: the names and the content of the files, the query and the profile. It is short,
// and the same on every node that has the same policy.
func (p *Policy) Revision() string { return p.bundle.Revision }

// Fingerprint is the fingerprint that the source had when the policy was read.
func (p *Policy) Fingerprint() string { return p.bundle.Fingerprint }

// Query is the rule or package that decides, such as data.envoy.authz.allow.
func (p *Policy) Query() string { return p.bundle.Query.String() }

// Warnings name rules, packages and data that no decision uses, probably by mistake.
func (p *Policy) Warnings() []bundle.Fault { return p.bundle.Warnings }

// Shipped reports whether the shipped rules decide, perhaps with changes.
func (p *Policy) Shipped() bool { return p.bundle.Shipped }

// StrictErrors reports whether a failed function denies.
func (p *Policy) StrictErrors() bool { return p.strict }

// Data returns the base data at a path, as JSON values: nil, bool, json.Number, string, []any or map[string]any.
// It reports whether there is any. The caller must not change what it returns.
func (p *Policy) Data(path ...string) (any, bool) { return p.bundle.Data(path...) }

// Locate returns where a value of the base data is written: see bundle.Bundle.
func (p *Policy) Locate(path ...any) (file string, line, column int) { return p.bundle.Locate(path...) }

// Document returns the content of a file that a route names and that is no data: see bundle.Bundle.
func (p *Policy) Document(from, name string) (file string, content []byte, ok bool) {
	return p.bundle.Document(from, name)
}

// References returns what the rules that decide refer to: see bundle.Bundle.
func (p *Policy) References() []bundle.Reference { return p.bundle.References() }

// CacheStats returns counters of the cache of verdicts, which begin again when the evaluator changes, and false if there is no cache.
func (p *Policy) CacheStats() (verdictcache.Stats, bool) {
	cache := p.now.Load().cache
	if cache == nil {
		return verdictcache.Stats{}, false
	}
	return cache.Stats(), true
}

// String names the policy in logs.
func (p *Policy) String() string { return fmt.Sprintf("%s at revision %s", p.Query(), p.Revision()) }

// prepare compiles the query and sets up the state that all evaluations share.
func (p *Policy) prepare(ctx context.Context, o *Options) error {
	options := []func(*rego.Rego){
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(p.bundle.Query)))),
		rego.Compiler(p.bundle.Compiler),
		rego.Store(p.bundle.Store),
		rego.GenerateJSON(asValue),
	}
	for _, b := range o.builtins {
		options = append(options, rego.FunctionDyn(b.decl, b.impl))
	}
	var err error
	if p.prepared, err = rego.New(options...).PrepareForEval(ctx); err != nil {
		return err
	}
	config, err := cache.ParseCachingConfig(nil)
	if err != nil {
		return err
	}
	transaction, err := p.bundle.Store.NewTransaction(ctx)
	if err != nil {
		return err
	}
	p.responses, p.values = cache.NewInterQueryCache(config), cache.NewInterQueryValueCache(ctx, config)
	p.fixed = []rego.EvalOption{
		rego.EvalTransaction(transaction),
		// Responses of http.send and verified tokens are cached as long as their headers allow, but not across a reload.
		rego.EvalInterQueryBuiltinCache(p.responses),
		rego.EvalInterQueryBuiltinValueCache(p.values),
	}
	if o.Interpreted {
		p.now.Store(&decider{cache: p.newCache(), evaluator: Evaluator{Reason: Configured, Detail: "the configuration asks for it"}})
	} else {
		p.now.Store(p.compile(ctx, o.builtins, options))
	}
	return nil
}

// asValue returns a result as it is, instead of as JSON.
func asValue(t *ast.Term, _ *rego.EvalContext) (any, error) {
	if t == nil {
		return nil, errors.New("the query has no value")
	}
	return t.Value, nil
}
