package rego

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// prefix is how far the body of a loop can be followed without an effect on anything but locals. A member for which a comparison in the
// prefix does not hold makes no difference to the loop.
type prefix struct {
	*compiler
	members map[ir.Local]memberPart
	outside map[ir.Local]read // values that are the same for all members
	changed map[ir.Local]bool // locals that the body assigns somewhere
}

// comparisons finds those of a part of a member with a value from outside, in the prefix of the body of a loop.
func (c *compiler) comparisons(s *ir.ScanStmt) (found []comparison) {
	saved := c.known
	defer func() { c.known = saved }()
	p := prefix{c, map[ir.Local]memberPart{s.Key: {key: true}, s.Value: {}}, make(map[ir.Local]read), make(map[ir.Local]bool)}
	p.known = maps.Clone(saved)
	p.known.forget(s)
	visitStatements([]*ir.Block{{Stmts: []ir.Stmt{s}}}, func(s ir.Stmt) {
		for _, l := range targets(s) {
			p.changed[l] = true
		}
	})
	for _, s := range s.Block.Stmts {
		if equal, ok := s.(*ir.EqualStmt); ok {
			if one, ok := p.comparison(equal); ok {
				found = append(found, one)
			}
			continue
		}
		if !p.follow(s) {
			break
		}
	}
	return found
}

func (p *prefix) comparison(s *ir.EqualStmt) (comparison, bool) {
	for _, side := range [][2]ir.Operand{{s.A, s.B}, {s.B, s.A}} {
		if part, ok := p.memberPart(side[0]); ok {
			if value := p.fromOutside(side[1]); value != nil {
				return comparison{part, value}, true
			}
		}
	}
	return comparison{}, false
}

// fromOutside reads an operand whose value is the same for all members. It is nil for others.
func (p *prefix) fromOutside(o ir.Operand) read {
	l, isLocal := o.Value.(ir.Local)
	switch {
	case p.value(o) != nil, p.factOf(o).slot != nil:
		return p.operand(o)
	case !isLocal:
		return nil
	case p.outside[l] != nil:
		return p.outside[l]
	case p.changed[l]:
		return nil
	}
	return p.local(l)
}

// follow goes on behind a statement. It returns false if the statement may have an effect on more than locals.
func (p *prefix) follow(s ir.Stmt) bool {
	var part memberPart
	var isMember bool
	var value read
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		part, isMember = p.memberPart(s.Source)
		if p.factOf(s.Source).slot == nil {
			value = p.fromOutside(s.Source)
		}
	case *ir.DotStmt:
		name := p.value(s.Key)
		if part, isMember = p.memberPart(s.Source); isMember {
			if isMember = name != nil; isMember {
				part = part.after(name)
			}
		} else if name == nil || p.factOf(s.Source).base || p.slotAfter(s) != nil {
			break // a slot is read where it is compared: what it is in need not be built
		} else if from := p.fromOutside(s.Source); from != nil {
			value = func(f *frame) *ast.Term { return member(from(f), name) }
		}
	case *ir.CallStmt:
		if value = p.ruleOf(s); value == nil {
			return false
		}
	case *ir.NopStmt, *ir.NotEqualStmt, *ir.IsDefinedStmt, *ir.IsUndefinedStmt, *ir.IsArrayStmt, *ir.IsObjectStmt, *ir.IsSetStmt,
		*ir.ResetLocalStmt, *ir.AssignIntStmt, *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.LenStmt:
	default:
		return false
	}
	p.learn(s)
	for _, l := range targets(s) {
		delete(p.members, l)
		delete(p.outside, l)
		if isMember {
			p.members[l] = part
		}
		if value != nil {
			p.outside[l] = value
		}
	}
	return true
}

// memberPart returns the part of a member that an operand is.
func (p *prefix) memberPart(o ir.Operand) (memberPart, bool) {
	l, ok := o.Value.(ir.Local)
	if !ok {
		return memberPart{}, false
	}
	part, ok := p.members[l]
	return part, ok
}

// ruleOf reads the value of a rule without arguments, which is the same for all members. It returns nil for other calls. The rule is
// evaluated even if no member needs it. If it fails then, the evaluation fails, and the caller asks OPA's evaluator.
func (p *prefix) ruleOf(s *ir.CallStmt) read {
	number, ok := p.numbers[s.Func]
	if !ok || len(s.Args) > documents {
		return nil
	}
	fn, args := p.funcs[number], [2]read{p.inputArgument(s.Args[0]), p.operand(s.Args[1])}
	return func(f *frame) *ast.Term { return fn.apply(f.run, []*ast.Term{args[0](f), args[1](f)}) }
}
