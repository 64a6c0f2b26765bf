// Package policy asks Rego policies for verdicts. It is the only package that knows OPA.
//
// A Policy is one immutable revision: compiled rules and the data they read. Load builds it whole from bytes that were
// read once, so that its revision names what was compiled; a reload builds another one beside it. Deciding takes no
// lock, does no I/O of its own, and never turns a failure into a permission: whatever is undefined, of the wrong type,
// late or broken is an error, and the caller denies.
//
// The input and the decision have the shapes of OPA's Envoy plugin, with Tollkeeper's facts beside them, so that
// policies written for the plugin run unchanged.
package policy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
)

// DefaultQuery is the rule that is asked unless Options say otherwise.
const DefaultQuery = "envoy/authz/allow"

// Options say how a policy is loaded. The zero value is good.
type Options struct {
	// Query names the rule or the package that decides, as envoy/authz/allow or as data.envoy.authz.allow.
	// Empty is DefaultQuery.
	Query string
	// Profile, if not empty, replaces data.tollkeeper.profile.
	Profile string
	// Schema is a JSON schema of the input. Check type-checks the rules against it; Load does not look at it.
	Schema []byte
	// Memo is how many verdicts are remembered, 0 for none. They never take more than MemoBytes.
	Memo int
	// RegoVersion is the version of the language: v1, which is also what an empty one is, or v0.
	RegoVersion string
	// StrictErrors makes an error of a function, which would leave its expression undefined, an error of the whole
	// decision. Nil: where the shipped rules decide.
	StrictErrors *bool
	// Print is given what rules print. It is called while a request waits. Nil: nothing is printed.
	Print func(file string, line int, text string)

	builtins []builtin
	strict   bool
}

// builtin is a function that is added to Rego.
type builtin struct {
	decl *rego.Function
	impl rego.BuiltinDyn
}

// Policy is one revision of the rules and their data. It is safe for concurrent use.
type Policy struct {
	query       string
	revision    string
	fingerprint string
	base        map[string]any
	reads       *reads
	memo        *memo // nil: every request is decided anew
	surprises   surprises
	strict      bool    // an error of a function is one of the decision
	warnings    []Fault // what is probably not meant
	compiler    *ast.Compiler
	store       *baseData
	print       func(file string, line int, text string)
	prepared    rego.PreparedEvalQuery
	fixed       []rego.EvalOption // what every evaluation is given
}

// Load reads and compiles the policy in src. It returns a *LoadError if a path is missing, if a file does not parse or
// compile, if two data files or a rule and the data define the same thing, or if there is no rule where the query
// points; or ctx's error.
func Load(ctx context.Context, src Source, o Options) (*Policy, error) {
	ref, err := queryRef(o.Query)
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
	p := &Policy{query: ref.String(), fingerprint: fingerprint(files), print: o.Print}
	p.revision = revision(p.fingerprint, p.query, o.Profile)

	u, err := compile(files, o)
	if err != nil {
		return nil, err
	}
	p.base, p.compiler, p.reads, p.surprises = u.base, u.compiler, readsOf(u.compiler), surprisesOf(u.compiler)
	if o.Memo > 0 && len(p.surprises.always) == 0 {
		p.memo = newMemo(o.Memo)
	}
	if len(u.compiler.GetRules(ref)) == 0 {
		return nil, loadError(faultQuery, "", "the query %s names no rule and no package with rules", ref)
	}
	reached := reachedFrom(u.compiler, ref)
	p.warnings = warningsOf(u.compiler, ref, reached, u.base)
	if p.strict = isShipped(reached); o.StrictErrors != nil {
		p.strict = *o.StrictErrors
	}
	if err := p.prepare(ctx, ref, u, o.builtins); err != nil {
		return nil, &LoadError{Faults: faultsOf(err)}
	}
	return p, nil
}

// Check is Load for somebody who edits policies: the compiler is strict (unused variables, shadowed names, deprecated
// functions are faults) and types are checked against the schema in o.
func Check(ctx context.Context, src Source, o Options) (*Policy, error) {
	o.strict = true
	return Load(ctx, src, o)
}

// Revision identifies what was compiled: the names and the content of the files, and the options. It is short, and the
// same on every node that has the same policy.
func (p *Policy) Revision() string { return p.revision }

// Fingerprint is the fingerprint that the source had when the policy was read.
func (p *Policy) Fingerprint() string { return p.fingerprint }

// Query is the rule or package that decides, such as data.envoy.authz.allow.
func (p *Policy) Query() string { return p.query }

// Warnings say what is probably not meant: rules, packages and data that take no part in any decision.
func (p *Policy) Warnings() []Fault { return p.warnings }

// StrictErrors reports whether an error of a function is one of the decision.
func (p *Policy) StrictErrors() bool { return p.strict }

// Data returns the base data at a path, as JSON values: nil, bool, json.Number, string, []any or map[string]any.
// It reports whether there is something. What it returns is shared and must not be changed.
func (p *Policy) Data(path ...string) (any, bool) { return lookup(p.base, path) }

// prepare compiles the query and settles what all evaluations share.
func (p *Policy) prepare(ctx context.Context, ref ast.Ref, u *unit, more []builtin) error {
	var err error
	if p.store, err = newBaseData(u.base); err != nil {
		return err
	}
	options := p.asking(ref)
	for _, b := range more {
		options = append(options, rego.FunctionDyn(b.decl, b.impl))
	}
	if p.prepared, err = rego.New(options...).PrepareForEval(ctx); err != nil {
		return err
	}
	config, err := cache.ParseCachingConfig(nil)
	if err != nil {
		return err
	}
	p.fixed = []rego.EvalOption{
		rego.EvalTransaction(snapshot{}),
		// Answers of http.send and verified tokens outlive a request as their cache headers allow, not a revision.
		rego.EvalInterQueryBuiltinCache(cache.NewInterQueryCache(config)),
		rego.EvalInterQueryBuiltinValueCache(cache.NewInterQueryValueCache(ctx, config)),
	}
	return nil
}

// asking are the options of a query for one reference.
func (p *Policy) asking(ref ast.Ref) []func(*rego.Rego) {
	return []func(*rego.Rego){
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ref)))),
		rego.Compiler(p.compiler),
		rego.Store(p.store),
		rego.GenerateJSON(asValue),
	}
}

// asValue hands a result over as it is, instead of as JSON.
func asValue(t *ast.Term, _ *rego.EvalContext) (any, error) {
	if t == nil {
		return nil, errors.New("the query gave no value")
	}
	return t.Value, nil
}

func revision(files, query, profile string) string {
	h := sha256.New()
	for _, s := range []string{files, query, profile} {
		writeField(h, s)
	}
	return shortSum(h)
}

// String names the policy in logs.
func (p *Policy) String() string { return fmt.Sprintf("%s at revision %s", p.query, p.revision) }
