package rego

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// pathTree finds functions by their path, for references whose path is known only at run time.
type pathTree struct {
	function *function
	next     map[string]*pathTree
}

func newPathTree() *pathTree { return &pathTree{next: make(map[string]*pathTree)} }

func (t *pathTree) add(path []string, f *function) {
	for _, name := range path {
		if t.next[name] == nil {
			t.next[name] = newPathTree()
		}
		t = t.next[name]
	}
	t.function = f
}

// callDynamic compiles the call of a function whose path is made of values. If there is none, the statement is undefined. If the
// function is undefined, the reference is: that ends the blocks that would look into the base data instead.
func (c *compiler) callDynamic(s *ir.CallDynamicStmt) (step, error) {
	if g, ok := s.Path[0].Value.(ir.StringIndex); !ok || c.implicit[c.policy.Static.Strings[g].Value] != documents {
		return nil, errors.New("a reference with variables where functions are replaced by variables")
	}
	args := []read{c.inputArgument(ir.Operand{Value: s.Args[0]}), c.local(s.Args[1])}
	path := make([]read, len(s.Path))
	for i, p := range s.Path {
		path[i] = c.operand(p)
	}
	to := c.use(s.Result)
	const undefinedReference = 3
	return func(f *frame) int {
		t := c.paths
		for _, p := range path {
			v := p(f)
			if v == nil {
				return undef
			}
			name, ok := v.Value.(ast.String)
			if t = t.next[string(name)]; !ok || t == nil {
				return undef
			}
		}
		if t.function == nil || len(t.function.params) != documents { // nothing, or a function of the policy, which has no value
			return undef
		}
		return f.called(to, t.function.apply(f.run, []*ast.Term{args[0](f), args[1](f)}), undefinedReference)
	}, nil
}
