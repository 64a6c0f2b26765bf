package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// prefix is what is known at a statement of the body of a loop before which nothing happens that can be noticed.
type prefix struct {
	*compiler
	members map[ir.Local]memberPart
	outside map[ir.Local]read // values that are the same for all members
	changed map[ir.Local]bool // locals that the body assigns somewhere
}

// conditions finds comparisons of a part of a member with a value from outside in the body of a loop.
func (c *compiler) conditions(s *ir.ScanStmt) (found []condition) {
	saved := c.known
	defer func() { c.known = saved }()
	p := prefix{c, map[ir.Local]memberPart{s.Key: {key: true}, s.Value: {}}, make(map[ir.Local]read), make(map[ir.Local]bool)}
	p.known = make(knowledge)
	for l, f := range saved {
		p.known[l] = f
	}
	p.known.forget(s)
	visitStatements([]*ir.Block{{Stmts: []ir.Stmt{s}}}, func(s ir.Stmt) {
		for _, l := range targets(s) {
			p.changed[l] = true
		}
	})
	for _, s := range s.Block.Stmts {
		if equal, ok := s.(*ir.EqualStmt); ok {
			if f, ok := p.condition(equal); ok {
				found = append(found, f)
			}
			continue
		}
		if !p.follow(s) {
			break
		}
	}
	return found
}

func (p *prefix) condition(s *ir.EqualStmt) (condition, bool) {
	for _, side := range [][2]ir.Operand{{s.A, s.B}, {s.B, s.A}} {
		l, ok := side[0].Value.(ir.Local)
		if !ok {
			continue
		}
		if of, ok := p.members[l]; ok {
			if value := p.fromOutside(side[1]); value != nil {
				return condition{of, value}, true
			}
		}
	}
	return condition{}, false
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

// follow goes on behind a statement. It returns false if the statement may do something that can be noticed.
func (p *prefix) follow(s ir.Stmt) bool {
	var of memberPart
	var isMember bool
	var value read
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		of, isMember = p.memberPart(s.Source)
		if p.factOf(s.Source).slot == nil {
			value = p.fromOutside(s.Source)
		}
	case *ir.DotStmt:
		name := p.value(s.Key)
		if of, isMember = p.memberPart(s.Source); isMember {
			isMember = name != nil
			if isMember {
				of = of.after(name)
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
			p.members[l] = of
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
	of, ok := p.members[l]
	return of, ok
}

// ruleOf reads the value of a rule without arguments, which is the same for all members. To evaluate it before the first member needs
// it may fail for nothing: then the evaluation is one of which the caller is not sure. It returns nil for other calls.
func (p *prefix) ruleOf(s *ir.CallStmt) read {
	number, ok := p.numbers[s.Func]
	if !ok || len(s.Args) > documents {
		return nil
	}
	fn, args := p.funcs[number], [2]read{p.inputArgument(s.Args[0]), p.operand(s.Args[1])}
	return func(f *frame) *ast.Term { return fn.apply(f.run, []*ast.Term{args[0](f), args[1](f)}) }
}
